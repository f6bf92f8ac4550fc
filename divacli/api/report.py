"""The result of a command in memory."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console, RenderableType

from divacli.errors import DataError, OutputError
from divacli.errors import shown as on_one_line
from divacli.files.formats import WRITTEN_FORMATS
from divacli.manifest import Format, Manifest, manifest_of, read_manifest
from divacli.manifest.truth import known_wrong
from divacli.manifest.written import WRITTEN
from divacli.reading import EVERY
from divacli.results.collect import Collected
from divacli.results.names import HARM, SCORES
from divacli.results.read import RECORDS, SAMPLE_TABLES, Results
from divacli.results.result import Result
from divacli.results.runfile import RUN_FILE
from divacli.results.write import ResultFiles
from divacli.run_record import Input, Run, running
from divacli.solve.options import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 110


@dataclass(frozen=True)
class Saving:
    """How a result is written into a folder.

    Attributes:
        files: As `makes` of `ResultFiles`.
        sources: All samples of the input, each of which must be in one of the tables.
        write: Writes it; None: `Result.write`.
        after: Called when all is in its place.
    """

    files: Sequence[str]
    sources: Sequence[Manifest] = ()
    write: Callable[[ResultFiles], None] | None = None
    after: Callable[[], None] | None = None


class Report:
    """The result of a command, as of `diva COMMAND`, in memory.

    Attributes:
        command: Its name.
        summary: The content of its JSON file.
        tables: Every table by the name of its file, such as "kept" and "dropped"; relative paths start from
            the folder that was the current one. Each is an attribute, too: `report.kept`.
        table: The main one.
        warnings: Sentences that the user should know; each was a warning of Python as well.
        network: The network of the images.
        folder: That relative paths in the tables start from.
        result: The object with everything else, whose attributes are those of the report, too.
    """

    def __init__(
        self,
        result: Any,
        run: Run,
        network: Network,
        warned: Sequence[str],
        shown: Callable[[Any], Iterable[RenderableType]],
        saving: Saving,
        adjust: Callable[[Collected], None] | None = None,
    ) -> None:
        collected = Collected(result)
        if adjust is not None:
            adjust(collected)
        self.command = run.command
        self.result: Result = result
        self.summary: dict[str, Any] = dict(result.summary)
        self.network = network
        self.folder = collected.base
        self.tables = {name: _marked(table) for name, table in collected.tables.items()}
        self.table: pd.DataFrame = self.tables[collected.main] if collected.main else _marked(result.table)
        self.warnings = tuple(warned)
        self._collected = collected
        self._run = run
        self._shown = shown
        self._saving = saving

    @property
    def inputs(self) -> list[Input]:
        """What was read."""
        return self._run.inputs

    def __getattr__(self, name: str) -> Any:
        """A table by its name, or an attribute of the result."""
        tables, result = self.__dict__.get("tables", {}), self.__dict__.get("result")
        if name in tables:
            return tables[name]
        if result is not None and not name.startswith("_") and hasattr(result, name):
            return getattr(result, name)
        raise AttributeError(f"no table {name!r}; there are: {', '.join(tables)}")

    def __dir__(self) -> list[str]:
        """Every attribute, the tables among them."""
        return [*super().__dir__(), *self.tables]

    def require_unchanged(self) -> None:
        """Refuse tables that were edited: what is computed from the report knows nothing of that.

        Raises:
            DataError: One was.
        """
        for name, table in self._collected.tables.items():
            same = self.tables.get(name) is not None and self.tables[name].equals(table)
            if not same or (name == self._collected.main and self.table is not self.tables[name]):
                raise DataError(
                    f"the table {name} of this report was edited",
                    expected="a report as it was computed",
                    hint="edit a copy, and give that table in place of the report",
                )

    def plot(
        self,
        kind: str | None = None,
        *,
        by: str | None = None,
        truth: pd.DataFrame | str | Path | None = None,
    ) -> Figure:
        """Draw the result.

        Args:
            kind: As of `diva plot`; None: the first one that the result allows.
            by: Of "groups", which column; by default the first one.
            truth: A table of true labels, or where it lies: wrong labels have another colour. By default the
                column true_label.

        Raises:
            DataError: There is no such kind, or it needs what was not computed.
        """
        from divacli.report.figures.plots import kinds_of, plots_of

        folder = self.folder
        samples, records = {}, {}
        for name, table in self.tables.items():
            if name in SAMPLE_TABLES and len(table):
                samples[name] = Manifest(name, "table", table, folder, labels_required=False)
            elif name in RECORDS:
                records[name] = table
        if by is not None and HARM in records:
            records[HARM] = records[HARM][records[HARM]["by"] == by]
        results = Results(folder, samples, records, self._collected.summaries)
        if kind is None:
            kinds = kinds_of(results)
            if not kinds:
                raise DataError(f"diva {self.command} has no plot")
            kind = kinds[0]
        known = None
        if isinstance(truth, pd.DataFrame):
            known = manifest_of(truth, folder, name="truth", labels="optional", reading=EVERY)
        elif truth is not None:
            if not isinstance(truth, str | os.PathLike):
                raise DataError(f"truth is a {type(truth).__name__}", expected="a table, or where it lies")
            known = read_manifest(os.fspath(truth), labels="optional", reading=EVERY)
        wrong = known_wrong(samples[SCORES], known) if SCORES in samples else None
        return plots_of(results, kind, wrong)[0][1]

    def save(self, folder: str | Path, format: Format = "csv", *, overwrite: bool = False) -> list[str]:
        """Write the files of the command into a folder, and say which.

        Args:
            folder: Made where it does not exist.
            format: Of the tables: "csv", "jsonl" or "parquet".
            overwrite: Replace such files where they are there already.

        Raises:
            OutputError: It cannot be written, or holds such files.
        """
        self.require_unchanged()
        if format not in WRITTEN_FORMATS:
            raise OutputError(f"format={format!r}", expected=f"one of {', '.join(WRITTEN_FORMATS)}")
        saving = self._saving
        place = Path(os.path.expanduser(folder))  # noqa: PTH111  # a name after ~ that is nobody's stays
        with (
            running(self._run),
            ResultFiles(place, format, tuple(saving.files), overwrite=overwrite) as target,
        ):
            (saving.write or self.result.write)(target)
            target.finish(read=saving.sources)
        if saving.after is not None:
            saving.after()
        return [*target.written, RUN_FILE]

    def __repr__(self) -> str:
        """One line: the command, and the rows of its tables, the main one first."""
        main = self._collected.main
        tables = sorted(self.tables.items(), key=lambda item: item[0] != main)
        sizes = [f"{name} {len(table):,}" for name, table in tables if len(table)]
        sizes = sizes if main else [f"table {len(self.table):,}", *sizes]
        return f"<diva {self.command}: {', '.join(sizes)} rows>"

    def _repr_html_(self) -> str:
        console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_jupyter=False)
        for part in self._shown(self.result):
            console.print(part)
        return console.export_html(
            inline_styles=True, code_format='<pre style="line-height: normal"><code>{code}</code></pre>'
        )


def warn(message: str) -> None:
    """Warn at the line that called this package."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("divacli."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(on_one_line(message), stacklevel=depth)


def _marked(table: pd.DataFrame) -> pd.DataFrame:
    """A copy that says that diva made it: its columns mean what they are called."""
    copy = table.copy()
    copy.attrs[WRITTEN] = True
    return copy
