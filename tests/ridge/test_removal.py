"""The loss after samples have left equals that of refits from their normal equations."""

from dataclasses import replace

import pytest
import torch

from divacli.errors import SolveError
from divacli.ridge import Oracle, Removal, Span, decompose, loo_derivative, validation_derivative

EXACT = 1e-9
"""Relative to the loss: what is compared is a difference of two losses."""

GONE = torch.tensor([20, 3, 4, 5, 0, 11, 17])
"""Not in order, of all classes, among them one of weight zero (5) and one of validation mask zero (17)."""


def without(problem, rows):
    return problem.task.weights.index_fill(0, rows, 0.0)


@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no-intercept"])
@pytest.mark.parametrize("offset", [False, True], ids=["fresh-head", "trained-head"])
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "groups"])
def test_the_change_is_that_of_refits(
    grouped, offset, intercept, make_problem, make_groups, loss_name, losses
):
    groups = make_groups(7, 5, 4, 3, 2, 1, 1, 1) if grouped else None
    problem = make_problem(groups=groups, offset=offset, intercept=intercept)
    removal = Removal(problem.task, problem.ridge, losses[loss_name])
    before = problem.loo_loss(loss_name)
    assert removal.loss == pytest.approx(before, rel=EXACT)
    for rows in (GONE, GONE[:1], torch.arange(10)):
        expected = problem.loo_loss(loss_name, without(problem, rows)) - before
        assert removal.change(rows) == pytest.approx(expected, abs=EXACT * before)
        assert abs(expected) > 1e-4 * before


@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no-intercept"])
def test_the_change_of_a_validation_set_is_that_of_refits(intercept, make_problem, loss_name, losses):
    problem, other = (make_problem(n, seed=n, intercept=intercept) for n in (24, 17))
    removal = Removal(problem.task, problem.ridge, losses[loss_name], other.task)
    before = problem.validation_loss(other, loss_name)
    assert removal.loss == pytest.approx(before, rel=EXACT)
    expected = problem.validation_loss(other, loss_name, without(problem, GONE)) - before
    assert removal.change(GONE) == pytest.approx(expected, abs=EXACT * before)
    # Negative control: the leave-one-out loss changes by something else.
    alone = Removal(problem.task, problem.ridge, losses[loss_name])
    assert alone.change(GONE) != pytest.approx(expected, rel=0.01)


def test_one_sample_is_the_oracles(make_problem, losses):
    """The package's own oracle, which `--verify` uses, moves one weight to zero."""
    problem = make_problem()
    removal = Removal(problem.task, problem.ridge, losses["squared"])
    oracle = Oracle(problem.task, problem.ridge)
    mask = problem.task.validation_mask
    for row in range(6):
        weight = float(problem.task.weights[row])
        moved = oracle.loo_losses(losses["squared"], row, -weight) - oracle.loo_losses(losses["squared"])
        assert removal.change(torch.tensor([row])) == pytest.approx(float(mask @ moved), abs=1e-11)


@pytest.mark.parametrize("separate", [False, True], ids=["left-out", "validation"])
def test_the_derivative_is_its_first_order(separate, make_problem, loss_name, losses):
    """Of light samples the change is minus their weights times derivatives, of heavy ones it is not."""
    problem, loss = make_problem(), losses[loss_name]
    other = make_problem(17, seed=1).task if separate else None

    def predicted_and_exact(scale):
        task = replace(problem.task, weights=problem.task.weights.index_fill(0, GONE, scale))
        fit = decompose(task).fit(problem.ridge)
        if other is None:
            derivative = loo_derivative(task, fit, loss).derivative
        else:
            derivative, _ = validation_derivative(task, other, fit, loss)
        predicted = -float(task.weights[GONE] @ derivative[GONE])
        return predicted, Removal(task, problem.ridge, loss, other).change(GONE)

    light, exact = predicted_and_exact(1e-5)
    assert exact == pytest.approx(light, rel=1e-3)
    heavy, exact = predicted_and_exact(2.0)
    assert exact != pytest.approx(heavy, rel=0.05)


def test_nobody_and_who_was_absent_already_change_nothing(make_problem, losses):
    problem = make_problem()
    removal = Removal(problem.task, problem.ridge, losses["squared"])
    absent = (problem.task.weights == 0).nonzero().squeeze(1)
    assert len(absent) > 3
    assert removal.change(absent[:0]) == 0
    assert removal.change(absent) == pytest.approx(0, abs=1e-13)


def test_a_group_is_predicted_as_before_it_left(make_problem, make_groups, losses):
    """It was left out as a whole for its own predictions; those of the others do change."""
    problem = make_problem(groups=make_groups(8, 6, 5, 5))
    inside = problem.task.groups == problem.task.groups[0]
    rows = inside.nonzero().squeeze(1)
    changes = [
        Removal(
            replace(problem.task, validation_mask=mask.double()), problem.ridge, losses["squared"]
        ).change(rows)
        for mask in (inside, ~inside)
    ]
    assert changes[0] == pytest.approx(0, abs=1e-12)
    assert abs(changes[1]) > 1e-2


def test_more_features_than_samples(make_problem, losses):
    problem = make_problem(24, 40)
    span = Span(problem.task).task()
    assert span.n_features <= 24
    expected = Removal(problem.task, problem.ridge, losses["squared"]).change(GONE)
    assert Removal(span, problem.ridge, losses["squared"]).change(GONE) == pytest.approx(expected, rel=1e-9)


def test_batches_and_the_order_of_rows_do_not_matter(make_problem, losses):
    task = make_problem().task
    expected = Removal(task, 0.7, losses["squared"]).change(GONE)
    for batch_rows in (1, 5, 100):
        removal = Removal(replace(task, batch_rows=batch_rows), 0.7, losses["squared"])
        assert removal.change(GONE.flip(0)) == pytest.approx(expected, rel=1e-11)


def test_single_precision(make_problem, losses):
    task = make_problem(200, 20).task
    expected = Removal(task, 0.7, losses["squared"])
    found = Removal(replace(task, dtype=torch.float32), 0.7, losses["squared"])
    for rows in (GONE, torch.arange(80)):
        assert found.change(rows) == pytest.approx(expected.change(rows), abs=1e-6 * expected.loss)


def test_two_classes_are_needed(make_problem, losses):
    task = make_problem().task
    removal = Removal(task, 0.7, losses["squared"])
    others = (task.labels != 1).nonzero().squeeze(1)
    with pytest.raises(SolveError, match=f"without these {len(others)} samples 1 classes of positive weight"):
        removal.change(others)
    with pytest.raises(SolveError, match="without these 24 samples 0 classes"):
        removal.change(torch.arange(24))
    # All of a class but its samples of weight zero is all of it.
    heavy = ((task.labels != 1) & (task.weights > 0)).nonzero().squeeze(1)
    assert len(heavy) < len(others)
    with pytest.raises(SolveError, match="1 classes"):
        removal.change(heavy)
    assert removal.change(others[:-1]) != 0


def test_a_group_that_would_be_alone_is_refused(make_problem, make_groups, losses):
    """Left out in its turn, nothing would be there to predict it."""
    task = make_problem(groups=make_groups(14, 10)).task
    removal = Removal(task, 0.7, losses["squared"])
    with pytest.raises(SolveError, match="leverage of one"):
        removal.change((task.groups == task.groups[0]).nonzero().squeeze(1))
