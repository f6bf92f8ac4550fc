"""Data sets of torchvision as tables of files and labels.

`manifests` lets torchvision download a data set into a folder, where it is not there yet, and writes
`NAME-train.csv` and `NAME-test.csv` with the columns path and label into that folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torchvision import datasets

from divacli.errors import DataError
from divacli.manifest import write_table

SPLITS = ("train", "test")

CALTECH_TRAIN = 60
"""Images a class of Caltech-256 that are trained on; the others are tested on. It has no split of its own."""

Labelled = list[tuple[Path, int]]
"""Image files, each with its class number."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        read: From the root folder and "train" or "test" to the images, downloaded where they are missing.
        layout: What is in the root folder afterwards.
        hint: How it comes there where it cannot be downloaded.
    """

    read: Callable[[Path, str], Labelled]
    layout: str
    hint: str = "connect to the network and run this again, or place these files there yourself"


def manifests(name: str, root: Path) -> dict[str, Path]:
    """Tables of the training and the test set of a data set; their paths start from the root folder.

    Args:
        name: One of `SETS`.
        root: Where the data sets lie, or are downloaded to.

    Returns:
        The table's file for each of `SPLITS`.

    Raises:
        DataError: The data set is not there and cannot be downloaded.
    """
    source, tables = SETS[name], {}
    for split in SPLITS:
        try:
            images = source.read(root, split)
        # An unreachable server is an OSError, an incomplete folder a RuntimeError.
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{name} ({split}) is not in {root} and cannot be downloaded: {error}",
                expected=f"in {root}: {source.layout}",
                hint=source.hint,
            ) from error
        files, labels = zip(*images, strict=True)
        tables[split] = root / f"{name}-{split}.csv"
        paths = [file.relative_to(root).as_posix() for file in files]
        write_table(pd.DataFrame({"path": paths, "label": labels}), tables[split], "csv")
    return tables


def _flowers(root: Path, split: str) -> Labelled:
    return _all(datasets.Flowers102(root, split, download=True, loader=Path))


def _aircraft(root: Path, split: str) -> Labelled:
    part = "trainval" if split == "train" else split
    return _all(datasets.FGVCAircraft(root, part, download=True, loader=Path))


def _cars(root: Path, split: str) -> Labelled:
    # With download=True torchvision only says that there is no address left to download from.
    return _all(datasets.StanfordCars(root, split, loader=Path))


def _all(found: Any) -> Labelled:
    """What a data set yields that was told not to open its files."""
    return [found[number] for number in range(len(found))]


def _pets(root: Path, split: str) -> Labelled:
    found = datasets.OxfordIIITPet(root, "trainval" if split == "train" else split, download=True)
    return list(zip(found._images, found._labels, strict=True))


def _caltech(root: Path, split: str) -> Labelled:
    found = datasets.Caltech256(root, download=True)
    labels = np.array(found.y)
    drawn = pd.Series(np.random.default_rng(0).permutation(len(labels)))
    training = np.isin(np.arange(len(labels)), drawn.groupby(labels[drawn]).head(CALTECH_TRAIN))
    folder = Path(found.root) / "256_ObjectCategories"
    return [
        (folder / found.categories[label] / f"{label + 1:03d}_{found.index[row]:04d}.jpg", label)
        for row, label in enumerate(found.y)
        if training[row] == (split == "train")
    ]


def _svhn(root: Path, split: str) -> Labelled:
    found = datasets.SVHN(root / "svhn", split, download=True)
    folder = root / "svhn" / split
    if not folder.is_dir():
        unfinished = folder.with_name(f"{split}.unfinished")
        unfinished.mkdir(exist_ok=True)
        for number in range(len(found)):
            image, _ = found[number]
            image.save(unfinished / f"{number:06d}.png")
        unfinished.rename(folder)
    return [(folder / f"{number:06d}.png", int(label)) for number, label in enumerate(found.labels)]


SETS = {
    "Caltech256": Source(_caltech, "caltech256/256_ObjectCategories/001.ak47/001_0001.jpg ..."),
    "FGVCAircraft": Source(
        _aircraft,
        "fgvc-aircraft-2013b/data with images/, variants.txt and images_variant_{trainval,test}.txt",
    ),
    "Flowers102": Source(_flowers, "flowers-102 with jpg/, imagelabels.mat and setid.mat"),
    "OxfordIIITPet": Source(_pets, "oxford-iiit-pet with images/ and annotations/{trainval,test}.txt"),
    "StanfordCars": Source(
        _cars,
        "stanford_cars with cars_train/, cars_test/, cars_test_annos_withlabels.mat and "
        "devkit/{cars_train_annos,cars_meta}.mat",
        "its publisher offers it no more: place these files there; "
        "https://github.com/pytorch/vision/issues/7545 names places that keep them",
    ),
    "SVHN": Source(_svhn, "svhn/{train,test}_32x32.mat"),
}
"""Data sets by their name in torchvision."""
