"""Write a command down once more, with other DATA and more options, so that it can be typed as it stands."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from divacli.errors import Again, DivaError

_OF_SET = {"val": "val_split", "test": "test_split", "pool": "pool_split"}
"""What `split` is called for a set beside DATA."""


_ON_COLUMNS = {"path_column", "label_column", "root"}
"""Options that hold for DATA and for all sets beside it."""


def typed_parts(error: DivaError, context: typer.Context) -> list[str]:
    """The lines of a message, with options as they are typed and whole commands where one is advised.

    Args:
        error: With the message.
        context: Of the command that is running.
    """
    advice = error.hint
    if not isinstance(advice, Again):
        return error.typed_parts
    if advice.role and _ON_COLUMNS & advice.options.keys() and not _has_no_columns(context):
        return [*error.typed_parts[:-1], f"to do: {_written_out(advice)}"]
    command = again(advice, context)
    if command is None:
        return error.typed_parts
    return [*error.typed_parts[:-1], f"to do: {command}"]


def _has_no_columns(context: typer.Context) -> bool:
    """Whether DATA is a folder, which options on columns do not change."""
    return Path(str(context.params.get("data", ""))).is_dir()


def _written_out(advice: Again) -> str:
    """What to do with a set beside DATA whose table needs options that would hold for DATA, too."""
    options = advice.options
    columns = [
        f"{options[f'{name}_column']} is {name}" for name in ("path", "label") if f"{name}_column" in options
    ]
    root = f", and put the paths after {options['root']}/" if "root" in options else ""
    return f"write {advice.data} as the table of DATA is: {' and '.join(columns)}{root}".replace(
        ": , and", ":"
    )


def again(advice: Again, context: typer.Context) -> str | None:
    """The command that is running, as advised; None where it lacks the options.

    Args:
        advice: What is to change.
        context: Of the command, with what was typed.
    """
    parameters = {str(parameter.name): parameter for parameter in context.command.params}
    role = advice.role or "data"
    if not _is_given(context, role, advice.given) and not _is_given(context, "data", advice.given):
        return None
    split = _OF_SET.get(role, "split")
    added = {split if name == "split" else name: value for name, value in advice.options.items()}
    if "group" in added and ("group" not in parameters or _typed(context, "group")):
        del added["group"]
    if not added.keys() <= parameters.keys():
        return None
    arguments: list[str] = []
    options: list[str] = []
    for name, parameter in parameters.items():
        value = context.params[name]
        moved = name == role and value == advice.given != advice.data
        if name in added or not (moved or _typed(context, name)):
            continue
        if moved:
            value = advice.data
        if parameter.param_type_name == "argument":
            arguments += _texts(value)
        else:
            options += _option(parameter, value)
    for name, value in added.items():
        options += [word for text in _texts(value) for word in (parameters[name].opts[0], text)]
    if any(text.startswith("-") and text != "-" for text in arguments):
        return shlex.join(["diva", str(context.info_name), *options, "--", *arguments])
    return shlex.join(["diva", str(context.info_name), *arguments, *options])


def _is_given(context: typer.Context, name: str, given: str) -> bool:
    value = context.params.get(name)
    return value is not None and given in _texts(value)


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(parameter: Any, value: Any) -> list[str]:
    """An option as it is typed."""
    if isinstance(value, bool):
        return [parameter.opts[0] if value else (parameter.secondary_opts or parameter.opts)[0]]
    return [word for text in _texts(value) for word in (parameter.opts[0], text)]


def _texts(value: Any) -> list[str]:
    if value is None:
        return ["auto"]  # the one value that is parsed to nothing
    if isinstance(value, list | tuple):
        return [text for one in value for text in _texts(one)]
    return [str(value.value if isinstance(value, Enum) else value)]
