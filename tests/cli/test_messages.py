"""Messages and progress on standard error."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from divacli.cli import console as module
from divacli.cli.console import RichProgress, say, warn
from divacli.cli.options import FrameOptions


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns that records."""
    screen = Console(
        file=io.StringIO(), force_terminal=True, width=80, highlight=False, color_system="standard"
    )
    monkeypatch.setattr(module, "console", lambda: screen)
    return screen.file


def test_messages_go_to_standard_error(capsys):
    say("here")
    warn("there")
    assert capsys.readouterr() == ("", "here\nwarning: there\n")


def test_markup_and_control_characters_in_a_message_are_not_obeyed(terminal):
    say("[red]x[/red] \x1b[2J\r\nsame line", "second [bold]line")
    assert terminal.getvalue() == "[red]x[/red] \\x1b[2J\\r\\nsame line\nsecond [bold]line\n"


def test_only_the_first_line_is_coloured(terminal):
    say("first", "second", style="red")
    assert terminal.getvalue() == "\x1b[31mfirst\x1b[0m\nsecond\n"


def test_long_messages_are_not_broken(terminal):
    say("x" * 300)
    assert terminal.getvalue() == "x" * 300 + "\n"


def test_progress_shows_what_is_done_and_how_fast(terminal):
    with RichProgress(FrameOptions())("embedding", 10) as advance:
        advance(4)
        advance(6)
    text = terminal.getvalue()
    assert "embedding" in text
    assert "10/10" in text
    assert "/s" in text


def test_quiet_progress_shows_nothing(terminal):
    with RichProgress(FrameOptions(quiet=True))("embedding", 10) as advance:
        advance(10)
    assert terminal.getvalue() == ""


def test_progress_shows_nothing_where_there_is_no_terminal(capsys):
    with RichProgress(FrameOptions())("embedding", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", [("score",), ("prune", "--threshold", "0.2")])
def test_evil_labels_and_paths_are_shown_and_not_obeyed(command, run):
    generator = np.random.default_rng(0)
    labels = np.array(["[red]a[/red]", "\x1b[31mb\x1b[0m", "two\nlines"])[np.arange(30) % 3]
    paths = np.array([f"[bold]{number}\x1b[5m\x07" for number in range(30)])
    np.savez("x.npz", embedding=generator.normal(size=(30, 4)), label=labels, path=paths)
    result = run(*command, "x.npz")
    assert result.exit_code == 0, result.output
    assert not set("\x1b\x07") & set(result.stderr)
    if command == ("score",):
        assert "[red]a[/red]" in result.stderr
        assert "two\\nlines" in result.stderr
        found = pd.read_csv("diva-out/scores.csv")
        assert sorted(found["label"].unique()) == sorted(set(labels))
        assert sorted(found["path"]) == sorted(paths)


def test_an_evil_name_in_an_error_is_shown_and_not_obeyed(run):
    result = run("score", "\x1b[31m[red]nowhere")
    assert result.exit_code == 1
    assert "\\x1b[31m[red]nowhere does not exist" in result.stderr
    assert "\x1b" not in result.stderr


def test_no_color_is_honoured(blobs, run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31m" in run("score", "nowhere").stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in run("score", "nowhere").stderr


def test_the_summary_fits_into_80_columns(blobs, done, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = done("score", blobs().file, "--verify", "3")
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert max(map(len, lines)) <= 80
    assert "most harmful" in result.stderr
    assert "wrote failed.csv, duplicates.csv, summary.json, scores.csv in diva-out" in result.stderr
