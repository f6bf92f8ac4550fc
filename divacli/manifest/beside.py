"""Find the table that lies beside a folder's images and names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from divacli.errors import Again, DataError
from divacli.files.formats import LIST_FORMATS, TABLE_FORMATS
from divacli.files.urls import suffix_of
from divacli.manifest.locate import stems_of
from divacli.manifest.suggest import Suggestion, suggest
from divacli.manifest.table_file import read_table_file

_MOST_BYTES = 1 << 28
_MOST_TABLES = 10
_ROWS = 2_000
_AGREE = 0.95


@dataclass(frozen=True)
class Beside:
    """A table that names images of a folder.

    Attributes:
        file: The table.
        column: That names the images.
        n_named: Rows of a sample that name images of the folder.
        n_rows: Rows of the sample.
        suggestion: How it can be read.
        agrees: Whether one of its columns tells the same classes as the folders.
        labelled: Whether one of its columns may be labels.
    """

    file: Path
    column: str
    n_named: int
    n_rows: int
    suggestion: Suggestion
    agrees: bool
    labelled: bool

    @property
    def told(self) -> str:
        """What the table names, in some words."""
        return f"column {self.column} of {self.file.name} names {self.n_named:,} of {self.n_rows:,} images"

    def again(self, given: str, role: str, **more: str) -> Again:
        """The command that reads the table.

        Args:
            given: The folder as it was named.
            role: As of `Reading`.
            more: Further options.
        """
        return Again(given, str(self.file), {**self.suggestion.options, **more}, role=role)


def table_beside(
    folder: Path, others: Sequence[str], labels: Mapping[str, str], *, around: bool = False
) -> Beside | None:
    """Find the table that names the images of a folder.

    Args:
        folder: The folder.
        others: Files in it that are no images, relative to it.
        labels: By the path of an image, relative to the folder, the folder that would be its class.
        around: Whether tables next to the folder are looked at, too.

    Returns:
        The table that names most; None where none names at least half of what it lists.
    """
    files = [folder / other for other in others if "/" not in other]
    if around:
        files += sorted(path for path in folder.resolve().parent.iterdir() if path.is_file())
    tables = [file for file in files if _is_table(file)][:_MOST_TABLES]
    if not tables:
        return None
    known = _Known(labels)
    found = [beside for file in tables if (beside := _names(file, folder, known)) is not None]
    return max(found, key=lambda one: one.n_named, default=None)


class _Known:
    """The images of a folder by what a table may call them: their paths, or their names alone.

    Args:
        labels: By the path of an image the folder that would be its class.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._of_path = labels
        self._of_stem: dict[str, str | None] = {}
        for path, label in labels.items():
            stem = _stem(path)
            # A name that images of several folders have tells no folder.
            self._of_stem[stem] = label if self._of_stem.get(stem, label) == label else None

    def __contains__(self, cell: object) -> bool:
        return _stem(str(cell)) in self._of_stem

    def label(self, cell: object) -> str | None:
        """The folder of the image that a cell names; None where it names none, or several."""
        path = str(cell).replace("\\", "/").removeprefix("./")
        while path:
            if path in self._of_path:
                return self._of_path[path]
            path = path.partition("/")[2]
        return self._of_stem.get(_stem(str(cell)))


def _is_table(file: Path) -> bool:
    try:
        return (
            suffix_of(file.name) in (*TABLE_FORMATS, *LIST_FORMATS)
            and file.is_file()
            and file.stat().st_size <= _MOST_BYTES
        )
    except OSError:
        return False


def _names(file: Path, folder: Path, known: _Known) -> Beside | None:
    format = suffix_of(file.name)
    try:
        table, _ = read_table_file(file, format, str(file))
    except (DataError, OSError):
        return None
    best: tuple[int, str] | None = None
    some = table.iloc[:: max(1, len(table) // _ROWS)]
    for column in map(str, table):
        cells = [str(cell) for cell in some[column] if isinstance(cell, str | int)]
        n_named = sum(1 for cell in cells if cell in known)
        if cells and 2 * n_named >= len(cells) and (best is None or n_named > best[0]):
            best = n_named, column
    if best is None:
        return None
    n_named, column = best
    found = suggest(table, file.parent, folder)
    labelled = "label" in table or "label_column" in found.options or bool(found.labels)
    return Beside(file, column, n_named, len(some), found, _agrees(some, column, known), labelled)


def _stem(cell: str) -> str:
    return next(iter(stems_of([cell.replace("\\", "/")])))


def _agrees(table: pd.DataFrame, column: str, known: _Known) -> bool:
    """Whether a column of a table tells the classes that the folders tell."""
    folders = table[column].map(known.label)
    here = folders.notna()
    folders = folders[here]
    if folders.nunique() < 2:
        return False
    for other in map(str, table):
        if other == column:
            continue
        try:
            counts = pd.crosstab(table[other][here].map(str), folders)
        except TypeError:
            continue
        total = counts.to_numpy().sum()
        if counts.shape[0] <= 2 * counts.shape[1] and total:
            pure = min(counts.max(axis=0).sum(), counts.max(axis=1).sum()) / total
            if pure >= _AGREE:
                return True
    return False
