"""A task in the coordinates of its own eigenbasis: features are rotated once, not in every pass.

Whitening is then a factor for every column. Rotated rows are kept as long as there is room for them, which is
a constant: of larger tasks some are rotated again whenever they are asked for.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from divacli.ridge.fit.rows import Staged
from divacli.ridge.fit.scaling import Scaling
from divacli.ridge.fit.spectrum import Spectrum
from divacli.ridge.fit.task import RidgeTask

KEPT_BYTES = 64 << 20
"""Rotated rows that are kept in main memory, at the most."""

_SHARE_OF_DEVICE = 0.5
"""Share of a CUDA device's free memory that rotated rows may take."""


class Rotated(Staged):
    """The features of a task as coordinates in an eigenbasis, from the mean, on the task's device.

    Args:
        task: Whose features they are.
        spectrum: Its decomposition.
        room: Bytes of rotated rows that may be kept.
    """

    def __init__(self, task: RidgeTask, spectrum: Spectrum, room: int) -> None:
        self._task = task
        self._spectrum = replace(
            spectrum,
            mean=spectrum.mean.to(task.dtype),
            basis=None if spectrum.basis is None else spectrum.basis.to(task.dtype),
        )
        self._room = room
        self._kept: dict[tuple[int, int], Tensor] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """(n, r)."""
        return len(self._task), len(self._spectrum.eigenvalues)

    def read(self, rows: slice | Tensor) -> Tensor | None:
        """Their raw features, unless their coordinates are at hand."""
        return None if _key(rows) in self._kept else self._task.raw(rows)

    def compute(self, rows: slice | Tensor, read: Tensor | None) -> Tensor:
        """Coordinates (b, r) of rows, in the task's dtype."""
        key = _key(rows)
        if key is not None and read is None:
            return self._kept[key]
        assert read is not None  # of rows that are not at hand
        found = self._spectrum.rotate(self._task.scaled(read))
        size = found.numel() * found.element_size()
        if key is not None and size <= self._room:
            self._room -= size
            self._kept[key] = found
        return found


def _key(rows: slice | Tensor) -> tuple[int, int] | None:
    """What batches of consecutive rows are found by; others come once."""
    return (rows.start, rows.stop) if isinstance(rows, slice) else None


def in_eigenbasis(
    task: RidgeTask, spectrum: Spectrum, *others: RidgeTask | None
) -> tuple[Spectrum, RidgeTask, list[RidgeTask | None]]:
    """A decomposition, its task, and others (validation sets), in the coordinates of the eigenbasis.

    Predictions, leverages and derivatives are the same in any coordinates.

    Args:
        task: What was decomposed.
        spectrum: Its decomposition.
        others: In the same coordinates as the task; None stays None.
    """
    room = KEPT_BYTES
    if task.device.type == "cuda":  # pragma: no cover
        free, _ = torch.cuda.mem_get_info(task.device)
        # And what earlier tensors have left to later ones.
        free += torch.cuda.memory_reserved(task.device) - torch.cuda.memory_allocated(task.device)
        room = int(_SHARE_OF_DEVICE * free)
    parts = [task, *(other for other in others if other is not None)]
    room //= len(parts)
    moved = [replace(part, features=Rotated(part, spectrum, room), scaling=Scaling()) for part in parts]
    here = replace(spectrum, mean=torch.zeros_like(spectrum.eigenvalues), basis=None)
    rest = iter(moved[1:])
    return here, moved[0], [None if other is None else next(rest) for other in others]
