"""Intervals of differences: known rates are inside as often as is claimed, and not without each part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from divacli.evaluation.verdicts import Verdict, confidence_of, difference_interval

Mistakes = tuple[np.ndarray, np.ndarray]


def coverage(
    draw: Callable[[np.random.Generator], Mistakes], truth: float, *, random: bool, confidence: float = 0.95
) -> float:
    """How often the true difference is inside, of 600 experiments."""
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(600):
        wrong, rival = draw(generator)
        found = difference_interval(wrong, rival, np.ones(wrong.shape[1]), confidence, random=random)
        inside.append(found[1] <= truth <= found[2])
    return float(np.mean(inside))


def paired(generator: np.random.Generator) -> Mistakes:
    """Two sets that stumble over the same tenth of the samples; 14.5 and 17.2 % wrong."""
    difficult = generator.random((1, 400)) < 0.1
    return tuple(difficult | (generator.random((1, 400)) < share) for share in (0.05, 0.08))  # type: ignore[return-value]


def against_draws(generator: np.random.Generator) -> Mistakes:
    """15 % wrong against five draws of 20 % on average, which differ by 5 points."""
    share = 0.2 + 0.05 * generator.normal(size=(5, 1))
    return generator.random((1, 400)) < 0.15, generator.random((5, 400)) < share


def by_seed(generator: np.random.Generator) -> Mistakes:
    """A random learner: three seeds each, 35 and 40 % wrong, which differ by 6 points."""
    return tuple(
        generator.random((3, 400)) < share + 0.06 * generator.normal(size=(3, 1)) for share in (0.35, 0.4)
    )  # type: ignore[return-value]


def few_errors(generator: np.random.Generator) -> Mistakes:
    """One sample in a hundred is wrong: often the two disagree about none."""
    return generator.random((1, 80)) < 0.01, generator.random((1, 80)) < 0.01


@pytest.mark.parametrize(
    ("draw", "truth", "random"),
    [
        (paired, 0.9 * (0.05 - 0.08), False),
        (against_draws, -0.05, True),
        (by_seed, -0.05, True),
    ],
)
def test_the_true_difference_is_inside_as_often_as_is_claimed(draw, truth, random):
    # The standard error of a coverage of 0.95 over 600 experiments is 0.009.
    assert 0.92 < coverage(draw, truth, random=random) < 0.985
    assert 0.75 < coverage(draw, truth, random=random, confidence=0.8) < 0.88


@pytest.mark.parametrize("draw", [against_draws, by_seed])
def test_without_the_spread_over_runs_too_many_miss(draw):
    assert coverage(draw, -0.05, random=False) < 0.88


def test_few_disagreements_claim_little():
    assert coverage(few_errors, 0.0, random=False) > 0.95
    alone = np.zeros((1, 100), bool)
    for disagreements, more_than_chance in ((4, False), (6, True)):
        other = alone.copy()
        other[0, :disagreements] = True
        difference, low, high = difference_interval(other, alone, np.ones(100), 0.95, random=False)
        assert difference == pytest.approx(disagreements / 100)
        assert low is not None
        assert high is not None
        assert (low > 0) is more_than_chance, disagreements


def test_an_interval_is_that_computed_by_hand():
    wrong = np.array([[1, 0, 0, 1, 0, 0, 0, 0]], bool)
    rivals = np.array([[1, 1, 0, 0, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0, 1, 0]], bool)
    difference, low, high = difference_interval(wrong, rivals, np.ones(8), 0.95, random=True)
    assert difference == pytest.approx((2 - 3) / 8)
    samples = np.array([0.5, -1, -0.5, 1, 0, 0, -0.5, -0.5])
    of_test = samples.var() / 8 + 1 / 64
    # Both draws have three mistakes, so nothing is added.
    quantile = 2.3646  # Student's, 7 degrees of freedom
    assert (high - low) / 2 == pytest.approx(quantile * np.sqrt(of_test), rel=1e-4)
    assert (high + low) / 2 == pytest.approx(difference)


def test_a_weight_of_two_counts_double():
    wrong, rival = np.array([[True, False, False]]), np.array([[False, False, True]])
    found = difference_interval(wrong, rival, np.array([2.0, 1.0, 1.0]), 0.95, random=False)
    assert found[0] == pytest.approx((2 - 1) / 4)


def test_a_single_run_of_something_random_has_no_interval():
    wrong = np.array([[True, False]])
    assert difference_interval(wrong, ~wrong, np.ones(2), 0.95, random=True) == (0.0, None, None)
    assert not Verdict("ridge", "kept.csv", "random 4", -0.5, None, None, 0.95).more_than_chance


def test_the_best_of_several_is_held_to_more():
    assert [confidence_of(k) for k in (0, 1, 2, 5)] == pytest.approx([0.95, 0.95, 0.975, 0.99])
    generator = np.random.default_rng(1)
    inside = []
    for _ in range(400):
        everything, *manifests = generator.random((6, 1, 300)) < 0.15
        best = min(manifests, key=np.sum)
        found = difference_interval(best, everything, np.ones(300), confidence_of(5), random=False)
        inside.append(found[1] <= 0 <= found[2])
    assert np.mean(inside) > 0.93


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.2, -0.1, True), (0.1, 0.2, True), (-0.1, 0.1, False), (0.0, 0.1, False)],
)
def test_more_than_chance_leaves_out_zero(low, high, expected):
    assert Verdict("ridge", "kept.csv", "everything", 0.0, low, high, 0.95).more_than_chance is expected
