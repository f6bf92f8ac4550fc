"""`diva demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import RichProgress, console
from divacli.cli.options import FrameOptions, Overwrite
from divacli.cli.values import path_value
from divacli.errors import OutputError
from divacli.manifest.columns import MISLABEL_PROBABILITY

if TYPE_CHECKING:
    import pandas as pd


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
        from divacli.demo.digits import is_demo, make_digits
        from divacli.manifest import read_manifest

        if not (overwrite and is_demo(out)):
            _require_empty(out, overwrite=overwrite)
        # It is made again in the end, of scores that differ from those it shows.
        (out / "scores" / "report.html").unlink(missing_ok=True)
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
            *("--checkpoint", str(digits.checkpoint), "--out", str(out / "scores")),
        ]
        prune = ["prune", str(out / "scores" / "scores.csv"), "--keep", "auto", "--out", str(out / "pruned")]
        report = ["report", str(out / "scores"), "--truth", str(out / "truth.csv")]
        for arguments in (score, prune, report):
            shown(f"$ diva {shlex.join(arguments)}")
            status = app([*arguments, *shared], standalone_mode=False)
            if status:
                raise typer.Exit(status)
            shown("")
        truth = dict(zip(read_manifest(str(digits.labels)).files(), digits.flipped, strict=True))
        scores = read_manifest(str(out / "scores" / "scores.csv"))
        found = scores.table.assign(
            flipped=[truth[str(Path(file).resolve())] for file in scores.files()],
            called=scores.table[MISLABEL_PROBABILITY] > 0.5,
        )
        dropped = {
            Path(file).resolve() for file in read_manifest(str(out / "pruned" / "dropped.csv")).files()
        }
        found["dropped"] = [Path(file).resolve() in dropped for file in scores.files()]
        shown(f"The {wrong} wrong labels, found by")
        shown(_found("probability", found["called"], found["flipped"]))
        shown(_found("--keep auto", found["dropped"], found["flipped"]))


def _require_empty(out: Path, *, overwrite: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        OutputError: The folder has something in it.
    """
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(
            f"{out} is not empty" + (", and was not made by diva demo" if overwrite else ""),
            expected="a folder for the demonstration alone",
            hint="choose another one with --out"
            if overwrite
            else "make it anew with --overwrite, or choose another folder with --out",
        )


def _found(rule: str, marked: pd.Series[bool], flipped: pd.Series[bool]) -> str:
    """One line of precision and recall."""
    hits = int((marked & flipped).sum())
    return (
        f"  {rule:<16} {int(marked.sum()):>4} samples, {hits} of them wrong: "
        f"precision {hits / max(int(marked.sum()), 1):.2f}, recall {hits / int(flipped.sum()):.2f}"
    )
