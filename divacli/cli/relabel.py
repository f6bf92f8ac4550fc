"""`diva relabel`."""

from __future__ import annotations

from typing import Annotated

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
from divacli.files import require_present


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "relabel", shared=True)
    def relabel(
        data: Data,
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        threshold: Annotated[
            float,
            typer.Option(
                help="Call every label wrong that is so with more than this probability, in [0, 1).",
                rich_help_panel="Decision",
            ),
        ] = 0.5,
        budget: Annotated[
            int | None,
            typer.Option(
                help="Call so many labels wrong at the most, the most probable errors first: as many as you "
                "can look at.",
                min=0,
                rich_help_panel="Decision",
            ),
        ] = None,
    ) -> None:
        """Correct the labels that are more likely wrong than right and say how sure that is.

        Writes relabelled.csv, changes.csv, relabel.json and failed.csv. DATA may be a table of scores, also
        from a pipe: then nothing is computed twice. A label stays where no single class is more probable,
        and where the sample is an outlier.

        Examples:
        `diva relabel photos/ --model resnet50 --weights DEFAULT`

        `diva relabel diva-out/scores.csv --threshold 0.9 --budget 100`

        `diva score photos/ --checkpoint model.ts -o - | diva relabel - -o - > relabelled.csv`
        """
        if not 0 <= threshold < 1:
            raise typer.BadParameter(
                f"--threshold {threshold}: expected a probability in [0, 1), such as 0.5"
            )
        require_present(data, problem.val)
        from divacli.cli.output import Output
        from divacli.cli.session import Session
        from divacli.curate.decision import doubtful
        from divacli.curate.relabel import relabel as relabel_samples
        from divacli.errors import listed
        from divacli.report.relabel import relabel_summary

        target = Output(output, "relabelled", "changes", "relabel.json", sources=(data,))
        session = Session(network, compute, frame, problem.group)
        scores = session.scored(data, problem, features=False)
        result = relabel_samples(scores.table, threshold, budget)
        if scores.failed is not None:
            target.table("failed", scores.failed, scores.origin, part=True)
        target.table("changes", result.changes, scores.origin)
        target.json("relabel.json", {**result.summary, **scores.about})
        target.table("relabelled", result.table, scores.origin, main=True, part=True)
        target.done(relabelled=True)
        doubt = doubtful(len(result.changes), len(result.table))
        if doubt is not None:
            warn(doubt)
        emptied = result.summary["emptied"]
        if emptied:
            warn(
                f"the corrections leave no sample with the label {listed(emptied)}: look at them in the "
                "table of changes before you use the result"
            )
        if not frame.quiet:
            screen = console()
            for part in relabel_summary(result, scores.about):
                screen.print(part)
            if target.written:
                screen.print(f"wrote {', '.join(target.written)} in {target.folder}", markup=False)
