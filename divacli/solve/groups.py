"""Groups of samples that are left out together: named by a column, or copies of each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from divacli.errors import DataError, listed
from divacli.manifest import Manifest

DEFAULT_GROUP = "group"
"""The column that names groups where no other is asked for."""

DUPLICATES_GROUP = "duplicates"
"""The column that names the sets of copies, where samples have copies and they were searched for."""


def group_numbers(manifest: Manifest, column: str | None) -> torch.Tensor | None:
    """(n,) int64 number of each sample's group, or None where every sample is a group of its own.

    Args:
        manifest: The samples.
        column: That names the groups. The default one is optional, and ignored where it tells nothing apart.

    Raises:
        DataError: As `required_groups`.
    """
    numbers = _numbered(manifest, column)
    return None if numbers is None or len(numbers.unique()) == len(numbers) else numbers


def group_count(manifest: Manifest, column: str | None) -> int | None:
    """How many groups `group_numbers` tells apart, samples of their own among them; None without a column."""
    numbers = _numbered(manifest, column)
    return None if numbers is None else len(numbers.unique())


def required_groups(manifest: Manifest, column: str) -> torch.Tensor:
    """(n,) int64 number of each sample's group, by a column that somebody asked for.

    Raises:
        DataError: There is no such column, or it has one value only.
    """
    require_group_column(manifest, column)
    numbers = _numbers_of(manifest.table[column])
    if len(numbers.unique()) < 2:
        raise DataError(
            f"{manifest.name}: column {column} has the same value in every row",
            expected="at least two groups: each is predicted from the others",
            hint="use --group none",
        )
    return numbers


def require_group_column(manifest: Manifest, column: str) -> None:
    """Refuse samples without a column that names their groups.

    Raises:
        DataError: There is no such column.
    """
    if column not in manifest.table:
        raise DataError(
            f"{manifest.name} has no column {column} for --group; its columns are: "
            + listed(manifest.table.columns.tolist(), limit=12),
            expected="a column whose equal values belong together, such as patient_id; a sample with an "
            "empty cell belongs to nobody",
            hint="name one of these, add the column, or leave --group out"
            if column != DUPLICATES_GROUP
            else "leave that column out of DATA: copies are then searched for in all sets together",
        )


def _numbered(manifest: Manifest, column: str | None) -> torch.Tensor | None:
    if column is None or (column == DUPLICATES_GROUP and column not in manifest.table):  # there are no copies
        return None
    if column == DEFAULT_GROUP:  # nobody may have asked for it
        if column not in manifest.table:
            return None
        numbers = _numbers_of(manifest.table[column])
        return numbers if len(numbers.unique()) > 1 else None
    return required_groups(manifest, column)


def _numbers_of(cells: pd.Series) -> torch.Tensor:
    names = group_names(cells)
    # An empty cell belongs to nobody.
    alone = np.flatnonzero(names == "")
    numbers, found = pd.factorize(names)
    numbers[alone] = len(found) + np.arange(len(alone))
    return torch.from_numpy(numbers.astype(np.int64))


def group_names(cells: pd.Series) -> pd.Series:
    """Cells of any type as text, "" where they are blank or missing."""
    names = cells.astype(object).where(cells.notna(), "").map(str)
    return names.mask(names.str.strip() == "", "")
