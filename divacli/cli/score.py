"""`diva score`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from divacli.cli.command import command, console, warn
from divacli.cli.options import (
    ComputeOptions,
    Data,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
)
from divacli.cli.processes import leads
from divacli.files import require_present

if TYPE_CHECKING:
    from divacli.cli.output import Output
    from divacli.curate.duplicates import Duplicates
    from divacli.curate.score import ScoreResult


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
        from divacli.curate.harm import harm_by
        from divacli.curate.provenance import left_out
        from divacli.curate.record import save_record
        from divacli.curate.score import score as score_samples
        from divacli.curate.verify import verify as verify_result
        from divacli.embed import read_data
        from divacli.errors import OutputError
        from divacli.report.harm import harm_summary
        from divacli.report.terminal import score_summary

        target = Output(output)
        session = Session(network, compute, frame, problem.group)
        options = session.solve_options(problem)
        opened = read_data(data)
        session.use(opened, by or ())
        samples, validation = session.load_both(opened, problem.val)
        result = score_samples(samples, options, validation)
        checked = verify_result(result, verify, options.seed) if verify else None
        harm = harm_by(result, by, session.progress) if by else None
        copies = session.duplicates_of(samples)
        if harm is not None:
            target.records("harm", harm.table)
        write_scores(target, result, copies)
        warning = copies.warning(result.solution.task.groups)
        if warning is not None:
            warn(warning)
        try:
            if leads():
                save_record(result, options, session.cache)
        except OutputError as error:
            warn(f"{error.got}: diva prune on these scores will make no refit")
        if result.summary["n_unjudged"]:
            warn(
                f"the labels of {result.summary['n_unjudged']:,} samples cannot be judged: no other sample "
                "(or group) has their class"
            )
        if result.solution.path is not None and result.solution.path.at_edge:
            warn(
                f"the {left_out(result.summary)} loss is smallest at the last ridge that was tried, "
                f"{result.solution.ridge:.3g}: copies among the samples pull it down, features that say "
                "nothing of the labels push it up. Look for them, or choose --ridge NUMBER yourself"
            )
        if not frame.quiet:
            screen = console()
            for part in score_summary(result, checked):
                screen.print(part)
            for part in () if harm is None else harm_summary(harm):
                screen.print(part)
            if target.written:
                seconds = result.summary["seconds"]
                screen.print(
                    f"wrote {', '.join(target.written)} in {target.folder} "
                    f"(embed {seconds['embed']:.1f} s, solve {seconds['solve']:.1f} s)",
                    markup=False,
                )


def write_scores(target: Output, result: ScoreResult, copies: Duplicates) -> None:
    """Write the tables and the summary of a result."""
    origin = result.samples.manifest.folder
    target.table("failed", result.samples.failed, origin)
    target.table("duplicates", copies.table, origin)
    target.json("summary.json", {**result.summary, **copies.counts})
    target.table("scores", result.table, origin, main=True)
