"""Make the columns path, label and weight of a table from the columns that hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from divacli.errors import Advice, DataError, listed
from divacli.manifest.column_types import is_missing, row_numbers
from divacli.reading import NONE, Reading

_SET = {"1", "1.0", "true", "yes"}
_UNSET = {"0", "0.0", "", "false", "no"}


def arranged(raw: pd.DataFrame, reading: Reading, name: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Make the columns path and label from those that hold them.

    A column that is used is copied; a column of the user's that has the name already is kept as `original_`
    and its name.

    Args:
        raw: The table as its format gave it.
        reading: Which columns these are.
        name: How messages call the table.

    Returns:
        The table, and by `path` and `label` where they were made from: a column, several with commas between,
        or a pattern.

    Raises:
        DataError: A column is not there, or a row has no class or several.
    """
    table = raw
    roles: dict[str, str] = {}
    if (column := reading.path_column) is not None and _applies(table, [column], "path", reading):
        _require(table, [column], name)
        table = _with(table, "path", table[column], column, name)
        roles["path"] = column
    columns = _label_columns(table, reading)
    if columns and _applies(table, columns, "label", reading):
        _require(table, columns, name)
        labels = table[columns[0]] if len(columns) == 1 else one_hot(table, columns, name)
        table = _with(table, "label", labels, columns[0] if len(columns) == 1 else "", name)
        roles["label"] = columns[0] if len(columns) == 1 else ",".join(columns)
    elif reading.label_from is not None and "path" in table:
        labels = pd.Series(
            labels_from(table["path"].map(str).tolist(), reading.label_from, name), table.index
        )
        table = _with(table, "label", labels, "", name)
        roles["label"] = reading.label_from
    return table, roles


def weighed(
    table: pd.DataFrame, reading: Reading, name: str, *, doubtful: bool = False
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Take the column of weights that was asked for, and no other.

    Args:
        table: That diva did not write.
        reading: Which column holds weights.
        name: How messages call the table.
        doubtful: Whether diva may have written it: then weights that were not asked for are refused.

    Returns:
        The table, the name of the column that is used, and warnings.

    Raises:
        DataError: There is no such column, or it is not known whether weights are meant.
    """
    column = reading.weight
    if column not in (None, NONE) and not (reading.role and column not in table):
        _require(table, [str(column)], name)
        return _with(table, "weight", table[column], str(column), name), [str(column)], []
    if "weight" not in table or all(str(cell) in ("1", "1.0") for cell in table["weight"]):
        return table, [], []
    numbers = pd.to_numeric(table["weight"], errors="coerce")
    told = f"{numbers.min():g} to {numbers.max():g}" if numbers.notna().all() else "not all numbers"
    if column is None and doubtful:
        raise DataError(
            f"{name} has a column weight ({told}), and is no table as diva wrote it",
            expected="to be told whether these are the weights of the samples",
            hint=Advice("{weight} weight, where they are; {weight} none, where they are not"),
        )
    kept = _original("weight", table, name)
    renamed = table.rename(columns={"weight": kept})
    if column == NONE:
        return renamed, [], []
    advice = "--weight weight uses it as weights of samples, --weight none says that it holds none"
    return (
        renamed,
        [kept],
        [f"{name}: its column weight ({told}) is not used, because diva did not write this table. {advice}."],
    )


def _applies(table: pd.DataFrame, columns: Sequence[str], needed: str, reading: Reading) -> bool:
    """Whether an option on columns is for this table: one beside DATA may have the usual ones instead."""
    return not (reading.role and needed in table and any(column not in table for column in columns))


def _label_columns(table: pd.DataFrame, reading: Reading) -> list[str]:
    """The columns of labels; several may stand in one text, with commas between."""
    found: list[str] = []
    for text in reading.label_column:
        found += [text] if text in table else [part.strip() for part in text.split(",")]
    return list(dict.fromkeys(found))


def _require(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(
            f"{name} has no column {' and no column '.join(missing)}",
            expected=f"one of its columns: {listed([str(column) for column in table], limit=12)}",
        )


def _with(table: pd.DataFrame, target: str, cells: pd.Series, source: str, name: str) -> pd.DataFrame:
    """The table with a column of a name that diva reads, in front; another one of that name is kept."""
    if source == target:
        return table
    if target in table:
        table = table.rename(columns={target: _original(target, table, name)})
    added = pd.DataFrame({target: cells})
    made = pd.concat([added, table], axis=1)
    made.attrs = dict(table.attrs)
    return made


def _original(column: str, table: pd.DataFrame, name: str) -> str:
    kept = f"original_{column}"
    if kept in table:
        raise DataError(
            f"{name} has a column {column} and a column {kept}",
            expected=f"no column {kept}: the name that {column} is kept under",
            hint="rename one of them",
        )
    return kept


def one_hot(table: pd.DataFrame, columns: Sequence[str], name: str) -> pd.Series:
    """The label of each row: the name of the column in which it has a 1.

    Args:
        table: (n) rows.
        columns: One a class; cells are 0 or 1.
        name: How messages call the table.

    Returns:
        (n,) text.

    Raises:
        DataError: A cell is something else, or a row has no 1 or several.
    """
    marks = pd.DataFrame({column: _marks(table[column], f"{name}: column '{column}'") for column in columns})
    wrong = marks.sum(axis=1) != 1
    if wrong.any():
        some = marks[wrong].iloc[0]
        found = [str(column) for column in columns if some[column]]
        raise DataError(
            f"{name}: {int(wrong.sum()):,} rows are not of one class, {row_numbers(wrong)}: the first has "
            + (f"{len(found)}: {listed(found)}" if found else "none"),
            expected="a 1 in exactly one of the columns of labels",
            hint="leave these rows out, or name the columns of all classes",
        )
    return marks.idxmax(axis=1).astype("str")


def _marks(cells: pd.Series, where: str) -> pd.Series:
    words = ["" if is_missing(cell) else str(cell).strip().lower() for cell in cells]
    wrong = [word not in _SET and word not in _UNSET for word in words]
    if any(wrong):
        raise DataError(
            f"{where} is neither 0 nor 1 in {row_numbers(wrong)}: {words[wrong.index(True)][:40]!r}",
            expected="a 1 for the class of a row and 0 for others",
            hint="name one column alone where that holds the labels",
        )
    return pd.Series([word in _SET for word in words], cells.index)


def is_one_hot(table: pd.DataFrame, columns: Sequence[str]) -> bool:
    """Whether rows have a 1 in one of some columns each, but for a few that lack it or have more.

    A class may be empty, as UNK in the training sets of ISIC.
    """
    try:
        marks = pd.DataFrame({column: _marks(table[column], "") for column in columns})
    except DataError:
        return False
    return bool(((marks.sum(axis=1) == 1).mean() > 0.95) and marks.any().sum() > 1)


def labels_from(paths: Sequence[str], pattern: str, name: str) -> list[str]:
    """Labels out of paths.

    Args:
        paths: Of n samples.
        pattern: A regular expression that is looked for in the last part of each path, or, where it has a
            "/", in all of it. Its first group is the label, or all that it matches.
        name: How messages call the data.

    Returns:
        n labels.

    Raises:
        DataError: The pattern is none, or does not match some of the paths.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"{pattern!r} is no regular expression: {error}", expected=r"one such as '([a-z]+)\.'"
        ) from error
    labels: list[str] = []
    unmatched: list[str] = []
    for path in paths:
        whole = path.replace("\\", "/")
        found = compiled.search(whole if "/" in pattern else whole.rpartition("/")[2])
        label = None if found is None else (found[1] if compiled.groups else found[0])
        if label:
            labels.append(label)
        else:
            unmatched.append(path)
    if unmatched:
        raise DataError(
            f"{name}: {pattern!r} finds no label in {len(unmatched):,} of {len(paths):,} paths: "
            f"{listed(unmatched)}",
            expected="a pattern that fits every one, with the label in its first group",
            hint="write a pattern that fits these too, or exclude them",
        )
    return labels
