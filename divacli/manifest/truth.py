"""True labels, where they are known: find the samples whose given label is right."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.manifest import Manifest
from divacli.manifest.columns import TRUE_LABEL
from divacli.manifest.identity import npz_sources


def right_labels(manifest: Manifest, truth: Manifest | None) -> np.ndarray | None:
    """Which of some samples have their true label.

    Samples are found in the truth by their file; rows of an `.npz` file by their name in it.

    Args:
        manifest: (n) the samples.
        truth: Samples with the column `true_label`, or with their true labels as labels; None for the
            manifest's own column `true_label`.

    Returns:
        (n,) bool; None where there is neither.

    Raises:
        DataError: The truth has no label for some of the samples.
    """
    if truth is None and TRUE_LABEL not in manifest.table:
        return None
    found = manifest.table[TRUE_LABEL] if truth is None else _found(manifest, truth)
    missing = manifest.table["path"][found == ""].tolist()
    if missing:
        raise DataError(
            f"{(truth or manifest).name} has no true label for {len(missing):,} of {len(found):,} samples: "
            f"{listed(missing)}",
            expected=f"the true label of every sample of {manifest.name}, found by its path",
            hint="add them in a column true_label or label; relative paths start from the table's own folder",
        )
    return (found == manifest.table["label"]).to_numpy()


def known_wrong(manifest: Manifest, truth: Manifest | None = None) -> np.ndarray | None:
    """Which of some samples are known to have a wrong label; their own column may be empty where it is not.

    Args:
        manifest: (n) the samples.
        truth: As for `right_labels`.

    Returns:
        (n,) bool; None where there are no true labels.

    Raises:
        DataError: The truth has no label for some of the samples.
    """
    if truth is None and TRUE_LABEL in manifest.table:
        own = manifest.table[TRUE_LABEL]
        return ((own != "") & (own != manifest.table["label"])).to_numpy()
    right = right_labels(manifest, truth)
    return None if right is None else ~right


def _found(manifest: Manifest, truth: Manifest) -> pd.Series:
    """The true label of each sample (n,), "" where the truth has none."""
    labels = truth.table["label" if TRUE_LABEL not in truth.table else TRUE_LABEL]
    by_name = dict(zip(truth.table["path"], labels, strict=True))
    by_file = dict(zip(map(os.path.realpath, truth.files()), labels, strict=True))
    rows = zip(npz_sources(manifest), manifest.table["path"], manifest.files(), strict=True)
    found = [
        by_name.get(path, "") if source else by_file.get(os.path.realpath(file), "")
        for source, path, file in rows
    ]
    return pd.Series(found, dtype="str")
