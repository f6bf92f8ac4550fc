"""`diva score`."""

from __future__ import annotations

from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import console, warn
from divacli.cli.options import (
    ComputeOptions,
    Data,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
)
from divacli.cli.processes import leads
from divacli.files.present import require_present


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "score", shared=True)
    def score(
        data: Data,
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
        from divacli.cli.output import Output
        from divacli.cli.session import Session
        from divacli.curate.score import FILES, remember, score_data
        from divacli.curate.verify import verify as verify_result
        from divacli.embed import read_data
        from divacli.report.terminal.harm import harm_summary
        from divacli.report.terminal.score import score_summary

        target = Output(output, *FILES, sources=(data,))
        session = Session(network, compute, frame, problem.group)
        options = session.solve_options(problem)
        scoring = score_data(session, read_data(data), options, problem.val, by or ())
        result = scoring.result
        checked = verify_result(result, verify, options.seed) if verify else None
        scoring.write(target)
        target.done()
        forgotten = remember(scoring, session) if leads() else None
        for warning in (*scoring.warnings(), *([forgotten] if forgotten else [])):
            warn(warning)
        if not frame.quiet:
            screen = console()
            for part in score_summary(result, checked):
                screen.print(part)
            for part in () if scoring.harm is None else harm_summary(scoring.harm):
                screen.print(part)
            if target.written:
                seconds = result.summary["seconds"]
                screen.print(
                    f"wrote {', '.join(target.written)} in {target.folder} "
                    f"(embed {seconds['embed']:.1f} s, solve {seconds['solve']:.1f} s)",
                    markup=False,
                )
