"""Leaving samples out together with their group, against refits, finite differences and autograd."""

import itertools
from dataclasses import replace

import pytest
import torch

from divacli.errors import SolveError
from divacli.ridge import (
    Oracle,
    RidgeTask,
    Scaling,
    Span,
    SquaredLoss,
    decompose,
    leave_one_out,
    loo_derivative,
    loo_loss,
    loo_predictions,
    moments,
    ridge_path,
)
from divacli.ridge.fit.folds import split_in_folds

SHAPES = [
    # n, d, k, sizes of groups: one larger than d, so that the smaller system is that of the features.
    pytest.param((40, 4, 2, (9, 5, 4, 3, 2, 1, 1, 2, 3, 5, 5)), id="n>d"),
    pytest.param((18, 9, 4, (5, 4, 2, 3, 1, 1, 2)), id="few"),
    pytest.param((14, 18, 3, (4, 3, 2, 1, 1, 3)), id="n<d"),
]


@pytest.fixture(params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["intercept", "no-intercept"])
def intercept(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["fresh-head", "trained-head"])
def problem(request, shape, intercept, make_problem, make_groups):
    n, d, k, sizes = shape
    return make_problem(n, d, k, intercept=intercept, offset=request.param, groups=make_groups(*sizes))


@pytest.fixture
def grouped(make_problem, make_groups):
    """One problem in 40 samples, for what does not hang on shapes."""
    return make_problem(40, 4, 3, groups=make_groups(9, 5, 4, 3, 2, 1, 1, 2, 3, 5, 5))


def everyone(task):
    return torch.arange(len(task))


def answers(task, ridge, loss):
    """Derivative, losses, leverages and predictions of every sample."""
    fit = decompose(task).fit(ridge)
    result = loo_derivative(task, fit, loss)
    return {
        "derivative": result.derivative,
        "loss": result.loo.loss,
        "leverage": result.loo.leverage,
        "predictions": loo_predictions(task, fit, everyone(task)),
    }


def test_predictions_are_those_of_refits_without_the_group(problem, loss_name, losses, relative_error):
    fit = decompose(problem.task).fit(problem.ridge)
    expected = problem.loo_predictions()
    assert relative_error(loo_predictions(problem.task, fit, everyone(problem.task)), expected) < 1e-12
    found = leave_one_out(problem.task, fit, losses[loss_name])
    summed = float(problem.task.validation_mask @ found.loss)
    assert summed == pytest.approx(problem.loo_loss(loss_name), rel=1e-12)
    assert torch.equal(found.predicted, expected.argmax(dim=1))


def test_leaving_out_single_samples_is_something_else(problem, relative_error):
    """Negative control: copies of a sample that stay in the fit leak into its prediction."""
    alone = replace(problem, task=replace(problem.task, groups=None))
    assert relative_error(alone.loo_predictions(), problem.loo_predictions()) > 0.01


def test_the_oracle_refits_without_the_group(problem, relative_error):
    oracle = Oracle(problem.task, problem.ridge)
    found = torch.stack([oracle.loo_prediction(row) for row in range(len(problem.task))])
    assert relative_error(found, problem.loo_predictions()) < 1e-12


def test_the_derivative_is_the_finite_difference_of_refits(problem, loss_name, losses, relative_error):
    found = answers(problem.task, problem.ridge, losses[loss_name])["derivative"]
    expected = problem.differences(lambda weights: problem.loo_loss(loss_name, weights))
    assert relative_error(found, expected) < 1e-8
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    alone = answers(replace(problem.task, groups=None), problem.ridge, losses[loss_name])["derivative"]
    assert relative_error(alone, expected) > 0.05


def test_the_oracles_derivatives_are_the_closed_form(problem, loss_name, losses, relative_error):
    loss, rows = losses[loss_name], range(0, len(problem.task), 3)
    oracle = Oracle(problem.task, problem.ridge)
    expected = answers(problem.task, problem.ridge, loss)["derivative"][::3]
    found = torch.tensor([oracle.loo_derivative(loss, row) for row in rows], dtype=torch.float64)
    assert relative_error(found, expected) < 1e-8
    summed = float(problem.task.validation_mask @ oracle.loo_losses(loss))
    assert summed == pytest.approx(problem.loo_loss(loss_name), rel=1e-12)


def test_autograd_through_the_functional_form_is_the_derivative(
    shape, intercept, loss_name, losses, make_problem, make_groups, relative_error
):
    n, d, k, sizes = shape
    problem = make_problem(n, d, k, intercept=intercept, groups=make_groups(*sizes))
    weights = problem.task.weights.clone().requires_grad_()
    value = loo_loss(
        problem.z,
        problem.y,
        weights,
        problem.ridge,
        validation_mask=problem.task.validation_mask,
        groups=problem.task.groups,
        loss=losses[loss_name],
        intercept=intercept,
    )
    value.backward()
    assert float(value.detach()) == pytest.approx(problem.loo_loss(loss_name), rel=1e-12)
    expected = answers(problem.task, problem.ridge, losses[loss_name])["derivative"]
    assert relative_error(weights.grad, expected) < 1e-10


@pytest.mark.parametrize(("n", "d"), [(9, 2), (9, 11)], ids=["primal", "dual"])
def test_gradients_in_every_argument_are_right(n, d, intercept, loss_name, losses, make_problem, make_groups):
    """The group of four is larger than the two features."""
    problem = make_problem(n, d, 2, intercept=intercept)
    groups = make_groups(4, 2, *[1] * (n - 6))

    def function(features, targets, weights, ridge):
        kept = {"loss": losses[loss_name], "intercept": intercept}
        return loo_loss(features, targets, weights, ridge, groups=groups, **kept)

    ridge = torch.tensor(problem.ridge, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for x in (problem.z, problem.y, problem.task.weights, ridge)]
    assert torch.autograd.gradcheck(function, inputs, eps=1e-5, atol=1e-6, rtol=1e-5)


def textbook_terms(problem, gradient):
    """The terms of the formula in `leave_out.left_out`, unwhitened, a dense system for every group."""
    z, alpha, groups = problem.design, problem.task.weights, problem.task.groups
    penalty = torch.full((z.shape[1],), problem.ridge, dtype=torch.float64)
    penalty[problem.z.shape[1] :] = 0.0
    inverse = torch.linalg.inv(z.T @ (z * alpha[:, None]) + penalty.diag())
    targets = problem.y - problem.base
    hat = z @ inverse @ z.T
    residuals = targets - hat @ (alpha[:, None] * targets)
    together = (groups == groups[:, None]).double()
    inner = together * hat
    system = torch.eye(len(z), dtype=torch.float64) - inner * alpha
    loo_residuals = torch.linalg.solve(system, residuals)
    g = -problem.task.validation_mask[:, None] * gradient(problem.y - loo_residuals, problem.y)

    def terms(u):
        p = z.T @ u
        m = z.T @ (together * (u @ loo_residuals.T) * alpha) @ z
        return (
            ((inner @ u) * loo_residuals).sum(dim=1),
            -(residuals * (z @ inverse @ p)).sum(dim=1),
            -((z @ inverse @ m @ inverse) * z).sum(dim=1),
        )

    return terms(torch.linalg.solve(system.T, g)), terms(torch.linalg.solve(system, g))


def test_the_formula_holds_and_each_of_its_terms_is_needed(problem, loss_name, losses, relative_error):
    """Negative controls: the comparison used above fails by far for every wrong formula."""
    expected = problem.differences(lambda weights: problem.loo_loss(loss_name, weights))
    (own, through_p, through_m), not_transposed = textbook_terms(problem, losses[loss_name].gradient)
    assert relative_error(own + through_p + through_m, expected) < 1e-8
    wrong = {
        "sign": -(own + through_p + through_m),
        "no own term": through_p + through_m,
        "no P": own + through_m,
        "no M": own + through_p,
        "S in place of its transpose": sum(not_transposed),
    }
    for name, derivative in wrong.items():
        assert relative_error(derivative, expected) > 0.02, name


def test_groups_of_one_are_no_groups(make_problem, loss_name, losses):
    problem = make_problem(30, 4, batch_rows=13)
    names = torch.randperm(30, generator=torch.Generator().manual_seed(0)) - 7
    task, loss = replace(problem.task, groups=names), losses[loss_name]
    expected, found = (answers(t, 0.7, loss) for t in (problem.task, task))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    spectrum = decompose(task)
    paths = [ridge_path(t, spectrum) for t in (problem.task, task)]
    assert torch.equal(paths[0].loss, paths[1].loss)
    oracles = [Oracle(t, 0.7).loo_losses(loss) for t in (problem.task, task)]
    torch.testing.assert_close(oracles[0], oracles[1], rtol=1e-12, atol=0)
    values = [loo_loss(problem.z, problem.y, groups=groups) for groups in (None, names)]
    assert torch.equal(*values)


@pytest.mark.parametrize("batch_rows", [1, 7, 11, 100])
def test_batches_of_any_size_give_the_same_answers(batch_rows, grouped, loss_name, losses, relative_error):
    task, loss = grouped.task, losses[loss_name]
    expected = answers(task, 0.7, loss)
    in_batches = replace(task, batch_rows=batch_rows)
    found = answers(in_batches, 0.7, loss)
    for name, value in expected.items():
        assert relative_error(found[name], value) < 1e-11, name
    paths = [ridge_path(t, decompose(t)) for t in (task, in_batches)]
    assert relative_error(paths[1].loss, paths[0].loss) < 1e-12


@pytest.mark.parametrize("batch_rows", [1, 2, 8, 13, 100])
def test_parts_are_whole_groups_as_many_as_fit(batch_rows, grouped):
    groups = grouped.task.groups
    parts = list(replace(grouped.task, batch_rows=batch_rows).parts())
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(40))
    numbers = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, numbers)) == len(set(groups.tolist()))
    for part, inside in zip(parts, numbers, strict=True):
        assert torch.equal(part, part.sort().values)
        assert len(part) <= batch_rows or len(inside) == 1
    first_rows = [int(part[0]) for part in parts]
    assert first_rows == sorted(first_rows)
    for part, after in itertools.pairwise(parts):
        following = groups[after[0]]
        assert len(part) + int((groups == following).sum()) > batch_rows


@pytest.mark.parametrize("seed", [0, 1])
def test_neither_the_order_nor_the_names_of_groups_matter(seed, grouped, loss_name, losses, relative_error):
    task, generator = grouped.task, torch.Generator().manual_seed(seed)
    order = torch.randperm(40, generator=generator)
    _, numbers = torch.unique(task.groups, return_inverse=True)
    renamed = torch.randperm(int(numbers.max()) + 1, generator=generator)[numbers]
    other = replace(
        task,
        features=task.features[order],
        labels=task.labels[order],
        weights=task.weights[order],
        validation_mask=task.validation_mask[order],
        groups=renamed[order],
    )
    expected, found = (answers(t, 0.7, losses[loss_name]) for t in (task, other))
    for name, value in expected.items():
        assert relative_error(found[name], value[order]) < 1e-11, name
    assert not torch.allclose(found["derivative"], expected["derivative"])


@pytest.mark.parametrize("batch_rows", [64, 2048])
def test_single_precision_is_near_double(batch_rows, loss_name, losses, make_groups, relative_error):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (600,), generator=generator)
    features = torch.randn(5, 60, generator=generator)[labels] + 2 * torch.randn(600, 60, generator=generator)
    groups = make_groups(100, 70, *[1, 2, 3, 4, 5] * 28, 10)
    task = RidgeTask(
        features,
        labels,
        5,
        torch.rand(600, generator=generator, dtype=torch.float64),
        scaling=Scaling("unit"),
        groups=groups,
        batch_rows=batch_rows,
    )
    double = replace(task, dtype=torch.float64)
    path = ridge_path(double, decompose(double))
    ridge = float(path.ridges[path.best])
    expected, found = (answers(t, ridge, losses[loss_name]) for t in (double, task))
    for name, value in expected.items():
        assert found[name].dtype == torch.float64
        assert relative_error(found[name], value) < 1e-5, name
    assert relative_error(found["derivative"], expected["derivative"]) > 1e-10
    single = ridge_path(task, decompose(task))
    assert relative_error(single.loss, path.loss) < 1e-5


def test_the_path_is_leave_one_out_at_every_ridge(problem, losses):
    spectrum = decompose(problem.task)
    path = ridge_path(problem.task, spectrum)
    mask = problem.task.validation_mask
    for index, ridge in enumerate(path.ridges):
        loo = leave_one_out(problem.task, spectrum.fit(float(ridge)), losses["squared"])
        assert float(path.loss[index]) == pytest.approx(float(mask @ loo.loss / mask.sum()), rel=1e-9)
    alone = ridge_path(replace(problem.task, groups=None), spectrum, path.ridges)
    assert not torch.allclose(alone.loss, path.loss, rtol=1e-3)


def test_the_span_keeps_groups(problem, loss_name, losses, relative_error):
    dual = Span(problem.task).task()
    expected, found = (answers(t, problem.ridge, losses[loss_name]) for t in (problem.task, dual))
    for name, value in expected.items():
        assert relative_error(found[name], value) < 1e-9, name


def test_moments_know_no_groups(grouped):
    bare = replace(grouped.task, groups=None)
    for batch_rows in (7, 100):
        found, expected = (moments(replace(t, batch_rows=batch_rows)) for t in (grouped.task, bare))
        assert torch.equal(found.gram, expected.gram)


def test_a_group_of_copies_is_one_sample_of_their_weight(make_problem, loss_name, losses):
    """Copies of a sample in one group, with its mask shared out among them: nothing at all changes."""
    problem = make_problem(24, 5)
    times = torch.ones(24, dtype=torch.int64)
    times[torch.tensor([4, 5, 9, 20])] = torch.tensor([2, 3, 2, 8])
    rows = torch.repeat_interleave(torch.arange(24), times)
    task = problem.task
    copies = replace(
        task,
        features=task.features[rows],
        labels=task.labels[rows],
        weights=(task.weights / times)[rows],
        validation_mask=(task.validation_mask / times)[rows],
        groups=rows,
    )
    expected, found = (answers(t, 0.7, losses[loss_name]) for t in (task, copies))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value[rows], rtol=1e-10, atol=1e-12, msg=name)
    leaking = answers(replace(copies, groups=None), 0.7, losses[loss_name])
    assert not torch.allclose(leaking["predictions"], expected["predictions"][rows], atol=1e-3)


def test_a_group_that_is_absent_has_its_ordinary_residuals(grouped, losses, relative_error):
    largest = grouped.task.groups.mode().values
    weights = torch.where(grouped.task.groups == largest, 0.0, grouped.task.weights)
    absent = replace(grouped, task=replace(grouped.task, weights=weights))
    found = answers(absent.task, 0.7, losses["squared"])
    training = absent.design @ absent.refits(weights[None])[0]
    members = grouped.task.groups == largest
    assert relative_error(found["predictions"][members], training[members]) < 1e-12
    assert relative_error(found["predictions"][~members], training[~members]) > 0.01
    expected = absent.differences(lambda w: absent.loo_loss("squared", w))
    assert relative_error(found["derivative"], expected) < 1e-8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_halves_are_of_whole_groups_and_balanced_within_every_class(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (300,), generator=generator)
    groups = torch.randint(0, 90, (300,), generator=generator)
    half = split_in_folds(labels, torch.arange(300), seed, 2, groups)
    for group in groups.unique():
        assert len(half[groups == group].unique()) == 1
    for label in range(5):
        zeros, ones = ((half[labels == label] == side).sum() for side in (0, 1))
        assert abs(int(zeros) - int(ones)) <= 4
    assert torch.equal(half, split_in_folds(labels, torch.arange(300), seed, 2, groups))
    assert not torch.equal(half, split_in_folds(labels, torch.arange(300), seed + 1, 2, groups))
    alone = split_in_folds(labels, torch.arange(300), seed, 2)
    assert torch.equal(alone, split_in_folds(labels, torch.arange(300), seed, 2, torch.arange(300, 0, -1)))


def test_a_pool_is_judged_by_the_groups_of_the_task(
    grouped, make_problem, losses, relative_error, pool_derivative
):
    """Against the merged task, in which every candidate is a group of its own."""
    task, pool = grouped.task, make_problem(12, 4, seed=1).task
    nothing = torch.zeros(12, dtype=torch.float64)
    both = replace(
        task,
        features=torch.cat([task.features, pool.features]),
        labels=torch.cat([task.labels, pool.labels]),
        weights=torch.cat([task.weights, nothing]),
        validation_mask=torch.cat([task.validation_mask, nothing]),
        groups=torch.cat([task.groups, torch.arange(12)]),
    )
    expected = answers(both, 0.7, losses["squared"])["derivative"][40:]
    fit = decompose(task).fit(0.7)
    assert relative_error(pool_derivative(task, pool, fit, losses["squared"]), expected) < 1e-11
    wrong = pool_derivative(replace(task, groups=None), pool, fit, losses["squared"])
    assert relative_error(wrong, expected) > 0.05


@pytest.fixture(params=[2, 3, 12], ids=["pair", "three", "more-than-features"])
def indispensable(request, make_problem):
    """A task whose fifth feature only the members of one group have: rows 3, 5, 7, ..."""
    task = make_problem(60, 5, weights=torch.ones(60, dtype=torch.float64)).task
    members = 3 + 2 * torch.arange(request.param)
    groups = torch.arange(60) // 2
    groups[members] = -1
    features = task.features.clone()
    features[:, 4] = 0.0
    features[members, 4] = torch.linspace(1.0, 2.0, request.param, dtype=torch.float64)
    everyone_counts = torch.ones(60, dtype=torch.float64)
    return replace(task, features=features, groups=groups, validation_mask=everyone_counts)


def turned(task, seed):
    """The same in other axes: then no single sample or feature betrays the group."""
    generator = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    return replace(task, features=task.features @ axes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_a_group_that_cannot_be_left_out_is_named(seed, dtype, indispensable):
    task = turned(replace(indispensable, batch_rows=4 if seed % 2 else 100, dtype=dtype), seed)
    spectrum = decompose(task)
    for solve in (leave_one_out, loo_derivative):
        with pytest.raises(SolveError, match="the group of sample 3 has a leverage of one at ridge 0:"):
            solve(task, spectrum.fit(0.0), SquaredLoss())
    assert bool(torch.isfinite(leave_one_out(task, spectrum.fit(0.1), SquaredLoss()).loss).all())
    alone = replace(task, groups=None)
    assert bool(torch.isfinite(leave_one_out(alone, spectrum.fit(0.0), SquaredLoss()).loss).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_the_path_goes_on_past_such_a_group_and_does_not_choose_it(seed, dtype, indispensable):
    task = turned(replace(indispensable, dtype=dtype), seed)
    spectrum = decompose(task)
    path = ridge_path(task, spectrum, torch.tensor([0.0, 1e-12, 1e-1, 1.0], dtype=torch.float64))
    assert bool(torch.isfinite(path.loss).all())
    assert path.best >= 2
    leave_one_out(task, spectrum.fit(float(path.ridges[path.best])), SquaredLoss())


def test_the_oracle_names_the_group_it_cannot_do_without(indispensable):
    integers = replace(indispensable, features=(4 * indispensable.features).round())
    oracle = Oracle(integers, 0.0)
    with pytest.raises(SolveError, match="without sample 3 and its group the normal equations are singular"):
        oracle.loo_prediction(5)
    assert bool(torch.isfinite(oracle.loo_prediction(0)).all())


def test_one_group_of_everybody_cannot_be_left_out(grouped, losses):
    task = replace(grouped.task, groups=torch.zeros(40, dtype=torch.int64))
    with pytest.raises(SolveError, match="the group of sample 0 has a leverage of one at ridge 2:"):
        leave_one_out(task, decompose(task).fit(2.0), losses["squared"])


@pytest.mark.parametrize(
    "groups", [torch.zeros(39, dtype=torch.int64), torch.zeros(40, dtype=torch.int32), torch.zeros(40)]
)
def test_groups_are_one_number_a_sample(groups, grouped):
    with pytest.raises(ValueError, match=r"groups is torch\..*: expected torch.int64 of shape \(40,\)"):
        replace(grouped.task, groups=groups)


def test_the_functional_form_names_groups_that_do_not_fit():
    with pytest.raises(ValueError, match=r"groups has shape \(3,\): expected \(4,\)"):
        loo_loss(torch.ones(4, 3), torch.ones(4, 2), groups=torch.zeros(3, dtype=torch.int64))
