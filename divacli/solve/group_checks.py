"""Groups that are left out together: which column tells them, and which samples must not share one."""

from __future__ import annotations

from collections.abc import Callable

from divacli.manifest import Manifest
from divacli.solve.groups import (
    DEFAULT_GROUP,
    DUPLICATES_GROUP,
    group_numbers,
    require_group_column,
    required_groups,
)
from divacli.solve.overlap import present_kin


class GroupChecks:
    """The groups of one run.

    Args:
        group: A column, "duplicates" to search for copies where DATA has no such column, "none", or None for
            the default column where there is such.
        warn: Told what the user should know, one sentence at a time.
    """

    def __init__(self, group: str | None, warn: Callable[[str], None]) -> None:
        self._group = group
        self._warn = warn

    @property
    def column(self) -> str | None:
        """The column of groups that left-out samples are taken out with, whether it is there or not."""
        return {None: DEFAULT_GROUP, "none": None}.get(self._group, self._group)

    def searches_copies(self, training: Manifest) -> bool:
        """Whether the groups are the sets of copies: `--group duplicates`, and no such column of DATA."""
        return self._group == DUPLICATES_GROUP and DUPLICATES_GROUP not in training.table

    def check(self, training: Manifest) -> None:
        """Refuse samples in which the column that was named tells no groups; warn where none has two members.

        Raises:
            DataError: There is no such column, or it has one value only.
        """
        column = self.column
        if self._group is None or column is None or self.searches_copies(training):
            return
        required_groups(training, column)
        if group_numbers(training, column) is None:
            self._warn(
                f"{training.name}: no two samples are of one {column}: every one is left out by itself"
            )

    def check_all(self, core: Manifest, pools: list[Manifest], judged: Manifest | None) -> None:
        """Check the groups of a core, and that those of all who must not be its kin are known.

        Raises:
            DataError: A set lacks the column that was named, or the core has one value only in it.
        """
        self.check(core)
        column = self.column
        if self.searches_copies(core):
            return
        for other in [*pools, *([judged] if judged is not None else [])]:
            if self._group is not None and column is not None:
                require_group_column(other, column)
            elif group_numbers(core, column) is not None and column not in other.table:
                self._warn(
                    f"{other.name} has no column {column}, which {core.name} has: "
                    "who of a pool is kin of those that judge it cannot be told"
                )
        if judged is not None:
            self.warn_of_kin(core, judged)

    def warn_of_kin(self, training: Manifest, judged: Manifest) -> None:
        """Say how many samples that a loss or error is over are kin of those that are trained on."""
        column = self.column
        n_kin, n = present_kin(training, judged, column)
        if n_kin:
            what = "have copies" if column == DUPLICATES_GROUP else f"are of a {column} that is also"
            self._warn(
                f"{n_kin:,} of the {n:,} samples of {judged.name} {what} in "
                f"{training.name}: they are predicted from their own kin, which flatters"
            )
