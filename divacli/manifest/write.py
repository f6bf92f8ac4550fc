"""Write tables and text whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import posixpath
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from divacli.errors import OutputError
from divacli.files import is_url, joined, suffix_of
from divacli.manifest.formulas import PATH_COLUMNS, harmless, harmless_path

Format = Literal["csv", "jsonl", "parquet"]

_BLOCK_ROWS = 16_384


def write_table(
    table: pd.DataFrame, target: Path | None, format: Format, *, stdout: BinaryIO | None = None
) -> None:
    """Write a table as UTF-8 text or Parquet; the same table always gives the same bytes.

    CSV and JSON lines keep 9 significant digits of a float, Parquet all. A missing value is an empty cell in
    CSV and null elsewhere; JSON has no infinities, which become the strings "inf" and "-inf". No cell or name
    of a column in CSV is a formula for a spreadsheet: see `divacli.manifest.formulas`.

    Args:
        table: Any table; its index is not written.
        target: The file, replaced whole where it exists; None for standard output.
        format: "csv", "jsonl" or "parquet".
        stdout: Where None writes to; the process's own standard output by default.

    Raises:
        OutputError: It cannot be written there, holds text that is none in Unicode, or a column mixes types
            that Parquet cannot hold.
        BrokenPipeError: Whoever read standard output is gone.
    """
    try:
        content = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[format](table)
    except UnicodeEncodeError as error:
        raise OutputError(
            "the table cannot be written: no text is "
            + repr(error.object[max(0, error.start - 40) : error.start + 40]),
            expected="characters of Unicode, without halves of surrogate pairs",
            hint="rename what holds it",
        ) from error
    if target is not None:
        write_bytes(target, content)
        return
    try:
        stream = stdout or sys.stdout.buffer
        remaining = memoryview(content)
        # An unbuffered stream (PYTHONUNBUFFERED) may take only a part of it at a time.
        while remaining:
            remaining = remaining[stream.write(remaining) :]
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error("standard output", error) from error


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8, replacing it whole where it exists.

    Raises:
        OutputError: It cannot be written there.
    """
    write_bytes(target, text.encode())


def relocate(table: pd.DataFrame, folder: Path, target: Path) -> pd.DataFrame:
    """Rewrite paths so that the table means the same when it lies in another folder.

    Absolute paths and URLs stay. So do paths of rows whose `feature_source` is an `.npz` file: they are names
    in it.

    Args:
        table: Table with the column path, and optionally feature_source.
        folder: Absolute folder that its relative paths start from.
        target: Folder the table will be written into; it need not exist yet.

    Returns:
        A copy of the table.
    """
    prefix = os.path.relpath(folder.resolve(), target.resolve())
    if prefix == os.curdir:
        return table.copy()

    def moved(path: str) -> str:
        if not path or is_url(path):
            return path
        # Above a folder that is a link lies another one than its name says: those that go down first stay.
        climbs = ".." in path.lstrip("./").split("/")
        return joined(prefix, path) if climbs else posixpath.normpath(joined(prefix, path))

    paths = table["path"]
    if "feature_source" not in table:
        return table.assign(path=paths.map(moved))
    sources = table["feature_source"].fillna("")
    names = sources.map(suffix_of) == "npz"
    return table.assign(path=paths.where(names, paths.map(moved)), feature_source=sources.map(moved))


def write_bytes(target: Path, content: bytes) -> None:
    """Write a file, replacing it whole where it exists; its folder is made.

    Raises:
        OutputError: It cannot be written there.
    """
    # Beside the target, for a rename is atomic only within one file system. Opened by mode "x" rather than by
    # the tempfile module, which would hide the result from everyone but its owner.
    temporary = target.parent / f".diva-{secrets.token_hex(8)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise output_error(str(target), error) from error


def output_error(where: str, error: OSError) -> OutputError:
    """What to tell the user of a place that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return OutputError(
        f"{where} cannot be written: {error.strerror}",
        expected="room for the result" if full else "a folder that can be written to",
        hint="free some space, or choose another place with --out or --cache-dir"
        if full
        else "choose another one with --out or --cache-dir",
    )


def _csv(table: pd.DataFrame) -> bytes:
    parts = [",".join(_csv_cell(str(name), harmless) for name in table) + "\n"]
    for rows in _blocks(table):
        columns = []
        for name in rows:
            safe = harmless_path if name in PATH_COLUMNS else harmless
            columns.append([_csv_cell(value, safe) for value in _values(rows[name])])
        parts.append("".join(",".join(row) + "\n" for row in zip(*columns, strict=True)))
    return "".join(parts).encode()


def _blocks(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The table in blocks of rows: as Python objects its cells take ten times the memory."""
    return (table.iloc[start : start + _BLOCK_ROWS] for start in range(0, len(table), _BLOCK_ROWS))


def _csv_cell(value: object, safe: Callable[[str], str]) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}"
    text = safe(str(value))
    # Not the csv module: before Python 3.13 it leaves a lone "\r" unquoted, where readers break the line.
    if any(character in text for character in ',"\n\r'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _jsonl(table: pd.DataFrame) -> bytes:
    names = [str(name) for name in table]
    encode = json.JSONEncoder(ensure_ascii=False, default=_json_value).encode
    parts = []
    for block in _blocks(table):
        rows = zip(*(_values(block[name]) for name in block), strict=True)
        parts.append("".join(encode(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return "".join(parts).encode()


def _json_value(value: object) -> object:
    """What JSON makes of the other types that a user's own columns may hold."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


def _parquet(table: pd.DataFrame) -> bytes:
    try:
        arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    except UnicodeEncodeError:
        raise  # of every format the same
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise OutputError(
            f"the table cannot be written as Parquet: {'; '.join(map(str, error.args))}",
            expected="values of one type in each column",
            hint="use --format jsonl",
        ) from error
    sink = io.BytesIO()
    pq.write_table(arrow, sink, write_page_checksum=True)
    return sink.getvalue()


def _values(column: pd.Series) -> list[object]:
    """The values as both text formats write them: floats to 9 significant digits, None where missing."""
    return [_value(value) for value in column.tolist()]


def _value(value: object) -> object:
    if isinstance(value, float):
        if math.isfinite(value):
            return float(f"{value:.9g}")
        return None if math.isnan(value) else str(value)
    return None if value is pd.NA or value is pd.NaT else value
