"""Progress on a screen: names, whole numbers, rate and time, on terminals of 60 and 80 columns."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from divacli.report.terminal.progress import shown


def drawn(what: str, total: int, width: int = 80, **screen: object) -> list[str]:
    """The lines that were drawn one over the other, without what moves the cursor."""
    console = Console(file=io.StringIO(), width=width, **{"force_terminal": True, **screen})
    with shown(console, what, total) as advance:
        for _ in range(4):
            advance(total // 4)
    return re.split(r"\r|\n", re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", console.file.getvalue()))


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    "what", ["embedding", "refitting without groups", "a name that is much too long" * 3]
)
def test_the_numbers_are_whole_and_the_line_fits(what, width):
    lines = drawn(what, 200_000, width)
    last = next(line for line in reversed(lines) if "/s" in line)
    assert "200000/200000" in last
    assert re.search(r" [\d,]+/s +\d+:\d\d:\d\d", last)
    assert what[:7] in last
    assert max(map(len, lines)) <= width


def test_what_cannot_be_counted_has_the_time_that_has_passed():
    lines = drawn("factorising the features", 0, 60)
    assert any(re.search(r"factorising the features \d+:\d\d:\d\d", line) for line in lines)
    assert not any("0/" in line for line in lines)


@pytest.mark.parametrize("screen", [{"force_terminal": False}, {"_environ": {"TERM": "dumb"}}])
def test_nothing_is_drawn_where_it_could_not_be_drawn_over(screen):
    assert drawn("embedding", 100, **screen) == [""]
