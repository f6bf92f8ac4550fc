"""Refuse what is not there, or not finished, before any work is done."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from divacli.errors import DataError
from divacli.files.formats import DATA_SUFFIXES
from divacli.files.path_or_url import require_finished
from divacli.files.urls import is_url, local_path

DATA_KINDS = (
    f"a folder with one sub-folder a class, a {DATA_SUFFIXES} .npz or .tar file, or - for standard input"
)
"""What DATA may be on this machine."""

_BRACES = re.compile(r"\{(?:(?P<start>\d+)\.\.(?P<stop>\d+)|(?P<words>[^{}]*,[^{}]*))\}", re.ASCII)


def require_present(*names: str | None) -> None:
    """Refuse DATA on this machine that is not there; a look at what it holds comes later.

    Args:
        names: As on the command line; None and "-" name no file.

    Raises:
        DataError: Which one.
    """
    for name in names:
        if not name or name == "-" or is_url(name):
            continue
        for path in map(Path, shard_names(local_path(name))):
            try:
                require_finished(path)
                require_finished(path.parent, path.name)
                there = path.exists()
            except OSError:  # such as a name too long: whoever reads it says so
                continue
            if not there:
                raise _not_there(path)


def shard_names(data: str) -> Iterator[str]:
    """The tar files that a pattern such as `shard-{000..012}.tar` stands for; of any other name, itself.

    Args:
        data: In braces two numbers to count between, as wide as they are written, or words between commas.
    """
    found = _BRACES.search(data)
    if found is None or not data.lower().endswith(".tar") or os.path.lexists(data):
        yield data
        return
    start, stop = found["start"], found["stop"]
    if start is None:
        parts: Iterable[str] = found["words"].split(",")
    else:
        digits = max(len(end) if end.startswith("0") else 1 for end in (start, stop))
        first, last = int(start), int(stop)
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        parts = (f"{number:0{digits}d}" for number in numbers)
    for part in parts:
        yield from shard_names(data[: found.start()] + part + data[found.end() :])


def _not_there(path: Path) -> DataError:
    try:
        present = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        present = []
    close = difflib.get_close_matches(path.name, present, n=1)
    hint = f"did you mean {path.with_name(close[0])}?" if close else "check the spelling"
    return DataError(f"{path} does not exist", expected=DATA_KINDS, hint=hint)
