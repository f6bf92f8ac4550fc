"""The samples of a table or folder as a PyTorch data set, and a sampler that draws them by weight."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import Dataset, WeightedRandomSampler

from divacli.errors import DataError
from divacli.features.set_range import range_of
from divacli.files.path_or_url import read_bytes
from divacli.images.decode import UndecodableImage, decode_image
from divacli.images.scaling import PixelRange
from divacli.manifest import Labels, Manifest, check_files, manifest_of, read_manifest
from divacli.manifest.columns import FEATURE_SOURCE
from divacli.reading import AS_IT_IS, Reading, Source


class ManifestDataset(Dataset[tuple[Any, int]]):
    """Images and class numbers of the samples of a folder or a table, such as a written `reweighted.csv`.

    Sample `i` is row `i` of `table`. The object pickles wherever `transform` does, so that `DataLoader` may
    load with any number of worker processes.

    Args:
        manifest: A folder with one sub-folder a class, a table with the columns path and label, a pandas
            table with these, a `divacli.Source` of any of them, or a manifest that was read. The column
            weight of a table counts.
        transform: From an upright RGB PIL image to whatever a batch is made of; without one samples are the
            PIL images.
        classes: The label of each class number; default the distinct labels, sorted as on the command line.
            Give a held-out set the classes of the training set, for the same numbers.
        folder: Of a pandas table only: where its relative paths start from; default the current folder.
        pixel_range: Which values of images of more than 8 bits are black and white; default what a look at
            some of them finds. Give a held-out set the range of the training set, for the same pixels.

    Attributes:
        classes: The label of each class number, (k,).
        class_to_idx: The number of each label.
        targets: Class number of each sample, (n,).
        weights: (n,) float64 weight of each sample, 1 where the table gives none.
        table: One row a sample, as described in `divacli.manifest.Manifest`.
        files: (n,) absolute path or URL of each image.
        pixel_range: As found or given.

    Raises:
        DataError: The samples are not usable, a file is missing, or a label is none of `classes`.
        ValueError: `folder` beside something that is no pandas table, or a class given twice.
    """

    def __init__(
        self,
        manifest: str | os.PathLike[str] | pd.DataFrame | Manifest | Source,
        transform: Callable[[Any], Any] | None = None,
        classes: Sequence[str] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        pixel_range: PixelRange | tuple[float, float] | None = None,
    ) -> None:
        if folder is not None and not isinstance(_given(manifest), pd.DataFrame):
            raise ValueError(f"folder={str(folder)!r} is for a pandas table: other data say where they lie")
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError(f"classes={list(classes)}: expected different labels")
        read = _read(manifest, folder, some_classes=classes is not None)
        # Images are loaded here, also those whose features lie in a store.
        table = read.table.drop(columns=FEATURE_SOURCE, errors="ignore")
        images = replace(read, table=table, embeddings=None)
        check_files(images)
        self.table = read.table
        self.transform = transform
        self.classes = read.classes if classes is None else list(classes)
        self.class_to_idx = {label: number for number, label in enumerate(self.classes)}
        self.targets: list[int] = read.class_numbers(self.classes).tolist()
        self.weights = torch.from_numpy(read.table["weight"].to_numpy(float, copy=True))
        self.files = read.files()
        self.pixel_range = range_of(replace(images, pixel_range=pixel_range or images.pixel_range))

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """The image, transformed, and the class number of a sample.

        Raises:
            DataError: The image file cannot be read or decoded.
        """
        file = self.files[index]
        try:
            image = decode_image(read_bytes(file), pixels=self.pixel_range)
        except (UndecodableImage, OSError) as error:
            reason = f"read: {error.strerror}" if isinstance(error, OSError) else f"decoded: {error}"
            raise DataError(
                f"{file} cannot be {reason}",
                expected="an image that Pillow can read",
                hint="repair it, or leave its row out",
            ) from error
        return image if self.transform is None else self.transform(image), self.targets[index]


def weighted_sampler(
    dataset: ManifestDataset,
    num_samples: int | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
) -> WeightedRandomSampler:
    """Draw samples with replacement, each with probability proportional to its weight.

    The mean loss over what is drawn estimates the weighted mean loss of the whole set, so the loss itself
    needs no weights. A sample of weight 0 is never drawn.

    Args:
        dataset: The samples and their weights.
        num_samples: Draws an epoch; default the number of samples with a positive weight.
        generator: Of the draws; default torch's own.
        seed: Of a generator made here, in place of `generator`.

    Returns:
        The sampler, for `torch.utils.data.DataLoader(dataset, sampler=...)`.

    Raises:
        DataError: Every weight is 0.
        ValueError: Both `generator` and `seed`, or `num_samples` below 1.
    """
    if generator is not None and seed is not None:
        raise ValueError("generator and seed: expected one of them at the most")
    positive = int((dataset.weights > 0).sum())
    if not positive:
        raise DataError("every weight is 0", expected="at least one weight above 0")
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
    drawn = positive if num_samples is None else num_samples
    return WeightedRandomSampler(dataset.weights.tolist(), drawn, replacement=True, generator=generator)


def _read(
    data: str | os.PathLike[str] | pd.DataFrame | Manifest | Source,
    folder: str | os.PathLike[str] | None,
    *,
    some_classes: bool,
) -> Manifest:
    """The manifest; where the classes are given its samples need not be of two of them."""
    if isinstance(data, Manifest):
        return data
    labels: Labels = "optional" if some_classes else "required"
    reading = replace(data.reading if isinstance(data, Source) else AS_IT_IS, role="dataset")
    given = _given(data)

    def read(reading: Reading) -> Manifest:
        if isinstance(given, pd.DataFrame):
            place = Path() if folder is None else Path(folder)
            return manifest_of(given, place, labels=labels, reading=reading)
        return read_manifest(os.fspath(given), labels=labels, reading=reading)

    manifest = read(reading)
    if reading.weight is None and "original_weight" in manifest.table:
        manifest = read(replace(reading, weight="weight"))
        weights = manifest.table["weight"]
        warnings.warn(
            f"{manifest.name}: its column weight ({weights.min():g} to {weights.max():g}) is taken for the "
            "weights of the samples, though diva did not write it; Source(..., weight='none') if it is not",
            stacklevel=3,
        )
    return manifest


def _given(data: Any) -> Any:
    """DATA itself, without what is said of it."""
    return data.data if isinstance(data, Source) else data
