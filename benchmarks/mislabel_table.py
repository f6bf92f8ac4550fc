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
    "calibration_error": ("calibration error", "{:.3f}"),
    "suggestion_right": ("suggestion right", "{:.1%}"),
}
PLANTED: Columns = SEEDS | {
    "outlier_auroc": ("AUROC of the outlier score", "{:.4f}"),
    "planted_dropped": ("planted images dropped", "{:.1%}"),
    "others_dropped": ("others dropped", "{:.1%}"),
}
DIFFERENCES: Columns = {
    "f1": ("F1", "{:.3f}"),
    "f1_cleanlab": ("of cleanlab", "{:.3f}"),
    "f1_more": ("difference", "{:+.3f}"),
    "auroc": ("AUROC", "{:.4f}"),
    "auroc_best": ("of the best peer", "{:.4f}"),
    "best": ("which is", "{}"),
    "auroc_more": ("difference", "{:+.4f}"),
}


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
    measured["megabytes"] = measured["peak"] / 1e6
    by_tool = measured.groupby(["cell", "tool"], sort=False)
    means = by_tool.mean(numeric_only=True).assign(seeds=by_tool.size())
    means = means.reindex(columns=list(dict.fromkeys([*MEASURES, *STATEMENTS, *PLANTED])))
    parts.append("\n".join(dict.fromkeys(notes)))
    parts += section("Every tool", means.dropna(subset=["noise"]), MEASURES)
    parts += section("divacli beside its peers", compared(means), DIFFERENCES)
    parts += section("What divacli says of the labels", means.dropna(subset=["noise_rate"]), STATEMENTS)
    parts += section("Planted images", means.dropna(subset=["outlier_auroc"]), PLANTED)
    return paragraphs(parts)


def paragraphs(parts: list[str]) -> str:
    """Parts of a Markdown text with empty lines between them."""
    return "\n\n".join(parts) + "\n"


def compared(means: pd.DataFrame) -> pd.DataFrame:
    """F1 of our tool and of cleanlab, AUROC of our tool and of the best of its peers, and their means.

    Args:
        means: Rows by cell and tool.
    """
    noisy = means.dropna(subset=["auroc"])
    auroc, f1 = (noisy[name].unstack("tool").reindex(columns=list(TOOLS)) for name in ("auroc", "f1"))
    peers = auroc[[name for name, tool in TOOLS.items() if tool.package != "divacli"]].dropna(how="all")
    both = pd.DataFrame(
        {
            "f1": f1["ours"],
            "f1_cleanlab": f1["cleanlab"],
            "f1_more": f1["ours"] - f1["cleanlab"],
            "auroc": auroc["ours"],
            "auroc_best": peers.max(axis=1),
            "best": peers.idxmax(axis=1).map({name: tool.title for name, tool in TOOLS.items()}),
            "auroc_more": auroc["ours"] - peers.max(axis=1),
        }
    ).dropna(subset=["auroc", "auroc_best"])
    both = both.reindex(noisy.index.unique("cell").intersection(both.index, sort=False))
    if both.empty:
        return both
    both.loc["mean"] = both.mean(numeric_only=True)
    return both.rename_axis("cell")


def section(title: str, frame: pd.DataFrame, columns: Columns) -> list[str]:
    """A heading and a table, or nothing where there is nothing to show."""
    return [] if frame.empty else [f"## {title}", table(frame, columns)]


def table(frame: pd.DataFrame, columns: Columns) -> str:
    """A frame as a Markdown table, its index first, empty where there is no value."""
    lines = [[*map(str, frame.index.names), *(heading for heading, _ in columns.values())]]
    lines.append(["---"] * len(lines[0]))
    for index, row in frame.iterrows():
        cell, *tool = index if isinstance(index, tuple) else (index,)
        values = ["" if pd.isna(row[name]) else form.format(row[name]) for name, (_, form) in columns.items()]
        lines.append([cell, *(TOOLS[name].title for name in tool), *values])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
