"""How far the work is, as a line on a terminal or in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from divacli.report.terminal.tables import cell


class _Name(ProgressColumn):
    """Of the step: it gives way where the terminal is narrow."""

    def render(self, task: Task) -> Text:
        return cell(task.description)


@contextmanager
def shown(screen: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A `divacli.progress.Progress` on a screen: rate and time left, or the time that has passed.

    Args:
        screen: Where; nothing is shown where it can not be written over.
        what: The name of the step.
        total: Its parts; 0 where they cannot be counted.
    """
    if not (screen.is_terminal or screen.is_jupyter) or screen.is_dumb_terminal:
        yield lambda done: None
        return
    columns: list[ProgressColumn] = [SpinnerColumn(), _Name()]
    if total:
        columns += [
            BarColumn(bar_width=None),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
        ]
    else:
        columns.append(TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, expand=bool(total)) as progress:
        task = progress.add_task(what, total=total or None, rate="")

        def advance(done: int) -> None:
            progress.advance(task, done)
            speed = progress.tasks[task].speed
            if speed:
                progress.update(task, rate=f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s")

        yield advance
