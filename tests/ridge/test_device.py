"""What is computed on another device is what is computed on the CPU, and nothing mixes the two.

Without a GPU, `Elsewhere` keeps account of which tensors would lie on one. With one, results are compared.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from divacli.ridge import (
    CrossEntropyLoss,
    Extension,
    LinearOutput,
    Oracle,
    Problem,
    Reduction,
    Removal,
    RidgeTask,
    Scaling,
    Span,
    SquaredLoss,
    choose_steps,
    decompose,
    derivative_errors,
    diagnose,
    differentiate,
    fit_noise,
    in_eigenbasis,
    loo_derivative,
    loo_predictions,
    near_duplicates,
    ridge_path,
    scores,
    validation_derivative,
)
from divacli.ridge.fit.task import BATCH_ROWS, CUDA_BATCH_ROWS, default_batch_rows

DEVICE = torch.device("meta")
"""The name of the device that `Elsewhere` pretends to have; no tensor of it is ever made."""

STRENGTHS = (math.inf, 300.0)
"""Of the prior of the noise model, to choose from: one of each kind."""


class Elsewhere(TorchFunctionMode):
    """Computes on the CPU, and refuses what CUDA refuses: tensors of two places in one operation.

    Tensors that were made on or moved to `DEVICE`, and what is computed of them, say that they lie there. As
    with CUDA, numbers (of no dimension) on the CPU go with anything, rows may be read by indices on the CPU,
    and only copies go from one place to the other.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = func.__name__
        if name == "__get__" and func.__self__ is Tensor.device:
            return DEVICE if _there(args[0]) else torch.device("cpu")
        if name in ("to", "cpu"):
            return self._moved(func, args, kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(map(_there, tensors))
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]) == DEVICE
            kwargs["device"] = "cpu"
        elif name in ("__getitem__", "__setitem__"):
            indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
            there = _there(args[0])
            together = [args[0], *(args[2:] if indices else ())]
            if any(map(_there, indices)) and not there:
                raise RuntimeError(f"{name}: indices are on the device, what they point to is not")
            self._require_one_place(name, [part for part in together if isinstance(part, Tensor)])
        elif name == "numpy" and there:
            raise TypeError("what is on the device has to be copied first")
        elif name not in ("copy_", "new_zeros"):
            self._require_one_place(name, tensors)
        return tree_map(_there_too, func(*args, **kwargs)) if there else func(*args, **kwargs)

    def _moved(self, func, args, kwargs):
        """What `to` or `cpu` gives: a copy, where the place is another one."""
        tensor, *rest = args
        there = _there(tensor) and func is not Tensor.cpu
        arguments = []
        for argument in [*rest, kwargs.pop("device", None)]:
            if isinstance(argument, torch.device):
                there = argument == DEVICE
            elif isinstance(argument, Tensor):
                there = _there(argument)
                arguments.append(argument.dtype)
            elif argument is not None:
                arguments.append(argument)
        found = tensor.to(*arguments, **kwargs) if arguments or kwargs.get("dtype") else tensor
        found = found.clone() if there != _there(tensor) else found
        return _there_too(found) if there else found

    @staticmethod
    def _require_one_place(name, tensors):
        if any(map(_there, tensors)) and any(part.ndim and not _there(part) for part in tensors):
            shapes = ", ".join(
                f"{tuple(part.shape)} {'there' if _there(part) else 'here'}" for part in tensors
            )
            raise RuntimeError(f"{name}: tensors of two places: {shapes}")


def _there(tensor):
    return getattr(tensor, "lies_there", False)


def _there_too(found):
    if isinstance(found, Tensor):
        found.lies_there = True
    return found


@pytest.fixture
def elsewhere():
    with Elsewhere():
        yield DEVICE


def random(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(n, device, seed=0, d=6, k=3, **options):
    """A task of some dozens of samples; a few weights and mask values are zero."""
    labels = torch.arange(n) % k
    features = random(n, d, seed=seed)
    features[torch.arange(n), labels] += 1.5
    labels[::9] = (labels[::9] + 1) % k
    weights, mask = random(n, seed=seed + 1).square() + 0.2, random(n, seed=seed + 2).square()
    weights[3::7], mask[5::11] = 0.0, 0.0
    settings = {"validation_mask": mask, "dtype": torch.float64, "batch_rows": 16, "device": device}
    return RidgeTask(features, labels, k, weights, **{**settings, **options})


def kinds(n, seed=0):
    """What tasks are like that take different ways through the code."""
    head = 0.3 * random(3, 6), random(3)
    return {
        "plain": {},
        "standard, single": {
            "dtype": torch.float32,
            "scaling": Scaling("standard", random(6).abs(), random(6).abs() + 0.5),
        },
        "no intercept": {"intercept": False},
        "groups": {"groups": torch.arange(n) // 3 * 5},
        "large groups": {"groups": torch.arange(n) // 20},
        "trained head": {"offset": LinearOutput(random(n, 6, seed=seed), *head), "scaling": Scaling("unit")},
    }


def solved(task, held_out, loss):
    """Everything that a table of scores is made of."""
    spectrum, task, [held_out] = in_eigenbasis(task, decompose(task), held_out)
    path = ridge_path(task, spectrum)
    best = float(path.ridges[path.best])
    order = torch.arange(len(task)).flip(0)
    fit = spectrum.fit(best)
    rows = order[::2]
    model = fit_noise(loo_predictions(task, fit, rows), task.labels[rows], strengths=STRENGTHS).model
    judges = order if held_out is None else torch.arange(len(held_out))
    found = scores(task, fit, loss, model, judges, held_out)
    return {
        "path": path.loss,
        "derivative": found.derivative,
        "errors": found.errors,
        "loss": found.loo.loss,
        "outliers": found.diagnosis.outlier_score,
        "wrong": found.diagnosis.mislabel_probability,
        "confusions": found.diagnosis.confusions,
    }


def answers(device, kind, separate=False, loss=None):
    """What `solved` finds on a device."""
    task = made(60, device, **kinds(60)[kind])
    options = {name: value for name, value in kinds(33, seed=7)[kind].items() if name != "groups"}
    return solved(task, made(33, device, seed=7, **options) if separate else None, loss or SquaredLoss())


def one_by_one(device, kind):
    """What single functions find, on features that are not in the eigenbasis."""
    task, held_out = made(60, device, **kinds(60)[kind]), made(33, device, seed=7)
    held_out = replace(held_out, scaling=task.scaling, intercept=task.intercept, dtype=task.dtype)
    fit = decompose(task).fit(0.7)
    order = torch.arange(60)
    model = fit_noise(loo_predictions(task, fit, order), task.labels, strengths=STRENGTHS).model
    loss = CrossEntropyLoss(3.0)
    loo, diagnosis = diagnose(task, fit, loss, model)
    removal = Removal(task, 0.7, loss)
    oracle = Oracle(task, 0.7)
    return {
        "loo_derivative": loo_derivative(task, fit, loss).derivative,
        "validation_derivative": validation_derivative(task, held_out, fit, loss)[0],
        "errors": derivative_errors(task, fit, loss, order),
        "loss": loo.loss,
        "outliers": diagnosis.outlier_score,
        "removal": torch.tensor([removal.change(torch.arange(5, 9))]),
        "oracle": oracle.loo_prediction(4),
        "by differences": torch.tensor([oracle.loo_derivative(loss, 4)]),
    }


def extended(device, separate, labelled=True, robust=True, walk=Extension):
    """Samples chosen from a pool, batch after batch, and what is said of the rest."""
    core, pool = made(40, device), made(50, device, seed=5, validation_mask=torch.zeros(50).double())
    validation = made(33, device, seed=7) if separate else None
    order = torch.arange(33 if separate else 40)
    if walk is Reduction:
        choice = Reduction(core, pool, order, ridge=None, robust=robust)
    else:
        choice = Extension(core, pool, order, validation=validation, robust=robust, labelled=labelled)
    free, chosen = torch.ones(50, dtype=torch.bool), []
    for _ in range(2):
        rows = choice.choose(choice.candidates(), free, 6)
        free[rows] = False
        choice.add(rows)
        chosen.append(rows)
    return {
        "chosen": torch.cat(chosen).double(),
        "derivative": choice.candidates().derivative,
        "loss": torch.tensor([choice.state.loss]),
    }


def reweighted(device, separate, robust=True):
    """Steps against the derivative, as K-fold chooses them."""
    validation = made(33, device, seed=7) if separate else None
    problem = Problem(
        made(60, device), 2.0, torch.arange(33 if separate else 60), robust=robust, validation=validation
    )
    choice = choose_steps(problem, most=1, sizes=(0.1, 0.4), n_folds=3)
    return {
        "derivative": differentiate(problem, problem.task.weights).derivative,
        "trials": torch.tensor([[trial.loss, trial.gain_error] for trial in choice.trials]),
    }


def spanned(device):
    """The kernel form, of fewer samples than features."""
    task, held_out = made(20, device, d=40), made(9, device, d=40, seed=7)
    span = Span(task)
    return solved(span.task(), span.project(held_out), SquaredLoss())


def copies(device):
    """Near-duplicates among rows some of which have noisy copies."""
    rows = random(90, 12)
    rows = torch.cat([rows, 2 * rows[:9] + 1e-3 * random(9, 12, seed=1)])
    found = near_duplicates(rows, torch.arange(len(rows)), device)
    return {"numbers": found.numbers.double(), "distance": found.distance[:9]}


WAYS = {
    **{f"scores, {kind}": (answers, {"kind": kind}) for kind in kinds(60)},
    "scores, cross-entropy": (answers, {"kind": "plain", "loss": CrossEntropyLoss(3.0)}),
    "scores, validation set": (answers, {"kind": "plain", "separate": True}),
    "scores, validation set, trained head": (answers, {"kind": "trained head", "separate": True}),
    **{f"one by one, {kind}": (one_by_one, {"kind": kind}) for kind in kinds(60)},
    "extension": (extended, {"separate": False}),
    "extension, validation set": (extended, {"separate": True, "robust": False}),
    "extension, unlabelled": (extended, {"separate": False, "labelled": False}),
    "reduction": (extended, {"separate": False, "walk": Reduction}),
    "reweighting": (reweighted, {"separate": False}),
    "reweighting, validation set": (reweighted, {"separate": True, "robust": False}),
    "kernel form": (spanned, {}),
    "near-duplicates": (copies, {}),
}
"""What is computed, and how it is called."""


@pytest.mark.parametrize("way", WAYS)
def test_nothing_mixes_tensors_of_two_places(way, elsewhere):
    compute, options = WAYS[way]
    found, expected = compute(elsewhere, **options), compute(torch.device("cpu"), **options)
    for name, values in expected.items():
        assert not _there(found[name]), name
        torch.testing.assert_close(found[name], values, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_elsewhere_is_where_the_computing_is_done(elsewhere):
    task = made(60, elsewhere)
    batch = task.batch(torch.arange(5))
    assert all(map(_there, (batch.features, batch.labels, batch.weights, decompose(task).eigenvalues)))
    assert not any(map(_there, (task.features, task.labels, task.batch(torch.arange(5)).numbers)))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: here + there,
        lambda here, there: torch.where(there > 0, there, here),
        lambda here, there: here.__iadd__(there),
        lambda here, there: here[there.long()],
        lambda here, there: there.__setitem__(there > 0, here[:2]),
        lambda here, there: there.index_add_(0, torch.arange(3), there),
        lambda here, there: torch.cat([here, there]),
        lambda here, there: (here.to(there) @ there).numpy(),
    ],
)
def test_what_mixes_places_is_refused(mixed, elsewhere):
    """Control of the test above."""
    here, there = torch.ones(3), torch.ones(3, device=elsewhere)
    there[torch.arange(3)] = there.cpu().to(elsewhere) * torch.tensor(2.0)
    here[:] = there
    with pytest.raises((RuntimeError, TypeError), match=r"places|indices|copied"):
        mixed(here, there)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def relative(found, expected):
    """The largest difference, over the largest value; what is not a number is so in both."""
    assert torch.equal(found.isnan(), expected.isnan())
    known = ~expected.isnan()
    return float((found - expected)[known].abs().max() / expected[known].abs().max().clamp_min(1e-300))


@needs_cuda
@pytest.mark.parametrize("way", WAYS)
def test_cuda_finds_what_the_cpu_finds(way):
    """Within 1e-9 of the largest value (1e-6 after a search, or a kernel form), and 1e-4 in float32."""
    compute, options = WAYS[way]
    device = torch.device("cuda", torch.cuda.current_device())
    found, expected = compute(device, **options), compute(torch.device("cpu"), **options)
    searched = way.startswith(("extension", "reduction", "reweighting", "kernel form"))
    tolerance = 1e-4 if "single" in way else 1e-6 if searched else 1e-9
    for name, values in expected.items():
        # Central differences lose half of the digits.
        allowed = 1e-6 if name == "by differences" else tolerance
        assert relative(found[name], values) < allowed, name


@needs_cuda
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "read ahead"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_cuda_batches_of_any_size_find_what_the_cpu_finds(dtype, tolerance, resident):
    """Of thousands of samples, with rows on the device or read by a thread that goes ahead."""

    class Stored:
        def __init__(self, tensor):
            self._tensor, self.shape = tensor, tensor.shape

        def __getitem__(self, rows):
            return self._tensor[rows].clone()

    expected = solved(made(5000, torch.device("cpu"), d=300, k=20, dtype=dtype), None, SquaredLoss())
    device = torch.device("cuda", torch.cuda.current_device())
    for batch_rows in (0, 512):
        task = made(5000, device, d=300, k=20, dtype=dtype, batch_rows=batch_rows)
        rows = task.features.to(device) if resident else Stored(task.features)
        found = solved(replace(task, features=rows), None, SquaredLoss())
        for name, values in expected.items():
            assert relative(found[name], values) < tolerance, name


def test_batches_are_larger_on_a_device_that_they_have_to_fill():
    cuda = torch.device("cuda")
    assert default_batch_rows(torch.device("cpu"), 512, 100) == BATCH_ROWS
    assert default_batch_rows(cuda, 512, 100) == CUDA_BATCH_ROWS
    assert BATCH_ROWS < default_batch_rows(cuda, 2048, 1000) < CUDA_BATCH_ROWS
    assert default_batch_rows(cuda, 100_000, 20_000) == BATCH_ROWS
