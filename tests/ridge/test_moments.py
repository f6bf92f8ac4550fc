"""Moments of sets of samples add and subtract, and both ways to solve from them are one solution."""

import re
import sys
from dataclasses import replace

import pytest
import torch

from divacli.errors import SolveError
from divacli.ridge import decompose, leave_one_out, loo_derivative, loo_predictions, moments
from divacli.ridge.fit.products import add_gram

NAMES = ("gram", "cross", "first", "target_sum")

INTERCEPTS = pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no-intercept"])


def part(task, rows):
    """The task of some of its rows."""
    names = ("features", "labels", "weights", "validation_mask")
    offset = None if task.offset is None else task.offset[rows]
    return replace(task, **{name: getattr(task, name)[rows] for name in names}, offset=offset)


def answers(task, fit, loss):
    """Predictions without each sample, leverages and derivatives of every sample of a task under a fit."""
    everyone = torch.arange(len(task))
    result = loo_derivative(task, fit, loss)
    return loo_predictions(task, fit, everyone), result.loo.leverage, result.derivative


@INTERCEPTS
def test_moments_are_the_plain_sums(intercept, make_problem):
    problem = make_problem(intercept=intercept)
    task, shift = problem.task, torch.linspace(-1, 1, 5, dtype=torch.float64) * intercept
    for batch_rows in (5, 100):
        found = moments(replace(task, batch_rows=batch_rows), shift)
        z, weights = problem.z - shift, task.weights
        expected = (torch.einsum("n,na,nb->ab", weights, z, z), (z.T * weights) @ problem.y)
        for name, value in zip(NAMES, (*expected, weights @ z, weights @ problem.y), strict=True):
            torch.testing.assert_close(getattr(found, name), value, rtol=1e-13, atol=1e-13)
        assert found.total_weight == pytest.approx(float(weights.sum()), rel=1e-14)
        assert torch.equal(found.shift, shift)


@INTERCEPTS
@pytest.mark.parametrize("n", [30, 5], ids=["n>d", "n<d"])
@pytest.mark.parametrize("offset", [False, True], ids=["fresh-head", "trained-head"])
def test_both_solutions_are_one(offset, n, intercept, make_problem, loss_name, losses, relative_error):
    problem = make_problem(n, 8, intercept=intercept, offset=offset)
    sums = moments(problem.task)
    spectral, triangular = sums.decompose().fit(problem.ridge), sums.fit(problem.ridge)
    assert (triangular.ridge, triangular.bias_scale) == (spectral.ridge, spectral.bias_scale)
    expected, found = (answers(problem.task, fit, losses[loss_name]) for fit in (spectral, triangular))
    for value, truth in zip(found, expected, strict=True):
        assert relative_error(value, truth) < 1e-11
    assert relative_error(found[0], problem.loo_predictions()) < 1e-12
    assert not torch.allclose(sums.fit(2 * problem.ridge).coef, triangular.coef)


@INTERCEPTS
@pytest.mark.parametrize("distance", [0.0, 1e6], ids=["near", "far"])
def test_a_fold_leaves_the_sum(distance, intercept, make_problem, losses, relative_error):
    """Far from the origin a Gram matrix that is not centred near the samples would lose 12 of 16 digits."""
    task = make_problem(40, intercept=intercept, offset=not distance, shift=0.3, batch_rows=7).task
    task = replace(task, features=(task.features * 2**20).round() / 2**20)
    near, task = task, replace(task, features=task.features + distance * intercept)
    whole = moments(task)
    fold = torch.arange(40) % 3 == 1
    rest = whole - moments(part(task, fold), whole.shift)
    alone = moments(part(task, ~fold), whole.shift)
    for name in NAMES:
        torch.testing.assert_close(getattr(rest, name), getattr(alone, name), rtol=1e-12, atol=1e-11)
    assert rest.total_weight == pytest.approx(alone.total_weight, rel=1e-13)
    expected = answers(near, decompose(part(near, ~fold)).fit(0.7), losses["squared"])
    for fit in (rest.fit(0.7), rest.decompose().fit(0.7)):
        for value, truth in zip(answers(task, fit, losses["squared"]), expected, strict=True):
            assert relative_error(value, truth) < (1e-8 if distance else 1e-11)
    whole_fit = answers(task, whole.fit(0.7), losses["squared"])
    assert relative_error(whole_fit[0], expected[0]) > 1e-3


def test_folds_add_up_to_the_whole(make_problem):
    task = make_problem().task
    whole = moments(task)
    first, *others = (moments(part(task, torch.arange(24) % 3 == f), whole.shift) for f in range(3))
    total = first + others[0] + others[1]
    for name in NAMES:
        torch.testing.assert_close(getattr(total, name), getattr(whole, name), rtol=1e-13, atol=1e-13)
    assert total.total_weight == pytest.approx(whole.total_weight, rel=1e-14)


def test_moments_of_different_points_do_not_mix(make_problem):
    task = make_problem().task
    whole = moments(task)
    other = moments(task, whole.shift + 1e-3)
    bare = moments(replace(task, intercept=False))
    for wrong in (other, bare):
        with pytest.raises(ValueError, match="different points"):
            _ = whole + wrong
        with pytest.raises(ValueError, match="different points"):
            _ = whole - wrong
    with pytest.raises(ValueError, match="without an intercept"):
        moments(replace(task, intercept=False), whole.shift)


def test_absent_samples_are_not_summed(make_problem, monkeypatch):
    """They cost no matrix product: only the rows that are present enter it."""
    problem = make_problem(batch_rows=10)
    present = problem.task.weights > 0
    rows = []

    def counted(total, left, right):
        rows.append(len(left))
        add_gram(total, left, right)

    # The function `moments` hides the module of that name.
    monkeypatch.setattr(sys.modules[moments.__module__], "add_gram", counted)
    found = moments(problem.task)
    monkeypatch.undo()
    assert sum(rows) == int(present.sum()) < 24
    alone = moments(part(problem.task, present), found.shift)
    for name in NAMES:
        torch.testing.assert_close(getattr(found, name), getattr(alone, name), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("batch_rows", [5, 100])
def test_nothing_is_left_of_a_set_without_itself(batch_rows, make_problem):
    """Rounding of the sums must not pass for a sample of a tiny weight."""
    task = make_problem().task
    whole = moments(task)
    nothing = whole - moments(replace(task, batch_rows=batch_rows), whole.shift)
    assert nothing.total_weight == 0.0
    for solve in (nothing.decompose, lambda: nothing.fit(1.0)):
        with pytest.raises(SolveError, match="every sample weight is zero"):
            solve()


@pytest.mark.parametrize("weight", [1.0, 0.0], ids=["present", "absent"])
@pytest.mark.parametrize("name", ["features", "offset"])
def test_what_is_not_finite_is_refused_by_both(name, weight, make_problem):
    task = make_problem().task
    task = replace(task, offset=torch.zeros(24, 3, dtype=torch.float64))
    broken, weights = getattr(task, name).clone(), task.weights.clone()
    broken[3, 2], weights[3] = float("nan"), weight
    sums = moments(replace(task, **{name: broken}, weights=weights))
    for solve in (sums.decompose, lambda: sums.fit(1.0)):
        with pytest.raises(SolveError, match="NaN or infinite"):
            solve()


@pytest.mark.parametrize("ridge", [-1.0, -1e9, float("nan"), float("inf"), float("-inf")])
def test_a_ridge_that_is_no_number_from_zero_up_is_refused(ridge, make_problem):
    with pytest.raises(SolveError) as caught:
        moments(make_problem().task).fit(ridge)
    assert f"ridge {ridge:g} " in str(caught.value)
    assert not re.search("nan|inf |above -", caught.value.expected)


@pytest.mark.parametrize("n", [30, 3000])
@pytest.mark.parametrize("seed", range(10))
@INTERCEPTS
def test_ridge_zero_is_refused_for_dependent_features(n, seed, intercept, make_problem):
    task = make_problem(n, 3, seed=seed, intercept=intercept).task
    features = task.features.clone()
    features[:, 2] = features[:, 0] + features[:, 1] / 3
    sums = moments(replace(task, features=features))
    with pytest.raises(SolveError, match="ridge 0 leaves the features' Gram matrix singular"):
        sums.fit(0.0)
    assert sums.fit(1e-6 * float(sums.gram.norm())).ridge > 0
    assert moments(task).fit(0.0).ridge == 0.0


def test_no_features_leave_the_mean_of_the_targets(make_problem, losses):
    task = replace(make_problem().task, features=torch.zeros(24, 0, dtype=torch.float64))
    sums = moments(task)
    expected, found = (
        leave_one_out(task, f(0.5), losses["squared"]) for f in (sums.decompose().fit, sums.fit)
    )
    assert torch.equal(found.loss, expected.loss)
