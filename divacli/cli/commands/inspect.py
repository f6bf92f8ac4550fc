"""`diva inspect`."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import RichProgress
from divacli.cli.options import Data, FrameOptions, OutputOptions
from divacli.cli.reading_options import WITHOUT_OTHERS, ReadingOptions
from divacli.cli.values import path_value
from divacli.files.existing import require_present

_Data = Annotated[str | None, *typing.get_args(Data)[1:]]
"""DATA, which may be left out."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "inspect", without=("report", *WITHOUT_OTHERS))
    def inspect(
        reading: ReadingOptions,
        output: OutputOptions,
        frame: FrameOptions,
        data: _Data = None,
        look_at: Annotated[
            int, typer.Option(help="Images to open, evenly spread.", min=1, rich_help_panel="Look")
        ] = 500,
        checkpoint: Annotated[
            Path | None,
            typer.Option(
                help="In place of DATA: a file of weights, an archive, or a Hugging Face model's folder.",
                metavar="FILE",
                parser=path_value,
                rich_help_panel="Look",
            ),
        ] = None,
    ) -> None:
        """Say what DATA or a checkpoint is taken for, before anything is computed.

        Of DATA: layout, classes, splits, columns, images, what is left out, what looks odd, and the options
        that other commands need. Writes inspect.json and classes.csv. Of a checkpoint: the weights in it,
        which network they are of, what it states of its training, and the command that uses it. Writes
        inspect.json and entries.csv.

        Examples:
        `diva inspect photos/`

        `diva inspect train.csv --path-column image_id --label-column diagnosis --root train_images/`

        `diva inspect --checkpoint best.pth`
        """
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output

        if (data is None) == (checkpoint is None):
            raise typer.BadParameter("expected DATA, or --checkpoint FILE, and not both")
        if checkpoint is not None:
            from divacli.curate.inspect_checkpoint import FILES as OF_CHECKPOINT
            from divacli.curate.inspect_checkpoint import inspect_checkpoint
            from divacli.report.terminal.inspect_checkpoint import checkpoint_summary

            target = Output(output, *OF_CHECKPOINT)
            deliver(inspect_checkpoint(checkpoint), target, checkpoint_summary, frame)
            return
        assert data is not None
        require_present(data)
        from divacli.curate.inspect import FILES, inspect_data
        from divacli.report.terminal.inspect import inspect_summary

        target = Output(output, *FILES)
        result = inspect_data(reading.data(data), RichProgress(frame), look_at)
        deliver(result, target, inspect_summary, frame)
