"""Data and parameters together: honest features, resuming to the last bit, and what can go wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from divacli.backbones.backbone import Backbone
from divacli.backbones.load import load_backbone
from divacli.errors import DataError, DivaError, ModelError, StoreError
from divacli.manifest import Manifest, manifest_of, read_manifest
from divacli.solve.ridge_problem import SolveOptions
from divacli.training import crossfit
from divacli.training.command import classes_beside
from divacli.training.joint import HISTORY_COLUMNS, JointTraining
from divacli.training.train import TrainOptions, TrainResult, train
from divacli.training.trainee import StepOptions, Trainee

N = 60


@pytest.fixture
def trained(photos: Path, net: Callable[..., Backbone]) -> Callable[..., TrainResult]:
    """Train on the photos, with other options where they are given."""

    def run(manifest: Manifest | None = None, backbone: Backbone | None = None, **given: Any) -> TrainResult:
        mine = {name: given.pop(name) for name in list(given) if name in TrainOptions.__annotations__}
        solve = given.pop("solve", SolveOptions())
        options = TrainOptions(**{"epochs": 2, "batch_size": 16, "workers": 0, "size": 0.4, **mine})
        return train(
            read_manifest(str(photos)) if manifest is None else manifest,
            net() if backbone is None else backbone,
            options,
            solve,
            **given,
        )

    return run


def flipped(photos: Path, rate: float = 0.3, seed: int = 0) -> tuple[Manifest, np.ndarray]:
    """The photos with wrong labels, and which are wrong."""
    manifest = read_manifest(str(photos))
    generator = np.random.default_rng(seed)
    truth = manifest.class_numbers(manifest.classes)
    wrong = generator.permutation(N) < rate * N
    labels = np.where(wrong, (truth + generator.integers(1, 3, N)) % 3, truth)
    table = manifest.table.assign(label=[manifest.classes[label] for label in labels])
    return replace(manifest, table=table), wrong


def assert_same(first: TrainResult, second: TrainResult) -> None:
    """To the last bit, apart from the time it took."""
    pd.testing.assert_frame_equal(first.table, second.table, check_exact=True)
    pd.testing.assert_frame_equal(
        first.history.drop(columns="seconds"), second.history.drop(columns="seconds"), check_exact=True
    )
    assert list(first.state_dict) == list(second.state_dict)
    for name, tensor in first.state_dict.items():
        assert torch.equal(tensor, second.state_dict[name]), name


# What comes out


def test_the_result_is_a_network_and_weights(trained, photos, net, tmp_path):
    result = trained(test=read_manifest(str(photos)))
    assert list(result.history) == list(HISTORY_COLUMNS)
    assert result.history["step"].tolist() == [0, 4, 8]
    assert result.history["epoch"].tolist() == [0, 1, 2]
    assert result.history["lr"].tolist() == pytest.approx([0.005, 0.00293, 0], abs=1e-5)
    assert result.history["train_loss"].isna().tolist() == [True, False, False]
    assert result.classes == ["a", "b", "c"]
    assert result.table["path"].tolist() == read_manifest(str(photos)).table["path"].tolist()
    assert result.table["weight"].sum() == pytest.approx(N)
    assert (result.table["weight"] >= 0).all()
    # A factory with as many classes loads it, and plain PyTorch predicts what the history says.
    torch.save(result.state_dict, tmp_path / "model.pt")
    network = net("make_three", tmp_path / "model.pt").network
    network.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    data = read_manifest(str(photos))
    images = torch.stack([net().transform(Image.open(file)) for file in data.files()])
    wrong = network(images).argmax(dim=1).numpy() != data.class_numbers(result.classes)
    best = result.summary["best"]
    assert best["test_error"] == pytest.approx(wrong.mean())
    assert best["kfold_loss"] == result.history["kfold_loss"].min()
    assert best["test_class_error"] == pytest.approx(best["test_error"])  # classes are of one size


def test_training_helps_and_the_kfold_loss_knows(trained):
    history = trained(epochs=5, size=0.0).history
    assert history["kfold_loss"].iloc[-1] < history["kfold_loss"].iloc[0] - 0.1
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[1]


def test_wrong_labels_lose_weight(trained, photos):
    manifest, wrong = flipped(photos, seed=2)
    weights = trained(manifest, epochs=3).table["weight"].to_numpy()
    assert weights[wrong].mean() < 0.6 * weights[~wrong].mean()


def test_constant_weights_stay_as_they_were_given(trained, photos):
    manifest = read_manifest(str(photos))
    given = np.linspace(0, 2, N)
    manifest = replace(manifest, table=manifest.table.assign(weight=given))
    result = trained(manifest, size=0.0)
    assert result.table["weight"].tolist() == given.tolist()
    assert (result.history["step_size"] == 0).all()


def test_the_weights_reach_the_training_loss(trained, photos):
    """Samples of weight 0 in one class: the network never learns it, whatever else is equal."""
    manifest = read_manifest(str(photos))
    without = replace(
        manifest, table=manifest.table.assign(weight=(manifest.table["label"] != "c").astype(float))
    )
    many = {"epochs": 5, "size": 0.0, "patience": 99, "test": manifest}
    last = {
        name: trained(data, **many).history["test_class_error"].iloc[-1]
        for name, data in {"all": manifest, "without": without}.items()
    }
    assert last["without"] > 0.33 > last["all"]


def test_losses_are_means_over_what_each_network_is_trained_on(trained, monkeypatch):
    calls: list[tuple[int, int, float]] = []
    step = Trainee.step

    def noted(learner: Trainee, images: torch.Tensor, *given: Any) -> float:
        calls.append((int(learner.member.sum()), len(images), given[-1]))
        return step(learner, images, *given)

    monkeypatch.setattr(Trainee, "step", noted)
    trained(epochs=1, size=0.0)
    for members in (N, N // 2):
        mine = [(images, n) for member, images, n in calls if member == members]
        networks = 1 if members == N else 2
        assert sum(images for images, _ in mine) == networks * members
        assert sum(n for _, n in mine) == pytest.approx(networks * members)


def test_weights_move_at_the_steps_asked_for(trained):
    assert trained(reweight_every=3).history["step"].tolist() == [0, 3, 6, 8]
    assert trained(reweight_every=100).history["step"].tolist() == [0, 8]


def test_balanced_classes_start_with_equal_weight(trained, photos):
    manifest = read_manifest(str(photos))
    rows = np.flatnonzero((manifest.table["label"] != "c") | (np.arange(N) % 3 == 0))
    few = manifest.select(rows)
    result = trained(few, size=0.0, solve=SolveOptions(balanced=True))
    sums = result.table.groupby("label")["weight"].sum()
    assert sums.tolist() == pytest.approx([len(few.table) / 3] * 3)


@pytest.fixture
def kfold_losses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the K-fold loss of each row be a given number."""

    improved = crossfit._improved

    def let(*losses: float) -> None:
        halves = iter([loss for loss in losses for _ in range(2)])
        monkeypatch.setattr(
            crossfit, "_improved", lambda *given: replace(improved(*given), kfold_loss=next(halves))
        )

    return let


def test_training_stops_when_the_kfold_loss_has_not_fallen_for_so_long(trained, kfold_losses):
    kfold_losses(1.0, 0.9, 0.95, 0.9)
    result = trained(epochs=9, patience=2)
    assert result.history["step"].tolist() == [0, 4, 8, 12]
    assert result.summary["stopped_early"]
    assert result.summary["best"]["step"] == 4


def test_the_row_with_the_lowest_kfold_loss_is_kept(trained, kfold_losses):
    results = []
    for losses in ((0.4, 0.5, 0.7), (1.0, 0.5, 0.7), (1.0, 0.5, 0.4)):
        kfold_losses(*losses)
        results.append(trained())
        assert results[-1].history["kfold_loss"].tolist() == pytest.approx(losses)
        assert not results[-1].summary["stopped_early"]
    assert [result.summary["best"]["step"] for result in results] == [0, 4, 8]
    # One training: only what is kept of it differs.
    first, second, third = results
    assert first.history["train_loss"][2] == second.history["train_loss"][2] == third.history["train_loss"][2]
    for one, other in ((first, second), (second, third)):
        assert not torch.equal(one.state_dict["fc.weight"], other.state_dict["fc.weight"])
    assert not first.table.equals(second.table)
    assert second.table.equals(third.table)  # the last row moves no weights: nothing is trained on them
    for result in results:
        assert float((result.table["weight"] == 0).mean()) == result.summary["best"]["zero"]


# Honest features


@pytest.fixture
def fixed_halves(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Halves that do not depend on labels."""
    halves = torch.arange(N) // 3 % 2
    monkeypatch.setattr(crossfit, "split_in_folds", lambda *_: halves)
    return halves


@pytest.fixture
def seen_features(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The features of every ridge problem that was posed, two (halves) at a time."""
    seen: list[torch.Tensor] = []
    pose = crossfit._problem

    def note(samples: Any, solve: SolveOptions) -> Any:
        seen.append(samples.features[:])
        return pose(samples, solve)

    monkeypatch.setattr(crossfit, "_problem", note)
    return seen


def test_a_sample_is_weighed_by_features_that_have_not_seen_its_label(
    trained, photos, fixed_halves, seen_features
):
    manifest = read_manifest(str(photos))
    labels = manifest.table["label"].to_numpy(object)
    ones = np.flatnonzero(fixed_halves.numpy() == 0)
    other = labels.copy()
    other[ones] = np.roll(labels[ones], 1)  # the classes' sizes, and so all heads of half 1, stay
    networks = []
    for given in (labels, other):
        result = trained(
            replace(manifest, table=manifest.table.assign(label=given)),
            size=0.0,
            epochs=2,
            patience=99,
            steps=StepOptions(lr=0.05),
        )
        networks.append(result.state_dict["hidden.weight"])
    first, second = seen_features[: len(seen_features) // 2], seen_features[len(seen_features) // 2 :]
    assert len(first) == len(second) == 2 * 3
    for row in range(3):
        assert torch.equal(first[2 * row], second[2 * row])  # half 0: labels changed, features not
        if row:
            assert not torch.equal(first[2 * row + 1], second[2 * row + 1])  # half 1: the twin saw them
    assert not torch.equal(*networks)


def test_the_kfold_loss_does_not_believe_what_was_learned_by_heart(trained, photos, monkeypatch):
    """Labels at random: the network learns them, and no loss below guessing is honest."""
    manifest = read_manifest(str(photos))
    generator = np.random.default_rng(0)
    noise = replace(manifest, table=manifest.table.assign(label=generator.choice(list("abc"), N)))
    given = {"size": 0.0, "epochs": 40, "reweight_every": 160, "steps": StepOptions("adamw", 0.01)}
    honest = trained(noise, **given).history
    assert honest["train_loss"].iloc[-1] < 0.8
    assert honest["kfold_loss"].iloc[-1] > np.log(3) - 0.05
    # Features of the network itself would say that the labels can be told from the images.
    monkeypatch.setattr(JointTraining, "_twins_features", own_features)
    assert trained(noise, **given).history["kfold_loss"].iloc[-1] < 0.5


def own_features(run: Any) -> torch.Tensor:
    found = torch.empty(len(run._rows), run._main.head.in_features)
    with torch.no_grad():
        for rows, batch in run._images.batches(run._rows):
            found[run._place[rows]] = run._main.features(batch)
    return found


def test_groups_are_in_one_half_as_a_whole(trained, photos, monkeypatch):
    manifest = read_manifest(str(photos))
    groups = [f"g{row // 4}" for row in range(N)]
    manifest = replace(manifest, table=manifest.table.assign(group=groups))
    seen = []
    pose = crossfit._problem

    def note(samples: Any, solve: SolveOptions) -> Any:
        seen.append(set(samples.manifest.table["group"]))
        return pose(samples, solve)

    monkeypatch.setattr(crossfit, "_problem", note)
    trained(manifest, epochs=1)
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(groups)


def test_the_kfold_loss_of_random_labels_stays_where_it_is_whatever_the_weights_do(trained, photos):
    """With a network that stays as it is, too. Weights that every label has moved would make it fall."""
    manifest = read_manifest(str(photos))
    labels = np.random.default_rng(2).choice(list("abc"), N)
    noise = replace(manifest, table=manifest.table.assign(label=labels))
    still = {"patience": 9, "steps": StepOptions(lr=1e-12)}
    result = trained(noise, size=0.4, epochs=4, **still)
    history = result.history
    assert (history["step_size"].iloc[:-1] == 0.4).all()
    assert history["kfold_loss"].min() > history["kfold_loss"].iloc[0] - 0.02
    # A training that is given these weights takes them for weights that no label has moved.
    given = replace(noise, table=result.table)
    again = trained(given, size=0.0, epochs=1, **still).history
    assert again["kfold_loss"].iloc[0] < history["kfold_loss"].min() - 0.04


def test_a_resumed_training_knows_what_weights_would_be_without_each_fold(trained, photos, tmp_path):
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint=file, epochs=3, progress=interrupting("epoch 3", 16))
    state = torch.load(file, weights_only=True)["state"]
    assert [one.shape for one in state["without"]] == [(5, N // 2)] * 2
    for one in state["without"]:
        assert ((one == 0).sum(dim=0) >= 1).all()  # in its own fold's walk


# The same result


def test_the_same_seed_gives_the_same_result_whatever_the_workers(trained, tmp_path_factory, write_images):
    folder = tmp_path_factory.mktemp("many")
    write_images(folder, [row % 3 for row in range(72)], seed=2)  # enough for worker processes
    manifest = read_manifest(str(folder))
    alone = trained(manifest, batch_size=8)
    assert_same(alone, trained(manifest, batch_size=8, workers=2))
    other = trained(manifest, batch_size=8, solve=SolveOptions(seed=1))
    assert not torch.equal(other.state_dict["fc.weight"], alone.state_dict["fc.weight"])


def test_the_order_of_the_rows_changes_nothing(trained, photos):
    manifest = read_manifest(str(photos))
    shuffled = manifest.select(np.random.default_rng(0).permutation(N))
    first, second = trained(manifest), trained(shuffled)
    joined = first.table.merge(second.table, on="path")
    np.testing.assert_allclose(joined["weight_x"], joined["weight_y"], atol=1e-4)
    np.testing.assert_allclose(first.history["train_loss"], second.history["train_loss"], rtol=1e-4)


def interrupting(at: str, after: int) -> Any:
    """A progress that presses Ctrl-C in a step of work, once so much of it is done."""
    so_far, pressed = 0, False

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
        def advance(done: int) -> None:
            nonlocal so_far, pressed
            so_far += done * what.startswith(at)
            if so_far >= after and not pressed:
                pressed = True
                os.kill(os.getpid(), signal.SIGINT)

        yield advance

    return progress


@pytest.mark.parametrize(
    ("at", "after", "step"),
    [("epoch 1", 16, 1), ("epoch 2", 48, 7), ("epoch 1", N, 4), ("testing", 1, None), ("reading", 1, None)],
)
def test_an_interrupted_training_goes_on_to_the_same_end(at, after, step, trained, photos, tmp_path):
    file = tmp_path / "checkpoint.pt"
    given = {"reweight_every": 3, "test": read_manifest(str(photos))}
    whole = trained(**given)
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint=file, progress=interrupting(at, after), **given)
    if step is None:
        assert not file.exists()
    else:
        assert torch.load(file, weights_only=True)["state"]["step"] == step
    told: list[str] = []
    resumed = trained(checkpoint=file, told=told.append, **given)
    assert_same(whole, resumed)
    assert any("going on from" in sentence for sentence in told) == (step is not None)


def test_an_interruption_while_weighing_goes_on_to_the_same_end(trained, tmp_path):
    file = tmp_path / "checkpoint.pt"
    whole = trained(size=None)
    for at, after in (("epoch 1", N), ("weighing", 7), ("embedding", 40)):
        with pytest.raises(KeyboardInterrupt):
            trained(size=None, checkpoint=file, progress=interrupting(at, after))
        assert torch.load(file, weights_only=True)["state"]["step"] == 4
    assert_same(whole, trained(size=None, checkpoint=file))


def test_a_finished_training_is_not_done_again(trained, tmp_path):
    file = tmp_path / "checkpoint.pt"
    first = trained(checkpoint=file)
    told: list[str] = []
    steps: list[str] = []

    @contextmanager
    def noted(what: str, total: int) -> Iterator[Callable[[int], None]]:
        steps.append(what)
        yield lambda done: None

    second = trained(checkpoint=file, told=told.append, progress=noted)
    assert_same(first, second)
    assert steps == ["reading"]
    assert any("this training is finished" in sentence for sentence in told)
    assert first.summary["head"] == second.summary["head"] == "fresh"
    third = trained(checkpoint=file, restart=True, solve=SolveOptions(seed=1))
    assert not torch.equal(third.state_dict["fc.weight"], first.state_dict["fc.weight"])


def test_a_checkpoint_of_another_training_is_refused_by_what_differs(trained, photos, tmp_path, net):
    file = tmp_path / "checkpoint.pt"
    trained(checkpoint=file)
    with pytest.raises(StoreError, match=r"different: --lr \(0.005 there, 0.01 now\)") as caught:
        trained(checkpoint=file, steps=StepOptions(lr=0.01))
    assert "--restart" in caught.value.hint
    with pytest.raises(StoreError, match="different: DATA\n"):
        trained(flipped(photos)[0], checkpoint=file)
    with pytest.raises(StoreError, match="different: the network\n"):
        trained(backbone=net("make_plain"), checkpoint=file)
    with pytest.raises(StoreError, match=r"--test.*--epochs \(2 there, 3 now\), --seed \(0 there, 4 now\)"):
        trained(checkpoint=file, epochs=3, solve=SolveOptions(seed=4), test=read_manifest(str(photos)))


def test_a_damaged_checkpoint_is_refused(trained, tmp_path):
    file = tmp_path / "checkpoint.pt"
    trained(checkpoint=file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(StoreError, match=r"checkpoint\.pt cannot be read"):
        trained(checkpoint=file)
    trained(checkpoint=file, restart=True)
    trained(checkpoint=file)


# The head


def predicted(network: Backbone, manifest: Manifest) -> torch.Tensor:
    """The output (n,) that the network finds largest, once its bias is such that all three occur."""
    images = torch.stack([network.transform(Image.open(file)) for file in manifest.files()])
    with torch.no_grad():
        network.network.fc.bias -= network.network(images).mean(dim=0)
        numbers = network.network(images).argmax(dim=1)
    assert len(numbers.unique()) == 3
    return numbers


def test_a_head_for_other_classes_gives_way(trained, net, photos):
    def head(name: str, manifest: Manifest | None = None, **known: Any) -> str:
        return trained(manifest, net(name), epochs=1, **known).summary["head"]

    assert head("make") == "fresh"
    assert head("make", known_classes=[*"abcdefg"]) == "fresh"
    # Random weights: worse than what the features say, which is looked at where nothing is known.
    assert head("make_three") == "fresh"
    assert head("make_three", known_classes=["a", "b", "c"]) == "kept"
    assert head("make_three", known_classes=["a", "c", "x"]) == "fresh"
    assert head("make_three", known_classes=["a", "c", "b"]) == "kept"
    # One that is right about every label stays; with the labels moved on it is wrong about every one.
    manifest = read_manifest(str(photos))
    network = net("make_three")
    numbers = predicted(network, manifest)
    for step, expected in ((0, "kept"), (1, "fresh")):
        labels = [f"class {number}" for number in (numbers + step) % 3]
        data = replace(manifest, table=manifest.table.assign(label=labels))
        assert trained(data, network, epochs=1, steps=StepOptions(lr=1e-9)).summary["head"] == expected


@pytest.mark.parametrize("known", [None, ["1", "10", "2"]])
def test_a_head_that_stays_is_put_into_the_order_of_the_classes(trained, net, photos, known):
    manifest, network = read_manifest(str(photos)), net("make_three")
    numbers = predicted(network, manifest)
    before = {part: getattr(network.network.fc, part).detach().clone() for part in ("weight", "bias")}
    # As ImageFolder numbers folders of these names: as text.
    labels = [["1", "10", "2"][number] for number in numbers]
    data = replace(manifest, table=manifest.table.assign(label=labels))
    said: list[str] = []
    result = trained(
        data, network, epochs=1, steps=StepOptions(lr=1e-9), known_classes=known, told=said.append
    )
    assert (result.summary["head"], result.classes) == ("kept", ["1", "2", "10"])
    for part, values in before.items():
        torch.testing.assert_close(result.state_dict[f"fc.{part}"], values[[0, 2, 1]], rtol=0, atol=1e-5)
    [note] = [sentence for sentence in said if "are put into" in sentence]
    assert "1, 10, 2. They agree with 100.0% of the labels so" in note


def test_a_head_without_a_bias_stays_so(trained, net):
    result = trained(backbone=net("make_plain"))
    assert "fc.bias" not in result.state_dict
    assert result.state_dict["fc.weight"].shape == (3, 24)


def test_the_classes_of_a_model_lie_beside_it(tmp_path):
    assert classes_beside(None) is None
    assert classes_beside(tmp_path / "model.pt") is None
    for content in ("{", "[]", '{"classes": 3}', "{}"):
        (tmp_path / "model.json").write_text(content)
        assert classes_beside(tmp_path / "model.pt") is None
    (tmp_path / "model.json").write_text('{"classes": ["b", "a"]}')
    assert classes_beside(tmp_path / "model.pt") == ["b", "a"]


# What can go wrong


def test_damaged_images_are_left_out_before_training(trained, photos, tmp_path, write_images):
    write_images(tmp_path / "photos", [row % 3 for row in range(30)], seed=4)
    (tmp_path / "photos" / "b" / "broken.png").write_bytes(b"none")
    (tmp_path / "photos" / "a" / "cut.png").write_bytes(b"")
    manifest = read_manifest(str(tmp_path / "photos"))
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(manifest, checkpoint=file, progress=interrupting("epoch 1", 16))
    resumed = trained(manifest, checkpoint=file)
    assert sorted(resumed.failed["path"]) == ["a/cut.png", "b/broken.png"]
    assert len(resumed.table) == 30
    assert_same(trained(manifest), resumed)
    with pytest.raises(DataError, match=r"2 of its images cannot be decoded: a/cut\.png"):
        trained(manifest, strict=True)


def test_a_file_that_changes_meanwhile_ends_the_training(trained, tmp_path, write_images):
    write_images(tmp_path / "photos", [row % 3 for row in range(30)], seed=4)
    victim = tmp_path / "photos" / "a" / "000.png"

    @contextmanager
    def tampering(what: str, total: int) -> Iterator[Callable[[int], None]]:
        if what.startswith("epoch 1"):
            victim.write_bytes(b"other")
        yield lambda done: None

    with pytest.raises(DataError, match=r"a/000\.png \(it changed while it was being read\)"):
        trained(read_manifest(str(tmp_path / "photos")), progress=tampering)


def test_too_few_usable_images(trained, tmp_path, write_images):
    write_images(tmp_path / "photos", [0, 1, 0, 1], seed=4)
    for file in (tmp_path / "photos" / "b").iterdir():
        file.write_bytes(b"none")
    with pytest.raises(DataError, match="2 of its images cannot be decoded"):
        trained(read_manifest(str(tmp_path / "photos")))


def test_test_images_that_cannot_be_used_are_told_of_or_refused(trained, write_images, tmp_path):
    write_images(tmp_path / "test", [row % 3 for row in range(30)], seed=4)
    files = sorted((tmp_path / "test").rglob("*.png"))
    for file in files[:15]:
        file.write_bytes(b"none")
    said: list[str] = []
    result = trained(test=read_manifest(str(tmp_path / "test")), told=said.append)
    told = [sentence for sentence in said if "test images" in sentence]
    assert len(told) == 1
    assert told[0].startswith("15 test images cannot be used and are left out: 15 .png (not an")
    assert result.summary["n_test"] == 15
    assert result.history["test_error"].notna().all()
    with pytest.raises(DataError, match="15 of its images cannot be decoded"):
        trained(test=read_manifest(str(tmp_path / "test")), strict=True)
    for file in files:
        file.write_bytes(b"none")
    with pytest.raises(DataError, match="30 of its images cannot be decoded"):
        trained(test=read_manifest(str(tmp_path / "test")))


def test_batches_in_which_a_twin_has_nothing_are_no_matter(trained, photos, net):
    """Networks that cannot take an empty batch; 61 images by 4 leave batches to one half alone."""
    backbone = net("make_viewing")
    history = trained(backbone=backbone, batch_size=2, epochs=1, workers=0).history
    assert history["kfold_loss"].notna().all()


def test_test_images_that_are_trained_on_are_told_of(trained, photos):
    manifest = read_manifest(str(photos))
    said: list[str] = []
    trained(manifest.select(np.arange(N) % 6 != 5), test=manifest, told=said.append, epochs=1)
    assert "50 of the 60 test images are trained on, too: the test flatters" in said
    del said[:]
    half = np.arange(N) % 2 == 0
    trained(manifest.select(half), test=manifest.select(~half), told=said.append, epochs=1)
    assert not any("flatters" in sentence for sentence in said)


def test_classes_of_one_image_are_named(trained, photos):
    manifest = read_manifest(str(photos))
    labels = manifest.table["label"].where(np.arange(N) > 0, "lonely")
    said: list[str] = []
    trained(replace(manifest, table=manifest.table.assign(label=labels)), told=said.append, epochs=1)
    assert "classes of a single image, which cannot be judged: lonely" in said


def test_the_head_alone_is_not_worth_training(trained):
    with pytest.raises(ModelError, match="--trainable fc: that is the head alone"):
        trained(trainable="fc")


def test_what_is_trained_is_counted_with_the_head_for_the_classes(trained):
    said: list[str] = []
    result = trained(told=said.append)
    assert result.summary["n_trained"] == 128 * 24 + 24 + 24 * 3 + 3
    assert f"training {result.summary['n_trained']:,} of" in " ".join(said)


def test_the_training_loss_is_a_mean_over_samples(trained):
    """Of a network that stays as it is, in batches of unequal size."""
    still = {"size": 0.0, "steps": StepOptions(lr=1e-12), "epochs": 3}
    losses = trained(batch_size=16, **still).history["train_loss"].iloc[1:]
    assert losses.tolist() == pytest.approx([losses.iloc[0]] * 3, rel=1e-5)
    whole = trained(batch_size=N, **still).history["train_loss"]
    assert whole.iloc[1] == pytest.approx(losses.iloc[0], rel=1e-5)


def test_a_half_of_one_class(trained, photos):
    table = pd.DataFrame({"path": ["a/000.png", "b/001.png", "a/003.png"], "label": ["a", "b", "a"]})
    with pytest.raises(DataError, match="has a single class"):
        trained(manifest_of(table, photos))


def test_samples_that_bring_their_features(trained, photos):
    manifest = read_manifest(str(photos))
    manifest = replace(manifest, table=manifest.table.assign(feature_source="store"))
    with pytest.raises(DataError, match="brings its features: there are no images"):
        trained(manifest)


def test_labels_of_the_test_set_are_checked_before_any_work(trained, photos):
    test = read_manifest(str(photos))
    test = replace(test, table=test.table.assign(label=test.table["label"].replace("c", "d")))
    done: list[str] = []

    @contextmanager
    def noted(what: str, total: int) -> Iterator[Callable[[int], None]]:
        done.append(what)
        yield lambda done: None

    with pytest.raises(DataError, match="labels that the training samples lack: d"):
        trained(test=test, progress=noted)
    assert not done


def test_a_loss_that_is_not_finite(trained):
    with pytest.raises(DivaError, match=r"diverged: the training loss is (nan|inf), with") as caught:
        trained(steps=StepOptions(lr=1e20, clip_norm=1e20))
    assert "--lr 1e+19" in caught.value.hint
    assert "--restart" in caught.value.hint


def test_networks_that_cannot_be_trained(trained, net, tmp_path):
    with pytest.raises(ModelError, match="is not the network's output"):
        trained(backbone=net("make_deep"))
    script = torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16, 4)).eval())
    archive = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), script)
    torch.jit.script(archive).save(str(tmp_path / "model.ts"))
    with pytest.raises(ModelError, match="was exported to be run, not trained"):
        trained(backbone=load_backbone(None, tmp_path / "model.ts"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("hiden", "no layer 'hiden'"), ("dropout", "--trainable dropout: .* has no parameters there")],
)
def test_parts_that_cannot_be_trained(name, message, trained):
    with pytest.raises(ModelError, match=message):
        trained(trainable=name)


def test_out_of_memory_says_what_to_do(trained, monkeypatch):
    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("divacli.training.trainee.functional.cross_entropy", exhausted)
    with pytest.raises(ModelError, match="out of memory on cpu with 16 images") as caught:
        trained()
    assert "--batch-size 8" in caught.value.hint


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("amp", [True, False])
def test_on_cuda(amp, trained, photos):
    solve = SolveOptions(device=torch.device("cuda"))
    steps = StepOptions(lr=0.02, amp=amp)
    result = trained(solve=solve, steps=steps, epochs=6, test=read_manifest(str(photos)))
    assert result.history["train_loss"].iloc[-1] < result.history["train_loss"].iloc[1]
    assert all(tensor.device.type == "cpu" for tensor in result.state_dict.values())
