"""Data sets with wrong labels that are known, for `benchmarks.mislabel`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch

from benchmarks.machine import SHARED
from benchmarks.reweight import annotated
from benchmarks.ridge_choice import features, flip
from divacli.features import Samples

RATES = {"uniform": (0.05, 0.1, 0.2, 0.4), "pair": (0.1, 0.2, 0.3)}
ANNOTATED = {
    "human-aggregate": "labels-aggregate.csv",
    "human-random1": "labels.csv",
    "human-worse": "labels-worse.csv",
}
"""Label files of cifar10n: the majority of three annotators, the first of them, a wrong one if any is."""
FINETUNED = "finetuned-20"


@dataclass(frozen=True)
class Cell:
    """One kind of noise in one data set.

    Attributes:
        data: "clothing", "cifar10n" or "caltech256".
        kind: "clean", "uniform", "pair", "foreign", `FINETUNED` or one of `ANNOTATED`.
        rate: Share of the labels that are moved, or of planted images; 0 where nothing is drawn.
    """

    data: str
    kind: str
    rate: float = 0.0

    @property
    def name(self) -> str:
        """As `--cells` has it."""
        return f"{self.data}/{self.kind}" + (f"-{100 * self.rate:02.0f}" if self.rate else "")


CELLS = [
    *(
        cell
        for data in ("clothing", "cifar10n")
        for cell in [Cell(data, "clean"), *(Cell(data, kind, rate) for kind in RATES for rate in RATES[kind])]
    ),
    Cell("caltech256", "clean"),
    Cell("caltech256", "uniform", 0.2),
    Cell("caltech256", "pair", 0.2),
    *(Cell("cifar10n", kind) for kind in ANNOTATED),
    Cell("clothing", FINETUNED),
    Cell("clothing", "foreign", 0.05),
]


@dataclass(frozen=True)
class Posed:
    """Samples of which some are wrong.

    Attributes:
        features: (n, d) float32, rows of length 1.
        given: (n,) labels as a tool sees them.
        truth: (n,) true labels; "" of a planted image.
        wrong: (n,) bool.
    """

    features: np.ndarray
    given: np.ndarray
    truth: np.ndarray
    wrong: np.ndarray


@cache
def source(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and true labels of a data set."""
    if data == "cifar10n":
        samples, truth = annotated()
        return unit(rows_of(samples)), truth
    if data == "caltech256":
        with np.load(SHARED / "data" / "clip_caltech256" / "images.npz") as arrays:
            return unit(arrays["embedding"]), arrays["class_name"].astype(str)[arrays["label"]]
    samples = features("train")
    return unit(rows_of(samples)), samples.manifest.table["label"].to_numpy(str)


def rows_of(samples: Samples) -> np.ndarray:
    """Features (n, d) of all samples."""
    return np.asarray(samples.features[:].numpy())


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    rows = rows.astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def moved(truth: np.ndarray, kind: str, rate: float, generator: np.random.Generator) -> np.ndarray:
    """Labels (n,) of which a share is wrong.

    Args:
        truth: (n,) true labels.
        kind: "uniform": any other class; "pair": the next; "one-sided": the next, of the first class alone.
        rate: Share of the labels that are moved; of one-sided noise, of the first class.
        generator: What is drawn from.
    """
    classes, number = np.unique(truth, return_inverse=True)
    wrong = generator.random(len(number)) < rate
    step = generator.integers(1, len(classes), len(number)) if kind == "uniform" else 1
    if kind == "one-sided":
        wrong &= number == 0
    return np.asarray(classes[np.where(wrong, (number + step) % len(classes), number)])


def pose(cell: Cell, seed: int) -> Posed:
    """The samples of a cell, whose noise is drawn by the seed."""
    if cell.kind == FINETUNED:
        return finetuned()
    rows, truth = source(cell.data)
    if cell.kind in ANNOTATED:
        given = labels_by_annotators(ANNOTATED[cell.kind])
        return Posed(rows, given, truth, given != truth)
    classes, numbers = np.unique(truth, return_inverse=True)
    if cell.kind == "foreign":
        generator = np.random.default_rng(seed)
        others = source("cifar10n")[0]
        planted = others[generator.choice(len(others), round(cell.rate * len(rows)), replace=False)]
        given = np.concatenate([truth, generator.choice(classes, len(planted))])
        truth = np.concatenate([truth, np.full(len(planted), "")])
        return Posed(np.concatenate([rows, planted]), given, truth, truth == "")
    moved, wrong = flip(torch.from_numpy(numbers), len(classes), cell.kind, cell.rate, seed)
    return Posed(rows, classes[moved.numpy()], truth, wrong.numpy())


def labels_by_annotators(file: str) -> np.ndarray:
    """Labels of the images of cifar10n in the order of their features, (n,)."""
    labels = pd.read_csv(SHARED / "data" / "cifar10n" / file).set_index("path")["label"]
    samples, _ = annotated()
    return labels.loc[samples.manifest.table["path"]].to_numpy(str)


def finetuned() -> Posed:
    """Clothing images under a network that was fine-tuned on labels of which a fifth was moved."""
    with np.load(SHARED / "data" / "finetuned" / "clothing-flipped20.npz") as arrays:
        given, truth = arrays["label"].astype(str), arrays["true_label"].astype(str)
        return Posed(unit(arrays["embedding"]), given, truth, given != truth)
