"""The interface by which work reports how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Opens one step of work: `with progress("embedding", 1000) as advance: advance(32)`."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Start a step of `total` parts, 0 where they cannot be counted.

        The function it yields takes how many more are done.
        """
        ...


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A `Progress` that nobody watches."""
    yield lambda done: None
