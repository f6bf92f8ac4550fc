"""Find the options with which a table can be read: its columns, and the folder of its images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from divacli.errors import DataError
from divacli.images.kinds import is_called_image
from divacli.manifest.column_types import closest
from divacli.manifest.columns import COLUMN_TYPES
from divacli.manifest.locate import Finder, is_absolute
from divacli.manifest.splits import is_split_name, preferred, split_column, splits_of
from divacli.manifest.table_columns import is_one_hot

_ROWS = 64
"""Cells of a column that are looked for among the files."""

_PATHS = ("path", "file", "filename", "filepath", "image", "img", "photo", "picture", "id", "name")
_LABELS = (
    *("label", "class", "dx", "diagnosis", "target", "category", "species", "breed", "disease", "tag", "y"),
    *("type", "variety", "genus", "condition", "finding", "grade", "level", "classname"),
)
_IMAGES = frozenset(("image", "images", "img", "imgs", "photo", "photos", "jpeg", "jpegs", "rgb"))
_GROUPS = frozenset(
    ("patient", "subject", "lesion", "case", "study", "person", "participant", "individual", "sequence")
)
_NO_LABELS = frozenset(
    ("age", "sex", "gender", "site", "split", "fold", "date", "time", "width", "height", "size", "index")
)
_MOST_CLASSES = 2_000


@dataclass(frozen=True)
class Suggestion:
    """How a table can be read.

    Attributes:
        options: Names and values of options of reading.
        labels: Columns that may hold the labels, where none of them stands out.
        n_found: Of the paths that were looked for, so many lead to files.
        n_sought: So many were looked for.
    """

    options: Mapping[str, str | tuple[str, ...]]
    labels: Sequence[str]
    n_found: int
    n_sought: int


def suggest(
    table: pd.DataFrame, folder: Path | None, base: Path | None = None, called: str = ""
) -> Suggestion:
    """Find out which options read a table.

    Args:
        table: As its format gave it.
        folder: Where it lies; None for one that lies nowhere, whose paths start from the current folder.
        base: The folder of its images, where that is known.
        called: Its name: of folders that hold such files one that is called alike comes first.
    """
    options: dict[str, str | tuple[str, ...]] = {}
    if image_in_header(table) is not None:
        return Suggestion({}, [], 0, 0)
    path, root, n_found, n_sought = _path_column(table, folder, base, called)
    if path is not None and path != "path":
        options["path_column"] = path
    labels = [] if "label" in table else label_columns(table, path)
    if not labels and "label" not in table:
        likely = closest("label", [str(column) for column in table if column != path])
        labels = [] if likely is None else [likely]
    found = [] if "label" in table or len(labels) == 1 else _one_hot_columns(table, path)
    if found and set(labels) <= set(found):
        labels = []
    elif labels:
        found = []
    if found:
        comma = any("," in column for column in found)
        options["label_column"] = tuple(found) if comma else ",".join(found)
    elif len(labels) == 1:
        options["label_column"] = labels[0]
    if root is not None:
        options["root"] = root
    if group := group_column(table, path, labels):
        options["group"] = group
    if len(splits := splits_of(table)) > 1:
        options["split"] = preferred(splits)
    return Suggestion(options, labels if len(labels) > 1 else [], n_found, n_sought)


def image_in_header(table: pd.DataFrame) -> str | None:
    """The name of an image among those of the columns, which are then a row; None for none."""
    return next((str(column) for column in table if is_called_image(str(column))), None)


def words_of(column: str) -> list[str]:
    """The words in the name of a column: imageId and image_id are image and id."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column).lower())


def label_columns(table: pd.DataFrame, path: str | None) -> list[str]:
    """The column that is called as labels are, or all that may hold labels.

    Args:
        table: As read.
        path: Its column of paths.
    """
    split = split_column(table)
    possible = [
        str(column)
        for column in table
        if column not in (path, split) and _may_be_labels(table[column]) and str(column) not in COLUMN_TYPES
    ]
    for word in _LABELS:
        named = [column for column in possible if word in words_of(column) or column.lower() == word]
        if named:
            # Of class_id and class_name the names say more.
            return [min(named, key=lambda column: ("name" not in words_of(column), "id" in words_of(column)))]
    rest = [column for column in possible if not _NO_LABELS & set(words_of(column)) and not _is_group(column)]
    return rest or possible


def group_column(table: pd.DataFrame, path: str | None, labels: Sequence[str]) -> str | None:
    """The column whose equal values belong together, such as lesion_id, by its name."""
    if "group" in table:
        return None
    for column in map(str, table):
        if column != path and column not in labels and _is_group(column):
            n = table[column].map(str).nunique()
            if 1 < n < len(table):
                return column
    return None


def _is_group(column: str) -> bool:
    return bool(_GROUPS & set(words_of(column)))


def _may_be_labels(cells: pd.Series) -> bool:
    if pd.api.types.is_float_dtype(cells.dtype):
        return False
    try:
        values = cells.dropna().unique()
    except TypeError:  # lists, dicts
        return False
    texts = {str(value) for value in values}
    return 2 <= len(texts) <= min(_MOST_CLASSES, max(2, len(cells) // 2)) and not all(
        re.fullmatch(r"-?\d+\.\d+", text) for text in texts
    )


def _one_hot_columns(table: pd.DataFrame, path: str | None) -> list[str]:
    """Columns of 0 and 1 that are one-hot together."""
    marks = [
        str(column)
        for column in table
        if column != path and {str(cell) for cell in table[column].head(1000)} <= {"0", "1", "0.0", "1.0"}
    ]
    return marks if len(marks) > 1 and is_one_hot(table, marks) else []


def _path_column(
    table: pd.DataFrame, folder: Path | None, base: Path | None, called: str
) -> tuple[str | None, str | None, int, int]:
    """The column of paths, the folder they start from where it must be named, and how many were found."""
    columns = [str(column) for column in table if _texts(table[column])]
    best: tuple[int, int, str | None, str | None] = (0, 0, None, None)
    foreign = any(is_absolute(str(cell)) for column in columns for cell in table[column].head(_ROWS))
    for place, root, deep in _places(folder, base, called):
        # Of an absolute path of another machine only --root leads to its end.
        finder = Finder(place, deep=deep or (foreign and root is not None))
        for column in columns:
            cells = [str(cell) for cell in table[column].dropna()]
            sought = [cell for cell in cells[:: max(1, len(cells) // _ROWS)] if cell][:_ROWS]
            hits = sum(1 for cell in sought if not finder.lacks(cell) or len(_found(finder, cell)) == 1)
            if hits > best[0] and 2 * hits >= len(sought):
                best = (hits, len(sought), column, root)
        if best[0] and best[0] == best[1]:
            break
    hits, sought_n, path, root = best
    if path is None:
        path = "path" if "path" in columns else closest("path", columns) or _called(columns)
    return path, root, hits, sought_n


def _found(finder: Finder, cell: str) -> Mapping[str, Sequence[str]]:
    try:
        return finder.find(cell)
    except (DataError, ValueError):
        return {}


def _called(columns: Sequence[str]) -> str | None:
    """The column that is called as paths are."""
    for word in _PATHS:
        for column in columns:
            if column.lower() == word or word in words_of(column):
                return column
    return None


def _texts(cells: pd.Series) -> bool:
    """Whether cells may be paths or names of files, which are also numbers."""
    some = cells.dropna().head(_ROWS)
    return bool(len(some)) and all(
        isinstance(cell, str | int) and not isinstance(cell, bool) for cell in some
    )


def _places(folder: Path | None, base: Path | None, called: str) -> list[tuple[Path, str | None, bool]]:
    """Where images may lie, what `--root` names it, and whether sub-folders are looked into."""
    if base is not None:
        return [(base, str(base), True)]
    here = Path.cwd()
    if folder is None:
        return [(here, None, False), *_below(here, here, called), (here, ".", True)]
    found: list[tuple[Path, str | None, bool]] = [(folder, None, False), *_below(folder, here, called)]
    found.append((folder, _typed(folder, here), True))
    if here != folder:
        found.append((here, ".", False))
    if folder.parent != here:
        found.append((folder.parent, _typed(folder.parent, here), False))
    return found + _below(folder.parent, here, called)


def _below(folder: Path, here: Path, called: str) -> list[tuple[Path, str | None, bool]]:
    try:
        subs = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []
    words = set(words_of(called.rpartition(".")[0]))

    def unlikely(sub: Path) -> tuple[bool, bool, bool, str]:
        own = words_of(sub.name)
        of_others = is_split_name(sub.name) and "train" not in sub.name.lower()
        return words.isdisjoint(own), of_others, _IMAGES.isdisjoint(own), sub.name

    subs.sort(key=unlikely)
    return [(sub, _typed(sub, here), False) for sub in subs[:100]]


def _typed(folder: Path, here: Path) -> str:
    """A folder as it would be typed: relative where it lies below the current one."""
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
