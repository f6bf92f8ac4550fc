"""`diva evaluate`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import warn
from divacli.cli.options import (
    ComputeOptions,
    Data,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
)
from divacli.cli.reading_options import ReadingOptions, compared
from divacli.cli.values import require_one_stdin
from divacli.files.existing import require_present


class LearnerName(StrEnum):
    """What is trained."""

    ridge = "ridge"
    logistic = "logistic"
    finetune = "finetune"


class CurveName(StrEnum):
    """What a curve is drawn over."""

    remove = "remove"
    add = "add"


_SCORING = ("val", "loss", "validation", "around_head")
"""Options of the problem that say how samples are scored, and nothing of how learners are trained."""

_PANEL = "Evaluation"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "evaluate")
    def evaluate(
        data: Data,
        reading: ReadingOptions,
        *,
        test: Annotated[
            str | None,
            typer.Option(
                help="Held-out DATA with labels that can be trusted; or name its split by --test-split.",
                metavar="DATA",
                rich_help_panel=_PANEL,
            ),
        ] = None,
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        manifest: Annotated[
            list[str] | None,
            typer.Option(help="What is judged; repeatable.", metavar="DATA", rich_help_panel=_PANEL),
        ] = None,
        truth: Annotated[
            str | None,
            typer.Option(
                help="True labels of DATA, for an oracle: a table with path and true_label, or other DATA. "
                "Default: the column true_label of DATA, if any.",
                metavar="DATA",
                rich_help_panel=_PANEL,
            ),
        ] = None,
        learner: Annotated[
            list[LearnerName] | None,
            typer.Option(
                help="What is trained; repeatable. finetune trains the network itself. Default: ridge and "
                "logistic.",
                rich_help_panel=_PANEL,
            ),
        ] = None,
        trainable: Annotated[
            str | None,
            typer.Option(
                help="What finetune trains: last (the last block, the default), all, or the name of a part.",
                metavar="last|all|NAME",
                show_default=False,
                rich_help_panel=_PANEL,
            ),
        ] = None,
        epochs: Annotated[
            int | None,
            typer.Option(help="Of finetune. Default: 5.", min=1, show_default=False, rich_help_panel=_PANEL),
        ] = None,
        seeds: Annotated[
            int, typer.Option(help="Random choices to average over.", min=1, max=1000, rich_help_panel=_PANEL)
        ] = 5,
        curve: Annotated[
            CurveName | None,
            typer.Option(
                help="Also the test error against the fraction of DATA that is removed, or of --pool that is "
                "added: by derivative, by loss and at random.",
                rich_help_panel=_PANEL,
            ),
        ] = None,
        pool: Annotated[
            str | None,
            typer.Option(
                help="Labelled DATA that --curve add takes from, and random choices to compare an extended "
                "--manifest with.",
                metavar="DATA",
                rich_help_panel=_PANEL,
            ),
        ] = None,
        fractions: Annotated[
            str | None,
            typer.Option(
                help="Of the curve, beside 0. Default: to 0.5 by 0.05; of a pool to 1 by 0.1.",
                metavar="NUMBER,...",
                rich_help_panel=_PANEL,
            ),
        ] = None,
    ) -> None:
        """Train on a manifest and on its rivals, and compare their errors on a held-out test set.

        The rivals: everything, a random choice of the same size, and, where true labels are known, an oracle
        of the samples with the right label. With --pool, those of an extended manifest are random choices
        from the same pool, and all of it. A sentence for each learner says who won, and whether by more than
        chance. Writes evaluation.csv, evaluation.json and evaluation.svg, with --curve also curve.csv and
        curve.svg.

        Examples:
        `diva evaluate photos/ --manifest diva-out/kept.csv --test held_out/ --checkpoint model.ts`

        `diva evaluate photos/ --manifest extended.csv --pool more/ --test held_out/ --checkpoint model.ts`

        `diva evaluate photos/ --curve remove --test held_out/ --checkpoint model.ts`

        `diva evaluate photos/ --curve add --pool more/ --test held_out/ --checkpoint model.ts`
        """
        manifests = list(dict.fromkeys(manifest or []))
        if not manifests and curve is None:
            raise typer.BadParameter("give --manifest DATA, or --curve, or both")
        if curve is CurveName.add and pool is None:
            raise typer.BadParameter("--curve add takes from --pool DATA")
        if pool is not None and curve is not CurveName.add and not manifests:
            raise typer.BadParameter("--pool DATA belongs to --manifest DATA or --curve add")
        tested = reading.test(test, data)
        if tested is None:
            raise typer.BadParameter("give --test DATA, or --test-split NAME for a split of DATA")
        require_one_stdin("DATA and the options", data, test, truth, pool, problem.val, *manifests)
        shares = _fraction_values(fractions, curve)
        require_present(data, test, truth, pool, problem.val, *manifests)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.cli.session import loader_of, solve_options
        from divacli.evaluation.command import EvaluateOptions, evaluate_data, files_of
        from divacli.evaluation.inputs import Names
        from divacli.report.figures.curves import draw_evaluation
        from divacli.report.terminal.evaluation import evaluate_summary

        learners = list(dict.fromkeys(learner or (LearnerName.ridge, LearnerName.logistic)))
        names = Names(
            reading.data(data, test, pool, problem.val),
            tested,
            [reading.judged(one) for one in manifests],
            compared(truth),
            None if pool is None else reading.pool(pool),
            reading.val(problem.val, data),
        )
        how = EvaluateOptions(
            [one.value for one in learners],
            seeds,
            None if curve is None else curve.value,
            shares,
            trainable,
            epochs,
            compute.batch_size,
            compute.workers,
            compute.amp,
        )
        target = Output(output, *files_of(names, how))
        loader = loader_of(network, compute, frame, problem.group)
        options = solve_options(problem, loader)
        unused = [name for name in _SCORING if getattr(problem, name) != getattr(ProblemOptions, name)]
        if curve is None and unused:
            options_named = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
            warn(f"without --curve nothing is scored, and without effect: {options_named}")
        if LearnerName.finetune not in learners and (trainable is not None or epochs is not None):
            warn("--trainable and --epochs are without effect without --learner finetune")
        result = evaluate_data(loader, names, options, how)
        draw_evaluation(result, target.files)
        deliver(result, target, evaluate_summary, frame, cache=compute.cache)


def _fraction_values(text: str | None, curve: CurveName | None) -> list[float] | None:
    """Parse fractions, separated by commas, into ascending order; None for the default ones.

    Raises:
        typer.BadParameter: They are no fractions of what the curve is of.
    """
    if curve is None or text is None:
        return None
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = []
    whole = curve is CurveName.add
    if not values or not all(0 < value < 1 or (whole and value == 1) for value in values):
        expected = "(0, 1]" if whole else "(0, 1)"
        raise typer.BadParameter(f"--fractions {text!r}: expected numbers in {expected}, such as 0.1,0.2,0.3")
    return values
