"""Check a result against true refits of some of its samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from divacli.curate.sample_scores import ScoreResult
from divacli.ridge import Oracle, loo_predictions

_REPEATED = 3
"""Samples whose refits are made at a second step, to see how much rounding is in them."""


@dataclass(frozen=True)
class Verification:
    """How far the closed form is from refits.

    Attributes:
        n: Samples compared.
        prediction: Largest difference of a LOO prediction from a refit without the sample and its group,
            relative to the largest refitted prediction of the compared samples.
        derivative: Largest difference of a derivative from central differences of refitted losses, relative
            to the largest of the compared derivatives.
        noise: Largest difference between the refits' own derivatives at two steps, on the same scale: a
            difference of this size says nothing. Large where a tiny ridge nearly interpolates.
    """

    n: int
    prediction: float
    derivative: float
    noise: float


def verify(result: ScoreResult, n: int, seed: int = 0) -> Verification:
    """Compare random samples' LOO predictions and derivatives with refits in float64.

    Each LOO prediction is compared with a fit from which the sample and its group are absent, each
    derivative with central differences of the loss, for which the fit is factorised anew at six weights of
    the sample.

    Args:
        result: What is checked.
        n: How many samples.
        seed: Of their choice.

    Raises:
        SolveError: A refit has no unique solution.
    """
    solution = result.solution
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(solution.task), generator=generator)[:n].sort().values
    closed = loo_predictions(solution.solved, solution.spectrum.fit(solution.ridge), rows)
    oracle = Oracle(solution.task, solution.ridge)
    refitted = torch.stack([oracle.loo_prediction(int(row)) for row in rows])

    def measured(row: int, fraction: float = 1.0) -> float:
        if solution.validation is None:
            return oracle.loo_derivative(solution.loss, row, fraction)
        return oracle.validation_derivative(solution.validation, solution.loss, row, fraction)

    differences = torch.tensor([measured(int(row)) for row in rows], dtype=torch.float64)
    again = torch.tensor([measured(int(row), 0.5) for row in rows[:_REPEATED]], dtype=torch.float64)
    derivative = torch.from_numpy(result.derivative)[rows]
    return Verification(
        len(rows),
        _relative(closed - refitted, refitted),
        _relative(derivative - differences, differences),
        _relative(again - differences[:_REPEATED], differences),
    )


def _relative(difference: torch.Tensor, truth: torch.Tensor) -> float:
    """Largest difference over the largest true value; 0 where both are zero."""
    largest = float(difference.abs().max())
    return largest / float(truth.abs().max()) if largest else 0.0
