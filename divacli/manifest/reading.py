"""How DATA is to be read, where it does not say that itself: the options of reading.

Source of the cases: reports of what people give to curation tools; docs/data.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        range: The values that are black and white in images of more than 8 bits. None: looked for.
    """

    split: tuple[str, ...] = ()
    path_column: str | None = None
    label_column: tuple[str, ...] = ()
    label_from: str | None = None
    root: str | None = None
    weight: str | None = None
    exclude: tuple[str, ...] = ()
    range: tuple[float, float] | None = None


AS_IT_IS = Reading()
"""Nothing is said."""
