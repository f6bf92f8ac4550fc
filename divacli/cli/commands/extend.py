"""`diva extend`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from divacli.cli.command import command
from divacli.cli.console import console, warn
from divacli.cli.options import (
    ChoiceOptions,
    ComputeOptions,
    Data,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
)
from divacli.files.present import require_present

if TYPE_CHECKING:
    from divacli.cli.output import Output
    from divacli.curate.extend import ExtendResult

_PANEL = "Choice"

TABLES = ("extended", "selected", "remaining", "history")
"""What is always written, and by diva aggregate too."""


class PoolLabels(StrEnum):
    """What the labels of a pool mean."""

    given = "given"
    none = "none"


class Rule(StrEnum):
    """What a choice goes by."""

    auto = "auto"
    coreset = "coreset"
    balanced = "balanced"
    derivative = "derivative"
    random = "random"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "extend", shared=True)
    def extend(
        data: Data,
        pool: Annotated[
            str,
            typer.Option(
                help="Candidates: any DATA, with labels or without.", metavar="DATA", rich_help_panel=_PANEL
            ),
        ],
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        choice: ChoiceOptions,
        pool_labels: Annotated[
            PoolLabels,
            typer.Option(help="none: ignore the pool's labels or folders.", rich_help_panel=_PANEL),
        ] = PoolLabels.given,
        by: Annotated[
            Rule,
            typer.Option(
                help="coreset: what brings the fit closest to one on all that can be trusted. balanced: at "
                "random, small classes first. derivative: what lowers the loss of DATA or --val. random. "
                "auto: what wins in K folds; with --val or without labels the derivative, or random.",
                rich_help_panel=_PANEL,
            ),
        ] = Rule.auto,
    ) -> None:
        """Choose from a pool the samples that DATA lacks.

        The choice serves what DATA and the pool show, or --val: a new camera, a new shop. Writes
        extended.csv (DATA and what was chosen), selected.csv, remaining.csv with the reasons, history.csv,
        extend.json and failed.csv. A pool without labels is ranked by the expected derivative.

        Examples:
        `diva extend core/ --pool extra/ --budget 500 --checkpoint model.ts`

        `diva extend labelled.csv --pool unlabelled/ --budget 100 --model resnet50 --weights DEFAULT`
        """
        wanted = budget_value(choice.budget)
        if [data, pool, problem.val].count("-") > 1:
            raise typer.BadParameter("only one of DATA, --pool and --val can be standard input (-)")
        require_present(data, pool, problem.val)
        from divacli.cli.output import Output
        from divacli.cli.session import Session
        from divacli.curate.extend import ExtendOptions
        from divacli.curate.extend import extend as extend_core
        from divacli.report.terminal.extend import extend_summary

        target = Output(output, *TABLES, "extend.json", sources=(data, pool))
        session = Session(network, compute, frame, problem.group)
        options = session.solve_options(problem)
        core, candidates, validation = session.load_pool(
            data, pool, problem.val, labels_given=pool_labels is PoolLabels.given
        )
        if isinstance(wanted, float):
            wanted = max(1, round(wanted * len(candidates)))
        rule = None if by is Rule.auto else by.value
        how = ExtendOptions(wanted, choice.refit_every, choice.min_trust, rule)
        result = extend_core(core, candidates, options, how, validation, session.progress)
        write_extension(target, result, "extend.json", result.summary)
        target.done()
        if result.unknown:
            warn(f"no forecast was made: {result.unknown}")
        if not candidates.manifest.labelled:
            warn(
                f"the labels of the {len(result.selected):,} chosen samples are predictions (label_source): "
                "have them checked before you train on them"
            )
        if not frame.quiet:
            screen = console()
            for part in extend_summary(result):
                screen.print(part)
            if target.written:
                screen.print(f"wrote {', '.join(target.written)} in {target.folder}", markup=False)


def budget_value(text: str | None) -> int | float | None:
    """Parse a number of samples (int), or a share of the pool such as 25% (float in (0, 1]).

    Raises:
        typer.BadParameter: It is neither.
    """
    if text is None:
        return None
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        value = 0
    if not 0 < value <= (1 if isinstance(value, float) else 2**31 - 1):
        raise typer.BadParameter(
            f"--budget {text}: expected a number of samples from 1 up, or a share of the pool such as 25%"
        )
    return value


def write_extension(
    target: Output,
    result: ExtendResult,
    summary_name: str,
    summary: dict[str, Any],
    folder: Path | None = None,
) -> None:
    """Write the tables and the summary of a result.

    Args:
        target: Where.
        result: What was chosen.
        summary_name: Name of the JSON file.
        summary: What it holds.
        folder: That the tables' paths start from; None: the core's and the pool's own.
    """
    import pandas as pd

    from divacli.manifest import relocate

    origin, pool_origin = result.core.manifest.folder, result.pool.manifest.folder
    failed = pd.concat([result.core.failed, relocate(result.pool.failed, pool_origin, origin)])
    target.table("failed", failed, origin, part=True)
    target.table("selected", result.selected, folder or pool_origin)
    target.table("remaining", result.remaining, folder or pool_origin, part=True)
    target.records("history", result.history)
    target.json(summary_name, summary)
    predicted = not result.pool.manifest.labelled
    target.table("extended", result.extended, folder or origin, main=True, part=True, relabelled=predicted)
