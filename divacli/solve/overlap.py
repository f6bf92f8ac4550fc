"""Count samples whose group is in two sets. Their predictions look better than they are."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
import pandas as pd

from divacli.errors import DataError
from divacli.manifest import Manifest
from divacli.manifest.identity import npz_sources
from divacli.solve.groups import group_names


def kin_of(others: Manifest, manifest: Manifest, column: str | None) -> np.ndarray:
    """Which samples are of a group that stands in another set, too; none where a set lacks the column.

    Args:
        others: The other set.
        manifest: (n) samples.
        column: That names the groups; an empty cell belongs to nobody. None for no groups.

    Returns:
        (n,) bool.
    """
    if column is None or column not in manifest.table or column not in others.table:
        return np.zeros(len(manifest.table), dtype=bool)
    known = set(group_names(others.table[column])) - {""}
    return group_names(manifest.table[column]).isin(known).to_numpy()


def present_kin(others: Manifest, manifest: Manifest, column: str | None) -> tuple[int, int]:
    """How many samples of positive weight are kin of others of positive weight, and out of how many.

    Args:
        others: As for `kin_of`, and so are the rest.
        manifest: The samples.
        column: Of groups.
    """
    there, counted = (part.select((part.table["weight"] > 0).to_numpy()) for part in (others, manifest))
    return int(kin_of(there, counted, column).sum()), len(counted.table)


class Located(Protocol):
    """Samples of which it is known where they are and, if their content was read, what is in them."""

    @property
    def manifest(self) -> Manifest:
        """The samples."""

    @property
    def keys(self) -> np.ndarray | None:
        """(n, 32) uint8 digest of each one's content."""


def shared_samples(training: Located, test: Located) -> int:
    """How many samples of a test set are also in a training set: one file, row or content."""
    return int(which_shared(training, test).sum())


def which_shared(first: Located, second: Located) -> np.ndarray:
    """Which samples of a second set are also in the first one, (m,) bool: one file, row or content."""
    same = pd.Series(sample_places(second.manifest)).isin(sample_places(first.manifest)).to_numpy()
    if second.keys is not None and first.keys is not None:
        known = {key.tobytes() for key in first.keys}
        same = same | [key.tobytes() in known for key in second.keys]
    return same


def sample_places(manifest: Manifest) -> list[str]:
    """Where each sample is found: its file, or its name in an `.npz` file."""
    rows = zip(npz_sources(manifest), manifest.table["path"], manifest.files(), strict=True)
    return [
        f"{os.path.realpath(str(manifest.source(source)))}\0{path}" if source else os.path.realpath(file)
        for source, path, file in rows
    ]


def check_one_table(core: Manifest, pool: Manifest) -> None:
    """Refuse images beside embeddings: the table of both could not be read back.

    Raises:
        DataError: One of the two brings its features.
    """
    brings = ["feature_source" in manifest.table for manifest in (core, pool)]
    if brings[0] != brings[1]:
        names = [core.name, pool.name]
        raise DataError(
            f"{names[brings.index(True)]} brings its features and {names[brings.index(False)]} does not",
            expected="both with features or both as images, to stand in one table",
            hint="make a store of the images with diva embed, and give that",
        )
