"""Names and labels that would drive the terminal: shown, never obeyed, whichever way they reach it."""

from __future__ import annotations

import json
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from PIL import Image
from rich.panel import Panel
from rich.table import Table

from divacli.cli.app import app
from divacli.cli.command import answering_errors
from divacli.cli.console import console, note, say, warn
from divacli.cli.options import FrameOptions
from divacli.errors import DataError, listed
from divacli.report.terminal.progress import shown
from divacli.report.terminal.tables import PathCell, add_numbers, add_words, cell, listing

CONTEXT = typer.Context(typer.main.get_command(app), info_name="diva")

# Whatever ends a line, on a terminal or for `str.splitlines`.
BREAKS = ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
FORGED = "error: forged"


def forging(line_break: str) -> str:
    """A name that would be three lines."""
    return f"x{line_break}{FORGED}{line_break}to do: rm -rf"


# Clear the screen, change its title, ring, go back, one-byte controls, text from right to left, markup.
EVIL = "\x1b[2J\x1b]0;owned\x07\b\r\x9b31m\u202e\u2066[red]x[/red][link=http://evil]y[/link]:smile:\x7f\t"
EVIL += "".join(f"{line_break}{FORGED}" for line_break in BREAKS)
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def assert_harmless(text: str) -> None:
    assert not OBEYED.search(text), ascii(OBEYED.search(text)[0])  # type: ignore[index]
    forged = [line for line in text.split("\n") if line.startswith((FORGED, "to do: rm"))]
    assert not forged, text


@pytest.fixture(autouse=True)
def no_noise() -> None:
    """Here the noise model is fitted: it calls labels wrong, which summaries quote."""


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was written to standard error as if to a terminal, without the colours that Rich gives it."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("NO_COLOR", raising=False)
    # Colours, the cursor hidden and shown, a line erased, up one: what a progress bar needs.
    own = re.compile(r"\x1b\[(?:\d+(?:;\d+)*m|\?25[lh]|2K|1A)|\r")
    return lambda: own.sub("", capsys.readouterr().err)


def test_whatever_is_printed(screen: Callable[[], str]) -> None:
    table = Table(EVIL)
    table.add_row(EVIL)
    for thing in (EVIL, f"wrote {EVIL}", table, Panel(EVIL, title=EVIL)):
        console().print(thing)
        console().print(thing, style="bold", soft_wrap=True)
    written = screen()
    assert_harmless(written)
    assert "[red]x[/red][link=http://evil]y[/link]:smile:" in written
    assert f"\\n{FORGED}" in written


def test_no_name_begins_a_line_where_a_paragraph_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a paragraph that is broken between words, whatever width a name was made for."""
    screen = console()
    for width in range(60, 80):
        screen.width = width
        screen.print(f"wrote scores.csv in a folder of many words that is called after {FORGED} and so on")
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) > 1
        assert all(line.startswith("  ") and len(line) <= width for line in lines[1:])


def test_no_name_begins_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    table = listing(of_names=True)
    add_words(table, "set")
    add_numbers(table, "several\nlines")
    table.add_row(cell(FORGED), "1")
    table.add_row(PathCell(FORGED), "2")
    console().print(table)
    written = capsys.readouterr().err
    assert_harmless(written)
    assert [" ".join(line.split()) for line in written.splitlines()] == [
        *("several", "set lines", f"{FORGED} 1", f"{FORGED} 2")
    ]


def test_progress_and_messages(screen: Callable[[], str]) -> None:
    with shown(console(), EVIL, 1) as advance:
        advance(1)
    say(EVIL)
    say("first", EVIL)
    warn(EVIL)
    note(EVIL, FrameOptions())
    assert_harmless(screen())


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("error", [DataError(EVIL, hint=EVIL), RuntimeError(EVIL), OSError(5, EVIL, EVIL)])
def test_errors_and_their_tracebacks(error: Exception, debug: bool, screen: Callable[[], str]) -> None:
    with pytest.raises(typer.Exit), answering_errors(CONTEXT, debug=debug):
        raise error
    written = screen()
    assert_harmless(written)
    assert ("Traceback" in written) == debug


@pytest.mark.parametrize(
    "arguments",
    [
        (EVIL,),
        ("score", EVIL),
        ("score", "x.csv", f"--{EVIL}"),
        ("score", "x.csv", "--loss", EVIL),
        ("score", "x.csv", "--ridge", EVIL),
        ("score", "x.csv", "--config", EVIL),
        ("score", "x.csv", "--model", EVIL),
        ("score", "x.csv", "--checkpoint", EVIL),
        ("score", "x.csv", EVIL),
        ("score", "x.csv", "--out", EVIL),
        ("report", EVIL),
        ("doctor", "--cache-dir", EVIL),
        ("--" + EVIL,),
    ],
)
def test_what_was_typed(arguments: tuple[str, ...], run: Callable) -> None:
    Path("x.csv").write_text("path,label\nx.png,a\ny.png,b\n")
    result = run(*arguments)
    assert_harmless(result.stderr)
    if arguments[0] != "doctor":
        assert result.exit_code in (1, 2)
    assert_harmless(result.stdout)


def test_every_summary(network: Path, run: Callable) -> None:
    labels = [f"{EVIL}{number}".replace("/", "") for number in range(3)]
    generator = np.random.default_rng(0)
    for number in range(24):
        file = Path("in") / labels[number % 3] / f"{number}{EVIL.replace('/', '')}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(file)
    (Path("in") / labels[0] / f"{EVIL.replace('/', '')}.jpg").write_bytes(b"no image")
    model = ("--model", f"{network}:make")
    commands = [
        ("score", "in", *model, "--report"),
        ("prune", "diva-out/scores.csv", "--keep", "0.9", "--out", "p"),
        ("relabel", "diva-out/scores.csv", "--out", "r"),
        ("reweight", "in", *model, "--out", "w"),
        ("extend", "in", "--pool", "in", *model, "--out", "e"),
        ("augment", "in", "--transform", "hflip", *model, "--out", "g"),
        ("embed", "in", *model, "--out", "s"),
        ("export", "diva-out/scores.csv", "--to", "label-studio", "--out", "x"),
    ]
    for command in commands:
        result = run(*command)
        assert_harmless(result.stderr)
        assert "may be a mistake in diva" not in result.stderr, (command, result.stderr)


@pytest.mark.parametrize("line_break", BREAKS)
def test_every_part_of_an_error_is_one_line(line_break: str) -> None:
    evil = forging(line_break)
    error = DataError(f"{evil} and {listed([evil])}", expected=evil, hint=evil)
    first, second, third = str(error).splitlines()
    assert first.startswith("x\\")
    assert second.startswith("expected: x\\")
    assert third.startswith("to do: x\\")


def test_a_traceback_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), answering_errors(CONTEXT, debug=True):
        raise RuntimeError(forging("\n"))
    first, *others = capsys.readouterr().err.split("\n")
    assert first == "Traceback (most recent call last):"
    traceback, message = others[:-4], others[-4:]
    assert all(line.startswith("  ") for line in traceback)
    assert f"  {FORGED}" in traceback
    assert message[0] == f"error: RuntimeError: x\\n{FORGED}\\nto do: rm -rf"


def _rows(**columns: object) -> pd.DataFrame:
    """Eight rows of two classes, with columns that take the place of the usual ones."""
    return pd.DataFrame({"path": [f"{row}.png" for row in range(8)], "label": list("abababab"), **columns})


def _decisions(**columns: object) -> pd.DataFrame:
    _rows().to_csv("x.csv", index=False)
    usual = {"path": ["0.png"], "decision": ["keep"], "label": [""]}
    table = pd.DataFrame({**usual, **columns})
    table.to_csv("decisions.csv", index=False)
    return table


def _tar(*names: str) -> None:
    with tarfile.open("x.tar", "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))


def _npz(**arrays: object) -> None:
    usual = {"embedding": np.random.default_rng(0).normal(size=(8, 2)), "label": np.arange(8) % 2}
    np.savez("x.npz", **{**usual, **arrays})


def _record(evil: str) -> None:
    _npz()
    Path("diva-out").mkdir()
    Path("diva-out/run.json").write_text(json.dumps({"format": evil, "runs": []}))


CONFIG = ("score", "photos", "--config", "o.yaml")

QUOTED: dict[str, tuple[Callable[[str], object], tuple[str, ...]]] = {
    "a missing file": (lambda evil: _rows(path=evil).to_csv("x.csv"), ("score", "x.csv")),
    "paths twice": (
        lambda evil: _rows(path=evil).to_json("x.jsonl", orient="records", lines=True),
        ("score", "x.jsonl"),
    ),
    "one label": (lambda evil: _rows(label=evil).to_csv("x.csv"), ("score", "x.csv")),
    "a column": (lambda evil: _rows().rename(columns={"path": evil}).to_csv("x.csv"), ("score", "x.csv")),
    "one of several columns": (
        lambda evil: _decisions().assign(**{evil: 1}).drop(columns="decision").to_csv("decisions.csv"),
        ("apply", "x.csv", "decisions.csv"),
    ),
    "a Parquet column": (
        lambda evil: _rows().rename(columns={"path": evil}).to_parquet("x.parquet"),
        ("apply", "x.parquet", "--materialize", "copy"),
    ),
    "a JSON key": (
        lambda evil: Path("x.jsonl").write_text(json.dumps({evil: 1}) + "\n"),
        ("score", "x.jsonl"),
    ),
    "a JSON key twice": (
        lambda evil: Path("x.jsonl").write_text(f"{{{json.dumps(evil)}: 1, {json.dumps(evil)}: 2}}\n"),
        ("score", "x.jsonl"),
    ),
    "a weight": (
        lambda evil: _rows(weight=evil).to_csv("x.csv"),
        ("score", "x.csv", "--weight", "weight"),
    ),
    "an array": (lambda evil: _npz(**{evil: np.zeros(8)}), ("score", "x.npz")),
    "a label of embeddings": (
        lambda evil: _npz(label=np.array([evil] * 8)),
        ("prune", "x.npz", "--keep", "auto"),
    ),
    "labels of a summary": (
        lambda evil: _npz(label=np.array([evil, f"{evil}!"] * 4)),
        ("relabel", "x.npz"),
    ),
    "a member of a tar file": (lambda evil: _tar(f"{evil}.png"), ("score", "x.tar")),
    "a member twice": (lambda evil: _tar(f"{evil}.png", f"{evil}.png"), ("score", "x.tar")),
    "a folder": (
        lambda evil: Path("photos", evil).mkdir(parents=True),
        ("apply", "photos", "--materialize", "symlink"),
    ),
    "a decision": (lambda evil: _decisions(decision=[evil]), ("apply", "x.csv", "decisions.csv")),
    "a new label": (
        lambda evil: _decisions(decision=["relabel"], label=[evil]),
        ("apply", "x.csv", "decisions.csv"),
    ),
    "who was decided on": (lambda evil: _decisions(path=[evil]), ("apply", "x.csv", "decisions.csv")),
    "an option of a file": (lambda evil: Path("o.yaml").write_text(f"{json.dumps(evil)}: 1\n"), CONFIG),
    "a value of a file": (lambda evil: Path("o.yaml").write_text(f"loss: {json.dumps(evil)}\n"), CONFIG),
    "a network of a file": (lambda evil: Path("o.yaml").write_text(f"model: {json.dumps(evil)}\n"), CONFIG),
    "a path of a file": (
        lambda evil: Path("o.yaml").write_text(f"checkpoint: {json.dumps(evil)}\n"),
        CONFIG,
    ),
    "a layer": (
        lambda evil: torch.save({evil: torch.full((2, 2), float("nan"))}, "x.pt"),
        ("score", "photos", "--checkpoint", "x.pt", "--model", "resnet18"),
    ),
    "a record": (_record, ("score", "x.npz")),
}
"""What is quoted in a message: who makes it, and the command that says it."""


@pytest.mark.parametrize("line_break", ["\n", "\u2028"])
@pytest.mark.parametrize("what", QUOTED)
def test_what_is_quoted(what: str, line_break: str, photos: Path, run: Callable) -> None:
    make, command = QUOTED[what]
    make(forging(line_break))
    result = run(*command)
    assert_harmless(result.stderr)
    assert result.stdout == ""
    assert "may be a mistake in diva" not in result.stderr
    said = " ".join(result.stderr.replace("│", "").split())
    assert "rm -rf" in said, result.stderr


@pytest.mark.parametrize("what", QUOTED)
def test_a_long_text_is_cut(what: str, photos: Path, run: Callable) -> None:
    make, command = QUOTED[what]
    try:
        make("x" * 100_000)
    except (OSError, struct.error):  # no name of a file, or of a member of an archive, is so long
        make("x" * 200)
    result = run(*command)
    assert len(result.stderr) < 10_000
    assert "may be a mistake in diva" not in result.stderr


def test_a_secret_is_not_shown_where_a_message_is_cut(run: Callable) -> None:
    url = f"s3://user:{'password' * 1000}@host/x.bmp"
    result = run("score", url)
    assert result.exit_code == 1
    assert "password" not in result.stderr
