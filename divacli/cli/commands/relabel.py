"""`diva relabel`."""

from __future__ import annotations

from enum import StrEnum
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
from divacli.cli.reading_options import WITHOUT_TEST, ReadingOptions
from divacli.cli.values import require_probability
from divacli.files.existing import require_present


class DecideName(StrEnum):
    """Which labels are called wrong."""

    likely = "likely"
    balanced = "balanced"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "relabel", WITHOUT_TEST, shared=True)
    def relabel(
        data: Data,
        reading: ReadingOptions,
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        decide: Annotated[
            DecideName | None,
            typer.Option(
                help="Which labels to call wrong. likely: those that are more likely wrong than right; "
                "balanced: more for a review, at the best F1 that the model expects. Default: likely.",
                show_default=False,
                rich_help_panel="Decision",
            ),
        ] = None,
        threshold: Annotated[
            float | None,
            typer.Option(
                help="In place of --decide, call every label wrong that is so with more than this "
                "probability, in [0, 1). likely: 0.5.",
                show_default=False,
                rich_help_panel="Decision",
            ),
        ] = None,
        budget: Annotated[
            int | None,
            typer.Option(
                help="Call so many labels wrong at the most, the most probable errors first: as many as you "
                "can look at.",
                min=0,
                rich_help_panel="Decision",
            ),
        ] = None,
        force: Annotated[
            bool,
            typer.Option(
                "--force",
                help="Correct labels also where the forecast is worse than leaving them as they are.",
                rich_help_panel="Decision",
            ),
        ] = False,
    ) -> None:
        """Correct labels that are more likely wrong than right, and forecast the error on new images.

        Writes relabelled.csv, changes.csv, relabel.json and failed.csv. DATA may be a table of scores, also
        from a pipe: then nothing is computed twice. A label stays where no single class is more probable,
        and where the sample is an outlier. Where correcting does not pay, all stay unless you say --force.

        Examples:
        `diva relabel photos/ --model resnet50 --weights DEFAULT`

        `diva relabel diva-out/scores.csv --threshold 0.9 --budget 100`

        `diva relabel diva-out/scores.csv --decide balanced`

        `diva score photos/ --checkpoint model.ts -o - | diva relabel - -o - > relabelled.csv`
        """
        if decide is not None and threshold is not None:
            raise typer.BadParameter(
                f"--decide {decide.value} and --threshold {threshold:g}: expected one of them, for each is a "
                "decision; leave the other out, also of a --config file"
            )
        require_probability(threshold)
        require_present(data, problem.val)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.cli.session import loader_of, problem_of
        from divacli.curate.relabel import FILES, relabel_scored
        from divacli.curate.score import load_scores
        from divacli.curate.wrong_labels import Threshold
        from divacli.report.terminal.relabel import relabel_summary

        target = Output(output, *FILES, sources=(data,))
        loader = loader_of(network, compute, frame, problem.group)
        scores = load_scores(
            loader, reading.data(data, problem.val), problem_of(problem, val=reading.val(problem.val, data))
        )
        above: Threshold = (decide or DecideName.likely).value if threshold is None else threshold
        result = relabel_scored(scores, above, budget, force=force, progress=loader.progress)
        deliver(result, target, relabel_summary, frame, cache=compute.cache)
