"""Which samples stay by a column of scores, and the two tables that come of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from divacli.curate.prune_rules import choose_kept, split
from divacli.errors import DataError


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
    kept, _ = split(table, np.array([True, True, False, True]), np.arange(4))
    assert kept["path"].tolist() == ["d", "c", "a"]
    assert list(kept) == ["path", "label", "camera", "weight"]


@pytest.mark.parametrize("order", [[3, 1, 2, 0, 4], [4, 0, 2, 1, 3]])
def test_split_gives_what_goes_in_the_order_in_which_it_goes_with_scores(order):
    table = scores_of([1.0, 3.0, 2.0, 3.0, 0.0], paths=["e", "d", "c", "b", "a"])
    _, dropped = split(table, np.array([False, False, False, False, True]), np.array(order))
    assert dropped["path"].tolist() == [table["path"][row] for row in order if row != 4]
    assert dropped["derivative"].tolist() == [table["derivative"][row] for row in order if row != 4]
