"""Tables of `benchmarks.mislabel`, as Markdown."""

from __future__ import annotations

from typing import Any

import pandas as pd

from benchmarks.machine import description
from benchmarks.peers import TOOLS

Columns = dict[str, tuple[str, str]]
"""Heading and format of each column."""

SEEDS: Columns = {"seeds": ("seeds", "{:.0f}")}
MEASURES: Columns = SEEDS | {
    "auroc": ("AUROC", "{:.4f}"),
    "ap": ("AP", "{:.4f}"),
    "f1": ("F1", "{:.3f}"),
    "precision": ("precision", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
    "flagged": ("flagged", "{:.1%}"),
    "seconds": ("seconds", "{:.1f}"),
    "cpu_seconds": ("CPU seconds", "{:.1f}"),
    "megabytes": ("peak MB", "{:,.0f}"),
}
STATEMENTS: Columns = SEEDS | {
    "noise": ("wrong", "{:.3f}"),
    "noise_rate": ("said to be wrong", "{:.3f}"),
    "noise_low": ("interval from", "{:.3f}"),
    "noise_high": ("to", "{:.3f}"),
    "noise_held": ("holds the truth, share of seeds", "{:.2f}"),
    "calibration_error": ("calibration error", "{:.3f}"),
    "suggestion_right": ("suggestion right", "{:.1%}"),
}
PLANTED: Columns = SEEDS | {
    "outlier_auroc": ("AUROC of the outlier score", "{:.4f}"),
    "planted_dropped": ("planted images dropped", "{:.1%}"),
    "others_dropped": ("others dropped", "{:.1%}"),
}
DECISIONS = {"likely": "", "balanced": "_balanced"}
"""Decisions of our tool, and what the names of their figures end in."""
DECIDED: Columns = SEEDS | {
    "noise": ("wrong", "{:.3f}"),
    "flagged": ("called wrong", "{:.3f}"),
    "expected_precision": ("precision expected", "{:.3f}"),
    "precision": ("true", "{:.3f}"),
    "expected_recall": ("recall expected", "{:.3f}"),
    "recall": ("true", "{:.3f}"),
    "f1": ("F1", "{:.3f}"),
}
DIFFERENCES: Columns = {
    "f1": ("F1", "{:.3f}"),
    "f1_best": ("of the best peer", "{:.3f}"),
    "f1_which": ("which is", "{}"),
    "f1_more": ("difference", "{:+.3f}"),
    "auroc": ("AUROC", "{:.4f}"),
    "auroc_best": ("of the best peer", "{:.4f}"),
    "auroc_which": ("which is", "{}"),
    "auroc_more": ("difference", "{:+.4f}"),
}
AHEAD: Columns = {
    "measure": ("measure", "{}"),
    "rival": ("rival", "{}"),
    "theirs": ("its figure", "{:.4f}"),
    "ours": ("ours", "{:.4f}"),
    "wins": ("ahead in", "{}"),
}
BETTER = {"f1": "F1 of the decision", "auroc": "AUROC", "ap": "AP"}
"""Measures that a rival may be better in, the higher the better."""
PEERS = [name for name, tool in TOOLS.items() if tool.package != "divacli"]


def report(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, and differences between our tool and its peers.

    Args:
        rows: As `benchmarks.mislabel` measures them.
    """
    machine = ", ".join(f"{name} {value}" for name, value in description().items())
    parts = ["# Label errors found", f"Means over seeds. Machine: {machine}."]
    without = set(TOOLS) - {row["tool"] for row in rows}
    notes = [f"- not measured: {tool.title}" for name, tool in TOOLS.items() if name in without]
    notes += [
        f"- failed: {TOOLS[r['tool']].title} on {r['cell']}: {r['failed']}" for r in rows if "failed" in r
    ]
    measured = pd.DataFrame([row for row in rows if "failed" not in row])
    if measured.empty:
        return paragraphs([*parts, "\n".join(notes)])
    used = measured[["tool", "version", "threads"]].drop_duplicates()
    notes += [f"- {TOOLS[t].title}: {TOOLS[t].package} {v}, threads: {n}" for t, v, n in used.to_numpy()]
    if "noise_held" in measured:
        measured["noise_held"] = measured["noise_held"].astype(float)
    measured["megabytes"] = measured["peak"] / 1e6
    by_tool = measured.groupby(["cell", "tool"], sort=False)
    means = by_tool.mean(numeric_only=True).assign(seeds=by_tool.size())
    means = means.reindex(columns=list(dict.fromkeys([*MEASURES, *STATEMENTS, *PLANTED])))
    parts.append("\n".join(dict.fromkeys(notes)))
    parts += section("Every tool", means.dropna(subset=["noise"]), MEASURES)
    parts += ["## Where a rival is better", rivals_ahead(measured)]
    parts += section("divacli beside its peers", compared(means), DIFFERENCES)
    parts += section("What tools say of the labels", means.dropna(subset=["noise_rate"]), STATEMENTS)
    parts += section("Decisions: expected and true precision and recall", decisions(measured), DECIDED)
    parts += section("Planted images", means.dropna(subset=["outlier_auroc"]), PLANTED)
    return paragraphs(parts)


def paragraphs(parts: list[str]) -> str:
    """Parts of a Markdown text with empty lines between them."""
    return "\n\n".join(parts) + "\n"


def compared(means: pd.DataFrame) -> pd.DataFrame:
    """F1 and AUROC of our tool and of the best of its peers in each cell, and their means.

    Args:
        means: Rows by cell and tool.
    """
    noisy, titles = means.dropna(subset=["auroc"]), {name: tool.title for name, tool in TOOLS.items()}
    both = pd.DataFrame(index=pd.Index(noisy.index.unique("cell"), name="cell"))
    for name in ("f1", "auroc"):
        values = noisy[name].unstack("tool").reindex(columns=list(TOOLS))
        peers = values[PEERS].dropna(how="all")
        both[name], both[f"{name}_best"] = values["ours"], peers.max(axis=1)
        both[f"{name}_which"] = peers.idxmax(axis=1).map(titles)
        both[f"{name}_more"] = both[name] - both[f"{name}_best"]
    both = both.dropna(subset=["auroc", "auroc_best"])
    if not both.empty:
        both.loc["mean"] = both.mean(numeric_only=True)
    return both


def rivals_ahead(measured: pd.DataFrame) -> str:
    """A table of every measure in which a rival's mean is above ours, or a word that there is none.

    Means are over the seeds that both were measured with.

    Args:
        measured: Rows of cells, seeds and tools.
    """
    rows, ours = [], measured[measured["tool"] == "ours"]
    for name, title in BETTER.items():
        if name not in measured or ours.empty:
            continue
        pairs = measured[measured["tool"].isin(PEERS)].merge(
            ours, on=["cell", "seed"], suffixes=("", "_ours")
        )
        pairs = pairs.dropna(subset=[name, f"{name}_ours"])
        for (cell, tool), group in pairs.groupby(["cell", "tool"], sort=False):
            theirs, own = group[name], group[f"{name}_ours"]
            if theirs.mean() > own.mean():
                wins = f"{int((theirs > own).sum())} of {len(group)} seeds"
                row = {"cell": cell, "measure": title, "rival": TOOLS[str(tool)].title}
                rows.append(row | {"theirs": theirs.mean(), "ours": own.mean(), "wins": wins})
    if not rows:
        return "Nowhere." if not ours.empty else "Not known: divacli was not measured."
    order = {cell: place for place, cell in enumerate(measured["cell"].unique())}
    frame = pd.DataFrame(rows).set_index("cell")
    return table(frame.sort_index(key=lambda cells: cells.map(order), kind="stable"), AHEAD)


def decisions(measured: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of what each decision of our tool expects and what is true, by cell and decision.

    Args:
        measured: Rows of cells, seeds and tools.
    """
    ours = measured[measured["tool"] == "ours"]
    if "expected_recall_balanced" not in ours:
        return pd.DataFrame()
    ours = ours.dropna(subset=["noise", "flagged_balanced"])
    parts = []
    for name, suffix in DECISIONS.items():
        columns = {title: title if title == "noise" else f"{title}{suffix}" for title in DECIDED}
        del columns["seeds"]
        figures = ours.reindex(columns=list(columns.values())).set_axis(list(columns), axis=1)
        parts.append(figures.assign(cell=ours["cell"], decision=name))
    groups = pd.concat(parts).groupby(["cell", "decision"], sort=False)
    found = groups.mean().assign(seeds=groups.size())
    order = [(cell, name) for cell in ours["cell"].unique() for name in DECISIONS]
    return found.reindex(pd.MultiIndex.from_tuples(order, names=["cell", "decision"]))


def section(title: str, frame: pd.DataFrame, columns: Columns) -> list[str]:
    """A heading and a table, or nothing where there is nothing to show."""
    return [] if frame.empty else [f"## {title}", table(frame, columns)]


def table(frame: pd.DataFrame, columns: Columns) -> str:
    """A frame as a Markdown table, its index first, empty where there is no value."""
    lines = [[*map(str, frame.index.names), *(heading for heading, _ in columns.values())]]
    lines.append(["---"] * len(lines[0]))
    for index, row in frame.iterrows():
        cell, *others = index if isinstance(index, tuple) else (index,)
        values = ["" if pd.isna(row[name]) else form.format(row[name]) for name, (_, form) in columns.items()]
        lines.append([cell, *(TOOLS[name].title if name in TOOLS else name for name in others), *values])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
