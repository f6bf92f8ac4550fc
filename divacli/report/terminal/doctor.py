"""What `diva doctor` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from divacli.machine.checkup import Checkup
from divacli.report.terminal.plain import plain


def checkup_lines(found: Checkup) -> str:
    """The findings as text without colours, to be pasted into a report."""
    return "\n".join(_lines(found))


def checkup_json(found: Checkup) -> str:
    """The findings and problems as JSON."""
    return json.dumps({**found.found, "problems": found.problems}, indent=2)


def _lines(found: Checkup) -> Iterator[str]:
    width = max(len(name) for values in found.found.values() for name in values)
    for section, values in found.found.items():
        yield section
        for name, value in values.items():
            yield f"  {name:<{width}}  {plain(_text(value)).plain}"
    yield ""
    yield from (f"problem: {plain(problem).plain}" for problem in found.problems)
    if not found.problems:
        yield "no problems found"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)
