"""Search for the minimum of a smooth function: BFGS with limited memory (Liu and Nocedal 1989).

`torch.optim.LBFGS` would import a compiler for seconds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SUFFICIENT = 1e-4
"""Share of the decrease that the slope promises which a step must reach (Armijo 1966)."""

_SHORTER = 0.4
"""Factor of the length of a step that does not reach it."""


def minimiser(
    objective: Callable[[Tensor], Tensor],
    start: Tensor,
    curvature: Tensor,
    *,
    by_hand: Callable[[Tensor], tuple[float, Tensor]] | None = None,
    tolerance: float = 1e-14,
    most_steps: int = 200,
    memory: int = 20,
) -> Tensor:
    """Return a point (p,) where the function has a minimum, as near as rounding allows.

    Args:
        objective: From (p,) float64 to a scalar tensor; differentiable.
        start: (p,) float64, where the search begins.
        curvature: (p,) float64 > 0, the rough size of the second derivatives.
        by_hand: From a point to the function there and its slope (p,); by default it is differentiated.
        tolerance: Decrease, in units of the function, below which two steps in a row end the search.
        most_steps: At the most.
        memory: Steps that the estimate of the curvature rests on.
    """

    def differentiated(point: Tensor) -> tuple[float, Tensor]:
        with torch.enable_grad():
            variable = point.detach().requires_grad_()
            value = objective(variable)
            (slope,) = torch.autograd.grad(value, variable)
        return float(value.detach()), slope

    at = by_hand or differentiated
    point, inverse = start, 1 / curvature
    value, slope = at(point)
    moves: list[tuple[Tensor, Tensor]] = []
    small = 0
    for _ in range(most_steps):
        direction = -_bent(slope, moves, inverse)
        descent = float(direction @ slope)
        length = 1.0
        for _ in range(20):
            new_value, new_slope = at(point + length * direction)
            if new_value <= value + _SUFFICIENT * length * descent:
                break
            length *= _SHORTER
        else:
            return point  # rounding hides what is left to gain
        step, change = length * direction, new_slope - slope
        if float(step @ change) > 0:
            moves = [*moves, (step, change)][-memory:]
        small = small + 1 if value - new_value < tolerance else 0
        point, value, slope = point + step, new_value, new_slope
        if small == 2 or descent > -1e-14:
            return point
    return point


def _bent(slope: Tensor, moves: list[tuple[Tensor, Tensor]], inverse: Tensor) -> Tensor:
    """The slope times the estimated inverse of the second derivatives, by two loops over the moves."""
    shares = []
    for step, change in reversed(moves):
        share = (step @ slope) / (step @ change)
        shares.append(share)
        slope = slope - share * change
    if moves:
        step, change = moves[-1]
        slope = inverse * slope * ((step @ change) / (change @ (inverse * change)))
    else:
        slope = inverse * slope
    for (step, change), share in zip(moves, reversed(shares), strict=True):
        slope = slope + step * (share - (change @ slope) / (step @ change))
    return slope
