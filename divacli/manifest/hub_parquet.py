"""Read Parquet files with images in them, as the Hugging Face Hub holds data sets, as a sample table.

The bytes of the images stay where they are: a path goes through the file, such as `train.parquet/17`, and
`divacli.files.parquet_images` finds them there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from divacli.errors import Advice, DataError, listed
from divacli.files.parquet_images import ImageTable, image_table, open_parquet, row_name
from divacli.files.regular import open_regular
from divacli.files.tar import member_name
from divacli.manifest.bounded import require_room
from divacli.manifest.column_types import is_missing, row_numbers, stacked, stepped_aside
from divacli.manifest.columns import IMAGE_PATH, SPLIT
from divacli.manifest.listing import check_names
from divacli.manifest.splits import require_split
from divacli.manifest.tabular import SAID, decoded_parquet
from divacli.reading import Reading

_SUFFIX = ".parquet"
_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?")
_SPLITS = ("train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval")
_DEEPEST = 2  # folders below DATA: a configuration, and a split in it
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
    if not file.stat().st_size:  # whoever reads it says so
        return False
    table = image_table(str(file))
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


def read_hub_parquet(
    folder: Path, files: Mapping[str, str], name: str, reading: Reading, *, labels_required: bool = True
) -> tuple[pd.DataFrame, list[str]]:
    """List the images in Parquet files with their labels, and all else that is known of them.

    Args:
        folder: Absolute.
        files: The split of each file, or "", by its path relative to `folder`.
        name: How messages call them together.
        reading: Which split, which column of images, and which of labels.
        labels_required: Whether there must be a column of labels.

    Returns:
        The table and the warnings. Its columns are path (relative to `folder`, through the file), label
        (where there is one), split (where files have names of splits), and all columns of single values,
        among them the names that images had before as `image_path`.

    Raises:
        OSError: A file cannot be read.
        DataError: A file is damaged; the split, the column of images or that of labels has to be chosen, or
            is not there; a label has no name.
    """
    tables = {path: image_table(str(folder / path)) for path in files}
    chosen = dict(files)
    if any(files.values()):
        counts: dict[str, int] = {}
        for path, split in files.items():
            counts[split] = counts.get(split, 0) + tables[path].n
        splits = require_split(name, counts, reading)
        chosen = {path: split for path, split in files.items() if split in splits}
    parts, unused = [], dict[str, None]()
    for path, split in chosen.items():
        called = name if len(files) == 1 else f"{name.rstrip('/')}/{path}"
        part, images, label = _read_one(folder / path, tables[path], called, reading, labels_required)
        part.insert(0, "path", [f"{path}/{row_name(tables[path], images, row)}" for row in range(len(part))])
        if split:
            part = stepped_aside(part, SPLIT).assign(**{SPLIT: split})
        parts.append(part)
        known = {images, label, *part.columns}
        unused |= dict.fromkeys(column for column in tables[path].names if column not in known)
    table = parts[0] if len(parts) == 1 else stacked(parts)
    check_names(list(chosen), name)
    table.attrs[SAID] = f"{name}: images from the column {images}" + (
        f", labels from the column {label}" if label else ""
    )
    left = f"{name}: columns not kept, for they hold no single values: {listed(list(unused))}."
    return table, [left] if unused else []


def _read_one(
    file: Path, table: ImageTable, name: str, reading: Reading, labels_required: bool
) -> tuple[pd.DataFrame, str, str | None]:
    """The columns of one file but for the path, and the names of its columns of images and of labels."""
    if not table.n:
        raise DataError(f"{name} has no rows", expected="one row for each sample")
    images = _image_column(table, name, reading)
    held = file.stat().st_size
    require_room(table.n, held, name, "leave out rows without images")
    with open_regular(file) as stream:
        opened = open_parquet(stream, name)
        single = [field.name for field in opened.schema_arrow if _is_single(field)]
        label = _label_column(table, single, name, reading, labels_required)
        was_called = f"{images}.path" if table.binary[images] != images else None
        wanted = [*single, was_called] if was_called else single
        nothing = pd.DataFrame(index=range(table.n))
        found = decoded_parquet(opened, held, name, wanted) if wanted else nothing
    paths = None
    if was_called is not None:
        paths = [cell.get("path") if isinstance(cell, dict) else None for cell in found[images]]
    found = found[[column for column in single if column in found]]
    if label is not None:
        labels = _labels(found.pop(label), table.features.get(label, {}), f"{name}: column '{label}'")
        found = stepped_aside(found, "label")
        found.insert(0, "label", labels)
    found = stepped_aside(found, "path")
    if paths is not None and any(paths) and IMAGE_PATH not in found:
        found[IMAGE_PATH] = pd.Series(paths, dtype=object)
    return found, images, label


def _image_column(table: ImageTable, name: str, reading: Reading) -> str:
    column = reading.path_column
    if column is None and len(table.columns) > 1:
        raise DataError(
            f"{name} has {len(table.columns)} columns of images: {listed(list(table.columns))}",
            expected="one image in a row",
            hint=Advice(f"choose one with {{path_column}} {table.columns[0]}"),
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


def _label_column(
    table: ImageTable, single: Sequence[str], name: str, reading: Reading, labels_required: bool
) -> str | None:
    """The column of labels; None where there is none, and need not be."""
    if len(reading.label_column) > 1:
        raise DataError(
            f"{name}: {len(reading.label_column)} columns of labels: {listed(list(reading.label_column))}",
            expected="one column of labels beside images in Parquet",
        )
    if reading.label_column:
        column = reading.label_column[0]
        if column not in single:
            raise DataError(
                f"{name} has no column {column} of labels; its columns are: {listed(list(single), limit=12)}",
                expected="one of them",
            )
        return column
    known = [column for column in single if table.features.get(column, {}).get("_type") == "ClassLabel"]
    if len(known) == 1:
        return known[0]
    if len(known) > 1:
        raise DataError(
            f"{name} has {len(known)} columns of class labels: {listed(known, limit=12)}",
            expected="one of them",
            hint=Advice(f"choose one with {{label_column}} {known[0]}"),
        )
    if "label" in single:
        return "label"
    if not labels_required:
        return None
    raise DataError(
        f"{name} has no column label, and none of class labels; its columns are: "
        f"{listed(table.names, limit=12)}",
        expected="a label for each image",
        hint=Advice("choose the column with {label_column} NAME"),
    )


def _labels(cells: pd.Series, feature: Mapping[str, object], where: str) -> pd.Series:
    """Labels by their names, where the Hub knows these; None where a label is missing."""
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    if not isinstance(names, list) or not pd.api.types.is_integer_dtype(cells.dropna().infer_objects()):
        return cells
    if len({*map(str, names)}) < len(names):
        raise DataError(f"{where} has two classes of one name", expected="different names of classes")
    labels: list[object] = []
    wrong = []
    for cell in cells:
        missing = is_missing(cell) or cell == _NO_LABEL
        wrong.append(not missing and not 0 <= cell < len(names))
        labels.append(None if missing or wrong[-1] else str(names[int(cell)]))
    if any(wrong):
        raise DataError(
            f"{where} has a number without a name in {row_numbers(wrong)}: {cells[wrong.index(True)]}",
            expected=f"numbers from 0 to {len(names) - 1:,}, or {_NO_LABEL} where there is no label",
        )
    return pd.Series(labels, dtype=object)


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
