"""`diva reweight`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import console, warn
from divacli.cli.options import (
    ComputeOptions,
    Data,
    FrameOptions,
    LossName,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
    WalkOptions,
    step_size_value,
)
from divacli.files.present import require_present

_PANEL = "Steps"


class SharingName(StrEnum):
    """Which samples share a weight."""

    sample = "sample"
    class_ = "class"
    group = "group"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "reweight", shared=True)
    def reweight(
        data: Data,
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
        from divacli.cli.output import Output
        from divacli.cli.session import Session
        from divacli.curate.reweight import ReweightOptions
        from divacli.curate.reweight import reweight as reweight_samples
        from divacli.embed import read_data
        from divacli.report.terminal.reweight import reweight_summary

        target = Output(output, "reweighted", "reweight.json", sources=(data,))
        session = Session(network, compute, frame, problem.group)
        options = session.solve_options(problem, LossName.cross_entropy)
        samples, validation = session.load_both(read_data(data), problem.val)
        how = ReweightOptions(size, walk.steps, per.value, walk.folds)
        result = reweight_samples(samples, options, how, validation, session.progress)
        origin = samples.manifest.folder
        target.table("failed", samples.failed, origin, part=True)
        target.json("reweight.json", result.summary)
        target.table("reweighted", result.table, origin, main=True, part=True)
        target.done()
        if result.choice is not None and not result.choice.sizes:
            start = "those that balance the classes" if options.balanced else "as they were"
            warn(
                "no step lowers the loss of left-out samples by more than two of its standard errors: "
                f"the weights are {start}"
            )
        if not result.written:
            warn("the steps should raise the error on new images: the weights are as they were")
        if result.unknown:
            warn(f"no forecast was made: {result.unknown}")
        if not frame.quiet:
            screen = console()
            for part in reweight_summary(result):
                screen.print(part)
            if target.written:
                screen.print(f"wrote {', '.join(target.written)} in {target.folder}", markup=False)
