"""What all commands share: option groups spread out for Typer, errors answered, progress shown."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from typing import Any

import typer

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

if typing.TYPE_CHECKING:
    from rich.console import Console


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
            with answering_errors(debug=values["frame"].debug), ending_well():
                if shared:
                    require_shareable(name, *(values.get(source) for source in ("data", "pool")))
                else:
                    require_single(name)
                if not leads():
                    values["frame"] = dataclasses.replace(values["frame"], quiet=True)
                function(**values)
                if output is not None and output.report and leads():
                    from divacli.cli.report import report_on

                    report_on(output.out, values["compute"].cache, values["frame"])

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
            traceback.print_exc()
        if may_speak():
            say(f"error: {error}", style="red")
        raise typer.Exit(1) from error
    except Terminated as error:
        if leads() and may_speak():
            say("terminated; features that were computed are kept, and the same command goes on from them")
        raise typer.Exit(143) from error
    except KeyboardInterrupt as error:
        if debug:
            traceback.print_exc()
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
            traceback.print_exc()
        if may_speak():
            say(
                "error: out of memory\n"
                "to do: use a smaller --batch-size, fewer --workers, or a machine with more"
            )
        raise typer.Exit(1) from error
    except Exception as error:
        # What Typer raises for wrong usage, and to end a command, is for Typer to answer.
        if debug or isinstance(error, (typer.Exit, typer.Abort, typer.BadParameter)):
            raise
        if may_speak():
            say(
                f"error: {type(error).__name__}: {error}\n"
                "expected: no such failure; this may be a mistake in diva\n"
                "to do: run the same command with --debug and report what it shows"
            )
        raise typer.Exit(1) from error


def console() -> Console:
    """The terminal of messages and summaries: standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=False)


def say(message: str, style: str | None = None) -> None:
    """Write one message to standard error, its first line in a style."""
    from rich.text import Text

    from divacli.report.plain import plain

    first, *rest = message.split("\n")
    text = plain(first)
    text.stylize(style or "")
    console().print(Text("\n").join([text, *map(plain, rest)]), soft_wrap=True)


def warn(message: str) -> None:
    """Write one warning to standard error, of several processes in the first."""
    if leads():
        say(f"warning: {message}", style="yellow")


class RichProgress:
    """A line on standard error for each step, where that is a terminal."""

    def __init__(self, frame: FrameOptions) -> None:
        self._shown = not frame.quiet

    @contextlib.contextmanager
    def __call__(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """See `divacli.embed.progress.Progress`."""
        if not self._shown:
            yield lambda done: None
            return
        from divacli.report.progress import shown

        with shown(console(), what, total) as advance:
            yield advance
