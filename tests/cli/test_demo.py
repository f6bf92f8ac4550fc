"""`diva demo`: offline, repeatable, and as good as it says."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from divacli.cli.app import app
from divacli.demo.digits import make_digits


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of one run without a network connection, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "out of the box"

    connect = socket.socket.connect

    def refuse(*arguments):
        raise AssertionError("the demonstration wants to go online")

    def local_only(self, address):
        # The processes that decode images talk to this one.
        return connect(self, address) if self.family == socket.AF_UNIX else refuse()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        patch.setattr(socket, "getaddrinfo", refuse)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        # matplotlib would keep its list of fonts there.
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        patch.setenv("DIVA_CACHE_DIR", str(home / "diva"))
        result = CliRunner().invoke(app, ["demo", "--out", str(folder)])
        assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"
        assert list(home.iterdir()) == []
    return folder, result


@pytest.fixture(scope="module")
def judged(demo):
    """The scores, with whether each given label is wrong."""
    folder, _ = demo
    scores = pd.read_csv(folder / "scores" / "scores.csv")
    truth = pd.read_csv(folder / "truth.csv").set_index("path")["true_label"]
    labels = pd.read_csv(folder / "labels.csv").set_index("path")["label"]
    images = scores["path"].map(lambda path: f"images/{Path(path).name}")
    assert (scores["label"].to_numpy() == labels[images].to_numpy()).all()
    return scores.assign(image=images, wrong=scores["label"].to_numpy() != truth[images].to_numpy())


def printed(stderr: str, rule: str) -> list[float]:
    """Marked, hits, precision and recall of a rule as printed."""
    (line,) = (line for line in stderr.splitlines() if line.strip().startswith(rule) and "precision" in line)
    found = re.search(r"(\d+) samples, (\d+) of them wrong: precision ([\d.]+), recall ([\d.]+)", line)
    return [float(number) for number in found.groups()]


def judge(marked: pd.Series, wrong: pd.Series) -> list[float]:
    hits = int((marked & wrong).sum())
    return [int(marked.sum()), hits, round(hits / marked.sum(), 2), round(hits / wrong.sum(), 2)]


def test_a_tenth_of_the_labels_is_wrong(judged):
    assert len(judged) == 898
    assert judged["wrong"].sum() == 90


def test_the_probability_finds_the_wrong_labels(demo, judged):
    _, result = demo
    found = judge(judged["mislabel_probability"] > 0.5, judged["wrong"])
    assert found[2] >= 0.9
    assert found[3] >= 0.9
    assert printed(result.stderr, "probability") == pytest.approx(found, abs=0.006)


def test_pruning_drops_the_wrong_labels(demo, judged):
    folder, result = demo
    dropped = pd.read_csv(folder / "pruned" / "dropped.csv")["path"].map(
        lambda path: f"images/{Path(path).name}"
    )
    found = judge(judged["image"].isin(set(dropped)), judged["wrong"])
    assert found[2] >= 0.95
    assert found[3] >= 0.95
    assert printed(result.stderr, "--keep auto") == pytest.approx(found, abs=0.006)


def test_the_commands_it_runs_are_shown_to_be_copied(demo):
    folder, result = demo
    shown = [
        line.removeprefix("$ diva ") for line in result.stderr.splitlines() if line.startswith("$ diva ")
    ]
    score, prune, report = map(shlex.split, shown)
    assert score[:4] == ["score", f"{folder}/labels.csv", "--model", f"{folder}/network.py:digit_net"]
    assert score[4:] == ["--checkpoint", f"{folder}/checkpoint.pt", "--out", f"{folder}/scores"]
    assert prune == ["prune", f"{folder}/scores/scores.csv", "--keep", "auto", "--out", f"{folder}/pruned"]
    assert report == ["report", f"{folder}/scores", "--truth", f"{folder}/truth.csv"]
    assert result.stdout == ""


def test_pruning_is_worth_it_and_not_computed_twice(demo):
    _, result = demo
    assert "Dropping these 89 should" in " ".join(result.stderr.split())
    assert "warning" not in result.stderr
    assert "no forecast" not in result.stderr


def test_another_process_gives_the_same_bytes(demo, tmp_path):
    folder, _ = demo
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "MPLCONFIGDIR": str(tmp_path / "plots")}
    del environment["DIVA_CACHE_DIR"]
    found = subprocess.run(
        [sys.executable, "-m", "divacli", "demo", "--quiet"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    for name in ("labels.csv", "truth.csv", "scores/scores.csv", "pruned/kept.csv", "pruned/dropped.csv"):
        assert (tmp_path / "diva-demo" / name).read_bytes() == (folder / name).read_bytes(), name
    assert not (tmp_path / "home").exists()


# What need not be trained in full


@pytest.fixture
def little_training(monkeypatch):
    monkeypatch.setattr("divacli.demo.digits._EPOCHS", 1)


def test_another_seed_gives_other_flips(little_training, tmp_path):
    one, other = make_digits(tmp_path / "one", 0), make_digits(tmp_path / "other", 1)
    assert one.flipped.sum() == other.flipped.sum() == 90
    assert (one.flipped != other.flipped).any()
    labels = pd.read_csv(other.labels)["label"]
    truth = pd.read_csv(tmp_path / "other" / "truth.csv")["true_label"]
    assert ((labels != truth) == other.flipped).all()


def test_files_of_the_user_stay(little_training, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.png").write_text("mine")
    make_digits(tmp_path, 0)
    assert (tmp_path / "images" / "holiday.png").read_text() == "mine"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (MemoryError(), 1)])
def test_a_step_that_fails_ends_it(error, status, little_training, run, monkeypatch):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("divacli.curate.sample_scores.score", fail)
    result = run("demo")
    assert result.exit_code == status
    assert "diva prune" not in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("diva-demo/pruned").exists()


def test_a_folder_that_cannot_be_made(little_training, run):
    Path("taken").write_text("mine")
    result = run("demo", "--out", "taken")
    assert result.exit_code == 1
    assert "taken" in result.stderr
    assert "Traceback" not in result.stderr
    assert Path("taken").read_text() == "mine"


def test_wrong_usage(run):
    assert run("demo", "--seed", "x").exit_code == 2
