"""Sentences that say who won."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from divacli.evaluation.evaluate import Evaluation
from divacli.evaluation.verdict_words import verdict_sentences
from divacli.evaluation.verdicts import Verdict
from divacli.report.terminal.evaluation import winners
from divacli.report.terminal.plain import PlainConsole


def evaluation(
    errors: dict[str, float],
    intervals: dict[tuple[str, str], tuple[float | None, float | None]],
    confidence: float = 0.95,
    learner: str = "ridge",
) -> Evaluation:
    summary = pd.DataFrame({"learner": learner, "training_set": list(errors), "test_error": errors.values()})
    verdicts = tuple(
        Verdict(learner, name, rival, errors[name] - errors[rival], low, high, confidence)
        for (name, rival), (low, high) in intervals.items()
    )
    return Evaluation(pd.DataFrame(), summary, 372, verdicts)


ERRORS = {"everything": 0.129, "kept.csv": 0.091, "random 784": 0.137, "oracle": 0.05}


@pytest.mark.parametrize(
    ("errors", "ends", "expected"),
    [
        (
            {},
            [(-0.055, -0.021), (-0.071, -0.02)],
            "ridge: kept.csv has the lowest error, 9.1 %: 3.8 points below everything (95 % interval 2.1 to "
            "5.5: more than chance), 4.6 points below random 784 (2.0 to 7.1: more than chance).",
        ),
        (
            {"everything": 0.099, "kept.csv": 0.097, "random 784": 0.0968},
            [(-0.009, 0.005), (-0.005, 0.0001)],
            "ridge: no difference that is more than chance: kept.csv 9.7 %, everything 9.9 % (difference "
            "-0.2, 95 % interval -0.9 to +0.5), random 784 9.7 % (0.0, -0.5 to 0.0).",
        ),
        (
            {"kept.csv": 0.157},
            [(0.01, 0.046), (-0.005, 0.045)],
            "ridge: everything has the lowest error, 12.9 %; kept.csv has 15.7 %: 2.8 points above "
            "everything (95 % interval 1.0 to 4.6: more than chance), 2.0 points above random 784 "
            "(-0.5 to +4.5: may be chance).",
        ),
        (
            {},
            [(-0.055, -0.021), (None, None)],
            "ridge: kept.csv has the lowest error, 9.1 %: 3.8 points below everything (95 % interval 2.1 to "
            "5.5: more than chance), 4.6 points below random 784 (one run: no interval).",
        ),
        (
            {},
            [(None, None), (None, None)],
            "ridge: no difference is known to be more than chance: kept.csv 9.1 %, everything 12.9 % "
            "(difference -3.8, one run: no interval), random 784 13.7 % (-4.6, one run: no interval).",
        ),
    ],
)
def test_a_sentence_says_who_won_and_whether_by_more_than_chance(errors, ends, expected):
    rivals = [("kept.csv", "everything"), ("kept.csv", "random 784")]
    found = evaluation({**ERRORS, **errors}, dict(zip(rivals, ends, strict=True)))
    assert verdict_sentences(found) == {"ridge": expected}


def test_the_best_of_several_manifests_is_called_that():
    errors = {"everything": 0.2, "some.csv": 0.15, "kept.csv": 0.1}
    intervals = {("some.csv", "everything"): (-0.08, -0.02), ("kept.csv", "everything"): (-0.13, -0.07)}
    assert verdict_sentences(evaluation(errors, intervals, 0.975))["ridge"] == (
        "ridge: kept.csv (best of 2) has the lowest error, 10.0 %: 10.0 points below everything "
        "(97.5 % interval 7.0 to 13.0: more than chance)."
    )


def test_without_a_manifest_there_is_nothing_to_say():
    nothing = evaluation({"everything": 0.1}, {})
    assert verdict_sentences(nothing) == {}
    assert list(winners(nothing)) == []


def test_a_line_for_each_rival_in_80_columns(monkeypatch):
    name = "a/very/long/folder/somewhere/ext\x1b[31mended.csv"
    errors = {"everything": 0.234, name: 0.169, "random pool 2890": 0.299, "whole pool": 0.167}
    intervals = {
        (name, "everything"): (-0.104, -0.026),
        (name, "random pool 2890"): (-0.17, -0.12),
        (name, "whole pool"): (-0.038, 0.044),
    }
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr", io.StringIO())
    for screen in (
        Console(width=80, file=io.StringIO(), highlight=False, color_system=None),
        PlainConsole(),
    ):
        for part in winners(evaluation(errors, intervals, learner="logistic")):
            screen.print(part)
        lines = screen.file.getvalue().splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[0] == ""
        assert lines[1] == "logistic: whole pool has the lowest error, 16.7 %;"
        assert lines[2].startswith("  …")
        assert lines[2].endswith("ended.csv has 16.9 %:")
        assert "\x1b" not in "".join(lines)
        assert lines[3:] == [
            "  6.5 points below everything (95 % interval 2.6 to 10.4: more than chance),",
            "  13.0 points below random pool 2890 (12.0 to 17.0: more than chance),",
            "  0.2 points above whole pool (-3.8 to +4.4: may be chance).",
        ]
