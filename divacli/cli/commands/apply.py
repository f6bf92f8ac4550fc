"""`diva apply`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import RichProgress, note
from divacli.cli.options import Data, FrameOptions, OutputOptions
from divacli.cli.reading_options import WITHOUT_OTHERS, ReadingOptions
from divacli.files.existing import require_present


class Way(StrEnum):
    """How images come into a folder."""

    symlink = "symlink"
    hardlink = "hardlink"
    copy = "copy"


class LabelIssues(StrEnum):
    """What becomes of a label issue of cleanlab."""

    drop = "drop"
    relabel = "relabel"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "apply", without=("report", *WITHOUT_OTHERS))
    def apply(
        data: Data,
        reading: ReadingOptions,
        output: OutputOptions,
        frame: FrameOptions,
        decisions: Annotated[
            str | None,
            typer.Argument(
                help="A table with path,decision and where relabelled label, such as the decisions.csv of a "
                "review; issues of cleanlab; or a JSON export of Label Studio.",
                metavar="DECISIONS",
                show_default=False,
            ),
        ] = None,
        materialize: Annotated[
            Way | None,
            typer.Option(
                help="Also make DIR/images with one sub-folder a class, of links to the images, other names "
                "for them, or copies.",
                show_default=False,
                rich_help_panel="Output",
            ),
        ] = None,
        label_issues: Annotated[
            LabelIssues,
            typer.Option(help="What a label issue of cleanlab means.", rich_help_panel="Decision"),
        ] = LabelIssues.drop,
    ) -> None:
        """Carry out decisions: drop samples, change labels, and make a folder of what stays.

        Writes applied.csv, removed.csv and apply.json. The images themselves are never changed, and neither
        network nor features are needed.

        Examples:
        `diva apply photos/ decisions.csv`

        `diva apply diva-out/scores.csv decisions.csv --materialize symlink --out reviewed/`

        `diva apply labels.csv export.json -o - > applied.csv`

        `diva apply labels.csv --materialize copy --out folder/`
        """
        if decisions is None and materialize is None:
            raise typer.BadParameter("give DECISIONS, or --materialize to make a folder of DATA as it is")
        if decisions == data == "-":
            raise typer.BadParameter("DATA and DECISIONS cannot both come on standard input")
        if materialize is not None and output.out == "-":
            raise typer.BadParameter("--materialize needs a folder: give it with --out DIR")
        require_present(data, decisions)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output, require_no_input
        from divacli.interchange.read import read_decisions
        from divacli.manifest.understood import sentence
        from divacli.report.terminal.apply import apply_summary
        from divacli.review.apply import FILES, rows_of, with_images
        from divacli.review.apply import apply as apply_decisions
        from divacli.review.materialize import FOLDER, require_apart

        # Before anything is read: what would be lost may be no use as DATA any more.
        require_no_input(output.out, FILES)
        manifest = rows_of(reading.data(data))
        decided = None
        if decisions is not None:
            decided = read_decisions(decisions, manifest.classes, label_issues=label_issues.value)
        result = apply_decisions(manifest, decided)
        for told in (sentence(manifest), *manifest.notes):
            note(told, frame)
        if materialize is not None:
            # Before the folder for the results is made, which is not to appear in DATA.
            require_apart(manifest, Path(output.out) / FOLDER)
        target = Output(output, *FILES)
        if materialize is not None:
            result = with_images(result, target.files, materialize.value, RichProgress(frame))
        deliver(result, target, apply_summary, frame)
