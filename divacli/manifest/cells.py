"""Cells of any type as CSV and JSON lines hold them: as numbers, as text, or as JSON, and nothing is lost."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import pathlib
import uuid

import numpy as np
import pandas as pd

from divacli.manifest.column_types import is_missing

# Types that are told by their text.
_TEXT = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    np.datetime64,
    np.timedelta64,
    pd.Period,
    pd.Interval,
    decimal.Decimal,
    uuid.UUID,
    pathlib.PurePath,
)

_NESTED = (dict, list, tuple, np.ndarray)

# Bool, integers, floats, objects, text. A double holds every float of these but the long ones.
_EXACT = "biufOUT"

to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
"""The JSON text of what `plain` returns; of a float the shortest text that reads as the same one."""


class NotPlainError(ValueError):
    """A cell that is the same as no number, text or JSON; the message says what it is."""


def is_nested(cell: object) -> bool:
    """Tell whether a cell is a list, an array or a dictionary."""
    return isinstance(cell, _NESTED)


def plain(cell: object) -> object:
    """Give a cell as text formats write it.

    Args:
        cell: Of any type. A float keeps 9 significant digits; infinities become "inf" and "-inf". Bytes are
            read as UTF-8. Dates, times, decimals, UUIDs and paths become their usual text.

    Returns:
        None where a value is missing; else bool, int, float, str, or a list or dict that JSON holds exactly.

    Raises:
        NotPlainError: An object of another type, bytes that are no text, or a list, an array or a dictionary
            that JSON does not hold exactly.
    """
    if isinstance(cell, float):
        if math.isfinite(cell):
            return float(f"{cell:.9g}")
        return None if math.isnan(cell) else str(float(cell))
    if cell is None or isinstance(cell, (str, int)):
        return cell
    if isinstance(cell, np.floating):
        return plain(float(cell))
    if is_nested(cell):
        return _exact(cell)
    if is_missing(cell):
        return None
    if isinstance(cell, _TEXT):
        return str(cell)
    if isinstance(cell, (np.integer, np.bool_)):
        return cell.item()
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            raise NotPlainError("bytes that are no text in UTF-8") from None
    raise NotPlainError(f"a value of type {type(cell).__name__}")


def _exact(value: object) -> object:
    """A list, an array or a dictionary, or what is in one, as JSON holds it: every digit, no text instead."""
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in _EXACT or (value.dtype.kind == "f" and value.dtype.itemsize > 8):
            raise _inside(f"a value of type {value.dtype}")
        value = value.tolist()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _inside("NaN or infinity")
        return value
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (list, tuple)):
        return list(map(_exact, value))
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise _inside("a key that is no text")
        return dict(zip(value, map(_exact, value.values()), strict=True))
    if is_missing(value):
        return None
    raise _inside(f"a value of type {type(value).__name__}")


def _inside(what: str) -> NotPlainError:
    return NotPlainError(f"{what} inside of a list, an array or a struct")
