"""What the terminal shows of new weights, in 80 columns."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
from rich.console import Console

from divacli.curate.reweight import ReweightResult
from divacli.report.terminal.reweight import reweight_summary
from divacli.ridge import StepChoice
from divacli.ridge.weights.kfold import Trial

TRIALS = (Trial(1, 0.1, 0.98, 0.0012, 0.0008, 0.44), Trial(2, 0.1, 0.99, -0.016, 0.01, 0.433))


def result(choice: StepChoice | None, labels: list[str] | None = None, **changes: object) -> ReweightResult:
    labels = ["a", "a", "[red]b", "\x1b[2Jc"] if labels is None else labels
    table = pd.DataFrame({"label": labels, "weight": np.linspace(0, 3, len(labels))})
    history = pd.DataFrame({"step": [0, 1], "loss": [1.0, 0.9], "error": [0.5, 0.25]})
    summary = {"loss": "robust-cross-entropy", "n_zero": 1, "effective_samples": 2.571}
    summary |= {"group": None, "n_groups": None, **changes}
    return ReweightResult(table, SimpleNamespace(), choice, history, summary)


def shown(of: ReweightResult) -> list[str]:
    screen = Console(width=80, file=io.StringIO(), highlight=False, color_system=None)
    for part in reweight_summary(of):
        screen.print(part)
    return screen.file.getvalue().splitlines()


def row(lines: list[str], *words: str) -> list[str]:
    (found,) = [line.split() for line in lines if line.split()[: len(words)] == list(words)]
    return found


def test_what_the_folds_said_and_which_step_was_taken():
    lines = shown(result(StepChoice((0.1,), TRIALS)))
    assert max(map(len, lines)) <= 80
    assert row(lines, "1", "0.1") == ["1", "0.1", "0.9800", "+0.0012", "0.0008", "44.0%", "taken"]
    assert row(lines, "2", "0.1") == ["2", "0.1", "0.9900", "-0.0160", "0.0100", "43.3%"]
    assert "steps taken: 0.1" in lines


def test_groups_are_named():
    assert "groups" not in " ".join(shown(result(None)))
    lines = shown(result(None, group="patient_id", n_groups=20))
    assert lines[0] == "leave-group-out: 20 groups of patient_id"


def test_several_steps_and_none():
    assert "steps taken: 0.1, then 0.1" in shown(result(StepChoice((0.1, 0.1), TRIALS)))
    lines = shown(result(StepChoice((), TRIALS)))
    assert "steps taken: none" in lines
    assert not [line for line in lines if line.endswith("taken")]


def test_given_steps_have_no_trials():
    assert "left-out folds" not in "\n".join(shown(result(None)))


def test_loss_weights_and_classes():
    lines = shown(result(None))
    text = " ".join(" ".join(lines).split())
    assert "robust-cross-entropy loss over validation samples 1.0000 -> 0.9000, error 50.0% -> 25.0%" in text
    assert "1 of 4 weights are 0, the largest is 3; they weigh like 3 equal samples" in text
    assert row(lines, "0.500") == ["0.500", "16.7%", "2", "a"]
    assert row(lines, "2.000") == ["2.000", "33.3%", "1", "[red]b"]
    assert row(lines, "3.000") == ["3.000", "50.0%", "1", "\\x1b[2Jc"]


def test_of_many_classes_the_lightest_and_heaviest_are_shown():
    labels = [f"c{number:02d}" for number in range(40)]
    lines = shown(result(None, labels))
    names = [line.split()[-1] for line in lines if line.split() and line.split()[-1].startswith("c")]
    assert names == [*labels[: len(names) // 2], *labels[-(len(names) // 2) :]]
    assert 4 <= len(names) < 40
