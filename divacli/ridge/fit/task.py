"""The weighted ridge problem and the one way its samples are walked through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.fit.group_rows import blocks_of, packed
from divacli.ridge.fit.rows import Rows, Selected
from divacli.ridge.fit.scaling import Scaling

BATCH_ROWS = 2048
"""Rows in memory at a time: enough for full-speed matrix products, a few dozen MB at 1,024 features."""

CUDA_BATCH_ROWS = 32_768
"""The same on a CUDA device, at the most: it has to be busy for longer than it takes to tell it more."""

CUDA_BATCH_VALUES = 1 << 26
"""Features and outputs in memory at a time on a CUDA device, at the most: with what is made of them, 5 GB."""

_copying: Callable[[torch.device], torch.cuda.Stream] = cache(torch.cuda.Stream)
"""The stream that rows come to a device on, while another one computes."""


@dataclass(frozen=True)
class Batch:
    """Some samples on the computing device.

    Attributes:
        rows: Which samples of the task they are: a slice, or ascending row numbers (b,) int64 on the CPU.
        features: (b, d) scaled features `z`, in the task's dtype.
        labels: (b, k) one-hot labels `y`.
        targets: (b, k) what the linear model is fitted to: `y - f_w0(x)`, or `y`.
        weights: (b,) sample weights `alpha`.
        mask: (b,) validation weights `v`.
        groups: (b,) group of each sample, or None where each is one of its own.
        numbers: (b,) row numbers that messages call the samples by.
    """

    rows: slice | Tensor
    features: Tensor
    labels: Tensor
    targets: Tensor
    weights: Tensor
    mask: Tensor
    groups: Tensor | None
    numbers: Tensor

    @cached_property
    def blocks(self) -> list[Tensor] | None:
        """Positions in the batch by size of group: for every size m those (g, m) of its g groups.

        None where every group has one member.
        """
        return None if self.groups is None else blocks_of(self.groups)


def default_batch_rows(device: torch.device, n_features: int, n_classes: int) -> int:
    """Samples in memory at a time. The same on every device of a kind: processes that share work agree on it.

    Args:
        device: Where the computing is done.
        n_features: d.
        n_classes: k.
    """
    if device.type != "cuda":
        return BATCH_ROWS
    return max(BATCH_ROWS, min(CUDA_BATCH_ROWS, CUDA_BATCH_VALUES // (n_features + n_classes)))


def positions(part: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows lie in a part of a task, (m,) bool, and where those stand in it, int64.

    Args:
        part: (b,) row numbers, ascending.
        rows: (m,) row numbers of the task.
    """
    place = torch.searchsorted(part, rows).clamp_max(len(part) - 1)
    inside = part[place] == rows
    return inside, place[inside]


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
        batch_rows: Samples in memory at a time; by default as `default_batch_rows` says.
        groups: (n,) int64 group of each sample, any numbers: the leave-one-out prediction of a sample is then
            that of the fit without its whole group. By default each is a group of its own.
        numbers: (n,) int64 row numbers that messages call the samples by; by default their own.
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
    batch_rows: int = 0
    groups: Tensor | None = None
    numbers: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self)
        if self.validation_mask.numel() == 0:
            object.__setattr__(self, "validation_mask", torch.ones(n, dtype=torch.float64))
        if not self.batch_rows:
            rows = default_batch_rows(self.device, self.n_features, self.n_classes)
            object.__setattr__(self, "batch_rows", rows)
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype {self.dtype}: expected torch.float32 or torch.float64")
        for name, vector in (
            ("labels", self.labels),
            ("weights", self.weights),
            ("validation_mask", self.validation_mask),
        ):
            if vector.shape != (n,):
                raise ValueError(f"{name} has shape {tuple(vector.shape)}: expected ({n},), one a sample")
        if self.groups is not None and (self.groups.shape != (n,) or self.groups.dtype != torch.int64):
            raise ValueError(
                f"groups is {self.groups.dtype} of shape {tuple(self.groups.shape)}: "
                f"expected torch.int64 of shape ({n},)"
            )
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

    def numbered_groups(self) -> tuple[Tensor, Tensor]:
        """The group of each sample, or its row where it is left out alone, and a number in [0, n) of it."""
        groups = torch.arange(len(self)) if self.groups is None else self.groups
        return groups, torch.searchsorted(groups.sort().values, groups)

    def select(self, rows: Tensor) -> RidgeTask:
        """The same problem for some samples only, (m,) int64 row numbers.

        Their groups are complete only if `rows` has all of them.
        """
        return replace(
            self,
            features=Selected(self.features, rows),
            labels=self.labels[rows],
            weights=self.weights[rows],
            validation_mask=self.validation_mask[rows],
            offset=None if self.offset is None else Selected(self.offset, rows),
            groups=None if self.groups is None else self.groups[rows],
            numbers=rows if self.numbers is None else self.numbers[rows],
        )

    def slices(self) -> Iterator[slice]:
        """The batches' rows, in order."""
        for start in range(0, len(self), self.batch_rows):
            yield slice(start, min(start + self.batch_rows, len(self)))

    def parts(self) -> Iterator[slice | Tensor]:
        """Rows of whole groups, at most `batch_rows` at a time unless one group has more."""
        return self.slices() if self.groups is None else packed(self.groups, self.batch_rows)

    def raw(self, rows: slice | Tensor) -> Tensor:
        """Features (b, d) as they are stored; for a CUDA device, on it, copied while it goes on computing.

        The thread waits for the copy: it is one that reads ahead.
        """
        found = self.features[rows]
        return found if self.device.type != "cuda" or found.is_cuda else self._copied(found)

    def _copied(self, found: Tensor) -> Tensor:  # pragma: no cover
        stream = _copying(self.device)
        with torch.cuda.stream(stream):
            there = found.pin_memory().to(self.device, non_blocking=True)
        stream.synchronize()
        # The memory is the copies', and not theirs again before what is computed with it is done.
        there.record_stream(torch.cuda.default_stream(self.device))
        return there

    def scaled(self, raw: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Scaled features `z` (b, d) of stored ones, on the device, by default in the task's dtype."""
        dtype = dtype or self.dtype
        # To the device before the cast: fewer bytes travel. Scaled before a cast to less: numbers beyond
        # float32's range are within it afterwards.
        there = raw.to(self.device, non_blocking=True)
        return self.scaling(there.to(torch.promote_types(raw.dtype, dtype))).to(dtype)

    def batch(
        self, rows: slice | Tensor, dtype: torch.dtype | None = None, raw: Tensor | None = None
    ) -> Batch:
        """These samples on the computing device.

        Args:
            rows: Which.
            dtype: Of the features; by default the task's.
            raw: Their features as stored, where they were read before.
        """
        features = self.scaled(self.features[rows] if raw is None else raw, dtype)
        classes = self.labels[rows].to(self.device)
        labels = features.new_zeros(len(features), self.n_classes).scatter_(1, classes[:, None], 1.0)
        targets = labels if self.offset is None else labels - self.offset[rows].to(features)
        weights, mask = (vector[rows].to(features) for vector in (self.weights, self.validation_mask))
        groups = None if self.groups is None else self.groups[rows].to(self.device)
        own = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        numbers = own if self.numbers is None else self.numbers[own]
        return Batch(rows, features, labels, targets, weights, mask, groups, numbers)

    def batches(self, dtype: torch.dtype | None = None) -> Iterator[Batch]:
        """All samples in order, `batch_rows` at a time, whatever their groups."""
        for rows in self.slices():
            yield self.batch(rows, dtype)
