"""The leave-one-out loss as one differentiable function of weights and features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from divacli.ridge.fit.group_rows import blocks_of
from divacli.ridge.leave_out.losses import CrossEntropyLoss, Loss, SquaredLoss


def loo_loss(
    features: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    ridge: float | Tensor = 1.0,
    *,
    validation_mask: Tensor | None = None,
    groups: Tensor | None = None,
    loss: Literal["squared", "cross-entropy"] | Loss = "squared",
    intercept: bool = True,
) -> Tensor:
    """Summed leave-one-out validation loss of weighted ridge regression, for autograd.

    `L = sum_i v_i l(y_i - r_i, y_i)` with `r_i = e_i / (1 - alpha_i h_i)`. Differentiable in `weights`,
    `features`, `targets` and `ridge`, so it can be a term of a training loop: `weights.grad` after
    `backward()` is the dataset derivative, positive for a harmful sample. Fewer samples than features are
    solved in the kernel form.

    Args:
        features: (n, d) floating point, without a bias column. Used as they are: scale them first
            (`torch.nn.functional.normalize(features)` is the command line's default).
        targets: (n, k) one-hot labels (or soft ones), of any dtype.
        weights: (n,) sample weights `alpha` >= 0, default ones. Zero is allowed: the sample is absent.
        ridge: lambda > 0, a number or a scalar tensor.
        validation_mask: (n,) `v`, which samples count in the loss; default all.
        groups: (n,) int64 group of each sample; a prediction is then that of the fit without the sample's
            whole group (`R = (I - H D)^-1 E` in place of `r`). Default: each is a group of its own.
        loss: The validation loss of the LOO predictions, by name or an object with `value`.
        intercept: Fit a bias that the ridge does not penalise.

    Returns:
        The loss, a scalar, in units of the loss summed over validation samples.

    Raises:
        ValueError: Shapes that do not fit together, weights all zero, or an unknown loss.
        torch.linalg.LinAlgError: The ridge is too small for a unique solution.
    """
    n = len(features)
    if features.ndim != 2 or targets.ndim != 2 or len(targets) != n:
        raise ValueError(
            f"features {tuple(features.shape)} and targets {tuple(targets.shape)}: expected (n, d) and (n, k)"
        )
    targets = targets.to(features.dtype)
    alpha = torch.ones_like(features[:, 0]) if weights is None else weights
    mask = torch.ones_like(alpha) if validation_mask is None else validation_mask
    for name, vector in (("weights", alpha), ("validation_mask", mask), ("groups", groups)):
        if vector is not None and vector.shape != (n,):
            raise ValueError(f"{name} has shape {tuple(vector.shape)}: expected ({n},)")
    if isinstance(loss, str):
        names: dict[str, Loss] = {"squared": SquaredLoss(), "cross-entropy": CrossEntropyLoss()}
        if loss not in names:
            raise ValueError(f"loss {loss!r}: expected one of {', '.join(names)}")
        loss = names[loss]

    total = alpha.sum()
    if not bool(total > 0):
        raise ValueError(f"the weights sum to {float(total):g}: expected at least one positive weight")
    centre = (alpha @ features / total) if intercept else torch.zeros_like(features[0])
    z = features - centre
    offset = (alpha @ targets / total) if intercept else torch.zeros_like(targets[0])
    centred_targets = targets - offset
    own = features.new_zeros(()) if not intercept else 1 / total
    if n >= features.shape[1]:
        eye = torch.eye(features.shape[1], dtype=z.dtype, device=z.device)
        factor = torch.linalg.cholesky((z * alpha[:, None]).T @ z + ridge * eye)
        half = torch.linalg.solve_triangular(factor, z.T, upper=False)
        leverage = half.square().sum(dim=0) + own
        fitted = half.T @ (half @ (alpha[:, None] * centred_targets))
    else:
        # Push-through identity: Z (Z'DZ + lambda I)^-1 Z' = K (D K + lambda I)^-1 with K = Z Z'. No square
        # root of alpha is taken, so that the gradient exists at a weight of zero.
        kernel = z @ z.T
        eye = torch.eye(n, dtype=z.dtype, device=z.device)
        hat = torch.linalg.solve(alpha[:, None] * kernel + ridge * eye, kernel, left=False)
        leverage = hat.diagonal() + own
        fitted = hat @ (alpha[:, None] * centred_targets)
    residuals = centred_targets - fitted
    blocks = None if groups is None else blocks_of(groups)
    if blocks is None:
        residuals = residuals / (1 - alpha * leverage)[:, None]
    else:
        for rows in blocks:
            left, weight = residuals[rows], alpha[rows][..., None]
            if n < features.shape[1]:
                left = _solved(hat[rows[:, :, None], rows[:, None, :]] + own, weight, left)
            else:
                phi = torch.cat([half.T[rows], own.sqrt().expand(*rows.shape, 1)], dim=2)
                left = _left_out(phi, weight, left)
            residuals = residuals.index_put((rows,), left)
    return mask @ loss.value(targets - residuals, targets)


def _left_out(phi: Tensor, weights: Tensor, residuals: Tensor) -> Tensor:
    """`(I - Phi Phi' D)^-1 E` (g, m, k) for whitened rows (g, m, r), by the smaller of two systems."""
    if phi.shape[1] <= phi.shape[2]:
        return _solved(phi @ phi.mT, weights, residuals)
    weighted = weights * phi
    ones = torch.ones_like(phi[:, 0, :, None])
    return residuals + phi @ _solved(phi.mT @ weighted, ones, weighted.mT @ residuals)


def _solved(inner: Tensor, weights: Tensor, residuals: Tensor) -> Tensor:
    """`(I - H D)^-1 E` for H (g, m, m), weights (g, m, 1) and residuals (g, m, k)."""
    systems = torch.eye(inner.shape[1]).to(inner) - inner * weights.mT
    solution: Tensor = torch.linalg.solve(systems, residuals)
    return solution
