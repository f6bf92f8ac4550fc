"""`diva apply`."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import RichProgress, console, note, warn
from divacli.cli.options import Data, FrameOptions, OutputOptions
from divacli.files.place import STORE_FILE, place_of
from divacli.files.present import require_present
from divacli.files.urls import is_url, suffix_of

if TYPE_CHECKING:
    from divacli.manifest import Manifest


class Way(StrEnum):
    """How images come into a folder."""

    symlink = "symlink"
    hardlink = "hardlink"
    copy = "copy"


class LabelIssues(StrEnum):
    """What becomes of a label issue of cleanlab."""

    drop = "drop"
    relabel = "relabel"


_FILES = ("applied", "removed", "apply.json")


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "apply", without=("report",))
    def apply(
        data: Data,
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
        from dataclasses import replace
        from pathlib import Path

        from divacli.cli.output import Output, require_no_input
        from divacli.errors import listed
        from divacli.interchange.read import read_decisions
        from divacli.report.terminal.apply import apply_summary
        from divacli.results.accounting import account
        from divacli.review.apply import apply as apply_decisions
        from divacli.review.materialize import FOLDER, require_apart
        from divacli.review.materialize import materialize as make_folder

        # Before anything is read: what would be lost may be no use as DATA any more.
        require_no_input(output.out, _FILES)
        manifest = rows_of(data)
        decided = None
        if decisions is not None:
            decided = read_decisions(decisions, manifest.classes, label_issues=label_issues.value)
        result = apply_decisions(manifest, decided)
        for sentence in manifest.notes:
            note(sentence, frame)
        said = [*manifest.warnings, *(decided.warnings if decided is not None else ())]
        if materialize is not None:
            # Before the folder for the results is made, which is not to appear in DATA.
            require_apart(manifest, Path(output.out) / FOLDER)
        target = Output(output, *_FILES)
        table, origin = result.table, manifest.folder
        # Now: in the folder of images they have other names.
        account([manifest], [table, result.removed], manifest.folder, labels=False)
        if materialize is not None:
            table, more = make_folder(
                replace(manifest, table=table),
                target.base / FOLDER,
                materialize.value,
                output.format.value,
                RichProgress(frame),
                target.made(FOLDER),
            )
            origin = target.base.resolve()
            said += more
        target.table("removed", result.removed, manifest.folder, part=True)
        target.json("apply.json", result.summary)
        target.table("applied", table, origin, main=True, part=True)
        target.done()
        if result.summary["emptied"]:
            said.append(f"no sample is left with the label {listed(result.summary['emptied'])}")
        if result.summary["new_labels"]:
            said.append(
                f"no sample had the label {listed(result.summary['new_labels'])} before: check the spelling"
            )
        for sentence in said:
            warn(sentence)
        if not frame.quiet:
            screen = console()
            for part in apply_summary(result.summary):
                screen.print(part)
            if target.written:
                screen.print(f"wrote {', '.join(target.written)} in {target.folder}", markup=False)


def rows_of(data: str) -> Manifest:
    """The samples of DATA, of any kind, without their features.

    Raises:
        DivaError: DATA is not usable.
    """
    from divacli.manifest import Manifest, read_manifest

    # What may be a feature store takes torch, which takes seconds, to open; the rest is spared these.
    if is_url(data):
        store = not suffix_of(data)
    else:
        store = os.path.exists(os.path.join(str(place_of(data)), STORE_FILE))  # noqa: PTH110, PTH118
    if not store:
        return read_manifest(data)
    from divacli.embed import read_data

    opened = read_data(data)
    return opened if isinstance(opened, Manifest) else opened.manifest
