"""Write a table as CSV, JSON lines or Parquet, and rewrite its paths for the place it goes to."""

from __future__ import annotations

import io
import os
import posixpath
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from divacli.errors import OutputError
from divacli.files.formats import Format, is_npz
from divacli.files.path_or_url import joined
from divacli.files.urls import is_url
from divacli.files.write import output_error, write_bytes
from divacli.manifest.bounded import LONGEST_LINE
from divacli.manifest.cells import NotPlainError, is_nested, plain, to_json
from divacli.manifest.column_types import is_missing
from divacli.manifest.columns import FEATURE_SOURCE, SPLIT
from divacli.manifest.formulas import PATH_COLUMNS, harmless, harmless_path
from divacli.manifest.written import note_written

_BLOCK_ROWS = 16_384
_QUOTED = re.compile('[,"\\n\\r]')

_KEEPS = "use --format parquet, which keeps it"


def write_table(
    table: pd.DataFrame, target: Path | None, format: Format, *, stdout: BinaryIO | None = None
) -> None:
    """Write a table as UTF-8 text or Parquet; the same table always gives the same bytes.

    CSV and JSON lines keep 9 significant digits of a float, Parquet all. A missing value is an empty cell in
    CSV and null elsewhere; JSON has no infinities, which become the strings "inf" and "-inf". Dates, times
    and decimals are text in both. No cell or name of a column in CSV is a formula for a spreadsheet: see
    `divacli.manifest.formulas`.

    Lists, arrays, structs and dictionaries keep every digit in all formats. JSON lines hold them as they are,
    and a cell of CSV holds their JSON text.

    Args:
        table: Any table; its index is not written.
        target: The file, replaced whole where it exists; None for standard output.
        format: "csv", "jsonl" or "parquet".
        stdout: Where None writes to; the process's own standard output by default.

    Raises:
        OutputError: It cannot be written there, holds text that is none in Unicode, a column holds what the
            format cannot hold without loss, or a row is longer than what is read again.
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
        if stdout is None and _needs_note(table):
            note_written(content)  # before the end of the stream, which its reader waits for
        remaining = memoryview(content)
        # An unbuffered stream (PYTHONUNBUFFERED) may take only a part of it at a time.
        while remaining:
            remaining = remaining[stream.write(remaining) :]
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error("standard output", error) from error


def _needs_note(table: pd.DataFrame) -> bool:
    """Whether a table has columns that count only where diva wrote it."""
    return SPLIT in table or ("weight" in table and bool((table["weight"] != 1).any()))


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
    if FEATURE_SOURCE not in table:
        return table.assign(path=paths.map(moved))
    sources = table[FEATURE_SOURCE].fillna("")
    names = sources.map(is_npz)
    return table.assign(path=paths.where(names, paths.map(moved)), feature_source=sources.map(moved))


def _csv(table: pd.DataFrame) -> bytes:
    parts = [",".join(_csv_cell(str(name), harmless) for name in table) + "\n"]
    for rows in _blocks(table):
        columns = []
        for name in rows:
            safe = harmless_path if name in PATH_COLUMNS else harmless
            columns.append([_csv_cell(value, safe) for value in _values(rows[name], "CSV")])
        parts += [",".join(row) + "\n" for row in zip(*columns, strict=True)]
    return _encoded(parts)


def _blocks(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The table in blocks of rows: as Python objects its cells take ten times the memory."""
    return (table.iloc[start : start + _BLOCK_ROWS] for start in range(0, len(table), _BLOCK_ROWS))


def _csv_cell(value: object, safe: Callable[[str], str]) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, int):
        return str(value)
    text = safe(value) if isinstance(value, str) else to_json(value)
    # Not the csv module: before Python 3.13 it leaves a lone "\r" unquoted, where readers break the line.
    if _QUOTED.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _jsonl(table: pd.DataFrame) -> bytes:
    names = [str(name) for name in table]
    parts = []
    for block in _blocks(table):
        rows = zip(*(_values(block[name], "JSON lines") for name in block), strict=True)
        parts += [to_json(dict(zip(names, row, strict=True))) + "\n" for row in rows]
    return _encoded(parts)


def _encoded(rows: list[str]) -> bytes:
    """The bytes of all rows.

    Raises:
        OutputError: One is too long to be read again.
    """
    for number, row in enumerate(rows) if max(map(len, rows), default=0) > LONGEST_LINE // 4 else ():
        if len(row) > LONGEST_LINE // 4 and len(row.encode()) > LONGEST_LINE:
            raise OutputError(
                f"line {number + 1} of the table would have {len(row.encode()):,} bytes",
                expected=f"{LONGEST_LINE:,} at the most, or the table could not be read again",
                hint=f"{_KEEPS}, or leave the long column out",
            )
    return "".join(rows).encode()


def _values(column: pd.Series, format: str) -> Iterator[object]:
    """The cells of a column as both text formats write them, each made when it is asked for.

    Raises:
        OutputError: The format cannot hold one of them without loss.
    """
    if isinstance(column.dtype, pd.StringDtype) and not column.hasnans:
        yield from column.tolist()
        return
    # Of Arrow's lists one after the other, for as Python objects they take several times the memory.
    cells = column if isinstance(column.dtype, pd.ArrowDtype) else column.tolist()
    try:
        yield from map(plain, cells)
    except (NotPlainError, RecursionError) as error:
        what = "lists in lists without end" if isinstance(error, RecursionError) else error
        raise OutputError(
            f"column '{column.name}' cannot be written as {format} without loss: it holds {what}",
            expected="numbers, text, or lists and structs of these",
            hint=f"{_KEEPS} as it is, or leave the column out",
        ) from error


def _parquet(table: pd.DataFrame) -> bytes:
    columns = {str(name): _arrow(column) for name, column in table.items()}
    sink = io.BytesIO()
    try:
        pq.write_table(pa.table(columns), sink, write_page_checksum=True)
        # Lists may lie deeper in one another than a reader goes.
        pq.read_metadata(pa.BufferReader(sink.getvalue()))
    except (pa.ArrowException, OSError) as error:
        raise _not_in_parquet("the table", error) from error
    return sink.getvalue()


def _arrow(column: pd.Series) -> pa.Array:
    """A column as Arrow has it, from which Parquet is written.

    Raises:
        OutputError: Arrow has no type for it.
    """
    try:
        if column.dtype == object and column.map(is_nested).any():
            # By the rules of pandas NaN would count as missing in the lists, too.
            array = pa.array([None if is_missing(cell) else cell for cell in column])
            return array.cast(_as_read(array.type))
        return pa.array(column, from_pandas=True)
    except UnicodeEncodeError:
        raise  # of every format the same
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise _not_in_parquet(f"column '{column.name}'", error) from error


def _as_read(kind: pa.DataType) -> pa.DataType:
    """The type with the names that Parquet gives to entries of lists: so that a copy is the same file."""
    if pa.types.is_list(kind):
        return pa.list_(pa.field("element", _as_read(kind.value_type)))
    if pa.types.is_struct(kind):
        fields = [kind.field(position) for position in range(kind.num_fields)]
        return pa.struct([field.with_type(_as_read(field.type)) for field in fields])
    return kind


def _not_in_parquet(what: str, error: Exception) -> OutputError:
    return OutputError(
        f"{what} cannot be written as Parquet: {'; '.join(map(str, error.args))}",
        expected="values of one type in each column",
        hint="use --format jsonl, or leave out what is not of one type",
    )
