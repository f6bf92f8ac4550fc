"""The figures and tables of a page, as far as the folder of results has what they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from divacli.curate.wrong_labels import mislabelled
from divacli.manifest.columns import MISLABEL_PROBABILITY, SUGGESTED_LABEL
from divacli.report.figures.drawing import page_svg
from divacli.report.figures.plots import kinds_of, plots_of
from divacli.results.names import AUGMENT, EVALUATION, SCORES
from divacli.results.read import Results

_ROWS = 60

_ABOUT = {
    "histogram": "Right of zero are the samples that harm, left of it those that help.",
    "loss": "Top right: predicted badly by the others, and harmful to them.",
    "classes": "The share of each class that is harmful, and whose label is called wrong.",
    "groups": "Sums of derivatives. Positive: without these samples the loss is lower.",
    "confusions": "Labels that are more likely wrong than right.",
    "ridge": "Every penalty that was tried.",
}
"""What to see in each kind of plot."""


@dataclass(frozen=True)
class Chart:
    """A figure in the page, with what to see in it."""

    title: str
    about: str
    svg: Markup


@dataclass(frozen=True)
class PageTable:
    """A table in the page.

    Attributes:
        name: In the page.
        short: In its navigation.
        title: Above it.
        about: What is in it.
        columns: Names.
        rows: Cells as text.
        numbers: Positions of the columns that hold numbers.
    """

    name: str
    short: str
    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


def charts(results: Results, wrong: np.ndarray | None = None) -> list[Chart]:
    """The figures of a folder of results.

    Args:
        results: The folder.
        wrong: (n,) bool, samples of `scores` whose label is known to be wrong.
    """
    return [
        _chart(kind, f"{name}-", figure)
        for kind in kinds_of(results)
        for name, figure in plots_of(results, kind, wrong)
    ]


def _chart(kind: str, prefix: str, figure: Figure) -> Chart:
    title = figure.get_suptitle().replace("\n", " ")
    figure.suptitle("")  # it stands above the figure, as text of the page
    # Made of text that is escaped, by an XML writer.
    return Chart(title, _ABOUT.get(kind, ""), Markup(page_svg(figure, prefix)))


def page_tables(results: Results) -> list[PageTable]:
    """The tables of a folder of results that a page shows beside its images."""
    return [*_confusions(results), *_transforms(results), *_errors(results)]


def _confusions(results: Results) -> Iterator[PageTable]:
    scores = results.samples.get(SCORES)
    if scores is None or not {MISLABEL_PROBABILITY, SUGGESTED_LABEL} <= set(scores.table):
        return
    called = scores.table[mislabelled(scores.table)]
    if called.empty:
        return
    pairs = called.groupby(["label", SUGGESTED_LABEL]).size().rename("n").reset_index()
    pairs = pairs.sort_values(["n", "label", SUGGESTED_LABEL], ascending=[False, True, True], kind="stable")
    shown = pairs.head(_ROWS)
    more = f" The {len(shown)} most frequent of {len(pairs):,} pairs." if len(pairs) > len(shown) else ""
    yield PageTable(
        "confusions",
        "Confusions",
        "Labels called wrong, given → suggested",
        f"{len(called):,} labels are more likely wrong than right.{more}",
        ("given", "suggested", "samples"),
        [(one["label"], one[SUGGESTED_LABEL], f"{one['n']:,}") for one in shown.to_dict("records")],
        frozenset({2}),
    )


def _transforms(results: Results) -> Iterator[PageTable]:
    found = results.summaries.get(AUGMENT, {}).get("transforms")
    if found:
        yield PageTable(
            "transforms",
            "Transforms",
            "Transforms of the images",
            "How often each is worth it, as diva augment found.",
            ("transform", "probability"),
            [(str(one["transform"]), f"{one['probability']:.0%}") for one in found],
            frozenset({1}),
        )


def _errors(results: Results) -> Iterator[PageTable]:
    table = results.records.get(EVALUATION)
    if table is None:
        return
    errors = table.assign(test_error=pd.to_numeric(table["test_error"], errors="coerce"))
    means = errors.groupby(["learner", "training_set"], sort=False)["test_error"].agg(["mean", "size"])
    rows = means.reset_index().to_dict("records")
    yield PageTable(
        "evaluation",
        "Evaluation",
        "Test errors",
        "Mean over runs, as diva evaluate measured them.",
        ("learner", "training set", "test error", "runs"),
        [
            (str(one["learner"]), str(one["training_set"]), f"{one['mean']:.2%}", f"{one['size']:,}")
            for one in rows
        ],
        frozenset({2, 3}),
    )
