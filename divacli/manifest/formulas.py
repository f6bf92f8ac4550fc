"""Text cells that a spreadsheet would run as formulas: made harmless when written, restored when read.

A spreadsheet takes a cell of a CSV file for a formula by its first character, also where it is quoted. Of the
text that diva writes, labels and names of files come from others. Each function here has an exact inverse.
"""

from __future__ import annotations

import re

from divacli.manifest.columns import FEATURE_SOURCE

PATH_COLUMNS = frozenset({"path", "file_name", FEATURE_SOURCE})
"""Columns that name files, in which `./` before a name changes nothing for whoever reads them."""

# The full-width forms count as well where Chinese, Japanese or Korean is written.
_START = r"(?:[ \t\n\r\f\v]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\n\r])"
_FORMULA = re.compile(rf"'*{_START}")
_MARKED = re.compile(rf"'+{_START}")
_FORMULA_PATH = re.compile(rf"(?:\./)*{_START}")
_MARKED_PATH = re.compile(rf"(?:\./)+{_START}")
# One way only to match a run of digits: of two a long run that is no number after all would take for ever.
_NUMBER = re.compile(
    r" *[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|infinity) *",
    re.ASCII | re.IGNORECASE,  # by Unicode the dotless i is an i without its case
)

# All characters that the expressions begin with: one look at the first saves most cells the expression.
_FIRST = frozenset("=+-@\uff1d\uff0b\uff0d\uff20 \t\n\r\f\v'.")


def harmless(text: str) -> str:
    """A cell as it is written: with an apostrophe before it where it would be a formula.

    Numbers such as "-1" stay, for a spreadsheet only reads their value. So that `restored` can tell what was
    put in front, cells of apostrophes before such a beginning get one more.
    """
    if text[:1] in _FIRST and _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def restored(text: str) -> str:
    """The cell that `harmless` has made this of."""
    return text[1:] if text[:1] == "'" and _MARKED.match(text) else text


def harmless_path(text: str) -> str:
    """As `harmless`, of a cell that names a file: with `./` in front, which names the same one."""
    if text[:1] in _FIRST and _FORMULA_PATH.match(text) and not _NUMBER.fullmatch(text):
        return f"./{text}"
    return text


def restored_path(text: str) -> str:
    """The cell that `harmless_path` has made this of."""
    return text[2:] if text[:1] == "." and _MARKED_PATH.match(text) else text
