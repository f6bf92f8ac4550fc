"""Help, version and how soon they are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import divacli

FIRST = """
import sys
from typer.testing import CliRunner
from divacli.cli.app import app
for line in ("", "--help", "--version", "score --help", "prune -h", "embed -h", "demo -h", "score",
             "prune x.csv", "prune x.csv --keep 2", "score --nothing"):
    result = CliRunner().invoke(app, line.split())
    loaded = [name for name in ("torch", "pandas", "numpy", "sklearn") if name in sys.modules]
    print(line, result.exit_code, loaded, sep="|")
"""


def test_help_and_wrong_usage_do_not_wait_for_torch():
    found = subprocess.run(
        [sys.executable, "-c", FIRST], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.splitlines() == [
        "|2|[]",
        "--help|0|[]",
        "--version|0|[]",
        "score --help|0|[]",
        "prune -h|0|[]",
        "embed -h|0|[]",
        "demo -h|0|[]",
        "score|2|[]",
        "prune x.csv|2|[]",
        "prune x.csv --keep 2|2|[]",
        "score --nothing|2|[]",
    ]


def test_the_installed_module_answers():
    found = subprocess.run(
        [sys.executable, "-m", "divacli", "--version"], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, f"diva {divacli.__version__}\n", "")


def test_help_names_the_commands(run):
    result = run("--help")
    assert result.exit_code == 0
    for name in ("score", "prune", "embed", "demo"):
        assert f"│ {name} " in result.stdout
    assert "positive derivative is harmful" in " ".join(result.stdout.split())


def test_no_arguments_show_the_same_help(run):
    assert run().output.strip() == run("--help").output.strip()


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
