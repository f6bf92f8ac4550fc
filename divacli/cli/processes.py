"""One of several processes that a launcher has started: who talks, who writes, and how each of them ends.

Nothing here imports torch: what a launcher says is in the environment.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from divacli.errors import DivaError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun`, or another launcher of PyTorch's kind, tells a process of its world."""

_SECONDS_TO_ASK = 2
"""How long a failing process tries to learn whether another one has spoken."""

_SECONDS_TO_SPEAK = 1
"""How long one that has nothing to add stays: when it ends, the launcher ends the one that speaks."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM): by a scheduler, or since another one has failed."""


def rank() -> int:
    """Which process of its world this one is; 0 alone. `require_world` has looked at it."""
    return int(os.environ["RANK"]) if launched() else 0


def launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return all(os.environ.get(name) for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def leads() -> bool:
    """Whether this process is the one that writes and talks."""
    return rank() == 0


def require_world() -> None:
    """Refuse what a launcher says of its world where that can be of none.

    Raises:
        DivaError: Which variable.
    """
    names = ["RANK", "WORLD_SIZE", "MASTER_PORT"] if launched() else []
    for name in [*names, *(["LOCAL_WORLD_SIZE"] if "LOCAL_WORLD_SIZE" in os.environ else [])]:
        value, least = os.environ[name], 0 if name == "RANK" else 1
        if not (value.isascii() and value.isdigit() and least <= int(value[:9])):
            raise DivaError(
                f"{name}={value} in the environment",
                expected=f"a whole number from {least} up, as torchrun sets it",
                hint=f"start diva by torchrun, or alone after: unset {name}",
            )


def require_shareable(command: str, *sources: str | None) -> None:
    """Refuse to read standard input in several processes.

    Args:
        command: Its name.
        sources: DATA and whatever else it reads.

    Raises:
        DivaError: One of them is standard input.
    """
    if launched() and "-" in sources:
        raise DivaError(
            f"diva {command} - in {os.environ['WORLD_SIZE']} processes: each would read a part of it",
            expected="a file that all processes can read",
            hint="write the table to a file first",
        )


def require_single(command: str) -> None:
    """Refuse a command whose work is not shared.

    Raises:
        DivaError: It was launched in several processes.
    """
    if launched():
        raise DivaError(
            f"diva {command} runs in one process, and a launcher has started {os.environ['WORLD_SIZE']}",
            expected="embed, score, prune, relabel, reweight or extend, which share their work",
            hint=f"start it without the launcher: diva {command} ...",
        )


def may_speak() -> bool:
    """Whether this process, which fails, is the first of its world to say why; alone always.

    All processes may fail of one cause, and those that are left fail when one is gone: one message is enough.
    """
    if not launched():
        return True
    from torch.distributed import TCPStore

    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=_SECONDS_TO_ASK),
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        first = store.add(f"divacli-spoken-{attempt}", 1) == 1
    except (RuntimeError, ValueError):
        return True  # nobody to ask: rather twice than not at all
    if not first:
        time.sleep(_SECONDS_TO_SPEAK)
    return first


@contextmanager
def ending_well() -> Iterator[None]:
    """Turn SIGTERM into `Terminated`, so that what was computed is kept, and leave the world at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
        # Not after a failure: the others may be waiting in the middle of something.
        if "divacli.parallel" in sys.modules:
            sys.modules["divacli.parallel"].leave()
    finally:
        signal.signal(signal.SIGTERM, before)
