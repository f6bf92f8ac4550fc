"""Samples that cannot be used, grouped by what their files are called and what is the matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from divacli.files.urls import suffix_of

if TYPE_CHECKING:
    import pandas as pd

_SAID = 3
_COUNTED = 20
_LONGEST = 10  # characters of a suffix: what is longer is a part of a name


@dataclass(frozen=True)
class Group:
    """Samples of one suffix that cannot be used for one reason.

    Attributes:
        suffix: Of their files, in small letters with its dot; "" for none.
        reason: As in `failed.csv`.
        n: How many.
    """

    suffix: str
    reason: str
    n: int


def groups_of(paths: Iterable[str], reasons: Iterable[str]) -> list[Group]:
    """Count samples that cannot be used by suffix and reason, the most first.

    Args:
        paths: Of each.
        reasons: Of each.
    """
    counted = Counter((_suffix(path), reason) for path, reason in zip(paths, reasons, strict=True))
    return [Group(suffix, reason, n) for (suffix, reason), n in counted.most_common()]


def said_of(groups: Sequence[Group]) -> str:
    """Say in a line how many samples cannot be used and why: three groups, then how many more.

    Args:
        groups: As of `groups_of`; at least one.
    """
    said = [f"{group.n:,} {group.suffix}".rstrip() + f" ({group.reason})" for group in groups[:_SAID]]
    others = sum(group.n for group in groups[_SAID:])
    return ", ".join(said) + (f" and {others:,} more" if others else "")


def left_out(failed: pd.DataFrame, what: str) -> str:
    """Say which samples cannot be used and why, in a line that names the first one.

    Args:
        failed: A row a sample, with the columns path and reason; at least one.
        what: What they are, such as "images".
    """
    said = said_of(groups_of(failed["path"], failed["reason"]))
    return (
        f"{len(failed):,} {what} cannot be used and are left out: {said}; the first: {failed['path'].iloc[0]}"
    )


def failed_counts(*tables: pd.DataFrame) -> dict[str, Any]:
    """Count failures for the summary of a command.

    Args:
        tables: Each with the columns path and reason.

    Returns:
        The key `failed` with the most frequent groups, each of `suffix`, `reason` and `n`; nothing where
        nothing failed.
    """
    paths = [str(path) for table in tables for path in table["path"]]
    reasons = [str(reason) for table in tables for reason in table["reason"]]
    groups = groups_of(paths, reasons)[:_COUNTED]
    return {"failed": [asdict(group) for group in groups]} if groups else {}


def _suffix(path: str) -> str:
    found = suffix_of(path)
    return f".{found}" if 0 < len(found) <= _LONGEST and found.isalnum() else ""
