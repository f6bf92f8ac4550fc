"""What all commands share: option groups spread out for Typer, errors answered, progress shown."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from typing import Any

import typer

from divacli.cli.logs import logged_step, open_log
from divacli.cli.options import FrameOptions
from divacli.cli.processes import (
    Terminated,
    ending_well,
    leads,
    may_speak,
    require_shareable,
    require_single,
)
from divacli.errors import DivaError
from divacli.files import without_secrets
from divacli.run import Run, running

if typing.TYPE_CHECKING:
    from rich.console import Console

_LOGGER = logging.getLogger(__name__)


def command(
    app: typer.Typer, name: str, without: tuple[str, ...] = (), *, shared: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose parameters may be option groups (dataclasses).

    Typer sees every field of a group as an option of its own; the function gets the group. A `DivaError` ends
    the command with its message and status 1, Ctrl-C with 130; a traceback is shown with `--debug` only.

    Args:
        app: Takes the command.
        name: Of the command.
        without: Fields of the groups that are no options of this command and keep their defaults.
        shared: Whether several processes may share its work.
    """

    def fields_of(group: type[Any]) -> list[dataclasses.Field[Any]]:
        return [field for field in dataclasses.fields(group) if field.name not in without]

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(function, include_extras=True)
        groups = {
            key: hint
            for key, hint in hints.items()
            if isinstance(hint, type) and dataclasses.is_dataclass(hint)
        }
        parameters = []
        for key, parameter in inspect.signature(function).parameters.items():
            if key not in groups:
                parameters.append(parameter.replace(annotation=hints[key]))
                continue
            fields = typing.get_type_hints(groups[key], include_extras=True)
            parameters += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=fields[field.name],
                )
                for field in fields_of(groups[key])
            ]

        def run(**values: Any) -> None:
            for key, group in groups.items():
                names = [field.name for field in fields_of(group)]
                values[key] = group(**{name: values.pop(name) for name in names})
            output = values.get("output")
            if output is not None and output.report and output.out == "-":
                raise typer.BadParameter("--report: expected a folder to write the page into, not --out -")
            run = Run(name, _typed(function, values), confined=values["frame"].confine)
            answering = functools.partial(answering_errors, debug=values["frame"].debug)
            with answering():
                log = open_log(values["frame"].log_file, run, warn)
            with log, answering(), ending_well(), running(run):
                if shared:
                    require_shareable(name, *(values.get(source) for source in ("data", "pool")))
                else:
                    require_single(name)
                if not leads():
                    values["frame"] = dataclasses.replace(values["frame"], quiet=True)
                function(**values)
                if output is not None and output.report and leads():
                    from divacli.cli.report import report_on

                    try:
                        report_on(output, values["compute"].cache, values["frame"])
                    except KeyboardInterrupt as error:
                        say(f"interrupted; the results are in {output.out}: diva report makes the page alone")
                        raise typer.Exit(130) from error

        # What Typer reads of a callback.
        attributes = {
            "__name__": function.__name__,
            "__doc__": function.__doc__,
            "__annotations__": {parameter.name: parameter.annotation for parameter in parameters},
            "__signature__": inspect.Signature(
                [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
            ),
        }
        for attribute, value in attributes.items():
            setattr(run, attribute, value)
        app.command(name)(run)
        return function

    return register


@contextlib.contextmanager
def answering_errors(*, debug: bool) -> Iterator[None]:
    """Turn what can go wrong into one message and an exit status."""
    try:
        yield
    except DivaError as error:
        if debug:
            _show_traceback()
        if may_speak():
            say(f"error: {error}", style="red")
        raise typer.Exit(1) from error
    except Terminated as error:
        if leads() and may_speak():
            say("terminated; features that were computed are kept, and the same command goes on from them")
        raise typer.Exit(143) from error
    except KeyboardInterrupt as error:
        if debug:
            _show_traceback()
        if leads():
            say("interrupted; features that were computed are kept, and the same command goes on from them")
        raise typer.Exit(130) from error
    except BrokenPipeError as error:
        # Python would complain once more when it flushes the closed stream on exit.
        sys.stdout = None
        say("error: standard output was closed before everything was written")
        raise typer.Exit(1) from error
    except MemoryError as error:
        if debug:
            _show_traceback()
        if may_speak():
            say(
                "error: out of memory\n"
                "to do: use a smaller --batch-size, fewer --workers, or a machine with more"
            )
        raise typer.Exit(1) from error
    except Exception as error:
        # What Typer raises for wrong usage, and to end a command, is for Typer to answer.
        if isinstance(error, (typer.Exit, typer.Abort, typer.BadParameter)):
            raise
        if debug:
            _show_traceback()
        if may_speak():
            say(
                f"error: {type(error).__name__}: {error}\n"
                "expected: no such failure; this may be a mistake in diva\n"
                "to do: run the same command with --debug and report what it shows"
            )
        raise typer.Exit(1) from error


_WITHOUT_EFFECT = ("out", "overwrite", "report", "cache_dir", "workers", "quiet", "debug", "log_file")
"""Options that nothing in a result depends on."""


def _typed(function: Callable[..., None], values: dict[str, Any]) -> dict[str, Any]:
    """The arguments and options that are not as they are by default, by name."""
    typed: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        value = values[parameter.name]
        if dataclasses.is_dataclass(value):
            pairs = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
            typed |= {field.name: found for field, found in pairs if found != field.default}
        elif value != parameter.default:
            typed[parameter.name] = value
    return {name: value for name, value in typed.items() if name not in _WITHOUT_EFFECT}


def console() -> Console:
    """The terminal of messages and summaries: standard error."""
    from divacli.report.plain import PlainConsole

    return PlainConsole()


def _show_traceback() -> None:
    """Write the traceback of the exception that is being handled; its text may be a user's."""
    from divacli.report.plain import shown

    sys.stderr.write(shown(traceback.format_exc()))


def say(message: str, style: str | None = None) -> None:
    """Write one message to standard error, its first line in a style."""
    from rich.text import Text

    from divacli.report.plain import plain

    first, *rest = without_secrets(message).split("\n")
    text = plain(first)
    text.stylize(style or "")
    console().print(Text("\n").join([text, *map(plain, rest)]), soft_wrap=True)


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
        """See `divacli.embed.progress.Progress`."""
        with logged_step(what, total, self._line(what, total)) as advance:
            yield advance

    def _line(self, what: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        if not self._shown:
            return contextlib.nullcontext(lambda done: None)
        from divacli.report.progress import shown

        return shown(console(), what, total)
