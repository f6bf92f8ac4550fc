"""Values of options and arguments, from text: what is refused before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from divacli.errors import cut
from divacli.files.urls import is_url

_NAME_BYTES, _PATH_BYTES = 255, 4096
"""What Linux and most file systems take."""


def name_value(text: str) -> bytes:
    """Encode a name that the system can be given.

    Raises:
        typer.BadParameter: It has characters that no name has.
    """
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise typer.BadParameter(f"{cut(text, 60)!r} has a character that nothing can be called by")
    return encoded


def path_value(given: str | Path) -> Path:
    """Parse a path that a file system can hold.

    Raises:
        typer.BadParameter: It is empty, a URL, too long, or has characters that no name has.
    """
    text = os.fspath(given)
    if not text:
        raise typer.BadParameter("an empty text; expected a path")
    if "://" in text:
        raise typer.BadParameter(f"{cut(text, 60)!r} is a URL; expected a path on this machine")
    encoded = name_value(text)
    if len(encoded) >= _PATH_BYTES or max(map(len, encoded.split(b"/"))) > _NAME_BYTES:
        raise typer.BadParameter(
            f"{cut(text, 60)!r} is too long: a name may have {_NAME_BYTES} bytes, a path {_PATH_BYTES:,}"
        )
    return Path(text)


def out_value(given: str) -> str:
    """Check the name of a folder for results; `Output` refuses those that are URLs, and says what to do.

    Raises:
        typer.BadParameter: It is no usable path.
    """
    if not is_url(given):
        path_value(given)
    return given


def _auto_or_number(text: str) -> float | None:
    """The number in a text, None for `auto`, NaN for anything else."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        return float("nan")


def ridge_value(text: str) -> float | None:
    """Parse `auto` (None) or a number >= 0.

    Raises:
        typer.BadParameter: It is neither.
    """
    value = _auto_or_number(text)
    if value is not None and not 0 <= value < float("inf"):
        raise typer.BadParameter(f"{text!r} is neither 'auto' nor a number >= 0")
    return value


def step_size_value(text: str) -> float | None:
    """Parse `auto` (None) or a number > 0.

    Raises:
        typer.BadParameter: It is neither.
    """
    value = _auto_or_number(text)
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"--step-size {text}: expected auto or a number above 0, such as 0.1")
    return value


def budget_value(text: str | None) -> tuple[int | None, float | None]:
    """Parse a number of samples, or a share of the pool in (0, 1] such as 25%; the other of both is None.

    Raises:
        typer.BadParameter: It is neither.
    """
    if text is None:
        return None, None
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        value = 0
    if not 0 < value <= (1 if isinstance(value, float) else 2**31 - 1):
        raise typer.BadParameter(
            f"--budget {text}: expected a number of samples from 1 up, or a share of the pool such as 25%"
        )
    return (None, value) if isinstance(value, float) else (value, None)


def range_value(text: str | None) -> tuple[float, float] | None:
    """Parse two numbers, LOW,HIGH.

    Raises:
        typer.BadParameter: They are none, or LOW is not below HIGH.
    """
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not -float("inf") < low < high < float("inf"):
        raise typer.BadParameter(f"--range {text}: expected LOW,HIGH, two numbers such as 0,4095")
    return low, high


def require_probability(threshold: float | None) -> None:
    """Refuse a `--threshold` that is no probability in [0, 1).

    Raises:
        typer.BadParameter: It is none.
    """
    if threshold is not None and not 0 <= threshold < 1:
        raise typer.BadParameter(f"--threshold {threshold}: expected a probability in [0, 1), such as 0.5")


def require_one_stdin(of: str, *given: str | None) -> None:
    """Refuse two that are read from standard input.

    Args:
        of: What they are called, such as "DATA and --test".
        given: Arguments and options, "-" for standard input.

    Raises:
        typer.BadParameter: There are two.
    """
    if given.count("-") > 1:
        raise typer.BadParameter(f"only one of {of} can be standard input (-)")
