"""The weighted ridge problem and the one way its samples are walked through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.rows import Rows
from divacli.ridge.scaling import Scaling

BATCH_ROWS = 2048
"""Rows in memory at a time: enough for full-speed matrix products, a few dozen MB at 1,024 features."""


@dataclass(frozen=True)
class Batch:
    """Consecutive samples on the computing device.

    Attributes:
        rows: Which samples of the task they are.
        features: (b, d) scaled features `z`, in the task's dtype.
        labels: (b, k) one-hot labels `y`.
        targets: (b, k) what the linear model is fitted to: `y - f_w0(x)`, or `y`.
        weights: (b,) sample weights `alpha`.
        mask: (b,) validation weights `v`.
    """

    rows: slice
    features: Tensor
    labels: Tensor
    targets: Tensor
    weights: Tensor
    mask: Tensor


@dataclass(frozen=True)
class RidgeTask:
    """Weighted ridge regression from features to one-hot labels, with its validation samples marked.

    Minimises `sum_i alpha_i |t_i - z_i W - b|^2 + lambda |W|^2`: the intercept `b` is not penalised, so
    that adding a constant to all targets or features changes nothing.

    Attributes:
        features: (n, d) raw features, a tensor or anything sliceable (see `Rows`).
        labels: (n,) int64 class numbers in [0, n_classes).
        n_classes: k.
        weights: (n,) float64 `alpha` >= 0; 0 is a sample that is absent from training.
        validation_mask: (n,) float64 `v` >= 0; default all ones.
        offset: (n, k) outputs `f_w0(X)` of the network linearised around, or None for a fresh head.
        scaling: From raw features to `z`.
        intercept: Whether an unpenalised bias is fitted.
        device: Where the computing is done.
        dtype: Of the per-sample products, float32 or float64; sums over samples are always float64.
        batch_rows: Samples in memory at a time.
    """

    features: Rows
    labels: Tensor
    n_classes: int
    weights: Tensor
    validation_mask: Tensor = field(default_factory=lambda: torch.empty(0))
    offset: Rows | None = None
    scaling: Scaling = field(default_factory=Scaling)
    intercept: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    batch_rows: int = BATCH_ROWS

    def __post_init__(self) -> None:
        n = len(self)
        if self.validation_mask.numel() == 0:
            object.__setattr__(self, "validation_mask", torch.ones(n, dtype=torch.float64))
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype {self.dtype}: expected torch.float32 or torch.float64")
        for name, vector in (
            ("labels", self.labels),
            ("weights", self.weights),
            ("validation_mask", self.validation_mask),
        ):
            if vector.shape != (n,):
                raise ValueError(f"{name} has shape {tuple(vector.shape)}: expected ({n},), one a sample")
        if self.offset is not None and tuple(self.offset.shape) != (n, self.n_classes):
            raise ValueError(f"offset has shape {tuple(self.offset.shape)}: expected ({n}, {self.n_classes})")
        if n and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.n_classes:
            raise ValueError(
                f"labels run from {int(self.labels.min())} to {int(self.labels.max())}: "
                f"expected 0 to {self.n_classes - 1}"
            )
        for name, vector in (("weights", self.weights), ("validation_mask", self.validation_mask)):
            if not bool((torch.isfinite(vector) & (vector >= 0)).all()):
                raise SolveError(f"{name} holds negative or non-finite values", expected="numbers >= 0")

    def __len__(self) -> int:
        return int(self.features.shape[0])

    @property
    def n_features(self) -> int:
        """The width d of the features, without the intercept."""
        return int(self.features.shape[1])

    def slices(self) -> Iterator[slice]:
        """The batches' rows, in order."""
        for start in range(0, len(self), self.batch_rows):
            yield slice(start, min(start + self.batch_rows, len(self)))

    def batch(self, rows: slice, dtype: torch.dtype | None = None) -> Batch:
        """These samples on the computing device, in the task's dtype or in `dtype`."""
        dtype = dtype or self.dtype
        features = self.scaling(self.features[rows].to(device=self.device, dtype=dtype))
        labels = torch.nn.functional.one_hot(self.labels[rows].to(self.device), self.n_classes).to(dtype)
        targets = labels if self.offset is None else labels - self.offset[rows].to(features)
        weights = self.weights[rows].to(features)
        return Batch(rows, features, labels, targets, weights, self.validation_mask[rows].to(features))

    def batches(self, dtype: torch.dtype | None = None) -> Iterator[Batch]:
        """All samples in order, `batch_rows` at a time."""
        for rows in self.slices():
            yield self.batch(rows, dtype)
