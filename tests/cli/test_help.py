"""Help, version and how soon they are there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import divacli

COMMANDS = {
    "score": "",
    "prune": "--keep 0.9",
    "relabel": "",
    "votes": "",
    "reweight": "",
    "extend": "--pool pool.csv",
    "augment": "--transform hflip",
    "aggregate": "--pool pool.csv",
    "train": "",
    "evaluate": "--test test.csv --curve remove",
    "embed": "",
}
"""Each command on DATA, with the options that it cannot do without."""

SLOW = ("torch", "torchvision", "pandas", "pyarrow", "numpy", "sklearn", "matplotlib", "PIL", "fsspec")

FIRST = """
import functools, json, sys
import typer.main, typer.testing
from typer.testing import CliRunner
from divacli.cli.app import app
typer.testing._get_command = functools.cache(typer.main.get_command)
for line, expected in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, line.split())
    loaded = [name for name in sys.argv[2:] if name in sys.modules]
    if (result.exit_code, loaded) != (expected, []):
        print(line, result.exit_code, loaded, result.output, sep=" | ")
print("done")
"""


def lines_of(command: str) -> list[tuple[str, int]]:
    """Command lines that end at once, with their status."""
    needed = COMMANDS[command]
    lines = [
        (f"{command} --help", 0),
        (f"{command} -h", 0),
        (command, 2),
        (f"{command} none.csv {needed} --nothing", 2),
        (f"{command} none.csv other.csv {needed}", 2),
        (f"{command} none.csv {needed} --out", 2),
        (f"{command} none.csv {needed} --batch-size many", 2),
        (f"{command} none.csv {needed} --batch-size 0", 2),
        (f"{command} none.csv {needed} --config none.yaml", 2),
        (f"{command} none.csv {needed}", 1),
    ]
    if command != "embed":
        lines += [
            (f"{command} none.csv {needed} --ridge abc", 2),
            (f"{command} none.csv {needed} --ridge -1", 2),
            (f"{command} none.csv {needed} --scaling half", 2),
            (f"{command} none.csv {needed} --dtype float8", 2),
            (f"{command} none.csv {needed} --ridge auto", 1),
        ]
    if command in ("reweight", "augment", "train"):
        lines.append((f"{command} none.csv {needed} --step-size big", 2))
    return lines


OTHERS = [
    ("", 0),
    ("--help", 0),
    ("--version", 0),
    ("nothing", 2),
    ("demo -h", 0),
    ("demo --seed -1", 2),
    ("prune none.csv", 2),
    ("prune none.csv --keep 2", 2),
    ("prune none.csv --keep auto --by loo_loss", 2),
    ("relabel none.csv --threshold 1", 2),
    ("extend none.csv", 2),
    ("extend none.csv --pool x --budget 0", 2),
    ("extend - --pool -", 2),
    ("aggregate - --pool -", 2),
    ("augment none.csv", 2),
    ("train none.csv --lr 0", 2),
    ("train none.csv --val x", 2),
    ("evaluate none.csv --test x", 2),
    ("evaluate none.csv --test x --curve add", 2),
    ("apply -h", 0),
    ("apply none.csv", 2),
    ("apply - -", 2),
    ("apply none.csv none.csv", 1),
    ("apply none.csv --materialize copy --out -", 2),
    ("export -h", 0),
    ("export none.csv", 2),
    ("export none.csv --to cleanlab", 1),
    ("export none.csv --to fiftyone --out -", 2),
]


def test_help_and_wrong_usage_wait_for_nothing_slow(tmp_path):
    lines = OTHERS + [line for command in COMMANDS for line in lines_of(command)]
    found = subprocess.run(
        [sys.executable, "-c", FIRST, json.dumps(lines), *SLOW],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert found.stdout == "done\n"


def test_all_commands_are_looked_at():
    from divacli.cli.app import app

    others = {"apply", "demo", "doctor", "export", "inspect", "plot", "report", "review"}
    assert {*COMMANDS, *others} == {command.name for command in app.registered_commands}


def test_without_a_command_it_greets_with_those_that_most_people_need():
    from divacli.cli.app import app

    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("  diva ")] == ["score", "report", "prune"]
    assert max(map(len, lines)) <= 80


def test_every_command_has_examples_and_fits_80_columns(monkeypatch):
    from divacli.cli.app import app

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    for command in app.registered_commands:
        shown = CliRunner().invoke(app, [command.name, "--help"]).stdout
        assert f"diva {command.name}" in shown.partition("Example")[2], command.name
        assert max(map(len, shown.splitlines())) <= 80, command.name


def test_the_installed_module_answers():
    found = subprocess.run(
        [sys.executable, "-m", "divacli", "--version"], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, f"diva {divacli.version.__version__}\n", "")


def test_help_names_the_commands(run):
    result = run("--help")
    assert result.exit_code == 0
    for name in ("score", "prune", "embed", "demo"):
        assert f"│ {name} " in result.stdout
    assert "positive derivative is harmful" in " ".join(result.stdout.split())


SHARED = [
    "--model",
    "--checkpoint",
    "--weights",
    "--layer",
    "--device",
    "--batch-size",
    "--workers",
    "--cache-dir",
]
FRAME = ["--out", "--format", "--config", "--quiet", "--debug"]
PROBLEM = ["--val", "--ridge", "--loss", "--scaling", "--around-head", "--dtype", "--seed"]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("score", [*SHARED, *FRAME, *PROBLEM, "--verify", "--strict"]),
        ("prune", [*SHARED, *FRAME, *PROBLEM, "--keep", "--threshold", "--by", "--stratify", "--strict"]),
        ("embed", [*SHARED, *FRAME, "--strict"]),
        ("demo", ["--out", "--seed", "--config", "--quiet", "--debug"]),
    ],
)
def test_the_help_of_a_command_names_its_options(command, options, run):
    result = run(command, "--help")
    assert result.exit_code == 0
    for option in options:
        assert f"{option} " in result.stdout


@pytest.mark.parametrize("command", ["score", "prune", "embed"])
def test_the_help_of_a_command_has_an_example(command, run):
    text = run(command, "--help").stdout
    assert "Example" in text
    assert f"diva {command} photos/" in text


def test_the_library_offers_loo_loss_and_nothing_that_is_not_there():
    from divacli.ridge import loo_loss

    assert divacli.loo_loss is loo_loss
    with pytest.raises(AttributeError, match="no attribute 'lool_oss'"):
        _ = divacli.lool_oss
