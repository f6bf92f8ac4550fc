"""`diva prune`."""

from __future__ import annotations

from enum import StrEnum
from math import isnan
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


class Criterion(StrEnum):
    """What samples are dropped by."""

    derivative = "derivative"
    loo_loss = "loo_loss"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "prune")
    def prune(
        data: Data,
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        keep: Annotated[
            float | None,
            typer.Option(help="Keep this fraction of the samples, in (0, 1].", rich_help_panel="Decision"),
        ] = None,
        threshold: Annotated[
            float | None,
            typer.Option(help="Drop every sample whose value is at least this.", rich_help_panel="Decision"),
        ] = None,
        by: Annotated[
            Criterion, typer.Option(help="The value to drop by.", rich_help_panel="Decision")
        ] = Criterion.derivative,
        stratify: Annotated[
            bool,
            typer.Option("--stratify", help="Keep the fraction of every class.", rich_help_panel="Decision"),
        ] = False,
    ) -> None:
        """Drop the most harmful samples and say what an exact refit without them predicts.

        Writes kept.csv, dropped.csv, failed.csv and prune.json. DATA may be a table of scores, also
        from a pipe: then nothing is computed twice.

        Examples:
        `diva prune photos/ --keep 0.9 --model resnet50 --weights DEFAULT`

        `diva prune diva-out/scores.csv --threshold 0`

        `diva score photos/ --checkpoint model.ts -o - | diva prune - --keep 0.9 -o - > kept.csv`
        """
        if (keep is None) == (threshold is None):
            raise typer.BadParameter("give one of --keep FRACTION and --threshold VALUE")
        if keep is not None and not 0 < keep <= 1:
            raise typer.BadParameter(f"--keep {keep}: expected a fraction in (0, 1], such as 0.9")
        if stratify and keep is None:
            raise typer.BadParameter("--stratify is for --keep: a threshold is the same for every class")
        if threshold is not None and isnan(threshold):
            raise typer.BadParameter(f"--threshold {threshold}: expected a number, such as 0")
        from divacli.cli.output import Output
        from divacli.cli.session import Session
        from divacli.curate.provenance import grouping, left_out
        from divacli.curate.prune import choose_kept, split
        from divacli.report.terminal import prune_summary

        target = Output(output)
        session = Session(network, compute, frame, problem.group)
        scores = session.scored(data, problem)
        choice = choose_kept(scores.table, keep=keep, threshold=threshold, by=by.value, stratify=stratify)
        prediction = scores.predict(choice.kept)
        about = {"group": None, "n_groups": None}
        if scores.samples is not None and scores.record is not None:
            about = grouping(scores.samples.manifest, scores.record.options)
        kept, dropped = split(scores.table, choice.kept, by.value)
        if scores.failed is not None:
            target.table("failed", scores.failed, scores.origin)
        target.table("dropped", dropped, scores.origin)
        target.json(
            "prune.json",
            {
                "n_kept": len(kept),
                "n_dropped": len(dropped),
                "by": by.value,
                "keep": keep,
                "threshold": threshold,
                "stratify": stratify,
                **about,
                "prediction": None if prediction is None else prediction.as_dict(),
            },
        )
        target.table("kept", kept, scores.origin, main=True)
        if prediction is None:
            warn(
                f"no refit was made: {scores.missing}. The decision is complete; to see what it predicts, "
                "give the images and the network instead"
            )
        elif prediction.worse:
            warn(
                f"without the dropped samples the {left_out(about)} loss over all original samples rises by "
                f"{prediction.after.loss[0] - prediction.before.loss[0]:.2g} from "
                f"{prediction.before.loss[0]:.4g}: keeping everything is better by that measure; drop fewer"
            )
        if not frame.quiet:
            screen = console()
            for part in prune_summary(choice, prediction, about):
                screen.print(part)
            if target.written:
                screen.print(f"wrote {', '.join(target.written)} in {target.folder}", markup=False)
