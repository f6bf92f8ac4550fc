"""A PyTorch data set of images as a table that diva reads."""

from __future__ import annotations

import hashlib
import io
import operator
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset

from divacli.errors import DataError
from divacli.files.write import output_error, write_bytes
from divacli.interchange.torch_dataset import ManifestDataset
from divacli.progress import Progress, silent


def dataset_table(
    dataset: Dataset[Any], folder: Path, progress: Progress = silent
) -> tuple[pd.DataFrame, list[str]]:
    """The samples of a data set as a table, and sentences on what was made of it.

    Of a data set that knows its files, such as torchvision's `ImageFolder`, the files are used as they are.
    The images of another one are written as PNG files. A `Subset` gives the samples of its indices.

    Args:
        dataset: Sample i is an RGB image of PIL and a class number.
        folder: Where images are written, below a folder named after their content.
        progress: Told of every image that is written.

    Returns:
        `path`, `label` (by name where the data set has `classes`) and `id` (i), n rows; of a
        `ManifestDataset` also its other columns.

    Raises:
        DataError: The data set has no length, or gives something else than an image and a class number.
        OutputError: The folder cannot be written to.
    """
    rows: list[int] | None = None
    whole = dataset
    while isinstance(whole, Subset):
        indices = [int(index) for index in whole.indices]
        rows = indices if rows is None else [indices[row] for row in rows]
        whole = whole.dataset
    name = type(whole).__name__
    if getattr(whole, "target_transform", None) is not None:
        raise DataError(
            f"the {name} has a target_transform: its numbers are not those of its classes",
            expected="a data set without it",
            hint="give a pandas table with path and label, with the labels that you mean",
        )
    table = _files(whole)
    notes = []
    if table is None:
        table = _written(dataset, _classes(whole), folder, progress)
        notes.append(f"the images of the {name} were written to {Path(table['path'].iloc[0]).parent}")
    else:
        if getattr(whole, "transform", None) is not None or getattr(whole, "transforms", None) is not None:
            notes.append(
                f"the transform of the {name} is not used: its files are read, and the network has its own"
            )
        if rows is not None:
            table = table.iloc[rows].reset_index(drop=True)
    return table.assign(id=range(len(table))), notes


def _classes(dataset: Dataset[Any]) -> list[object]:
    """The label of each class number; none where they are not known."""
    if isinstance(dataset, ConcatDataset):
        first, *others = map(_classes, dataset.datasets)
        return first if all(other == first for other in others) else []
    return list(getattr(dataset, "classes", ()))


def _files(dataset: Dataset[Any]) -> pd.DataFrame | None:
    """The table of a data set that knows its files; None of another one."""
    if isinstance(dataset, ConcatDataset):
        parts = [_files(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return pd.concat(known, ignore_index=True) if len(known) == len(parts) else None
    if isinstance(dataset, ManifestDataset):
        return dataset.table.assign(path=dataset.files)
    # One that overrides how a sample is read may give another one than its file holds.
    reads = getattr(type(dataset), "__getitem__", None)
    samples, classes = getattr(dataset, "samples", None), getattr(dataset, "classes", None)
    if getattr(reads, "__module__", "") != "torchvision.datasets.folder":
        return None
    if not isinstance(samples, list) or not isinstance(classes, list) or not samples:
        return None
    first = samples[0]
    if not (isinstance(first, tuple) and len(first) == 2 and isinstance(first[0], str)):
        return None
    return pd.DataFrame(
        {
            "path": [file for file, _ in samples],
            "label": [str(classes[number]) for _, number in samples],
        }
    )


def _written(
    dataset: Dataset[Any], classes: Sequence[object], folder: Path, progress: Progress
) -> pd.DataFrame:
    """The table of images that were written below a folder."""
    try:
        n = len(dataset)  # type: ignore[arg-type]
    except TypeError as error:
        raise DataError(
            f"{type(dataset).__name__} has no length",
            expected="a data set that gives sample i by dataset[i]",
            hint="write its images into a folder with one sub-folder a class",
        ) from error
    if not n:
        raise DataError(f"the {type(dataset).__name__} has no samples", expected="two classes at least")
    digest = hashlib.sha256()
    labels = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    except OSError as error:
        raise output_error(str(folder), error) from error
    try:
        with progress("writing images", n) as advance:
            for row in range(n):
                image, label = _sample(dataset, row)
                content = io.BytesIO()
                image.save(content, "PNG", compress_level=1)
                digest.update(content.getvalue())
                write_bytes(made / _name(row), content.getvalue())
                if isinstance(label, int) and 0 <= label < len(classes):
                    label = str(classes[label])
                labels.append(str(label))
                advance(1)
        place = folder / digest.hexdigest()[:32]
        if not place.exists():
            made.rename(place)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return pd.DataFrame({"path": [str((place / _name(row)).resolve()) for row in range(n)], "label": labels})


def _name(row: int) -> str:
    return f"{row:06d}.png"


def _sample(dataset: Dataset[Any], row: int) -> tuple[Image.Image, int | str]:
    """An image, and its class number or label.

    Raises:
        DataError: It is something else.
    """
    sample = dataset[row]
    if isinstance(sample, tuple | list) and len(sample) == 2 and isinstance(sample[0], Image.Image):
        image, label = sample[0].convert("RGB"), sample[1]
        if isinstance(label, str):
            return image, label
        try:
            return image, operator.index(label)
        except TypeError as error:
            raise DataError(
                f"the label of sample {row} of the {type(dataset).__name__} is {label!r}",
                expected="a whole number or a text",
                hint="round or name the labels",
            ) from error
    kinds = ", ".join(type(part).__name__ for part in sample) if isinstance(sample, tuple | list) else ""
    raise DataError(
        f"sample {row} of the {type(dataset).__name__} is ({kinds or type(sample).__name__})",
        expected="an image of PIL and a class number or a label",
        hint="make the data set without a transform: images go through the network's own",
    )
