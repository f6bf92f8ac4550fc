"""Tables on narrow terminals: whole numbers, one line a row, paths that keep their ends."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from divacli.report.terminal.tables import PathCell, add_numbers, add_words, cell, listing

LABEL = "a label that is [red]long[/red]\nof several lines " * 4
PATH = "/home/someone/with/many/folders/" * 5 + "photo.jpg"


def shown(width: int, *, number: str = "+12,345.678") -> list[str]:
    table = listing("derivative", "loo loss")
    add_words(table, "label", 16)
    add_words(table, "path")
    add_numbers(table, "samples")
    for label, path in ((LABEL, PATH), ("cat", "1.jpg"), ("写真" * 20, "写真" * 40)):
        table.add_row(number, "0.123", cell(label), PathCell(path), "1,234,567")
    screen = Console(file=io.StringIO(), width=width)
    screen.print(table)
    return screen.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [50, 60, 80, 200])
def test_numbers_are_whole_and_rows_are_lines(width):
    header, *rows = shown(width)
    assert len(rows) == 3
    assert all(Console().measure(row).maximum <= width for row in rows)
    for row in rows:
        for number in ("+12,345.678", "0.123", "1,234,567"):
            assert number in row
    for name in ("derivative", "loo loss", "samples"):
        assert name in header


def test_paths_lose_their_beginning_and_labels_their_end():
    _, first, second, third = shown(80)
    assert "a label that is…" in first
    assert "folders/photo.jpg" in first
    assert "…" in first.split("is…")[1]
    assert "1.jpg" in second
    assert third.count("…") == 2
    assert third.index("写真写") < third.index("…") < third.rindex("…") < third.rindex("真写真")


def test_a_path_that_fits_is_whole():
    assert "1.jpg" in shown(60)[2]
    assert PATH in shown(400)[1]
