"""Every closed form against refits, finite differences and autograd; wrong formulas must fail."""

from dataclasses import replace

import pytest
import torch

from divacli.ridge import (
    CrossEntropyLoss,
    Oracle,
    decompose,
    leave_one_out,
    loo_derivative,
    loo_loss,
    loo_predictions,
    validation_derivative,
)

SHAPES = [
    pytest.param((30, 4, 2), id="n>d"),
    pytest.param((12, 8, 4), id="few"),
    pytest.param((12, 16, 3), id="n<d"),
]


@pytest.fixture(params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["intercept", "no-intercept"])
def intercept(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["fresh-head", "trained-head"])
def problem(request, shape, intercept, make_problem):
    n, d, k = shape
    return make_problem(n, d, k, intercept=intercept, offset=request.param)


def test_loo_predictions_are_those_of_n_refits(problem, relative_error):
    fit = decompose(problem.task).fit(problem.ridge)
    found = loo_predictions(problem.task, fit, torch.arange(len(problem.task)))
    assert relative_error(found, problem.loo_predictions()) < 1e-12


def test_oracle_refits_as_the_brute_force_does(problem, relative_error):
    oracle = Oracle(problem.task, problem.ridge)
    found = torch.stack([oracle.loo_prediction(row) for row in range(len(problem.task))])
    assert relative_error(found, problem.loo_predictions()) < 1e-12


def test_the_loo_predictions_differ_from_the_training_predictions(problem, relative_error):
    """Negative control: a comparison that cannot tell the two apart would show nothing."""
    training = problem.base + problem.design @ problem.refits(problem.task.weights[None])[0]
    assert relative_error(training, problem.loo_predictions()) > 0.01


def test_loo_losses_and_predicted_classes_are_those_of_n_refits(problem, loss_name, losses):
    fit = decompose(problem.task).fit(problem.ridge)
    found = leave_one_out(problem.task, fit, losses[loss_name])
    expected = problem.loo_predictions()
    assert float(problem.task.validation_mask @ found.loss) == pytest.approx(
        problem.loo_loss(loss_name), rel=1e-12
    )
    assert torch.equal(found.predicted, expected.argmax(dim=1))


def test_leverage_is_the_diagonal_of_the_unweighted_hat_matrix(problem, losses):
    penalty = torch.full((problem.design.shape[1],), problem.ridge, dtype=torch.float64)
    penalty[problem.z.shape[1] :] = 0.0
    normal = problem.design.T @ (problem.design * problem.task.weights[:, None]) + penalty.diag()
    expected = (problem.design * torch.linalg.solve(normal, problem.design.T).T).sum(dim=1)
    found = leave_one_out(problem.task, decompose(problem.task).fit(problem.ridge), losses["squared"])
    torch.testing.assert_close(found.leverage, expected, rtol=1e-12, atol=1e-13)


def test_loo_derivative_is_the_finite_difference_of_refits(problem, loss_name, losses, relative_error):
    result = loo_derivative(problem.task, decompose(problem.task).fit(problem.ridge), losses[loss_name])
    expected = problem.differences(lambda weights: problem.loo_loss(loss_name, weights))
    assert result.derivative.dtype == torch.float64
    assert relative_error(result.derivative, expected) < 1e-8
    # Sample by sample as well: absent samples' entries must not hide behind larger ones.
    torch.testing.assert_close(result.derivative, expected, rtol=1e-6, atol=1e-8)


def test_loo_derivative_carries_the_leave_one_out_result(problem, loss_name, losses):
    fit = decompose(problem.task).fit(problem.ridge)
    carried = loo_derivative(problem.task, fit, losses[loss_name]).loo
    alone = leave_one_out(problem.task, fit, losses[loss_name])
    for name in ("loss", "predicted", "leverage"):
        assert torch.equal(getattr(carried, name), getattr(alone, name))


@pytest.fixture
def held_out(shape, intercept, problem, make_problem):
    _, d, k = shape
    return make_problem(17, d, k, seed=1, intercept=intercept, offset=problem.task.offset is not None)


def test_validation_derivative_is_the_finite_difference_of_refits(
    problem, held_out, loss_name, losses, relative_error
):
    fit = decompose(problem.task).fit(problem.ridge)
    found, result = validation_derivative(problem.task, held_out.task, fit, losses[loss_name])
    expected = problem.differences(lambda weights: problem.validation_loss(held_out, loss_name, weights))
    assert relative_error(found, expected) < 1e-8
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    predictions = held_out.base + held_out.design @ problem.refits(problem.task.weights[None])[0]
    assert torch.equal(result.predicted, predictions.argmax(dim=1))
    summed = float(held_out.task.validation_mask @ result.loss)
    assert summed == pytest.approx(problem.validation_loss(held_out, loss_name), rel=1e-12)


def test_oracle_derivatives_agree_with_the_closed_form(problem, held_out, loss_name, losses, relative_error):
    loss, rows = losses[loss_name], range(0, len(problem.task), 3)
    fit, oracle = decompose(problem.task).fit(problem.ridge), Oracle(problem.task, problem.ridge)
    expected = loo_derivative(problem.task, fit, loss).derivative[::3]
    found = torch.tensor([oracle.loo_derivative(loss, row) for row in rows], dtype=torch.float64)
    assert relative_error(found, expected) < 1e-8
    expected = validation_derivative(problem.task, held_out.task, fit, loss)[0][::3]
    found = torch.tensor(
        [oracle.validation_derivative(held_out.task, loss, row) for row in rows],
        dtype=torch.float64,
    )
    assert relative_error(found, expected) < 1e-8


@pytest.mark.parametrize("masked", [True, False], ids=["mask", "all-samples"])
def test_autograd_through_the_functional_form_is_the_derivative(
    masked, shape, intercept, loss_name, losses, make_problem, relative_error
):
    n, d, k = shape
    problem = make_problem(n, d, k, intercept=intercept)
    if not masked:
        problem = replace(problem, task=replace(problem.task, validation_mask=torch.ones(n).double()))
    weights = problem.task.weights.clone().requires_grad_()
    value = loo_loss(
        problem.z,
        problem.y,
        weights,
        problem.ridge,
        validation_mask=problem.task.validation_mask if masked else None,
        loss=losses[loss_name],
        intercept=intercept,
    )
    value.backward()
    fit = decompose(problem.task).fit(problem.ridge)
    assert float(value.detach()) == pytest.approx(problem.loo_loss(loss_name), rel=1e-12)
    assert (
        relative_error(weights.grad, loo_derivative(problem.task, fit, losses[loss_name]).derivative) < 1e-10
    )


@pytest.mark.parametrize(("n", "d"), [(8, 3), (5, 7)], ids=["primal", "dual"])
def test_gradients_in_every_argument_are_right(n, d, intercept, loss_name, losses, make_problem):
    problem = make_problem(n, d, 2, intercept=intercept)

    def function(features, targets, weights, ridge):
        return loo_loss(features, targets, weights, ridge, loss=losses[loss_name], intercept=intercept)

    ridge = torch.tensor(problem.ridge, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for x in (problem.z, problem.y, problem.task.weights, ridge)]
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


def test_the_functional_form_defaults_to_all_samples_with_weight_one(make_problem):
    problem = make_problem(20, 4, 3, ridge=1.0)
    ones = torch.ones(20, dtype=torch.float64)
    problem = replace(problem, task=replace(problem.task, weights=ones, validation_mask=ones))
    assert float(loo_loss(problem.z, problem.y)) == pytest.approx(problem.loo_loss("squared"), rel=1e-12)


def test_the_functional_form_knows_both_losses_by_name(make_problem):
    problem = make_problem(20, 4, 3)
    by_name = loo_loss(problem.z, problem.y, loss="cross-entropy")
    assert torch.equal(by_name, loo_loss(problem.z, problem.y, loss=CrossEntropyLoss()))
    assert not torch.allclose(by_name, loo_loss(problem.z, problem.y, loss="squared"))


def textbook_terms(problem, gradient):
    """The three terms of `docs/method.md`'s derivative, unwhitened: through P, the own term, through M."""
    z, alpha = problem.design, problem.task.weights
    penalty = torch.full((z.shape[1],), problem.ridge, dtype=torch.float64)
    penalty[problem.z.shape[1] :] = 0.0
    inverse = torch.linalg.inv(z.T @ (z * alpha[:, None]) + penalty.diag())
    targets = problem.y - problem.base
    residuals = targets - z @ inverse @ z.T @ (alpha[:, None] * targets)
    leverage = ((z @ inverse) * z).sum(dim=1)
    s = 1 - alpha * leverage
    loo_residuals = residuals / s[:, None]
    g = -problem.task.validation_mask[:, None] * gradient(problem.y - loo_residuals, problem.y)
    c = (g * loo_residuals).sum(dim=1)
    p = z.T @ (g / s[:, None])
    m = z.T @ (z * (alpha * c / s)[:, None])
    through_p = -(residuals * (z @ inverse @ p)).sum(dim=1)
    through_m = -((z @ inverse @ m @ inverse) * z).sum(dim=1)
    return through_p, c * leverage / s, through_m


def test_the_textbook_formula_holds_and_each_of_its_terms_is_needed(
    problem, loss_name, losses, relative_error
):
    """Negative controls: the comparison used above fails by far for every wrong formula."""
    expected = problem.differences(lambda weights: problem.loo_loss(loss_name, weights))
    through_p, own, through_m = textbook_terms(problem, losses[loss_name].gradient)
    assert relative_error(through_p + own + through_m, expected) < 1e-8
    wrong = {
        "sign": -(through_p + own + through_m),
        "no P": own + through_m,
        "no self term": through_p + through_m,
        "no M": through_p + own,
        "M of the other sign": through_p + own - through_m,
    }
    for name, derivative in wrong.items():
        assert relative_error(derivative, expected) > 0.02, name


def test_a_validation_derivative_of_the_wrong_sign_or_without_the_offset_fails(
    make_problem, losses, relative_error
):
    problem, held_out = make_problem(offset=True), make_problem(17, seed=1, offset=True)
    expected = problem.differences(lambda weights: problem.validation_loss(held_out, "squared", weights))
    fit = decompose(problem.task).fit(problem.ridge)
    found, _ = validation_derivative(problem.task, held_out.task, fit, losses["squared"])
    forgotten = replace(held_out.task, offset=None)
    wrong, _ = validation_derivative(problem.task, forgotten, fit, losses["squared"])
    assert relative_error(found, expected) < 1e-8
    assert relative_error(-found, expected) > 1
    assert relative_error(wrong, expected) > 0.1


def test_the_brute_force_is_the_penalised_least_squares_fit(make_problem, relative_error):
    """The reference by another road: least squares on rows for the penalty, none of them for the bias."""
    problem = make_problem()
    penalty = problem.ridge**0.5 * torch.eye(5, 6, dtype=torch.float64)
    root = problem.task.weights.sqrt()[:, None]
    rows = torch.cat([root * problem.design, penalty])
    right = torch.cat([root * problem.y, torch.zeros(5, 3, dtype=torch.float64)])
    expected = torch.linalg.lstsq(rows, right).solution
    assert relative_error(problem.refits(problem.task.weights[None])[0], expected) < 1e-12


def test_the_functional_form_takes_integer_targets():
    features = torch.eye(4)[:, :3] + 0.1
    targets = torch.nn.functional.one_hot(torch.tensor([0, 1, 0, 1]))
    assert torch.equal(loo_loss(features, targets), loo_loss(features, targets.float()))
