"""Which plots a folder of results allows, and how each is drawn from its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from divacli.errors import DataError, listed
from divacli.manifest import read_manifest
from divacli.manifest.columns import DERIVATIVE, LOO_LOSS, MISLABEL_PROBABILITY, SUGGESTED_LABEL
from divacli.manifest.truth import known_wrong
from divacli.reading import EVERY
from divacli.report.figures import classes, derivatives, histories
from divacli.report.figures.curves import curve_figure, evaluation_figure
from divacli.results.names import EVALUATION, HARM, HISTORY, REWEIGHT, SCORES, SUMMARY
from divacli.results.read import Results, read_results

_Draw = Callable[[Results, np.ndarray | None], Iterator[tuple[str, Figure]]]
_SCORED = (DERIVATIVE, LOO_LOSS, MISLABEL_PROBABILITY, SUGGESTED_LABEL)


@dataclass(frozen=True)
class _Kind:
    """A kind of plot.

    Attributes:
        there: Whether a folder has what it needs.
        needs: That, for messages.
        command: What makes it.
        draw: Names and figures.
    """

    there: Callable[[Results], bool]
    needs: str
    command: str
    draw: _Draw


def kinds_of(results: Results) -> list[str]:
    """The kinds of plots that the files of a folder allow, in the order of `KINDS`."""
    with results.read_as_written():
        return [name for name, kind in _KINDS.items() if kind.there(results)]


def plots_of(results: Results, kind: str, wrong: np.ndarray | None = None) -> list[tuple[str, Figure]]:
    """All plots of one kind, each with a name for its file.

    Args:
        results: What commands wrote.
        kind: One of `KINDS`.
        wrong: (n,) bool, samples of the scores whose label is known to be wrong.

    Raises:
        DataError: There is no such kind, or the folder lacks what it needs.
    """
    if kind not in _KINDS:
        raise DataError(f"no kind of plot {kind!r}", expected=f"one of {', '.join(KINDS)}")
    found = _KINDS[kind]
    if not found.there(results):
        raise DataError(
            f"{results.folder} holds nothing for a plot of kind {kind}",
            expected=found.needs,
            hint=found.command,
        )
    with results.read_as_written():
        return list(found.draw(results, wrong))


def asked_plots(folder: Path, kinds: Sequence[str], truth: str | None) -> list[tuple[str, Figure]]:
    """Plots of some kinds, or of all that a folder allows, each with a name for its file.

    Args:
        folder: What commands wrote results into.
        kinds: Of `KINDS`; none of them for all.
        truth: DATA with the true labels of the scores.

    Raises:
        DataError: There is nothing to draw, or there are true labels and no scores; or as `plots_of`.
    """
    results = read_results(folder)
    kinds = kinds or kinds_of(results)
    if not kinds:
        raise DataError(
            f"{folder} holds nothing to draw",
            expected=f"what one of these needs: {', '.join(KINDS)}",
            hint="name one with --kind to learn what it needs",
        )
    scores = results.samples.get(SCORES)
    if truth is not None and scores is None:
        raise DataError(
            f"--truth {truth} without scores in {folder}",
            expected="a folder with scores.csv, whose labels are compared with the true ones",
            hint="leave --truth out, or run diva score into this folder",
        )
    true_labels = None if truth is None else read_manifest(truth, labels="optional", reading=EVERY)
    wrong = None if scores is None else known_wrong(scores, true_labels)
    return [named for kind in kinds for named in plots_of(results, kind, wrong)]


def _scores(results: Results) -> pd.DataFrame:
    return results.samples[SCORES].table


def _scored(results: Results) -> bool:
    return SCORES in results.samples and set(_SCORED) <= set(_scores(results))


def _histogram(results: Results, wrong: np.ndarray | None) -> Iterator[tuple[str, Figure]]:
    yield "histogram", derivatives.derivative_histogram(_scores(results), wrong)


def _loss(results: Results, wrong: np.ndarray | None) -> Iterator[tuple[str, Figure]]:
    yield "loss", derivatives.derivative_against_loss(_scores(results), wrong)


def _classes(results: Results, wrong: np.ndarray | None) -> Iterator[tuple[str, Figure]]:
    yield "classes", classes.class_bars(_scores(results))


def _groups(results: Results, wrong: np.ndarray | None) -> Iterator[tuple[str, Figure]]:
    harm = results.records[HARM]
    names: set[str] = set()
    for by in harm["by"].unique().tolist():
        name = "groups-" + (re.sub(r"[^\w]+", "-", by).strip("-") or "column")
        if name in names:
            name += f"-{len(names) + 1}"
        names.add(name)
        yield name, classes.group_bars(harm, by)


def _confusions(results: Results, wrong: np.ndarray | None) -> Iterator[tuple[str, Figure]]:
    yield "confusions", classes.confusions(_scores(results))


def _ridge(results: Results, wrong: np.ndarray | None) -> Iterator[tuple[str, Figure]]:
    yield "ridge", histories.ridge_path(results.summaries[SUMMARY])


def _curves(results: Results, wrong: np.ndarray | None) -> Iterator[tuple[str, Figure]]:
    history, about = results.records.get(HISTORY), results.summaries.get(EVALUATION, {})
    if history is not None and "n_selected" in history:
        yield "choice", histories.choice_curve(history)
    if history is not None and "kfold_loss" in history:
        yield "training", histories.training_curve(history)
    if REWEIGHT in results.summaries:
        yield "steps", histories.steps_curve(results.summaries[REWEIGHT])
    if "curve" in about:
        yield "curve", curve_figure(about["curve"]["of"], _rows(about["curve"]["results"]), about["n_test"])
    if "evaluation" in about and EVALUATION in results.records:
        runs = results.records[EVALUATION]
        runs = runs.assign(test_error=pd.to_numeric(runs["test_error"]))
        yield "evaluation", evaluation_figure(runs, _rows(about["evaluation"]), about["n_test"])


def _rows(records: list[dict[str, Any]]) -> pd.DataFrame:
    """A table out of JSON, in which a missing number is null."""
    return pd.DataFrame(records).astype({"test_error": float, "test_error_sd": float, "test_error_se": float})


def _has_curve(results: Results) -> bool:
    history, about = results.records.get(HISTORY), results.summaries.get(EVALUATION, {})
    return (
        (history is not None and bool({"n_selected", "kfold_loss"} & set(history)))
        or REWEIGHT in results.summaries
        or bool({"curve", "evaluation"} & set(about))
    )


_SCORES = "a table of scores (scores.csv) with " + listed(list(_SCORED))
_SCORE = "run diva score DATA --out on this folder first"
_KINDS = {
    "histogram": _Kind(_scored, _SCORES, _SCORE, _histogram),
    "loss": _Kind(_scored, _SCORES, _SCORE, _loss),
    "classes": _Kind(_scored, _SCORES, _SCORE, _classes),
    "groups": _Kind(
        lambda results: HARM in results.records and len(results.records[HARM]) > 0,
        "a table of sums (harm.csv)",
        "run diva score with --by class, --by pair or --by COLUMN",
        _groups,
    ),
    "confusions": _Kind(_scored, _SCORES, _SCORE, _confusions),
    "ridge": _Kind(
        lambda results: bool(results.summaries.get(SUMMARY, {}).get("ridge_path")),
        "a summary.json with ridge_path, which is there where the ridge was chosen",
        "run diva score without --ridge NUMBER",
        _ridge,
    ),
    "curve": _Kind(
        _has_curve,
        "history.csv, reweight.json, or evaluation.json",
        "run diva extend, aggregate, train, reweight or evaluate",
        _curves,
    ),
}
KINDS = tuple(_KINDS)
"""Names of all kinds."""
