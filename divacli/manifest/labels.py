"""Labels that were changed, and what they were before."""

from __future__ import annotations

import numpy as np
import pandas as pd

from divacli.manifest.columns import without_scores


def with_labels(table: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    """The samples with other labels and without scores.

    `given_label` is the label before any change, in every row: where one was made before, the label before
    that is kept.

    Args:
        table: The samples, with `label`; it may hold scores.
        labels: (n,) text, the labels from now on.
    """
    given = table["label"]
    if "given_label" in table:
        known = table["given_label"]
        given = known.where(known != "", given)
    manifest = without_scores(table).drop(columns="given_label", errors="ignore").assign(label=labels)
    manifest.insert(list(manifest).index("label") + 1, "given_label", given)
    return manifest
