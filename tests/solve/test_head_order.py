"""Which class each output of a trained head stands for: found, told, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.curate.extend import ExtendOptions, extend
from divacli.curate.sample_scores import score
from divacli.errors import ModelError
from divacli.features import Samples
from divacli.run_record import Run, running
from divacli.solve import head_order
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.weight_problem import pose_problem

K, D = 12, 16
NAMES = [str(number) for number in range(K)]
IMAGE_FOLDER = sorted(NAMES)
OPTIONS = SolveOptions(around_head=True, scaling="none")

CENTRES = 3 * np.random.default_rng(5).normal(size=(K, D))
HEAD = (torch.from_numpy(CENTRES / 50).float(), torch.from_numpy(-(CENTRES**2).sum(1) / 100).float())
"""Row c knows class c."""


def headed(samples: Samples, order: list[str]) -> Samples:
    """Samples whose network's outputs stand for classes in this order."""
    rows = [int(name) for name in order]
    return replace(samples, head=(HEAD[0][rows], HEAD[1][rows]))


@pytest.fixture
def twelve(tmp_path: Path, load: Callable) -> Callable[..., Samples]:
    """Samples of the classes 0 to 11, some labels wrong, a head in an order."""

    def make(
        n: int = 360,
        order: list[str] = NAMES,
        wrong: float = 0.0,
        spread: float = 1.0,
        seed: int = 0,
        name: str = "x",
    ) -> Samples:
        generator = np.random.default_rng(seed)
        truth = np.arange(n) % K
        labels = np.where(generator.random(n) < wrong, (truth + generator.integers(1, K, n)) % K, truth)
        features = CENTRES[truth] + spread * generator.normal(size=(n, D))
        paths = np.array([f"{name}{row:04d}" for row in range(n)])
        np.savez(
            tmp_path / f"{name}.npz",
            embedding=features.astype(np.float32),
            label=labels.astype(str),
            path=paths,
        )
        return headed(load(tmp_path / f"{name}.npz"), order)

    return make


@pytest.fixture
def told() -> Callable[[], list[str]]:
    """What was told while a run is the current one."""
    sentences: list[str] = []
    with running(Run(tell=sentences.append)):
        yield sentences  # type: ignore[misc]


def without_times(summary: dict) -> dict:
    return {name: value for name, value in summary.items() if name != "seconds"}


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_a_head_of_image_folder_scores_as_one_in_the_order_of_the_numbers(twelve, told, loss):
    options = replace(OPTIONS, loss=loss)
    expected = score(twelve(order=NAMES), options, twelve(60, NAMES, seed=1, name="v"))
    assert told == []
    found = score(twelve(order=IMAGE_FOLDER), options, twelve(60, IMAGE_FOLDER, seed=1, name="v"))
    pd.testing.assert_frame_equal(found.table, expected.table, check_exact=True)
    assert without_times(found.summary) == without_times(expected.summary)
    assert found.summary["loo_error"] < 0.01
    assert found.summary["validation_error"] < 0.02
    [note] = told
    assert "order of torchvision's ImageFolder: 0, 1, 10, 11, 2 and 7 more" in note
    assert "of the labels so, and with 16.7% in the order 0, 1, 2, 3, 4" in note


def test_core_pool_and_validation_set_have_the_order_of_the_core(twelve, told):
    def extended(order: list[str]) -> pd.DataFrame:
        core, pool, judged = (
            twelve(72, order),
            twelve(120, order, 0.2, seed=1, name="p"),
            twelve(36, order, name="v"),
        )
        # Labels of another order, which the core must not take.
        options = replace(OPTIONS, loss="robust-cross-entropy")
        return extend(core, pool, options, ExtendOptions(budget=20), judged).selected

    pd.testing.assert_frame_equal(extended(IMAGE_FOLDER), extended(NAMES), check_exact=True)
    assert len(told) == 1


def test_a_problem_of_weights_has_it_too(twelve):
    found, expected = (
        pose_problem(twelve(order=order), OPTIONS, twelve(60, order, name="v"))
        for order in (IMAGE_FOLDER, NAMES)
    )
    assert found.ridge == expected.ridge
    for one, other in ((found.task, expected.task), (found.validation, expected.validation)):
        assert torch.equal(one.batch(slice(0, 50)).targets, other.batch(slice(0, 50)).targets)


def test_another_order_is_refused_and_named(twelve):
    order = [NAMES[place] for place in np.random.default_rng(3).permutation(K)]
    with pytest.raises(ModelError, match="in another order with") as caught:
        score(twelve(order=order, wrong=0.2), OPTIONS)
    assert f"mostly come with the labels {', '.join(order)}" in str(caught.value)
    assert "leave --around-head out" in " ".join(caught.value.typed_parts)


def test_two_classes_that_changed_places_are_refused(twelve):
    order = [*NAMES[:3], "4", "3", *NAMES[5:]]
    with pytest.raises(ModelError, match="labels 0, 1, 2, 4, 3, 5"):
        score(twelve(order=order), OPTIONS)


def test_an_output_that_nothing_is_known_of(twelve):
    samples = twelve(order=NAMES[::-1])
    samples.head[1][4] = -1000
    with pytest.raises(ModelError, match=r"labels 11, 10, 9, 8, \?, 6"):
        score(samples, OPTIONS)


@pytest.mark.parametrize("seed", range(8))
def test_an_untrained_head_is_refused(twelve, seed):
    torch.manual_seed(seed)
    with pytest.raises(ModelError, match="--around-head: the network's outputs agree with"):
        score(replace(twelve(), head=(torch.randn(K, D) / 4, torch.randn(K) / 4)), OPTIONS)


def test_a_head_that_always_says_the_same_is_refused(twelve):
    samples = twelve()
    samples.head[1][7] = 1000
    with pytest.raises(ModelError, match=r"agree with 8\.3% of the labels, and chance alone gives 8\.3%"):
        score(samples, OPTIONS)


@pytest.mark.parametrize("order", [NAMES, IMAGE_FOLDER], ids=["numbers", "ImageFolder"])
@pytest.mark.parametrize("wrong", [0.2, 0.4, 0.6])
def test_wrong_labels_are_no_reason_to_refuse(twelve, told, order, wrong):
    score(twelve(order=order, wrong=wrong, spread=2.0), OPTIONS)
    assert len(told) == (order != NAMES)


def test_labels_that_people_confuse_are_no_reason_to_refuse(twelve):
    samples = twelve()
    label = samples.manifest.table["label"].astype(int)
    confused = np.random.default_rng(0).random(len(label)) < 0.4
    table = samples.manifest.table.assign(label=((label + confused) % K).astype(str))
    score(replace(samples, manifest=replace(samples.manifest, table=table)), OPTIONS)


def test_samples_of_no_weight_do_not_count(twelve):
    samples = twelve(order=IMAGE_FOLDER)
    table = samples.manifest.table.copy()
    table.loc[100:, "label"] = [*NAMES, *("3" for _ in range(len(table) - 112))]
    table.loc[100:, "weight"] = 0.0
    changed = replace(samples, manifest=replace(samples.manifest, table=table))
    weight, _ = head_order.ordered_head(changed, labels_of(changed), NAMES)
    assert torch.equal(weight, HEAD[0])
    # Where none has any they all count.
    table["weight"], table["label"] = 0.0, samples.manifest.table["label"]
    assert torch.equal(head_order.ordered_head(changed, labels_of(changed), NAMES)[0], HEAD[0])


def labels_of(samples: Samples) -> torch.Tensor:
    return torch.from_numpy(samples.manifest.class_numbers(NAMES))


def test_a_few_samples_are_enough_of_a_good_head(twelve):
    for n in (12, 13, 24):
        head_order.ordered_head(twelve(n), labels_of(twelve(n)), NAMES)
    for outputs, labels in (([0, 1], [0, 1]), ([0, 1, 0, 1], [0, 1, 0, 1]), ([0, 0, 1], [0, 0, 1])):
        fitting(outputs, labels, 2)
    with pytest.raises(ModelError, match="chance"):
        fitting([0, 1, 0, 1], [0, 0, 1, 1], 2)


def fitting(outputs: list[int], labels: list[int], k: int) -> None:
    """As `require_fitting`, of classes that are letters."""
    classes = [*"abcdef"[:k]]
    found = torch.tensor(outputs), torch.tensor(labels)
    head_order.require_fitting(head_order.best_order(*found, classes), *found, classes)


def test_balanced_predictions_of_unbalanced_labels_are_no_reason_to_refuse():
    # Naming the most frequent class would be right about 90%.
    labels = [0] * 900 + [1] * 100
    outputs = [0] * 700 + [1] * 200 + [1] * 90 + [0] * 10
    fitting(outputs, labels, 2)


def test_chance_is_what_shuffled_labels_do():
    outputs, labels = torch.tensor([0, 0, 1, 2, 2, 2, 1]), torch.tensor([0, 1, 1, 2, 0, 2, 2])
    agreeing = [int((outputs == labels[list(order)]).sum()) for order in permutations(range(7))]
    mean, spread = head_order._by_chance(outputs, labels, 3)
    assert mean == pytest.approx(np.mean(agreeing))
    assert spread == pytest.approx(np.std(agreeing))


def test_chance_of_a_single_sample():
    assert head_order._by_chance(torch.tensor([0]), torch.tensor([0]), 2) == (1.0, 0.0)


def test_of_very_many_classes_no_other_order_is_sought(twelve, monkeypatch):
    monkeypatch.setattr(head_order, "_MOST_MATCHED", K - 1)
    with pytest.raises(ModelError, match="chance alone"):
        score(twelve(order=[*NAMES[1:], "0"]), OPTIONS)


def test_of_many_samples_some_are_looked_at(twelve, monkeypatch):
    monkeypatch.setattr(head_order, "_LOOKED_AT", 50)
    monkeypatch.setattr(head_order, "_ROWS", 7)
    samples = twelve(order=IMAGE_FOLDER)
    assert len(head_order._looked_at(samples)) == 45
    assert torch.equal(head_order.ordered_head(samples, labels_of(samples), NAMES)[0], HEAD[0])


def test_an_order_that_was_written_down_is_taken():
    outputs, labels = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])
    found = head_order.best_order(outputs, labels, [*"abc"], [*"acb"])
    assert (found.names, found.agreement, found.moved) == (("a", "c", "b"), pytest.approx(1 / 3), True)
    assert found.rows.tolist() == [0, 2, 1]
