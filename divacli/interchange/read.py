"""Decisions from any of the places where people make them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from divacli.errors import DataError
from divacli.files.existing import require_present
from divacli.files.formats import TABLE_FORMATS
from divacli.files.path_or_url import Place, place_of
from divacli.files.urls import suffix_of
from divacli.interchange.cleanlab import IS_ISSUE, LabelIssues, decisions_of_issues
from divacli.interchange.label_studio import decisions_of_export
from divacli.manifest.bounded import read_stream, read_table
from divacli.manifest.tabular import parse, recognise
from divacli.review.decisions import Decisions, decisions_of

_KINDS = (
    "a .csv, .tsv, .jsonl or .parquet of decisions or of cleanlab's issues, Label Studio's .json, or - for "
    "one of these on standard input"
)


def read_decisions(
    source: str,
    classes: list[str],
    *,
    label_issues: LabelIssues = "drop",
    stdin: BinaryIO | None = None,
) -> Decisions:
    """Read decisions, whoever wrote them.

    Args:
        source: A table of decisions, a table of issues of cleanlab, a JSON export of Label Studio, or `-`.
        classes: The labels of DATA, in the order of their numbers.
        label_issues: What a label issue of cleanlab means.
        stdin: Where `-` reads from; the process's own standard input by default.

    Raises:
        DataError: It cannot be read, or is none of these.
    """
    require_present(source)
    name, folder, content, format = _read(source, stdin)
    if format == "json":
        raw, warnings = decisions_of_export(content, name)
        return decisions_of(raw, name, folder, warnings)
    return table_decisions(parse(content, format, name), name, folder, classes, label_issues=label_issues)


def table_decisions(
    raw: pd.DataFrame, name: str, folder: Place, classes: list[str], *, label_issues: LabelIssues = "drop"
) -> Decisions:
    """The decisions of a table in memory: its own, or issues of cleanlab.

    Args:
        raw: As in a file.
        name: How messages call it.
        folder: Where relative paths start from.
        classes: As of `read_decisions`, and so is the other.
        label_issues: What a label issue means.

    Raises:
        DataError: It is neither.
    """
    raw = raw.rename(columns=str)
    if "decision" not in raw and IS_ISSUE in raw:
        raw = decisions_of_issues(raw, name, classes, label_issues)
    return decisions_of(raw, name, folder)


def _read(source: str, stdin: BinaryIO | None) -> tuple[str, Place, bytes, str]:
    """Name, folder, content and format."""
    if source == "-":
        content = read_stream(stdin or sys.stdin.buffer, "standard input")
        is_json = content.lstrip()[:1] == b"["
        return "standard input", Path.cwd(), content, "json" if is_json else recognise(content)
    place, format = place_of(source), suffix_of(source)
    if format not in (*TABLE_FORMATS, "json"):
        raise DataError(f"{source} is no kind of decisions", expected=_KINDS)
    try:
        return source, place.parent.resolve(), read_table(place, format, source), format
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}", hint="make it readable") from error
