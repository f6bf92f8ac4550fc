"""`diva doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.options import ONLY_CACHE, ComputeOptions, FrameOptions


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "doctor", without=(*ONLY_CACHE, "config", "quiet"))
    def doctor(
        compute: ComputeOptions,
        frame: FrameOptions,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Say what diva sees: versions, devices, memory, cache, free space. Put it into a bug report.

        Ends with status 1 where something would not work, and says what to do.

        Examples:
        `diva doctor`

        `diva doctor --json > doctor.json`
        """
        from divacli.machine.checkup import check_up
        from divacli.report.terminal.doctor import checkup_json, checkup_lines

        found = check_up(compute.cache)
        typer.echo(checkup_json(found) if json else checkup_lines(found))
        if found.problems:
            raise typer.Exit(1)
