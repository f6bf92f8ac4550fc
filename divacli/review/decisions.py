"""What somebody decided about samples, and which samples of DATA the decisions are about."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.files.path_or_url import Place, joined
from divacli.files.urls import is_url
from divacli.manifest import Manifest
from divacli.manifest.column_types import row_numbers, typed
from divacli.manifest.columns import GIVEN_LABEL

KEEP, DROP, RELABEL = "keep", "drop", "relabel"
ACTIONS = (KEEP, DROP, RELABEL)
"""What may be decided: the sample stays as it is, leaves the set, or stays with another label."""

DECISION_COLUMNS = ("path", "decision", "label", GIVEN_LABEL)


@dataclass(frozen=True)
class Decisions:
    """Decisions that were read and are whole in themselves.

    Attributes:
        name: How messages call them.
        table: A row for each decision: `DECISION_COLUMNS`, all text. `label` is the label after the decision
            and `given_label` the one it was made with; "" where they were not stated.
        folder: Where relative paths start from.
        warnings: One sentence each.
    """

    name: str
    table: pd.DataFrame
    folder: Place
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdicts:
    """What is decided about each sample of DATA.

    Attributes:
        actions: (n,) one of `ACTIONS`, "" for a sample without a decision.
        labels: (n,) the label from now on, of dropped samples the one they had.
    """

    actions: np.ndarray
    labels: np.ndarray


def decisions_of(raw: pd.DataFrame, name: str, folder: Place, warnings: Iterable[str] = ()) -> Decisions:
    """Check a table of decisions.

    Args:
        raw: Columns path and decision, in small or capital letters, optionally label and given_label; others
            are not looked at. A row with an empty decision is none.
        name: How messages call it.
        folder: Where relative paths start from.
        warnings: What was said about them so far.

    Raises:
        DataError: A column is missing, a decision is unknown, a path is empty, or a new label is.
    """
    if raw.empty and "path" in raw:
        table = pd.DataFrame({column: pd.Series([], dtype="str") for column in DECISION_COLUMNS})
        return Decisions(name, table, folder, tuple(warnings))
    read, _, _ = typed(raw, name, labels_required=False)
    if "decision" not in read:
        raise DataError(
            f"{name} has no column decision; its columns are: {listed(list(map(str, raw)), limit=12)}",
            expected="columns path and decision (keep, drop or relabel), and label for what is relabelled; "
            "or a table of cleanlab with path and is_label_issue",
        )
    typed_in = _text(read["decision"]).str.strip()
    table = pd.DataFrame({"path": read["path"], "decision": typed_in.str.lower()})
    for column in ("label", GIVEN_LABEL):
        table[column] = _text(read[column]) if column in read else ""
    unknown = ~table["decision"].isin(["", *ACTIONS])
    if unknown.any():
        raise DataError(
            f"{name}: unknown decisions in {row_numbers(unknown)}: "
            f"{listed(sorted(map(repr, typed_in[unknown].unique())))}",
            expected=f"one of {', '.join(ACTIONS)}, or an empty cell where nothing is decided",
        )
    nowhere = (table["path"] == "") & (table["decision"] != "")
    if nowhere.any():
        raise DataError(f"{name}: path is empty in {row_numbers(nowhere)}", expected="a path in every row")
    unnamed = (table["decision"] == RELABEL) & (table["label"].str.strip() == "")
    if unnamed.any():
        raise DataError(
            f"{name}: label is empty in {row_numbers(unnamed)}, where the decision is {RELABEL}",
            expected="the new label there",
            hint="fill it in, or leave the decision empty",
        )
    decided = table[table["decision"] != ""].reset_index(drop=True)
    return Decisions(name, decided, folder, tuple(warnings))


def matched_rows(decisions: Decisions, manifest: Manifest) -> np.ndarray:
    """Row of the sample that each decision is about, (m,) int64; -1 where it is about none or about several.

    A decision is about the sample whose file is the one that it names: by its place, and where no sample lies
    there, by the path as DATA itself writes it (the only way of rows in an `.npz` file), or by the place
    behind symbolic links.

    Args:
        decisions: The decisions, m of them.
        manifest: The samples.
    """
    rows = _places(decisions, manifest)
    return np.where(rows == _SEVERAL, _NOWHERE, rows)


def verdicts_of(decisions: Decisions, manifest: Manifest) -> Verdicts:
    """What the decisions mean for each sample; which one each is about, `matched_rows` tells.

    Args:
        decisions: The decisions.
        manifest: The samples, n of them.

    Raises:
        DataError: A decision about no sample or about several; two about one that differ; one that was made
            with another label than the sample has; or one to keep a label that is not the sample's.
    """
    table, name = decisions.table, decisions.name
    rows = _rows(decisions, manifest)
    decision = table["decision"].to_numpy(object)
    wanted, given = table["label"].to_numpy(object), table[GIVEN_LABEL].to_numpy(object)
    has = manifest.table["label"].to_numpy(object)[rows]
    paths = table["path"].to_numpy(object)

    stale = (given != "") & (given != has) & (wanted != has)
    if stale.any():
        raise DataError(
            f"{name}: {stale.sum():,} decisions were made with another label than {manifest.name} has now: "
            + listed(
                [
                    f"{path} ({was!r} then, {now!r} now)"
                    for path, was, now in zip(paths[stale][:5], given[stale], has[stale], strict=False)
                ],
                int(stale.sum()),
            ),
            expected="the labels that were judged",
            hint="give the DATA the decisions were made on, or decide about these samples again",
        )
    relabels = decision == RELABEL
    odd = (decision == KEEP) & (wanted != "") & (wanted != has)
    if odd.any():
        raise DataError(
            f"{name}: the decision is {KEEP}, with another label than the sample's, for "
            f"{listed(paths[odd].tolist())}",
            expected=f"{KEEP} with the sample's own label or an empty one",
            hint=f"write {RELABEL} where the label is to change",
        )
    after = np.where(relabels, wanted, has)
    found = pd.DataFrame({"row": rows, "path": paths, "verdict": decision + " " + after})
    differ = found[found.groupby("row")["verdict"].transform("nunique") > 1]
    if len(differ):
        twice = differ.drop_duplicates("row")["path"].tolist()
        raise DataError(
            f"{name}: decisions that differ about {len(twice):,} samples: {listed(twice)}",
            expected="one decision for each sample",
            hint="leave out the rows that do not count",
        )
    actions = np.full(len(manifest.table), "", dtype=object)
    labels = manifest.table["label"].to_numpy(object, copy=True)
    actions[rows], labels[rows] = decision, after
    return Verdicts(actions, labels)


def _text(cells: pd.Series) -> pd.Series:
    """Cells as text, "" where there are none."""
    return cells.astype(object).where(cells.notna(), "").astype(str)


def _rows(decisions: Decisions, manifest: Manifest) -> np.ndarray:
    """Row of the sample that each decision is about, (m,) int64; refused where there is not one."""
    rows = _places(decisions, manifest)
    paths = decisions.table["path"].tolist()
    if (rows == _SEVERAL).any():
        several = [path for path, row in zip(paths, rows, strict=True) if row == _SEVERAL]
        raise DataError(
            f"{decisions.name}: {len(several):,} decisions name several samples of {manifest.name} each: "
            f"{listed(several)}",
            expected="a path that is one sample's alone",
            hint="write the paths as DATA does, or give these samples different paths",
        )
    if (rows == _NOWHERE).any():
        unknown = [path for path, row in zip(paths, rows, strict=True) if row == _NOWHERE]
        raise DataError(
            f"{decisions.name}: {len(unknown):,} of {len(paths):,} decisions are about no sample of "
            f"{manifest.name}: {listed(unknown)}",
            expected=f"paths of its samples: absolute, relative to {decisions.folder}, or as it writes them, "
            f"such as {manifest.table['path'].iloc[0]}",
            hint="they were perhaps made for an earlier version of it, before these samples were dropped: "
            f"give that one as DATA, or delete their rows in {decisions.name}",
        )
    return rows


def _places(decisions: Decisions, manifest: Manifest) -> np.ndarray:
    """Row of the sample that each decision is about, (m,) int64; `_NOWHERE`, or `_SEVERAL` rows."""
    paths = decisions.table["path"].tolist()
    # Names in an .npz file are no places, even where a file is called so.
    places = [
        None if named else _normal(file)
        for file, named in zip(manifest.files(), manifest.names_only, strict=True)
    ]
    wanted = [_normal(joined(decisions.folder, path)) for path in paths]
    rows = _found(wanted, places)
    rows = _otherwise(rows, paths, manifest.table["path"].tolist())
    if (rows == _NOWHERE).any():
        rows = _otherwise(rows, _real(wanted), _real(places))
    return rows


_NOWHERE, _SEVERAL = -1, -2


def _found(wanted: Iterable[str | None], keys: Iterable[str | None]) -> np.ndarray:
    """Position of the key that each wanted one equals, (m,) int64; `_NOWHERE`, or `_SEVERAL` positions."""
    index: dict[str | None, int] = {}
    for position, key in enumerate(keys):
        index[key] = _SEVERAL if key in index else position
    index.pop(None, None)
    return np.array([index.get(key, _NOWHERE) for key in wanted], dtype=np.int64)


def _otherwise(rows: np.ndarray, wanted: Iterable[str | None], keys: Iterable[str | None]) -> np.ndarray:
    """The rows, with those found in another way where there were none."""
    return np.where(rows == _NOWHERE, _found(wanted, keys), rows)


def _normal(file: str) -> str:
    return file if is_url(file) else posixpath.normpath(file)


def _real(files: Iterable[str | None]) -> list[str | None]:
    """The places behind symbolic links."""
    folders: dict[str, str] = {}  # asked for once: files are many, folders few
    found = []
    for file in files:
        if file is None or is_url(file) or "\0" in file:  # a name that no file has leads nowhere
            found.append(file)
            continue
        folder, name = posixpath.split(file)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        place = posixpath.join(folders[folder], name)
        found.append(os.path.realpath(place) if os.path.islink(place) else place)  # noqa: PTH114
    return found
