"""The exceptions a user can act on: what was got, what was expected, what to do.

Everything the package raises on purpose is a `DivaError`. The command line prints its message alone and
exits with status 1; a library user catches the one class or a subclass of it.
"""

from __future__ import annotations


class DivaError(Exception):
    """A failure the user can mend.

    Args:
        got: What was found, naming the file, row, option or value.
        expected: What would have been right.
        hint: The next thing to do or to type.
    """

    def __init__(self, got: str, *, expected: str = "", hint: str = "") -> None:
        super().__init__(got)
        self.got = got
        self.expected = expected
        self.hint = hint

    def __str__(self) -> str:
        """The whole message, one line for each part that was given."""
        lines = [self.got]
        if self.expected:
            lines.append(f"expected: {self.expected}")
        if self.hint:
            lines.append(f"to do: {self.hint}")
        return "\n".join(lines)


class DataError(DivaError):
    """The samples, their labels or their files are not usable as they are."""


class ModelError(DivaError):
    """The network or its checkpoint cannot be loaded, or offers no feature layer."""


class StoreError(DivaError):
    """A feature store is unreadable, incomplete, or holds something else than what was asked for."""


class SolveError(DivaError):
    """The ridge problem has no answer: a ridge too small, weights all zero, a leverage of one."""


class OutputError(DivaError):
    """A result cannot be written where it was asked for."""


def listed(items: list[str], total: int | None = None, limit: int = 5) -> str:
    """Join the first `limit` items and say how many more there are.

    Args:
        items: What to name; may already be cut to the first few.
        total: How many there are in all, where `items` is only the beginning.
        limit: How many to name at the most.
    """
    total = len(items) if total is None else total
    shown = items[:limit]
    more = total - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
