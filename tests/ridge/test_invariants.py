"""What must not change the answer, or change it in a known way; with controls in which it does change."""

from dataclasses import replace

import pytest
import torch

from divacli.ridge import (
    Span,
    decompose,
    leave_one_out,
    loo_derivative,
    loo_predictions,
    validation_derivative,
)


def solve(problem, loss, ridge=None):
    """The derivative, the LOO result and the LOO predictions of a problem."""
    fit = decompose(problem.task).fit(ridge or problem.ridge)
    result = loo_derivative(problem.task, fit, loss)
    everyone = torch.arange(len(problem.task))
    return result.derivative, result.loo, loo_predictions(problem.task, fit, everyone)


def taken(problem, rows, **changes):
    """The task with these rows in this order, repeats allowed."""
    task = problem.task
    parts = {name: getattr(task, name)[rows] for name in ("features", "labels", "weights", "validation_mask")}
    return replace(problem, task=replace(task, **{**parts, **changes}))


INTERCEPTS = pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no-intercept"])


@INTERCEPTS
def test_a_duplicated_row_is_a_weight_of_two(intercept, make_problem, loss_name, losses):
    """For everybody else: leaving out one copy is not leaving out both, so the copies are not judged."""
    problem = make_problem(intercept=intercept)
    row = 4
    mask = problem.task.validation_mask.clone()
    mask[row] = 0.0
    weights = problem.task.weights.clone()
    weights[row] *= 2
    doubled = taken(problem, torch.arange(24), weights=weights, validation_mask=mask)
    twice = torch.cat([torch.arange(24), torch.tensor([row])])
    repeated = taken(problem, twice, validation_mask=mask[twice])
    expected, _, predictions = solve(doubled, losses[loss_name])
    found, _, with_copies = solve(repeated, losses[loss_name])
    others = torch.arange(24) != row
    torch.testing.assert_close(with_copies[:24][others], predictions[others], rtol=0, atol=1e-13)
    torch.testing.assert_close(found[:24], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[24], expected[row], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(with_copies[row], predictions[row], atol=1e-3)


@INTERCEPTS
def test_a_weight_of_zero_is_an_absent_sample(intercept, make_problem, loss_name, losses):
    problem = make_problem(intercept=intercept)
    present = problem.task.weights > 0
    assert 0 < int((~present).sum()) < 24
    mask = torch.where(present, problem.task.validation_mask, 0.0)
    problem = replace(problem, task=replace(problem.task, validation_mask=mask))
    derivative, loo, predictions = solve(problem, losses[loss_name])
    alone = solve(taken(problem, present.nonzero()[:, 0]), losses[loss_name])
    torch.testing.assert_close(predictions[present], alone[2], rtol=0, atol=1e-13)
    torch.testing.assert_close(loo.loss[present], alone[1].loss, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(derivative[present], alone[0], rtol=1e-10, atol=1e-12)


def test_an_absent_sample_far_away_costs_the_others_no_digits(make_problem, losses, relative_error):
    problem = make_problem()
    features = problem.task.features.clone()
    features[1] = 1e9
    mask = problem.task.validation_mask.clone()
    mask[1] = 0.0
    others = torch.arange(24) != 1
    expected = solve(replace(problem, task=replace(problem.task, validation_mask=mask)), losses["squared"])[0]
    task = replace(problem.task, features=features, validation_mask=mask)
    found = solve(replace(problem, task=task), losses["squared"])[0]
    assert relative_error(found[others], expected[others]) < 1e-10


@INTERCEPTS
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_of_the_samples_does_not_matter(seed, intercept, make_problem, loss_name, losses):
    problem = make_problem(seed=seed, intercept=intercept)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    expected, loo, predictions = solve(problem, losses[loss_name])
    found, loo_found, predictions_found = solve(taken(problem, order), losses[loss_name])
    torch.testing.assert_close(found, expected[order], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(predictions_found, predictions[order], rtol=0, atol=1e-13)
    torch.testing.assert_close(loo_found.leverage, loo.leverage[order], rtol=1e-11, atol=0)
    assert not torch.allclose(found, expected)


@INTERCEPTS
def test_weights_and_ridge_have_no_common_scale(intercept, make_problem, loss_name, losses):
    """`L(c alpha, c lambda) = L(alpha, lambda)`, so (Euler) `alpha . dL/dalpha = -lambda dL/dlambda`.

    The bias is not penalised, so the identity holds with it as well.
    """
    problem = make_problem(intercept=intercept)
    derivative, _, _ = solve(problem, losses[loss_name])
    step = 1e-3 * problem.ridge
    near, far = (
        replace(problem, ridge=problem.ridge + m * step).loo_loss(loss_name)
        - replace(problem, ridge=problem.ridge - m * step).loo_loss(loss_name)
        for m in (1, 2)
    )
    along_ridge = (8 * near - far) / (12 * step)
    assert float(problem.task.weights @ derivative) == pytest.approx(-problem.ridge * along_ridge, rel=1e-8)
    assert abs(problem.ridge * along_ridge) > 0.01
    tripled = replace(problem, task=replace(problem.task, weights=3 * problem.task.weights))
    torch.testing.assert_close(solve(tripled, losses[loss_name], 3 * problem.ridge)[0] * 3, derivative)


def shifted(problem, what):
    """The task with a constant added to all its features, or to all its targets."""
    if what == "features":
        constant = torch.linspace(-3, 2, 5, dtype=torch.float64)
        return replace(problem, task=replace(problem.task, features=problem.task.features + constant))
    offset = torch.tensor([[0.7, -1.2, 0.4]], dtype=torch.float64).expand(24, 3)
    return replace(problem, task=replace(problem.task, offset=offset))


@pytest.mark.parametrize("what", ["features", "targets"])
def test_a_constant_changes_nothing_when_there_is_an_intercept(what, make_problem, loss_name, losses):
    problem = make_problem()
    expected, found = (solve(p, losses[loss_name]) for p in (problem, shifted(problem, what)))
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("what", ["features", "targets"])
def test_a_constant_changes_the_answer_without_an_intercept(
    what, make_problem, loss_name, losses, relative_error
):
    """Negative control of the test above."""
    problem = make_problem(intercept=False)
    expected, found = (solve(p, losses[loss_name]) for p in (problem, shifted(problem, what)))
    assert relative_error(found[2], expected[2]) > 0.05
    assert relative_error(found[0], expected[0]) > 0.05


@INTERCEPTS
@pytest.mark.parametrize("offset", [False, True], ids=["fresh-head", "trained-head"])
@pytest.mark.parametrize(("n", "d"), [(15, 40), (24, 5), (12, 12)], ids=["n<d", "n>d", "n=d"])
def test_dual_equals_primal(n, d, offset, intercept, make_problem, loss_name, losses, relative_error):
    """Every fourth sample has weight zero and lies outside the span of the others where n < d."""
    problem = make_problem(n, d, intercept=intercept, offset=offset)
    span = Span(problem.task)
    dual = replace(problem, task=span.task())
    assert dual.task.n_features <= min(n, d)
    expected, loo, predictions = solve(problem, losses[loss_name])
    found, dual_loo, dual_predictions = solve(dual, losses[loss_name])
    assert relative_error(dual_predictions, predictions) < 1e-11
    assert relative_error(dual_loo.leverage, loo.leverage) < 1e-11
    assert relative_error(found, expected) < 1e-10

    held_out = make_problem(17, d, seed=1, intercept=intercept, offset=offset)
    fit, dual_fit = (decompose(p.task).fit(p.ridge) for p in (problem, dual))
    separate, result = validation_derivative(problem.task, held_out.task, fit, losses[loss_name])
    in_span, dual_result = validation_derivative(
        dual.task, span.project(held_out.task), dual_fit, losses[loss_name]
    )
    assert relative_error(in_span, separate) < 1e-10
    assert relative_error(dual_result.loss, result.loss) < 1e-11
    assert torch.equal(dual_result.predicted, result.predicted)


def test_span_needs_the_samples_of_weight_zero(make_problem, losses):
    """Negative control: coordinates spanned by the present samples alone shorten the absent ones."""
    problem = make_problem(15, 40)
    present = (problem.task.weights > 0).nonzero()[:, 0]
    span = Span(taken(problem, present).task)
    leverage = solve(problem, losses["squared"])[1].leverage
    fit = decompose(span.task()).fit(problem.ridge)
    shortened = leave_one_out(span.project(problem.task), fit, losses["squared"]).leverage
    torch.testing.assert_close(shortened[present], leverage[present])
    absent = problem.task.weights == 0
    assert bool((shortened[absent] < 0.9 * leverage[absent]).all())


def test_span_of_equal_features_is_the_fit_of_the_mean(make_problem, losses):
    """Features that differ by rounding only span nothing; the intercept is left, as in the primal."""
    problem = make_problem(9, 20)
    features = torch.full((9, 20), 0.1, dtype=torch.float64)
    problem = replace(problem, task=replace(problem.task, features=features))
    dual = replace(problem, task=Span(problem.task).task())
    assert dual.task.n_features == 0
    expected, found = solve(problem, losses["squared"]), solve(dual, losses["squared"])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[2], expected[2], rtol=1e-12, atol=1e-12)
