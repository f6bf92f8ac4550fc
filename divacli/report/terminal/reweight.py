"""What a person sees of new weights in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.reweight import ReweightResult
from divacli.report.terminal.outlook import Deed, outlook_sentence
from divacli.report.terminal.sentences import groups_line
from divacli.report.terminal.tables import SHOWN, add_words, cell, listing


def reweight_summary(result: ReweightResult) -> Iterator[RenderableType]:
    """What the folds said, what the steps did, and where the weight went."""
    summary = result.summary
    yield from groups_line(summary)
    if result.choice is not None:
        yield Text("what left-out folds gain by a step", style="bold")
        yield _trials(result)
        taken = ", then ".join(f"{size:g}" for size in result.choice.sizes) or "none"
        yield Text(f"steps taken: {taken}\n")
    history = result.history
    yield Text(
        f"{summary['loss']} loss over validation samples {history['loss'].iloc[0]:.4f} -> "
        f"{history['loss'].iloc[-1]:.4f}, error {history['error'].iloc[0]:.1%} -> "
        f"{history['error'].iloc[-1]:.1%} (the weights were fitted to these)"
    )
    weight = result.table["weight"]
    yield Text(
        f"{summary['n_zero']:,} of {len(weight):,} weights are 0, the largest is {weight.max():.3g}; "
        f"they weigh like {summary['effective_samples']:,.0f} equal samples"
    )
    yield Text("\nclasses by mean weight", style="bold")
    yield _classes(result.table)
    verdict = reweight_verdict(result)
    if verdict:
        yield Text(f"\n{verdict}", style="bold")


def reweight_verdict(result: ReweightResult) -> str:
    """The sentences that a person acts on, and what was written; "" without a forecast."""
    outlook, balanced = result.outlook, result.summary.get("validation") == "balanced"
    stepless = result.choice is not None and not result.choice.sizes
    if outlook is None:
        return "Nothing to gain by reweighting: the weights stay." if stepless and not balanced else ""
    among = {"class": " among the classes", "group": " among the groups"}.get(result.summary["per"], "")
    done = "balancing the classes" if balanced else "reweighting"
    if balanced and not stepless:
        done += " and reweighting"
    deed = Deed(done, f"the same weights dealt out at random{among}", "the weights stay", "reweighting")
    if not result.written:
        size = result.summary["sizes"][0]
        said = outlook_sentence(outlook, replace(deed, rival=""), written=True)
        return f"Nothing to gain: the weights stay (--step-size {size:g} steps all the same). {said}."
    said = outlook_sentence(outlook, deed, written=True) + "."
    if balanced:
        said = said.replace("the error on new images", "the error on new images, averaged over classes,", 1)
    why = "the steps were given by hand"
    if result.choice is not None:
        why = "no step pays" if stepless else "the steps lower the loss of left-out samples"
    if outlook.pays:
        return f"{said} The new weights were written."
    return f"{said} The new weights were written all the same: {why}."


def _trials(result: ReweightResult) -> Table:
    assert result.choice is not None
    shown = listing("step", "size", "loss", "gain", "± error", "wrong", "")
    sizes = result.choice.sizes
    for trial in result.choice.trials:
        taken = trial.step <= len(sizes) and trial.size == sizes[trial.step - 1]
        shown.add_row(
            str(trial.step),
            f"{trial.size:g}",
            f"{trial.loss:.4f}",
            f"{trial.gain:+.4f}",
            f"{trial.gain_error:.4f}",
            f"{trial.error:.1%}",
            "taken" if taken else "",
            style="bold" if taken else None,
        )
    return shown


def _classes(table: pd.DataFrame) -> Table:
    weights = table.groupby("label")["weight"].agg(["mean", "sum", "size"]).sort_values("mean", kind="stable")
    weights["share"] = weights["sum"] / weights["sum"].sum()
    rows = weights if len(weights) <= 2 * SHOWN else pd.concat([weights.head(SHOWN), weights.tail(SHOWN)])
    shown = listing("mean weight", "share of weight", "samples")
    add_words(shown, "label")
    for row in rows.itertuples():
        shown.add_row(f"{row.mean:.3f}", f"{row.share:.1%}", f"{row.size:,}", cell(str(row.Index)))
    return shown
