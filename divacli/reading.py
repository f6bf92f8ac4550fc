"""How DATA is to be read, where it does not say that itself: the options of reading.

Source of the cases: reports of what people give to curation tools; docs/reading.md has the options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from divacli.errors import DataError

ALL = "all"
"""As the one split: every split."""

NONE = "none"
"""As the one split: what looks like splits is none. As the column of weights: there is none."""


@dataclass(frozen=True)
class Reading:
    """What DATA is to be taken for.

    Attributes:
        split: Names of the splits that are read, or `ALL`, or `NONE`; empty: DATA must not have several.
        path_column: Column of a table that names the images. None: path.
        label_column: Column of the labels; several are one-hot, one column a class. Empty: label.
        label_from: Regular expression; its first group in the name of a file, or all of it, is the label.
        root: Folder that the paths of a table start from. None: the table's own.
        weight: Column of a table that holds the weights of samples, or `NONE`. None: weight in a table that
            diva wrote, else none.
        exclude: Glob patterns of paths, relative to DATA, that are no samples.
        role: "" of DATA; of a set beside it the name of its argument, such as "test". Options on columns are
            then for tables that have these columns, and the others have path and label.
        range: The values that are black and white in images of more than 8 bits. None: looked for.
        beside: Of DATA, whether there are sets beside it: options on columns may be for these alone.
    """

    split: tuple[str, ...] = ()
    path_column: str | None = None
    label_column: tuple[str, ...] = ()
    label_from: str | None = None
    root: str | None = None
    weight: str | None = None
    exclude: tuple[str, ...] = ()
    role: str = ""
    range: tuple[float, float] | None = None
    beside: bool = False

    @property
    def named_split(self) -> bool:
        """Whether a split is asked for that must be there; of a set beside DATA all may be none."""
        return self.split not in ((), (NONE,)) and not (self.role and self.split == (ALL,))


OPTIONS = tuple(field.name for field in fields(Reading) if field.name not in ("role", "beside"))
"""Names of all options."""

AS_IT_IS = Reading()
"""Nothing was asked for."""

EVERY = Reading(split=(ALL,), weight=NONE, role="truth")
"""Of a set that is only compared with DATA, such as true labels: all that is there."""

AS_CALLED = Reading(split=(ALL,), weight="weight", role="table")
"""Of a table whose columns are what they are called, whoever wrote it: all rows, with their weights."""

_WHOLE = ("truth", "manifest", "table")
"""Sets of which all is read, always."""


def called(name: str, reading: Reading) -> str:
    """What messages call a data set.

    Args:
        name: Its own name.
        reading: What it is to be taken for.
    """
    if not reading.split or reading.role in ("", *_WHOLE):
        return name
    return f"{name} (split {', '.join(reading.split)})"


@dataclass(frozen=True)
class NamedData:
    """DATA by its name, with what it is to be taken for.

    Attributes:
        name: As on the command line.
        reading: What it is to be taken for.
    """

    name: str
    reading: Reading = AS_IT_IS

    @property
    def label(self) -> str:
        """What messages call it: a set beside DATA may be another split of the same."""
        return called(self.name, self.reading)


@dataclass(frozen=True)
class Source:
    """DATA, and what it is to be taken for where it does not say that itself.

    It stands wherever DATA does: `divacli.score(divacli.Source("train.csv", path_column="image_id"))`.

    Attributes:
        data: Any DATA.
        split: The split that is read, or several; "all"; "none" where what looks like splits is none.
        path_column: Column of a table that names the images.
        label_column: Column of the labels; several are one-hot, one column a class.
        label_from: Regular expression; its first group in the name of a file is the label.
        root: Folder that the paths of a table start from; its sub-folders are looked into, too.
        weight: Column that holds the weights of samples, or "none".
        exclude: Glob pattern of files and folders that are left out, or several.
        range: The values that are black and white in images of more than 8 bits.
    """

    data: Any
    split: str | Sequence[str] = ()
    path_column: str | None = None
    label_column: str | Sequence[str] = ()
    label_from: str | None = None
    root: str | None = None
    weight: str | None = None
    exclude: str | Sequence[str] = ()
    range: tuple[float, float] | None = None

    @property
    def reading(self) -> Reading:
        """The same as reading takes it.

        Raises:
            DataError: The range is none.
        """
        if self.range is not None:
            right = len(self.range) == 2 and float(self.range[0]) < float(self.range[1])
            if not right:
                raise DataError(f"range={self.range!r}", expected="two numbers, the lower one first")
        return Reading(
            split=_several(self.split),
            path_column=self.path_column,
            label_column=_several(self.label_column),
            label_from=self.label_from,
            root=None if self.root is None else str(self.root),
            weight=self.weight,
            exclude=_several(self.exclude),
            range=self.range,
        )

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name in OPTIONS and getattr(self, one.name) != one.default
        }


def _several(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
