"""Where results go: files in a folder, written whole or not at all, or standard output.

Of several processes that share the work, the first one writes.
"""

from __future__ import annotations

import os
from pathlib import Path

from divacli.cli.options import OutputOptions
from divacli.cli.processes import leads
from divacli.curate.files import ResultFiles
from divacli.errors import OutputError
from divacli.files import is_url


class Output(ResultFiles):
    """Where a command's tables go: files in a folder, or its main table to standard output.

    Args:
        options: `--out` and `--format`.

    Raises:
        OutputError: `--out` is a file, a URL, or a folder that cannot be written to.
    """

    def __init__(self, options: OutputOptions) -> None:
        if is_url(options.out):
            raise OutputError(
                f"--out {options.out}",
                expected="a folder in a file system of this machine",
                hint="write the results there, and copy them",
            )
        folder = None if options.out == "-" else Path(options.out)
        super().__init__(folder, options.format.value, writes=leads())
        if folder is not None:
            _prepare(folder)


def _prepare(folder: Path) -> None:
    """Make the folder now: an hour of embedding is a bad time to learn that it cannot be written to."""
    if folder.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet"):
        raise OutputError(
            f"--out {folder}",
            expected="a folder: results are several files",
            hint=f"use --out DIR, or --out - > {folder}",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--out {folder} cannot be made: {error.strerror}",
            expected="a folder that can be written to",
            hint="choose another one with --out",
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"--out {folder} cannot be written to",
            expected="a folder that can be written to",
            hint="choose another one with --out",
        )
