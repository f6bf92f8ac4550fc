"""Run a backbone over image files, a batch at a time, into a feature store."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from divacli.backbones.transform import Preset
from divacli.features.batchsize import BatchSize, share_used
from divacli.features.feature_identity import PIXELS
from divacli.features.forward import FeatureBatch, OneCore, on_device
from divacli.features.image_loader import FORKS, LoadedBatch, process_batches
from divacli.features.jpeg import TensorCrops, decodes_on
from divacli.features.options import ExtractOptions
from divacli.features.store import FeatureStore
from divacli.files.containers import reading_order
from divacli.images.scaling import AS_STORED, PixelRange
from divacli.progress import Progress

if TYPE_CHECKING:
    from divacli.backbones.backbone import Backbone

SHARD_ROWS = 4096
SHARD_SECONDS = 10.0
SHARD_VALUES = 1 << 26
"""A shard is written after so many rows, numbers or seconds, whichever comes first: what a kill can cost."""

BLOCK_PIXELS = 16 * 224 * 224
"""Pixels in one forward pass on the CPU, whatever the batch size. Kernels are chosen by the shape of their
input, so features would differ in the last bits between batch sizes; and larger blocks are not faster."""

_GRADIENTS = 8
"""Images whose gradients a process of the CPU takes between two looks at what comes next."""

_CUDA_PIXELS = 256 * 224 * 224
"""Pixels of the largest batch on CUDA that is tried by itself."""


def extract(
    backbone: Backbone,
    files: Sequence[str],
    keys: np.ndarray,
    store: FeatureStore,
    options: ExtractOptions,
    progress: Progress,
    *,
    pixels: PixelRange = AS_STORED,
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
        pixels: Which values of images of more than 8 bits are black and white.
        strict: Stop after the first batch with an image that has no features.

    Returns:
        The reason for each file, by position, that has no features.

    Raises:
        ModelError: The network or its transform fails.
        OutputError: The store cannot be written.
    """
    options = _suited(options, backbone)
    order = reading_order(files)
    files, keys = [files[position] for position in order], keys[order]
    network = backbone.for_inference(compiled=options.compiled)
    batches = _feature_batches(network, files, keys, options, pixels)
    failed: dict[int, str] = {}
    # Keys and features of a batch together: an interrupt may come between any two instructions.
    pending: list[tuple[np.ndarray, np.ndarray]] = []
    written = time.monotonic()

    def flush() -> None:
        nonlocal written
        if pending:
            of_keys, of_features = zip(*pending, strict=True)
            store.append(np.concatenate(of_keys), np.concatenate(of_features))
            pending.clear()
        written = time.monotonic()

    try:
        # Closed at once where this fails: else worker processes stay until the traceback goes.
        with closing(batches), progress("embedding", len(files)) as advance, options.arithmetic():
            for batch in batches:
                positions = batch.positions
                features = batch.features
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
                    pending.append((keys[np.array(positions)[good]], features[good]))
                rows = sum(len(part) for _, part in pending)
                if (
                    rows >= SHARD_ROWS
                    or rows * features.shape[1] >= SHARD_VALUES
                    or time.monotonic() - written > SHARD_SECONDS
                ):
                    flush()
                advance(len(positions))
                if strict and failed:
                    break
    finally:
        flush()
    return {order[position]: reason for position, reason in failed.items()}


def _feature_batches(
    backbone: Backbone, files: Sequence[str], keys: np.ndarray, options: ExtractOptions, pixels: PixelRange
) -> Generator[FeatureBatch, None, None]:
    """The features of images, in their order, by all cores or by a CUDA device."""
    device = options.device
    load = partial(process_batches, files, keys, backbone.transform, backbone.image_shape, pixels=pixels)
    if device.type == "cpu":
        most = backbone.batch_size or _within(BLOCK_PIXELS, 64, backbone)
        if backbone.linearized:
            most = min(most, _GRADIENTS)
        if FORKS and not (backbone.linearized and torch.cuda.is_available()):
            # (Where there are CUDA devices, a process that has differentiated cannot do so in its forks.)
            blocks = -(-(options.batch_size or most) // most)
            # Gradients are taken one by one: a block that is filled up would cost as much as a full one.
            block = 1 if backbone.linearized else most
            network = OneCore(backbone, block, options.arithmetic)
            yield from load(network, batch_size=blocks * most, workers=options.workers)
            return
    else:
        most = backbone.batch_size or options.batch_size or _within(_CUDA_PIXELS, 4096, backbone)
    chosen = backbone.batch_size is None and options.batch_size is None and not options.compiled
    size = BatchSize(
        most,
        device,
        options.tell if options.batch_size else None,
        partial(share_used, device) if chosen and device.type == "cuda" else None,
    )
    crops = _crops(backbone, options)
    batches = load(
        _as_loaded,
        batch_size=most,
        workers=options.workers,
        pinned=device.type == "cuda",
        leave_jpeg=crops is not None,
    )
    yield from on_device(batches, backbone, size, crops, device)


def _suited(options: ExtractOptions, backbone: Backbone) -> ExtractOptions:
    """The options as they are for a network: gradients are neither compiled nor in half precision."""
    return replace(options, amp=False, compile=False) if backbone.linearized else options


def _as_loaded(batch: LoadedBatch) -> LoadedBatch:
    return batch


def _within(pixels: int, most: int, backbone: Backbone) -> int:
    """Images of a backbone's size that have about so many pixels together."""
    _, height, width = backbone.image_shape
    return max(1, min(most, pixels // (height * width)))


def feature_identity(
    backbone: Backbone, options: ExtractOptions, pixels: PixelRange = AS_STORED
) -> dict[str, str]:
    """Everything that the features of images depend on, as text.

    Args:
        backbone: The network.
        options: How it runs.
        pixels: Which values of images of more than 8 bits are black and white.
    """
    options = _suited(options, backbone)
    precision = options.precision + ("" if backbone.linearized else ", batch norms folded")
    precision += ", compiled" if options.compiled else ""
    found = {**backbone.identity, "precision": precision}
    if _crops(backbone, options) is not None:
        found["decoder"] = "torchvision on CUDA for plain JPEG"
    if pixels.text:
        found[PIXELS] = pixels.text
    return found


def _crops(backbone: Backbone, options: ExtractOptions) -> TensorCrops | None:
    """What decodes on the device: with mixed precision only, for without it features are to be the CPU's."""
    preset = backbone.transform
    if options.mixed and isinstance(preset, Preset) and decodes_on(options.device):
        return TensorCrops(preset, options.device)
    return None
