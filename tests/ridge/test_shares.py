"""K-fold over shares beside a brute force that cuts folds out of the tensors and walks on shares itself.

The brute force fits by normal equations, leaves samples out by as many refits, and differentiates by autograd
in the shares, not in the samples' weights. It shares with the package the draw of the folds, the calibration
and `loo_loss`, which have their own tests.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from divacli.ridge import (
    Problem,
    RidgeTask,
    SquaredLoss,
    calibrate,
    choose_shares,
    choose_steps,
    differentiate_shares,
    loo_loss,
    share_weights,
    split_in_folds,
)

RIDGE, SIZES, FOLDS = 2.0, (0.1, 0.4), 3


def guises(n=24, *, kinds=(0, 0, 1), weights=None, keep=None, classes=None, **options):
    """Images of three Gaussian classes and their guises, one after the other, all in groups of an image.

    The features of a kind are of the class so many further: 1 for one that misleads. `keep` (of the last
    kind) says which images have such a guise.
    """
    generator = torch.Generator().manual_seed(1)
    centres = 1.5 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    labels = torch.arange(n) % 3 if classes is None else torch.arange(3).repeat_interleave(classes)
    n = len(labels)
    weights = torch.ones(n, dtype=torch.float64) if weights is None else weights
    features = [
        centres[(labels + further) % 3] + torch.randn(n, 4, generator=generator, dtype=torch.float64)
        for further in kinds
    ]
    task = RidgeTask(
        torch.cat(features),
        labels.repeat(len(kinds)),
        3,
        weights.repeat(len(kinds)),
        dtype=torch.float64,
        groups=torch.arange(n).repeat(len(kinds)),
        validation_mask=torch.cat([weights, torch.zeros(n * (len(kinds) - 1), dtype=torch.float64)]),
    )
    kind = torch.arange(len(kinds)).repeat_interleave(n)
    if keep is not None:
        rows = torch.cat([torch.arange(n * (len(kinds) - 1)), n * (len(kinds) - 1) + keep])
        task, kind = taken(task, rows), kind[rows]
    order = torch.randperm(len(task), generator=torch.Generator().manual_seed(8))
    return Problem(task, RIDGE, order, shared=kind, **options)


def taken(task, keep):
    """The task of some rows; the others are gone."""
    parts = {
        name: getattr(task, name)[keep]
        for name in ("features", "labels", "weights", "validation_mask", "groups")
    }
    return replace(task, **parts)


def balanced(classes):
    """Each class has the weight of the mean one."""
    sizes = torch.tensor(classes, dtype=torch.float64)
    return (sizes.mean() / sizes).repeat_interleave(torch.tensor(classes))


TAIL = (20, 8, 4)
CASES = {
    "even": {},
    "absent images": {"weights": torch.tensor([0.0, 1.0, 1.0, 2.0], dtype=torch.float64).repeat(6)},
    "balanced": {"classes": torch.tensor(TAIL), "weights": balanced(TAIL), "bias": False},
    "missing guises": {"keep": torch.arange(0, 24, 5)},
    "squared": {"robust": False, "weights": torch.linspace(0, 2, 24, dtype=torch.float64)},
}


@pytest.fixture(params=[*CASES, "validation"])
def problem(request):
    if request.param != "validation":
        return guises(**CASES[request.param])
    found = guises(weights=CASES["absent images"]["weights"])
    validation = guises(kinds=(0,)).task
    validation = replace(
        validation, features=validation.features + 0.3, validation_mask=validation.weights, groups=None
    )
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    return replace(found, validation=validation, order=order)


def design(task):
    return torch.cat([task.features, torch.ones(len(task), 1, dtype=torch.float64)], dim=1)


def one_hot(task):
    return functional.one_hot(task.labels, task.n_classes).double()


def solved(task, weights):
    rows = design(task)
    penalty = torch.tensor([RIDGE] * 4 + [0.0], dtype=torch.float64).diag()
    right = rows.T @ (weights[:, None] * one_hot(task))
    return torch.linalg.solve(rows.T @ (weights[:, None] * rows) + penalty, right)


def calibrated(found, judged, bias):
    rows = judged.validation_mask > 0
    return calibrate(found[rows], judged.labels[rows], judged.validation_mask[rows], bias=bias)


def brute_gradient(problem, task, kind, validation, shares):
    """`dL/da` by autograd through refits, the loss calibrated at these shares and held fixed."""
    weights = (shares[kind] * task.weights).detach()
    judged, loss = validation or task, SquaredLoss()
    if problem.robust and validation is None:
        outputs = torch.stack(
            [
                design(task)[row] @ solved(task, torch.where(task.groups == group, 0.0, weights))
                for row, group in enumerate(task.groups)
            ]
        )
        loss = calibrated(outputs, judged, problem.bias)
    elif problem.robust:
        loss = calibrated(design(judged) @ solved(task, weights), judged, problem.bias)
    variable = shares.clone().requires_grad_()
    if validation is None:
        value = loo_loss(
            task.features,
            one_hot(task),
            variable[kind] * task.weights,
            RIDGE,
            validation_mask=task.validation_mask,
            groups=task.groups,
            loss=loss,
            intercept=True,
        )
    else:
        outputs = design(judged) @ solved(task, variable[kind] * task.weights)
        value = judged.validation_mask @ loss.value(outputs, one_hot(judged))
    return torch.autograd.grad(value, variable)[0]


def brute_moved(problem, task, kind, validation, shares, size):
    weight = torch.zeros_like(shares).index_add_(0, kind, task.weights)
    mean = brute_gradient(problem, task, kind, validation, shares) / weight
    moved = (shares - size * shares.mean() * mean / mean.abs().mean()).clamp_min(0)
    return moved * shares.sum() / moved.sum()


def brute_losses(problem, walk: list[float]) -> tuple[Tensor, Tensor]:
    """Losses of left-out samples after a walk that each fold takes without its own, and their masks."""
    judged = problem.judged
    fold_of = split_in_folds(judged.labels, problem.order, 0, FOLDS, judged.groups)
    outputs = torch.empty(len(judged), 3, dtype=torch.float64)
    for fold in range(FOLDS):
        inside = fold_of == fold
        task, kind, validation = problem.task, problem.shared, problem.validation
        if validation is None:
            task, kind = taken(task, ~inside), kind[~inside]
        else:
            mask = torch.where(inside, 0.0, validation.validation_mask)
            validation = replace(validation, validation_mask=mask)
        shares = torch.ones(int(problem.shared.max()) + 1, dtype=torch.float64)
        for size in walk:
            shares = brute_moved(problem, task, kind, validation, shares, size)
        outputs[inside] = design(judged)[inside] @ solved(task, shares[kind] * task.weights)
    counted = judged.validation_mask > 0
    loss = calibrated(outputs, judged, False)
    return loss.value(outputs[counted], one_hot(judged)[counted]), judged.validation_mask[counted]


def brute_choice(problem, most):
    """Trials (step, size, loss, gain, its error) and the sizes taken."""
    walk, trials = [], []
    now, mask = brute_losses(problem, walk)
    share = mask / mask.sum()
    for step in range(1, most + 1):
        best = None
        for size in SIZES:
            losses, _ = brute_losses(problem, [*walk, size])
            gain = share @ (now - losses)
            gain_error = (share.square() @ (now - losses - gain).square()).sqrt()
            trials.append((step, size, share @ losses, gain, gain_error))
            if gain > 2 * gain_error and (best is None or share @ losses < share @ best[1]):
                best = size, losses
        if best is None:
            break
        walk.append(best[0])
        now = best[1]
    return torch.tensor(trials, dtype=torch.float64), tuple(walk)


def numbers(choice):
    rows = [(t.step, t.size, t.loss, t.gain, t.gain_error) for t in choice.trials]
    return torch.tensor(rows, dtype=torch.float64)


def test_the_choice_is_that_of_the_brute_force(problem):
    calls = []
    choice = choose_shares(problem, most=2, sizes=SIZES, n_folds=FOLDS, tried=lambda: calls.append(0))
    trials, walk = brute_choice(problem, 2)
    torch.testing.assert_close(numbers(choice), trials, rtol=1e-8, atol=1e-8)
    assert choice.sizes == walk
    assert walk
    assert len(calls) == len(choice.trials)


def test_the_derivative_is_that_of_autograd_in_the_shares(problem):
    shares = torch.tensor([1.5, 0.9, 0.6], dtype=torch.float64)
    found = differentiate_shares(problem, shares)
    expected = brute_gradient(problem, problem.task, problem.shared, problem.validation, shares)
    torch.testing.assert_close(found.derivative, expected, rtol=1e-8, atol=1e-9)
    weight = torch.bincount(problem.shared, problem.task.weights)
    torch.testing.assert_close(found.mean, expected / weight, rtol=1e-8, atol=1e-9)
    other = differentiate_shares(problem, torch.ones(3, dtype=torch.float64))
    assert not torch.allclose(other.derivative, expected, rtol=1e-2)


def test_a_kind_without_weight_says_nothing():
    """Its few guises are of absent images."""
    problem = guises(**CASES["absent images"], keep=torch.tensor([0, 4, 8]))
    found = differentiate_shares(problem, torch.ones(3, dtype=torch.float64))
    assert float(found.derivative[2]) == float(found.mean[2]) == 0
    assert bool(found.mean[:2].all())
    assert bool(numbers(choose_shares(problem, most=1, n_folds=FOLDS)).isfinite().all())


def test_shared_steps_are_the_same_for_even_weights_only():
    """Negative control: the additive steps of `choose_steps` bring absent samples back."""
    for case, equal in (
        ("even", True),
        ("absent images", False),
        ("balanced", False),
        ("missing guises", False),
    ):
        problem = guises(**CASES[case])
        expected, found = (
            numbers(choose(problem, most=1, sizes=SIZES, n_folds=FOLDS))[:, 2]
            for choose in (choose_steps, choose_shares)
        )
        if equal:
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        else:
            assert float((found - expected).abs().max()) > 1e-3


def test_absent_samples_may_have_any_features():
    problem = guises(**CASES["absent images"])
    features = torch.where(problem.task.weights[:, None] > 0, problem.task.features, 50.0)
    other = replace(problem, task=replace(problem.task, features=features))
    expected, found = (numbers(choose_shares(p, most=2, n_folds=FOLDS)) for p in (problem, other))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("batch_rows", [7, 1000])
def test_neither_batches_nor_storage_matter(batch_rows):
    problem = guises(**CASES["balanced"])
    expected = numbers(choose_shares(problem, most=1, n_folds=FOLDS))
    stored = torch.randperm(len(problem.task), generator=torch.Generator().manual_seed(2))
    task = replace(taken(problem.task, stored), batch_rows=batch_rows)
    moved = replace(problem, task=task, order=stored.argsort()[problem.order], shared=problem.shared[stored])
    found = numbers(choose_shares(moved, most=1, n_folds=FOLDS))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_weights_keep_their_proportions_within_a_kind():
    problem = guises(**CASES["absent images"])
    weights = share_weights(problem, torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))
    images = problem.task.weights[:24]
    torch.testing.assert_close(weights, torch.cat([images, 2 * images, 0 * images]), rtol=0, atol=0)
