"""From a table as its format gave it to the samples that are meant: columns, splits, paths."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd

from divacli.errors import Again, DataError, listed
from divacli.files.path_or_url import Place
from divacli.manifest.columns import FEATURE_SOURCE, SPLIT
from divacli.manifest.listing import Excluded
from divacli.manifest.locate import Located, locate
from divacli.manifest.splits import flag_of_split, require_split, split_column
from divacli.manifest.suggest import image_in_header, suggest
from divacli.manifest.table_columns import arranged, weighed
from divacli.manifest.written import is_written
from divacli.reading import ALL, NONE, Reading


@dataclass(frozen=True)
class Origin:
    """Where a table comes from.

    Attributes:
        name: How messages call it.
        given: DATA as it was named.
        folder: Where its relative paths start from, absolute.
        file: Where it lies; None of standard input, or of a table in memory.
        content: Its bytes, where it came on standard input.
    """

    name: str
    given: str
    folder: Place
    file: Place | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class TableSamples:
    """The samples of a table, their cells not typed yet.

    Attributes:
        table: With the columns path and label.
        folder: Where relative paths start from.
        roles: By path, label, weight and split the columns that they are made from, where they have another
            name or were asked for.
        used: All of these columns.
        notes: One sentence each.
        warnings: One sentence each.
    """

    table: pd.DataFrame
    folder: Place
    roles: dict[str, str] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def samples_of_table(
    raw: pd.DataFrame, origin: Origin, reading: Reading, *, labels_required: bool, located: bool = False
) -> TableSamples:
    """Find the samples of a table.

    In a table that diva wrote, columns are what they are called, and all rows are used, unless options say
    otherwise.

    Args:
        raw: As its format gave it.
        origin: Where it comes from.
        reading: What it is to be taken for.
        labels_required: Whether it must have labels.
        located: Whether its paths are known to lead to files.

    Raises:
        DataError: Columns are missing or not as stated, there are several splits and none is chosen, or a
            path fits several files.
    """
    name = origin.name
    raw, empty = _without_empty_end(raw, name)
    written = is_written(raw, origin.file, origin.content)
    if written and reading.role:  # options on columns are for tables of others
        reading = Reading(split=reading.split if reading.named_split else (), role=reading.role)
    if written and not _is_asked(reading):
        return TableSamples(raw, origin.folder, notes=empty)
    table, roles = arranged(raw, reading, name)
    weights: list[str] = []
    warnings: list[str] = []
    if not written or reading.weight is not None:
        doubtful = origin.content is not None
        table, weights, warnings = weighed(table, reading, name, doubtful=doubtful)
    if weights and reading.weight not in (None, NONE):
        roles["weight"] = weights[0]
    _require_columns(table, origin, reading, labels_required=labels_required)
    folder = origin.folder
    notes = empty
    if reading.exclude:
        table, told = _without(table, reading, name)
        notes = [*notes, *told]
    if not written or reading.split:
        if not reading.split and (flag := flag_of_split(table)) is not None:
            warnings.append(
                f"{name}: all rows are used, and column {flag} may tell splits: where it does, call it split."
            )
        table = _of_split(table, origin, reading, roles)
    used = [*weights, *(part for column in roles.values() for part in (column, *column.split(",")))]
    located = located or (written and reading.root is None) or FEATURE_SOURCE in table
    if not located and isinstance(folder, Path) and len(table):
        folder, found = _placed(table["path"], folder, reading, name)
        if found.changes:
            table = table.assign(path=pd.Series(found.paths, table.index, dtype="str"))
            notes = [*notes, *found.told(name)]
    return TableSamples(table.reset_index(drop=True), folder, roles, used, notes, warnings)


def _without_empty_end(table: pd.DataFrame, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The table without rows of empty cells at its end, which spreadsheets write, and what to say of them."""
    rows = table.iloc[::-1].itertuples(index=False, name=None)
    n = sum(1 for _ in takewhile(lambda row: all(isinstance(cell, str) and not cell for cell in row), rows))
    if not 0 < n < len(table):
        return table, []
    return table.iloc[: len(table) - n], [f"{name}: {n:,} rows of empty cells at its end are left out"]


def _is_asked(reading: Reading) -> bool:
    """Whether something is said of how a table is read."""
    return replace(reading, range=None, role="", beside=False) != Reading()


def _require_columns(table: pd.DataFrame, origin: Origin, reading: Reading, *, labels_required: bool) -> None:
    """Refuse a table without the columns, with the options that read it.

    Raises:
        DataError: Columns are missing.
    """
    required = ("path", "label") if labels_required else ("path",)
    missing = [column for column in required if column not in table]
    if not missing:
        return
    columns = [str(column) for column in table]
    folder = origin.folder if isinstance(origin.folder, Path) and origin.file is not None else None
    header = f"add the header {','.join(required)}"
    if (image := image_in_header(table)) is not None:
        raise DataError(
            f"{origin.name} has no header: its first line names a file, {image}. There is no column "
            f"{' and no column '.join(missing)}, but {listed(columns)}",
            expected=f"a first line with the columns {' and '.join(required)}",
            hint=header,
        )
    base = None if reading.root is None else Path(reading.root).resolve()
    found = suggest(table, folder, base, posixpath.basename(origin.name))
    given = {name for name in ("root", "split") if getattr(reading, name)}
    options = {name: value for name, value in found.options.items() if name not in given}
    got = f"{origin.name} has no column {' and no column '.join(missing)}; its columns are: "
    got += listed(columns, limit=12)
    expected = f"a first line with the columns {' and '.join(required)}, or options that name them"
    if found.n_found:
        where = f"{found.n_found} of {found.n_sought} cells of {options.get('path_column', 'path')}"
        got += f". Files were found for {where}"
    if "path" in missing and "path_column" not in options:
        raise DataError(got, expected=expected, hint=f"name it: --path-column NAME; or {header}")
    if "label" in missing and "label_column" not in options:
        if not found.labels:
            raise DataError(got, expected=expected, hint=f"name it: --label-column NAME; or {header}")
        options["label_column"] = found.labels[0]
        expected += f"; labels may be in {listed(list(found.labels))}"
    raise DataError(
        got, expected=expected, hint=Again(origin.given, origin.given, options, role=reading.role)
    )


def _without(table: pd.DataFrame, reading: Reading, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The table without the rows that patterns exclude, and what to say of them."""
    excluded = Excluded(reading.exclude)
    out = table["path"].map(lambda path: excluded(str(path)))
    if not out.any():
        return table, [] if reading.role else [f"{name}: nothing is excluded by {listed(excluded.unmatched)}"]
    return table[~out], [f"{name}: {int(out.sum()):,} rows are excluded"]


def _of_split(table: pd.DataFrame, origin: Origin, reading: Reading, roles: dict[str, str]) -> pd.DataFrame:
    """The rows of the splits that are chosen; the column that tells them is noted among the roles."""
    rows = rows_of_split(table, origin.name, reading, origin.given)
    if rows is None:
        return table
    roles["split"] = str(split_column(table))
    return table[rows]


def rows_of_split(table: pd.DataFrame, name: str, reading: Reading, given: str = "") -> np.ndarray | None:
    """Which rows are of the splits that are chosen, (n,) bool; None where all are used.

    Args:
        table: (n) rows.
        name: How messages call it.
        reading: Which splits are chosen.
        given: DATA as it was named, where that is not `name`.

    Raises:
        DataError: There are several splits and none is chosen, or one that is chosen is not there.
    """
    if reading.split == (NONE,):
        return None
    column = split_column(table)
    if column is None:
        if reading.named_split:
            raise DataError(
                f"{name} has no column {SPLIT}; its columns are: {listed(list(map(str, table)), limit=12)}",
                expected="a column split, or one whose cells are names of splits, such as train and test",
                hint="leave --split out, or rename the column that tells the splits to split",
            )
        return None
    cells = table[column].map(lambda cell: "" if cell is None or cell != cell else str(cell).strip())
    counts = {str(split): int(n) for split, n in cells.value_counts().sort_index().items() if split}
    if len(counts) < 2 and not reading.split:
        return None
    chosen = set(require_split(name, counts, reading, given=given))
    if reading.split == (ALL,):
        chosen.add("")  # rows that tell no split
    return cells.isin(chosen).to_numpy(bool)


def _placed(paths: pd.Series, folder: Path, reading: Reading, name: str) -> tuple[Path, Located]:
    """The folder that paths start from, and the paths as they lead to files."""
    written = [path if isinstance(path, str) else "" if path != path else str(path) for path in paths]
    places = [folder]
    if reading.root is not None:
        root = Path(reading.root).resolve()
        if not root.is_dir():
            raise DataError(
                f"--root {reading.root} is no folder", expected=f"the folder that paths of {name} start from"
            )
        places = [root, folder] if reading.role else [root]
    tried = [(place, locate(written, place, deep=reading.root is not None, name=name)) for place in places]
    return min(tried, key=lambda one: len(one[1].missing))


def require_no_options(reading: Reading, name: str, kind: str, names: Sequence[str]) -> None:
    """Refuse options of reading that mean nothing for a kind of DATA, and for no set beside it.

    Args:
        reading: The options.
        name: How messages call the data.
        kind: What it is.
        names: Of the options that are for tables only.

    Raises:
        DataError: One of them was given.
    """
    empty = Reading()
    wrong = [option for option in names if getattr(reading, option) != getattr(empty, option)]
    if reading.role or reading.beside:
        wrong = ["split"] if "split" in wrong and reading.named_split else []
    if wrong:
        flags = listed([f"--{option.replace('_', '-')}" for option in wrong])
        raise DataError(
            f"{name} is {kind}, which takes no {flags}",
            expected="a table, for these options",
            hint=f"leave {flags} out, or give the table",
        )
