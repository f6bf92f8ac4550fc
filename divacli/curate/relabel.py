"""Correct the labels that are more likely wrong than right, and say how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from divacli.curate.decision import (
    MORE_LIKELY_WRONG,
    Expectation,
    errors_first,
    mislabelled,
    outliers,
    require_judged,
)
from divacli.curate.labels import with_labels
from divacli.curate.score import JUDGED_COLUMNS, SCORE_COLUMNS

CHANGE_COLUMNS = (
    "path",
    "label",
    "suggested_label",
    "suggested_probability",
    "mislabel_probability",
    "action",
    "predicted_label",
)
"""First columns of the table of changes, in order; the other scores follow, then the user's own columns."""

ACTIONS = ("corrected", "unclear", "outlier")
"""What becomes of a label that is called wrong: it is replaced by the suggested one; or it stays, because no
single class is more probable than the given one; or because the sample is like nothing else in the set, so
that no class may be right for it."""

_PAIRS = 10


@dataclass(frozen=True)
class RelabelResult:
    """Corrected labels.

    Attributes:
        table: All samples in their own order with corrected labels and without scores. `given_label` is the
            label before any correction, in every row.
        changes: Scores of the samples whose label is called wrong, the most probable error first, with
            `action`; `label` is the one before.
        summary: What `relabel.json` holds of the decision; `emptied` are the classes that lost their last
            sample.
    """

    table: pd.DataFrame
    changes: pd.DataFrame
    summary: dict[str, Any]


def relabel(
    table: pd.DataFrame, threshold: float = MORE_LIKELY_WRONG, budget: int | None = None
) -> RelabelResult:
    """Replace labels that are called wrong by the suggested ones, where these are more probable.

    Args:
        table: Scores with `JUDGED_COLUMNS`.
        threshold: Probability in [0, 1) above which a label is called wrong.
        budget: Labels that are called wrong at the most, the most probable errors first.

    Raises:
        DataError: The scores lack a column that labels are judged by, or a value in it.
    """
    require_judged(
        table, ("mislabel_probability", "suggested_label", "suggested_probability", "outlier_score")
    )
    wrong = table["mislabel_probability"].to_numpy(float)
    suggested = table["suggested_probability"].to_numpy(float)
    given = table["label"].to_numpy(object)
    called = mislabelled(table, threshold, budget)
    actions = np.where(suggested > 1 - wrong, ACTIONS[0], ACTIONS[1]).astype(object)
    actions[outliers(table)] = ACTIONS[2]
    corrected = called & (actions == ACTIONS[0])
    labels = np.where(corrected, table["suggested_label"].to_numpy(object), given)

    order = errors_first(table)
    changes = table.assign(action=actions).iloc[order[called[order]]].reset_index(drop=True)
    first = [*CHANGE_COLUMNS, *(name for name in (*SCORE_COLUMNS, *JUDGED_COLUMNS) if name in changes)]
    columns = list(dict.fromkeys([*first, *changes]))
    pairs = changes[changes["action"] == ACTIONS[0]].value_counts(["label", "suggested_label"], sort=False)
    # Sorted by the pair already; a stable sort keeps that order among equals.
    pairs = pairs.sort_values(ascending=False, kind="stable")
    summary = {
        "n_samples": len(table),
        "n_corrected": int(corrected.sum()),
        "n_unclear": int((called & (actions == ACTIONS[1])).sum()),
        "n_outliers": int((called & (actions == ACTIONS[2])).sum()),
        "threshold": threshold,
        "budget": budget,
        "n_above_threshold": int(mislabelled(table, threshold).sum()),
        "mislabelled": Expectation.of(wrong, called).as_dict(),
        "expected_right": float(suggested[corrected].mean()) if corrected.any() else None,
        "noise_rate": float(wrong.mean()),
        "noise_rate_after": float(np.where(corrected, 1 - suggested, wrong).mean()),
        "corrections": [
            {"given": one, "suggested": other, "n": int(n)} for (one, other), n in pairs.head(_PAIRS).items()
        ],
        "emptied": sorted(set(given) - set(labels)),
    }
    return RelabelResult(with_labels(table, labels), changes[columns], summary)
