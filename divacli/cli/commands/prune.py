"""`diva prune`."""

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


class Rule(StrEnum):
    """What samples are dropped by."""

    auto = "auto"
    balanced = "balanced"
    coverage = "coverage"
    easy = "easy"
    random = "random"
    derivative = "derivative"
    loo_loss = "loo_loss"


_COLUMNS = (Rule.derivative, Rule.loo_loss)
"""Rules that are columns of the scores, and so have a threshold."""


def keep_value(text: str | None) -> float | None:
    """Parse the fraction of `--keep`; None for `auto` and where nothing was given.

    Raises:
        typer.BadParameter: It is neither `auto` nor a fraction in (0, 1].
    """
    if text is None or text == "auto":
        return None
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise typer.BadParameter(f"--keep {text}: expected auto, or a fraction in (0, 1], such as 0.9")
    return fraction


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "prune", WITHOUT_TEST, shared=True)
    def prune(
        data: Data,
        reading: ReadingOptions,
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        keep: Annotated[
            str | None,
            typer.Option(
                help="Keep this fraction of the samples, in (0, 1]; auto: drop labels that are more likely "
                "wrong than right, and outliers.",
                metavar="FRACTION|auto",
                rich_help_panel="Decision",
            ),
        ] = None,
        threshold: Annotated[
            float | None,
            typer.Option(
                help="Drop every sample whose value is at least this; with --keep auto, every label that is "
                "wrong with more than this probability. Default with auto: 0.5.",
                show_default=False,
                rich_help_panel="Decision",
            ),
        ] = None,
        budget: Annotated[
            int | None,
            typer.Option(
                help="With --keep auto, drop so many at the most.", min=0, rich_help_panel="Decision"
            ),
        ] = None,
        by: Annotated[
            Rule,
            typer.Option(
                help="The rule. balanced: wrong labels, then at random, most of large classes; coverage: "
                "then of small leverage; easy: then hard ones; random; derivative, loo_loss: the largest. "
                "auto: the rule with the best forecast.",
                rich_help_panel="Decision",
            ),
        ] = Rule.auto,
        stratify: Annotated[
            bool,
            typer.Option("--stratify", help="Keep the fraction of every class.", rich_help_panel="Decision"),
        ] = False,
        force: Annotated[
            bool,
            typer.Option(
                "--force",
                help="Write the choice also where its forecast is worse than keeping everything.",
                rich_help_panel="Decision",
            ),
        ] = False,
    ) -> None:
        """Drop samples that are least missed, wrong labels first, and forecast the error on new images.

        Where dropping does not pay, everything is kept unless you say --force. Writes kept.csv,
        dropped.csv, failed.csv and prune.json. DATA may be a table of scores, also from a pipe: then nothing
        is computed twice.

        Examples:
        `diva prune photos/ --keep 0.9 --model resnet50 --weights DEFAULT`

        `diva prune diva-out/scores.csv --keep auto`

        `diva score photos/ --checkpoint model.ts -o - | diva prune - --keep 0.9 -o - > kept.csv`
        """
        fraction = keep_value(keep)
        automatic = keep == "auto"
        if keep is None and threshold is None:
            raise typer.BadParameter("give one of --keep FRACTION, --keep auto and --threshold VALUE")
        if fraction is not None and threshold is not None:
            raise typer.BadParameter("give one of --keep FRACTION and --threshold VALUE")
        if stratify and fraction is None:
            raise typer.BadParameter(
                "--stratify is for --keep FRACTION: a threshold is the same for every class"
            )
        if automatic and by is not Rule.auto:
            raise typer.BadParameter(
                f"--by {by.value}: --keep auto decides by the probability of a wrong label"
            )
        if threshold is not None and not automatic and by not in (Rule.auto, *_COLUMNS):
            raise typer.BadParameter(f"--by {by.value} has no --threshold: give --keep FRACTION")
        if budget is not None and not automatic:
            raise typer.BadParameter("--budget is for --keep auto")
        if automatic:
            require_probability(threshold)
        require_present(data, problem.val)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.cli.session import loader_of, problem_of
        from divacli.curate.prune import FILES, prune_automatically, prune_by
        from divacli.curate.score import load_scores
        from divacli.report.terminal.prune import prune_summary, pruning_verdict

        target = Output(output, *FILES, sources=(data,))
        loader = loader_of(network, compute, frame, problem.group)
        scores = load_scores(
            loader, reading.data(data, problem.val), problem_of(problem, val=reading.val(problem.val, data))
        )
        if automatic:
            pruning = prune_automatically(scores, threshold, budget, force=force, progress=loader.progress)
        else:
            pruning = prune_by(
                scores,
                keep=fraction,
                threshold=threshold,
                by=by.value,
                stratify=stratify,
                force=force,
                progress=loader.progress,
            )
        # A quiet command says all the same that it did not do what was asked for.
        also = [pruning_verdict(pruning)] if frame.quiet and not pruning.written else []
        deliver(pruning, target, prune_summary, frame, cache=compute.cache, also=also)
