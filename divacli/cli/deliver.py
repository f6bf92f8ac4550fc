"""The end of every command that has a result: files written, warnings, the summary, the page."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from divacli.cli.command import page_command
from divacli.cli.console import console, say, warn
from divacli.cli.options import FrameOptions
from divacli.cli.output import Output
from divacli.cli.page import report_on
from divacli.cli.processes import Terminated, leads

if TYPE_CHECKING:
    from rich.console import RenderableType

    from divacli.results.result import Result

R = TypeVar("R", bound="Result")

WROTE = "wrote {files} in {folder}"
"""The last line of a command."""


def deliver(
    result: R,
    target: Output,
    shown: Callable[[R], Iterable[RenderableType]],
    frame: FrameOptions,
    *,
    cache: Path | None = None,
    also: Iterable[str] = (),
    wrote: str = WROTE,
) -> None:
    """Write a result, warn, show it, and make its page.

    Args:
        result: What a command found.
        target: Where it is written to.
        shown: Renders it for the terminal.
        frame: Says whether that is quiet.
        cache: Folder with features, for the page; None of a command without `--report`.
        also: Warnings that are not the result's own.
        wrote: As for `say_written`.
    """
    result.write(target.files)
    target.done()
    for warning in (*result.warnings(), *also):
        warn(warning)
    if not frame.quiet:
        screen = console()
        for part in shown(result):
            screen.print(part)
        say_written(target, wrote)
    if target.options.report and cache is not None and leads():
        with _results_in(target.options.out):
            report_on(target.options, cache, frame)


def say_written(target: Output, wrote: str = WROTE) -> None:
    """Say which files were written; nothing where the result went to standard output.

    Args:
        target: Where they were written to.
        wrote: The sentence, with `{files}` and `{folder}`.
    """
    if target.folder is not None:
        sentence = wrote.format(files=", ".join(target.files.written), folder=target.folder)
        console().print(sentence, markup=False)


@contextlib.contextmanager
def _results_in(folder: str) -> Iterator[None]:
    """Answer whoever ends the command while it makes the page of results that are written."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        word, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        say(f"{word}; the results are in {folder}: {page_command(folder)} makes the page alone")
        raise typer.Exit(status) from error
