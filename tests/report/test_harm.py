"""What the terminal shows of where the harm comes from, in 80 columns."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from divacli.curate.harm import EXACT, HARM_COLUMNS, HarmResult
from divacli.report.terminal.harm import harm_summary


def shown(result: HarmResult) -> list[str]:
    console = Console(width=80, file=io.StringIO(), highlight=False, color_system=None)
    for part in harm_summary(result):
        console.print(part)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def rows(
    derivative: list[float], exact: list[float], values: list[str] | None = None, **more: object
) -> pd.DataFrame:
    n = len(derivative)
    table = pd.DataFrame(
        {
            "by": "annotator",
            "value": values or [f"v{number}" for number in range(n)],
            "n_samples": 1000,
            "harmful": 250,
            "mislabelled": 12.0,
            "derivative": derivative,
            "loss_change_exact": exact,
        }
    ).assign(**more)
    table["loss_change_predicted"] = -table["derivative"]
    return table.reindex(columns=list(HARM_COLUMNS))


def result(*tables: pd.DataFrame, columns: tuple[str, ...] = ("annotator",)) -> HarmResult:
    return HarmResult(pd.concat(tables, ignore_index=True), columns, 1801.234, 35.4391)


def test_the_most_harmful_values_of_each_column():
    first = rows([33.1312, *np.linspace(-3, -9, 7)], [-32.29, *np.linspace(3, 9, 7)])
    second = rows([0.25, -0.5], [-0.25, 0.5], by="source")
    lines = shown(result(first, second, columns=("annotator", "source")))
    assert max(map(len, lines)) <= 80
    start = lines.index("most harmful by annotator (5 of 8)")
    assert " ".join(lines[start + 1].split()) == "derivatives if removed samples harmful mislabelled value"
    assert lines[start + 2].split() == ["+33.13", "-32.29", "1,000", "25.0%", "1.2%", "v0"]
    assert lines[start + 3].split() == ["-3.00", "+3.00", "1,000", "25.0%", "1.2%", "v1"]
    assert lines[start + 6 : start + 8] != ["", ""]
    assert not any(" v5" in line for line in lines)
    start = lines.index("most harmful by source (2 of 2)")
    assert lines[start + 2].split() == ["+0.2500", "-0.2500", "1,000", "25.0%", "1.2%", "v0"]
    text = " ".join(lines)
    assert "the summed loss, 1801 now, by a refit at ridge 35.4 without all of a value's samples" in text
    for note in ("no guide", "largest sums", "nothing is left"):
        assert note not in text


def test_no_suspect_labels():
    lines = shown(result(rows([], []), columns=("pair",)))
    assert lines[:2] == ["most harmful by pair (0 of 0)", "no label is more likely wrong than right"]


def test_where_the_sum_is_no_guide():
    text = " ".join(shown(result(rows([-5.0, -8.0, -9.0], [16.0, 7.5, np.nan]))))
    assert "of 1 of 2 the sum is no guide" in text


def test_values_that_were_not_removed_or_cannot_be():
    n = EXACT + 7
    exact = np.where(np.arange(n) < EXACT - 2, 1.0, np.nan)
    text = " ".join(shown(result(rows(np.linspace(-1, -2, n).tolist(), exact.tolist()))))
    assert f"removed were the {EXACT} values with the largest sums, of either sign" in text
    assert "without 2 of them nothing is left to tell apart" in text
    alone = shown(result(rows([-1.0, -2.0], [np.nan, np.nan])))
    assert "without 2 of them nothing is left to tell apart: no such change" in alone
    assert next(line for line in alone if line.endswith("v0")).split() == [
        "-1.000",
        "1,000",
        "25.0%",
        "1.2%",
        "v0",
    ]


@pytest.mark.parametrize(
    ("derivative", "text"),
    [(0.0, "+0"), (4e-7, "+0.0000004000"), (1e-30, "+0.000000000000"), (1234567.0, "+1,234,567")],
)
def test_numbers_of_any_size(derivative, text):
    assert f" {text} " in f" {shown(result(rows([derivative], [np.nan])))[2]} "


def test_texts_of_a_user_are_harmless():
    lines = shown(result(rows([2.0, 1.0], [-2.0, -1.0], ["", "[bold]\x1b[31mx" + "y" * 90])))
    assert max(map(len, lines)) <= 80
    assert any(line.endswith(" (empty)") for line in lines)
    assert any("[bold]\\x1b[31mx" in line for line in lines)
