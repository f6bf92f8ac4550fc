"""Images inside Parquet files, as the Hugging Face Hub holds them, each read by the number of its row.

A column of images is a struct of `bytes` and `path`, or holds the bytes themselves. Parquet has no way to one
row: pages of up to a thousand rows are decompressed whole. So what was decoded last is kept, and reading goes
on from there; whoever reads rows in their order decodes each once.

Source of the layout: the classes Image and ClassLabel of the package datasets, which describes its columns as
JSON under the key `huggingface` of a file's metadata.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from divacli.errors import DataError, listed
from divacli.files.regular import open_regular

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

KEPT_BYTES = 128 << 20
"""The most that a process keeps of images that it has decoded from Parquet."""

_PART_BYTES = 8 << 20  # of images decoded together, about
_PART_ROWS = 64  # and the most of them: what a file states of its own size may be a lie
_CURSORS = 2  # groups of rows that are read on in turns
_BUFFER = 1 << 20  # bytes; without it the column of a whole group of rows is read at once

# What the bytes of images begin with, of those formats that people keep in tables.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"RIFF", b"II*\x00", b"MM\x00*")
_LOOKED_AT = 16  # first rows of a column of bytes
_BYTES = "bytes"

_State = tuple[int, ...]


@dataclass(frozen=True)
class ImageTable:
    """What a Parquet file says of itself.

    Attributes:
        n: Rows.
        names: Of all columns.
        columns: Names of the columns of images.
        binary: The leaf of each column that could hold images: its name, or that and `.bytes`.
        features: What the Hub says of columns: `_type`, and `names` of a `ClassLabel`.
        starts: Number of the first row of each group of rows.
        sizes: For each of `binary` the bytes that it states to have in each group, unpacked.
    """

    n: int
    names: list[str]
    columns: tuple[str, ...]
    binary: Mapping[str, str]
    features: Mapping[str, Mapping[str, Any]]
    starts: tuple[int, ...]
    sizes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Group:
    """A column in one group of rows, of one state of a file."""

    file: str
    state: _State
    leaf: str
    number: int
    part: int  # rows decoded together


def image_table(file: str) -> ImageTable:
    """What a Parquet file on this machine says of itself; looked up once in a process, unless it changes.

    Raises:
        OSError: It cannot be opened.
        DataError: It is no Parquet file, or contradicts itself.
    """
    return _looked_up(file, _state(file))


def open_parquet(stream: IO[bytes], name: str) -> pq.ParquetFile:
    """Read the end of a Parquet file, which says what is in it; its columns are read piece by piece later.

    Args:
        stream: The file.
        name: How messages call it.

    Raises:
        DataError: It is no Parquet file.
    """
    import pyarrow.parquet as pq

    with refused(name):
        return pq.ParquetFile(stream, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)


def image_columns(opened: pq.ParquetFile, name: str) -> tuple[str, ...]:
    """Names of the columns of an open Parquet file that hold images.

    These are the columns that the Hub calls images, and structs of `bytes` and `path` that it does not call
    otherwise; where there are none, the columns of bytes that begin as images do.

    Args:
        opened: The file.
        name: How messages call it.

    Raises:
        DataError: It is damaged.
    """
    features, binary = _features(opened), _binary(opened)
    kinds = {column: features.get(column, {}).get("_type") for column in binary}
    found = tuple(
        column
        for column, leaf in binary.items()
        if kinds[column] == "Image" or (kinds[column] is None and leaf != column)
    )
    bare = (column for column in binary if kinds[column] in (None, "Value"))
    return found or tuple(column for column in bare if _begins_as_image(opened, column, name))


def row_name(table: ImageTable, column: str, row: int) -> str:
    """The last part of the path of an image: `17`, or `mask/17` where the file has other columns of images.

    Args:
        table: Of the file.
        column: The column of images.
        row: Number of the row, from 0.
    """
    return f"{row}" if table.columns == (column,) else f"{column}/{row}"


def has_row(file: str, name: str) -> bool:
    """Whether a Parquet file has the row that `row_name` calls so; that need not hold an image.

    Raises:
        OSError: As of `image_table`.
        DataError: As of `image_table`.
    """
    return _located(image_table(file), name) is not None


def row_number(name: str) -> int:
    """The number of the row that `row_name` calls so; -1 of what it calls nothing."""
    number = name.rpartition("/")[2]
    return int(number) if len(number) < 20 and number.isascii() and number.isdigit() else -1


def read_row(file: str, name: str) -> bytes:
    """The bytes of one image.

    Of the file only the column of images is decoded, in the group of rows that the row lies in, and no
    further than that row. Any thread and any process may call it.

    Args:
        file: The Parquet file.
        name: As of `row_name`.

    Raises:
        OSError: The file cannot be read.
        DataError: It is damaged, has no such row, or the row has no bytes.
    """
    state = _state(file)
    table = _looked_up(file, state)
    found = _located(table, name)
    if found is None:
        raise DataError(
            f"{file} has no image {name}: it has {table.n:,} rows and "
            f"{len(table.columns)} columns of images ({listed(list(table.columns))})",
            expected="the Parquet file that the table was made from",
        )
    column, row = found
    group = bisect_right(table.starts, row) - 1
    stop = table.starts[group + 1] if group + 1 < len(table.starts) else table.n
    each = max(1, table.sizes[column][group] // max(1, stop - table.starts[group]))
    part = min(max(_PART_BYTES // each, 1), _PART_ROWS)
    value = _DECODED.value(_Group(file, state, table.binary[column], group, part), row - table.starts[group])
    if value is None:
        raise DataError(f"{file}: row {row} has no bytes in its column {column}", expected="an image")
    return value


@contextmanager
def refused(name: str) -> Iterator[None]:
    """Turn what pyarrow raises of a damaged file into an error that names it.

    Args:
        name: How messages call the file.

    Raises:
        DataError: The file is damaged.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(name, str(error).partition("\n")[0]) from error


def unreadable(name: str, reason: str) -> DataError:
    """The error for a file that is no whole Parquet file.

    Args:
        name: The file.
        reason: What is wrong.
    """
    return DataError(f"{name} cannot be read as Parquet: {reason}", expected="a whole Parquet file")


def _located(table: ImageTable, name: str) -> tuple[str, int] | None:
    """Column and row that `row_name` calls so; None where there is no such."""
    named, slash, number = name.rpartition("/")
    row = row_number(number)
    # One spelling for each row: two paths of one image would be two samples.
    if str(row) != number or not 0 <= row < table.n:
        return None
    if slash:
        return (named, row) if named in table.binary and table.columns != (named,) else None
    return (table.columns[0], row) if len(table.columns) == 1 else None


def _state(file: str) -> _State:
    found = Path(file).stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@functools.lru_cache(maxsize=1024)
def _looked_up(file: str, state: _State) -> ImageTable:
    with open_regular(file) as stream:
        opened = open_parquet(stream, file)
        about = opened.metadata
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        counts = [group.num_rows for group in groups]
        if min(counts, default=0) < 0 or sum(counts) != about.num_rows:
            raise unreadable(file, f"{about.num_rows:,} rows are stated, {sum(counts):,} in its groups")
        binary = _binary(opened)
        place = {about.schema.column(number).path: number for number in range(about.num_columns)}
        return ImageTable(
            about.num_rows,
            list(opened.schema_arrow.names),
            image_columns(opened, file),
            binary,
            _features(opened),
            tuple(itertools.accumulate(counts[:-1], initial=0)),
            {
                column: tuple(group.column(place[leaf]).total_uncompressed_size for group in groups)
                for column, leaf in binary.items()
                if leaf in place
            },
        )


def _features(opened: pq.ParquetFile) -> dict[str, dict[str, Any]]:
    """What the Hub says of the columns, by name; nothing where it says nothing."""
    try:
        said = json.loads((opened.metadata.metadata or {}).get(b"huggingface", b"{}"))
        features = said["info"]["features"]
        return {str(name): about for name, about in features.items() if isinstance(about, dict)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _binary(opened: pq.ParquetFile) -> dict[str, str]:
    """The leaf of every column of bytes, and of every struct that has `bytes` and `path`."""
    import pyarrow as pa

    def holds_bytes(kind: pa.DataType) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)

    found = {}
    for field in opened.schema_arrow:
        kind = field.type
        if holds_bytes(kind):
            found[field.name] = field.name
        elif pa.types.is_struct(kind):
            inner = {kind.field(number).name: kind.field(number).type for number in range(kind.num_fields)}
            if "path" in inner and _BYTES in inner and holds_bytes(inner[_BYTES]):
                found[field.name] = f"{field.name}.{_BYTES}"
    return found


def _begins_as_image(opened: pq.ParquetFile, column: str, name: str) -> bool:
    if not opened.metadata.num_row_groups:
        return False
    with refused(name):
        batches = opened.iter_batches(1, [0], [column], use_threads=False)
        for batch in itertools.islice(batches, _LOOKED_AT):
            value = batch.column(column)[0].as_py()
            if value is not None:
                return bool(value.startswith(_BEGINNINGS))
    return False


class _Cursor:
    """The rows of one column in one group, decoded from its beginning on, some at a time."""

    def __init__(self, group: _Group) -> None:
        self._name = group.file
        self._column = group.leaf
        self.row = 0
        self._stream = open_regular(group.file)
        with refused(group.file):
            opened = open_parquet(self._stream, group.file)
            # Without threads: those of Arrow are not there in a process that was forked.
            self._batches = opened.iter_batches(group.part, [group.number], [group.leaf], use_threads=False)

    def read(self) -> pa.Array:
        """Decode the next rows."""
        import pyarrow.compute as pc

        with refused(self._name):
            batch = next(self._batches, None)
            if batch is None or not batch.num_rows:
                raise unreadable(self._name, f"a group of rows ends after {self.row:,}")
            self.row += batch.num_rows
            values = batch.column(0)
            return values if batch.schema.names[0] == self._column else pc.struct_field(values, [0])

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class _Decoded:
    """What a process has decoded lately. Its threads take turns."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a process that was forked: it shares places in open files with its parent."""
        self._lock = threading.Lock()
        self._cursors: OrderedDict[_Group, _Cursor] = OrderedDict()
        self._parts: OrderedDict[tuple[_Group, int], pa.Array] = OrderedDict()
        self._held = 0

    def value(self, group: _Group, row: int) -> bytes | None:
        """The bytes of a row, counted from the first of its group; None where it has none."""
        with self._lock:
            key = (group, row // group.part)
            part = self._parts.get(key)
            if part is None:
                part = self._decoded(group, row)
            else:
                self._parts.move_to_end(key)
            return part[row % group.part].as_py() if row % group.part < len(part) else None

    def _decoded(self, group: _Group, row: int) -> pa.Array:
        """Go on to the part that a row lies in, and keep what is met on the way."""
        cursor = self._cursors.pop(group, None)
        if cursor is not None and cursor.row > row:
            cursor.close()
            cursor = None
        if cursor is None:
            cursor = _Cursor(group)
        try:
            while cursor.row <= row:
                number, odd = divmod(cursor.row, group.part)
                if odd:
                    raise unreadable(group.file, f"a group of rows is torn at row {cursor.row:,}")
                part = cursor.read()
                self._keep((group, number), part)
        except BaseException:
            cursor.close()
            raise
        self._cursors[group] = cursor
        while len(self._cursors) > _CURSORS:
            self._cursors.popitem(last=False)[1].close()
        return part

    def _keep(self, key: tuple[_Group, int], part: pa.Array) -> None:
        if (known := self._parts.pop(key, None)) is not None:
            self._held -= known.nbytes
        self._parts[key] = part
        self._held += part.nbytes
        while self._held > KEPT_BYTES and len(self._parts) > 1:
            self._held -= self._parts.popitem(last=False)[1].nbytes


_DECODED = _Decoded()
os.register_at_fork(after_in_child=_DECODED.forget)
