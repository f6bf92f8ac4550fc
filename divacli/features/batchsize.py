"""How many images go through a network at once: as many as fit in the memory of its device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from divacli.errors import ModelError
from divacli.features.feature_rows import batched

_FIRST = 32
_ROOM = 0.4
"""A batch that takes at most this share of the memory may be followed by one of twice its size."""


class BatchSize:
    """The size of a batch, which grows while memory lasts and is halved when it does not.

    Args:
        most: The largest size.
        device: For messages.
        tell: Told, in one sentence, when a size that the user asked for is too large; None: nobody asked.
        used: The share of the device's memory that the passes so far took at most; None: not known, so that
            the size starts at `most`.
    """

    def __init__(
        self,
        most: int,
        device: torch.device,
        tell: Callable[[str], None] | None = None,
        used: Callable[[], float] | None = None,
    ) -> None:
        self.size = most if used is None else min(_FIRST, most)
        self._most = most
        self._device = device
        self._tell = tell
        self._used = used

    def run(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Run a network over images, in batches that are filled up with zeros to one size.

        Args:
            network: From images (b, 3, h, w) to features (b, d), row by row.
            images: (n, 3, h, w).

        Returns:
            Features (n, d).

        Raises:
            ModelError: One image alone does not fit.
        """
        found: list[Tensor] = []
        done = 0
        while done < len(images):
            features = self._tried(network, images[done : done + self.size])
            if features is None:
                # Here, and not where the error is caught: its traceback holds what the pass had in memory.
                self._halve()
                continue
            found.append(features)
            done += len(features)
            self._grow()
        return torch.cat(found)

    def _tried(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor | None:
        try:
            return network(filled(images, self.size))[: len(images)]
        except torch.OutOfMemoryError as error:
            if self.size > 1:
                return None
            raise ModelError(
                f"out of memory on {self._device} with one image at a time",
                expected="a device with room for the network and an image",
                hint="use a smaller --image-size, or --device cpu; what was embedded is kept",
            ) from error

    def _halve(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        asked = self._most
        self.size = self._most = max(1, self.size // 2)
        if self._tell is not None:
            self._tell(f"--batch-size {asked} does not fit on {self._device}: going on with smaller batches")
            self._tell = None

    def _grow(self) -> None:
        if self._used is not None and self.size < self._most and self._used() <= _ROOM:
            self.size = min(2 * self.size, self._most)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice.

    On the CPU torch has no class of its own for that, and neither has its loader for some errors of workers.
    """
    text = str(error) if isinstance(error, RuntimeError) else ""
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "DefaultCPUAllocator" in text
        or "MemoryError" in text
    )


def filled(images: Tensor, size: int) -> Tensor:
    """Images (size, 3, h, w) channels-last, filled up with zeros: kernels are chosen by the shape."""
    missing = size - len(images)
    if missing:
        images = torch.cat([images, images.new_zeros((missing, *images.shape[1:]))])
    return images.contiguous(memory_format=torch.channels_last)


def in_blocks(network: Callable[[Tensor], Tensor], images: Tensor, block: int) -> Tensor:
    """Features (n, d) of images (n, 3, h, w), in blocks of one shape."""
    parts = (images[part] for part in batched(len(images), block))
    return torch.cat([network(filled(part, block))[: len(part)] for part in parts])


def share_used(device: torch.device) -> float:
    """The share of what a CUDA device can give to this process that it took at most."""
    free, _ = torch.cuda.mem_get_info(device)
    return torch.cuda.max_memory_allocated(device) / (free + torch.cuda.memory_reserved(device))
