"""`diva reweight`."""

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
    WalkOptions,
)
from divacli.cli.reading_options import WITHOUT_TEST, ReadingOptions
from divacli.cli.values import step_size_value
from divacli.files.existing import require_present

_PANEL = "Steps"


class SharingName(StrEnum):
    """Which samples share a weight."""

    sample = "sample"
    class_ = "class"
    group = "group"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "reweight", WITHOUT_TEST, shared=True)
    def reweight(
        data: Data,
        reading: ReadingOptions,
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        walk: WalkOptions,
        per: Annotated[
            SharingName, typer.Option(help="Which samples share one weight.", rich_help_panel=_PANEL)
        ] = SharingName.sample,
    ) -> None:
        """Give every sample the weight that lowers the validation loss, and forecast the error on new images.

        Writes reweighted.csv, whose column weight every command honours, reweight.json and failed.csv.
        Weights move against the derivative; with --step-size auto only as far as left-out folds gain by it,
        which may be nowhere.

        Examples:
        `diva reweight photos/ --checkpoint model.ts`

        `diva reweight photos/ --checkpoint model.ts --validation balanced --per class`
        """
        size = step_size_value(walk.step_size)
        require_present(data, problem.val)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.cli.session import loader_of, solve_options
        from divacli.curate.reweight import FILES, ReweightOptions, reweight_data
        from divacli.report.terminal.reweight import reweight_summary
        from divacli.solve.options import ROBUST_CROSS_ENTROPY

        target = Output(output, *FILES, sources=(data,))
        loader = loader_of(network, compute, frame, problem.group)
        options = solve_options(problem, loader, ROBUST_CROSS_ENTROPY, robust=True)
        how = ReweightOptions(size, walk.steps, per.value, walk.folds)
        result = reweight_data(
            loader, reading.data(data, problem.val), options, how, reading.val(problem.val, data)
        )
        deliver(result, target, reweight_summary, frame, cache=compute.cache)
