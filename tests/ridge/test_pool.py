"""The derivative in the weights of samples that are not trained on."""

from dataclasses import replace

import pytest
import torch

from divacli.ridge import (
    LinearOutput,
    Oracle,
    Span,
    decompose,
    loo_derivative,
    validation_derivative,
)

INTERCEPTS = pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no-intercept"])
HEADS = pytest.mark.parametrize("offset", [False, True], ids=["fresh-head", "trained-head"])


def merged(task, pool):
    """Both sets as one task, in which the pool is absent and does not count."""
    nothing = torch.zeros(len(pool), dtype=torch.float64)
    features = torch.cat([task.features, pool.features])
    offset = None
    if task.offset is not None:
        offset = torch.cat([task.offset[:], pool.offset[:]])
    return replace(
        task,
        features=features,
        labels=torch.cat([task.labels, pool.labels]),
        weights=torch.cat([task.weights, nothing]),
        validation_mask=torch.cat([task.validation_mask, nothing]),
        offset=offset,
    )


@pytest.fixture(params=[(24, 5), (9, 14)], ids=["n>d", "n<d"])
def tasks(request, make_problem):
    """A task and a pool, which has weights and a mask that are not to be looked at."""

    def make(intercept=True, offset=False, **options):
        n, d = request.param
        task = make_problem(n, d, intercept=intercept, offset=offset, **options).task
        pool = make_problem(17, d, seed=1, intercept=intercept, offset=offset).task
        if offset:
            head = task.offset
            pool = replace(pool, offset=LinearOutput(pool.features, head.weight, head.bias))
        return task, pool

    return make


@INTERCEPTS
@HEADS
def test_it_is_that_of_the_merged_task(
    offset, intercept, tasks, loss_name, losses, relative_error, pool_derivative
):
    task, pool = tasks(intercept, offset)
    both = merged(task, pool)
    expected = loo_derivative(both, decompose(both).fit(0.7), losses[loss_name]).derivative[len(task) :]
    found = pool_derivative(task, pool, decompose(task).fit(0.7), losses[loss_name])
    assert found.dtype == torch.float64
    assert relative_error(found, expected) < 1e-11


@INTERCEPTS
@HEADS
def test_it_is_the_finite_difference_of_refits(
    offset, intercept, tasks, make_problem, loss_name, losses, relative_error, pool_derivative
):
    task, pool = tasks(intercept, offset)
    oracle, fit, loss = Oracle(merged(task, pool), 0.7), decompose(task).fit(0.7), losses[loss_name]
    rows = range(len(task), len(task) + len(pool))
    expected = torch.tensor([oracle.loo_derivative(loss, row) for row in rows], dtype=torch.float64)
    assert relative_error(pool_derivative(task, pool, fit, loss), expected) < 1e-8
    held_out = make_problem(11, task.n_features, seed=2, intercept=intercept, offset=offset).task
    found = pool_derivative(task, pool, fit, loss, held_out)
    expected = torch.tensor(
        [oracle.validation_derivative(held_out, loss, row) for row in rows], dtype=torch.float64
    )
    assert relative_error(found, expected) < 1e-8
    assert relative_error(pool_derivative(task, pool, fit, loss), found) > 0.1


def test_the_training_samples_are_no_pool_of_their_own(tasks, losses, relative_error, pool_derivative):
    """Negative control: a sample that is left out of its own prediction is not one that comes in anew."""
    task, _ = tasks()
    fit = decompose(task).fit(0.7)
    own = loo_derivative(task, fit, losses["squared"]).derivative
    assert relative_error(pool_derivative(task, task, fit, losses["squared"]), own) > 0.05
    validated = validation_derivative(task, task, fit, losses["squared"])[0]
    assert torch.equal(pool_derivative(task, task, fit, losses["squared"], task), validated)


@pytest.mark.parametrize("batch_rows", [1, 7, 100])
def test_pieces_of_any_size_give_the_same_answer(
    batch_rows, tasks, loss_name, losses, relative_error, pool_derivative
):
    task, pool = tasks()
    fit, loss = decompose(task).fit(0.7), losses[loss_name]
    expected = pool_derivative(task, pool, fit, loss)
    found = pool_derivative(*(replace(t, batch_rows=batch_rows) for t in (task, pool)), fit, loss)
    assert relative_error(found, expected) < 1e-12
    single = pool_derivative(*(replace(t, dtype=torch.float32) for t in (task, pool)), fit, loss)
    assert 1e-10 < relative_error(single, expected) < 1e-5


@INTERCEPTS
def test_what_of_a_pool_lies_outside_the_span_does_not_matter(
    intercept, tasks, losses, relative_error, pool_derivative
):
    task, pool = tasks(intercept)
    span = Span(task)
    expected = pool_derivative(task, pool, decompose(task).fit(0.7), losses["squared"])
    dual = span.task()
    found = pool_derivative(dual, span.project(pool), decompose(dual).fit(0.7), losses["squared"])
    assert relative_error(found, expected) < 1e-10
