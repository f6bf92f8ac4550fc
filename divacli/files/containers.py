"""Files that paths go through as through a folder: uncompressed tar files, and Parquet files with images.

`shards/000.tar/cat/1.jpg` is a member of a tar file, `train.parquet/17` the image in row 17 of a table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from divacli.files.parquet_images import has_row, read_row, row_number
from divacli.files.tar import member_name, members, read_member

_THROUGH = re.compile(r"\.(?P<kind>tar|parquet)(?=/)", re.IGNORECASE)
_LONGEST_PATH = 4096  # no system opens a longer one; each `.tar/` in it is looked for on disk


@dataclass(frozen=True)
class Contained:
    """What lies in a file that paths go through.

    Attributes:
        container: The file.
        name: What is meant in it: a member of a tar file, a row of a Parquet file.
        tar: Whether the container is a tar file.
    """

    container: str
    name: str
    tar: bool

    def read(self, most: int | None = None) -> bytes:
        """Its bytes.

        Args:
            most: So many of them, from the first one; None: all.

        Raises:
            OSError: The container cannot be read.
            DataError: It is damaged, or holds nothing of that name.
        """
        if self.tar:
            return read_member(self.container, self.name, most)
        return read_row(self.container, self.name)[:most]

    def exists(self) -> bool:
        """Whether the container holds something of that name.

        Raises:
            OSError: The container cannot be read.
            DataError: It is damaged.
        """
        if self.tar:
            return self.name in members(self.container)
        return has_row(self.container, self.name)


def contained(file: str) -> Contained | None:
    """What a path such as `shards/000.tar/cat/1.jpg` means; None of one that goes through no such file."""
    for found in _THROUGH.finditer(file, 0, _LONGEST_PATH):
        container = file[: found.end()]
        if os.path.isfile(container):  # noqa: PTH113  # Path.is_file raises on some names
            inner = member_name(file[found.end() :])
            return Contained(container, inner, found["kind"].lower() == "tar")
    return None


def reading_order(files: Sequence[str]) -> list[int]:
    """The order in which reading many files costs least, (n,) positions.

    Rows of a Parquet file come one after the other, for each is decoded with those before it. All other files
    stay where they are among themselves.

    Args:
        files: (n,) paths or URLs.
    """

    def place(position: int) -> tuple[str, int]:
        found = contained(files[position])
        if found is None or found.tar:
            return "", 0
        return found.container + found.name.rpartition("/")[0], row_number(found.name)

    return sorted(range(len(files)), key=place)


def in_parquet(file: str) -> bool:
    """Whether a path leads to a row of a Parquet file."""
    found = contained(file)
    return found is not None and not found.tar
