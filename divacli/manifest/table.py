"""The sample table that every command works on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.files.formats import is_npz
from divacli.files.path_or_url import Place, joined, place_of
from divacli.images.scaling import PixelRange
from divacli.manifest.arrayfile import ArrayFile
from divacli.manifest.columns import FEATURE_SOURCE


@dataclass(frozen=True)
class Manifest:
    """The samples of one DATA argument, read and checked.

    Attributes:
        name: How messages call it: the argument as typed, or "standard input".
        kind: "folder", "table", "npz", "shards" (tar files), "parquet" (images in Parquet files), or
            "store".
        table: One row a sample, RangeIndex. Columns path (str, as written), label (str) and weight (float64,
            1 where not given), then group, split, id and feature_source where there are such, then all
            others. Where `feature_source` is not empty it names the `.npz` file or feature store that holds
            the row's embedding, and the path need not be a file. Either may be a URL. Labels are all "" where
            there are none.
        folder: Absolute folder that relative paths and sources start from.
        unused: Names of columns that are kept, and not used unless an option names them.
        warnings: One sentence each.
        notes: What is no warning, one sentence each.
        embeddings: (n, d), row i belonging to row i of `table`; of an `.npz` file only.
        labels_required: Whether it was read as samples to learn classes from. Samples of a pool may lack
            labels, or be of one class, or all of weight 0.
        repeated: Whether a path may stand in several rows, each of which is a vote on its label.
        pixel_range: The values that are black and white in images of more than 8 bits, as given or as looked
            for; None: not looked for yet.
        given: DATA as it was named, where that is not `name`.
        role: As of `divacli.reading.Reading`.
        n_unlisted: Images beside the table that it does not name.
        roles: By path, label, weight and split the columns that these are made from, where they have other
            names or were asked for.
        left_out: Files of a folder that are no samples: how many for each reason and suffix.
    """

    name: str
    kind: str
    table: pd.DataFrame
    folder: Path
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    embeddings: ArrayFile | np.ndarray | None = None
    labels_required: bool = True
    repeated: bool = False
    pixel_range: tuple[float, float] | PixelRange | None = None
    given: str = ""
    role: str = ""
    n_unlisted: int = 0
    roles: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether the samples have labels."""
        return bool((self.table["label"] != "").any())

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted: by value where all are whole numbers, so that 10 comes after 9."""
        labels = [label for label in self.table["label"].unique().tolist() if label]
        numbers = all(label.isascii() and label.isdigit() for label in labels)
        if not numbers:
            return sorted(labels)
        # By length and then by digits, as int() refuses more than some thousand of them.
        return sorted(labels, key=lambda label: (len(label.lstrip("0")), label.lstrip("0"), label))

    @property
    def names_only(self) -> np.ndarray:
        """Which paths are names in an `.npz` file and lead to no file, (n,) bool."""
        if FEATURE_SOURCE not in self.table:
            return np.zeros(len(self.table), bool)
        return self.table[FEATURE_SOURCE].map(is_npz).to_numpy(bool)

    def class_numbers(self, classes: list[str]) -> np.ndarray:
        """Number of each sample's class, (n,) int64.

        Args:
            classes: The label of each number, (k,).

        Raises:
            DataError: A label is none of the classes, or there are no labels.
        """
        labels = self.table["label"]
        if not self.labelled:
            raise DataError(
                f"{self.name} has no labels",
                expected=f"a label in every row, among {listed(classes)}",
                hint="add the column label",
            )
        numbers = pd.Index(classes).get_indexer(pd.Index(labels))
        if (numbers < 0).any():
            unknown = sorted(set(labels) - set(classes))
            near = alike_between(unknown, classes)
            raise DataError(
                f"{self.name} has labels that the training samples lack: {listed(unknown)}",
                expected=f"only the {len(classes)} training classes: {listed(classes)}",
                hint="correct these labels, or leave these rows out"
                + (f"; these differ only by {LOOKS}: {listed(near)}" if near else ""),
            )
        return numbers.astype(np.int64)

    def files(self) -> list[str]:
        """Absolute path, which may lead into a tar or Parquet file, or URL, of each row."""
        folder = str(self.folder)
        return [joined(folder, path) for path in self.table["path"]]

    def source(self, name: str) -> Place:
        """Where the `.npz` file or feature store lies that a cell of `feature_source` names."""
        return place_of(joined(self.folder, name))

    def select(self, rows: np.ndarray) -> Manifest:
        """Keep some rows, in the order given.

        What is left of an `.npz` file is a "table" without `embeddings`, just as if it had been written and
        read again: its `feature_source` column still says where the embeddings are, so no row can meet
        another's.

        Args:
            rows: Integers (m,), or booleans (n,).
        """
        kind = "table" if self.kind == "npz" else self.kind
        return replace(self, kind=kind, table=self.table.iloc[rows].reset_index(drop=True), embeddings=None)

    def without_labels(self) -> Manifest:
        """The same samples, unlabelled: for a pool whose folders or labels say nothing of the classes."""
        return replace(self, table=self.table.assign(label=""), labels_required=False)


_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{0,300})?")

LOOKS = "case, spaces, Unicode form or how a number is written"
"""By what labels differ that `alike` finds."""


def alike(labels: Iterable[str]) -> list[str]:
    """Labels that differ only by `LOOKS`: `Cat` and `cat `, `1`, `01` and `1.0`.

    Returns:
        Each set of such as `'Cat' / 'cat'`; where they would look the same, with escapes.
    """
    sets: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        # Once more after it: what folding makes may be composed otherwise.
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", label).strip().casefold())
        if _NUMBER.fullmatch(key):
            key = f"number {Fraction(key)}"
        sets.setdefault(key, []).append(label)
    return [_apart(same) for _, same in sorted(sets.items()) if len(same) > 1]


def _apart(labels: list[str]) -> str:
    """Some labels, so that they can be told apart."""
    look = {unicodedata.normalize("NFC", label) for label in labels}
    return " / ".join(map(repr if len(look) == len(labels) else ascii, labels))


def alike_between(labels: Iterable[str], others: Iterable[str]) -> list[str]:
    """As `alike`, of two sets of labels: what differs so within neither of them, but between them."""
    labels, others = list(labels), list(others)
    known = {*alike(labels), *alike(others)}
    return [pair for pair in alike([*labels, *others]) if pair not in known]
