"""From loaded batches to features: in the worker process that decoded them, or on a CUDA device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from divacli.errors import ModelError
from divacli.features.batchsize import BatchSize, in_blocks, lacks_memory
from divacli.features.image_loader import LoadedBatch, normalised
from divacli.features.jpeg import TensorCrops
from divacli.machine.allocator import keep_freed_memory
from divacli.parallel import one_thread

if TYPE_CHECKING:
    from divacli.backbones.backbone import Backbone


@dataclass(frozen=True)
class FeatureBatch:
    """The features of some images, in the order of the files.

    Attributes:
        positions: Which files they are.
        features: (b, d) float32; of no meaning where there is a reason.
        reasons: Why an image, by position, cannot be used.
    """

    positions: list[int]
    features: np.ndarray
    reasons: dict[int, str]


@dataclass(frozen=True)
class OneCore:
    """Features by one core: with a batch a process, every core has its own work and none waits for another.

    Attributes:
        backbone: The network, on the CPU.
        block: Images in one pass.
        arithmetic: What to compute within.
    """

    backbone: Backbone
    block: int
    arithmetic: Callable[[], contextlib.AbstractContextManager[None]]

    def __call__(self, batch: LoadedBatch) -> FeatureBatch:
        """Return the features of a batch."""
        keep_freed_memory()
        with self.arithmetic(), one_thread():
            images = normalised(self.backbone.transform, batch.images)
            features = in_blocks(self.backbone.features, images, self.block)
        return FeatureBatch(batch.positions, features.numpy(), batch.reasons)


def on_device(
    batches: Iterable[LoadedBatch],
    backbone: Backbone,
    size: BatchSize,
    crops: TensorCrops | None,
    device: torch.device,
) -> Iterator[FeatureBatch]:
    """Features by a device that works while the next batch is copied to it and decoded on it.

    Args:
        batches: In page-locked memory.
        backbone: The network, on the device.
        size: Images in one pass.
        crops: Decoder of the files that come encoded.
        device: Any; only CUDA works meanwhile.

    Raises:
        ModelError: Its memory does not suffice.
    """
    lane = _Lane(device)
    running: _Running | None = None
    try:
        for batch in batches:
            with lane.beside():
                images, reasons = _moved(batch, crops, device)
                images = normalised(backbone.transform, images)
            lane.join(images)
            features = size.run(backbone.features, images).to("cpu", non_blocking=True)
            before, running = running, _Running(batch, features, batch.reasons | reasons, lane.mark())
            if before is not None:
                yield before.finished()
        if running is not None:
            yield running.finished()
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(
            f"out of memory on {device}: {reason}",
            expected="room for a batch of images beside the network",
            hint="use a smaller --batch-size or --image-size, or --device cpu; what was embedded is kept",
        ) from error


@dataclass(frozen=True)
class _Running:
    """What the device has been given to do; the features are there once the event has come."""

    batch: LoadedBatch
    features: Tensor
    reasons: dict[int, str]
    event: torch.cuda.Event | None

    def finished(self) -> FeatureBatch:
        if self.event is not None:
            self.event.synchronize()
        return FeatureBatch(self.batch.positions, self.features.numpy(), self.reasons)


def _moved(
    batch: LoadedBatch, crops: TensorCrops | None, device: torch.device
) -> tuple[Tensor, dict[int, str]]:
    """The images of a batch on the device, those decoded that were not; and why some could not be."""
    images = batch.images.to(device, non_blocking=True)
    if crops is None or not batch.encoded:
        return images, {}
    reasons = {}
    for place, made in zip(batch.encoded, crops(list(batch.encoded.values())), strict=True):
        if isinstance(made, str):
            reasons[batch.positions[place]] = made
        else:
            images[place] = made
    return images, reasons


class _Lane:
    """A second stream of a CUDA device, for what goes on beside the network; on others everything in turn."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def beside(self) -> contextlib.AbstractContextManager[object]:
        """What is started within goes on beside the network."""
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def join(self, tensor: Tensor) -> None:
        """Let the network wait for what was started beside it, and use the tensor that it made."""
        if self._stream is not None:
            network = torch.cuda.current_stream(self._device)
            network.wait_stream(self._stream)
            tensor.record_stream(network)

    def mark(self) -> torch.cuda.Event | None:
        """An event that comes when all is done that the network has been given so far."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event
