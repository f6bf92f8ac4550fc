"""`diva votes`."""

from __future__ import annotations

from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.options import (
    ComputeOptions,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
)
from divacli.cli.reading_options import WITHOUT_OTHERS, ReadingOptions
from divacli.files.existing import require_present

_PANEL = "Votes"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "votes", without=("val", "loss", "validation", "around_head", "report", *WITHOUT_OTHERS))
    def votes(
        data: Annotated[
            str,
            typer.Argument(
                help="A .csv, .tsv, .jsonl or .parquet with path,label, one row for each vote; - for such a "
                "table on standard input.",
                metavar="VOTES",
                show_default=False,
            ),
        ],
        reading: ReadingOptions,
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        annotator: Annotated[
            str | None,
            typer.Option(
                help="Column of VOTES that names who gave each vote; none to take all for those of one "
                "annotator. Default: annotator, where there is such a column.",
                metavar="COLUMN",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ] = None,
        budget: Annotated[
            int | None,
            typer.Option(
                help="List so many images to look at once more at the most: as many as you can look at.",
                min=0,
                rich_help_panel=_PANEL,
            ),
        ] = None,
    ) -> None:
        """Find one label for each image from several votes and its features, and how good each annotator is.

        Writes consensus.csv, again.csv, votes.json and failed.csv, with a column of annotators also
        annotators.csv. again.csv has the images that one more vote may change, the most promising first.

        Examples:
        `diva votes votes.csv --model resnet50 --weights DEFAULT`

        `diva votes votes.csv --checkpoint model.ts --annotator worker --budget 200`

        `diva votes votes.csv --checkpoint model.ts -o - | diva score - --checkpoint model.ts`
        """
        require_present(data)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.cli.session import loader_of, solve_options
        from divacli.curate.votes import FILES, votes_data
        from divacli.report.terminal.votes import votes_summary

        target = Output(output, *FILES, sources=(data,))
        loader = loader_of(network, compute, frame, problem.group)
        options = solve_options(problem, loader)
        result = votes_data(loader, reading.data(data), options, annotator, budget)
        deliver(result, target, votes_summary, frame)
