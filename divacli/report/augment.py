"""What a person sees of the probabilities of transforms, in the terminal and as YAML."""

from __future__ import annotations

from collections.abc import Iterator

import yaml
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from divacli.curate.augment import UNTOUCHED, AugmentResult
from divacli.report.tables import add_numbers, add_words, cell, listing
from divacli.report.terminal import groups_line

_BAR = 12
_HEAD = """\
# How often each transform of the training images is worth it, as `diva augment` found.
# untouched: probability that an image stays as it is. snippet: the same as code.
"""


def augment_summary(result: AugmentResult) -> Iterator[RenderableType]:
    """The probabilities, what each derivative was, and what left-out images say."""
    summary = result.summary
    yield from groups_line(summary)
    yield Text(
        f"{summary['n_samples']:,} images, {summary['n_classes']:,} classes, judged by: "
        f"{summary['judged_by']}; {summary['loss']} loss {summary['before']['loss']:.4f} -> "
        f"{summary['after']['loss']:.4f}, error {summary['before']['error']:.1%} -> "
        f"{summary['after']['error']:.1%} (ridge {summary['ridge']:.3g})"
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


def augmentation_yaml(result: AugmentResult) -> str:
    """The text of `augmentation.yaml`."""
    return _HEAD + yaml.dump(result.document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


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


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
