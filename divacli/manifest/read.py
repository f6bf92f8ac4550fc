"""Turn a DATA argument into a checked sample table."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

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

Labels = Literal["required", "optional"]
"""Whether samples must have labels, of two classes at least, or may lack them as those of a pool may."""

_KINDS = (
    "a folder with one sub-folder a class, a .csv .tsv .jsonl .parquet or .npz file, or - for standard input"
)


def read_manifest(data: str, *, stdin: BinaryIO | None = None, labels: Labels = "required") -> Manifest:
    """Read the samples of a DATA argument and check everything but the files they name.

    Args:
        data: A folder, a table, an `.npz` file, or "-" for a table on standard input, whose format is told
            from its content and whose relative paths start from the current folder.
        stdin: Where "-" reads from; the process's own standard input by default.
        labels: "optional" also takes samples without labels (images directly in a folder, a table or an
            `.npz` file without the column label or with nothing in it), of one class, or all of weight 0.

    Raises:
        DataError: Nothing there, nothing diva can read, or a table that is not usable as it is.
    """
    required = labels != "optional"
    if data == "-":
        return _read_stdin(stdin or sys.stdin.buffer, required)
    if not data:  # an unset shell variable; as a path it would be the current folder
        raise DataError("DATA is an empty string", expected=_KINDS)
    path = Path(data)
    try:
        if path.is_dir():
            raw, warnings = read_folder(path, data, labels_required=required)
            return _checked(data, "folder", raw, path.resolve(), required, warnings)
        if not path.exists():
            raise _not_there(path)
        folder = path.parent.resolve()
        suffix = path.suffix.lower().removeprefix(".")
        if suffix == "npz":
            raw, embeddings, warnings = read_npz(path, data, labels_required=required)
            return _checked(data, "npz", raw, folder, required, warnings, embeddings)
        if suffix in FORMATS:
            return _checked(data, "table", parse(path.read_bytes(), suffix, data), folder, required)
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror}", hint="make it readable") from error
    raise DataError(f"{data} is no kind of DATA", expected=_KINDS)


def manifest_of(
    table: pd.DataFrame, folder: Path, *, name: str = "the table", labels: Labels = "required"
) -> Manifest:
    """Check a table that is in memory just as one that was read from a file.

    Args:
        table: As in a file: columns path and label, and what else there is; its index means nothing.
        folder: Where relative paths start from.
        name: How messages call it.
        labels: As for `read_manifest`.

    Raises:
        DataError: It is not usable as it is.
    """
    return _checked(name, "table", table, folder.resolve(), labels != "optional")


def _read_stdin(stdin: BinaryIO, labels_required: bool) -> Manifest:
    content = stdin.read()
    if not content.strip():
        raise DataError(
            "nothing came on standard input",
            expected="a table with the columns path and label",
            hint="the command before the pipe wrote nothing: run it alone to see why",
        )
    name = "standard input"
    return _checked(name, "table", parse(content, recognise(content), name), Path.cwd(), labels_required)


def _checked(
    name: str,
    kind: str,
    raw: pd.DataFrame,
    folder: Path,
    labels_required: bool,
    warnings: Sequence[str] = (),
    embeddings: ArrayFile | np.ndarray | None = None,
) -> Manifest:
    table, unused, column_warnings = typed(raw, name, labels_required=labels_required)
    manifest = Manifest(
        name,
        kind,
        table,
        folder,
        unused=tuple(unused),
        embeddings=embeddings,
        labels_required=labels_required,
    )
    return replace(manifest, warnings=(*warnings, *column_warnings, *validate(manifest)))


def _not_there(path: Path) -> DataError:
    present = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, present, n=1)
    hint = f"did you mean {path.with_name(close[0])}?" if close else "check the spelling"
    return DataError(f"{path} does not exist", expected=_KINDS, hint=hint)
