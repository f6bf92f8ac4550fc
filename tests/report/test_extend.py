"""What the terminal shows of a choice from a pool, in 80 columns."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pandas as pd
from rich.console import Console

from divacli.report.terminal.extend import aggregate_summary, extend_summary

SUMMARY = {
    "n_selected": 1500,
    "n_pool": 2968,
    "n_core": 100,
    "judged_by": "leave-one-out loss of the core",
    "rule": "coreset",
    "why": "coreset has a smaller loss than random in the folds",
    "labelled": True,
    "pool_noise": 0.483,
    "loss": {"before": 0.41231, "after": 0.3},
    "error": {"before": 0.2123, "after": 0.164},
    "stopped": "the budget was spent",
    "group": None,
    "n_groups": None,
}


def shown(parts) -> list[str]:
    console = Console(width=80, file=io.StringIO(), highlight=False, color_system=None)
    for part in parts:
        console.print(part)
    return console.file.getvalue().splitlines()


def result(n_batches=3, reasons=(), **changes):
    """A stand-in that holds what is shown of a result."""
    rows = range(n_batches + 1)
    history = pd.DataFrame(
        {
            "batch": rows,
            "n_selected": [500 * row for row in rows],
            "ridge": 0.81239,
            "loss": [0.4 - 0.01 * row for row in rows],
            "error": 0.2,
        }
    )
    remaining = pd.DataFrame({"reason": list(reasons)}, dtype=str)
    return SimpleNamespace(summary={**SUMMARY, **changes}, history=history, remaining=remaining, outlook=None)


def test_how_much_was_chosen_and_what_it_brings():
    lines = shown(
        extend_summary(result(reasons=["its weight is 0"] * 1200 + ["it would raise the loss"] * 7))
    )
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80
    assert "1,500 of 2,968 pool samples are chosen for 100 core samples" in text
    assert "judged by the leave-one-out loss of the core" in text
    assert "wrong labels in the pool, as estimated: 48%" in text
    assert "chosen by coreset: coreset has a smaller loss than random in the folds" in text
    assert "loss 0.4123 -> 0.3000, error 21.2% -> 16.4% (the choice was fitted to these" in text
    assert "(the choice was fitted to these); the budget was spent" in text
    assert "3 1,500 0.3700 20.0% 0.812" in text
    assert text.index("1,200 its weight is 0") < text.index("7 it would raise the loss")


def test_groups_are_named():
    assert "groups" not in " ".join(shown(extend_summary(result())))
    lines = shown(extend_summary(result(group="patient_id", n_groups=20)))
    assert lines[0] == "leave-group-out: 20 groups of patient_id"


def test_an_unlabelled_pool_is_marked_as_such():
    text = " ".join(" ".join(shown(extend_summary(result(labelled=False, pool_noise=None)))).split())
    assert "ranked by the expected derivative under the predicted classes" in text
    assert "wrong labels" not in text


def test_of_a_long_history_the_first_and_the_last_and_some_between():
    lines = shown(extend_summary(result(n_batches=100)))
    batches = [line.split()[0] for line in lines if "0.812" in line]
    assert len(batches) == 8
    assert (batches[0], batches[-1]) == ("0", "100")
    assert not any("why others" in line for line in lines)


def test_modalities_and_their_weights():
    parts = {
        "texts": {"n_selected": 155, "n_pool": 212, "weight": 8.0},
        "[bold]x[/bold]\x1b[31m": {"n_selected": 0, "n_pool": 1000, "weight": 0.5},
    }
    both = SimpleNamespace(choice=result(), summary={"modalities": parts})
    lines = shown(aggregate_summary(both))
    assert [line.split() for line in lines[-3:-1]] == [
        ["chosen", "of", "weight", "modality"],
        ["155", "212", "8", "texts"],
    ]
    assert lines[-1].split()[:3] == ["0", "1,000", "0.5"]
    assert "[bold]x[/bold]" in lines[-1]
    assert "\x1b" not in lines[-1]
