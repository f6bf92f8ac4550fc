"""Run a backbone over image files, a batch at a time, into a feature store."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from divacli.embed.allocator import keep_freed_memory
from divacli.embed.images import UndecodableImage, decode_image
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

_FEW = 64
"""So few images are decoded faster than worker processes start."""


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

    Returns:
        The reason for each file, by position, that has no features.

    Raises:
        ModelError: The network or its transform fails.
        OutputError: The store cannot be written.
    """
    block = backbone.batch_size or (options.batch_size or 256 if options.device.type == "cuda" else CPU_BLOCK)
    if options.device.type == "cpu":
        keep_freed_memory()
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
            for positions, images, reasons in _load(backbone, files, options):
                features = _forward(backbone, images, block, options.device)
                finite = np.isfinite(features).all(axis=1)
                no_numbers = {
                    position: "the network gives NaN or infinite features for it"
                    for position, good in zip(positions, finite, strict=True)
                    if not good
                }
                reasons = no_numbers | reasons  # those that could not be decoded keep the reason why
                good = np.array([position not in reasons for position in positions])
                failed |= reasons
                if good.any():
                    pending.append(features[good])
                    pending_keys.append(keys[np.array(positions)[good]])
                if sum(map(len, pending)) >= SHARD_ROWS or time.monotonic() - written > SHARD_SECONDS:
                    flush()
                advance(len(positions))
    finally:
        flush()
    return failed


def _forward(backbone: Backbone, images: Tensor, block: int, device: torch.device) -> np.ndarray:
    """Features (b, d) of images (b, 3, h, w), in blocks of one shape: the last is filled up with zeros."""
    found = []
    for part in batched(len(images), block):
        chunk = images[part].to(device, non_blocking=True)
        if device.type == "cuda":
            chunk = chunk.contiguous(memory_format=torch.channels_last)
        missing = block - len(chunk)
        if missing:
            chunk = torch.cat([chunk, chunk.new_zeros(missing, *chunk.shape[1:])])
        found.append(backbone.features(chunk)[: part.stop - part.start].cpu())
    return torch.cat(found).numpy()


_Loaded = tuple[int, Tensor | str | ModelError]
_Batch = tuple[list[int], Tensor, dict[int, str]]


class _Images(Dataset[_Loaded]):
    """Decoded and transformed images, or the reason why one cannot be.

    A failure of the transform is handed on and not raised: out of a worker process the loader would raise it
    with a traceback for its message.
    """

    def __init__(self, files: Sequence[str], backbone: Backbone) -> None:
        self._files = files
        self._transform = backbone.transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, position: int) -> _Loaded:
        file = self._files[position]
        try:
            image = decode_image(Path(file).read_bytes())
        except UndecodableImage as error:
            return position, str(error)
        except OSError as error:
            return position, f"cannot be read: {error.strerror}"
        try:
            return position, self._transform(image)
        except Exception as error:  # noqa: BLE001  # the user's own code may raise anything
            failure = ModelError(
                f"the transform fails on {file}: {type(error).__name__}: {error}",
                expected="a transform that takes any RGB image",
                hint="mend the transform that the factory returns",
            )
            failure.__cause__ = error
            return position, failure


class _Collate:
    """Stack a batch; images that could not be decoded leave zeros, so that every batch has one shape."""

    def __init__(self, blank: Tensor) -> None:
        self._blank = blank

    def __call__(self, batch: list[_Loaded]) -> _Batch | ModelError:
        for _, item in batch:
            if isinstance(item, ModelError):
                return item
        reasons = {position: item for position, item in batch if isinstance(item, str)}
        images = [item if isinstance(item, Tensor) else self._blank for _, item in batch]
        sizes = {tuple(image.shape) for image in images}
        if len(sizes) > 1:
            return ModelError(
                f"the transform gives images of different sizes: {sorted(sizes)}",
                expected="one size for all images",
                hint="end the transform with a resize and a crop to fixed sizes",
            )
        return [position for position, _ in batch], torch.stack(images), reasons


def _load(backbone: Backbone, files: Sequence[str], options: ExtractOptions) -> Iterator[_Batch]:
    """Batches of positions, images and reasons, in order, decoded in worker processes.

    Raises:
        ModelError: The transform fails.
    """
    from PIL import Image

    cuda = options.device.type == "cuda"
    workers = options.workers if options.workers is not None else len(os.sched_getaffinity(0))
    processes = workers if len(files) > _FEW else 0
    blank = torch.zeros_like(backbone.transform(Image.new("RGB", (256, 256))))
    loader = DataLoader(
        _Images(files, backbone),
        batch_size=options.batch_size or (256 if cuda else 32),
        num_workers=processes,
        collate_fn=_Collate(blank),
        pin_memory=cuda,
        # A factory's transform lives in a module that only a forked worker knows.
        multiprocessing_context="fork" if processes and sys.platform == "linux" else None,
        worker_init_fn=_ignore_interrupt,
    )
    try:
        with _signals_left_alone():
            batches = iter(loader)
        try:
            for batch in batches:
                if isinstance(batch, ModelError):
                    raise batch
                yield batch
        finally:
            # Stops the workers now. In a traceback it would live until the garbage collector comes, which
            # takes their queues first: they are then waited for in vain, 5 seconds each.
            del batches
    except (RuntimeError, OSError, EOFError) as error:
        # What the loader says or meets when a worker process has gone; anything else is not ours to explain.
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        if not processes or (isinstance(error, RuntimeError) and "worker" not in str(error)):
            raise
        raise ModelError(
            f"a process that decodes images failed: {reason[0]}",
            expected="enough memory (and shared memory) for every worker",
            hint="use fewer --workers or a smaller --batch-size; what was embedded is kept",
        ) from error


@contextlib.contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Undo what the loader does to signals.

    Its handler raises when a worker dies, wherever the main process is then: in the network, or in the middle
    of writing a shard. Without it the loader notices within seconds by itself.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches the whole process group; only the main process is to answer it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
