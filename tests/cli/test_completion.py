"""What the shell is told when a user presses TAB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# As the shell runs the command, but that it also says what was imported.
ASKED = """
import atexit, sys
slow = ("torch", "torchvision", "pandas", "numpy", "fsspec", "PIL")
atexit.register(lambda: sys.stderr.write(" ".join(name for name in slow if name in sys.modules)))
from divacli.cli.app import app
app(prog_name="diva")
"""


def asked(**variables: str) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", ASKED],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.split()


def in_bash(line: str) -> list[str]:
    words = line.split(" ")
    return asked(_DIVA_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))


def in_zsh(line: str) -> str:
    return " ".join(asked(_DIVA_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line))


def test_commands():
    assert in_bash("diva re") == ["relabel", "report", "review", "reweight"]
    assert {"score", "prune", "extend", "train", "embed", "demo"} <= set(in_bash("diva "))


def test_options():
    assert in_bash("diva score --ba") == ["--batch-size"]
    assert "--keep" in in_bash("diva prune photos --")
    assert "--keep" not in in_bash("diva score photos --")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("diva score photos --loss ", ["squared", "cross-entropy", "robust-cross-entropy"]),
        ("diva relabel photos --decide ", ["likely", "balanced"]),
        ("diva score photos --format p", ["parquet"]),
        ("diva evaluate photos --curve ", ["remove", "add"]),
    ],
)
def test_values_of_an_option(line, values):
    assert in_bash(line) == values


def test_names_of_networks_are_those_of_torchvision():
    from torchvision import models

    assert in_bash("diva score photos --model ") == models.list_models(module=models)
    assert in_bash("diva score photos --model resnet5") == ["resnet50"]


@pytest.mark.parametrize(
    "line",
    [
        "diva score pho",
        "diva extend photos --pool ex",
        "diva score photos --val ",
        "diva score photos --checkpoint be",
        "diva score photos --model ./ne",
        "diva score photos --config ",
        "diva score photos --out di",
    ],
)
def test_files_are_left_to_the_shell(line):
    assert in_bash(line) == []
    assert in_zsh(line) == "_files"


def test_zsh():
    assert '"relabel":' in in_zsh("diva re")
    assert '"cross-entropy"' in in_zsh("diva score photos --loss cr")
    assert '"--batch-size":' in in_zsh("diva score photos --ba")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_is_valid(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    script = asked_script(shell)
    (tmp_path / "script").write_text(script)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def asked_script(shell: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", ASKED],
        env={**os.environ, "_DIVA_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stdout
    return found.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_itself(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "script").write_text(asked_script("bash"))
    started = "from divacli.cli.app import app; app(prog_name='diva')"
    (tmp_path / "diva").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{started}" "$@"\n')
    (tmp_path / "diva").chmod(0o755)
    typed = """
        source ./script
        complete -p diva
        COMP_WORDS=(diva score photos --format p); COMP_CWORD=4
        _diva_completion diva
        echo "${COMPREPLY[@]}"
    """
    found = subprocess.run(
        ["bash", "-c", typed],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # `-o default`: where there is no answer bash completes names of files itself.
    assert found.stdout.splitlines() == ["complete -o default -F _diva_completion diva", "parquet"]
    assert not list(Path(tmp_path).glob("diva-out"))
