"""Turn a DATA argument into a checked sample table."""

from __future__ import annotations

import difflib
import sys
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from divacli.errors import DataError
from divacli.manifest.arrayfile import ArrayFile
from divacli.manifest.columns import typed
from divacli.manifest.folder import read_folder
from divacli.manifest.npz import read_npz
from divacli.manifest.table import Manifest
from divacli.manifest.tabular import FORMATS, parse, recognise
from divacli.manifest.validate import validate

_KINDS = (
    "a folder with one sub-folder a class, a .csv .tsv .jsonl .parquet or .npz file, or - for standard input"
)


def read_manifest(data: str, *, stdin: BinaryIO | None = None) -> Manifest:
    """Read the samples of a DATA argument and check everything but the files they name.

    Args:
        data: A folder, a table, an `.npz` file, or "-" for a table on standard input, whose format is told
            from its content and whose relative paths start from the current folder.
        stdin: Where "-" reads from; the process's own standard input by default.

    Raises:
        DataError: Nothing there, nothing diva can read, or a table that is not usable as it is.
    """
    if data == "-":
        return _read_stdin(stdin or sys.stdin.buffer)
    if not data:  # an unset shell variable; as a path it would be the current folder
        raise DataError("DATA is an empty string", expected=_KINDS)
    path = Path(data)
    try:
        if path.is_dir():
            raw, warnings = read_folder(path, data)
            return _checked(data, "folder", raw, path.resolve(), warnings)
        if not path.exists():
            raise _not_there(path)
        folder = path.parent.resolve()
        suffix = path.suffix.lower().removeprefix(".")
        if suffix == "npz":
            raw, embeddings, warnings = read_npz(path, data)
            return _checked(data, "npz", raw, folder, warnings, embeddings)
        if suffix in FORMATS:
            return _checked(data, "table", parse(path.read_bytes(), suffix, data), folder, [])
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror}", hint="make it readable") from error
    raise DataError(f"{data} is no kind of DATA", expected=_KINDS)


def _read_stdin(stdin: BinaryIO) -> Manifest:
    content = stdin.read()
    if not content.strip():
        raise DataError(
            "nothing came on standard input",
            expected="a table with the columns path and label",
            hint="the command before the pipe wrote nothing: run it alone to see why",
        )
    name = "standard input"
    return _checked(name, "table", parse(content, recognise(content), name), Path.cwd(), [])


def _checked(
    name: str,
    kind: str,
    raw: pd.DataFrame,
    folder: Path,
    warnings: list[str],
    embeddings: ArrayFile | np.ndarray | None = None,
) -> Manifest:
    table, column_warnings = typed(raw, name)
    manifest = Manifest(name, kind, table, folder, embeddings=embeddings)
    return replace(manifest, warnings=(*warnings, *column_warnings, *validate(manifest)))


def _not_there(path: Path) -> DataError:
    present = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, present, n=1)
    hint = f"did you mean {path.with_name(close[0])}?" if close else "check the spelling"
    return DataError(f"{path} does not exist", expected=_KINDS, hint=hint)
