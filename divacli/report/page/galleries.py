"""Which samples a page shows, in which lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from divacli.curate.wrong_labels import MORE_LIKELY_WRONG, errors_first, outliers
from divacli.manifest import Manifest
from divacli.manifest.columns import (
    DERIVATIVE,
    FEATURE_SOURCE,
    LABEL_PROBABILITY,
    MISLABEL_PROBABILITY,
    OUTLIER_SCORE,
    POOL_DERIVATIVE,
    PREDICTED_LABEL,
)
from divacli.results.names import CHANGES, DROPPED, DUPLICATES, REWEIGHTED, SCORES, SELECTED
from divacli.results.read import Results

WORTH_A_LOOK = 0.2
"""Probability of a wrong label from which a sample is in the list of probable ones."""

_AT_LEAST = 48
"""Samples in that list all the same, a page of it, where fewer are so probable: to see where errors end."""


@dataclass(frozen=True)
class Gallery:
    """A list of samples.

    Attributes:
        name: In the page.
        title: For people.
        about: One or two sentences: what is in it, in which order.
        rows: (m,) int rows of the samples, the first ones to look at first.
        total: How many there are where the list was cut.
    """

    name: str
    title: str
    about: str
    rows: np.ndarray
    total: int


def all_samples(results: Results) -> Manifest:
    """Every sample that the tables of a folder name, once, with the columns of the first table that has it.

    Within one folder the same path is the same sample. Those of `scores` come first, in its order.
    """
    known = pd.Index([])
    parts = []
    for manifest in results.samples.values():
        new = manifest.table[~manifest.table["path"].isin(known)]
        parts.append(_with_scores(new))
        known = known.append(pd.Index(new["path"]))
    none = pd.DataFrame({"path": [], "label": [], "weight": []}, dtype=str)
    table = pd.concat([part for part in parts if len(part)] or [none], ignore_index=True)
    if FEATURE_SOURCE in table:
        table[FEATURE_SOURCE] = table[FEATURE_SOURCE].fillna("")
    return Manifest(results.folder.name, "table", table, results.folder, labels_required=False)


def _with_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Samples of a pool with what is known of them under the names that scores have."""
    if DERIVATIVE in table or POOL_DERIVATIVE not in table:
        return table
    return table.assign(
        derivative=table[POOL_DERIVATIVE],
        mislabel_probability=1 - pd.to_numeric(table[LABEL_PROBABILITY], errors="coerce"),
        suggested_label=table[PREDICTED_LABEL],
    )


def galleries(results: Results, samples: Manifest, limit: int | None) -> list[Gallery]:
    """The lists that the tables of a folder give, none of them empty.

    Args:
        results: The folder.
        samples: As of `all_samples`.
        limit: Samples of a list at the most; None for all.
    """
    found = [*_of_scores(results, samples), *_of_decisions(results, samples)]
    if limit is None:
        rows = np.arange(len(samples.table))
        found.append(_gallery("all", "All samples", "Every sample, as in the tables.", rows))
    return [replace(one, rows=one.rows[:limit]) for one in found if one.total]


def _of_scores(results: Results, samples: Manifest) -> Iterator[Gallery]:
    """Lists by the scores of all samples, where these are there."""
    if SCORES not in results.samples:
        return
    # The samples of scores come first, in the order of that table.
    scores = results.samples[SCORES].table
    derivative = scores[DERIVATIVE].to_numpy(float)
    if MISLABEL_PROBABILITY in scores:
        probability = scores[MISLABEL_PROBABILITY].to_numpy(float)
        first = errors_first(scores)
        called = int((probability > MORE_LIKELY_WRONG).sum())
        yield _gallery(
            "mislabelled",
            "Probably mislabelled",
            f"The labels most likely to be wrong first: {called:,} are more likely wrong than right, and "
            "the next ones follow; in a small set wrong labels are among these, too. Compare the image with "
            "the neighbours of its own label and of the suggested one.",
            first[: max(int((probability > WORTH_A_LOOK).sum()), _AT_LEAST)],
        )
    order = np.argsort(-derivative, kind="stable")
    yield _gallery(
        "harmful",
        "Most harmful",
        "The largest positive derivatives: more of such a sample raises the validation loss, removing it "
        "lowers the summed loss by about its derivative, which the bar shows with its standard error. "
        "Harmful is not wrong: look whether the label is right.",
        order[derivative[order] > 0],
    )
    yield _gallery(
        "useful",
        "Most useful",
        "The most negative derivatives: removing such a sample raises the validation loss.",
        order[::-1][derivative[order[::-1]] < 0],
    )
    if OUTLIER_SCORE in scores and len(scores):
        found = outliers(scores)
        odd = np.argsort(-scores[OUTLIER_SCORE].to_numpy(float), kind="stable")
        yield _gallery(
            "outliers", "Outliers", "Like nothing else in the set: the oddest first.", odd[found[odd]]
        )
    copies = results.records.get(DUPLICATES)
    if copies is not None and len(copies):
        conflict = copies["conflict"].astype(str).str.lower() == "true"
        place = pd.Index(samples.table["path"]).get_indexer(pd.Index(copies["path"][conflict].astype(str)))
        yield _gallery(
            "conflicts",
            "Copies that disagree",
            "Copies of one image, exact or near, that have different labels; copies stand side by side.",
            place[place >= 0],
        )


def _of_decisions(results: Results, samples: Manifest) -> Iterator[Gallery]:
    """Lists by what commands decided."""
    paths = pd.Index(samples.table["path"])

    def rows(name: str) -> np.ndarray:
        if name not in results.samples:
            return np.array([], dtype=int)
        return paths.get_indexer(pd.Index(results.samples[name].table["path"]))

    yield _gallery("dropped", "Dropped by prune", "What diva prune left out, the worst first.", rows(DROPPED))
    yield _gallery(
        "changes",
        "Called wrong by relabel",
        "The most probable error first: corrected, or left as they are because no single class is more "
        "probable (unclear) or none may be right (outlier).",
        rows(CHANGES),
    )
    yield _gallery(
        "selected", "Chosen by extend", "What was chosen from the pool, the first first.", rows(SELECTED)
    )
    if REWEIGHTED in results.samples:
        weight = results.samples[REWEIGHTED].table["weight"].to_numpy(float)
        order = np.argsort(weight, kind="stable")
        place = rows(REWEIGHTED)
        usual = float(np.median(weight))
        yield _gallery(
            "lowered",
            "Lowest weights",
            "The samples that diva reweight counts least.",
            place[order[weight[order] < usual]],
        )
        yield _gallery(
            "raised",
            "Highest weights",
            "The samples that diva reweight counts most.",
            place[order[::-1][weight[order[::-1]] > usual]],
        )


def _gallery(name: str, title: str, about: str, rows: np.ndarray) -> Gallery:
    return Gallery(name, title, about, rows, len(rows))
