"""Parse a `.txt` list of images: a line each, with the path and the label at its end.

Such lists come with ImageNet (`ILSVRC2012_val_00000001.JPEG 65`), Caffe and many published splits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from divacli.errors import DataError
from divacli.images.kinds import IMAGE_SUFFIXES, is_called_image
from divacli.manifest.column_types import ALIASES
from divacli.manifest.tabular import decoded_text

_EXPECTED = "a line for each image, with its path, a blank, tab or comma, and its label: cat/1.jpg 0"
_PATHS = frozenset({"path", "name", "id", "image_id", *ALIASES["path"]})
_LABELS = frozenset({"label", "label_id", "class_id", *ALIASES["label"]})
_SEVERAL = re.compile(r"[+-]?\d+(?:[,;:|][+-]?\d+)+")
_SHOWN = 60  # characters of a line

_Line = tuple[int, str]


def looks_like_table(data: bytes) -> bool:
    """Whether a text has a first line with names of columns, with tabs between, as Excel writes it."""
    first = data.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0].decode(errors="replace")
    cells = [cell.strip("\"' \r").lower() for cell in first.split("\t")]
    return len(cells) > 1 and bool({*_PATHS} & {*cells}) and not any(map(is_called_image, cells))


def parse_list(data: bytes, name: str, *, labels_required: bool = True) -> pd.DataFrame:
    """Read a list of images.

    Blank lines and those that begin with `#` say nothing, and neither does a first line such as `path label`.
    The label is the last word of a line, so that paths may have blanks in them; or what follows its tab, or
    its last comma, where all lines have one.

    Args:
        data: The whole file.
        name: How messages call it.
        labels_required: Whether there must be labels; else a list of paths alone is one, too.

    Returns:
        (n rows) path and, where there are labels, label: str as they are written.

    Raises:
        DataError: Text that is not in UTF-8, nothing in it, several labels in a line, or no such list.
    """
    lines = [
        (number, line)
        for number, raw in enumerate(decoded_text(data, name).split("\n"), start=1)
        if (line := raw.strip()) and not line.startswith("#")
    ]
    if lines and _is_header(lines[0][1]):
        del lines[0]
    if not lines:
        raise DataError(f"{name} has no lines", expected=_EXPECTED)
    separator = _separator(lines)
    if separator == "":
        paths = [line for _, line in lines]
        if labels_required:
            raise DataError(
                f"{name} has paths and no labels: '{_short(paths[0])}' is line {lines[0][0]:,}",
                expected=_EXPECTED,
                hint="add the labels, or give a folder with one sub-folder a class",
            )
        return pd.DataFrame({"path": paths}, dtype="str")
    pairs = [_pair(number, line, separator, name) for number, line in lines]
    return pd.DataFrame(pairs, columns=["path", "label"], dtype="str")


def _separator(lines: Sequence[_Line]) -> str | None:
    """What stands between path and label: a tab, a comma, None for blanks; "" where there are paths alone."""
    if all("\t" in line for _, line in lines):
        return "\t"
    if all(is_called_image(line) or (len(line.split()) == 1 and "," not in line) for _, line in lines):
        return ""
    by_comma = sum(is_called_image(line.rpartition(",")[0]) for _, line in lines)
    by_blank = sum(is_called_image(_at_blank(line)[0]) for _, line in lines)
    if by_comma == by_blank:  # no path has a suffix, or lines are of several kinds
        halves = [half.split() for _, line in lines for half in _halves(line, ",")]
        return "," if all(len(words) == 1 for words in halves) else None
    return "," if by_comma > by_blank else None


def _pair(number: int, line: str, separator: str | None, name: str) -> tuple[str, str]:
    """Path and label of a line.

    Raises:
        DataError: It has no label, several, or is no line of a list.
    """
    path, label = _at_blank(line) if separator is None else map(str.strip, _halves(line, separator))
    where = f"{name}: line {number:,}"
    if not path or not label:
        raise DataError(f"{where} has no label: '{_short(line)}'", expected=_EXPECTED)
    if is_called_image(label) and not is_called_image(path):
        raise DataError(f"{where} has the label first: '{_short(line)}'", expected=_EXPECTED)
    rest = line[_end_of_path(line) :].strip(" \t,")
    more = separator != "\t" and not is_called_image(path) and rest not in ("", label)
    numbers = re.fullmatch(r"[-+\d.,\s]+", rest) is not None
    if (more and (numbers or _IMAGE_AND_MORE.search(line))) or _SEVERAL.fullmatch(label) or "\t" in label:
        raise DataError(
            f"{where} has several labels: '{_short(rest or label)}'",
            expected="one label in a line",
            hint="leave out what is no label; put a tab before a label that has blanks in it",
        )
    if not is_called_image(path) and len(path.split()) > 1:
        raise DataError(f"{where} is no line of a list of images: '{_short(line)}'", expected=_EXPECTED)
    return path, label


def _at_blank(line: str) -> tuple[str, str]:
    """The line but for its last word, and that."""
    words = line.rsplit(None, 1)
    return (words[0].rstrip(), words[1]) if len(words) == 2 else (line, "")


def _halves(line: str, separator: str) -> tuple[str, str]:
    """What is before and after a separator: the first tab, or the last comma."""
    before, _, after = line.partition(separator) if separator == "\t" else line.rpartition(separator)
    return before, after


def _end_of_path(line: str) -> int:
    """Where a path with the suffix of an image ends in a line, before a separator; else where a word ends."""
    ends = [found.end() for found in _IMAGE_AND_MORE.finditer(line)]
    word = re.match(r"[^\s,]*", line)
    return ends[-1] if ends else word.end() if word else 0


def _is_header(line: str) -> bool:
    words = [word.strip("\"' ").lower() for word in re.split(r"[\s,]+", line)]
    if len(words) == 1:
        return words[0] in _PATHS
    return len(words) == 2 and words[0] in _PATHS and words[1] in _LABELS


_IMAGE_AND_MORE = re.compile(f"(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})(?=[\\s,])", re.IGNORECASE)


def _short(line: str) -> str:
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
