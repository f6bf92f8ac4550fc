"""`diva export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import say, warn
from divacli.cli.options import FrameOptions, OutputOptions
from divacli.cli.values import path_value
from divacli.files.existing import require_present


class Tool(StrEnum):
    """Who the scores are for."""

    cleanlab = "cleanlab"
    label_studio = "label-studio"
    fiftyone = "fiftyone"


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
        from divacli.interchange import cleanlab, fiftyone, label_studio
        from divacli.interchange.read_scores import read_scores

        scores = read_scores(table)
        shown = scores if limit is None else scores.select(np.arange(min(limit, len(scores.table))))
        files = {
            Tool.cleanlab: cleanlab.FILES,
            Tool.label_studio: label_studio.FILES,
            Tool.fiftyone: fiftyone.FILES,
        }
        target = Output(output, *files[to])
        if to is Tool.cleanlab:
            cleanlab.write_issues(target.files, shown, cleanlab.copies_beside(table, scores, warn))
        elif to is Tool.fiftyone:
            fiftyone.write_fields(target.files, shown)
        else:
            root = None if image_root is None else str(image_root)
            made = label_studio.write_tasks(target.files, shown, scores.classes, root, url_prefix)
            if made.root is not None and not frame.quiet:
                say(f"Label Studio's document root: {made.root}", f"its source storage: {made.storage}")
        target.done(whole=False)
        if not frame.quiet:
            say_written(target, f"{WROTE} ({len(shown.table):,} samples)")
