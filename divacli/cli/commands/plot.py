"""`diva plot`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.options import FrameOptions, OutputOptions, Overwrite, ResultsFolder, TrueLabels
from divacli.cli.values import path_value
from divacli.files.existing import require_present


class KindName(StrEnum):
    """Kinds of plots."""

    histogram = "histogram"
    loss = "loss"
    classes = "classes"
    groups = "groups"
    confusions = "confusions"
    ridge = "ridge"
    curve = "curve"


class PlotFormatName(StrEnum):
    """Formats of plots."""

    svg = "svg"
    png = "png"
    pdf = "pdf"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "plot")
    def plot(
        frame: FrameOptions,
        folder: ResultsFolder = Path("diva-out"),
        kind: Annotated[
            list[KindName] | None,
            typer.Option(
                help="What to draw; can be repeated. Default: all that the files in DIR allow.",
                show_default=False,
            ),
        ] = None,
        format: Annotated[PlotFormatName, typer.Option(help="Of the files.")] = PlotFormatName.svg,
        out: Annotated[
            Path | None,
            typer.Option(
                "--out",
                "-o",
                help="Folder for the plots. Default: DIR.",
                metavar="DIR",
                parser=path_value,
                show_default=False,
            ),
        ] = None,
        truth: TrueLabels = None,
        overwrite: Overwrite = False,
    ) -> None:
        """Draw results as files for papers and notebooks.

        Of scores: histogram of the derivative, loss (derivative against loss), classes, groups (of --by),
        confusions, ridge. Of extend, aggregate, reweight, train and evaluate: curve.

        Examples:
        `diva plot diva-out`

        `diva plot diva-out --kind histogram --kind classes --format pdf --out paper/`
        """
        if str(out) == "-":
            raise typer.BadParameter("--out -: plots are files; give a folder")
        require_present(truth)
        from divacli.cli.deliver import say_written
        from divacli.cli.output import Output
        from divacli.report.figures.drawing import rendered
        from divacli.report.figures.plots import asked_plots

        kinds = [one.value for one in dict.fromkeys(kind or ())]
        plots = asked_plots(folder, kinds, truth)
        names = [f"{name}.{format.value}" for name, _ in plots]
        target = Output(OutputOptions(out=str(out or folder), overwrite=overwrite))
        for name, (_, figure) in zip(names, plots, strict=True):
            # diva evaluate draws its own: they are left alone where nobody asked for another one.
            if kind or not target.files.is_of_others(name):
                target.files.bytes(name, rendered(figure, format.value))
        target.done(whole=False)
        if not frame.quiet:
            say_written(target)
