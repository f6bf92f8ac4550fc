"""The options that say what DATA is to be taken for, and which set they are for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from divacli.cli.values import range_value
from divacli.reading import ALL, EVERY, NamedData, Reading

_READING = "Reading"


@dataclass(frozen=True)
class ReadingOptions:
    """What DATA, and the sets beside it, are to be taken for."""

    split: Annotated[
        list[str] | None,
        typer.Option(
            help="Split of DATA to read, such as train; repeatable. all: every split. none: DATA has no "
            "splits, whatever its folders and cells are called.",
            metavar="NAME|all|none",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    val_split: Annotated[
        list[str] | None,
        typer.Option(
            help="Split that is the validation set: of --val, or of DATA without --val. Repeatable.",
            metavar="NAME",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    test_split: Annotated[
        list[str] | None,
        typer.Option(
            help="Split that is the test set: of --test, or of DATA without --test. Repeatable.",
            metavar="NAME",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    pool_split: Annotated[
        list[str] | None,
        typer.Option(
            help="Split of --pool to read; repeatable, or all.",
            metavar="NAME",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    path_column: Annotated[
        str | None,
        typer.Option(
            help="Column of a table that names the images; suffixes may be missing. Default: path.",
            metavar="COLUMN",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a table that holds the labels. Several, with commas or repeated, are one-hot: "
            "one column a class. Default: label.",
            metavar="COLUMN[,COLUMN...]",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    label_from: Annotated[
        str | None,
        typer.Option(
            help="Take the label from the name of each file: the first group of this regular expression, "
            r"such as `([a-z]+)\.`",
            metavar="REGEX",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    root: Annotated[
        str | None,
        typer.Option(
            help="Folder that the paths of a table start from; its sub-folders are searched, too. Default: "
            "the table's folder.",
            metavar="DIR",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    weight: Annotated[
        str | None,
        typer.Option(
            help="Column of a table that holds the weights of samples. none: it has no weights. Default: "
            "weight, where diva wrote the table.",
            metavar="COLUMN|none",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out files and folders that match, such as `masks` or `*/masks/*`; repeatable.",
            metavar="GLOB",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None
    range: Annotated[
        str | None,
        typer.Option(
            help="The values that are black and white in images of more than 8 bits. Default: found from the "
            "images.",
            metavar="LOW,HIGH",
            show_default=False,
            rich_help_panel=_READING,
        ),
    ] = None

    def reading(self) -> Reading:
        """What DATA is to be taken for."""
        return Reading(
            tuple(self.split or ()),
            self.path_column,
            tuple(self.label_column or ()),
            self.label_from,
            self.root,
            self.weight,
            tuple(self.exclude or ()),
            range=range_value(self.range),
        )

    def data(self, name: str, *beside: str | None) -> NamedData:
        """DATA.

        Args:
            name: As it was named.
            beside: Names of the sets beside it, None where one is not given.
        """
        there = any(one is not None for one in beside)
        return NamedData(name, replace(self.reading(), beside=there))

    def val(self, name: str | None, data: str) -> NamedData | None:
        """The validation set: `--val`, or a split of DATA; None for neither."""
        return self._other(name, data, self.val_split, "val")

    def test(self, name: str | None, data: str) -> NamedData | None:
        """The test set: `--test`, or a split of DATA; None for neither."""
        return self._other(name, data, self.test_split, "test")

    def pool(self, name: str) -> NamedData:
        """A pool."""
        return NamedData(name, self._beside(self.pool_split, "pool"))

    def judged(self, name: str) -> NamedData:
        """A training set that was made of DATA: all that is there."""
        return NamedData(name, self._beside([ALL], "manifest"))

    def _other(self, name: str | None, data: str, split: list[str] | None, role: str) -> NamedData | None:
        if name is None and split is None:
            return None
        if name is None and data == "-":
            raise typer.BadParameter(f"--{role}-split: DATA on standard input is read once; give a file")
        return NamedData(name or data, self._beside(split, role))

    def _beside(self, split: list[str] | None, role: str) -> Reading:
        return replace(self.reading(), split=tuple(split or ()), role=role)


def compared(name: str | None) -> NamedData | None:
    """A set that is only compared with DATA, such as true labels."""
    return None if name is None else NamedData(name, EVERY)


WITHOUT_TEST = ("test_split", "pool_split")
"""Options of reading for who takes neither a test set nor a pool."""

WITHOUT_OTHERS = ("val_split", *WITHOUT_TEST)
"""Options of reading for who takes DATA alone."""
