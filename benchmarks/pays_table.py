"""The page of `benchmarks.pays`: what decisions do to the test error, and how good their forecasts are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

LEARNERS = ("ridge", "logistic")
RIVAL = {"prune": "everything", "relabel": "everything", "reweight": "everything", "extend": "core"}
"""What doing nothing is."""


def report(rows: list[dict[str, Any]]) -> str:
    """Markdown of all rows."""
    table = flat(rows)
    lines = [
        "# Does a decision pay?",
        "",
        "Test error in per cent, ridge regression / logistic regression, means over sizes and draws, of each "
        "choice as it was made, and in brackets of a random one of the same size. The tables below say what "
        "becomes of choices that are not written. Made by `python -m benchmarks.pays`.",
        "",
    ]
    for command, part in table.groupby("command", sort=False):
        lines += [f"## {command}", "", *_by_noise(part), "", *_checks(part), ""]
    return "\n".join(lines)


def flat(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a decision and learner, with its errors, its forecast and what became of it."""
    found = []
    for row in rows:
        nothing = RIVAL[row["command"]]
        forecast = row["forecast"]
        for learner in LEARNERS:
            one = {
                name: row[name]
                for name in ("command", "data", "kind", "rate", "size", "seed", "decision", "rule")
            }
            one |= {"learner": learner, "pays": row.get("pays", True)}
            one |= {"nothing": row[nothing][learner], "random": row["random"][learner]}
            one |= {"chosen": row["chosen"][learner], "all": row["everything"][learner]}
            one["written"] = one["chosen"] if one["pays"] else one["nothing"]
            one["oracle"] = row["oracle"][learner] if "oracle" in row else np.nan
            if forecast is not None:
                change = forecast["change"][forecast["chosen"]]
                one |= {f"forecast_{name}": 100 * change[name] for name in ("mean", "se", "low", "high")}
                one["forecast_before"] = 100 * forecast["error"]["nothing"]
            found.append(one)
    return pd.DataFrame(found)


def _noise(row: pd.Series) -> str:
    return str(row["kind"]) if not row["rate"] else f"{row['kind']} {row['rate']:.0%}"


def _by_noise(part: pd.DataFrame) -> Iterator[str]:
    """A line a set and noise, a column a decision: chosen (nothing, random)."""
    part = part.assign(noise=part.apply(_noise, axis=1))
    decisions = part["decision"].unique().tolist()
    yield "| set | noise | nothing | " + " | ".join(decisions) + " |"
    yield "|---|---|---|" + "---|" * len(decisions)
    for (data, noise), here in part.groupby(["data", "noise"], sort=False):
        cells = [_pair(here, "nothing")]
        for decision in decisions:
            one = here[here["decision"] == decision]
            cells.append(f"{_pair(one, 'chosen')} ({_pair(one, 'random')})" if len(one) else "")
        yield f"| {data} | {noise} | " + " | ".join(cells) + " |"


def _pair(rows: pd.DataFrame, column: str) -> str:
    means = rows.groupby("learner")[column].mean()
    return " / ".join(f"{means[learner]:.1f}" for learner in LEARNERS)


def _checks(part: pd.DataFrame) -> Iterator[str]:
    """What the table has to show, over cells (means of draws)."""
    cell = ["data", "kind", "rate", "size", "decision", "learner"]
    part = part.assign(above=part["written"] - part["random"], change=part["chosen"] - part["nothing"])
    part = part.assign(gain=part["written"] - part["nothing"])
    means = part.groupby(cell, sort=False)[["above", "gain"]].mean().reset_index()
    counts = part.groupby(cell, sort=False)["seed"].nunique()
    yield f"Cells: {len(means)}, draws of each {counts.min()} to {counts.max()}. Against a random choice:"
    yield ""
    yield "| decision | noise | ridge | logistic | cells more than 0.3 points above it | worst |"
    yield "|---|---|---|---|---|---|"
    means = means.assign(noise=means.apply(_noise, axis=1))
    for (decision, noise), here in means.groupby(["decision", "noise"], sort=False):
        by_learner = here.groupby("learner")["above"].mean()
        figures = " | ".join(f"{by_learner[learner]:+.2f}" for learner in LEARNERS)
        worse = int((here["above"] > 0.3).sum())
        yield f"| {decision} | {noise} | {figures} | {worse} of {len(here)} | {here['above'].max():+.2f} |"
    known = part[part["forecast_mean"].notna()] if "forecast_mean" in part else part.iloc[:0]
    if not len(known):
        return
    inside = (known["change"] >= known["forecast_low"]) & (known["change"] <= known["forecast_high"])
    promised = known["forecast_mean"] < -2 * known["forecast_se"]
    broken = promised & (known["change"] > 2.0)
    yield ""
    shares = ", ".join(f"{inside[known['learner'] == name].mean():.1%} ({name})" for name in LEARNERS)
    n_known, n_promised = len(known) // len(LEARNERS), int(promised.sum()) // len(LEARNERS)
    yield (
        f"Forecasts of {n_known} decisions: the 95 % interval holds the change of the test error in "
        f"{shares}. Gains promised at two standard errors: {n_promised}; in {int(broken.sum())} of these "
        "cases the test error rose by two points."
    )
