"""The file of decisions of a review: whole at any time, of one review at a time, and of its samples only."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pandas as pd

from divacli.errors import DataError, DivaError, OutputError
from divacli.files.lock import InUse, locked
from divacli.manifest import Manifest, write_table
from divacli.manifest.bounded import read_stream
from divacli.manifest.columns import GIVEN_LABEL
from divacli.manifest.tabular import parse, parse_file
from divacli.review.decisions import ACTIONS, DECISION_COLUMNS, RELABEL, decisions_of, matched_rows

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
        decision: One of `divacli.review.decisions.ACTIONS`; None to take it back.
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
            return [list(row) for row in self._table(self._made).itertuples(index=False)]

    def make(self, changes: Iterable[Change]) -> None:
        """Make or take back decisions, all or none of them, and write the file.

        Raises:
            ValueError: There is no such sample or decision, or the file would not give the decision back.
            DataError: The file was changed by somebody else, and holds no decisions any more.
            OutputError: The file cannot be written.
        """
        labels = self._samples.table["label"]
        with self._lock:
            if self._state() != self._seen:
                self._read()
            made = dict(self._made)
            changed = set()
            for change in changes:
                row = self._rows.get(change.place)
                if row is None:
                    raise ValueError("no such sample")
                changed.add(row)
                if change.decision is None:
                    made.pop(row, None)
                elif change.decision in ACTIONS:
                    label = change.label if change.decision == RELABEL else labels.iloc[row]
                    made[row] = (change.decision, label)
                else:
                    raise ValueError("no such decision")
            self._require_readable({row: made[row] for row in changed if row in made})
            self._write(made)

    def _read(self) -> None:
        """Read the file, and move what does not fit out of it."""
        seen = self._state()
        if seen is None:
            self._made, self._seen = {}, None
            return
        content = _parsed(self.file)
        found = decisions_of(content, str(self.file), self.file.parent)
        rows = matched_rows(found, self._samples)
        table = found.table
        has = self._samples.table["label"].to_numpy(object)[rows]
        given, wanted = table[GIVEN_LABEL].to_numpy(object), table["label"].to_numpy(object)
        relabelled = (table["decision"] == RELABEL).to_numpy()
        judged = (given == "") | (given == has) | (wanted == has)
        differ = table.assign(row=rows).groupby("row")[["decision", "label"]].transform("nunique") > 1
        fits = (rows >= 0) & judged & (relabelled | (wanted == "") | (wanted == has))
        fits &= ~differ.any(axis=1).to_numpy()
        made = {
            int(row): (decision, label if decision == RELABEL else label_now)
            for row, decision, label, label_now in zip(
                rows[fits], table["decision"][fits], wanted[fits], has[fits], strict=True
            )
        }
        if not fits.all():
            self._put_aside(table[~fits])
            self._write(made)
            return
        # Now and not earlier: a file that could not be read is never replaced, however often it is tried.
        self._made, self._seen = made, seen

    def _put_aside(self, table: pd.DataFrame) -> None:
        aside = self.file.with_name(SET_ASIDE)
        if aside.exists():
            table = pd.concat([_parsed(aside), table], ignore_index=True)
        write_table(table, aside, "csv")
        self.set_aside = len(table)

    def _table(self, made: Mapping[int, tuple[str, str]]) -> pd.DataFrame:
        """What the file holds of some decisions, by place."""
        rows = sorted(made, key=lambda row: self._places[row])
        labels = self._samples.table["label"]
        content = [(self._places[row], *made[row], labels.iloc[row]) for row in rows]
        return pd.DataFrame(content, columns=list(DECISION_COLUMNS), dtype="str")

    def _require_readable(self, made: Mapping[int, tuple[str, str]]) -> None:
        """Write decisions and read them again, as `diva apply` does, in memory.

        Raises:
            ValueError: They cannot be read, or are others then.
        """
        content = io.BytesIO()
        try:
            table = self._table(made)
            write_table(table, None, "csv", stdout=content)
            content.seek(0)
            read = parse(read_stream(content, DECISIONS), "csv", DECISIONS)
            found = decisions_of(read, DECISIONS, self.file.parent).table
        except (DivaError, UnicodeEncodeError) as error:
            raise ValueError(error.got if isinstance(error, DivaError) else str(error)) from error
        if found.to_numpy(object).tolist() != table.to_numpy(object).tolist():
            raise ValueError(f"{DECISIONS} would hold another decision than this one")

    def _write(self, made: dict[int, tuple[str, str]]) -> None:
        write_table(self._table(made), self.file, "csv")
        self._made, self._seen = made, self._state()

    def _state(self) -> tuple[int, int] | None:
        """Tells whether somebody else has written the file; None where there is none."""
        try:
            found = self.file.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size


def _parsed(file: Path) -> pd.DataFrame:
    """A file that this review wrote, or somebody else.

    Raises:
        DataError: It is no table, or cannot be read.
    """
    try:
        return parse_file(file, "csv", str(file))
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror}",
            expected="a file of decisions, or none",
            hint="move it away, or make it readable",
        ) from error
