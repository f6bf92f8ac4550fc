"""The file of decisions of a review: whole at any time, of one review at a time, and of its samples only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pandas as pd

from divacli.curate.decisions import ACTIONS, DECISION_COLUMNS, RELABEL, decisions_of, matched_rows
from divacli.errors import DataError, OutputError
from divacli.lock import InUse, locked
from divacli.manifest import Manifest, write_table
from divacli.manifest.bounded import read_table
from divacli.manifest.tabular import parse

DECISIONS = "decisions.csv"
"""Name of the file in the folder of results."""

SET_ASIDE = "decisions-set-aside.csv"
"""Name of the file that takes decisions which do not fit the samples."""


_LOCK = ".diva-review.lock"


@dataclass(frozen=True)
class Change:
    """A decision that is made or taken back.

    Attributes:
        place: What the page calls the sample.
        decision: One of `divacli.curate.decisions.ACTIONS`; None to take it back.
        label: The new label, where it is relabelled.
    """

    place: str
    decision: str | None
    label: str = ""


class Ledger:
    """The decisions of a review, in `decisions.csv` of a folder, beginning with those that it holds already.

    Decisions in the file that fit no sample, were made when the sample had another label, or contradict each
    other would make `diva apply` refuse all of them: they are moved to a file of their own. What somebody
    else writes into the file while the review runs is read before the next decision is written.

    Args:
        folder: Of the results.
        samples: What is decided on, n samples.
        places: (n,) what the page calls each.

    Raises:
        DataError: The file holds no decisions, or another review of this folder is running.
        OutputError: The folder cannot be written to.
    """

    def __init__(self, folder: Path, samples: Manifest, places: Sequence[str]) -> None:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(
                f"{folder} cannot be written to",
                expected=f"a folder for {DECISIONS}",
                hint="copy the results, or make the page alone: diva report DIR --out report.html",
            )
        self.file = folder / DECISIONS
        self.set_aside = 0
        self._samples = samples
        self._rows = {place: row for row, place in enumerate(places)}
        self._places = places
        self._lock = Lock()
        self._made: dict[int, tuple[str, str]] = {}
        self._seen: tuple[int, int] | None = None
        # Not the lock of the folder: while somebody reviews, commands may write their results into it.
        self._held = ExitStack()
        try:
            self._held.enter_context(locked(folder, wait=False, name=_LOCK))
        except InUse as error:
            raise DataError(
                f"{folder} is being reviewed already",
                expected="one review of a folder at a time",
                hint="go on in its page, or end it first",
            ) from error
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others review the folder."""
        self._held.close()

    def __len__(self) -> int:
        return len(self._made)

    def as_rows(self) -> list[list[str]]:
        """Place, decision, label and given label of each."""
        with self._lock:
            return [list(row) for row in self._table().itertuples(index=False)]

    def make(self, changes: Iterable[Change]) -> None:
        """Make or take back decisions, all or none of them, and write the file.

        Raises:
            ValueError: There is no such sample, or no such decision.
            DataError: The file was changed by somebody else, and holds no decisions any more.
            OutputError: The file cannot be written.
        """
        labels = self._samples.table["label"]
        with self._lock:
            if self._state() != self._seen:
                self._read()
            before = dict(self._made)
            try:
                for change in changes:
                    row = self._rows.get(change.place)
                    if row is None:
                        raise ValueError("no such sample")
                    if change.decision is None:
                        self._made.pop(row, None)
                    elif change.decision not in ACTIONS or (change.decision == RELABEL and not change.label):
                        raise ValueError("no such decision")
                    else:
                        label = change.label if change.decision == RELABEL else labels.iloc[row]
                        self._made[row] = (change.decision, label)
                self._write()
            except BaseException:
                self._made = before
                raise

    def _read(self) -> None:
        """Read the file, and move what does not fit out of it."""
        self._seen = self._state()
        self._made = {}
        if self._seen is None:
            return
        try:
            content = parse(read_table(self.file, "csv", str(self.file)), "csv", str(self.file))
        except OSError as error:
            raise DataError(
                f"{self.file} cannot be read: {error.strerror}",
                expected="a file of decisions, or none",
                hint="move it away, or make it readable",
            ) from error
        found = decisions_of(content, str(self.file), self.file.parent)
        rows = matched_rows(found, self._samples)
        table = found.table
        has = self._samples.table["label"].to_numpy(object)[rows]
        given, wanted = table["given_label"].to_numpy(object), table["label"].to_numpy(object)
        relabelled = (table["decision"] == RELABEL).to_numpy()
        judged = (given == "") | (given == has) | (wanted == has)
        differ = table.assign(row=rows).groupby("row")[["decision", "label"]].transform("nunique") > 1
        fits = (rows >= 0) & judged & (relabelled | (wanted == "") | (wanted == has))
        fits &= ~differ.any(axis=1).to_numpy()
        self._made = {
            int(row): (decision, label if decision == RELABEL else label_now)
            for row, decision, label, label_now in zip(
                rows[fits], table["decision"][fits], wanted[fits], has[fits], strict=True
            )
        }
        if not fits.all():
            self._put_aside(table[~fits])

    def _put_aside(self, table: pd.DataFrame) -> None:
        aside = self.file.with_name(SET_ASIDE)
        if aside.exists():
            earlier = parse(read_table(aside, "csv", str(aside)), "csv", str(aside))
            table = pd.concat([earlier, table], ignore_index=True)
        write_table(table, aside, "csv")
        self.set_aside = len(table)
        self._write()

    def _table(self) -> pd.DataFrame:
        """What the file holds, by place."""
        rows = sorted(self._made, key=lambda row: self._places[row])
        labels = self._samples.table["label"]
        content = [(self._places[row], *self._made[row], labels.iloc[row]) for row in rows]
        return pd.DataFrame(content, columns=list(DECISION_COLUMNS), dtype="str")

    def _write(self) -> None:
        write_table(self._table(), self.file, "csv")
        self._seen = self._state()

    def _state(self) -> tuple[int, int] | None:
        """Tells whether somebody else has written the file; None where there is none."""
        try:
            found = self.file.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size
