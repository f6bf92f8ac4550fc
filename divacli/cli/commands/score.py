"""`diva score`."""

from __future__ import annotations

from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.options import (
    ComputeOptions,
    Data,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
)
from divacli.cli.processes import leads
from divacli.cli.reading_options import WITHOUT_TEST, ReadingOptions
from divacli.files.existing import require_present


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "score", WITHOUT_TEST, shared=True)
    def score(
        data: Data,
        reading: ReadingOptions,
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        verify: Annotated[
            int,
            typer.Option(
                help="Compare this many random samples with true refits.", min=0, rich_help_panel="Problem"
            ),
        ] = 0,
        by: Annotated[
            list[str] | None,
            typer.Option(
                help="Sum derivatives over each class, pair (given -> suggested label) or value of a column "
                "such as annotator, and refit without those that matter most; can be repeated.",
                metavar="class|pair|COLUMN",
                show_default=False,
                rich_help_panel="Problem",
            ),
        ] = None,
    ) -> None:
        """Rank every sample by what it does to the validation loss, most harmful first.

        Writes scores.csv, duplicates.csv, summary.json and failed.csv, with --by also harm.csv. A positive
        derivative is harmful; removing a sample changes the summed loss by about minus its derivative.

        Examples:
        `diva score photos/ --model resnet50 --weights DEFAULT`

        `diva score labels.csv --model mobilenet_v2 --checkpoint best.pth --out scores/`

        `diva score labels.csv --checkpoint model.ts --by annotator --by class`
        """
        require_present(data, problem.val)
        from divacli.cli.deliver import WROTE, deliver
        from divacli.cli.output import Output
        from divacli.cli.session import loader_of, solve_options
        from divacli.curate.score import FILES, remember, score_data
        from divacli.report.terminal.score import scoring_summary

        target = Output(output, *FILES, sources=(data,))
        loader = loader_of(network, compute, frame, problem.group)
        options = solve_options(problem, loader)
        scoring = score_data(
            loader, reading.data(data, problem.val), options, reading.val(problem.val, data), by or (), verify
        )
        forgotten = remember(scoring, loader) if leads() else None
        seconds = scoring.result.summary["seconds"]
        took = f" (embed {seconds['embed']:.1f} s, solve {seconds['solve']:.1f} s)"
        also = [] if forgotten is None else [forgotten]
        deliver(scoring, target, scoring_summary, frame, cache=compute.cache, also=also, wrote=WROTE + took)
