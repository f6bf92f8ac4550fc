"""Progress of a training in one file: written whole or not at all, continued by the same command alone."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from divacli.backbones.pickles.torch_file import read_torch_file
from divacli.errors import ModelError, StoreError, listed
from divacli.files.regular import open_regular
from divacli.files.write import write_bytes

FORMAT = 1


def save_checkpoint(file: Path, about: dict[str, str], state: dict[str, Any]) -> None:
    """Write the progress of a training.

    Args:
        file: Replaced where it exists.
        about: Everything that the result depends on, by the name that a message gives it.
        state: Tensors, numbers, texts, and lists and dictionaries of these.

    Raises:
        OutputError: It cannot be written.
    """
    write_bytes(file, packed({"format": FORMAT, "about": about, "state": state}), _temporary(file))


def packed(content: Any) -> bytes:
    """What `torch.load` reads, with `weights_only=True` where all is tensors, numbers, texts and the like."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def load_checkpoint(file: Path, about: dict[str, str], *, replaced: bool = False) -> dict[str, Any] | None:
    """Read the progress of this very training; None where there is none.

    Args:
        file: As it was saved.
        about: Everything that the result depends on now.
        replaced: Whether the progress of another training counts as none.

    Raises:
        StoreError: The file is damaged, or of a training that differs; the message names what differs.
    """
    if not file.exists():
        return None
    anew = "use --restart to begin anew, or another --out"
    content = _content(file, anew)
    version, before, state = content["format"], content["about"], content["state"]
    if version != FORMAT:
        raise StoreError(
            f"{file} is of format {version}", expected=f"format {FORMAT} of this version", hint=anew
        )
    names = [name for name in {**before, **about} if before.get(name) != about.get(name)]
    if names and replaced:
        return None
    if names:
        told = [_difference(name, before.get(name, ""), about.get(name, "")) for name in names]
        raise StoreError(
            f"{file} is the progress of another training; different: {listed(told, limit=8)}",
            expected="the same data, network and options, to go on from there",
            hint=anew,
        )
    return dict(state)


def discard_checkpoint(file: Path) -> None:
    """Delete the progress of a training, whichever; a file that cannot be read counts as such.

    Raises:
        StoreError: The file holds something else.
    """
    _temporary(file).unlink(missing_ok=True)
    if not file.exists():
        return
    try:
        _content(file, "")
    except StoreError as error:
        # A damaged file has nothing to lose; one that can be read is somebody's.
        if error.__cause__ is None:
            raise
    file.unlink()


def _temporary(file: Path) -> Path:
    """Where progress is written first: always the same file, so that what a kill leaves is replaced."""
    return file.with_name(f".{file.name}.tmp")


def _content(file: Path, hint: str) -> dict[str, Any]:
    """What `save_checkpoint` wrote.

    Raises:
        StoreError: The file is damaged, or holds something else.
    """
    expected = "the progress of an interrupted training"
    try:
        with open_regular(file) as stream:
            content = read_torch_file(stream, file)
    except (ModelError, OSError) as error:
        raise StoreError(
            f"{file} cannot be read: {type(error).__name__}", expected=expected, hint=hint
        ) from error
    if not (
        isinstance(content, dict) and {"format", "about", "state"} <= set(content) and _is_plain(content)
    ):
        raise StoreError(
            f"{file} is another file, which training would replace",
            expected=expected,
            hint="use another --out",
        )
    return dict(content)


def _is_plain(content: Any) -> bool:
    """Whether all in it is of the kinds that `save_checkpoint` is given."""
    waiting, seen = [content], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one
        elif not isinstance(one, str | int | float | Tensor | None):
            return False
    return True


def _difference(name: str, before: str, now: str) -> str:
    """Short texts are shown; digests say nothing."""
    if max(len(before), len(now)) > 32:
        return name
    return f"{name} ({before or 'none'} there, {now or 'none'} now)"


class SafeStop(KeyboardInterrupt):
    """Ctrl-C, answered at a point from which the work can go on."""


@contextmanager
def stopping_between_steps() -> Iterator[Callable[[], None]]:
    """Put off Ctrl-C until the work is at a point from which it can go on.

    Yields:
        A function to call at such points: it raises `SafeStop` if Ctrl-C was pressed since. A second Ctrl-C
        does not wait.
    """
    pressed = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def check() -> None:
        if pressed:
            raise SafeStop

    if threading.current_thread() is not threading.main_thread():
        yield check  # only the main thread is interrupted, and only it may set this
        return
    handler = signal.signal(signal.SIGINT, remember)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, handler)
