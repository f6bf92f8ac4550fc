"""Tables of issues as cleanlab's Datalab and CleanLearning make them, in both directions.

In cleanlab a score lies in [0, 1] and a low one means an issue; `is_..._issue` says which samples have it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd

from divacli.curate.wrong_labels import mislabelled, outliers, require_judged
from divacli.errors import DataError, listed
from divacli.files.formats import TABLE_FORMATS
from divacli.files.urls import is_url
from divacli.manifest import Manifest
from divacli.manifest.column_types import row_numbers
from divacli.manifest.columns import FEATURE_SOURCE, MISLABEL_PROBABILITY, OUTLIER_SCORE, SUGGESTED_LABEL
from divacli.manifest.tabular import parse_file
from divacli.results.names import DUPLICATES
from divacli.results.write import ResultFiles
from divacli.review.decisions import DROP, RELABEL

FILES = ("cleanlab",)
"""What is written for cleanlab."""

LabelIssues = Literal["drop", "relabel"]
"""What becomes of a sample with a label issue: it goes, or gets the predicted label."""

IS_ISSUE = "is_label_issue"

_TRUTH = {"true": True, "1": True, "false": False, "0": False, "1.0": True, "0.0": False}


def issues_of(scores: Manifest, copies: set[str] | None = None) -> pd.DataFrame:
    """A table of issues with the columns of `Datalab.get_issues()`, a row a sample.

    `label_score` is the probability that the label is right, and `predicted_label` the most probable other
    class. `outlier_score` is 1 / (1 + s) of diva's score s >= 0, which puts the samples in the same order.

    Args:
        scores: Of `diva score`.
        copies: Paths of the samples that have a copy; None where that is not known.

    Raises:
        DataError: The scores lack a column.
    """
    table = scores.table
    require_judged(table, (MISLABEL_PROBABILITY, SUGGESTED_LABEL, OUTLIER_SCORE))
    made = pd.DataFrame(
        {
            "path": table["path"],
            "given_label": table["label"],
            "predicted_label": table["suggested_label"],
            IS_ISSUE: mislabelled(table),
            "label_score": 1 - table[MISLABEL_PROBABILITY],
            "is_outlier_issue": outliers(table),
            "outlier_score": 1 / (1 + table["outlier_score"].clip(lower=0)),
        }
    )
    if copies is not None:
        made["is_near_duplicate_issue"] = table["path"].isin(copies)
    if FEATURE_SOURCE in table:
        made[FEATURE_SOURCE] = table[FEATURE_SOURCE]
    return made


def write_issues(target: ResultFiles, scores: Manifest, copies: set[str] | None = None) -> None:
    """Write the table of issues; its arguments and errors are those of `issues_of`."""
    target.table(FILES[0], issues_of(scores, copies), scores.folder, main=True)


def copies_beside(table: str, scores: Manifest, warn: Callable[[str], None]) -> set[str] | None:
    """Paths in the table of duplicates that lies beside a table of scores; None where there is none of these.

    Args:
        table: The table of scores, as DATA.
        scores: What it holds.
        warn: Told where the duplicates are of other samples.

    Raises:
        DataError: The table of duplicates cannot be read.
    """
    beside = [Path(table).with_name(f"{DUPLICATES}.{format}") for format in TABLE_FORMATS]
    found = [] if table == "-" or is_url(table) else [file for file in beside if os.path.lexists(file)]
    if not found:
        return None
    try:
        copies = parse_file(found[0], found[0].suffix[1:], str(found[0]))
    except OSError as error:
        raise DataError(f"{found[0]} cannot be read: {error.strerror}", hint="remove it") from error
    paths = set(copies["path"]) if "path" in copies else set()
    if not paths <= set(scores.table["path"]):
        warn(f"{found[0]} is of other samples than {table}: the column is_near_duplicate_issue is left out")
        return None
    return paths


def decisions_of_issues(
    raw: pd.DataFrame, name: str, classes: list[str], label_issues: LabelIssues
) -> pd.DataFrame:
    """The decisions that a table of issues stands for: one for every label issue.

    Args:
        raw: Columns path and is_label_issue; given_label where it is known, predicted_label to relabel.
            Labels may be class numbers, as CleanLearning has them.
        name: How messages call it.
        classes: The labels of DATA, in the order of their numbers.
        label_issues: What becomes of such a sample.

    Returns:
        Columns path, decision, label and given_label, for `divacli.review.decisions.decisions_of`.

    Raises:
        DataError: A cell of is_label_issue is neither true nor false, or a column is missing.
    """
    text = raw.astype(object).where(raw.notna(), "").astype(str)
    truth = text[IS_ISSUE].str.strip().str.lower().map(_TRUTH)
    if truth.isna().any():
        raise DataError(
            f"{name}: {IS_ISSUE} is neither true nor false in {row_numbers(truth.isna())}",
            expected="True or False in every row",
        )
    needed = ["path", *(["predicted_label"] if label_issues == RELABEL else [])]
    missing = [column for column in needed if column not in text]
    if missing:
        raise DataError(
            f"{name} has {IS_ISSUE} and no column {listed(missing)}",
            expected="the path of each sample, and predicted_label to relabel by",
            hint="add it: issues.insert(0, 'path', paths) in the order that cleanlab got the samples"
            if "path" in missing
            else "leave --label-issues relabel out to drop these samples",
        )
    issues = text[truth.astype(bool)]
    made = pd.DataFrame({"path": issues["path"], "decision": label_issues, "label": "", "given_label": ""})
    columns = {"given_label": "given_label", "label": "predicted_label"}
    if label_issues == DROP:
        del columns["label"]
    for ours, theirs in columns.items():
        if theirs in issues:
            made[ours] = issues[theirs]
    return _named(made, classes).reset_index(drop=True)


def _named(made: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """The same with labels in place of class numbers, where all of them are such and none is a label."""
    cells = pd.concat([made["label"], made["given_label"]])
    used = set(cells) - {""}
    names = {str(number): label for number, label in enumerate(classes)}
    if not used or not used <= set(names) or used & set(classes):
        return made
    return made.assign(
        label=made["label"].map({"": "", **names}), given_label=made["given_label"].map({"": "", **names})
    )
