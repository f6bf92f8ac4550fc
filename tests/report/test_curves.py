"""Plots: the same bytes for the same results, whole XML whatever the names, every set and rule in them."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from divacli.evaluation.curve import Curve
from divacli.evaluation.evaluate import COLUMNS, Evaluation, summarise, with_recovered
from divacli.report.figures.curves import curve_plot, evaluation_plot


def evaluation(names: list[str], learners: tuple[str, ...] = ("ridge", "logistic")) -> Evaluation:
    rows = [
        (name, learner, seed, 40, *np.linspace(0.1, 0.3, 8) * (1 + place + (seed or 0) / 10))
        for learner in learners
        for place, name in enumerate(names)
        for seed in ((0, 1) if name.startswith("random") else (None,))
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64"})
    return Evaluation(table, with_recovered(summarise(table)), 372)


def curve(rules: list[str]) -> Curve:
    rows = [
        (rule, fraction, "ridge", seed, 40, *np.linspace(0.1, 0.3, 8) * (1 + fraction + (seed or 0) / 10))
        for rule in rules
        for fraction in (0.0, 0.2, 0.4)
        for seed in ((0, 1) if rule == "random" and fraction else (None,))
    ]
    table = pd.DataFrame(rows, columns=["rule", "fraction", *COLUMNS[1:]]).astype({"seed": "Int64"})
    return Curve("removed", table, summarise(table, ("learner", "rule", "fraction")), 372)


def texts(svg: bytes) -> str:
    """A plot, which is whole XML, and in which text is text."""
    ElementTree.fromstring(svg)
    return svg.decode()


def test_an_evaluation_names_its_sets_and_learners():
    svg = texts(evaluation_plot(evaluation(["everything", "kept.csv", "random 40"])))
    for text in ("everything", "kept.csv", "random 40", "ridge", "logistic", "test error in %", "372"):
        assert text in svg
    assert "marks: single runs" in svg
    assert "marks" not in texts(evaluation_plot(evaluation(["everything", "kept.csv"])))


def test_a_curve_names_its_rules():
    svg = texts(curve_plot(curve(["derivative", "random"])))
    for text in ("derivative", "random", "removed, in %", "test error in %"):
        assert f">{text}</text>" in svg
    assert "band: spread over seeds" in svg
    assert "band" not in texts(curve_plot(curve(["derivative"])))


@pytest.mark.parametrize(
    "name", ["$x_$.csv", "a--b -->.csv", "<b>&amp;", "\x1b[31m\x00", "写真/kept.csv", "\n", "x" * 300]
)
def test_any_name_gives_whole_xml_and_no_warning(name, recwarn):
    ElementTree.fromstring(evaluation_plot(evaluation(["everything", name])))
    assert not recwarn.list


def test_a_single_learner_and_set():
    ElementTree.fromstring(evaluation_plot(evaluation(["everything"], ("ridge",))))


def test_bytes_depend_on_the_results_alone():
    for plot, result in (
        (evaluation_plot, evaluation(["everything", "random 40"])),
        (curve_plot, curve(["random"])),
    ):
        assert plot(result) == plot(result)
        assert b"date" not in plot(result)
