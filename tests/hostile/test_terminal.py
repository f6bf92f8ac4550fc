"""Names and labels that would drive the terminal: shown, never obeyed, whichever way they reach it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table

from divacli.cli.command import answering_errors, console, say, warn
from divacli.errors import DataError
from divacli.report.plain import shown

# Clear the screen, change its title, ring, go back, one-byte controls, text from right to left, markup.
EVIL = "\x1b[2J\x1b]0;owned\x07\b\r\x9b31m\u202e\u2066[red]x[/red][link=http://evil]y[/link]:smile:\x7f"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def assert_harmless(text: str) -> None:
    assert not OBEYED.search(text), ascii(OBEYED.search(text)[0])  # type: ignore[index]


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


def test_progress_and_messages(screen: Callable[[], str]) -> None:
    with Progress(console=console()) as progress:
        progress.add_task(EVIL.replace("[", "("), total=1)
    say(EVIL)
    warn(EVIL)
    assert_harmless(screen())


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("error", [DataError(EVIL, hint=EVIL), RuntimeError(EVIL), OSError(5, EVIL, EVIL)])
def test_errors_and_their_tracebacks(error: Exception, debug: bool, screen: Callable[[], str]) -> None:
    import typer

    with pytest.raises(typer.Exit), answering_errors(debug=debug):
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


def test_shown_text_keeps_its_lines() -> None:
    assert shown("a\x1bb\nc\r") == "a\\x1bb\nc\\r"
