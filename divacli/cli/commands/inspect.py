"""`diva inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import RichProgress
from divacli.cli.options import Data, FrameOptions, OutputOptions
from divacli.cli.reading_options import WITHOUT_OTHERS, ReadingOptions
from divacli.files.existing import require_present


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "inspect", without=("report", *WITHOUT_OTHERS))
    def inspect(
        data: Data,
        reading: ReadingOptions,
        output: OutputOptions,
        frame: FrameOptions,
        look_at: Annotated[
            int, typer.Option(help="Images to open, evenly spread.", min=1, rich_help_panel="Look")
        ] = 500,
    ) -> None:
        """Say what DATA is taken for, before anything is computed.

        Layout, classes, splits, columns, images, what is left out, what looks odd, and the options that other
        commands need. Writes inspect.json and classes.csv.

        Examples:
        `diva inspect photos/`

        `diva inspect train.csv --path-column image_id --label-column diagnosis --root train_images/`
        """
        require_present(data)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.curate.inspect import FILES, inspect_data
        from divacli.report.terminal.inspect import inspect_summary

        target = Output(output, *FILES)
        result = inspect_data(reading.data(data), RichProgress(frame), look_at)
        deliver(result, target, inspect_summary, frame)
