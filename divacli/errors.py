"""The exceptions a user can act on: what was got, what was expected, what to do.

Everything the package raises on purpose is a `DivaError`. The command line prints its message alone and
exits with status 1; a library user catches the one class or a subclass of it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

_ITEM = 300
"""Characters of one thing that is named among others."""

_LINE = 2000
"""Characters of one line of a message."""


def shown(text: str) -> str:
    """Show text of any origin on one line of a terminal, which obeys nothing of it.

    Every character that is not printable becomes its escape: line breaks of any kind, tabs, and what moves
    the cursor or changes the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def cut(text: str, most: int = _LINE) -> str:
    """Leave out the middle of a long text.

    Args:
        text: Any.
        most: The characters it may have.
    """
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


class Advice(str):
    """The next thing to do, in words that fit the command line and Python.

    Args:
        template: With names of options in braces: "use a larger {ridge}, or {dtype} float64".

    Attributes:
        typed: As it is typed: "use a larger --ridge, or --dtype float64". The text itself has the bare names.
    """

    typed: str

    def __new__(cls, template: str) -> Advice:
        """Fill in the names."""
        made = super().__new__(cls, re.sub(r"\{(\w+)\}", r"\1", template))
        made.typed = re.sub(r"\{(\w+)\}", lambda name: f"--{name[1].replace('_', '-')}", template)
        return made


class Again(Advice):
    """The same call once more, with other DATA or more options: what can be typed as it stands.

    From Python it is `divacli.Source(...)`; the command line shows its own command, with all that was typed.

    Args:
        given: DATA as it was named, by which the command line finds what is to be replaced.
        data: What is to be given in its place.
        options: Names and values of options that are added; a tuple is an option that is repeated.
        role: "" of DATA; of a set beside it the name of its argument, such as "test".
    """

    given: str
    data: str
    options: dict[str, str | tuple[str, ...]]
    role: str

    def __new__(
        cls,
        given: str,
        data: str,
        options: Mapping[str, str | tuple[str, ...]] | None = None,
        *,
        role: str = "",
    ) -> Again:
        """Write it down as a call from Python."""
        options = dict(options or {})
        # What lies in memory is called by its argument.
        named = data if data.isidentifier() and not Path(data).exists() else repr(data)
        of_python = ", ".join(
            [named, *(f"{name}={value!r}" for name, value in options.items() if name != "group")]
        )
        made = str.__new__(cls, f"divacli.Source({of_python})")
        made.given, made.data, made.options, made.role = given, data, options, role
        words = [data]
        for name, value in options.items():
            for one in (value,) if isinstance(value, str) else value:
                words += [f"--{name.replace('_', '-')}", one]
        made.typed = f"give {shlex.join(words)}"
        return made


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

    @property
    def parts(self) -> list[str]:
        """The parts that were given, as they are; each is a line of the message."""
        return self._lines(self.hint)

    @property
    def typed_parts(self) -> list[str]:
        """As `parts`, with options as they are typed on the command line."""
        return self._lines(self.hint.typed if isinstance(self.hint, Advice) else self.hint)

    def _lines(self, hint: str) -> list[str]:
        expected = f"expected: {self.expected}" if self.expected else ""
        return [line for line in (self.got, expected, f"to do: {hint}" if hint else "") if line]

    def __str__(self) -> str:
        """The whole message, with one line for each part, whatever a name in it holds."""
        return "\n".join(cut(shown(part)) for part in self.parts)


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
    """Join the first `limit` items, long ones without their middle, and say how many more there are.

    Args:
        items: What to name; may already be cut to the first few.
        total: How many there are in all, where `items` is only the beginning.
        limit: How many to name at the most.
    """
    total = len(items) if total is None else total
    named = [cut(item, _ITEM) for item in items[:limit]]
    more = total - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")
