"""How the samples are read, in which pieces and which precision, does not change the answer."""

from dataclasses import replace

import pytest
import torch

from divacli.ridge import (
    Scaling,
    Span,
    decompose,
    fit_scaling,
    leave_one_out,
    loo_derivative,
    loo_loss,
    loo_predictions,
    ridge_path,
    validation_derivative,
)

DISCRETE = ("predicted",)
"""Where two predictions are nearly equal, rounding may choose the other class for a sample or two."""


class ArrayRows:
    """Rows that are no tensor: a NumPy array that is read a few rows at a time, like a file."""

    def __init__(self, tensor):
        self._array = tensor.numpy()

    @property
    def shape(self):
        return self._array.shape

    def __getitem__(self, rows):
        assert isinstance(rows, slice) or rows.dtype == torch.int64
        return torch.from_numpy(self._array[rows if isinstance(rows, slice) else rows.numpy()])


def everything(task, held_out, ridge, loss):
    """Every array that the package computes from a task."""
    spectrum = decompose(task)
    fit = spectrum.fit(ridge)
    derivative = loo_derivative(task, fit, loss)
    separate, validation = validation_derivative(task, held_out, fit, loss)
    path = ridge_path(task, spectrum)
    return {
        "derivative": derivative.derivative,
        "loss": derivative.loo.loss,
        "leverage": derivative.loo.leverage,
        "predicted": derivative.loo.predicted.double(),
        "loo predictions": loo_predictions(task, fit, torch.arange(0, len(task), 3)),
        "separate": separate,
        "validation loss": validation.loss,
        "path": path.loss,
    }


@pytest.fixture(params=["plain", "offset", "groups"])
def problems(request, make_problem, make_groups):
    offset = request.param == "offset"
    groups = make_groups(8, 5, 3, 2, 2, 1, 1, 2) if request.param == "groups" else None
    return make_problem(offset=offset, groups=groups), make_problem(11, seed=1, offset=offset)


@pytest.mark.parametrize("batch_rows", [1, 7, 24, 100])
def test_batches_of_any_size_give_the_same_answers(batch_rows, problems, loss_name, losses, relative_error):
    problem, held_out = problems
    expected = everything(problem.task, held_out.task, 0.7, losses[loss_name])
    in_batches = (replace(p.task, batch_rows=batch_rows) for p in problems)
    found = everything(*in_batches, 0.7, losses[loss_name])
    for name, values in expected.items():
        assert relative_error(found[name], values) < 1e-11, name


def test_rows_need_not_be_a_tensor(problems, losses):
    problem, held_out = (replace(p.task, features=ArrayRows(p.task.features), batch_rows=7) for p in problems)
    expected = everything(*(replace(p.task, batch_rows=7) for p in problems), 0.7, losses["squared"])
    found = everything(problem, held_out, 0.7, losses["squared"])
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


def test_batches_may_begin_with_absent_samples(make_problem, losses, relative_error):
    """The moments are summed around the first batch that has any weight."""
    problem = make_problem(shift=1e6)
    weights = problem.task.weights.clone()
    weights[:9] = 0.0
    features = problem.task.features.clone()
    features[:9] += 1e7
    task = replace(problem.task, features=features, weights=weights)
    expected, found = (
        loo_derivative(t, decompose(t).fit(0.7), losses["squared"]).derivative
        for t in (task, replace(task, batch_rows=4))
    )
    assert relative_error(found, expected) < 1e-7


def mixture(n, d, generator, dtype=torch.float64):
    """Overlapping classes with some structure in the features, unscaled."""
    labels = torch.randint(0, 5, (n,), generator=generator)
    means = torch.randn(5, d, generator=generator, dtype=dtype)
    return means[labels] + 4 * torch.randn(n, d, generator=generator, dtype=dtype), labels


@pytest.mark.parametrize("scaling", ["unit", "standard"])
def test_single_precision_is_near_double(scaling, make_problem, loss_name, losses, relative_error):
    """Norm-wise 1e-5 on 600 samples of 200 features, from float32 input, at the best ridge of the path."""
    generator = torch.Generator().manual_seed(0)
    features, labels = mixture(600, 200, generator, torch.float32)
    held_features, held_labels = mixture(100, 200, generator, torch.float32)
    kept = {"scaling": fit_scaling(scaling, [features])}
    weights = torch.rand(600, generator=generator, dtype=torch.float64)
    double = make_problem(600, 200, 5).task
    double = replace(double, features=features, labels=labels, weights=weights, **kept)
    held_out = replace(make_problem(100, 200, 5).task, features=held_features, labels=held_labels, **kept)
    path = ridge_path(double, decompose(double))
    ridge = float(path.ridges[path.best])
    expected = everything(double, held_out, ridge, losses[loss_name])
    single = replace(double, dtype=torch.float32)
    found = everything(single, replace(held_out, dtype=torch.float32), ridge, losses[loss_name])
    for name, values in expected.items():
        assert found[name].dtype == torch.float64, name
        assert relative_error(found[name], values) < (0.02 if name in DISCRETE else 1e-5), name
    assert relative_error(found["derivative"], expected["derivative"]) > 1e-10  # it was not float64 all along


def test_moments_of_features_in_single_precision_are_sums_in_double(make_problem):
    """Only the features are rounded: of features that single precision has, the moments are the same."""
    task = make_problem(batch_rows=7).task
    task = replace(task, features=task.features.float().double())
    double, single = decompose(task), decompose(replace(task, dtype=torch.float32))
    torch.testing.assert_close(single.eigenvalues, double.eigenvalues, rtol=1e-6, atol=0)
    assert single.eigenvalues.dtype == torch.float64
    assert single.total_weight == double.total_weight


def test_a_huge_common_offset_costs_no_accuracy_with_an_intercept(
    make_problem, loss_name, losses, relative_error
):
    """Features near 1e6, exactly shifted; a Gram matrix that is not centred would lose 12 of 16 digits."""
    near, held_near = make_problem(), make_problem(11, seed=1)
    exact = [(p.task.features * 2**20).round() / 2**20 for p in (near, held_near)]
    near, held_near = (
        replace(p.task, features=x, batch_rows=7) for p, x in zip((near, held_near), exact, strict=True)
    )
    far, held_far = (replace(t, features=t.features + 1e6) for t in (near, held_near))
    assert torch.equal(far.features - 1e6, near.features)
    expected = everything(near, held_near, 0.7, losses[loss_name])
    found = everything(far, held_far, 0.7, losses[loss_name])
    for name, values in expected.items():
        assert relative_error(found[name], values) < 1e-8, name
    span = Span(far)
    dual = everything(span.task(), span.project(held_far), 0.7, losses[loss_name])
    assert relative_error(dual["derivative"], expected["derivative"]) < 1e-8
    assert relative_error(dual["separate"], expected["separate"]) < 1e-8


def test_loo_predictions_of_chosen_rows_are_those_of_all(make_problem, losses):
    problem = make_problem(batch_rows=5)
    fit = decompose(problem.task).fit(0.7)
    everyone = loo_predictions(problem.task, fit, torch.arange(24))
    rows = torch.tensor([0, 4, 5, 23])
    torch.testing.assert_close(loo_predictions(problem.task, fit, rows), everyone[rows], rtol=0, atol=0)


needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: nothing to compare the CPU with"
)


@needs_cuda
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "groups"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_cuda_equals_the_cpu(
    dtype, tolerance, grouped, make_problem, make_groups, loss_name, losses, relative_error
):
    unit = Scaling("unit")
    tasks = (make_problem(300, 40, seed=s, dtype=dtype, scaling=unit, batch_rows=128).task for s in (0, 1))
    task, held_out = tasks
    task = replace(task, groups=make_groups(60, *[1, 2, 3] * 40) if grouped else None)
    expected = everything(task, held_out, 5.0, losses[loss_name])
    there = (replace(t, device=torch.device("cuda")) for t in (task, held_out))
    found = everything(*there, 5.0, losses[loss_name])
    for name, values in expected.items():
        assert found[name].device.type == "cpu", name
        assert relative_error(found[name], values) < (0.02 if name in DISCRETE else tolerance), name


@needs_cuda
def test_the_dual_form_on_cuda_equals_the_cpu(make_problem, losses, relative_error):
    task, held_out = make_problem(20, 60).task, make_problem(9, 60, seed=1).task
    found = []
    for device in ("cpu", "cuda"):
        span = Span(replace(task, device=torch.device(device)))
        projected = span.project(replace(held_out, device=torch.device(device)))
        found.append(everything(span.task(), projected, 0.7, losses["squared"]))
    for name, values in found[0].items():
        assert relative_error(found[1][name], values) < 1e-9, name


@needs_cuda
def test_leave_one_out_and_the_functional_form_on_cuda(make_problem, losses, relative_error):
    problem = make_problem()
    there = replace(problem.task, device=torch.device("cuda"))
    expected = leave_one_out(problem.task, decompose(problem.task).fit(0.7), losses["squared"])
    found = leave_one_out(there, decompose(there).fit(0.7), losses["squared"])
    assert relative_error(found.loss, expected.loss) < 1e-9
    value = loo_loss(*(x.cuda() for x in (problem.z, problem.y, problem.task.weights)), 0.7)
    assert relative_error(value.cpu(), loo_loss(problem.z, problem.y, problem.task.weights, 0.7)) < 1e-9
