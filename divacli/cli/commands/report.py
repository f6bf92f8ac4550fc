"""`diva report`, and `--report` on commands that write results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.options import ONLY_CACHE, ComputeOptions, FrameOptions, Overwrite, ResultsFolder, TrueLabels
from divacli.cli.page import LIMIT, write_page
from divacli.cli.values import path_value
from divacli.files.existing import require_present


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "report", without=ONLY_CACHE)
    def report(
        compute: ComputeOptions,
        frame: FrameOptions,
        folder: ResultsFolder = Path("diva-out"),
        out: Annotated[
            Path | None,
            typer.Option(
                "--out",
                "-o",
                help="The page. Default: report.html in DIR.",
                metavar="FILE",
                parser=path_value,
            ),
        ] = None,
        limit: Annotated[int, typer.Option(help="Samples of a list at the most.", min=1)] = LIMIT,
        truth: TrueLabels = None,
        overwrite: Overwrite = False,
    ) -> None:
        """Make a page of the images that matter, to look at and decide on: one file, no server.

        Writes report.html with the most harmful, the most useful and the probably mislabelled images, their
        nearest neighbours, figures, and buttons and keys for decisions, which diva apply takes back.

        Examples:
        `diva report diva-out`

        `diva report diva-out --limit 200 --out review.html`

        `diva score photos/ --model resnet50 --weights DEFAULT --report`
        """
        require_present(truth)
        if out is not None and out.suffix.lower() not in (".html", ".htm"):
            raise typer.BadParameter(f"--out {out}: expected the name of a page, such as report.html")
        write_page(folder, out, compute.cache, limit, truth, frame, overwrite=overwrite)
