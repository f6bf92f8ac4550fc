"""Decode and transform image files in worker processes, in order, a batch at a time."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from divacli.embed.images import FailedCopy, UndecodableImage, decode_image
from divacli.errors import ModelError

if TYPE_CHECKING:
    from divacli.backbones.transform import Transform

_FEW = 64
"""So few images are decoded faster than worker processes start."""


@dataclass(frozen=True)
class LoadedBatch:
    """Some images, in the order of the files.

    Attributes:
        positions: Which files they are.
        images: (b, 3, h, w) float; zeros where there is a reason.
        reasons: Why an image, by position, cannot be used.
    """

    positions: list[int]
    images: Tensor
    reasons: dict[int, str]


_Loaded = tuple[int, Tensor | str | ModelError]


class _Images(Dataset[_Loaded]):
    """Decoded and transformed images, or the reason why one cannot be.

    A failure of the transform is handed on and not raised: out of a worker process the loader would raise it
    with a traceback for its message.
    """

    def __init__(self, files: Sequence[str], keys: np.ndarray, transform: Transform) -> None:
        self._files = files
        self._keys = keys
        self._transform = transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, position: int) -> _Loaded:
        file = self._files[position]
        try:
            data = Path(file).read_bytes()
            if hashlib.sha256(data).digest() != self._keys[position].tobytes():
                return position, "it changed while it was being read"
            image = decode_image(data)
        except UndecodableImage as error:
            return position, str(error)
        except OSError as error:
            return position, f"cannot be read: {error.strerror}"
        try:
            return position, self._transform(image)
        except FailedCopy as error:
            return position, str(error)
        except Exception as error:  # noqa: BLE001  # the user's own code may raise anything
            failure = ModelError(
                f"the transform fails on {file}: {type(error).__name__}: {error}",
                expected="a transform that takes any RGB image",
                hint="mend the transform that the factory returns",
            )
            failure.__cause__ = error
            return position, failure


class _Collate:
    """Stack a batch; images that cannot be used leave zeros, so that every batch has one shape."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self._blank = torch.zeros(image_shape)

    def __call__(self, batch: list[_Loaded]) -> LoadedBatch | ModelError:
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
        return LoadedBatch([position for position, _ in batch], torch.stack(images), reasons)


def load_batches(
    files: Sequence[str],
    keys: np.ndarray,
    transform: Transform,
    image_shape: tuple[int, ...],
    *,
    batch_size: int,
    workers: int | None,
    pinned: bool,
) -> Iterator[LoadedBatch]:
    """Load images, in order, decoded in worker processes where there are many.

    Args:
        files: Paths (m).
        keys: (m, 32) uint8, the SHA-256 of each file: one that has changed since is not used.
        transform: From an RGB image to a tensor (3, h, w).
        image_shape: That shape.
        batch_size: Images at a time.
        workers: Processes; None: one a core.
        pinned: Put images in page-locked memory, for a copy to CUDA that overlaps with work.

    Raises:
        ModelError: The transform fails, or a worker process does.
    """
    workers = _cores() if workers is None else workers
    processes = workers if len(files) > _FEW else 0
    loader = DataLoader(
        _Images(files, keys, transform),
        batch_size=batch_size,
        num_workers=processes,
        collate_fn=_Collate(image_shape),
        pin_memory=pinned,
        # A factory's transform lives in a module that only a forked worker knows.
        multiprocessing_context="fork" if processes and sys.platform == "linux" else None,
        worker_init_fn=_leave_the_talking_to_main,
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


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _leave_the_talking_to_main(worker: int) -> None:
    """Prepare a worker for Ctrl-C, which reaches the whole process group: only the main process is to answer.

    The thread that hands tensors over reports a main process that has gone away; that is no news then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, (OSError, EOFError, multiprocessing.AuthenticationError)):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = report
