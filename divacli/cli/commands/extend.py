"""`diva extend`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.options import (
    ChoiceOptions,
    ComputeOptions,
    Data,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
)
from divacli.cli.reading_options import ReadingOptions
from divacli.cli.values import budget_value, require_one_stdin
from divacli.files.existing import require_present

_PANEL = "Choice"


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

    @command(app, "extend", ("test_split",), shared=True)
    def extend(
        data: Data,
        reading: ReadingOptions,
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
        budget, share = budget_value(choice.budget)
        require_one_stdin("DATA, --pool and --val", data, pool, problem.val)
        require_present(data, pool, problem.val)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.cli.session import loader_of, solve_options
        from divacli.curate.extend import FILES, extend_data
        from divacli.curate.pool_rule import ExtendOptions
        from divacli.report.terminal.extend import extend_summary

        target = Output(output, *FILES, sources=(data, reading.pool(pool).label))
        loader = loader_of(network, compute, frame, problem.group)
        options = solve_options(problem, loader, robust=True)
        rule = None if by is Rule.auto else by.value
        how = ExtendOptions(budget, choice.refit_every, choice.min_trust, rule, share=share)
        labels_given = pool_labels is PoolLabels.given
        result = extend_data(
            loader,
            reading.data(data, pool, problem.val),
            reading.pool(pool),
            options,
            how,
            reading.val(problem.val, data),
            labels_given=labels_given,
        )
        deliver(result, target, extend_summary, frame, cache=compute.cache)
