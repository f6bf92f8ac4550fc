"""Which samples stay, and what a refit without the others predicts."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.curate.prune import choose_kept, predict, split
from divacli.curate.score import score
from divacli.curate.solution import SolveOptions
from divacli.errors import DataError
from divacli.ridge import CrossEntropyLoss, SquaredLoss


def scores_of(
    derivative: list[float], label: str | list[str] = "ab", paths: list[str] | None = None
) -> pd.DataFrame:
    n = len(derivative)
    return pd.DataFrame(
        {
            "path": paths or [f"p{number:03d}" for number in range(n)],
            "label": [label[number % len(label)] for number in range(n)],
            "derivative": derivative,
            "loo_loss": [-value for value in derivative],
        }
    )


def kept_paths(table: pd.DataFrame, **options: object) -> list[str]:
    return table["path"][choose_kept(table, **options).kept].tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n", "keep", "stays"),
    [
        (70, 0.9, 63),
        (100, 0.29, 29),
        (10, 0.91, 10),
        (10, 0.85, 9),
        (7, 0.5, 4),
        (30, 0.1, 3),
        (10, 1.0, 10),
        (100, 0.07, 7),
        (100, 0.55, 55),
        (1000, 0.001, 2),
        (50, 0.58, 29),
        (33, 1 / 3, 11),
    ],
)
def test_keep_is_a_fraction_rounded_up(n, keep, stays):
    # In floating point 0.07 * 100 is a little more than 7 and 0.58 * 50 a little less than 29.
    # Two of 1000 and not one: every class keeps one.
    values = np.random.default_rng(0).normal(size=n).tolist()
    assert choose_kept(scores_of(values), keep=keep).kept.sum() == stays


def test_keep_drops_the_largest_derivatives():
    table = scores_of([0.3, -1.0, 2.0, 0.0, -0.5, 1.0])
    assert kept_paths(table, keep=0.5) == ["p001", "p003", "p004"]


def test_by_loo_loss_drops_the_largest_losses():
    table = scores_of([0.3, -1.0, 2.0, 0.0, -0.5, 1.0])
    assert kept_paths(table, keep=0.5, by="loo_loss") == ["p000", "p002", "p005"]


def test_threshold_drops_what_is_at_least_it():
    table = scores_of([0.1, 0.0, -0.1, 1e-9, -1e-9, -5])
    assert kept_paths(table, threshold=0) == ["p002", "p004", "p005"]


def test_of_equals_the_last_path_goes_first():
    table = scores_of([1.0] * 6, paths=["f", "b", "a", "e", "d", "c"])
    assert sorted(kept_paths(table, keep=0.5)) == ["a", "b", "c"]


def test_the_order_of_rows_does_not_matter():
    table = scores_of(np.random.default_rng(1).integers(-3, 4, 40).tolist())
    shuffled = table.sample(frac=1, random_state=3)
    assert sorted(kept_paths(shuffled, keep=0.6)) == kept_paths(table, keep=0.6)


def test_stratify_keeps_the_fraction_of_every_class():
    # All the harm is in one class.
    table = scores_of([5.0 + n if n % 2 else -float(n) for n in range(40)])
    plain, stratified = choose_kept(table, keep=0.5), choose_kept(table, keep=0.5, stratify=True)
    labels = table["label"]
    assert labels[stratified.kept].value_counts().to_dict() == {"a": 10, "b": 10}
    assert labels[plain.kept].value_counts().to_dict() == {"a": 20, "b": 1}
    assert (plain.rescued, stratified.rescued) == (["b"], [])


def test_stratify_keeps_the_best_of_each_class():
    table = scores_of([4.0, 30.0, 3.0, 20.0, 2.0, 10.0, 1.0, 0.0])
    assert kept_paths(table, keep=0.5, stratify=True) == ["p004", "p005", "p006", "p007"]


def test_every_class_keeps_its_best_sample():
    table = scores_of([-1.0, 3.0, -2.0, 2.0, -3.0, 4.0])
    choice = choose_kept(table, threshold=0)
    assert table["path"][choice.kept].tolist() == ["p000", "p002", "p003", "p004"]
    assert choice.rescued == ["b"]


def test_the_last_of_a_class_is_chosen_by_path_among_equals():
    table = scores_of([1.0] * 4, paths=["z", "y", "b", "a"])
    assert sorted(kept_paths(table, threshold=0)) == ["a", "b"]


@pytest.mark.parametrize("by", ["derivative", "loo_loss"])
def test_a_column_that_is_missing_is_an_error(by):
    with pytest.raises(DataError, match=f"no value of {by} in any row") as caught:
        choose_kept(scores_of([1.0, 2.0]).drop(columns=by), keep=0.5, by=by)
    assert caught.value.expected
    assert caught.value.hint


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(DataError, match="no value of derivative in some row"):
        choose_kept(scores_of([1.0, math.nan, 2.0]), keep=0.5)


def test_split_keeps_the_order_and_takes_the_scores_away():
    table = scores_of([0.3, -1.0, 2.0, 0.0], paths=["d", "c", "b", "a"])
    table = table.assign(rank=[2, 4, 1, 3], predicted_label="a", camera=["w", "x", "y", "z"], weight=1.0)
    kept, _ = split(table, np.array([True, True, False, True]), "derivative")
    assert kept["path"].tolist() == ["d", "c", "a"]
    assert list(kept) == ["path", "label", "camera", "weight"]


def test_split_gives_what_goes_worst_first_with_scores():
    table = scores_of([1.0, 3.0, 2.0, 3.0, 0.0], paths=["e", "d", "c", "b", "a"])
    _, dropped = split(table, np.array([False, False, False, False, True]), "derivative")
    assert dropped["path"].tolist() == ["b", "d", "c", "e"]
    assert dropped["derivative"].tolist() == [3.0, 3.0, 2.0, 1.0]
    _, dropped = split(table, np.array([False, False, False, False, True]), "loo_loss")
    assert dropped["path"].tolist() == ["e", "c", "b", "d"]


# The prediction


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def refits(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, ridge: float) -> np.ndarray:
    """(n, k) each sample's prediction by a ridge regression, with a free intercept, that lacks it."""
    n, d = features.shape
    design = np.c_[features, np.ones(n)]
    targets = np.eye(labels.max() + 1)[labels]
    penalty = np.diag([ridge] * d + [0.0])
    found = []
    for row in range(n):
        alpha = weights.copy()
        alpha[row] = 0
        normal = design.T @ (alpha[:, None] * design) + penalty
        found.append(design[row] @ np.linalg.solve(normal, design.T @ (alpha[:, None] * targets)))
    return np.array(found)


def quality(losses: np.ndarray, wrong: np.ndarray, kept: np.ndarray) -> dict[str, list[float]]:
    parts = (np.ones_like(kept), kept, ~kept)
    return {
        name: [float(v[part].mean()) for part in parts] for name, v in (("loss", losses), ("error", wrong))
    }


@pytest.mark.parametrize("d", [6, 80])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_prediction_is_that_of_refits_by_hand(d, weighted, gaussian):
    generator = np.random.default_rng(3)
    weights = generator.uniform(0.2, 2, 50) if weighted else np.ones(50)
    samples = gaussian(n=50, d=d, weights=weights if weighted else None)
    kept = generator.random(50) < 0.7
    found = predict(samples, kept, 0.4, SquaredLoss(), SolveOptions(dtype=torch.float64)).as_dict()
    features = unit(samples.features[np.arange(50)].numpy())
    labels = samples.manifest.table["label"].astype(int).to_numpy()
    for name, alpha in (("before", weights), ("after", weights * kept)):
        predictions = refits(features, labels, alpha, 0.4)
        losses = ((predictions - np.eye(3)[labels]) ** 2).sum(axis=1)
        expected = quality(losses, predictions.argmax(axis=1) != labels, kept)
        assert found[name]["loss"] == pytest.approx(expected["loss"], rel=1e-9)
        assert found[name]["error"] == pytest.approx(expected["error"], rel=1e-9)
    assert found["before"]["loss"] != found["after"]["loss"]


@pytest.mark.parametrize(("n", "d", "dual"), [(30, 60, True), (60, 30, False)])
def test_the_prediction_is_made_in_the_smaller_form(n, d, dual, gaussian, monkeypatch):
    import divacli.curate.prune as module

    widths = []
    true = module.decompose
    monkeypatch.setattr(module, "decompose", lambda task: widths.append(task.n_features) or true(task))
    predict(gaussian(n=n, d=d), np.arange(n) > 4, 0.5, SquaredLoss(), SolveOptions())
    assert all(width < n for width in widths) if dual else widths == [d, d]


def test_the_prediction_takes_the_loss_it_is_given(gaussian):
    samples = gaussian()
    kept = np.arange(60) % 4 > 0
    found = predict(samples, kept, 0.4, CrossEntropyLoss(3.0), SolveOptions(dtype=torch.float64))
    features = unit(samples.features[np.arange(60)].numpy())
    labels = samples.manifest.table["label"].astype(int).to_numpy()
    logits = 3 * refits(features, labels, kept.astype(float), 0.4)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(60), labels]
    assert found.after.loss[0] == pytest.approx(losses.mean(), rel=1e-9)


def test_dropping_good_samples_is_worse_and_dropping_the_most_harmful_is_not(gaussian):
    samples = gaussian(n=90)
    options = SolveOptions(dtype=torch.float64, ridge=0.1)
    harmful = score(samples, options).order[:3]
    few = np.arange(90) < 6
    assert predict(samples, few, 0.1, SquaredLoss(), options).worse
    without = predict(samples, ~np.isin(np.arange(90), harmful), 0.1, SquaredLoss(), options)
    assert not without.worse
    assert without.after.loss[0] < without.before.loss[0]


def test_nothing_dropped_changes_nothing_and_is_strict_json(gaussian):
    found = predict(gaussian(), np.ones(60, bool), 0.4, SquaredLoss(), SolveOptions())
    assert found.before.loss[0] == found.after.loss[0]
    assert not found.worse
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert content["after"]["loss"][2] is None
    assert content["after"]["loss"][:2] == list(found.after.loss[:2])
