"""The end of every command that has a result: files written, warnings, the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from divacli.cli.console import console, warn
from divacli.cli.options import FrameOptions
from divacli.cli.output import Output

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
    also: Iterable[str] = (),
    wrote: str = WROTE,
) -> None:
    """Write a result, warn, and show it.

    Args:
        result: What a command found.
        target: Where it is written to.
        shown: Renders it for the terminal.
        frame: Says whether that is quiet.
        also: Warnings that are not the result's own.
        wrote: As for `say_written`.
    """
    result.write(target)
    target.done()
    for warning in (*result.warnings(), *also):
        warn(warning)
    if not frame.quiet:
        screen = console()
        for part in shown(result):
            screen.print(part)
        say_written(target, wrote)


def say_written(target: Output, wrote: str = WROTE) -> None:
    """Say which files were written; nothing where the result went to standard output.

    Args:
        target: Where they were written to.
        wrote: The sentence, with `{files}` and `{folder}`.
    """
    if target.written:
        sentence = wrote.format(files=", ".join(target.written), folder=target.folder)
        console().print(sentence, markup=False)
