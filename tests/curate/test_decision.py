"""Decisions by probability: threshold, budget, what is expected of them, and who is an outlier."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.curate.prune_rules import choose_automatically
from divacli.curate.wrong_labels import (
    BALANCED,
    LIKELY,
    MORE_LIKELY_WRONG,
    Expectation,
    balanced_threshold,
    doubtful,
    mislabelled,
    most_confused,
    outlier_threshold,
    outliers,
    require_judged,
    threshold_of,
)
from divacli.errors import DataError


def table_of(probability: list[float], **columns: list[object]) -> pd.DataFrame:
    n = len(probability)
    given = {
        "path": [f"p{number}" for number in range(n)],
        "label": [("a", "b")[number % 2] for number in range(n)],
        "derivative": [0.0] * n,
        "mislabel_probability": probability,
        "outlier_score": [0.0] * n,
    }
    return pd.DataFrame({**given, **columns})


def test_more_likely_wrong_than_right():
    table = table_of([0.2, 0.5, 0.51, 0.9])
    assert mislabelled(table).tolist() == [False, False, True, True]
    assert mislabelled(table, 0.1).tolist() == [True] * 4
    assert mislabelled(table, 0.1, budget=2).tolist() == [False, False, True, True]
    assert mislabelled(table, 0.5, budget=0).sum() == 0


def test_most_labels_being_wrong_is_doubtful():
    assert doubtful(50, 100) is None
    assert "51 of the 100 labels are called wrong" in str(doubtful(51, 100))


def test_of_equals_the_budget_takes_the_first_path():
    table = table_of([0.9, 0.9, 0.9], path=["c", "a", "b"])
    assert mislabelled(table, budget=2).tolist() == [False, True, True]


def test_precision_and_recall_are_means_of_the_probability():
    probability = np.array([0.9, 0.7, 0.3, 0.1])
    found = Expectation.of(probability, probability > 0.5)
    assert (found.n, found.precision, found.recall) == (2, pytest.approx(0.8), pytest.approx(0.8))
    nothing = Expectation.of(probability, probability > 1)
    assert (nothing.n, nothing.precision, nothing.recall) == (0, None, 0.0)
    assert Expectation.of(np.zeros(3), np.zeros(3, bool)).recall is None


def best_of_all(probability: np.ndarray) -> tuple[float, int]:
    """The largest expected F1, and the fewest labels of which all equal ones are called that reach it."""
    descending = sorted(probability.tolist(), reverse=True)
    total = math.fsum(descending)
    best, fewest = 0.0, 0
    for m in range(1, len(descending) + 1):
        if m < len(descending) and descending[m] == descending[m - 1]:
            continue
        expected = 2 * math.fsum(descending[:m]) / (m + total)
        if expected > best:
            best, fewest = expected, m
    return best, fewest


@pytest.mark.parametrize("seed", range(30))
def test_the_balanced_threshold_has_the_best_expected_f1_of_all(seed):
    generator = np.random.default_rng(seed)
    probability = generator.beta(0.3, generator.choice([0.3, 2, 20]), generator.integers(1, 120))
    if seed % 3 == 0:
        # Many are equal. A number of two digits is no half F1 of such numbers, but by rare chance.
        probability = probability.round(2)
    threshold = balanced_threshold(probability)
    best, fewest = best_of_all(probability)
    called = probability > threshold
    assert called.sum() == fewest
    assert 2 * threshold == pytest.approx(best)
    expected = Expectation.of(probability, called)
    if fewest:
        # The model's F1 as precision and recall have it.
        assert 2 / (1 / expected.precision + 1 / expected.recall) == pytest.approx(best)
    assert 0 <= threshold <= MORE_LIKELY_WRONG
    assert (called >= (probability > MORE_LIKELY_WRONG)).all()
    assert balanced_threshold(generator.permutation(probability)) == threshold


@pytest.mark.parametrize(
    ("probability", "threshold", "called"),
    [
        ([], 0.0, 0),
        ([0.0] * 5, 0.0, 0),
        ([1.0] * 5, 0.5, 5),
        ([0.0, 1.0, 0.0, 1.0], 0.5, 2),
        ([0.3] * 4, 1.2 / 5.2, 4),
        # A third label of the same probability as the second comes with it.
        ([0.9, 0.6, 0.6, 0.01], 2.1 / 5.11, 3),
        ([1.0, 0.5, 0.0], 1.5 / 3.5, 2),
        ([1.0, 0.4, 0.0], 1 / 2.4, 1),
        # Labels of probability F / 2 change no F1, and are left out.
        ([1.0, *[0.25] * 8], 0.25, 1),
    ],
)
def test_balanced_thresholds_known_by_hand(probability, threshold, called):
    found = balanced_threshold(np.array(probability, float))
    assert found == pytest.approx(threshold)
    assert (np.array(probability, float) > found).sum() == called


def test_a_threshold_is_given_or_found():
    probability = np.array([0.9, 0.45, 0.0])
    assert threshold_of(probability, LIKELY) == MORE_LIKELY_WRONG
    assert threshold_of(probability, BALANCED) == balanced_threshold(probability) < 0.45
    assert threshold_of(probability, 0.7) == 0.7


@pytest.mark.parametrize("columns", [{}, {"mislabel_probability": [0.1, np.nan]}])
def test_scores_without_a_probability_are_refused(columns):
    table = pd.DataFrame({"path": ["a", "b"], **columns})
    with pytest.raises(DataError, match="no value of mislabel_probability"):
        require_judged(table, ("mislabel_probability",))


def test_outliers_lie_beyond_the_fence_and_beyond_three_quarters():
    # Quartiles 0.1 and 0.2, fence 0.325: three quarters decide.
    low = np.array([0.1] * 10 + [0.2] * 10)
    assert outlier_threshold(low) == 0.75
    assert outliers(table_of([0.0] * 21, outlier_score=[*low, 0.8])).tolist() == [False] * 20 + [True]
    # Nothing can be predicted: quartiles 0.9 and 1, and no sample is odd for 0.9.
    high = np.array([0.9] * 10 + [1.0] * 10)
    assert outlier_threshold(high) == pytest.approx(1.125)
    assert not outliers(table_of([0.0] * 20, outlier_score=list(high))).any()


def test_a_rare_label_is_not_odd_as_a_whole():
    scores = [0.05] * 40 + [0.8, 0.85, 0.9, 1.0]
    labels = ["a"] * 40 + ["rare"] * 4
    assert outliers(table_of([0.0] * 44, outlier_score=scores, label=labels)).sum() == 1
    assert outliers(table_of([0.0] * 44, outlier_score=scores, label=["a"] * 44)).sum() == 4


def test_confusions_are_pairs_of_given_and_suggested():
    confusions = torch.tensor([[90.0, 3, 0.2], [7, 80, 0], [0, 3, 50]])
    found = most_confused(confusions, ["cat", "dog", "cow"])
    assert [(pair["given"], pair["suggested"], pair["expected"]) for pair in found] == [
        ("cat", "dog", 7.0),
        ("dog", "cat", 3.0),
        ("dog", "cow", 3.0),
    ]
    assert len(most_confused(confusions, ["cat", "dog", "cow"], limit=1)) == 1


def test_automatic_drops_wrong_labels_and_outliers_and_says_why():
    table = table_of([0.1, 0.9, 0.1, 0.8] + [0.1] * 8, outlier_score=[0, 0, 2.0, 2.0] + [0] * 8)
    found = choose_automatically(table)
    assert found.choice.kept.tolist() == [True, False, False, False] + [True] * 8
    assert found.reasons().tolist() == ["", "label", "outlier", "label, outlier"] + [""] * 8
    assert found.n_outliers == 2
    assert found.expectation.n == 2
    assert found.expectation.precision == pytest.approx(0.85)
    assert found.rule["threshold"] == 0.5
    assert choose_automatically(table, threshold=0.95).choice.kept.sum() == 10


def test_a_budget_takes_wrong_labels_first_then_the_oddest():
    table = table_of([0.1, 0.9, 0.1, 0.8] + [0.1] * 20, outlier_score=[3.0, 0, 2.0, 0] + [0] * 20)
    dropped = [np.flatnonzero(~choose_automatically(table, budget=n).choice.kept) for n in range(5)]
    assert [rows.tolist() for rows in dropped] == [[], [1], [1, 3], [0, 1, 3], [0, 1, 2, 3]]


def test_the_most_probable_label_of_a_class_stays():
    table = table_of([0.9, 0.9, 0.7, 0.1], label=["a", "a", "a", "b"])
    found = choose_automatically(table)
    assert found.choice.rescued == ["a"]
    assert found.choice.kept.tolist() == [False, False, True, True]
    assert found.reasons().tolist() == ["label", "label", "", ""]
    assert found.expectation.n == 2
