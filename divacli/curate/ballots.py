"""Read votes: a table in which a path may stand in several rows, one for each annotator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.features import is_store
from divacli.manifest import Manifest, read_manifest
from divacli.manifest.column_types import row_numbers
from divacli.manifest.table import alike
from divacli.manifest.validate import sample_keys
from divacli.reading import NamedData
from divacli.run_record import current
from divacli.solve.groups import group_names

DEFAULT_ANNOTATOR = "annotator"
"""The column that names annotators where no other is asked for."""

NO_ANNOTATOR = "none"
"""What is asked for where all votes are to be taken for those of one annotator."""

RESULT_COLUMNS = (
    "consensus_probability",
    "second_label",
    "second_probability",
    "majority_label",
    "tied_labels",
    "n_votes",
    "agreement",
    "gain",
)
"""Columns of the consensus, in order beside path, label and weight."""

_OF_IMAGES = ("weight", "group")
"""Columns that an image has only one value of."""


@dataclass(frozen=True)
class Ballots:
    """Votes for images.

    Attributes:
        images: One row an image, in the order of its first vote. `label` is the one with most votes, of
            equally many the first class. Of the other columns those are left that do not differ between the
            votes for an image.
        image: (v,) int64 row of `images` of each vote.
        labels: (v,) text, what each is for.
        annotators: (v,) text, who gave it; "" for nobody known.
        column: That names them; None where no column does.
        classes: (k,) all labels, in their order.
    """

    images: Manifest
    image: np.ndarray
    labels: np.ndarray
    annotators: np.ndarray
    column: str | None
    classes: list[str]

    def counts(self) -> np.ndarray:
        """(m, k) int64 votes of each image for each class."""
        found = np.zeros((len(self.images.table), len(self.classes)), np.int64)
        np.add.at(found, (self.image, numbered(self.labels, self.classes)), 1)
        return found

    def of(self, images: Manifest) -> Ballots:
        """The votes for some of the images.

        Args:
            images: Rows of `images`, in any order, with other columns or not.
        """
        rows = pd.Index(sample_keys(self.images)).get_indexer(pd.Index(sample_keys(images)))
        place = np.full(len(self.images.table), -1)
        place[rows] = np.arange(len(rows))
        kept = place[self.image] >= 0
        return replace(
            self,
            images=images,
            image=place[self.image[kept]],
            labels=self.labels[kept],
            annotators=self.annotators[kept],
        )


def numbered(values: np.ndarray, names: list[str]) -> np.ndarray:
    """The place (v,) int64 of each value in a list of all.

    Args:
        values: (v,) text.
        names: (k,) all that there are, each once.
    """
    return pd.Index(names).get_indexer(pd.Index(values)).astype(np.int64)


def read_ballots(data: str | NamedData | Manifest, annotator: str | None = None) -> Ballots:
    """Read a table of votes.

    Args:
        data: A table with path and label, one row a vote; `-` for standard input; or such a table as it was
            read.
        annotator: Column that names who voted; None: `DEFAULT_ANNOTATOR` where there is one; `NO_ANNOTATOR`.

    Raises:
        DataError: It is no table of votes, lacks the column, or says two things of one image.
    """
    read: Manifest | None
    if isinstance(data, Manifest):
        read, name = data, data.name
    else:
        named = NamedData(data) if isinstance(data, str) else data
        name = named.name
        read = None if is_store(name) else read_manifest(name, repeated=True, reading=named.reading)
    if read is None or read.kind != "table":
        kind = "feature store" if read is None else read.kind
        raise DataError(
            f"{name} is a {kind}, in which a sample has one label",
            expected="a table (.csv, .tsv, .jsonl, .parquet or -) with path and label, one row for each vote",
            hint="write the votes into a table; its column feature_source may name an .npz file or a store",
        )
    ballots = collected(read, annotator)
    current().read(name, ballots.images)
    return ballots


def collected(votes: Manifest, annotator: str | None = None) -> Ballots:
    """Votes by image.

    Args:
        votes: One row a vote.
        annotator: As of `read_ballots`.

    Raises:
        DataError: As `read_ballots`.
    """
    table = votes.table
    column = _annotator_column(votes, annotator)
    names, warnings = _names(votes, column)
    image, _ = pd.factorize(sample_keys(votes))
    first = np.unique(image, return_index=True)[1]
    twice = pd.DataFrame({"image": image, "name": names})[names != ""].duplicated()
    if twice.any():
        warnings.append(
            f"{votes.name}: {int(twice.sum()):,} votes are further ones of an annotator for the same image, "
            f"the first: {table['path'][twice.index[twice][0]]}; each counts as one that was given on its own"
        )
    others = [str(name) for name in table if name not in ("path", "label", column)]
    differing = [name for name in others if _differing(table[name], image, first).any()]
    for name in _OF_IMAGES:
        if name in differing:
            wrong = _differing(table[name], image, first)
            raise DataError(
                f"{votes.name}: {name} is not that of the other votes for the image in {row_numbers(wrong)}",
                expected=f"one {name} for each image",
                hint=f"give all votes for an image the same {name}, or leave the column out",
            )
    if differing:
        warnings.append(
            f"{votes.name}: columns that differ between votes for an image are left out: {listed(differing)}."
        )
    if replaced := [name for name in RESULT_COLUMNS if name in table]:
        warnings.append(f"{votes.name}: columns that are made anew: {listed(replaced)}.")
    dropped = {*differing, *replaced, column}
    images = table.iloc[first].drop(columns=[name for name in table if name in dropped])
    manifest = replace(
        votes,
        table=images.reset_index(drop=True),
        unused=tuple(name for name in votes.unused if name not in dropped),
        warnings=(*(one for one in votes.warnings if "single sample" not in one), *warnings),
        repeated=False,
    )
    found = Ballots(
        manifest, image, table["label"].to_numpy(object), names.to_numpy(object), column, votes.classes
    )
    most = np.array(found.classes, object)[found.counts().argmax(axis=1)]
    return replace(found, images=replace(manifest, table=manifest.table.assign(label=pd.Series(most))))


def _annotator_column(votes: Manifest, annotator: str | None) -> str | None:
    """The column that names annotators.

    Raises:
        DataError: There is no such column.
    """
    if annotator == NO_ANNOTATOR:
        return None
    if annotator is None:
        return DEFAULT_ANNOTATOR if DEFAULT_ANNOTATOR in votes.table else None
    if annotator not in votes.table or annotator in ("path", "label"):
        raise DataError(
            f"{votes.name} has no column {annotator} for --annotator; its columns are: "
            + listed(votes.table.columns.tolist(), limit=12),
            expected="a column that names who gave each vote",
            hint="name one of these, or use --annotator none: all votes then count as those of one annotator",
        )
    return annotator


def _names(votes: Manifest, column: str | None) -> tuple[pd.Series, list[str]]:
    """Who gave each vote, (v,) text, and warnings of names that may be mistyped."""
    if column is None:
        return pd.Series([""] * len(votes.table), dtype="str"), []
    written = group_names(votes.table[column])
    names = written.str.strip()
    warnings = []
    if changed := int((names != written).sum()):
        warnings.append(
            f"{votes.name}: spaces around the names of annotators do not count: {changed:,} votes."
        )
    if empty := int((names == "").sum()):
        warnings.append(
            f"{votes.name}: {empty:,} votes have no {column} and count as those of one without name."
        )
    if pairs := alike(names):
        warnings.append(
            f"{votes.name}: annotators whose names differ only by case or Unicode form count as different: "
            f"{listed(pairs)}."
        )
    return names, warnings


def _differing(cells: pd.Series, image: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Which votes have another cell than the first one for their image, (v,) bool."""
    text = group_names(cells).to_numpy(object)
    return np.asarray(text != text[first][image], bool)
