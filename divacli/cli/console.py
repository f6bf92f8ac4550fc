"""What a person is told while a command runs: messages, warnings, progress."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from divacli.cli.logs import logged_step
from divacli.cli.options import FrameOptions
from divacli.cli.processes import leads
from divacli.errors import cut, shown
from divacli.files.urls import without_secrets

if TYPE_CHECKING:
    from rich.console import Console

_LOGGER = logging.getLogger(__name__)


def console() -> Console:
    """The terminal of messages and summaries: standard error."""
    from divacli.report.terminal.plain import PlainConsole

    return PlainConsole()


def show_traceback() -> None:
    """Write the traceback of the exception that is being handled.

    Its lines but the first are indented, for the text of an exception may be a user's, and hold line breaks.
    """
    lines = traceback.format_exc().rstrip("\n").split("\n")
    sys.stderr.write("\n  ".join(map(shown, lines)) + "\n")


def say(*lines: str, style: str = "") -> None:
    """Write one message to standard error.

    Args:
        lines: Each is written as one line, whatever it holds, and a very long one without its middle.
        style: Of the first line.
    """
    from rich.text import Text

    # Secrets go before the cut, which may take the end of a URL that they are found by.
    first, *others = (Text(cut(without_secrets(shown(line)))) for line in lines)
    first.stylize(style)
    console().print(Text("\n").join([first, *others]), soft_wrap=True)


def warn(message: str) -> None:
    """Write one warning to standard error, of several processes in the first."""
    _LOGGER.warning("%s", message)
    if leads():
        say(f"warning: {message}", style="yellow")


def note(message: str, frame: FrameOptions) -> None:
    """Write what is no warning to standard error, unless that is to be quiet."""
    _LOGGER.info("%s", message)
    if not frame.quiet:
        say(f"note: {message}")


class RichProgress:
    """A line on standard error for each step, where that is a terminal."""

    def __init__(self, frame: FrameOptions) -> None:
        self._shown = not frame.quiet

    @contextlib.contextmanager
    def __call__(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """See `divacli.progress.Progress`."""
        with logged_step(what, total, self._line(what, total)) as advance:
            yield advance

    def _line(self, what: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        if not self._shown:
            return contextlib.nullcontext(lambda done: None)
        from divacli.report.terminal.progress import shown

        return shown(console(), what, total)
