"""Decode tables in Parquet, as long as they are no more than their files may hold."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from divacli.errors import DataError
from divacli.files.parquet_images import image_columns, open_parquet, refused
from divacli.manifest.bounded import check_cells, check_width, most_unpacked, require_room, too_dense
from divacli.manifest.column_types import require_different

_BATCH = 4_096  # rows of Parquet decoded at a time: fewer take longer, more may be gigabytes at once
_AS_TEXT = "give the table as .csv"


def parse_parquet(data: bytes, name: str) -> pd.DataFrame:
    """Read a table with the file's own types.

    Args:
        data: The whole file.
        name: How messages call it.

    Raises:
        DataError: No Parquet file, a damaged one, two columns of one name, or a table that holds its images.
    """
    file = open_parquet(pa.BufferReader(data), name)
    refuse_images(file, name)
    return decoded_parquet(file, len(data), name)


def refuse_images(file: pq.ParquetFile, name: str) -> None:
    """Refuse a table that holds its images, where these cannot be read one by one.

    Args:
        file: The open file.
        name: How messages call it.

    Raises:
        DataError: It does, and names no files.
    """
    names = file.schema_arrow.names
    if "path" not in names and (columns := image_columns(file, name)):
        raise DataError(
            f"{name} holds images, in its column {columns[0]}",
            expected="such a table in a file of this machine",
            hint="download it, and give the file or its folder as DATA",
        )


def decoded_parquet(
    file: pq.ParquetFile, held: int, name: str, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Decode an open Parquet file, or some of its columns, with the file's own types.

    Args:
        file: The file.
        held: Its bytes.
        name: How messages call it.
        columns: Names of columns, or of fields of structs such as `image.path`; None: all.

    Raises:
        DataError: As `parse_parquet`.
    """
    with refused(name):
        check_width(len(file.schema.names), name)
        require_room(file.metadata.num_rows, held, name, _AS_TEXT)
        check_cells(file.metadata.num_rows * file.metadata.num_columns, held, name)
        _require_names_apart(list(file.schema_arrow), name)
        table = _decoded(file, held, name, columns)
        table.validate(full=True)
        _require_whole(file.metadata, table.num_rows, columns)
    try:
        for column in table.columns:
            if pa.types.is_nested(column.type) and _holds_times(column.type):
                column.to_pylist()  # Python has no name for some days: refused here, not where they are used
        # Integers beside nulls stay integers, and an index that pandas saved comes back as a column. Lists
        # and structs stay Arrow's: NumPy has no null in an array of numbers, and Python no float of 4 bytes.
        return table.to_pandas(
            ignore_metadata=True,
            integer_object_nulls=True,
            types_mapper=lambda kind: pd.ArrowDtype(kind) if pa.types.is_nested(kind) else None,
        )
    except (pa.ArrowException, ValueError, ArithmeticError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{name} has a column whose values cannot be read: {reason}",
            expected="columns of numbers or text",
        ) from error


def _require_names_apart(fields: list[pa.Field], name: str) -> None:
    """Refuse columns, or fields of a struct, of one name: of such fields all but one would be lost.

    Raises:
        DataError: Which name.
    """
    require_different([field.name for field in fields], name)
    for field in fields:
        if pa.types.is_nested(field.type):
            inner = [field.type.field(position) for position in range(field.type.num_fields)]
            _require_names_apart(inner, f"{name}: column '{field.name}'")


def _holds_times(kind: pa.DataType) -> bool:
    inner = (kind.field(position).type for position in range(kind.num_fields))
    return pa.types.is_temporal(kind) or any(map(_holds_times, inner))


def _decoded(file: pq.ParquetFile, held: int, name: str, columns: Sequence[str] | None) -> pa.Table:
    """All rows, as long as they are no more than a file of so many bytes may hold.

    What a file states of itself does not tell: a text may stand in it once, however many rows have it.

    Raises:
        DataError: They are more.
    """
    batches: list[pa.RecordBatch] = []
    unpacked = 0
    for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
        unpacked += sum(
            (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).nbytes
            for column in batch.columns
        )
        if unpacked > most_unpacked(held):
            raise too_dense(name, unpacked, held, _AS_TEXT)
        batches.append(batch)
    if columns is not None and not batches:
        raise OSError(f"no rows, where {file.metadata.num_rows:,} are stated")
    return pa.Table.from_batches(batches, file.schema_arrow if columns is None else None)


def _require_whole(about: pq.FileMetaData, rows: int, columns: Sequence[str] | None) -> None:
    """Compare the numbers of rows that a file states in several places: no checksum covers them.

    Only columns that were decoded are looked at: pyarrow ends the process where a file lies about others.

    Raises:
        OSError: They differ.
    """
    stated = {rows, about.num_rows}
    held = 0
    for number in range(about.num_row_groups):
        group = about.row_group(number)
        held += group.num_rows
        for position in range(group.num_columns):
            column = about.schema.column(position)
            if not column.max_repetition_level and (columns is None or column.path in columns):
                chunk = group.column(position).num_values
                if chunk != group.num_rows:
                    raise OSError(f"a column of {chunk:,} values in a group of {group.num_rows:,} rows")
    if stated != {held}:
        raise OSError(f"{rows:,} rows, where {about.num_rows:,} are stated")
