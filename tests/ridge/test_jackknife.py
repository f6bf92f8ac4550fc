"""The jackknife of derivatives: against deleting each sample in truth, and against new draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import starmap

import pytest
import torch
from torch import Tensor

from divacli.ridge import (
    CrossEntropyLoss,
    LinearOutput,
    Loss,
    RidgeFit,
    RidgeTask,
    SquaredLoss,
    decompose,
    loo_derivative,
    loo_sums,
)
from divacli.ridge.leave_out.calibration import RobustCrossEntropy
from divacli.ridge.leave_out.derivative import training
from divacli.ridge.leave_out.jackknife import Jackknife
from divacli.ridge.leave_out.losses import Hessian
from divacli.ridge.leave_out.uncertainty import derivative_errors

BIAS = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)
LOSSES: dict[str, Loss] = {
    "squared": SquaredLoss(),
    "cross-entropy": CrossEntropyLoss(5.0),
    "robust": RobustCrossEntropy(6.0, BIAS, 0.1),
}
MEANS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def classes(n: int, seed: int, **more: object) -> RidgeTask:
    """Four classes in six dimensions, one label in ten drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    features = MEANS[labels] + torch.randn(n, 6, generator=generator, dtype=torch.float64)
    wrong = torch.rand(n, generator=generator) < 0.1
    labels = torch.where(wrong, torch.randint(4, (n,), generator=generator), labels)
    settings: dict[str, object] = {"weights": torch.ones(n, dtype=torch.float64), "dtype": torch.float64}
    return RidgeTask(features, labels, 4, **{**settings, **more})  # type: ignore[arg-type]


def influences(task: RidgeTask, fit: RidgeFit, loss: Loss) -> Tensor:
    """`I_ij` (n, n), with nothing on the diagonal."""
    sums = loo_sums(task, fit, loss)[0]
    jackknife = Jackknife.of(task, fit, loss, torch.arange(len(task)), sums)
    (batch,) = task.batches()
    return jackknife.influences(batch, *training(fit, batch)).fill_diagonal_(0)


def by_deletion(task: RidgeTask, ridge: float, loss: Loss) -> Tensor:
    """`I_ij` (n, n) by refits without each sample."""
    everything = loo_derivative(task, decompose(task).fit(ridge), loss).derivative
    found = torch.zeros(len(task), len(task), dtype=torch.float64)
    for i in range(len(task)):
        others = torch.arange(len(task)) != i
        part = task.select(others.nonzero()[:, 0])
        without = loo_derivative(part, decompose(part).fit(ridge), loss).derivative
        found[i, others] = everything[others] - without
    return found


def weighted(n: int) -> dict[str, Tensor]:
    """Weights and a validation mask with zeros, which differ."""
    generator = torch.Generator().manual_seed(1)
    weights, mask = 0.5 + torch.rand(2, n, generator=generator, dtype=torch.float64)
    weights[::9], mask[1::9] = 0.0, 0.0
    return {"weights": weights, "validation_mask": mask}


@pytest.mark.parametrize("ridge", [0.5, 30.0])
@pytest.mark.parametrize(("name", "most"), [("squared", 0.25), ("cross-entropy", 0.6), ("robust", 0.6)])
@pytest.mark.parametrize("some", [{}, weighted(120)], ids=["plain", "weighted"])
def test_is_what_deletion_changes(
    name: str, most: float, ridge: float, some: dict[str, Tensor], relative_error: Callable[..., float]
) -> None:
    task = classes(120, 3, **some)
    found = influences(task, decompose(task).fit(ridge), LOSSES[name])
    expected = by_deletion(task, ridge, LOSSES[name])
    assert relative_error(found, expected) < most
    ratio = found.std(dim=0) / expected.std(dim=0)
    assert 0.7 < float(ratio.median()) < 1.3


def test_approaches_deletion_as_samples_become_many(relative_error: Callable[..., float]) -> None:
    errors = []
    for n in (60, 240):
        # Leverages are alike, and no class differs from another: nothing is averaged over.
        task = classes(n, 4)
        task = replace(task, features=task.features - MEANS[task.labels])
        found = influences(task, decompose(task).fit(0.5), SquaredLoss())
        errors.append(relative_error(found, by_deletion(task, 0.5, SquaredLoss())))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("name", ["squared", "cross-entropy", "robust"])
@pytest.mark.parametrize("ridge", [0.5, 30.0])
def test_is_the_spread_over_new_draws(name: str, ridge: float) -> None:
    held, n = 10, 200
    first = classes(n, 5)
    derivatives, errors = [], []
    for seed in range(6, 66):
        other = classes(n - held, seed)
        task = replace(
            first,
            features=torch.cat([first.features[:held], other.features[:]]),
            labels=torch.cat([first.labels[:held], other.labels]),
        )
        fit = decompose(task).fit(ridge)
        derivatives.append(loo_derivative(task, fit, LOSSES[name]).derivative[:held])
        if seed < 10:
            errors.append(derivative_errors(task, fit, LOSSES[name], torch.arange(n))[:held])
    ratio = torch.stack(errors).mean(dim=0) / torch.stack(derivatives).std(dim=0)
    assert 1 / 1.4 < float(ratio.median()) < 1.4


def test_does_not_depend_on_the_basis_of_the_fit() -> None:
    task = classes(80, 7)
    fit = decompose(task).fit(3.0)
    inner = fit.basis * fit.scale  # type: ignore[operator]
    turned, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(8)).double())
    coef = torch.cat([turned.T @ fit.coef[:-1], fit.coef[-1:]])
    other = replace(fit, basis=inner @ turned, scale=torch.ones_like(fit.scale), coef=coef)
    again, found = starmap(influences, [(task, one, SquaredLoss()) for one in (other, fit)])
    torch.testing.assert_close(again, found)


def test_of_a_linearised_head_is_what_deletion_changes(relative_error: Callable[..., float]) -> None:
    task = classes(120, 9)
    head = 0.1 * torch.randn(4, 6, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    task = replace(task, offset=LinearOutput(task.features, head, torch.zeros(4, dtype=torch.float64)))
    found = influences(task, decompose(task).fit(3.0), SquaredLoss())
    assert relative_error(found, by_deletion(task, 3.0, SquaredLoss())) < 0.2


@pytest.mark.parametrize("name", ["squared", "cross-entropy", "robust"])
def test_hessians_are_those_of_autograd(name: str) -> None:
    generator = torch.Generator().manual_seed(11)
    predictions, vectors = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    weights = torch.rand(5, 5, generator=generator, dtype=torch.float64)
    targets = torch.eye(4, dtype=torch.float64)[torch.arange(5) % 4]
    loss = LOSSES[name]
    exact = torch.stack(
        [
            torch.autograd.functional.hessian(
                lambda f, y=targets[row : row + 1]: loss.value(f[None], y).sum(), predictions[row]
            )
            for row in range(5)
        ]
    )
    hessian = loss.hessian(predictions, targets)
    assert isinstance(hessian, Hessian)
    expected = torch.einsum("il,lab,ib->ia", weights, exact, vectors)
    torch.testing.assert_close(hessian.weighted(weights, vectors), expected)
