"""`diva aggregate`."""

from __future__ import annotations

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


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "aggregate", ("test_split",))
    def aggregate(
        data: Data,
        reading: ReadingOptions,
        pool: Annotated[
            list[str],
            typer.Option(
                help="Another modality in the same embedding space: a table with text,label (embedded with "
                "--model clip:NAME), or any labelled DATA; repeatable.",
                metavar="DATA",
                rich_help_panel=_PANEL,
            ),
        ],
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        choice: ChoiceOptions,
    ) -> None:
        """Choose from texts, or another modality, what helps to tell your images apart.

        Every pool is shifted to the mean of DATA; then members are chosen as by diva extend, and each
        modality gets one weight. Writes extended.csv with its features in features.npz, selected.csv,
        remaining.csv with the reasons, history.csv, aggregate.json and failed.csv.

        Examples:
        `diva aggregate photos/ --pool texts.csv --model clip:openai/clip-vit-base-patch32`

        `diva aggregate images.npz --pool texts.npz --pool sketches.npz`
        """
        budget, share = budget_value(choice.budget)
        require_one_stdin("DATA, --pool and --val", data, *pool, problem.val)
        require_present(data, *pool, problem.val)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.cli.session import loader_of, solve_options
        from divacli.curate.aggregate import FEATURES, FILES, aggregate_data, named_modalities
        from divacli.curate.pool_rule import ExtendOptions
        from divacli.report.terminal.extend import aggregate_summary

        target = Output(output, *FILES)
        target.required_folder(f"the table's features go into {FEATURES}, which needs a folder")
        loader = loader_of(network, compute, frame, problem.group)
        options = solve_options(problem, loader)
        pools = {name: reading.pool(one) for name, one in named_modalities(pool).items()}
        how = ExtendOptions(budget, choice.refit_every, choice.min_trust, share=share)
        result = aggregate_data(
            loader,
            reading.data(data, problem.val, *pool),
            pools,
            options,
            how,
            reading.val(problem.val, data),
        )
        deliver(result, target, aggregate_summary, frame, cache=compute.cache)
