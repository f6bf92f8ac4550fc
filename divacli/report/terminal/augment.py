"""What a person sees of the probabilities of transforms, in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.augment import AugmentResult
from divacli.curate.augment_forecast import EQUAL
from divacli.curate.augmentation_file import UNTOUCHED
from divacli.report.terminal.outlook import Deed, outlook_sentence
from divacli.report.terminal.sentences import groups_line
from divacli.report.terminal.tables import add_numbers, add_words, cell, listing
from divacli.ridge import NOTHING, RANDOM

_BAR = 12


def augment_summary(result: AugmentResult) -> Iterator[RenderableType]:
    """The probabilities, what each derivative was, and what left-out images say."""
    summary = result.summary
    yield from groups_line(summary)
    yield Text(
        f"{summary['n_samples']:,} images, {summary['n_classes']:,} classes, judged by: "
        f"{summary['judged_by']}; {summary['loss']} loss {summary['before']['loss']:.4f} -> "
        f"{summary['after']['loss']:.4f}, error {summary['before']['error']:.1%} -> "
        f"{summary['after']['error']:.1%} (the probabilities were fitted to these; ridge "
        f"{summary['ridge']:.3g})"
    )
    yield Text(
        "derivative of the summed loss in the weight of all copies by a transform, at equal probabilities: "
        "positive is harmful, and the steps make it rarer"
    )
    yield Text()
    yield _probabilities(result)
    yield Text()
    if result.held_out is not None:
        held_out = result.held_out
        yield Text(
            f"loss of left-out images: equal probabilities {held_out.equal:.4f}, after the steps "
            f"{held_out.stepped:.4f}, untouched images alone {held_out.untouched:.4f}"
        )
    if result.table["probability"].iloc[0] == 1:
        yield Text("no transform pays: images are best left as they are", style="bold")
    if result.outlook is not None:
        yield Text(augment_verdict(result), style="bold")


def augment_verdict(result: AugmentResult) -> str:
    """The sentences that a person acts on, and what was written; "" without a forecast."""
    outlook = result.outlook
    if outlook is None:
        return ""
    error = {name: 100 * outlook.forecast.error(name) for name in outlook.forecast.wrong}
    if result.table["probability"].iloc[0] == 1:
        return (
            "Nothing to gain by these transforms: images stay as they are. Without any the error on new "
            f"images should be {error[NOTHING]:.1f} %; with equal probabilities {error[EQUAL]:.1f}, with "
            f"random ones {error[RANDOM]:.1f}."
        )
    stays_equal = result.probabilities_are_equal
    deed = Deed(
        "transforming images with equal probabilities"
        if stays_equal
        else "transforming images with these probabilities",
        "random probabilities",
        "the images stay as they are",
        "transforming",
        "" if stays_equal else f"equal probabilities: {error[EQUAL]:.1f}",
    )
    said = outlook_sentence(outlook, deed, written=True) + "."
    if outlook.pays:
        return f"{said} These probabilities were written."
    return f"{said} They were written all the same; images as they are do no worse."


def _probabilities(result: AugmentResult) -> Table:
    table = listing(of_names=True)
    add_words(table, "transform", 24)
    for number in ("probability", "derivative"):
        add_numbers(table, number)
    table.add_column(no_wrap=True)
    for row in result.table.to_dict("records"):
        name = row["transform"]
        table.add_row(
            Text(UNTOUCHED, style="italic") if name == UNTOUCHED else cell(name),
            f"{row['probability']:.1%}",
            f"{row['derivative']:+.3g}",
            "█" * round(_BAR * row["probability"]),
        )
    return table
