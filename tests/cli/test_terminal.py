"""A terminal, a dumb one, one without colours, and none: what each of them gets."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.made import Forks

pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")

COLOUR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-7]|9[0-7]|38)[;\d]*m")


OnTerminal = Callable[..., str]


@pytest.fixture
def on_terminal(forks: Forks, tmp_path: Path) -> OnTerminal:
    """What a command writes to standard error where that is a terminal."""

    def run(*arguments: object, columns: int = 80, **variables: str) -> str:
        ours, its = pty.openpty()
        environment = {"TERM": "xterm-256color", "COLUMNS": str(columns), **variables}
        forks.start(*arguments, folder=tmp_path, stderr=os.ttyname(its), **environment)
        status: list[int] = []
        waiting = threading.Thread(target=lambda: status.append(forks.wait()))
        waiting.start()
        read = b""
        while waiting.is_alive() or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.05)[0]:
                read += os.read(ours, 65_536)
        os.close(its)
        os.close(ours)
        assert status == [0], read.decode()
        return read.decode().replace("\r\n", "\n")

    return run


@pytest.fixture
def scored(blobs, tmp_path, monkeypatch) -> list[object]:
    """A command with warnings, steps, and tables."""
    monkeypatch.chdir(tmp_path)
    features = blobs().arrays["embedding"]
    features[1] = features[0]
    return ["score", blobs(embedding=features, colour=["red"] * 150).file, "--by", "class", "--out", "scored"]


def test_a_terminal_gets_colours_and_the_steps(on_terminal, scored):
    text = on_terminal(*scored)
    assert COLOUR.search(text)
    for step in ("factorising the features", "differentiating the loss", "refitting without groups"):
        assert step in text
    assert "most harmful" in text
    # What was drawn over is gone at the end: nothing stands behind the last line that was cleared.
    assert "differentiating" not in text[text.rindex("\x1b[2K") :]


def test_no_color_is_respected(on_terminal, scored):
    text = on_terminal(*scored, NO_COLOR="1")
    assert not COLOUR.search(text)
    assert "differentiating the loss" in text


def test_a_dumb_terminal_gets_text_alone(on_terminal, scored):
    text = on_terminal(*scored, TERM="dumb")
    assert "\x1b" not in text
    assert "\r" not in text
    assert "differentiating" not in text
    assert "most harmful" in text


def test_a_pipe_gets_text_alone(scored):
    command = [sys.executable, "-m", "divacli", *map(str, scored)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == ""
    assert "\x1b" not in found.stderr
    assert "differentiating" not in found.stderr
    assert "most harmful" in found.stderr


def test_quiet_draws_nothing_on_a_terminal_either(on_terminal, scored):
    text = on_terminal(*scored, "--quiet")
    assert "differentiating" not in text
    assert "most harmful" not in text
    assert "warning" in text


@pytest.mark.parametrize("columns", [60, 80])
def test_tables_fit_and_their_numbers_are_whole(on_terminal, columns, blobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = blobs()
    long = ["a label of many words " * 6 + letter for letter in "abc"]
    paths = [f"{'folder/' * 20}{number:04d}.jpg" for number in range(150)]
    made = blobs(label=[long[number] for number in made.arrays["label"]], path=paths)
    text = on_terminal(
        *("score", made.file, "--by", "class", "--out", "scored"), columns=columns, NO_COLOR="1"
    )
    text = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", text)
    table = text[text.index("most harmful") :].splitlines()[2:7]
    for line in table:
        assert len(line) <= columns
        derivative, loss, *words = line.split()
        assert re.fullmatch(r"[+-]\d+\.\d{4}|[+-]\d\.\d\de[+-]\d\d", derivative)
        assert re.fullmatch(r"\d+\.\d{3}", loss)
        assert words[-1].endswith(".jpg"), "the end of a path says most"
    scores = Path("scored/scores.csv").read_text()
    assert long[0] in scores
