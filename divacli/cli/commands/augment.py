"""`diva augment`."""

from __future__ import annotations

from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import note
from divacli.cli.options import (
    ComputeOptions,
    Data,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
    WalkOptions,
)
from divacli.cli.reading_options import WITHOUT_TEST, ReadingOptions
from divacli.cli.values import step_size_value
from divacli.errors import ModelError
from divacli.files.existing import require_present

_PANEL = "Augmentation"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "augment", WITHOUT_TEST)
    def augment(
        data: Data,
        reading: ReadingOptions,
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
        from divacli.cli.session import loader_of, solve_options
        from divacli.curate.augment import FILES, AugmentOptions, augment_data
        from divacli.features.transform_names import parse_transform, require_different, transform_note
        from divacli.report.terminal.augment import augment_summary
        from divacli.solve.options import ROBUST_CROSS_ENTROPY

        # Before the files are run.
        for sentence in dict.fromkeys(map(transform_note, transform)):
            if sentence is not None:
                note(sentence, frame)
        named = [parse_transform(text) for text in transform]
        try:
            require_different(named)
        except ModelError as error:
            raise typer.BadParameter(f"--transform {error.got}; expected {error.expected}") from error
        target = Output(output, *FILES)
        loader = loader_of(network, compute, frame, problem.group)
        options = solve_options(problem, loader, ROBUST_CROSS_ENTROPY, robust=True)
        how = AugmentOptions(size, walk.steps, walk.folds)
        result = augment_data(
            loader, reading.data(data, problem.val), named, options, how, reading.val(problem.val, data)
        )
        deliver(result, target, augment_summary, frame, cache=compute.cache)
