"""The results of `benchmarks.linearize` for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.paper import markdown

RESAMPLES = 10_000

OUTPUTS = (
    "cifar10n, cifar_resnet20, last block and head: 300 training images with the labels of annotators, 700",
    "test images. Shared weights: the kernel of all ten outputs with one change of the weights, of",
    "gradients compressed to 8,192 numbers. One vector: that of a combination of the outputs by random",
    "signs, as `--linearize` has it; mean: its expectation.",
    "Distance: Frobenius norm of the difference, in units of the mean's. `benchmarks.linearize_outputs`.",
    "",
)

Row = dict[str, Any]


def report(rows: Sequence[Row]) -> str:
    """All settings as Markdown."""
    lines = [
        "# Features that are gradients: the head, the last block, the network",
        "",
        "Errors in %; LOO: leave-one-out, on the labels as they are in that table. Less head: difference of",
        "the test error to that of the features of the head, with a 95 % interval of a bootstrap over test",
        "images, both predicting the same ones. Auto and derivative: what is left after `--keep auto`, and",
        "after dropping every sample with a positive derivative, with the share of the way from everything",
        "to the oracle (no wrong label) that was gone. AUROC: of the derivative, of the LOO loss, and of",
        "`mislabel_probability`; F1: of `mislabel_probability > 0.5`. Moved labels: means over draws.",
        "`python -m benchmarks.linearize` makes this page, and says in its first lines how.",
    ]
    for setting in dict.fromkeys(row["setting"] for row in rows if row["part"] != "outputs"):
        mine = [row for row in rows if row["setting"] == setting]
        costs = {row["features"]: row for row in mine if row["part"] == "cost"}
        figures = [row for row in mine if row["part"] == "figures"]
        lines += ["", f"## {setting}", "", markdown([cost(row) for row in costs.values()])]
        for labels in dict.fromkeys(row["labels"] for row in figures):
            draws: dict[str, list[Row]] = {}
            for row in figures:
                if row["labels"] == labels:
                    draws.setdefault(row["features"], []).append(row)
            table = [line(name, found, draws.get("head")) for name, found in draws.items()]
            wrong = np.mean([row["noise"] for found in draws.values() for row in found])
            lines += ["", f"### Labels: {labels} ({wrong:.1%} wrong)", "", markdown(table)]
    outputs = [row for row in rows if row["part"] == "outputs"]
    if outputs:
        lines += ["", "## One vector for all outputs", "", *OUTPUTS, markdown(list(map(kernel, outputs)))]
    return "\n".join(lines) + "\n"


def kernel(row: Row) -> Row:
    """A line of the table of reductions."""
    return {
        "kernel": row["features"],
        "LOO loss": f"{row['loo_loss']:.4f}",
        "LOO error": percent(row["loo_error"]),
        "test loss": f"{row['test_loss']:.4f}",
        "test error": percent(row["test_error"]),
        "distance to the mean": f"{row['from_mean']:.2f}" if "from_mean" in row else "-",
    }


def cost(row: Row) -> Row:
    """A line of the table of costs."""
    return {
        "features": row["features"],
        "numbers a sample": f"{row['n_features']:,}",
        "bytes": f"{row['bytes']:,}",
        "images a second, one core": f"{1 / row['seconds_an_image']:.1f}",
    }


def line(name: str, draws: Sequence[Row], head: Sequence[Row] | None) -> Row:
    """A line of a table of figures.

    Args:
        name: Of the features.
        draws: A row for each draw of the labels.
        head: Those of the features of the head, if they were measured.
    """
    mean = {
        figure: float(np.mean([row[figure] for row in draws]))
        for figure in draws[0]
        if isinstance(draws[0][figure], float)
    }
    error, class_error = (percent(mean[f"{figure}_everything"]) for figure in ("error", "class_error"))
    found: Row = {
        "features": name,
        "draws": str(len(draws)),
        "LOO loss": f"{mean['loo_loss']:.4f}",
        "LOO error": percent(mean["loo_error"]),
        "test error (over classes)": f"{error} ({class_error})",
        "less head": "-" if head is None or head is draws else difference(draws, head),
    }
    if "f1" in mean:
        found["AUROC"] = ", ".join(
            f"{mean[f'auroc_{column}']:.3f}" for column in ("derivative", "loo_loss", "mislabel_probability")
        )
        found["F1"] = f"{mean['f1']:.3f}"
        for decision in ("auto", "derivative"):
            found[decision] = f"{percent(mean[f'error_{decision}'])} ({share(mean, decision)})"
        found["oracle"] = percent(mean["error_oracle"])
    else:
        found["called wrong"] = percent(mean["called_wrong"])
    found["seconds to solve"] = f"{mean['seconds_solving']:.0f}"
    return found


def percent(value: float) -> str:
    """A share as a number."""
    return f"{100 * value:.2f}"


def share(mean: dict[str, float], decision: str) -> str:
    """The share of the gap between everything and the oracle that a decision closes, of mean errors."""
    gap = mean["error_everything"] - mean["error_oracle"]
    closed = mean["error_everything"] - mean[f"error_{decision}"]
    return f"{closed / gap:.0%}" if gap > 0 else "-"


def difference(draws: Sequence[Row], head: Sequence[Row]) -> str:
    """The difference to the head's test error with its interval, over the draws that both have."""
    of_head = {row["seed"]: row for row in head}
    pairs = [(row, of_head[row["seed"]]) for row in draws if row["seed"] in of_head]
    if not pairs:
        return "-"
    more = np.mean([missed(row) - missed(other) for row, other in pairs], axis=0)
    estimate, low, high = (100 * value for value in paired(more))
    return f"{estimate:+.2f} [{low:+.2f}, {high:+.2f}]"


def missed(row: Row) -> np.ndarray:
    """(m,) which test images were missed, 0.0 or 1.0."""
    packed = np.frombuffer(bytes.fromhex(row["missed_everything"]), np.uint8)
    return np.unpackbits(packed, count=row["n_test"]).astype(float)


def paired(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of values (m,), and the ends of the 95 % interval of a bootstrap over them."""
    generator = np.random.default_rng(0)
    n = len(values)
    resampled = [values[generator.integers(0, n, n)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
