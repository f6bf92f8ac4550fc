"""How DATA is to be read, where it does not say that itself: the options of reading.

Source of the cases: reports of what people give to curation tools; docs/data.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

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


OPTIONS = tuple(field.name for field in fields(Reading) if field.name != "role")
"""Names of all options."""

AS_IT_IS = Reading()
"""Nothing was asked for."""

EVERY = Reading(split=(ALL,), role="truth")
"""Of a set that is only compared with DATA, such as true labels: all that is there."""


_WHOLE = ("truth", "manifest")
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
