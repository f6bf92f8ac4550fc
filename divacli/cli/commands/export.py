"""`diva export`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import say, warn
from divacli.cli.options import FrameOptions, OutputOptions
from divacli.cli.values import path_value
from divacli.errors import DataError
from divacli.files.present import require_present
from divacli.files.urls import is_url

if TYPE_CHECKING:
    from divacli.cli.output import Output
    from divacli.interchange.label_studio import Tasks
    from divacli.manifest import Manifest


class Tool(StrEnum):
    """Who the scores are for."""

    cleanlab = "cleanlab"
    label_studio = "label-studio"
    fiftyone = "fiftyone"


_FILES = {
    Tool.cleanlab: ("cleanlab",),
    Tool.label_studio: ("tasks.json", "labeling_config.xml"),
    Tool.fiftyone: ("fiftyone.jsonl", "import_fiftyone.py"),
}
"""What is written for each."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "export", without=("report",))
    def export(
        table: Annotated[
            str,
            typer.Argument(
                help="A table of scores, such as scores.csv; - for one on standard input.",
                metavar="TABLE",
                show_default=False,
            ),
        ],
        to: Annotated[
            Tool, typer.Option(help="Who the scores are for.", show_default=False, rich_help_panel="Tool")
        ],
        output: OutputOptions,
        frame: FrameOptions,
        limit: Annotated[
            int | None,
            typer.Option(help="Only so many samples, the most harmful ones.", min=1, rich_help_panel="Tool"),
        ] = None,
        image_root: Annotated[
            Path | None,
            typer.Option(
                help="label-studio: the folder that names of images start from, its document root. Default: "
                "the one above what the images have in common; of --url-prefix that one.",
                metavar="DIR",
                parser=path_value,
                show_default=False,
                rich_help_panel="Tool",
            ),
        ] = None,
        url_prefix: Annotated[
            str | None,
            typer.Option(
                help="label-studio: where the image root is served, such as https://host/images/. Default: "
                "its own local files.",
                metavar="URL",
                rich_help_panel="Tool",
            ),
        ] = None,
    ) -> None:
        """Hand scores to cleanlab, Label Studio or FiftyOne; diva apply takes decisions back.

        Writes cleanlab.csv; tasks.json and labeling_config.xml; or fiftyone.jsonl and import_fiftyone.py.

        Examples:
        `diva export diva-out/scores.csv --to cleanlab`

        `diva export diva-out/scores.csv --to label-studio --limit 500 --out relabelling/`

        `diva export diva-out/scores.csv --to fiftyone --out fiftyone/`
        """
        if to is not Tool.label_studio:
            for name, value in (("--image-root", image_root), ("--url-prefix", url_prefix)):
                if value is not None:
                    raise typer.BadParameter(f"{name} is for --to label-studio")
        if output.out == "-" and to is not Tool.cleanlab:
            raise typer.BadParameter("--out - is for --to cleanlab: the others take more than one file")
        require_present(table)
        import numpy as np

        from divacli.cli.deliver import WROTE, say_written
        from divacli.cli.output import Output
        from divacli.interchange.scored import read_scores

        scores = read_scores(table)
        classes = scores.classes
        shown = scores if limit is None else scores.select(np.arange(min(limit, len(scores.table))))
        target = Output(output, *_FILES[to])
        if to is Tool.cleanlab:
            _cleanlab(target, shown, _copies(table, scores))
        elif to is Tool.fiftyone:
            _fiftyone(target, shown)
        else:
            root = None if image_root is None else str(image_root)
            made = _label_studio(target, shown, classes, root, url_prefix)
            if made.root is not None and not frame.quiet:
                say(f"Label Studio's document root: {made.root}", f"its source storage: {made.storage}")
        target.done(whole=False)
        if not frame.quiet:
            say_written(target, f"{WROTE} ({len(shown.table):,} samples)")


def _cleanlab(target: Output, scores: Manifest, copies: set[str] | None) -> None:
    from divacli.interchange.cleanlab import issues_of

    target.table("cleanlab", issues_of(scores, copies), scores.folder, main=True)


def _copies(table: str, scores: Manifest) -> set[str] | None:
    """Paths in the table of duplicates that lies beside the scores, if there is one."""
    from divacli.manifest.bounded import read_table
    from divacli.manifest.tabular import FORMATS, parse

    beside = [Path(table).with_name(f"duplicates.{format}") for format in FORMATS]
    found = [] if table == "-" or is_url(table) else [file for file in beside if os.path.lexists(file)]
    if not found:
        return None
    format = found[0].suffix[1:]
    try:
        copies = parse(read_table(found[0], format, str(found[0])), format, str(found[0]))
    except OSError as error:
        raise DataError(f"{found[0]} cannot be read: {error.strerror}", hint="remove it") from error
    paths = set(copies["path"]) if "path" in copies else set()
    if not paths <= set(scores.table["path"]):
        warn(f"{found[0]} is of other samples than {table}: the column is_near_duplicate_issue is left out")
        return None
    return paths


def _fiftyone(target: Output, scores: Manifest) -> None:
    from divacli.interchange.fiftyone import SCRIPT, TABLE, fields_of, script

    target.table(TABLE, fields_of(scores), scores.folder, format="jsonl")
    target.text(SCRIPT, script())


def _label_studio(
    target: Output, scores: Manifest, classes: list[str], root: str | None, url_prefix: str | None
) -> Tasks:
    """Write tasks and interface."""
    import json

    from divacli.interchange.label_studio import interface_of, tasks_of

    made = tasks_of(scores, root, url_prefix)
    interface = interface_of(classes)
    target.text("tasks.json", json.dumps(made.tasks, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    target.text("labeling_config.xml", interface)
    return made
