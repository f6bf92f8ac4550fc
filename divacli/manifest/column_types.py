"""Turn the cells of a table into typed values. Stack several tables into one."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.manifest.columns import BESIDE_DERIVATIVE, COLUMN_TYPES, COMMON, DERIVATIVE, OPTIONAL, REQUIRED

ALIASES = {
    "path": (
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "img",
        "img_path",
    ),
    "label": ("class", "class_name", "target", "category", "labels", "y"),
}
"""What other tools call the two columns that diva cannot do without."""

_WHOLE = 2**53
"""From here on float64 does not hold every whole number."""


def typed(
    raw: pd.DataFrame, name: str, *, labels_required: bool = True
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Give every known column its type and the table its order of columns.

    Text columns hold str, with "" for a missing cell; numbers are float64 with NaN for a missing cell; `rank`
    and `batch` are nullable Int64 and `significant` nullable boolean, for tables of which only some rows were
    ranked. A column named like one of diva's results is taken for it only beside a derivative: otherwise it
    is the user's own.

    Args:
        raw: The table as its format gave it, n rows.
        name: How messages call it.
        labels_required: Whether the column label must be there; else it holds "" where it is not, and where
            every cell of it is blank.

    Returns:
        The table (n rows, RangeIndex; path, label, weight, then the optional columns, then the others in
        the order found), the columns that no command uses of itself, and the warnings.

    Raises:
        DataError: No rows, a column missing or twice, or a cell that is not of its column's type.
    """
    found = [str(column) for column in raw.columns]
    _check_header(found, name, REQUIRED if labels_required else ("path",))
    if raw.empty:
        raise DataError(f"{name} has a header and no rows", expected="one row for each sample")
    read = {"text": _texts, "number": _numbers, "integer": _integers, "truth": _truths}
    own = frozenset() if DERIVATIVE in found else BESIDE_DERIVATIVE
    columns: dict[str, pd.Series] = {}
    unknown: list[str] = []
    for position, column in enumerate(found):
        columns[column] = raw.iloc[:, position].reset_index(drop=True)
        if column not in COLUMN_TYPES or column in own:
            unknown.append(column or "(unnamed)")
            continue
        try:
            columns[column] = read[COLUMN_TYPES[column]](columns[column], f"{name}: column '{column}'")
        except DataError:
            if column not in COMMON:
                raise
            unknown.append(column)
    warnings = []
    if not labels_required and ("label" not in columns or (columns["label"].str.strip() == "").all()):
        columns["label"] = pd.Series([""] * len(raw), dtype="str")
        close = closest("label", found)
        if "label" not in found and close is not None and close not in COLUMN_TYPES:
            warnings.append(f"{name}: no column label; --label-column '{close}' takes that for it.")
    columns.setdefault("weight", pd.Series(np.ones(len(raw))))
    first = [column for column in (*REQUIRED, "weight", *OPTIONAL) if column in columns]
    table = pd.DataFrame({column: columns[column] for column in dict.fromkeys([*first, *found])})
    return table, unknown, warnings


def is_missing(cell: object) -> bool:
    """Tell whether a cell holds no value: None, NaN, or what pandas has for it."""
    return (
        cell is None
        or cell is pd.NA
        or cell is pd.NaT
        or (isinstance(cell, (float, np.floating)) and cell != cell)
    )


def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables of samples below one another, with every cell of the user's columns as it was.

    pandas alone would make floating numbers of whole ones where a table lacks a column, and numbers of truth
    values beside them.

    Args:
        tables: Of n samples together.

    Returns:
        (n rows, RangeIndex) all columns in their order; None where a table lacks one of the user's.
    """
    types: dict[object, set[object]] = {}
    for table in tables:
        for name in table:
            types.setdefault(name, set()).add(table[name].dtype)
    mixed = [
        name
        for name, found in types.items()
        if name not in COLUMN_TYPES and (len(found) > 1 or not all(name in table for table in tables))
    ]
    parts = []
    for table in tables:
        part = table.copy()
        for name in mixed:
            lacking = pd.Series([None] * len(part), part.index, object)
            part[name] = part[name].astype(object) if name in part else lacking
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def stepped_aside(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Give a column of the user's another name, where diva needs that one for something else.

    Args:
        table: Any.
        column: The name: `label` becomes `label_in_file`.

    Returns:
        The same table where it has no such column.
    """
    other = f"{column}_in_file"
    while other in table:
        other += "_"
    return table.rename(columns={column: other})


def row_numbers(wrong: Iterable[bool]) -> str:
    """Name the rows where `wrong` holds as a person counts them: 1 is the first row below the header."""
    numbers = np.flatnonzero(np.asarray(wrong, bool)) + 1
    return f"data row{'s' if len(numbers) > 1 else ''} " + listed([f"{n}" for n in numbers[:5]], len(numbers))


def require_different(columns: list[str], name: str) -> None:
    """Refuse a table in which columns have the same name.

    Raises:
        DataError: Which name.
    """
    if twice := sorted(column for column, count in Counter(columns).items() if count > 1):
        raise DataError(f"{name} has more than one column named {listed(twice)}", expected="different names")


def _check_header(found: list[str], name: str, required: tuple[str, ...]) -> None:
    require_different(found, name)
    missing = [column for column in required if column not in found]
    if not missing:
        return
    hints = [f"rename '{close}' to '{column}'" for column in missing if (close := closest(column, found))]
    raise DataError(
        f"{name} has no column {' and no column '.join(missing)}; its columns are: {listed(found, limit=12)}",
        expected=f"a first line that names the columns, among them {' and '.join(required)}",
        hint="; ".join(hints)
        or f"add the header {','.join(required)}, or rename the columns that hold these",
    )


def closest(column: str, found: list[str]) -> str | None:
    """The column that is most likely meant by `path` or `label`, by its name alone.

    Args:
        column: Either.
        found: The columns that there are.
    """
    plain = {other.strip().strip("\ufeff").lower(): other for other in found if other not in REQUIRED}
    for alias in (column, *ALIASES[column]):
        if alias in plain:
            return plain[alias]
    close = difflib.get_close_matches(column, list(plain), n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def _texts(cells: pd.Series, where: str) -> pd.Series:
    if isinstance(cells.dtype, pd.StringDtype):
        return cells.fillna("")
    try:
        return pd.Series([_text(cell) for cell in cells.astype(object)], dtype="str")
    except (TypeError, UnicodeError) as error:
        raise DataError(f"{where} has {error}", expected="text or whole numbers") from error


def _text(cell: object) -> str:
    """One cell as text; a whole float loses its fraction: integers beside missing cells became floats."""
    if isinstance(cell, str):
        return cell
    if is_missing(cell):
        return ""
    if isinstance(cell, bytes):
        return cell.decode()
    if isinstance(cell, (dict, list, tuple, np.ndarray)):
        raise TypeError(f"a cell of type {type(cell).__name__}: {str(cell)[:40]}")
    if isinstance(cell, (float, np.floating)) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)


def _numbers(cells: pd.Series, where: str) -> pd.Series:
    # Of a complex number pandas would drop the imaginary part.
    if pd.api.types.is_numeric_dtype(cells.dtype) and not pd.api.types.is_complex_dtype(cells.dtype):
        return pd.Series(cells.to_numpy(np.float64, na_value=np.nan))
    # float() and not pandas.to_numeric, whose parser may miss the nearest double in the last place.
    numbers = [_number(cell) for cell in cells]
    wrong = [number is None for number in numbers]
    if any(wrong):
        first = cells[wrong.index(True)]
        raise DataError(
            f"{where} is not a number in {row_numbers(wrong)}: '{str(first)[:40]}'",
            expected="a number such as 0.5 in every row",
        )
    return pd.Series(numbers, dtype=np.float64)


def _number(cell: object) -> float | None:
    """One cell as a float, NaN where it is missing, None where it is no number."""
    if is_missing(cell):
        return np.nan
    try:
        text = cell.decode() if isinstance(cell, bytes) else cell
        if isinstance(text, str):
            if not text.strip():
                return np.nan
            # These two float() takes and no other reader of tables: 1_000, and digits of other scripts.
            if "_" in text or not text.isascii():
                return None
        return float(text)  # type: ignore[arg-type]  # refused just below
    except (TypeError, ValueError, OverflowError):
        return None


def _integers(cells: pd.Series, where: str) -> pd.Series:
    numbers = _numbers(cells, where)
    wrong = numbers.notna() & ((numbers % 1 != 0) | (numbers.abs() >= _WHOLE))  # also true of infinities
    wrong |= cells.map(_is_code).astype(bool)
    if wrong.any():
        raise DataError(
            f"{where} is not a whole number in {row_numbers(wrong)}",
            expected=f"whole numbers below {_WHOLE:,}",
        )
    return numbers.astype("Int64")


def _truths(cells: pd.Series, where: str) -> pd.Series:
    if pd.api.types.is_bool_dtype(cells.dtype):
        return cells.astype("boolean")
    named = {"true": True, "false": False, "": None}
    words = ["" if is_missing(cell) else str(cell).strip().lower() for cell in cells]
    wrong = [word not in named for word in words]
    if any(wrong):
        raise DataError(f"{where} is neither True nor False in {row_numbers(wrong)}")
    return pd.Series([named[word] for word in words], dtype="boolean")


def _is_code(cell: object) -> bool:
    """Whether a cell looks like a whole number and would not come back as it is: "007" is a name."""
    return isinstance(cell, str) and len(cell.strip()) > 1 and cell.strip().startswith("0")
