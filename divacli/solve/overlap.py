"""Samples of one group in two sets: what is predicted from its kin looks better than it is."""

from __future__ import annotations

import numpy as np

from divacli.manifest import Manifest
from divacli.solve.solution import group_names


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
