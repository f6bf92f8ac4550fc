"""What a person sees of a training in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.report.terminal.sentences import groups_line
from divacli.report.terminal.tables import listing
from divacli.training.train import TrainResult


def train_summary(result: TrainResult) -> Iterator[RenderableType]:
    """How the training went, and what is its result.

    Args:
        result: The result.
    """
    summary = result.summary
    best = summary["best"]
    yield from groups_line(summary)
    yield _history(result)
    stopped = "; it has not fallen since, so training stopped early" if summary["stopped_early"] else ""
    yield Text(f"kept: network and weights after step {best['step']:,}, of the lowest K-fold loss{stopped}")
    if summary["options"]["size"] is None and not result.history["step_size"].any():
        yield Text("no step of the weights would have helped left-out images: they are as they were")
    weight = result.table["weight"]
    yield Text(
        f"{summary['n_zero']:,} of {len(weight):,} weights are 0, the largest is {weight.max():.3g}; "
        f"they weigh like {summary['effective_samples']:,.0f} equal samples"
    )


def _history(result: TrainResult) -> Table:
    columns = {
        "step": ("step", ",.0f"),
        "train\nloss": ("train_loss", ".4f"),
        "K-fold\nloss": ("kfold_loss", ".4f"),
        "LOO\nerror": ("loo_error", ".1%"),
        "step\nsize": ("step_size", "g"),
        "zero": ("zero", ".1%"),
    }
    if result.summary["n_test"] is not None:
        columns["test\nerror"] = ("test_error", ".1%")
    shown = listing(*columns)
    for row in result.history.to_dict("records"):
        values = [(row[column], form) for column, form in columns.values()]
        best = row["step"] == result.summary["best"]["step"]
        cells = ["" if value != value else format(value, form) for value, form in values]
        shown.add_row(*cells, style="bold" if best else None)
    return shown
