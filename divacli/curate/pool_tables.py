"""What became of every pool sample: chosen and why, left behind and why, and the set that results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from divacli.errors import DataError, listed
from divacli.features import Samples
from divacli.manifest import relocate
from divacli.manifest.column_types import stacked
from divacli.manifest.columns import (
    BATCH,
    EXPECTED_DERIVATIVE,
    FEATURE_SOURCE,
    LABEL_PROBABILITY,
    LABEL_SOURCE,
    POOL_DERIVATIVE,
    PREDICTED_LABEL,
    REASON,
    without_scores,
)
from divacli.manifest.identity import sample_names
from divacli.ridge import Candidates
from divacli.solve.overlap import kin_of
from divacli.solve.ridge_problem import SolveOptions


def barred_samples(core: Samples, pool: Samples, judged: Samples, options: SolveOptions) -> pd.Series:
    """Why each pool sample cannot be chosen whatever its derivative, "" where it can.

    Args:
        core: The core.
        pool: The pool.
        judged: Whose loss the choice is to lower: the core, or a validation set.
        options: How the problem is posed.

    Raises:
        DataError: None can be chosen.
    """
    table = pool.manifest.table
    reasons = pd.Series("", index=table.index)

    def bar(rows: pd.Series | np.ndarray, reason: str) -> None:
        reasons[np.asarray(rows, bool) & (reasons == "").to_numpy()] = reason

    bar(table["weight"] == 0, "its weight is 0")
    where = "core" if judged is core else "validation set"
    names = pd.Series(sample_names(pool.manifest), index=table.index)
    keys = None if pool.keys is None else pd.Series([key.tobytes() for key in pool.keys])
    for name, others in {"core": core, where: judged}.items():
        bar(names.isin(sample_names(others.manifest)), f"it is in the {name} already")
        if keys is not None and others.keys is not None:
            bar(keys.isin([key.tobytes() for key in others.keys]), f"the same image is in the {name}")
    if keys is not None:
        bar(keys.duplicated(), "the same image stands above it in the pool")
    if pool.manifest.labelled:
        known = set(judged.manifest.table["label"])
        bar(~table["label"].isin(known), "no sample that the choice is judged by has its label")
    bar(
        kin_of(judged.manifest, pool.manifest, options.group),
        f"its {options.group} is in the {where}, which would be judged by its own kin",
    )
    if (reasons != "").all():
        counts = reasons.value_counts()
        raise DataError(
            f"{pool.manifest.name}: none of {len(table):,} samples can be chosen: "
            + listed([f"{count:,} because {reason}" for reason, count in counts.items()]),
            expected="samples that the core lacks, with labels that it has",
            hint="for new classes give a set that has them with --val",
        )
    return reasons


def described(
    candidates: Candidates, rows: torch.Tensor, classes: list[str], batch: int, labelled: bool
) -> pd.DataFrame:
    """Why these were chosen now."""
    return pd.DataFrame({BATCH: batch, **_opinion(candidates, rows, classes, labelled)})


def _opinion(
    candidates: Candidates, rows: torch.Tensor, classes: list[str], labelled: bool
) -> dict[str, np.ndarray]:
    derivative = POOL_DERIVATIVE if labelled else EXPECTED_DERIVATIVE
    probability = candidates.trust if labelled else candidates.confidence
    return {
        derivative: candidates.derivative[rows].numpy(),
        LABEL_PROBABILITY: probability[rows].numpy(),
        PREDICTED_LABEL: np.array(classes, dtype=object)[candidates.predicted[rows].numpy()],
    }


def selected_samples(
    pool: Samples, rows: np.ndarray, batches: list[pd.DataFrame], candidates: Candidates, classes: list[str]
) -> pd.DataFrame:
    """The chosen samples in the order of choice, with what spoke for each.

    Args:
        pool: The pool.
        rows: (c,) chosen rows in order.
        batches: What was known of each batch when it was chosen, from `described`.
        candidates: For the columns where nothing was chosen.
        classes: Label of each class number.
    """
    labelled = pool.manifest.labelled
    nobody = torch.zeros(0, dtype=torch.int64)
    why = pd.concat(batches or [described(candidates, nobody, classes, 0, labelled)], ignore_index=True)
    table = _without_old(pool.manifest.table, why).iloc[rows].reset_index(drop=True)
    if not labelled:
        table["label"] = why[PREDICTED_LABEL]
        table[LABEL_SOURCE] = "predicted"
    first = ["path", "label", "weight"]
    others = [name for name in table if name not in first]
    return pd.concat([why[[BATCH]], table[first], why.drop(columns=BATCH), table[others]], axis=1)


def remaining_samples(
    pool: Samples,
    reasons: pd.Series,
    free: torch.Tensor,
    candidates: Candidates,
    classes: list[str],
    min_trust: float,
    stopped: str,
    *,
    ranked: bool = True,
) -> pd.DataFrame:
    """The samples that were not chosen, in the pool's order, with the reason.

    Args:
        pool: The pool.
        reasons: From `barred_samples`.
        free: (m,) bool, who could still be chosen.
        candidates: What the last fit says of them.
        classes: Label of each class number.
        min_trust: The least probability of a label to be chosen with.
        stopped: Why the choice ended.
        ranked: Whether the choice went by the derivative; else none was left because of it.
    """
    labelled = pool.manifest.labelled
    rows = torch.from_numpy((free.numpy() | (reasons != "").to_numpy()).nonzero()[0])
    opinion = pd.DataFrame(_opinion(candidates, rows, classes, labelled))
    table = _without_old(pool.manifest.table, opinion).iloc[rows.numpy()].reset_index(drop=True)
    barred = reasons.iloc[rows.numpy()].reset_index(drop=True)
    # A derivative in a class that nobody judges, or of an image that is there already, says nothing.
    opinion.loc[barred != "", opinion.columns[0]] = np.nan
    exact = candidates.derivative if candidates.change is None else candidates.change
    change, trust = exact[rows].numpy(), candidates.trust[rows].numpy()
    reason = np.select(
        [barred != "", trust < min_trust, ranked & (change >= 0)],
        [barred, "its label is not trusted", "it would raise the loss"],
        stopped,
    )
    first = ["path", "label", "weight"]
    others = [name for name in table if name not in (*first, REASON)]
    return pd.concat([table[first], opinion, table[others]], axis=1).assign(reason=reason)


def extended_samples(core: Samples, pool: Samples, selected: pd.DataFrame) -> pd.DataFrame:
    """Core and chosen samples in one table, whose relative paths start from the core's folder."""
    mine = without_scores(core.manifest.table)
    chosen = selected.drop(
        columns=[BATCH, POOL_DERIVATIVE, EXPECTED_DERIVATIVE, LABEL_PROBABILITY, PREDICTED_LABEL],
        errors="ignore",
    )
    chosen = relocate(chosen, pool.manifest.folder, core.manifest.folder)
    # A sample may stand in both under one name; an embedding is told by its file as well.
    table = stacked([mine.assign(origin="core"), chosen.assign(origin="pool")])
    texts = [name for name in table if name in _TEXTS or _holds_text(table[name])]
    return table.fillna(dict.fromkeys(texts, ""))


def _holds_text(column: pd.Series) -> bool:
    if column.dtype == object:
        return all(isinstance(cell, str) for cell in column.dropna())
    return isinstance(column.dtype, pd.StringDtype)


_TEXTS = ("group", "split", "id", FEATURE_SOURCE, LABEL_SOURCE)


def _without_old(table: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """A pool's table without the columns that are about to be written."""
    return without_scores(table).drop(columns=[name for name in new if name in table], errors="ignore")
