"""Run a backbone over image files, a batch at a time, into a feature store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from divacli.embed.allocator import keep_freed_memory
from divacli.embed.loading import load_batches
from divacli.embed.progress import Progress
from divacli.embed.store import FeatureStore, batched
from divacli.errors import ModelError

if TYPE_CHECKING:
    from divacli.backbones import Backbone

SHARD_ROWS = 4096
SHARD_SECONDS = 10.0
"""A shard is written after so many rows or seconds, whichever comes first: what a kill can cost."""

CPU_BLOCK = 4
"""Images in one forward pass on the CPU, whatever the batch size. Kernels are chosen by the shape of their
input, so features would differ in the last bits between batch sizes; and larger blocks are not faster."""


@dataclass(frozen=True)
class ExtractOptions:
    """How features are computed.

    Attributes:
        device: Where the network runs.
        batch_size: Images in memory at a time, and on CUDA in one forward pass; None: 32 on the CPU, 256 on
            CUDA.
        workers: Processes that decode; None: one a core.
        amp: Mixed precision (float16 autocast); on CUDA only.
    """

    device: torch.device
    batch_size: int | None = None
    workers: int | None = None
    amp: bool = True

    @property
    def precision(self) -> str:
        """What the features' last digits depend on; a part of their identity."""
        return "float16 autocast" if self._mixed else "float32"

    @property
    def _mixed(self) -> bool:
        return self.amp and self.device.type == "cuda"

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The arithmetic that `precision` names."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.float16, enabled=self._mixed),
            torch.backends.cudnn.flags(allow_tf32=self._mixed, benchmark=self._mixed),
        ):
            yield


def extract(
    backbone: Backbone,
    files: Sequence[str],
    keys: np.ndarray,
    store: FeatureStore,
    options: ExtractOptions,
    progress: Progress,
    *,
    strict: bool = False,
) -> dict[int, str]:
    """Compute the features of some images and add them to a store, shard by shard.

    What was computed is in the store also when this is interrupted or fails.

    Args:
        backbone: The network, on `options.device`.
        files: Paths (m).
        keys: (m, 32) uint8 their keys.
        store: Where to.
        options: How.
        progress: Told of every image that is done.
        strict: Stop after the first batch with an image that has no features.

    Returns:
        The reason for each file, by position, that has no features.

    Raises:
        ModelError: The network or its transform fails.
        OutputError: The store cannot be written.
    """
    cuda = options.device.type == "cuda"
    batch_size = options.batch_size or (256 if cuda else 32)
    block = backbone.batch_size or (batch_size if cuda else CPU_BLOCK)
    if not cuda:
        keep_freed_memory()
    batches = load_batches(
        files,
        keys,
        backbone.transform,
        backbone.image_shape,
        batch_size=batch_size,
        workers=options.workers,
        pinned=cuda,
    )
    failed: dict[int, str] = {}
    pending_keys: list[np.ndarray] = []
    pending: list[np.ndarray] = []
    written = time.monotonic()

    def flush() -> None:
        nonlocal written
        if pending:
            store.append(np.concatenate(pending_keys), np.concatenate(pending))
            pending_keys.clear()
            pending.clear()
        written = time.monotonic()

    try:
        with progress("embedding", len(files)) as advance, options.arithmetic():
            for batch in batches:
                positions = batch.positions
                features = _forward(backbone, batch.images, block, options.device)
                finite = np.isfinite(features).all(axis=1)
                no_numbers = {
                    position: "the network gives NaN or infinite features for it"
                    for position, good in zip(positions, finite, strict=True)
                    if not good
                }
                reasons = no_numbers | batch.reasons  # those that could not be decoded keep the reason why
                good = np.array([position not in reasons for position in positions])
                failed |= reasons
                if good.any():
                    pending.append(features[good])
                    pending_keys.append(keys[np.array(positions)[good]])
                if sum(map(len, pending)) >= SHARD_ROWS or time.monotonic() - written > SHARD_SECONDS:
                    flush()
                advance(len(positions))
                if strict and failed:
                    break
    finally:
        flush()
    return failed


def _forward(backbone: Backbone, images: Tensor, block: int, device: torch.device) -> np.ndarray:
    """Features (b, d) of images (b, 3, h, w), in blocks of one shape: the last is filled up with zeros."""
    found = []
    for part in batched(len(images), block):
        try:
            chunk = images[part].to(device, non_blocking=True)
            if device.type == "cuda":
                chunk = chunk.contiguous(memory_format=torch.channels_last)
            missing = block - len(chunk)
            if missing:
                chunk = torch.cat([chunk, chunk.new_zeros(missing, *chunk.shape[1:])])
            found.append(backbone.features(chunk)[: part.stop - part.start].cpu())
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"out of memory on {device} with {block} images at a time",
                expected="a batch that fits",
                hint=f"use --batch-size {max(1, block // 2)}; what was embedded is kept",
            ) from error
    return torch.cat(found).numpy()
