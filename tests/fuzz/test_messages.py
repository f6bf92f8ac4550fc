"""Odd values for every option of every command: an answer in known lines, none of a mistake in diva."""

from __future__ import annotations

import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from divacli.cli.app import app
from divacli.errors import DivaError
from tests.hostile.test_terminal import BREAKS, OBEYED, forging

ODD = [
    *("", "-", "--quiet", "inf", "-inf", "nan", "1e999", "1e-320", "-1", "0", "1", "0.5", "100%", "1,2"),
    *(str(2**31), str(2**63), str(2**70), str(-(2**70)), "9" * 5000, "auto", "none", "class", "a:b"),
    *("x" * 300, "x" * 100_000, "x/" * 2500, "a\0b", "\udc80", "\ud800", "\x1b[2J", "[red]x[/red]", "\u202e"),
    *(*map(forging, BREAKS), "$(x)", "*", "~", ".", "folder", "x.txt", "x.txt/below", "/dev/null", "nowhere"),
    *("s3://", "http://[", "memory://x", "file://x", "x.npz:make", "{0..9}.tar", "{0..99999999999}.tar"),
]

SCORES = "scored/scores.csv"
LINES = {
    "inspect": ("x.npz",),
    "score": ("x.npz",),
    "prune": (SCORES, "--keep", "0.9"),
    "relabel": (SCORES,),
    "votes": ("votes.csv",),
    "apply": (SCORES, "decisions.csv"),
    "export": (SCORES, "--to", "cleanlab"),
    "report": ("scored",),
    "review": ("scored",),
    "reweight": ("x.npz", "--step-size", "0.1"),
    "extend": ("x.npz", "--pool", "x.npz"),
    "augment": ("x.npz", "--transform", "hflip"),
    "aggregate": ("x.npz", "--pool", "x.npz"),
    "train": ("x.npz",),
    "evaluate": ("x.npz", "--test", "x.npz", "--manifest", SCORES, "--seeds", "1", "--learner", "ridge"),
    "plot": ("scored", "--kind", "histogram"),
    "embed": ("x.npz",),
    "demo": (),
    "doctor": (),
}
"""A command line of each command."""

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]

MESSAGES = ("error: ", "expected: ", "to do: ", "warning: ", "note: ", "waiting: ")
USAGE = ("Usage: ", "Try '", "╭", "│", "╰")
OWN = ("error:", "expected:", "to do:")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with embeddings, scores of them, decisions, a text and a folder."""
    folder = tmp_path_factory.mktemp("place")
    generator = np.random.default_rng(0)
    labels = np.arange(12) % 3
    embeddings = np.eye(3)[labels] * 2 + generator.normal(size=(12, 3))
    names = np.array([f"{row}.png" for row in range(12)])
    np.savez(folder / "x.npz", embedding=embeddings, label=labels, path=names)
    (folder / "decisions.csv").write_text("path,decision,label\n1.png,drop,\n")
    cells = "".join(f"{row % 12}.png,{row % 3},x.npz\n" for row in range(20))
    (folder / "votes.csv").write_text(f"path,label,feature_source\n{cells}")
    (folder / "x.txt").write_text("a text\n")
    (folder / "folder").mkdir()
    (folder / "folder/y.txt").write_text("a text\n")
    result = CliRunner().invoke(app, ["score", str(folder / "x.npz"), "--out", str(folder / "scored")])
    assert result.exit_code == 0, result.output
    return folder


@st.composite
def odd_lines(draw: st.DrawFn, name: str) -> list[str]:
    """A command line of which up to three arguments and options are odd."""
    # Without a slash: nothing is to be written, or looked for, outside of the folder.
    values = st.sampled_from(ODD) | st.text(string.printable.replace("/", "") + "\u2028\x00é", max_size=8)
    arguments = list(LINES[name])
    parameters = [one for one in COMMANDS[name].params if "--help" not in one.opts]
    for parameter in draw(st.lists(st.sampled_from(parameters), min_size=1, max_size=3, unique_by=id)):
        if parameter.param_type_name == "argument":
            # In the place of one of them, or beside them.
            arguments[:1] = [draw(values), *arguments[: draw(st.integers(0, 1))]]
        elif getattr(parameter, "is_flag", False):
            arguments.append(draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts])))
        else:
            arguments.append(f"{parameter.opts[0]}={draw(values)}")
    return [name, *arguments]


@pytest.mark.parametrize("name", COMMANDS)
@settings(
    derandomize=True,
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_every_answer_is_in_known_lines(
    name: str,
    data: st.DataObject,
    place: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def enough(*arguments: Any) -> None:
        raise DivaError("enough", hint="see tests/cli")

    # What follows waits for a person, or trains a network.
    monkeypatch.setattr("divacli.report.page.server.ReviewServer", enough)
    monkeypatch.setattr("divacli.demo.digits.make_digits", enough)
    arguments = data.draw(odd_lines(name))
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(place, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, arguments, input=b"")
    said = f"diva {' '.join(map(ascii, arguments))[:2000]}\n{result.stderr}\n{result.exception!r}"
    lines = result.stderr.split("\n")[:-1]
    traceback = "--debug" in arguments
    assert result.exit_code in (0, 1, 2), said
    assert traceback or result.exception is None or isinstance(result.exception, SystemExit), said
    assert "mistake in diva" not in result.stderr, said
    assert "Traceback" not in result.output or traceback, said
    assert not OBEYED.search(result.stderr), said
    assert len(result.stderr) < 20_000, said
    if name == "doctor" or traceback:
        return
    assert sum(line.startswith("error: ") for line in lines) == (result.exit_code == 1), said
    if result.exit_code == 0:
        assert not [line for line in lines if line.startswith(OWN)], said
        return
    known = USAGE if result.exit_code == 2 else MESSAGES
    assert not [line for line in lines if not line.startswith((*known, "Handwritten digits"))], said
    assert result.stdout == "", said
    places = [
        text.partition("=")[2] for text in arguments if text.startswith(("--log-file=", "--cache-dir="))
    ]
    asked_for = [place.partition("/")[0] for place in places]
    written = [file for file in _files(folder) if file not in _files(place)]
    assert not [file for file in written if file.partition("/")[0] not in asked_for], said
    assert all((folder / file).read_bytes() == (place / file).read_bytes() for file in _files(place)), said


def _files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
