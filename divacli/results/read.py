"""What commands left in a folder of results: their tables and summaries, read again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from divacli.errors import DataError
from divacli.files.formats import WRITTEN_FORMATS
from divacli.files.path_or_url import require_finished
from divacli.files.regular import DOCUMENT_BYTES, read_regular
from divacli.manifest import Manifest, manifest_of
from divacli.manifest.columns import DERIVATIVE, LOO_LOSS
from divacli.manifest.tabular import parse_file
from divacli.reading import AS_CALLED
from divacli.results.names import (
    AGGREGATE,
    AUGMENT,
    CHANGES,
    CURVE,
    DROPPED,
    DUPLICATES,
    EVALUATION,
    EXTEND,
    HARM,
    HISTORY,
    PRUNE,
    RELABEL,
    REMAINING,
    REWEIGHT,
    REWEIGHTED,
    SCORES,
    SELECTED,
    SUMMARY,
    TRAIN,
)
from divacli.run_record import current

SAMPLE_TABLES = (SCORES, DROPPED, CHANGES, REWEIGHTED, SELECTED, REMAINING)
"""Tables with a row for each sample that the page knows how to show."""

RECORDS = (HARM, DUPLICATES, HISTORY, EVALUATION, CURVE)
"""Tables of something else, or that repeat samples."""

SUMMARIES = (
    SUMMARY,
    PRUNE,
    RELABEL,
    REWEIGHT,
    AUGMENT,
    EXTEND,
    AGGREGATE,
    TRAIN,
    EVALUATION,
)


@dataclass(frozen=True)
class Results:
    """The content of a folder of results.

    Attributes:
        folder: Absolute.
        samples: Tables of samples by name, among `SAMPLE_TABLES`, that have a row.
        records: Other tables by name, among `RECORDS`, their cells as the format gave them.
        summaries: What the JSON files hold, by name, among `SUMMARIES`.
    """

    folder: Path
    samples: dict[str, Manifest]
    records: dict[str, pd.DataFrame]
    summaries: dict[str, dict[str, Any]]

    @contextmanager
    def read_as_written(self) -> Iterator[None]:
        """Within it, what diva would have written otherwise is an error about the folder.

        Raises:
            DataError: A summary or a table lacks a value, or has one of another kind.
        """
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.folder} holds a table or a JSON file that is not as diva writes it: "
                f"{type(error).__name__}: {error}",
                expected="results that nobody has edited",
                hint="run the command that wrote them again, with --overwrite",
            ) from error


def read_results(folder: Path) -> Results:
    """Read what commands left in a folder; of a table in several formats the newest.

    Raises:
        DataError: It is no folder, holds no results, one that cannot be read, or files of two runs.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} {'is no folder' if folder.exists() else 'does not exist'}",
            expected="a folder that a command wrote its results into, such as diva-out",
            hint="diva score DATA --out DIR, then give DIR",
        )
    require_finished(folder)
    try:
        tables = {
            name: parse_file(file, file.suffix[1:], str(file))
            for name in (*SAMPLE_TABLES, *RECORDS)
            # JSON lines without a row are an empty file.
            if (file := newest(folder, name)) is not None and not (file.is_file() and not file.stat().st_size)
        }
        summaries = {
            name: _summary(file) for name in SUMMARIES if os.path.lexists(file := folder / f"{name}.json")
        }
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    if not tables and not summaries:
        raise DataError(
            f"{folder} holds no results of diva",
            expected="a folder with scores.csv, dropped.csv, selected.csv ... as commands write them",
            hint="diva score DATA --out DIR, then give DIR",
        )
    samples = {
        name: manifest_of(table, folder, labels="optional", reading=AS_CALLED)
        for name, table in tables.items()
        if name in SAMPLE_TABLES and len(table)
    }
    if SCORES in samples and not {DERIVATIVE, LOO_LOSS} <= set(samples[SCORES].table):
        raise DataError(
            f"{folder} holds a table called scores without derivative and loo_loss",
            expected="scores.csv as diva score writes it",
            hint="diva score DATA --out DIR, then give DIR",
        )
    for name, manifest in samples.items():
        current().read(str(folder / name), manifest)
    records = {name: table for name, table in tables.items() if name in RECORDS}
    return Results(folder.resolve(), samples, records, summaries)


def newest(folder: Path, name: str) -> Path | None:
    """The table of a name in a folder, in whichever format was written last; None where there is none."""
    found = [file for suffix in WRITTEN_FORMATS if os.path.lexists(file := folder / f"{name}.{suffix}")]
    return max(found, key=lambda file: file.lstat().st_mtime_ns, default=None)


def _summary(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(file, DOCUMENT_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON: {error}", hint="run the command that wrote it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds no JSON object", hint="run the command that wrote it again")
    return content
