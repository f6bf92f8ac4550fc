"""`diva evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

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
from divacli.files.present import require_present

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from divacli.cli.output import Output
    from divacli.evaluation.curve import Curve
    from divacli.evaluation.evaluate import Evaluation
    from divacli.evaluation.given import Given
    from divacli.evaluation.learners import Learner
    from divacli.progress import Progress
    from divacli.solve.pose import SolveOptions


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
_FRACTIONS = {
    CurveName.remove: [step / 20 for step in range(1, 11)],
    CurveName.add: [step / 10 for step in range(1, 11)],
}


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "evaluate")
    def evaluate(
        data: Data,
        test: Annotated[
            str,
            typer.Option(
                help="Held-out DATA with labels that can be trusted.", metavar="DATA", rich_help_panel=_PANEL
            ),
        ],
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
        if [data, test, truth, pool, problem.val, *manifests].count("-") > 1:
            raise typer.BadParameter("only one of DATA and the options can be standard input (-)")
        shares = _fraction_values(fractions, curve)
        require_present(data, test, truth, pool, problem.val, *manifests)
        from divacli.cli.output import Output
        from divacli.cli.session import Session
        from divacli.evaluation.evaluate import evaluate as evaluate_manifests
        from divacli.evaluation.given import Names, load_given
        from divacli.evaluation.learners import LEARNERS
        from divacli.evaluation.rivals import rivals
        from divacli.solve.provenance import grouping

        tables = [*(["evaluation"] if manifests else []), *([] if curve is None else ["curve"])]
        target = Output(output, *tables, "evaluation.json")
        session = Session(network, compute, frame, problem.group)
        options = session.solve_options(problem)
        unused = [name for name in _SCORING if getattr(problem, name) != getattr(ProblemOptions, name)]
        if curve is None and unused:
            options_named = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
            warn(f"without --curve nothing is scored, and without effect: {options_named}")
        names = list(dict.fromkeys(learner or (LearnerName.ridge, LearnerName.logistic)))
        finetunes = LearnerName.finetune in names
        if not finetunes and (trainable is not None or epochs is not None):
            warn("--trainable and --epochs are without effect without --learner finetune")
        given = load_given(
            session,
            Names(data, test, manifests, truth, pool, problem.val),
            warn,
            images_required=finetunes,
        )
        learners: list[Learner] = [LEARNERS[name.value](options) for name in names if name.value in LEARNERS]
        if finetunes:
            # Only here: it needs torchvision, which is slow to import.
            from divacli.evaluation.finetune_learner import FinetuneLearner
            from divacli.training.trainee import StepOptions

            finetune = FinetuneLearner(
                session.choice,
                options,
                trainable or FinetuneLearner.trainable,
                epochs or FinetuneLearner.epochs,
                compute.batch_size or FinetuneLearner.batch_size,
                compute.workers,
                StepOptions(amp=compute.amp),
            )
            finetune.check()
            learners.append(finetune)
        draws = range(problem.seed, problem.seed + seeds)
        evaluation = drawn = None
        if manifests:
            sets = rivals(given.data, given.manifests, draws, given.right, given.addable(), warn)
            evaluation = evaluate_manifests(sets, given.test, learners, draws, session.progress)
        if curve is not None:
            drawn = _curve(curve, given, options, shares, learners, draws, session.progress)
        about = {
            "n_test": len(given.test),
            "n_test_classes": len(given.test.manifest.classes),
            "n_test_shared": given.shared,
            "learners": [one.name for one in learners],
            "seeds": list(draws),
            **grouping(given.data.manifest, options),
        }
        _write(target, evaluation, drawn, about)
        target.done()
        if not frame.quiet:
            screen = console()
            for part in _shown(evaluation, drawn, about):
                screen.print(part)
            if target.written:
                screen.print(f"wrote {', '.join(target.written)} in {target.folder}", markup=False)


def _fraction_values(text: str | None, curve: CurveName | None) -> list[float]:
    """Parse fractions, separated by commas, into ascending order; of no text those that are the default.

    Raises:
        typer.BadParameter: They are no fractions of what the curve is of.
    """
    if curve is None:
        return []
    if text is None:
        return _FRACTIONS[curve]
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = []
    whole = curve is CurveName.add
    if not values or not all(0 < value < 1 or (whole and value == 1) for value in values):
        expected = "(0, 1]" if whole else "(0, 1)"
        raise typer.BadParameter(f"--fractions {text!r}: expected numbers in {expected}, such as 0.1,0.2,0.3")
    return values


def _curve(
    name: CurveName,
    given: Given,
    options: SolveOptions,
    fractions: list[float],
    learners: list[Learner],
    seeds: range,
    progress: Progress,
) -> Curve:
    """Remove from everything, or add from the pool, and test."""
    from divacli.curate.sample_scores import score
    from divacli.evaluation.curve import additions, by_derivative, by_loss, measure_curve, removals

    if name is CurveName.remove or given.pool is None:
        points = removals(score(given.data, options, given.validation, progress), fractions, seeds)
        verb = "removed"
    else:
        orders = {"derivative": by_derivative(options, given.validation, progress), "loss": by_loss(options)}
        points = additions(given.data, given.pool, orders, fractions, seeds)
        verb = "added"
    return measure_curve(verb, given.data, points, given.test, learners, seeds, progress)


def _write(
    target: Output, evaluation: Evaluation | None, curve: Curve | None, about: dict[str, object]
) -> None:
    """Write plots and summary, then the tables, of which that of the manifests is the main one."""
    from divacli.report.verdicts import sentences

    if target.folder is not None:
        from divacli.report.figures.curves import curve_plot, evaluation_plot

        if evaluation is not None:
            target.bytes("evaluation.svg", evaluation_plot(evaluation))
        if curve is not None:
            target.bytes("curve.svg", curve_plot(curve))
    content = dict(about)
    if evaluation is not None:
        content["evaluation"] = _records(evaluation.summary)
        content["verdicts"] = [
            {**asdict(verdict), "more_than_chance": verdict.more_than_chance}
            for verdict in evaluation.verdicts
        ]
        content["sentence"] = sentences(evaluation)
    if curve is not None:
        content["curve"] = {"of": curve.verb, "results": _records(curve.summary)}
    target.json("evaluation.json", content)
    # The tables name no files, so nothing in them depends on where they lie.
    if curve is not None:
        target.table("curve", curve.table, target.base, main=evaluation is None)
    if evaluation is not None:
        target.table("evaluation", evaluation.table, target.base, main=True)


def _records(summary: pd.DataFrame) -> list[dict[str, object]]:
    """Rows for JSON, which has no NaN."""
    return [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in summary.to_dict("records")
    ]


def _shown(
    evaluation: Evaluation | None, curve: Curve | None, about: dict[str, object]
) -> Iterator[RenderableType]:
    from divacli.report.terminal.evaluation import curve_summary, evaluation_summary
    from divacli.report.terminal.tables import groups_line
    from divacli.report.verdicts import winners

    yield from groups_line(about)
    if evaluation is not None:
        yield from evaluation_summary(evaluation)
        yield from winners(evaluation)
    if curve is not None:
        yield from curve_summary(curve)
