"""Labels that were changed, and what they were before."""

from __future__ import annotations

import numpy as np
import pandas as pd

from divacli.manifest.columns import GIVEN_LABEL, without_scores


def with_labels(table: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    """The samples with other labels and without scores.

    `given_label` is the label before any change, in every row: where one was made before, the label before
    that is kept.

    Args:
        table: The samples, with `label`; it may hold scores.
        labels: (n,) text, the labels from now on.
    """
    given = table["label"]
    if GIVEN_LABEL in table:
        known = table[GIVEN_LABEL]
        given = known.where(known != "", given)
    manifest = without_scores(table).drop(columns=GIVEN_LABEL, errors="ignore").assign(label=labels)
    manifest.insert(list(manifest).index("label") + 1, GIVEN_LABEL, given)
    return manifest
