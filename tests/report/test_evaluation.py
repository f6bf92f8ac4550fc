"""What the terminal shows of an evaluation, in 80 columns."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from divacli.evaluation.curve import Curve
from divacli.evaluation.evaluate import Evaluation
from divacli.report.terminal.evaluation import curve_summary, evaluation_summary
from divacli.report.terminal.plain import shortened


def shown(parts) -> list[str]:
    console = Console(width=80, file=io.StringIO(), highlight=False, color_system=None)
    for part in parts:
        console.print(part)
    return console.file.getvalue().splitlines()


def summary(**columns: object) -> pd.DataFrame:
    given = {
        "learner": "ridge",
        "training_set": ["everything", "a/long/folder/somewhere/kept.csv", "random 2396"],
        "n_train": [1_203_068, 2396, 2396],
        "runs": [1, 1, 5],
        "test_error": [0.1532, 0.1425, 0.1624],
        "test_error_sd": [np.nan, np.nan, 0.0067],
        "test_error_se": 0.0187,
        "class_error": [0.2145, 0.1776, 0.2273],
        "difference": [0, -0.0108, 0.0091],
        "difference_se": 0.0107,
        "recovered": [0, 0.5, -12.425],
    }
    return pd.DataFrame({**given, **columns})


def test_means_spreads_and_differences_fit_the_terminal():
    lines = shown(evaluation_summary(Evaluation(pd.DataFrame(), summary(), 372)))
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("errors in % on 372 test samples")
    everything, kept, random = lines[-3:]
    assert everything.split() == ["everything", "1,203,068", "15.3", "±", "1.9", "21.4", "0%"]
    assert kept.split()[1:] == ["2,396", "14.2", "±", "1.9", "17.8", "-1.1", "±", "1.1", "50%"]
    assert "± 0.7" in random
    assert "+0.9 ± 1.1" in random
    assert "-1242%" in random
    # The end of a path says more than its beginning.
    assert kept.startswith(" …")
    assert "kept.csv" in kept


def test_without_an_oracle_there_is_no_such_column():
    text = "\n".join(shown(evaluation_summary(Evaluation(pd.DataFrame(), summary(recovered=np.nan), 372))))
    assert "gap" not in text


def test_a_table_for_each_learner_in_which_the_first_set_has_no_difference():
    both = pd.concat([summary(), summary(learner="logistic")], ignore_index=True)
    lines = shown(evaluation_summary(Evaluation(pd.DataFrame(), both, 372)))
    assert "ridge" in lines
    assert "logistic" in lines
    for line in lines:
        if line.startswith("everything"):
            assert "+0.0" not in line


def test_a_name_cannot_write_to_the_terminal():
    names = ["everything", "\x1b[31mred", "[bold]x[/bold]"]
    text = "\n".join(shown(evaluation_summary(Evaluation(pd.DataFrame(), summary(training_set=names), 372))))
    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text


def test_a_curve_has_a_line_for_each_fraction():
    means = pd.DataFrame(
        {
            "learner": "ridge",
            "rule": ["derivative", "derivative", "random", "random"],
            "fraction": [0, 0.25, 0, 0.25],
            "test_error": [0.15, 0.14, 0.15, 0.163],
            "test_error_sd": [np.nan, np.nan, np.nan, 0.01],
        }
    )
    lines = shown(curve_summary(Curve("removed", pd.DataFrame(), means, 372)))
    assert [line.split() for line in lines[-3:]] == [
        ["removed", "derivative", "random"],
        ["0%", "15.0", "15.0"],
        ["25%", "14.0", "16.3", "±", "1.0"],
    ]


@pytest.mark.parametrize(("name", "expected"), [("abcdef", "abcdef"), ("abcdefg", "…cdefg"), ("", "")])
def test_a_name_is_shortened_at_its_beginning(name, expected):
    assert shortened(name, 6) == expected
