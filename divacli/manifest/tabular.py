"""Parse the bytes of a CSV, TSV, JSON-lines or Parquet table."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from divacli.errors import DataError
from divacli.manifest.formulas import PATH_COLUMNS, restored, restored_path

FORMATS = ("csv", "tsv", "jsonl", "parquet")

_BOM = b"\xef\xbb\xbf"
_BLOCK = 65_536  # rows held as Python objects at a time


def parse(data: bytes, format: str, name: str) -> pd.DataFrame:
    """Read a table whose cells are still as the format gives them.

    Args:
        data: The whole file.
        format: One of `FORMATS`.
        name: How messages call it.

    Returns:
        The table: str in every cell for CSV and TSV ("NA", "01" and "" stay as typed; what keeps a cell from
        being a formula is taken away), JSON values for JSON lines (None where a line lacks a key), the file's
        own types for Parquet.

    Raises:
        DataError: Not such a file, or a damaged, ragged or empty one.
    """
    if not data.removeprefix(_BOM).strip():
        raise DataError(f"{name} is empty", expected="a table with the columns path and label")
    if format == "parquet":
        return _parse_parquet(data, name)
    if format == "jsonl":
        return _parse_jsonl(data, name)
    return parse_delimited(data, "\t" if format == "tsv" else ",", name)


def recognise(data: bytes) -> str:
    """Tell the format of a table that came without a file name."""
    if data.startswith(b"PAR1"):
        return "parquet"
    text = data.removeprefix(_BOM).lstrip()
    if text.startswith(b"{"):
        return "jsonl"
    header = text.partition(b"\n")[0]
    return "tsv" if b"\t" in header and b"," not in header else "csv"


def parse_delimited(data: bytes, delimiter: str, name: str) -> pd.DataFrame:
    """Read a table with one character between its cells, as `parse` does; it has a header at least.

    Raises:
        DataError: A damaged or ragged table, or none in UTF-8.
    """
    text = _decode(data, name)
    # The csv module and not pandas: pandas fills short rows up and shifts long ones without a word.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [restored(column) for column in next(row for row in reader if row)]
        rows = _whole_rows(reader, len(header), name)
        marked = _marked_columns(text, header)
        blocks = [pd.DataFrame(columns=range(len(header)), dtype="str")]
        while block := list(itertools.islice(rows, _BLOCK)):
            for position, original in marked.items():
                for row in block:
                    row[position] = original(row[position])
            blocks.append(pd.DataFrame(block, dtype="str"))
    except csv.Error as error:
        raise DataError(
            f"{name}: line {reader.line_num} is malformed: {error}",
            expected='cells with quotes or line breaks in double quotes, a quote in them doubled: "5"" disc"',
        ) from error
    table = pd.concat(blocks[1:] or blocks, ignore_index=True)
    return table.set_axis(header, axis="columns")


def _marked_columns(text: str, header: list[str]) -> dict[int, Callable[[str], str]]:
    """The columns that may hold cells with a mark against formulas, and what takes it away."""
    marks = {True: ("./", restored_path), False: ("'", restored)}
    found = ((position, *marks[column in PATH_COLUMNS]) for position, column in enumerate(header))
    return {position: original for position, mark, original in found if mark in text}


def _whole_rows(reader: Iterator[list[str]], width: int, name: str) -> Iterator[list[str]]:
    """The rows that are not blank, each checked for the header's number of cells."""
    for row in reader:
        if row and len(row) != width:
            raise DataError(
                f"{name}: line {reader.line_num} has {len(row)} cells",  # type: ignore[attr-defined]
                expected=f"{width} cells, as in the header",
                hint="put a cell that contains the separator in double quotes",
            )
        if row:
            yield row


def _parse_jsonl(data: bytes, name: str) -> pd.DataFrame:
    records = []
    # Split at "\n" alone: str.splitlines would also cut at the U+2028 that a JSON string may hold.
    for number, line in enumerate(_decode(data, name).split("\n"), start=1):
        if line.strip():
            records.append(_parse_line(line, f"{name}: line {number}"))
    names = dict.fromkeys(key for record in records for key in record)
    return pd.DataFrame(
        {
            key: pd.Series([record.get(key) for record in records], dtype=object).infer_objects()
            for key in names
        }
    )


def _parse_line(line: str, where: str) -> dict[str, object]:
    try:
        record = json.loads(line)
        if "\\u" in line:
            json.dumps(
                record, ensure_ascii=False
            ).encode()  # half a surrogate pair is no text: refuse it here
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not valid JSON: {error}", expected="one JSON object a line") from error
    if not isinstance(record, dict):
        raise DataError(
            f"{where} holds a JSON {type(record).__name__}",
            expected='one object a line, such as {"path": "cat/1.jpg", "label": "cat"}',
        )
    return record


def _parse_parquet(data: bytes, name: str) -> pd.DataFrame:
    try:
        table = pq.read_table(pa.BufferReader(data))
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{name} cannot be read as Parquet: {reason}", expected="a whole Parquet file"
        ) from error
    # Integers beside nulls stay integers, and an index that pandas saved comes back as a column.
    return table.to_pandas(ignore_metadata=True, integer_object_nulls=True)


def _decode(data: bytes, name: str) -> str:
    try:
        return data.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        line = data.removeprefix(_BOM)[: error.start].count(b"\n") + 1
        raise DataError(
            f"{name}: line {line} is not UTF-8 text: byte 0x{error.object[error.start]:02x}",
            expected="a table in UTF-8",
            hint="convert it, for example with: iconv -f latin1 -t utf-8",
        ) from error
