"""The formats of tables, by the suffix of a file's name without its dot: the one list that all go by."""

from __future__ import annotations

from typing import Literal, get_args

from divacli.files.urls import suffix_of

TABLE_FORMATS = ("csv", "tsv", "jsonl", "parquet")
"""Formats of tables that are read."""

LIST_FORMATS = ("txt", "json")
"""Formats that are read as DATA alone: lists of images, and what COCO describes."""

LINE_FORMATS = ("csv", "tsv", "jsonl", "txt")
"""Those of all that have lines."""

TABLE_SUFFIXES = " ".join(f".{format}" for format in TABLE_FORMATS)
"""All formats of tables, for messages."""

DATA_SUFFIXES = " ".join(f".{format}" for format in (*TABLE_FORMATS, *LIST_FORMATS))
"""All of tables and lists, for messages."""

Format = Literal["csv", "jsonl", "parquet"]
"""A format of tables that are written."""

WRITTEN_FORMATS: tuple[Format, ...] = get_args(Format)
"""All of these."""


def is_npz(name: str) -> bool:
    """Whether a path or URL is that of an `.npz` file, in which samples have names and no files."""
    return suffix_of(name) == "npz"
