"""Tell whether diva wrote a table: its columns mean then what they are called."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd

from divacli.files.cache import default_cache
from divacli.files.path_or_url import RUN_FILE, STORE_FILE, Place
from divacli.files.regular import DOCUMENT_BYTES, read_regular
from divacli.manifest.columns import (
    DERIVATIVE,
    FEATURE_SOURCE,
    GIVEN_LABEL,
    LOO_LOSS,
    POOL_DERIVATIVE,
    RANK,
)
from divacli.run_record import current

WRITTEN = "written by diva"
"""Attribute of a table in memory that is a result."""

_SIGNS = ({RANK, DERIVATIVE, LOO_LOSS}, {FEATURE_SOURCE}, {GIVEN_LABEL}, {POOL_DERIVATIVE})
"""Columns that nobody else's tables have together."""


def is_written(table: pd.DataFrame, file: Place | None, content: bytes | None = None) -> bool:
    """Whether diva wrote a table.

    It did where the record of runs beside it says so, or the one beside the folder of images that it lies in;
    where it lies in a feature store, where it has columns of results, or where its content is that of a table
    that diva wrote to standard output.

    Args:
        table: As read.
        file: Where it lies; None of standard input, or of a table in memory.
        content: Its bytes; None where they are not known.
    """
    names = {str(column) for column in table}
    if table.attrs.get(WRITTEN) or any(signs <= names for signs in _SIGNS):
        return True
    if isinstance(file, Path):
        if _recorded(file) or _recorded(file.parent) or (file.parent / STORE_FILE).exists():
            return True
        content = _content(file)
    return content is not None and _noted(content)


def note_written(content: bytes) -> None:
    """Remember a table that goes to standard output, for the command that reads it; not where that fails."""
    note = _note(content)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    except OSError:
        return


def _recorded(file: Path) -> bool:
    try:
        runs = json.loads(read_regular(file.parent / RUN_FILE, DOCUMENT_BYTES))["runs"]
        return any(file.name in run["outputs"] and run["versions"]["diva"] for run in runs)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _content(file: Path) -> bytes | None:
    """What is in a file, which may be what went to standard output; None where nothing was noted of that."""
    try:
        return read_regular(file, DOCUMENT_BYTES) if _notes().is_dir() else None
    except (OSError, ValueError):
        return None


def _noted(content: bytes) -> bool:
    try:
        return _note(content).exists()
    except OSError:
        return False


def _notes() -> Path:
    return (current().cache or default_cache()) / "written"


def _note(content: bytes) -> Path:
    return _notes() / hashlib.sha256(content).hexdigest()[:32]
