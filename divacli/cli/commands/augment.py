"""`diva augment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import note
from divacli.cli.options import (
    ComputeOptions,
    Data,
    FrameOptions,
    LossName,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
    WalkOptions,
)
from divacli.cli.values import step_size_value
from divacli.files.present import require_present

if TYPE_CHECKING:
    from divacli.embed.augmentation import NamedTransform

_PANEL = "Augmentation"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "augment")
    def augment(
        data: Data,
        transform: Annotated[
            list[str],
            typer.Option(
                help="hflip, rotate:15, colorjitter:0.4, any class of torchvision.transforms.v2, "
                "or FILE.py:NAME (which runs that file); repeatable.",
                metavar="NAME[:NUMBER]",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        walk: WalkOptions,
    ) -> None:
        """Say how often each transform of the images is worth it.

        Embeds a transformed copy of every image for each --transform, and finds the probabilities that lower
        the loss of untouched images. Forecasts what they do to the error on new images. Writes
        augmentation.yaml with a snippet for torchvision.transforms.v2, augment.json and failed.csv.

        Examples:
        `diva augment photos/ --transform hflip --transform rotate:15 --checkpoint model.ts`

        `diva augment photos/ --transform RandAugment --transform aug.py:change --checkpoint model.ts`
        """
        size = step_size_value(walk.step_size)
        require_present(data, problem.val)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.cli.session import Session
        from divacli.curate.augment import FILES, AugmentOptions, augment_data
        from divacli.embed import read_data
        from divacli.embed.transform_names import parse_transform, transform_note
        from divacli.report.terminal.augment import augment_summary

        # Before the files are run.
        for sentence in dict.fromkeys(map(transform_note, transform)):
            if sentence is not None:
                note(sentence, frame)
        named = [parse_transform(text) for text in transform]
        _require_different(named)
        target = Output(output, *FILES)
        session = Session(network, compute, frame, problem.group)
        options = session.solve_options(problem, LossName.robust_cross_entropy, robust=True)
        how = AugmentOptions(size, walk.steps, walk.folds)
        result = augment_data(session, read_data(data), named, options, how, problem.val)
        deliver(result, target, augment_summary, frame, cache=compute.cache)


def _require_different(transforms: list[NamedTransform]) -> None:
    """Refuse a transform twice, for each would be found half as useful as it is, and two files of one name.

    Raises:
        typer.BadParameter: Which ones.
    """
    names: dict[str, str] = {}
    files: dict[str, Path] = {}
    for named in transforms:
        if named.effect in names:
            raise typer.BadParameter(
                f"--transform {named.name}: the same as {names[named.effect]}; expected different transforms"
            )
        names[named.effect] = named.name
        if named.source is not None:
            path = named.source.path
            other = files.setdefault(path.stem, path)
            if other.resolve() != path.resolve():
                raise typer.BadParameter(
                    f"--transform {named.name}: {other} and {path} would both be imported as {path.stem}; "
                    "expected files of different names"
                )
