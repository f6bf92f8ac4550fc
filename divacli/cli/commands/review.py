"""`diva review`."""

from __future__ import annotations

import shlex
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import RichProgress, console, note, say
from divacli.cli.options import ONLY_CACHE, ComputeOptions, FrameOptions, ResultsFolder, TrueLabels
from divacli.files.existing import require_present


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "review", without=ONLY_CACHE)
    def review(
        compute: ComputeOptions,
        frame: FrameOptions,
        folder: ResultsFolder = Path("diva-out"),
        port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65_535)] = 0,
        browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
        truth: TrueLabels = None,
    ) -> None:
        """Look at all images of a result in a browser on this machine, and decide on them.

        The page of diva report without its limit: every sample is on it, and images are read when they are
        shown. Decisions are written to decisions.csv in DIR at once; diva apply takes them. Ctrl-C ends it,
        and the same command goes on from there.

        Examples:
        `diva review diva-out`

        `diva review diva-out --port 8765 --no-browser`

        `ssh -L 8765:127.0.0.1:8765 gpubox diva review diva-out --port 8765 --no-browser`
        """
        require_present(truth)
        from divacli.manifest import read_manifest
        from divacli.reading import EVERY
        from divacli.report.page.review import prepare
        from divacli.report.page.server import ReviewServer
        from divacli.results.read import read_results

        results = read_results(folder)
        known = None if truth is None else read_manifest(truth, labels="optional", reading=EVERY)
        ready, notes = prepare(results, compute.cache, RichProgress(frame), known)
        with closing(ready.ledger), ReviewServer(ready, port) as server:
            for sentence in notes:
                note(sentence, frame)
            # The address is the result of this command: it is said whatever --quiet.
            say(server.address, "open it in a browser on this machine; Ctrl-C ends the review")
            with server.shown(folder) if browser else nullcontext():
                try:
                    server.serve_forever()
                except KeyboardInterrupt:
                    console().print()
        file, made = ready.ledger.file, len(ready.ledger)
        say(
            f"{made:,} decisions in {file}; to apply them: diva apply DATA {shlex.quote(str(file))}"
            if made
            else "no decisions were made"
        )
