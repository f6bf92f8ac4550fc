"""`diva report`, and `--report` on commands that write results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from divacli.cli.command import RichProgress, command, note, say
from divacli.cli.options import (
    ONLY_CACHE,
    ComputeOptions,
    FrameOptions,
    OutputOptions,
    Overwrite,
    ResultsFolder,
    TrueLabels,
    path_value,
)
from divacli.files.place import require_present

LIMIT = 60
"""Samples of a list on the page, unless another number is asked for."""


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
        _write(folder, out, compute.cache, limit, truth, frame, overwrite=overwrite)


def report_on(output: OutputOptions, cache: Path, frame: FrameOptions) -> None:
    """Write the page of what a command has just written.

    Args:
        output: Of the command.
        cache: Where it keeps features.
        frame: Its progress and quiet.
    """
    _write(Path(output.out), None, cache, LIMIT, None, frame, overwrite=output.overwrite)


def _write(
    folder: Path,
    out: Path | None,
    cache: Path,
    limit: int,
    truth: str | None,
    frame: FrameOptions,
    *,
    overwrite: bool,
) -> None:
    from divacli.cli.output import Output
    from divacli.manifest import read_manifest
    from divacli.report.page.write import REPORT, report_page
    from divacli.results.read import read_results

    results = read_results(folder)
    known = None if truth is None else read_manifest(truth, labels="optional")
    target = out or folder / REPORT
    file = Output(
        OutputOptions(out=str(target.parent), overwrite=overwrite),
        target.name,
        command="report",
        # A page on its way to somebody is no part of a folder of results.
        recorded=target.parent.resolve() == folder.resolve(),
    )
    page, notes = report_page(results, target.parent.resolve(), limit, cache, RichProgress(frame), known)
    file.text(target.name, page)
    file.done()
    if not frame.quiet:
        for sentence in notes:
            note(sentence, frame)
        say(f"wrote {target}: open it in a browser")
