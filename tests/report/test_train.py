"""What a person sees of a training."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch
from rich.console import Console

from divacli.report.terminal.train import train_summary
from divacli.training.joint import HISTORY_COLUMNS
from divacli.training.train import TrainResult


def shown(result: TrainResult) -> str:
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as captured:
        for part in train_summary(result):
            console.print(part)
    return captured.get()


def result(*, tested: bool, stopped: bool = False, size: float | None = None) -> TrainResult:
    rows = [
        (0, 0.0, 0.005, None, 1.5, 0.4, 0.2, 0.01, 0.3 if tested else None, None, 1.0),
        (96, 1.0, 0.003, 1.25, 1.4, 0.35, 0.0, 0.02, 0.25 if tested else None, None, 2.0),
        (1200, 2.0, 0.0, 0.75, 1.45, 0.36, 0.0, 0.02, 0.26 if tested else None, None, 3.0),
    ]
    history = pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))
    summary = {
        "best": history.iloc[1].to_dict(),
        "stopped_early": stopped,
        "n_zero": 3,
        "effective_samples": 41.6,
        "n_test": 10 if tested else None,
        "options": {"size": size},
        "group": None,
        "n_groups": None,
    }
    table = pd.DataFrame({"path": ["a", "b"], "label": ["x", "y"], "weight": [0.5, 1.5]})
    return TrainResult(table, {"w": torch.zeros(1)}, ["x", "y"], history, table.iloc[:0], summary)


def test_the_rows_and_what_is_kept():
    lines = [line.split() for line in shown(result(tested=True)).splitlines()]
    assert ["0", "1.5000", "40.0%", "0.2", "1.0%", "30.0%"] in lines
    assert ["96", "1.2500", "1.4000", "35.0%", "0", "2.0%", "25.0%"] in lines
    assert ["1,200", "0.7500", "1.4500", "36.0%", "0", "2.0%", "26.0%"] in lines
    text = " ".join(shown(result(tested=True)).split())
    assert "kept: network and weights after step 96, of the lowest K-fold loss" in text
    assert "stopped early" not in text
    assert "3 of 2 weights are 0, the largest is 1.5; they weigh like 42 equal samples" in text


def test_without_a_test_set_there_is_no_column_for_it():
    assert " test\n" in shown(result(tested=True))
    assert " test\n" not in shown(result(tested=False))


def test_that_groups_are_left_out_is_said():
    found = result(tested=False)
    assert "leave-group-out" not in shown(found)
    grouped = {**found.summary, "group": "patient", "n_groups": 7}
    assert "leave-group-out: 7 groups of patient" in shown(replace(found, summary=grouped))


def test_that_no_step_paid_is_said():
    found = result(tested=False)
    assert "no step of the weights" not in shown(found)
    still = {"history": found.history.assign(step_size=0.0)}
    assert "no step of the weights would have helped" in shown(replace(found, **still))
    assert "no step of the weights" not in shown(replace(result(tested=False, size=0.0), **still))


def test_an_early_end_is_said():
    assert "so training stopped early" in " ".join(shown(result(tested=False, stopped=True)).split())
