"""Read and decode image files in worker processes, in order, a batch at a time."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from divacli.backbones.checkpoint import first_line
from divacli.backbones.transform import Preset
from divacli.errors import DataError, ModelError
from divacli.features.batchsize import lacks_memory
from divacli.features.jpeg import is_plain_jpeg
from divacli.files.path_or_url import read_bytes
from divacli.images.decode import FailedCopy, UndecodableImage, decode_image
from divacli.images.scaling import AS_STORED, PixelRange

if TYPE_CHECKING:
    from divacli.backbones.transform import Transform

FORKS = sys.platform == "linux"
"""Whether a worker process is a copy of this one, that knows whatever it knows."""

_ENDING = (signal.SIGINT, signal.SIGTERM)

_FEW = 64
"""So few images are decoded faster than worker processes start."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class LoadedBatch:
    """Some images, in the order of the files.

    Attributes:
        positions: Which files they are.
        images: (b, 3, h, w) float, or uint8 crops that are still to be normalised; zeros where there is a
            reason, and where `encoded` has the image.
        reasons: Why an image, by position, cannot be used.
        encoded: By place in the batch, the bytes of JPEG files that are still to be decoded.
    """

    positions: list[int]
    images: Tensor
    reasons: dict[int, str]
    encoded: dict[int, Tensor] = field(default_factory=dict)

    def pin_memory(self) -> LoadedBatch:
        """The same batch in page-locked memory; the loader calls it."""
        return replace(self, images=self.images.pin_memory())


@dataclass(frozen=True)
class _Encoded:
    """A file that is not decoded here."""

    data: Tensor


_Loaded = tuple[int, "Tensor | _Encoded | str"]


class _Images(Dataset[_Loaded]):
    """Images as a network takes them but for the normalisation, or the reason why one cannot be had."""

    def __init__(
        self,
        files: Sequence[str],
        keys: np.ndarray,
        transform: Transform,
        pixels: PixelRange,
        *,
        leave_jpeg: bool,
    ) -> None:
        self._files = files
        self._keys = keys
        self._transform = transform
        self._preset = transform if isinstance(transform, Preset) else None
        self._least_side = None if self._preset is None else self._preset.least_side
        self._pixels = pixels
        self._leave_jpeg = leave_jpeg

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, position: int) -> _Loaded:
        file = self._files[position]
        try:
            data = read_bytes(file)
            if hashlib.sha256(data).digest() != self._keys[position].tobytes():
                return position, "it changed while it was being read"
            if self._leave_jpeg and is_plain_jpeg(data):
                return position, _Encoded(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            image = decode_image(data, self._least_side, self._pixels)
        except UndecodableImage as error:
            return position, str(error)
        except OSError as error:
            return position, f"cannot be read: {error.strerror}"
        except DataError as error:
            return position, error.got
        try:
            made = self._transform(image) if self._preset is None else self._preset.crop(image)
        except FailedCopy as error:
            return position, str(error)
        except Exception as error:  # the user's own code may raise anything
            if lacks_memory(error):
                raise
            return position, f"the transform fails: {type(error).__name__}: {first_line(error)}"
        if not isinstance(made, Tensor) or made.ndim != 3:
            given = (
                f"a tensor {tuple(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
            )
            return position, f"the transform gives {given}"
        return position, made


class _Collate(Generic[_T]):
    """Stack a batch and go on with it; images that cannot be used leave zeros, so that all have one shape."""

    def __init__(self, blank: Tensor, then: Callable[[LoadedBatch], _T]) -> None:
        self._blank = blank
        self._then = then

    def __call__(self, batch: list[_Loaded]) -> _T | ModelError:
        reasons = {position: item for position, item in batch if isinstance(item, str)}
        encoded = {place: item.data for place, (_, item) in enumerate(batch) if isinstance(item, _Encoded)}
        images = [item if isinstance(item, Tensor) else self._blank for _, item in batch]
        sizes = {tuple(image.shape) for image in images}
        if len(sizes) > 1:
            return ModelError(
                f"the transform gives images of different sizes: {sorted(sizes)}",
                expected="one size for all images",
                hint="end the transform with a resize and a crop to fixed sizes",
            )
        # Channels last, as decoders leave them and as convolutions are fastest.
        stacked = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
        try:
            return self._then(LoadedBatch([position for position, _ in batch], stacked, reasons, encoded))
        except ModelError as error:
            return error


def normalised(transform: Transform, images: Tensor) -> Tensor:
    """Images (b, 3, h, w) as a network takes them, of those in a `LoadedBatch`."""
    return transform.normalised(images) if isinstance(transform, Preset) else images


def load_batches(
    files: Sequence[str],
    keys: np.ndarray,
    transform: Transform,
    image_shape: tuple[int, ...],
    *,
    batch_size: int,
    workers: int | None,
    pinned: bool,
    pixels: PixelRange = AS_STORED,
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
        pixels: Which values of images of more than 8 bits are black and white.

    Raises:
        ModelError: The transform gives images of several sizes, or a worker process fails.
    """
    return process_batches(
        files,
        keys,
        transform,
        image_shape,
        partial(_finished, transform),
        batch_size=batch_size,
        workers=workers if len(files) > _FEW else 0,
        pinned=pinned,
        pixels=pixels,
    )


def _finished(transform: Transform, batch: LoadedBatch) -> LoadedBatch:
    return replace(batch, images=normalised(transform, batch.images).contiguous())


def process_batches(
    files: Sequence[str],
    keys: np.ndarray,
    transform: Transform,
    image_shape: tuple[int, ...],
    then: Callable[[LoadedBatch], _T],
    *,
    batch_size: int,
    workers: int | None,
    pinned: bool = False,
    leave_jpeg: bool = False,
    pixels: PixelRange = AS_STORED,
) -> Iterator[_T]:
    """Load images and go on with each batch in the worker process that has loaded it.

    Args:
        files: As for `load_batches`, and so are the others.
        keys: Of the files.
        transform: From an image to a tensor. Of a `Preset`, batches hold crops that are not normalised.
        image_shape: Of that tensor.
        then: What to do with a batch, in the worker. What it returns comes back, in the order of the files; a
            `ModelError` that it raises is raised here.
        batch_size: Images at a time.
        workers: Processes, no more than there are batches; None: one a core; 0: do it in this process.
        pinned: Whether results are put in page-locked memory, by their method `pin_memory`.
        leave_jpeg: Hand JPEG files that `is_plain_jpeg` on as they are.
        pixels: As for `load_batches`.

    Raises:
        ModelError: The transform gives images of several sizes, `then` or a worker process fails, or memory
            does not suffice.
    """
    processes = min(cores() if workers is None else workers, -(-len(files) // batch_size))
    context = "fork" if processes and FORKS else None
    blank = torch.zeros(image_shape, dtype=torch.uint8 if isinstance(transform, Preset) else torch.float32)
    loader = DataLoader(
        _Images(files, keys, transform, pixels, leave_jpeg=leave_jpeg),
        batch_size=batch_size,
        num_workers=processes,
        collate_fn=_Collate(blank, then),
        pin_memory=pinned,
        # A factory's transform lives in a module that only a forked worker knows.
        multiprocessing_context=context,
        worker_init_fn=_leave_the_talking_to_main,
    )
    try:
        if processes:
            # Without shared memory the loader fails of its first queue, and leaves a traceback of its own.
            multiprocessing.get_context(context).Queue().close()
        with _signals_waiting(), _signals_left_alone():
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
    except (RuntimeError, MemoryError, OSError, EOFError) as error:
        # What the loader says or meets when a worker process has gone; anything else is not ours to explain.
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        if lacks_memory(error):
            raise ModelError(
                f"out of memory, with {batch_size:,} images at a time in each of {max(processes, 1):,} "
                f"processes: {reason[0].rpartition('DefaultCPUAllocator: ')[2]}",
                expected="enough memory for the network and a batch of images in every process",
                hint="use fewer --workers, a smaller --batch-size or --image-size; what was embedded is kept",
            ) from error
        if not processes or (isinstance(error, RuntimeError) and "worker" not in str(error)):
            raise
        raise ModelError(
            f"a process that decodes images failed: {reason[0]}",
            expected="enough memory (and shared memory) for every worker",
            hint="use fewer --workers or a smaller --batch-size; --workers 0 needs no shared memory. "
            "What was embedded is kept",
        ) from error


def cores() -> int:
    """Cores that this process may use: its share, where a launcher has started several on this machine."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, found // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


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


@contextlib.contextmanager
def _signals_waiting() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the worker processes to be started.

    What their handlers raise would be lost in the code that Python runs around a fork, and the command go on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_the_talking_to_main(worker: int) -> None:
    """Prepare a worker for Ctrl-C, which reaches the whole process group: only the main process is to answer.

    The thread that hands tensors over reports a main process that has gone away; that is no news then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, (OSError, EOFError, multiprocessing.AuthenticationError)):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = report
