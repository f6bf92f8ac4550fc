"""Read Parquet files with images in them, as the Hugging Face Hub holds data sets, as a sample table.

The bytes of the images stay where they are: a path goes through the file, such as `train.parquet/17`, and
`divacli.files.parquet_images` finds them there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from divacli.errors import Again, DataError, listed
from divacli.files.parquet_images import ImageTable, image_table, open_parquet, row_name
from divacli.files.regular import open_regular
from divacli.files.tar import member_name
from divacli.manifest.bounded import TABLE_BYTES, require_room
from divacli.manifest.column_types import is_missing, row_numbers, stacked, stepped_aside
from divacli.manifest.columns import IMAGE_PATH, SPLIT
from divacli.manifest.listing import check_names
from divacli.manifest.parquet_table import decoded_parquet
from divacli.manifest.splits import require_split
from divacli.reading import NONE, Reading

_SUFFIX = ".parquet"
_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?")
_SPLITS = ("train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval")
_DEEPEST = 2  # folders below DATA: a configuration, and a split in it
_CLASS_LABEL = "ClassLabel"
_NO_LABEL = -1  # of a ClassLabel


def holds_images(file: Path, reading: Reading) -> bool:
    """Whether a Parquet file is read as one of images, and not as a table that names them.

    Args:
        file: The file.
        reading: Its path_column may name the column of images.

    Raises:
        OSError: It cannot be opened.
        DataError: It is no Parquet file.
    """
    if not 0 < file.stat().st_size <= TABLE_BYTES:  # whoever reads it as a table says so
        return False
    table = image_table(str(file))
    reading = _for_this(reading, table)
    if reading.path_column is not None:
        return reading.path_column in table.binary
    return bool(table.columns) and (_known_as_images(table) or "path" not in table.names)


def hub_files(folder: Path, reading: Reading) -> dict[str, str]:
    """The Parquet files with images of a folder as the Hub lays it out, and the split of each.

    They lie in the folder or in its sub-folder `data`, and are called `train-00000-of-00002.parquet` or
    `train.parquet`; or those of each split lie in a sub-folder.

    Args:
        folder: The folder.
        reading: As of `holds_images`.

    Returns:
        By path relative to the folder, sorted, the name of the split, "" where there is none; nothing where
        the folder has no such files.

    Raises:
        OSError: The folder, or a file, cannot be read.
        DataError: A file is damaged, or there are several configurations.
    """
    return {
        path: split
        for path, split in sorted(_found(folder, "", _DEEPEST).items())
        if holds_images(folder / path, reading)
    }


@dataclass(frozen=True)
class HubTable:
    """What is in Parquet files with images.

    Attributes:
        table: path (relative to the folder, through the file), split (where files
            have names of splits), and all columns of single values, among them `image_path`, the names that
            images had before.
        reading: How the table is read on: which of its columns are labels.
        images: Name of the column of images.
        warnings: One sentence each.
    """

    table: pd.DataFrame
    reading: Reading
    images: str
    warnings: list[str]


def read_hub_parquet(folder: Path, files: Mapping[str, str], name: str, reading: Reading) -> HubTable:
    """List the images in Parquet files, and all else that is known of them.

    Args:
        folder: Absolute.
        files: The split of each file, or "", by its path relative to `folder`.
        name: How messages call them together.
        reading: Which split, which column of images, and which of labels.

    Raises:
        OSError: A file cannot be read.
        DataError: A file is damaged; the split, the column of images or that of labels has to be chosen, or
            is not there; a label has no name.
    """
    tables = {path: image_table(str(folder / path)) for path in files}
    chosen = dict.fromkeys(files, "") if reading.split == (NONE,) else dict(files)
    if any(chosen.values()):
        counts: dict[str, int] = {}
        for path, split in files.items():
            counts[split] = counts.get(split, 0) + tables[path].n
        splits = require_split(name, counts, reading)
        chosen = {path: split for path, split in files.items() if split in splits}
    check_names(list(chosen), name)
    parts, unused = [], dict[str, None]()
    labels: dict[str, None] = {}
    for path, split in chosen.items():
        table = tables[path]
        wanted = _for_this(reading, table)
        called = name if len(files) == 1 else f"{name.rstrip('/')}/{path}"
        images = _image_column(table, called, name, wanted)
        labels |= dict.fromkeys(_label_columns(table, called, name, wanted))
        part = _read_one(folder / path, table, called, images, labels)
        part.insert(0, "path", [f"{path}/{row_name(table, images, row)}" for row in range(table.n)])
        if split:
            part = stepped_aside(part, SPLIT).assign(**{SPLIT: split})
        parts.append(part)
        unused |= dict.fromkeys(column for column in table.names if column not in (images, *part.columns))
    left = f"{name}: columns not kept, for they hold no single values: {listed(list(unused))}."
    return HubTable(
        parts[0] if len(parts) == 1 else stacked(parts),
        replace(reading, path_column=None, label_column=tuple(labels)),
        images,
        [left] if unused else [],
    )


def _for_this(reading: Reading, table: ImageTable) -> Reading:
    """The options as they are for a file: of a set beside DATA, without columns that it lacks."""
    if not reading.role:
        return reading
    columns = tuple(column for column in reading.label_column if column in table.names)
    path = reading.path_column if reading.path_column in table.names else None
    return replace(reading, path_column=path, label_column=columns)


def _read_one(file: Path, table: ImageTable, name: str, images: str, labels: Collection[str]) -> pd.DataFrame:
    """The columns of single values of one file."""
    if not table.n:
        raise DataError(f"{name} has no rows", expected="one row for each sample")
    held = file.stat().st_size
    require_room(table.n, held, name, "leave out rows without images")
    with open_regular(file) as stream:
        opened = open_parquet(stream, name)
        single = [field.name for field in opened.schema_arrow if _is_single(field)]
        was_called = f"{images}.path" if table.binary[images] != images else None
        wanted = [*single, was_called] if was_called else single
        nothing = pd.DataFrame(index=range(table.n))
        found = decoded_parquet(opened, held, name, wanted) if wanted else nothing
    paths: list[object] = []
    if was_called is not None:
        paths = [cell.get("path") if isinstance(cell, dict) else None for cell in found[images]]
    found = found[[column for column in single if column in found]]
    for column in found.columns:
        where = f"{name}: column '{column}'"
        found[column] = _named(found[column], table.features.get(column, {}), where, column in labels)
    found = stepped_aside(found, "path")
    if any(paths) and IMAGE_PATH not in found:
        found[IMAGE_PATH] = pd.Series(paths, dtype=object)
    return found


def _image_column(table: ImageTable, name: str, given: str, reading: Reading) -> str:
    column = reading.path_column
    if column is None and len(table.columns) > 1:
        raise DataError(
            f"{name} has {len(table.columns)} columns of images: {listed(list(table.columns))}",
            expected="one image in a row",
            hint=Again(given, given, {"path_column": table.columns[0]}, role=reading.role),
        )
    if column is None:
        column = table.columns[0]
    if column not in table.binary:
        raise DataError(
            f"{name} has no column {column} of images",
            expected=f"a column with the bytes of images; those of bytes are: {listed(list(table.binary))}",
        )
    if member_name(column) != column:
        raise DataError(f"{name}: no path can hold the name of its column {column!r}", hint="rename it")
    return column


def _label_columns(table: ImageTable, name: str, given: str, reading: Reading) -> tuple[str, ...]:
    """The columns of labels: those asked for, or the one that the Hub calls so; else that called label."""
    if reading.label_column:
        return reading.label_column
    known = [column for column in table.names if table.features.get(column, {}).get("_type") == _CLASS_LABEL]
    if len(known) > 1:
        raise DataError(
            f"{name} has {len(known)} columns of class labels: {listed(known, limit=12)}",
            expected="one of them",
            hint=Again(given, given, {"label_column": known[0]}, role=reading.role),
        )
    return tuple(known)


def _named(cells: pd.Series, feature: Mapping[str, object], where: str, strict: bool) -> pd.Series:
    """Classes by their names, where the Hub knows these; None where one is missing.

    Raises:
        DataError: A class has no name, or several have one, in a column that is `strict`.
    """
    names = feature.get("names") if feature.get("_type") == _CLASS_LABEL else None
    if not isinstance(names, list) or not pd.api.types.is_integer_dtype(cells.dropna().infer_objects()):
        return cells
    if strict and len({*map(str, names)}) < len(names):
        raise DataError(f"{where} has two classes of one name", expected="different names of classes")
    labels: list[object] = []
    wrong = []
    for cell in cells:
        missing = is_missing(cell) or cell == _NO_LABEL
        wrong.append(not missing and not 0 <= cell < len(names))
        labels.append(None if missing or wrong[-1] else str(names[int(cell)]))
    if any(wrong) and strict:
        raise DataError(
            f"{where} has a number without a name in {row_numbers(wrong)}: {cells[wrong.index(True)]}",
            expected=f"numbers from 0 to {len(names) - 1:,}, or {_NO_LABEL} where there is no label",
        )
    return cells if any(wrong) else pd.Series(labels, dtype=object)


def _known_as_images(table: ImageTable) -> bool:
    return any(table.features.get(column, {}).get("_type") == "Image" for column in table.columns)


def _is_single(field: pa.Field) -> bool:
    kind = field.type
    return not (
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _found(folder: Path, prefix: str, deeper: int) -> dict[str, str]:
    """Parquet files by their path below DATA, with their splits."""
    below = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    names = [path.name for path in below if path.name.lower().endswith(_SUFFIX) and path.is_file()]
    if names:
        return {prefix + name: _split_of(name) for name in names}
    folders = {}
    for path in below if deeper else []:
        if path.is_dir() and (found := _found(path, f"{prefix}{path.name}/", deeper - 1)):
            folders[path.name] = found
    if "data" in folders:
        return folders["data"]
    if len(folders) > 1 and any(split for found in folders.values() for split in found.values()):
        raise DataError(
            f"{folder} has {len(folders)} data sets in Parquet: {listed(list(folders))}",
            expected="one of them",
            hint=f"point at one: {folder / min(folders)}",
        )
    if len(folders) == 1:
        ((name, found),) = folders.items()
        by_folder = name.lower() in _SPLITS
        return {path: split or (name if by_folder else "") for path, split in found.items()}
    return {path: name for name, found in folders.items() for path in found}


def _split_of(name: str) -> str:
    stem = name[: -len(_SUFFIX)]
    shard = _SHARD.fullmatch(stem)
    if shard:
        return shard["split"]
    return stem if stem.lower() in _SPLITS else ""
