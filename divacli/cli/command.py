"""What all commands share: option groups spread out for Typer, errors answered, progress shown."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import inspect
import math
import os
import re
import resource
import shlex
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from divacli.cli.again import typed_parts
from divacli.cli.console import say, show_traceback, warn
from divacli.cli.logs import open_log
from divacli.cli.processes import (
    Terminated,
    ending_well,
    leads,
    may_speak,
    require_shareable,
    require_single,
    require_world,
)
from divacli.cli.values import name_value
from divacli.errors import DivaError
from divacli.run_record import Run, running


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
        parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
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

        def run(context: typer.Context, **values: Any) -> None:
            for key, group in groups.items():
                names = [field.name for field in fields_of(group)]
                values[key] = group(**{name: values.pop(name) for name in names})
            output, frame = values.get("output"), values["frame"]
            typed = _typed(function, values)
            _require_usable(typed)
            if output is not None and output.report and output.out == "-":
                raise typer.BadParameter("--report: expected a folder to write the page into, not --out -")
            lasting = {option: value for option, value in typed.items() if option not in _WITHOUT_EFFECT}
            compute = values.get("compute")
            cache = None if compute is None else compute.cache
            run = Run(name, lasting, confined=frame.confine, cache=cache, tell=warn)
            answering = functools.partial(answering_errors, context, debug=frame.debug)
            with answering():
                require_world()
                _require_folder()
                log = open_log(frame.log_file, run, warn)
            with log, answering(), ending_well(), running(run):
                _require_streams(typed)
                if shared:
                    require_shareable(name, *(values.get(source) for source in ("data", "pool")))
                else:
                    require_single(name)
                if not leads():
                    values["frame"] = dataclasses.replace(frame, quiet=True)
                function(**values)

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


def page_command(folder: str | Path) -> str:
    """What to type for a page of the results in a folder."""
    return shlex.join(["diva", "report", str(folder)])


@contextlib.contextmanager
def answering_errors(context: typer.Context, *, debug: bool) -> Iterator[None]:
    """Turn what can go wrong into one message and an exit status.

    Args:
        context: Of the command.
        debug: Whether tracebacks are shown.
    """
    try:
        yield
    except DivaError as error:
        if debug:
            show_traceback()
        if may_speak():
            first, *others = typed_parts(error, context)
            say(f"error: {first}", *others, style="red")
        raise typer.Exit(1) from error
    except Terminated as error:
        if leads() and may_speak():
            say("terminated; features that were computed are kept, and the same command goes on from them")
        raise typer.Exit(143) from error
    except KeyboardInterrupt as error:
        if debug:
            show_traceback()
        if leads():
            say("interrupted; features that were computed are kept, and the same command goes on from them")
        raise typer.Exit(130) from error
    except BrokenPipeError as error:
        # Python would complain once more when it flushes the closed stream on exit.
        sys.stdout = None
        say("error: standard output was closed before everything was written")
        raise typer.Exit(1) from error
    except Exception as error:
        # What Typer raises for wrong usage, and to end a command, is for Typer to answer.
        if isinstance(error, (typer.Exit, typer.Abort, typer.BadParameter)):
            raise
        if debug:
            show_traceback()
        if may_speak():
            say(*unforeseen(error))
        raise typer.Exit(1) from error


_MEMORY = re.compile(r"failed to map segment|allocate memory|bad_alloc|start new thread", re.IGNORECASE)
"""What libraries say where memory does not suffice, or is limited."""

_SURROUNDINGS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE),
    *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO),
}
"""Failures of the system that are about files and disks."""


def unforeseen(error: Exception) -> list[str]:
    """The lines of a message about what nobody has caught: memory, a file, or a mistake in diva."""
    if isinstance(error, MemoryError) or (
        isinstance(error, ImportError | OSError | RuntimeError) and _MEMORY.search(str(error))
    ):
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            return [
                f"error: out of memory: the address space of a process is limited to {limit / 1e6:,.0f} MB",
                "to do: raise it (ulimit -v unlimited), or use a smaller --batch-size and fewer --workers",
            ]
        return [
            "error: out of memory",
            "to do: use a smaller --batch-size, fewer --workers, or a machine with more",
        ]
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        named = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return [
            f"error: {named}{error.strerror}",
            "expected: files and folders that this user can read and write, and space on their disk",
            "to do: mend that, or give another path",
        ]
    return [
        f"error: {type(error).__name__}: {error}",
        "expected: no such failure; this may be a mistake in diva",
        "to do: run the same command with --debug and report what it shows",
    ]


_WITHOUT_EFFECT = ("out", "overwrite", "report", "cache_dir", "workers", "quiet", "debug", "log_file")
"""Options that nothing in a result depends on."""

_MOST = 2**31 - 1
"""The largest whole number of an option: every library takes it, whatever it counts or draws by it."""


def _require_usable(typed: dict[str, Any]) -> None:
    """Refuse numbers that nothing can be computed with, and texts that nothing can be called by.

    Raises:
        typer.BadParameter: Which one.
    """
    for name, value in typed.items():
        option = f"--{name.replace('_', '-')} {value}"
        if isinstance(value, float) and not math.isfinite(value):
            raise typer.BadParameter(f"{option}: expected a number that is finite")
        if isinstance(value, int) and abs(value) > _MOST:
            raise typer.BadParameter(f"{option}: expected a number of at most {_MOST:,}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                name_value(text)


def _require_folder() -> None:
    """Refuse to run in a folder that is not there any more: libraries fail of that in ways of their own.

    Raises:
        DivaError: It is gone.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise DivaError(
            f"the current folder cannot be used: {error.strerror}",
            expected="a folder that is there",
            hint="go to another one: cd",
        ) from error


def _require_streams(typed: dict[str, Any]) -> None:
    """Refuse `-` where the stream that it names is closed.

    Raises:
        DivaError: Standard input or output is.
    """
    if typed.get("out") == "-" and sys.stdout is None:
        raise DivaError(
            "standard output is closed",
            expected="a file or a pipe that --out - can write to",
            hint="leave >&- out, or give a folder with --out",
        )
    given = [value if isinstance(value, list) else [value] for name, value in typed.items() if name != "out"]
    if sys.stdin is None and any("-" in values for values in given):
        raise DivaError(
            "standard input is closed",
            expected="a table on it, for -",
            hint="give the name of the file, or leave <&- out",
        )


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
    return typed
