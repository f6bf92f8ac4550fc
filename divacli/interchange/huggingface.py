"""A `datasets.Dataset` of images as a table of diva, and a written table as such a data set again.

For data sets in memory or in the cache of the package datasets, which is imported when it is needed. A folder
that `load_dataset("imagefolder", ...)` reads is DATA as it is.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from divacli.errors import DataError, DivaError, OutputError, listed
from divacli.files.path_or_url import is_file, read_bytes
from divacli.files.regular import read_regular
from divacli.files.write import write_bytes
from divacli.manifest import manifest_of, read_manifest, write_table
from divacli.manifest.column_types import row_numbers
from divacli.manifest.columns import (
    COLUMN_TYPES,
    FEATURE_SOURCE,
    GIVEN_LABEL,
    GROUP,
    ID,
    IMAGE_SHA256,
    MODALITY,
    SPLIT,
    TEXT,
    TRUE_LABEL,
)
from divacli.reading import AS_CALLED

if TYPE_CHECKING:
    from types import ModuleType

    from datasets import Dataset

MANIFEST = "manifest.csv"
_IMAGES = "images"
# Of formats that go by another name than their files.
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2", "HEIF": "heic", "DICOM": "dcm"}
_BATCH = 256  # images in memory at a time

# Columns that diva reads and leaves as they are; those it knows and does not read here are its own results.
_LEFT = frozenset({GROUP, SPLIT, TRUE_LABEL, GIVEN_LABEL, TEXT, MODALITY})
# Columns of a table that say where an image lies, which the data set knows itself.
_PLACES = frozenset({"path", "label", ID, FEATURE_SOURCE, IMAGE_SHA256})


def from_dataset(
    dataset: Dataset, folder: str | os.PathLike[str], image: str = "image", label: str | None = "label"
) -> Path:
    """Write the images of a data set into a folder, and the table of them that diva reads.

    Images are written as they are encoded; where there are only pixels, as PNG. Files that are there already
    with the same bytes are left alone: interrupted, the same call goes on, and called again it only looks.

    Args:
        dataset: One split, its rows in any order.
        folder: Where to; made where it does not exist. Images go into `images/`.
        image: The column of images, of the feature `datasets.Image`.
        label: The column of labels: a `ClassLabel`, which is written by name, or text or numbers. None: there
            are no labels.

    Returns:
        `folder/manifest.csv`: `path`, `label`, `id` (the number of the row) and the other columns of text,
        numbers and truth values, but for those whose names diva gives to results of its own.

    Raises:
        DataError: It is no such data set, or lacks a column or an image.
        OutputError: The folder cannot be written.
    """
    datasets = _datasets()
    _check_dataset(datasets, dataset, [image] if label is None else [image, label])
    if not isinstance(dataset.features[image], datasets.Image):
        raise DataError(
            f"column {image} of the data set is {dataset.features[image]}",
            expected="the feature Image",
            hint=f'dataset.cast_column("{image}", datasets.Image())',
        )
    if not len(dataset):
        raise DataError("the data set has no rows", expected="one row for each sample")
    dataset = dataset.with_format(None)
    target = Path(folder)
    encoded = dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    digits = max(6, len(str(len(dataset) - 1)))
    paths: list[str] = []
    for start in range(0, len(dataset), _BATCH):
        for row, item in enumerate(encoded[start : start + _BATCH][image], start):
            content, suffix = _content(datasets, item, row)
            paths.append(f"{_IMAGES}/{row:0{digits}d}.{suffix}")
            _write_new(target / paths[-1], content)
    columns: dict[str, Any] = {"path": paths}
    if label is not None:
        columns["label"] = _texts(datasets, dataset, label)
    columns[ID] = np.arange(len(dataset))
    for name, feature in dataset.features.items():
        if name in (image, label) or (name in COLUMN_TYPES and name not in _LEFT and name != "weight"):
            continue
        if isinstance(feature, datasets.ClassLabel):
            columns[name] = _texts(datasets, dataset, name)
        elif isinstance(feature, datasets.Value):
            columns[name] = dataset[name][:]
    write_table(pd.DataFrame(columns), target / MANIFEST, "csv")
    return target / MANIFEST


def to_dataset(
    dataset: Dataset, table: str | os.PathLike[str] | pd.DataFrame, label: str | None = "label"
) -> Dataset:
    """Give the rows of a data set that a written table keeps, with its labels, weights and scores.

    Args:
        dataset: As it was given to `from_dataset`, in the same order.
        table: A table that diva wrote of it, such as `kept.csv`, or a pandas table with columns path and id.
        label: The data set's column of labels, which takes those of the table; None leaves labels alone.

    Returns:
        The rows whose numbers are in the column `id` of the table, in the data set's order, with all columns
        of the data set, the table's `weight`, and what else the table has. A `ClassLabel` gets new names at
        its end for new labels, so that the numbers of the others stay.

    Raises:
        DataError: It is no such data set, the table's ids are not rows of it, or a label is of another type.
    """
    datasets = _datasets()
    _check_dataset(datasets, dataset, [] if label is None else [label])
    if isinstance(table, pd.DataFrame):
        manifest = manifest_of(table, Path(), labels="optional", reading=AS_CALLED)
    else:
        manifest = read_manifest(os.fspath(table), labels="optional", reading=AS_CALLED)
    found, rows = manifest.table, _rows(manifest.table, len(dataset), manifest.name)
    result = dataset
    if label is not None and manifest.labelled:
        result = _relabelled(datasets, result, label, rows, found["label"].tolist(), manifest.name)
    for name in found:
        own = name in dataset.column_names
        # What the data set has itself keeps its type; of what diva finds, only the latest counts.
        if name in _PLACES or (own and (name not in COLUMN_TYPES or name in _LEFT)):
            continue
        values = np.full(len(dataset), None, dtype=object)
        values[rows] = _values(found[name])
        if own:
            result = result.remove_columns(name)
        result = result.add_column(name, values.tolist())
    return result.select(np.sort(rows))


def _datasets() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise DivaError(
            "the package datasets is not installed",
            expected="datasets, of Hugging Face",
            hint="pip install 'divacli[huggingface]'",
        ) from error
    return datasets


def _check_dataset(datasets: ModuleType, dataset: object, columns: list[str]) -> None:
    if isinstance(dataset, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise DataError(
            f"these are several data sets: {listed(list(dataset))}",
            expected="one split",
            hint=f'give one of them: dataset["{next(iter(dataset), "train")}"]',
        )
    if isinstance(dataset, datasets.IterableDataset):
        raise DataError(
            "this data set is a stream, whose rows have no numbers",
            expected="a datasets.Dataset",
            hint="load it without streaming=True, or a part of it: Dataset.from_list(list(stream.take(n)))",
        )
    if not isinstance(dataset, datasets.Dataset):
        raise DataError(f"this is a {type(dataset).__name__}", expected="a datasets.Dataset")
    missing = [column for column in columns if column not in dataset.column_names]
    if missing:
        raise DataError(
            f"the data set has no column {' and no column '.join(missing)}; its columns are: "
            f"{listed(dataset.column_names, limit=12)}",
            expected="a column of images and one of labels",
            hint="name them: from_dataset(..., image=..., label=...), to_dataset(..., label=...)",
        )


def _content(datasets: ModuleType, item: dict[str, Any] | None, row: int) -> tuple[bytes, str]:
    """The bytes of an encoded image, and the suffix of its file."""
    from divacli.images.decode import UndecodableImage, open_image

    content, path = (item or {}).get("bytes"), (item or {}).get("path")
    if content is None and path is not None and is_file(path):
        content = read_bytes(path)
    if content is None and path is not None:
        content = _decoded(datasets, path, row)
    if content is None:
        raise DataError(
            f"the data set has no image in row {row:,}",
            expected="an image in every row",
            hint="leave such rows out: dataset.filter(...), or dataset.select(...)",
        )
    try:
        with open_image(content) as image:
            return content, _SUFFIXES.get(image.format or "", (image.format or "bin").lower())
    except UndecodableImage:  # diva names it when it decodes it
        return content, "bin"


def _decoded(datasets: ModuleType, path: str, row: int) -> bytes:
    """As PNG an image that only the package opens, such as a member of a remote archive."""
    stream = io.BytesIO()
    try:
        datasets.Image().decode_example({"path": path, "bytes": None}).save(stream, "PNG")
    except Exception as error:
        raise DataError(
            f"the image in row {row:,} of the data set cannot be read: {error}",
            expected="an image that the package datasets opens",
            hint="download the data set again, or leave the row out: dataset.select(...)",
        ) from error
    return stream.getvalue()


def _write_new(file: Path, content: bytes) -> None:
    """Write a file but where it holds just that; never through a link, which may lead anywhere."""
    if file.is_symlink() or file.parent.is_symlink():
        raise OutputError(
            f"{file} would be written through a symbolic link",
            expected="a folder that only this has written to",
            hint="remove the link, or choose another folder",
        )
    try:
        if (
            file.is_file()
            and file.stat().st_size == len(content)
            and read_regular(file, len(content)) == content
        ):
            return
    except OSError:  # it is replaced
        pass
    write_bytes(file, content)


def _texts(datasets: ModuleType, dataset: Dataset, column: str) -> list[str]:
    """A column of labels as text, "" where there is none."""
    feature, values = dataset.features[column], dataset[column][:]
    if isinstance(feature, datasets.ClassLabel):
        return ["" if value is None or value < 0 else feature.names[value] for value in values]
    if not isinstance(feature, datasets.Value):
        raise DataError(
            f"column {column} of the data set is {feature}", expected="a ClassLabel, text or numbers"
        )
    return ["" if value is None else str(value) for value in values]


def _rows(table: pd.DataFrame, n: int, name: str) -> np.ndarray:
    """Numbers of the data set's rows that a table names, (m,) int64, all different."""
    if ID not in table:
        raise DataError(
            f"{name} has no column id",
            expected="the number of a row of the data set in each row, as from_dataset writes it",
            hint="make the table from the manifest that from_dataset wrote",
        )
    ids = table[ID].str.strip()
    whole = ids.str.fullmatch("[0-9]{1,18}")
    rows = pd.to_numeric(ids.where(whole, "-1")).to_numpy(np.int64)
    wrong = (rows < 0) | (rows >= n)
    if wrong.any():
        raise DataError(
            f"{name}: {int(wrong.sum()):,} ids are no rows of this data set of {n:,}, in "
            f"{row_numbers(wrong)}: {listed([repr(one) for one in table['id'][wrong]])}",
            expected=f"whole numbers from 0 to {n - 1:,}",
            hint="give the data set that the table was made from; rows that were added to it have no id",
        )
    again = pd.Series(rows).duplicated()
    if again.any():
        raise DataError(f"{name}: the same id more than once, again in {row_numbers(again)}")
    return rows


def _relabelled(
    datasets: ModuleType, dataset: Dataset, column: str, rows: np.ndarray, labels: list[str], name: str
) -> Dataset:
    """The data set with other labels in some rows, its features as they are but for new names of classes."""
    feature = dataset.features[column]
    before = _texts(datasets, dataset, column)
    given = zip(rows.tolist(), labels, strict=True)
    changed = {row: label for row, label in given if label != before[row]}
    if not changed:
        return dataset
    values: list[Any] = list(dataset.with_format(None)[column][:])
    if isinstance(feature, datasets.ClassLabel):
        names = [*feature.names, *sorted(set(changed.values()) - set(feature.names))]
        number = {label: position for position, label in enumerate(names)}
        feature = datasets.ClassLabel(names=names)
        convert: Any = number.__getitem__
    else:
        kind = type(next(value for value in values if value is not None)) if any(before) else str
        convert = {"True": True, "False": False}.__getitem__ if kind is bool else kind
    for row, label in changed.items():
        try:
            values[row] = convert(label)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{name}: the label '{label}' is no {feature.dtype}, as in the data set's column {column}",
                expected="labels of one type",
                hint=f'cast the column first: dataset.cast_column("{column}", datasets.Value("string"))',
            ) from error
    changed_data = dataset.remove_columns(column).add_column(column, values, feature=feature)
    return changed_data.select_columns(dataset.column_names)


def _values(column: pd.Series) -> list[Any]:
    """The cells as Python objects, None where one is missing; truth values no longer as text."""
    if pd.api.types.is_string_dtype(column) and {""} < {*column.unique(), ""} <= {"True", "False", ""}:
        column = column.map({"True": True, "False": False})
    return column.astype(object).where(column.notna(), None).tolist()
