"""`diva demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import RichProgress, console
from divacli.cli.options import FrameOptions, Overwrite
from divacli.cli.values import path_value


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "demo")
    def demo(
        frame: FrameOptions,
        out: Annotated[
            Path,
            typer.Option(
                "--out", "-o", help="Folder for images and results.", metavar="DIR", parser=path_value
            ),
        ] = Path("diva-demo"),
        seed: Annotated[
            int, typer.Option(help="Of the split, the training and the wrong labels.", min=0)
        ] = 0,
        overwrite: Overwrite = False,
    ) -> None:
        """Find planted label errors in real images, offline, in under a minute.

        Writes handwritten digits as PNG files, a tenth of them mislabelled, and a small network trained on
        other digits; then scores and prunes them, and makes a page to look at, with the commands that it
        shows.

        Example:
        `diva demo --out digits/`
        """
        from divacli.demo.digits import make_digits, require_empty
        from divacli.demo.planted import found_errors

        require_empty(out, overwrite=overwrite)
        scores = out / "scores" / "scores.csv"
        # It is made again in the end, of scores that differ from those it shows.
        scores.with_name("report.html").unlink(missing_ok=True)
        screen = console()
        shown = (
            (lambda text: None)
            if frame.quiet
            else (lambda text: screen.print(text, markup=False, soft_wrap=True))
        )
        shown(
            "Handwritten digits: training a small network on one half, mislabelling a tenth of the other ..."
        )
        digits = make_digits(out, seed, RichProgress(frame))
        wrong = int(digits.flipped.sum())
        shown(f"{len(digits.flipped)} images, {wrong} with a wrong label, in {out}")
        shown("")
        shared = ["--cache-dir", str(out / "cache")]
        shared += [flag for flag, wanted in (("--quiet", frame.quiet), ("--overwrite", overwrite)) if wanted]
        score = [
            *("score", str(digits.labels), "--model", f"{digits.factory}:digit_net"),
            *("--checkpoint", str(digits.checkpoint), "--out", str(scores.parent)),
        ]
        prune = ["prune", str(scores), "--keep", "auto", "--out", str(out / "pruned")]
        report = ["report", str(scores.parent), "--truth", str(out / "truth.csv")]
        for arguments in (score, prune, report):
            shown(f"$ diva {shlex.join(arguments)}")
            status = app([*arguments, *shared], standalone_mode=False)
            if status:
                raise typer.Exit(status)
            shown("")
        scored, pruned = found_errors(digits, scores, out / "pruned" / "dropped.csv")
        shown(f"The {wrong} wrong labels, found by")
        for rule, found in (("probability", scored), ("--keep auto", pruned)):
            shown(
                f"  {rule:<16} {found.n_marked:>4} samples, {found.n_hits} of them wrong: "
                f"precision {found.precision:.2f}, recall {found.recall:.2f}"
            )
