"""`--config FILE.yaml`: options from a file, through the same parser as flags.

The file maps option names to values, or to lists of them for options that can be repeated; a section named
after a command holds what only that command takes. Relative paths are relative to the file. The values become
the defaults of the command line, so that a flag wins and every check of an option exists once.
"""

from __future__ import annotations

import difflib
import reprlib
from pathlib import Path
from typing import Any

import typer

from divacli.files.urls import is_url

_LONGEST = 1 << 16  # bytes

_FILES = {"data", "checkpoint", "val", "cache_dir", "manifest", "test", "truth", "pool", "root"}
"""Options that name a file or folder to be found beside the configuration."""

_FUNCTIONS = {"model", "transform"}
"""Options that may name a function in such a file: `FILE.py:NAME`."""


def load_config(context: typer.Context, value: Path | None) -> Path | None:
    """Make the file's values the defaults of this command (an eager option callback).

    Raises:
        typer.BadParameter: The file cannot be read, or holds what is no option.
    """
    if value is None or context.resilient_parsing:
        return value
    content = _read(value)
    parent = context.parent
    commands = getattr(parent.command, "commands", {}) if parent else {}
    mine = {parameter.name for parameter in context.command.params if parameter.name}
    known = {parameter.name for command in commands.values() for parameter in command.params} | mine
    values: dict[str, Any] = {}
    for name, entry in content.items():
        if name in commands and entry is None:
            continue  # a section without a line
        if isinstance(entry, dict):
            if name not in commands:
                raise typer.BadParameter(_unknown(value, "section", name, commands))
            if name == context.info_name:
                _take(values, entry, mine, value, f"of diva {name}")
        elif _key(name) in known:
            # An option of another command only is not for this one.
            if _key(name) in mine:
                values[_key(name)] = entry
        else:
            raise typer.BadParameter(_unknown(value, "option", name, known))
    values.pop("config", None)
    repeatable = {parameter.name for parameter in context.command.params if _is_repeatable(parameter)}
    context.default_map = {
        name: _checked(name, entry, value, repeatable=name in repeatable) for name, entry in values.items()
    }
    return value


def _checked(name: str, entry: Any, file: Path, *, repeatable: bool) -> Any:
    """What the command line would have held: one value, or a list of them for an option that is repeated."""
    entries = entry if repeatable and isinstance(entry, list) else [entry]
    if name in _FILES:
        fitting = all(isinstance(one, str) and one for one in entries)  # an empty one would be the folder
    else:
        fitting = all(isinstance(one, str | int | float) for one in entries)
    if not fitting:
        expected = "a path" if name in _FILES else "one text, number or true/false"
        more = ", or a list of these" if repeatable else ""
        raise typer.BadParameter(f"{file}: {name!r} is {reprlib.repr(entry)}; expected {expected}{more}")
    located = [_located(name, one, file.parent) for one in entries]
    return located if repeatable else located[0]


def _is_repeatable(parameter: Any) -> bool:
    # An argument has no such attribute.
    return bool(getattr(parameter, "multiple", False))


def _take(values: dict[str, Any], entries: dict[str, Any], mine: set[str], file: Path, where: str) -> None:
    for name, entry in entries.items():
        if _key(name) not in mine:
            raise typer.BadParameter(_unknown(file, f"option {where}", name, mine))
        values[_key(name)] = entry


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        with file.open("rb") as stream:
            text = stream.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise typer.BadParameter(
                f"{file} has more than {_LONGEST:,} bytes; expected some lines of options"
            )
        content = yaml.safe_load(text)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from error
    # A date or a number that is none is a ValueError, a list in a list in thousands a RecursionError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise typer.BadParameter(f"{file} holds a {type(content).__name__}; expected 'option: value' lines")
    return {str(name): entry for name, entry in content.items()}


def _key(name: str) -> str:
    return name.replace("-", "_")


def _located(name: str, entry: Any, folder: Path) -> Any:
    if name in _FILES and isinstance(entry, str) and entry != "-" and not is_url(entry):
        return str(folder / entry)
    if name in _FUNCTIONS and isinstance(entry, str) and ".py:" in entry:
        return str(folder / entry)
    # As a flag would be typed, so that it is checked as a flag is.
    return entry if isinstance(entry, bool) else str(entry)


def _unknown(file: Path, what: str, name: str, known: Any) -> str:
    close = difflib.get_close_matches(_key(name), sorted(map(str, known)), n=1)
    suggestion = f"; did you mean {close[0]!r}?" if close else ""
    return f"{file}: {name!r} is no {what}{suggestion}"
