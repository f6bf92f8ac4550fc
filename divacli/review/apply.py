"""Carry out decisions: the samples that stay, with the labels that were decided, and those that go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from divacli.manifest import Manifest
from divacli.manifest.columns import without_scores
from divacli.manifest.labels import with_labels
from divacli.review.decisions import DROP, Decisions, Verdicts, verdicts_of

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
    """

    table: pd.DataFrame
    removed: pd.DataFrame
    summary: dict[str, Any]


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
    return ApplyResult(stays[~dropped].reset_index(drop=True), table[dropped].reset_index(drop=True), summary)
