"""Carry out decisions: the samples that stay, with the labels that were decided, and those that go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from divacli.errors import listed
from divacli.files.path_or_url import STORE_FILE, place_of
from divacli.files.urls import is_url, suffix_of
from divacli.manifest import Manifest, read_manifest
from divacli.manifest.columns import without_scores
from divacli.manifest.labels import with_labels
from divacli.progress import Progress
from divacli.reading import AS_IT_IS, NamedData
from divacli.results.accounting import account
from divacli.results.result import Target
from divacli.results.write import ResultFiles
from divacli.review.decisions import DROP, Decisions, Verdicts, verdicts_of
from divacli.review.image_files import Way
from divacli.review.materialize import FOLDER, materialize

FILES = ("applied", "removed", "apply.json")
"""What is always written."""

_PAIRS = 10


@dataclass(frozen=True)
class ApplyResult:
    """DATA after the decisions.

    Attributes:
        table: The samples that stay, in their own order, without scores; with `given_label`, the label before
            any change, where a label has changed.
        removed: Those that go, in their own order, with their scores.
        summary: What `apply.json` holds. `emptied` are the labels that lost their last sample,
            `new_labels` those that no sample had.
        manifest: DATA before the decisions.
        said: Warnings of what was read and made.
        origin: Folder that relative paths in `table` start from.
    """

    table: pd.DataFrame
    removed: pd.DataFrame
    summary: dict[str, Any]
    manifest: Manifest
    said: tuple[str, ...]
    origin: Path

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        yield from self.said
        if self.summary["emptied"]:
            yield f"no sample is left with the label {listed(self.summary['emptied'])}"
        if self.summary["new_labels"]:
            yield (f"no sample had the label {listed(self.summary['new_labels'])} before: check the spelling")

    def write(self, target: Target) -> None:
        """Write all tables and the summary."""
        target.table("removed", self.removed, self.manifest.folder, part=True)
        target.json("apply.json", self.summary)
        target.table("applied", self.table, self.origin, main=True, part=True)


def apply(manifest: Manifest, decisions: Decisions | None = None) -> ApplyResult:
    """Carry out decisions; a sample without one stays as it is.

    Args:
        manifest: The samples.
        decisions: What was decided; None for nothing.

    Raises:
        DataError: See `divacli.review.decisions.verdicts_of`.
    """
    given = manifest.table["label"].to_numpy(object)
    if decisions is None:
        verdicts = Verdicts(np.full(len(given), "", dtype=object), given)
    else:
        verdicts = verdicts_of(decisions, manifest)
    dropped = verdicts.actions == DROP
    changed = ~dropped & (verdicts.labels != given)
    table = manifest.table
    stays = with_labels(table, verdicts.labels) if changed.any() else without_scores(table)
    pairs = pd.DataFrame({"given": given[changed], "label": verdicts.labels[changed]}, dtype=object)
    # Sorted by the pair already; a stable sort keeps that order among equals.
    frequent = pairs.value_counts(["given", "label"], sort=False).sort_values(ascending=False, kind="stable")
    left = set(verdicts.labels[~dropped])
    summary = {
        "n_samples": len(table),
        "n_kept": int((~dropped).sum()),
        "n_dropped": int(dropped.sum()),
        "n_relabelled": int(changed.sum()),
        "n_undecided": int((verdicts.actions == "").sum()),
        "n_classes": len(left),
        "relabelled": frequent.head(_PAIRS).reset_index(name="n").to_dict("records"),
        "new_labels": sorted(left - set(given)),
        "emptied": sorted(set(given) - left),
    }
    stays, removed = stays[~dropped].reset_index(drop=True), table[dropped].reset_index(drop=True)
    # Now: in a folder of images they have other names.
    account([manifest], [stays, removed], manifest.folder, labels=False)
    said = (*manifest.warnings, *(() if decisions is None else decisions.warnings))
    return ApplyResult(stays, removed, summary, manifest, said, manifest.folder)


def with_images(result: ApplyResult, target: ResultFiles, way: Way, progress: Progress) -> ApplyResult:
    """Make a folder of the images that stay, beside the tables, and name them by their places there.

    Args:
        result: What stays.
        target: A folder, where `FOLDER` is made.
        way: How images come into it.
        progress: Told of every image.

    Raises:
        DivaError: As `materialize`.
    """
    table, warnings = materialize(
        replace(result.manifest, table=result.table),
        target.base / FOLDER,
        way,
        target.format,
        progress,
        target.staged_path(FOLDER),
    )
    return replace(result, table=table, said=(*result.said, *warnings), origin=target.base.resolve())


def rows_of(given: str | NamedData) -> Manifest:
    """The samples of DATA, of any kind, without their features.

    Raises:
        DivaError: DATA is not usable.
    """
    data, reading = (given, AS_IT_IS) if isinstance(given, str) else (given.name, given.reading)
    # What may be a feature store takes torch, which takes seconds, to open; the rest is spared these.
    if is_url(data):
        store = not suffix_of(data)
    else:
        store = os.path.exists(os.path.join(str(place_of(data)), STORE_FILE))  # noqa: PTH110, PTH118
    if not store:
        return read_manifest(data, reading=reading)
    from divacli.features import read_data

    opened = read_data(data, reading=reading)
    return opened if isinstance(opened, Manifest) else opened.manifest
