"""Parse the bytes of a CSV, TSV, JSON-lines or Parquet table."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from divacli.errors import DataError
from divacli.files.path_or_url import Place, opened
from divacli.manifest.bounded import LONGEST_LINE, check_cells, check_width, read_table
from divacli.manifest.column_types import require_different
from divacli.manifest.formulas import PATH_COLUMNS, restored, restored_path
from divacli.manifest.parquet_table import parse_parquet, refuse_images

# By default a cell ends at 131,072 characters, and what diva wrote could not be read again.
csv.field_size_limit(LONGEST_LINE)

_BOM = b"\xef\xbb\xbf"
_BLOCK = 65_536  # rows held as Python objects at a time

SAID = "said"
"""Attribute of a table: what is to be said of how it was read."""

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

_LINES = 50  # that csv.Sniffer looks at

_HEADER = 1 << 20  # bytes that are looked at for it


def parse(data: bytes, format: str, name: str) -> pd.DataFrame:
    """Read a table whose cells are still as the format gives them.

    Args:
        data: The whole file.
        format: One of `TABLE_FORMATS`.
        name: How messages call it.

    Returns:
        The table: str in every cell for CSV and TSV ("NA", "01" and "" stay as typed; what keeps a cell from
        being a formula is taken away), JSON values for JSON lines (None where a line lacks a key), the file's
        own types for Parquet.

    Raises:
        DataError: Not such a file, or a damaged, ragged or empty one, or two columns of one name.
    """
    if not data.removeprefix(_BOM).strip():
        raise DataError(f"{name} is empty", expected="a table with the columns path and label")
    if format == "parquet":
        return parse_parquet(data, name)
    said = []
    if is_utf16(data):
        data = from_utf16(data, name)
        said.append("it is in UTF-16")
    if format == "jsonl":
        table = _parse_jsonl(data, name)
    else:
        usual = "\t" if format == "tsv" else ","
        delimiter, data = _delimiter(data, usual)
        table = parse_delimited(data, delimiter, name)
        if delimiter != usual:
            said.append(f"its cells are separated by {_NAMES[delimiter]}")
    if said:
        table.attrs[SAID] = f"{name}: {' and '.join(said)}"
    return table


def is_utf16(data: bytes) -> bool:
    """Whether a text begins as UTF-16 does: what Excel calls Unicode text, with its mark or without."""
    return _codec_of_utf16(data) is not None


def _codec_of_utf16(data: bytes) -> str | None:
    """How a text in UTF-16 is read; None for one that does not begin as such. No text in UTF-8 has zeros."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    first, second = data[0:8:2], data[1:8:2]
    if len(second) == 4 and any(first) != any(second):
        if 0 not in first:
            return "utf-16-le"
        if 0 not in second:
            return "utf-16-be"
    return None


def from_utf16(data: bytes, name: str) -> bytes:
    """The text of what Excel calls Unicode text, in UTF-8.

    Args:
        data: The file.
        name: How messages call it.

    Raises:
        DataError: It is no UTF-16.
    """
    try:
        return data.decode(_codec_of_utf16(data) or "utf-16").encode()
    except UnicodeError as error:
        raise DataError(
            f"{name} begins as UTF-16 does and is none: {error}", expected="a table in UTF-8 or UTF-16"
        ) from error


def _delimiter(data: bytes, usual: str) -> tuple[str, bytes]:
    """The character between the cells of a table, and the file without a line in which Excel says it.

    Args:
        data: The file.
        usual: What is taken where the header has one outside of quotes, and where none can be told.
    """
    bom = _BOM if data.startswith(_BOM) else b""
    first, _, rest = data.removeprefix(_BOM).lstrip(b"\r\n").partition(b"\n")
    said = re.fullmatch(rb'\s*"?sep=([,;|\t])"?\s*', first, re.IGNORECASE)
    if said:
        return said[1].decode(), bom + rest
    start = data[len(bom) : len(bom) + _HEADER].decode(errors="replace").lstrip("\r\n")
    with contextlib.suppress(csv.Error, StopIteration):
        if len(next(csv.reader(io.StringIO(start, newline=""), delimiter=usual, strict=True))) > 1:
            return usual, data
    with contextlib.suppress(csv.Error):
        # Whole lines: a cut one would look like a shorter row.
        lines = "\n".join(start.splitlines()[:_LINES])
        return csv.Sniffer().sniff(lines, "".join(_NAMES)).delimiter, data
    return usual, data


def parse_file(place: Place, format: str, name: str) -> pd.DataFrame:
    """As `parse`, of a file.

    Raises:
        OSError: It cannot be read, is no regular file, or is too large.
        DataError: As `parse`, or a line is too long.
    """
    if format == "parquet":
        # By the end of the file, before all images of it are in memory; of a damaged one `parse` says so.
        with opened(place) as stream, contextlib.suppress(pa.ArrowException, OSError):
            refuse_images(pq.ParquetFile(stream), name)
    return parse(read_table(place, format, name), format, name)


def recognise(data: bytes) -> str:
    """Tell the format of a table that came without a file name."""
    if data.startswith(b"PAR1"):
        return "parquet"
    if is_utf16(data):
        codec = _codec_of_utf16(data) or "utf-16"
        data = data[: 2 * _HEADER].decode(codec, errors="replace").encode(errors="replace")
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
    text = decoded_text(data, name)
    # The csv module and not pandas: pandas fills short rows up and shifts long ones without a word.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [restored(column) for column in next(row for row in reader if row)]
        check_width(len(header), name)
        rows = _whole_rows(reader, header, name)
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
    require_different(header, name)
    table = pd.concat(blocks[1:] or blocks, ignore_index=True)
    return table.set_axis(header, axis="columns")


def _marked_columns(text: str, header: list[str]) -> dict[int, Callable[[str], str]]:
    """The columns that may hold cells with a mark against formulas, and what takes it away."""
    marks = {True: ("./", restored_path), False: ("'", restored)}
    found = ((position, *marks[column in PATH_COLUMNS]) for position, column in enumerate(header))
    return {position: original for position, mark, original in found if mark in text}


def _whole_rows(reader: Iterator[list[str]], header: list[str], name: str) -> Iterator[list[str]]:
    """The rows that are not blank, each checked for the header's number of cells."""
    comment = len(header) == 1 and header[0].startswith("#")
    for row in reader:
        if row and len(row) != len(header):
            raise DataError(
                f"{name}: line {reader.line_num} has {len(row)} cells",  # type: ignore[attr-defined]
                expected=f"{len(header)} cells, as in the "
                + (f"first line, which is {header[0]}" if comment else "header"),
                hint="remove the lines above the header"
                if comment
                else "put a cell that contains the separator in double quotes",
            )
        if row:
            yield row


def _parse_jsonl(data: bytes, name: str) -> pd.DataFrame:
    records = []
    # Split at "\n" alone: str.splitlines would also cut at the U+2028 that a JSON string may hold.
    for number, line in enumerate(decoded_text(data, name).split("\n"), start=1):
        if line.strip():
            records.append(_parse_line(line, f"{name}: line {number}"))
    return records_table(records, len(data), name)


def records_table(records: Sequence[Mapping[str, object]], held: int, name: str) -> pd.DataFrame:
    """A table of JSON objects, with a column for each key, None where an object lacks it.

    Args:
        records: Of n rows.
        held: Bytes of the file that they are from.
        name: How messages call it.

    Raises:
        DataError: Too many columns, or cells.
    """
    names = dict.fromkeys(key for record in records for key in record)
    check_width(len(names), name)
    check_cells(len(names) * len(records), held, name)
    return pd.DataFrame({key: _column([record.get(key) for record in records]) for key in names})


def _column(values: list[object]) -> pd.Series:
    column = pd.Series(values, dtype=object)
    kinds = {*map(type, values)}
    # pandas makes floats of whole numbers beside floats or missing cells, and large ones lose digits then.
    alike = len(kinds) == 1 or kinds == {str, type(None)} or kinds == {float, type(None)}
    return column.infer_objects() if alike else column


def _parse_line(line: str, where: str) -> dict[str, object]:
    try:
        record = json.loads(line, object_pairs_hook=unambiguous)
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


def unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; of a key that is there twice the first value would be lost.

    Args:
        pairs: Its keys and values.

    Raises:
        ValueError: A key is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {key!r} twice in one object")
    return found


def decoded_text(data: bytes, name: str) -> str:
    """The text of a file.

    Args:
        data: The whole file, in UTF-8, with a mark of the byte order or without.
        name: How messages call it.

    Raises:
        DataError: It is not in UTF-8.
    """
    try:
        return data.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        line = data.removeprefix(_BOM)[: error.start].count(b"\n") + 1
        raise DataError(
            f"{name}: line {line} is not UTF-8 text: byte 0x{error.object[error.start]:02x}",
            expected="a table in UTF-8",
            hint=f"convert it, for example with: iconv -f latin1 -t utf-8 {shlex.quote(name)} > utf8.csv",
        ) from error
