"""`--report`: the page of a result that was just written."""

from __future__ import annotations

from pathlib import Path

from divacli.cli.console import RichProgress, note, say
from divacli.cli.options import FrameOptions, OutputOptions

LIMIT = 60
"""Samples of a list on the page, unless another number is asked for."""


def report_on(output: OutputOptions, cache: Path, frame: FrameOptions) -> None:
    """Write the page of what a command has just written.

    Args:
        output: Of the command.
        cache: Where it keeps features.
        frame: Its progress and quiet.
    """
    write_page(Path(output.out), None, cache, LIMIT, None, frame, overwrite=output.overwrite)


def write_page(
    folder: Path,
    out: Path | None,
    cache: Path,
    limit: int,
    truth: str | None,
    frame: FrameOptions,
    *,
    overwrite: bool,
) -> None:
    """Write the page of a folder of results.

    Args:
        folder: With the results.
        out: The page; by default in the folder.
        cache: With thumbnails and features.
        limit: Images of each gallery, at the most.
        truth: Table of true labels.
        frame: Its progress and quiet.
        overwrite: Whether a page that is there may be replaced.
    """
    from divacli.cli.output import Output
    from divacli.manifest import read_manifest
    from divacli.reading import EVERY
    from divacli.report.page.write import REPORT, report_page
    from divacli.results.read import read_results

    results = read_results(folder)
    known = None if truth is None else read_manifest(truth, labels="optional", reading=EVERY)
    target = out or folder / REPORT
    file = Output(
        OutputOptions(out=str(target.parent), overwrite=overwrite),
        target.name,
        command="report",
        # A page on its way to somebody is no part of a folder of results.
        recorded=target.parent.resolve() == folder.resolve(),
    )
    page, notes = report_page(results, target.parent.resolve(), limit, cache, RichProgress(frame), known)
    file.files.text(target.name, page)
    file.done()
    if not frame.quiet:
        for sentence in notes:
            note(sentence, frame)
        say(f"wrote {target}: open it in a browser")
