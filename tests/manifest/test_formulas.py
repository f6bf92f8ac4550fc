"""Cells of a CSV file are no formulas for a spreadsheet, and come back exactly."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from divacli.manifest import read_manifest, write_table
from divacli.manifest.formulas import PATH_COLUMNS, harmless, harmless_path, restored, restored_path
from divacli.manifest.tabular import parse

STARTS = ["=", "+", "-", "@", "\t", "\r"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
TRICKY = st.lists(
    st.sampled_from([*STARTS, "'", "./", " ", "\n", "1", "1e5", ".", "a", "\uff1d", '"', ","])
).map("".join)
CELL = st.one_of(TRICKY, TEXT)


def written(table: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    write_table(table, None, "csv", stdout=stream)
    return stream.getvalue()


def cells(content: bytes) -> list[str]:
    """As another program sees them."""
    return [cell for row in csv.reader(io.StringIO(content.decode(), newline="")) for cell in row]


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@settings(max_examples=100, deadline=None)
@given(
    columns=st.dictionaries(
        st.one_of(
            CELL.filter(lambda name: not name.startswith("\ufeff")), st.sampled_from(sorted(PATH_COLUMNS))
        ),
        st.lists(CELL, min_size=3, max_size=3),
        min_size=2,
        max_size=4,
    )
)
@example(columns={"=x": ["'=1", "''=1", "-1"], "path": ["./=a", "././-1", "=b"]})
@example(columns={"path": ["-1", "./-1", "'=1"], "'": ["", "'", "'a"]})
def test_text_comes_back_and_no_cell_is_a_formula(columns: dict[str, list[str]]) -> None:
    table = pd.DataFrame(columns, dtype="str")
    content = written(table)
    again = parse(content, "csv", "again")
    assert again.columns.tolist() == table.columns.tolist()
    assert again.to_numpy().tolist() == table.to_numpy().tolist()
    assert [cell for cell in cells(content) if cell.startswith(tuple(STARTS)) and not is_number(cell)] == []


@given(CELL)
@example("'=")
@example("./=")
def test_marks_are_taken_away_exactly(cell: str) -> None:
    assert restored(harmless(cell)) == cell
    assert restored_path(harmless_path(cell)) == cell


@given(CELL)
def test_a_path_names_the_same_file(path: str) -> None:
    assert re.fullmatch(r"(\./)?", harmless_path(path).removesuffix(path))


@pytest.mark.parametrize("start", [*STARTS, "\n", " =", "  @", "\uff1d", "\uff20"])
def test_each_beginning_is_marked(start: str) -> None:
    table = pd.DataFrame(
        {"path": [f"{start}a.png"], "label": [f"{start}cat"], f"{start}mine": [f"'{start}x"]}
    )
    assert cells(written(table)) == [
        "path",
        "label",
        f"'{start}mine",
        f"./{start}a.png",
        f"'{start}cat",
        f"''{start}x",
    ]


@pytest.mark.parametrize("number", ["-1", "+1", "-1e5", "-.5", "-0.5E-3", "+7.", "-inf", " -1.5"])
def test_numbers_stay(number: str) -> None:
    content = written(pd.DataFrame({"path": [number], "label": [number]}))
    assert cells(content) == ["path", "label", number, number]


@pytest.mark.parametrize(
    "text", ["-1-1", "-1e", "+", "-", "+1a", "-1,5", "-e5", "--1", "-1_0", "-\u0661", "-\u0131nf"]
)
def test_what_only_looks_like_a_number_is_marked(text: str) -> None:
    assert cells(written(pd.DataFrame({"label": [text]}))) == ["label", f"'{text}"]


@pytest.mark.parametrize("mark", [harmless, harmless_path])
@pytest.mark.parametrize(
    "text", ["-" + "1" * 1_000_000 + "x", "-" + " " * 1_000_000 + "x", "'" * 1_000_000 + "x"]
)
def test_a_long_text_is_answered_at_once(mark: Callable[[str], str], text: str) -> None:
    """With two ways to match a run of digits, the first took longer than anybody waits."""
    assert mark(text).endswith(text)


def test_numbers_of_other_types_stay() -> None:
    table = pd.DataFrame({"f": [-0.5, -np.inf], "i": [-3, 4], "I": pd.array([-7, None], "Int64")})
    assert written(table) == b"f,i,I\n-0.5,-3,-7\n-inf,4,\n"


def test_other_objects_are_text() -> None:
    assert cells(written(pd.DataFrame({"late": [pd.Timedelta(-1, "s")]})))[1].startswith("'-1 days")


def test_tables_of_others_are_restored_too(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("path\tlabel\n./-a.png\t'=cat\n./b.png\t'tis\n")
    assert read_manifest(str(table)).table[["path", "label"]].to_numpy().tolist() == [
        ["-a.png", "=cat"],
        ["./b.png", "'tis"],
    ]


def test_other_formats_hold_the_text_itself(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["=a", "b"], "label": ["'=x", "-y"]})
    for format in ("jsonl", "parquet"):
        write_table(table, tmp_path / f"t.{format}", format)  # type: ignore[arg-type]
        found = read_manifest(str(tmp_path / f"t.{format}")).table
        assert found[["path", "label"]].to_numpy().tolist() == table.to_numpy().tolist()
