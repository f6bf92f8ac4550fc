"""A PyTorch data set of images as a table that diva reads."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from torch.utils.data import Dataset, Subset

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
    table = _files(whole)
    notes = []
    if table is None:
        table = _written(dataset, list(getattr(whole, "classes", ())), folder, progress)
        notes.append(f"the images of the {name} were written to {Path(table['path'].iloc[0]).parent}")
    else:
        if getattr(whole, "transform", None) is not None or getattr(whole, "transforms", None) is not None:
            notes.append(
                f"the transform of the {name} is not used: its files are read, and the network has its own"
            )
        if rows is not None:
            table = table.iloc[rows].reset_index(drop=True)
    return table.assign(id=range(len(table))), notes


def _files(dataset: Dataset[Any]) -> pd.DataFrame | None:
    """The table of a data set that knows its files; None of another one."""
    if isinstance(dataset, ManifestDataset):
        return dataset.table.assign(path=dataset.files)
    samples, classes = getattr(dataset, "samples", None), getattr(dataset, "classes", None)
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
                image, number = _sample(dataset, row)
                content = io.BytesIO()
                image.save(content, "PNG", compress_level=1)
                digest.update(content.getvalue())
                write_bytes(made / _name(row), content.getvalue())
                labels.append(str(classes[number]) if 0 <= number < len(classes) else str(number))
                advance(1)
        place = folder / digest.hexdigest()[:32]
        if not place.exists():
            made.rename(place)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return pd.DataFrame({"path": [str((place / _name(row)).resolve()) for row in range(n)], "label": labels})


def _name(row: int) -> str:
    return f"{row:06d}.png"


def _sample(dataset: Dataset[Any], row: int) -> tuple[Image.Image, int]:
    """An image and its class number.

    Raises:
        DataError: It is something else.
    """
    sample = dataset[row]
    if isinstance(sample, tuple | list) and len(sample) == 2 and isinstance(sample[0], Image.Image):
        try:
            return sample[0].convert("RGB"), int(sample[1])
        except (TypeError, ValueError):
            pass
    kinds = ", ".join(type(part).__name__ for part in sample) if isinstance(sample, tuple | list) else ""
    raise DataError(
        f"sample {row} of the {type(dataset).__name__} is ({kinds or type(sample).__name__})",
        expected="an image of PIL and a class number",
        hint="make the data set without a transform: images go through the network's own",
    )
