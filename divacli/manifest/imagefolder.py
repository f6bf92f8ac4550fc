"""Read a folder in the layout `imagefolder` of Hugging Face: images, and a table of metadata that names them.

Source: the class FolderBasedBuilder of the package datasets. It takes labels from sub-folders only where
there is no metadata; here they also fill in for a missing column label.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import pandas as pd

from divacli.errors import Again, DataError, listed
from divacli.files.formats import TABLE_FORMATS
from divacli.manifest.bounded import read_table
from divacli.manifest.columns import SPLIT
from divacli.manifest.splits import require_split
from divacli.manifest.tabular import parse
from divacli.reading import AS_IT_IS, Reading

FILE_NAME = "file_name"

_METADATA = tuple(f"metadata.{format}" for format in TABLE_FORMATS if format != "tsv")


def read_imagefolder(folder: Path, name: str, reading: Reading = AS_IT_IS) -> tuple[pd.DataFrame, str] | None:
    """Read the table of a folder of images, if it has one, or those of its splits.

    Args:
        folder: The folder.
        name: How messages call it.
        reading: Which splits are read, where sub-folders have tables of their own.

    Returns:
        The table (path relative to `folder`, label where there is such a column or sub-folders tell it, and
        all other columns) and its name; None where the folder has no metadata with the column `file_name`.

    Raises:
        OSError: The metadata cannot be read.
        DataError: It is no table, there are two, it has a path beside the `file_name`, or only sub-folders
            have metadata.
    """
    found = [(file, table) for file in _METADATA if (table := _metadata(folder, file, name)) is not None]
    if len(found) > 1:
        raise DataError(
            f"{name} has metadata twice: {listed([file for file, _ in found])}",
            expected="one of them",
            hint="move the others elsewhere",
        )
    if not found:
        return _of_splits(folder, name, reading)
    return _with_paths(*found[0], name)


def _with_paths(file: str, table: pd.DataFrame, name: str) -> tuple[pd.DataFrame, str]:
    """Metadata as a table of samples, and how messages call it."""
    called = f"{name.rstrip('/')}/{file}"
    if "path" in table:
        raise DataError(
            f"{called} has both a column file_name and a column path",
            expected="file_name alone, relative to the folder",
            hint="rename the column path",
        )
    table = table.rename(columns={FILE_NAME: "path"})
    if "label" not in table and (labels := _labels_of_folders(table["path"])) is not None:
        table["label"] = labels
    return table, called


def _metadata(folder: Path, file: str, name: str) -> pd.DataFrame | None:
    path = folder / file
    if not os.path.isfile(path):  # noqa: PTH113  # Path.is_file raises where the folder may not be entered
        return None
    format, called = file.rpartition(".")[2], f"{name.rstrip('/')}/{file}"
    table = parse(read_table(path, format, called), format, called)
    return table if FILE_NAME in table else None


def _labels_of_folders(paths: pd.Series) -> pd.Series | None:
    """The folder of each file, where the files lie in several, equally deep."""
    if not paths.map(lambda path: isinstance(path, str)).all():
        return None
    paths = paths.map(posixpath.normpath)
    if paths.str.count("/").nunique() > 1:
        return None
    labels = paths.map(posixpath.dirname).map(posixpath.basename)
    return labels if labels.nunique() > 1 else None


def _of_splits(folder: Path, name: str, reading: Reading) -> tuple[pd.DataFrame, str] | None:
    """The tables of the sub-folders that are chosen, where sub-folders have metadata: each is a split.

    Raises:
        DataError: There are several, and none is chosen; or one is there twice.
    """
    tables: dict[str, tuple[pd.DataFrame, str]] = {}
    for path in sorted(folder.iterdir()):
        for file in _METADATA:
            table = _metadata(path, file, f"{name.rstrip('/')}/{path.name}")
            if table is not None:
                tables[path.name] = _with_paths(file, table, f"{name.rstrip('/')}/{path.name}")
    if not tables:
        return None
    counts = {split: len(table) for split, (table, _) in tables.items()}
    if len(tables) == 1 and not reading.split:
        [only] = tables
        raise DataError(
            f"{name} has metadata in its sub-folder {only}, and none of its own",
            expected="one split",
            hint=Again(name, name, {SPLIT: only}, role=reading.role),
        )
    chosen = require_split(name, counts, reading)
    parts = []
    for split in chosen:
        table, _ = tables[split]
        paths = [f"{split}/{path}" if isinstance(path, str) else path for path in table["path"]]
        parts.append(table.assign(path=paths, split=split))
    return pd.concat(parts, ignore_index=True), name
