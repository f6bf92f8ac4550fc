"""The results of `benchmarks.datamodel` for people."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.datamodel_truths import GROUPS, Row
from benchmarks.paper import markdown

Interval = Sequence[float | None] | None
"""An estimate and the ends of its 95 % interval, three times None or nothing where there is none."""


def show(row: Row) -> None:
    """Print one line."""
    named = ", ".join(row[name] for name in ("setting", "features", "loss", "method"))
    print(named, *(f"{group} {interval(row[group])}" for group in GROUPS), sep="; ", flush=True)


def interval(values: Interval) -> str:
    """An estimate with its interval, as text."""
    if values is None or values[0] is None:
        return "-"
    estimate, low, high = values
    return f"{estimate:.2f} [{low:.2f}, {high:.2f}]"


def report(rows: Sequence[Row]) -> str:
    """All settings as Markdown."""
    lines = [
        "# Predicted and true changes of the test loss when samples are dropped before fine-tuning",
        "",
        "Spearman's rank correlation over subsets between the predicted change of the test loss and the mean",
        "test cross-entropy of networks that were fine-tuned without them, with 95 % intervals of a",
        "bootstrap over subsets. Halves, by image: the mean over test images of the correlation for that",
        "image alone, over random halves. Less head: the difference to the features of the head, over the",
        "same resamples. `python -m benchmarks.datamodel` makes this page, and says in its first lines how.",
    ]
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting]
        predicted = [row for row in mine if row["part"] == "prediction"]
        costs = {row["features"]: row for row in predicted}
        lines += ["", f"## {setting}", ""]
        lines += [facts(row) for row in mine if row["part"] == "truth"]
        lines += ["", markdown([cost(row) for row in costs.values()])]
        for loss in dict.fromkeys(row["loss"] for row in predicted):
            of_loss = [prediction(row) for row in predicted if row["loss"] == loss]
            lines += ["", f"### Predictions of the {loss} loss", "", markdown(of_loss)]
        controls = [control(row) for row in mine if row["part"] == "control"]
        lines += ["", "### Controls", "", markdown(controls)]
    return "\n".join(lines) + "\n"


def facts(row: Row) -> str:
    """What the truths of a setting are like, in a few sentences."""
    (low, high), (half_low, half_high) = row["range"]["all"], row["range"]["halves"]
    subsets = ", ".join(f"{row['n_subsets'][group]} {group}" for group in GROUPS)
    noise = "-" if row["noise"] is None else f"{row['noise']:.3f}"
    return (
        f"{row['n_train']} training images, {row['wrong']:.1%} of whose labels are wrong, {row['n_test']} "
        f"test images; {row['runs']} runs in {row['minutes']} minutes. Subsets: {subsets}; {row['repeated']} "
        f"of them were run with a second seed as well. Fine-tuned with all samples, the network has a test "
        f"cross-entropy of {row['cross_entropy']:.3f} and an error of {row['error']:.1%}; ridge regression "
        f"on the features of the head has an error of {row['ridge_error']:.1%}. Without a subset the "
        f"cross-entropy is from {low:.3f} to {high:.3f}, without a random half from {half_low:.3f} to "
        f"{half_high:.3f}. Standard deviation of one run's noise between two seeds, but for a shift that all "
        f"subsets share: {noise}."
    )


def cost(row: Row) -> dict[str, str]:
    """A line of the table of costs."""
    return {
        "features": row["features"],
        "numbers a sample": str(row["n_features"]),
        "MB": str(row["megabytes"]),
        "seconds to compute": str(row.get("seconds", "-")),
        "seconds to predict": str(row["seconds_predicting"]),
    }


def prediction(row: Row) -> dict[str, str]:
    """A line of the table of predictions."""
    compared = ("all", "halves", "halves, by image")
    columns = (*GROUPS, "halves, by image", *(f"{group}, less head" for group in compared))
    return {
        "features": row["features"],
        "prediction": row["method"],
        **{column: interval(row.get(column)) for column in columns},
    }


def control(row: Row) -> dict[str, str]:
    """A line of the table of controls."""
    return {"prediction": row["name"], **{group: interval(row.get(group)) for group in GROUPS}}
