"""Parse a table of samples by the format that the name of its file tells."""

from __future__ import annotations

import pandas as pd

from divacli.files.path_or_url import Place
from divacli.manifest.bounded import read_table
from divacli.manifest.coco import parse_json
from divacli.manifest.list_file import looks_like_table, parse_list
from divacli.manifest.tabular import is_utf16, parse


def read_table_file(
    place: Place, format: str, name: str, *, labels_required: bool = True
) -> tuple[pd.DataFrame, list[str]]:
    """Read a table, a list or a JSON file.

    Args:
        place: The file.
        format: One of `TABLE_FORMATS` or `LIST_FORMATS`.
        name: How messages call it.
        labels_required: Whether a list or a JSON file must have labels.

    Returns:
        The table as its format gives it, and the warnings.

    Raises:
        OSError: It cannot be read.
        DataError: It is of another format, or damaged.
    """
    content = read_table(place, format, name)
    if format == "json":
        return parse_json(content, name, labels_required=labels_required)
    if format != "txt":
        return parse(content, format, name), []
    if is_utf16(content) or looks_like_table(content):
        return parse(content, "tsv", name), []
    return parse_list(content, name, labels_required=labels_required), []
