"""DATA with what it is to be taken for, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from divacli.errors import DataError
from divacli.reading import OPTIONS, Reading


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
