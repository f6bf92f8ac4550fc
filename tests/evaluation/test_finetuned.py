"""Fine-tuning as a learner: it is the training of `diva train` with constant weights, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from divacli.backbones.backbone import Backbone
from divacli.errors import DataError, DivaError, ModelError
from divacli.evaluation.evaluate import TrainingSet, measure
from divacli.evaluation.finetune_learner import FinetuneLearner
from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples
from divacli.manifest import read_manifest
from divacli.solve.ridge_problem import SolveOptions
from divacli.training import crossfit
from divacli.training.train import TrainOptions, train
from divacli.training.trainee import StepOptions

HOW = {"epochs": 3, "batch_size": 16, "workers": 0, "steps": StepOptions("adamw", 0.01)}


@pytest.fixture
def choice(net: Callable[..., Backbone], tmp_path: Path) -> BackboneChoice:
    return BackboneChoice(f"{tmp_path / 'net.py'}:make")


@pytest.fixture
def samples(choice: BackboneChoice, photos: Path, tmp_path: Path) -> Samples:
    return load_samples(str(photos), choice, ExtractOptions(torch.device("cpu")), tmp_path / "cache")


@pytest.fixture
def others(choice: BackboneChoice, write_images: Callable[..., None], tmp_path: Path) -> Samples:
    """Harder ones, so that small differences show."""
    write_images(tmp_path / "others", [row % 3 for row in range(240)], seed=9, noise=205)
    options = ExtractOptions(torch.device("cpu"))
    return load_samples(str(tmp_path / "others"), choice, options, tmp_path / "cache")


def weighted(samples: Samples, weights: np.ndarray) -> Samples:
    manifest = replace(samples.manifest, table=samples.manifest.table.assign(weight=weights))
    return replace(samples, manifest=manifest)


@pytest.mark.parametrize("seed", [0, 1])
def test_predictions_are_those_of_training_with_constant_weights(
    samples, choice, net, photos, others, monkeypatch, seed
):
    """Whose last row is kept here: this learner does not stop early."""
    losses = iter(np.repeat(-np.arange(4.0), 2))
    improved = crossfit._improved
    monkeypatch.setattr(
        crossfit, "_improved", lambda *given: replace(improved(*given), kfold_loss=next(losses))
    )
    weights = np.linspace(0.1, 2, len(samples))
    solve = SolveOptions(seed=seed)
    manifest = read_manifest(str(photos))
    backbone = net()
    result = train(
        replace(manifest, table=manifest.table.assign(weight=weights)),
        backbone,
        TrainOptions(**HOW, size=0.0),
        solve,
    )
    assert result.summary["best"]["step"] == 12
    images = [backbone.transform(Image.open(file)) for file in others.manifest.files()]
    expected = backbone.network(torch.stack(images)).argmax(dim=1).numpy()
    learner = FinetuneLearner(choice, solve, **HOW)
    found = learner(weighted(samples, weights), others, seed)
    assert found.tolist() == np.array(result.classes, dtype=object)[expected].tolist()
    # Negative control: other weights lead elsewhere.
    other = learner(weighted(samples, weights[::-1].copy()), others, seed)
    assert other.tolist() != found.tolist()


def test_every_training_begins_with_the_same_network(samples, choice):
    learner = FinetuneLearner(choice, SolveOptions(), **HOW)
    before = {name: tensor.clone() for name, tensor in choice.backbone.network.state_dict().items()}
    first = learner(samples, samples, 0)
    learner(samples.select(np.arange(40)), samples, 3)
    for name, tensor in choice.backbone.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert learner(samples, samples, 0).tolist() == first.tolist()


def test_training_shows(samples, choice):
    """Learned by heart, and one class fewer where the set has one fewer."""
    learner = FinetuneLearner(choice, SolveOptions(), **{**HOW, "epochs": 30}, trainable="all")
    truth = samples.manifest.table["label"].to_numpy()
    assert (learner(samples, samples, 0) == truth).mean() > 0.95
    few = samples.select(truth != "c")
    assert set(replace(learner, epochs=1)(few, samples, 0)) == {"a", "b"}


def test_an_evaluation_runs_it_once_a_seed(samples, choice):
    learner = FinetuneLearner(choice, SolveOptions(), **{**HOW, "epochs": 1})
    half = TrainingSet("half", samples.select(np.arange(30)))
    drawn = TrainingSet("drawn", samples.select(np.arange(20, 50)), 1)
    table = measure([TrainingSet("everything", samples), half, drawn], samples, [learner], [0, 1])
    assert table["learner"].unique().tolist() == ["finetune"]
    assert list(zip(table["training_set"], table["seed"], strict=True)) == [
        *(("everything", seed) for seed in (0, 1)),
        *(("half", seed) for seed in (0, 1)),
        ("drawn", 1),
    ]


def test_what_cannot_be_fine_tuned(samples, choice, gaussian, net, tmp_path):
    with pytest.raises(DataError, match="brings its features"):
        FinetuneLearner(choice, SolveOptions(), **HOW)(gaussian(d=24), samples, 0)
    with pytest.raises(ModelError, match="no layer 'nowhere'"):
        FinetuneLearner(choice, SolveOptions(), trainable="nowhere").check()
    with pytest.raises(ModelError, match="is not the network's output"):
        FinetuneLearner(BackboneChoice(f"{tmp_path / 'net.py'}:make_deep"), SolveOptions()).check()
    wild = {**HOW, "steps": StepOptions("sgd", 1e30, clip_norm=1e30)}
    with pytest.raises(DivaError, match="diverged"):
        FinetuneLearner(choice, SolveOptions(), **wild)(samples, samples, 0)
