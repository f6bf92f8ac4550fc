"""Read a folder with one sub-folder a class as a sample table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from divacli.errors import Again, DataError, listed
from divacli.manifest.beside import Beside, table_beside
from divacli.manifest.columns import SPLIT
from divacli.manifest.listing import Listing, list_folder
from divacli.manifest.splits import (
    Splits,
    is_form,
    only_folder,
    preferred,
    require_split,
    shared_folders,
    splits_in,
)
from divacli.manifest.table_columns import labels_from
from divacli.reading import ALL, AS_IT_IS, NONE, Reading

_LAYOUT = "one sub-folder a class with images in it, such as cat/1.jpg and dog/2.jpg"
_IMAGES = ("image", "images", "img", "imgs", "photo", "photos", "original", "originals", "rgb")
"""Names of folders that hold the images themselves, where others hold what was made of them."""

_LAYOUT_OPTIONAL = f"{_LAYOUT}, or images without labels directly in the folder"


@dataclass(frozen=True)
class FolderTable:
    """The samples of a folder.

    Attributes:
        table: path relative to the folder with "/", label, and split where there are splits; sorted by path.
        warnings: One sentence each.
        notes: What is no warning, one sentence each.
        left_out: Files that are no samples: how many for each reason and suffix.
    """

    table: pd.DataFrame
    warnings: list[str]
    notes: list[str]
    left_out: Mapping[tuple[str, str], int]


def read_folder(
    folder: Path, name: str, *, labels_required: bool = True, reading: Reading = AS_IT_IS
) -> FolderTable:
    """List the images of a folder, each labelled with the sub-folder it lies in.

    Images may lie at any depth below the class folder.

    Args:
        folder: The folder.
        name: How messages call it.
        labels_required: Whether there must be class folders; else images that all lie directly in the folder
            have the label "".
        reading: Splits, patterns, and how labels are told from names.

    Raises:
        DataError: A folder cannot be listed, a name is not UTF-8, no class folder has images, there are
            several splits and none is chosen, or a table beside the folders tells other classes.
    """
    found = list_folder(folder, name, reading.exclude)
    warnings = found.warnings(name)
    notes = found.notes(name)
    splits = None if reading.split == (NONE,) else splits_in(found.images)
    if reading.label_from is not None and not found.images:
        raise _no_classes(folder, name, found, [], reading, labels_required=True)
    if reading.label_from is not None and splits is None and not reading.named_split:
        labels = labels_from(found.images, reading.label_from, name)
        return FolderTable(_table(found.images, labels), warnings, notes, found.left_out())
    if splits is not None and (reading.label_from is not None or not splits.have_classes(found.images)):
        if labels_required and reading.label_from is None:
            raise _splits_without_classes(folder, name, found, splits, reading)
        table = _without_folders(found, splits, name, reading)
        return FolderTable(table, warnings, notes, found.left_out(table["path"]))
    if splits is not None:
        if labels_required:
            _require_labels_of_splits(folder, name, found, splits, reading.role)
        table, left = _of_splits(found, splits, name, reading)
        return FolderTable(table, [*left, *warnings], notes, found.left_out(table["path"]))
    if reading.named_split:
        raise DataError(
            f"{name} has no splits: its folders are {listed(found.folders, limit=8) or 'none'}",
            expected="folders such as train and test, with the same class folders in each",
            hint="leave --split out",
        )
    loose = [path for path in found.images if "/" not in path]
    paths = [path for path in found.images if "/" in path]
    if not paths and not labels_required:
        paths, loose = loose, []
    if not paths:
        raise _no_classes(folder, name, found, loose, reading, labels_required=labels_required)
    labels = [path.partition("/")[0] if "/" in path else "" for path in paths]
    if labels_required:
        warnings += _require_classes(folder, name, found, paths, labels, reading.role)
    if loose:
        warnings.insert(
            0, f"{name}: not used, {len(loose):,} images outside any class folder: {listed(loose)}."
        )
    passed = {*labels, *found.results, *found.droppings, *found.excluded}
    if empty := [label for label in found.folders if label not in passed]:
        warnings.append(f"{name}: not used, {len(empty):,} sub-folders without images: {listed(empty)}.")
    warnings += _forms(paths, name)
    return FolderTable(_table(paths, labels), warnings, notes, found.left_out(paths))


def _forms(paths: Sequence[str], name: str) -> list[str]:
    """What to say of folders that most classes have, such as images and masks."""
    repeated = shared_folders(paths)
    if len(repeated) < 2 and not 0 < sum(repeated.values()) < len(paths):
        return []
    told = listed([f"{sub} ({n:,})" for sub, n in repeated.items()], limit=8)
    example = min(repeated, key=lambda sub: (sub.lower() in _IMAGES, sub))
    return [
        f"{name}: the images of all folders in the classes are samples: {told}"
        + (f". --exclude '*/{example}/*' leaves one of them out." if is_form(example) else ".")
    ]


def _require_labels_of_splits(folder: Path, name: str, found: Listing, splits: Splits, role: str) -> None:
    """Refuse splits without classes where a table beside them names their images.

    Raises:
        DataError: There is such a table.
    """
    labels = {place[1] for path in found.images if (place := splits.split_and_class(path)) is not None}
    if len(labels) > 1:
        return
    beside = table_beside(folder, found.others, dict.fromkeys(found.images, ""))
    if beside is not None:
        raise _told_by(beside, name, sorted(splits.counts), role)


def _table(paths: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({"path": pd.Series(paths, dtype="str"), "label": pd.Series(labels, dtype="str")})


def _splits_without_classes(
    folder: Path, name: str, found: Listing, splits: Splits, reading: Reading
) -> DataError:
    """The error for splits without class folders, with what tells the labels where something does."""
    beside = table_beside(folder, found.others, dict.fromkeys(found.images, ""))
    if beside is not None:
        return _told_by(beside, name, sorted(splits.counts), reading.role)
    first = preferred(list(splits.counts), reading.role)
    chosen = reading.split[0] if reading.named_split and reading.split != (ALL,) else first
    error = DataError(
        f"{name} has splits without class folders in them: {listed(list(splits.counts), limit=8)}",
        expected=f"in each {_LAYOUT}; or --split {NONE}, where these folders are the classes",
    )
    names = [path.rpartition("/")[2] for path in found.images if splits.split(path) == chosen]
    if not reading.role and (pattern := _pattern_of(names)):
        error.hint = Again(name, name, {"label_from": pattern, SPLIT: chosen})
    return error


def _without_folders(found: Listing, splits: Splits, name: str, reading: Reading) -> pd.DataFrame:
    """The samples of the splits that are chosen, with labels from their names or none."""
    chosen = require_split(name, splits.counts, reading)
    pairs = [(path, split) for path in found.images if (split := splits.split(path)) in chosen]
    paths = [path for path, _ in pairs]
    labels = [""] * len(paths)
    if reading.label_from is not None:
        labels = labels_from(paths, reading.label_from, name)
    return _table(paths, labels).assign(split=pd.Series([split for _, split in pairs], dtype="str"))


def _of_splits(found: Listing, splits: Splits, name: str, reading: Reading) -> tuple[pd.DataFrame, list[str]]:
    """The samples of the splits that are chosen, and what of them is not used."""
    doubt = (
        "" if splits.certain else f"; or --split {NONE}, where they are classes with the same folders in each"
    )
    if len(splits.counts) == 1 and not reading.split:
        [only] = splits.counts
        raise DataError(
            f"{name} looks like a folder of splits with one in it: {only}",
            expected=_LAYOUT,
            hint=Again(name, name, {SPLIT: only}, role=reading.role),
        )
    chosen = require_split(name, splits.counts, reading, doubt=doubt)
    rows: list[tuple[str, str, str]] = []
    loose: list[str] = []
    for path in found.images:
        place = splits.split_and_class(path)
        if place is not None and place[0] in chosen:
            rows.append((path, place[1], place[0]))
        elif place is None and (splits.inside or path.partition("/")[0] in (*chosen, path)):
            loose.append(path)
    warnings = []
    if loose:
        warnings.append(f"{name}: not used, {len(loose):,} images outside any class folder: {listed(loose)}.")
    if splits.rest:
        warnings.append(f"{name}: not used, folders beside the splits: {listed(splits.rest)}.")
    if not rows:
        raise DataError(
            f"{name} has no images in class folders of the split {listed(list(chosen))}", expected=_LAYOUT
        )
    paths, labels, of_split = zip(*rows, strict=True)
    table = _table(list(paths), list(labels)).assign(split=pd.Series(of_split, dtype="str"))
    return table, warnings


def _require_classes(
    folder: Path, name: str, found: Listing, paths: Sequence[str], labels: Sequence[str], role: str
) -> list[str]:
    """Refuse folders that are no classes: one around all others, or those of a table beside them.

    Returns:
        Warnings.

    Raises:
        DataError: They are such.
    """
    used = set(labels)
    if len(used) == 1:
        [only] = used
        inner = only_folder(paths)
        below = [path.removeprefix(f"{inner}/") for path in paths]
        if len({path.partition("/")[0] for path in below if "/" in path}) > 1:
            splits = splits_in(below)
            options = {} if splits is None else {SPLIT: preferred(list(splits.counts), role)}
            told = "" if splits is None else f", which are splits: {listed(list(splits.counts), limit=8)}"
            error = DataError(
                f"{name} holds one folder, {only}, and all others in it{told}", expected=_LAYOUT
            )
            if splits is None or splits.have_classes(below):
                error.hint = Again(name, f"{name.rstrip('/')}/{inner}", options, role=role)
            raise error
    beside = table_beside(folder, found.others, dict(zip(paths, labels, strict=True)))
    if beside is None or beside.agrees:
        return []
    if not beside.labelled:
        return [f"{name}: not used, a table beside the folders: {beside.told}."]
    raise _told_by(beside, name, sorted(used), role)


def _told_by(beside: Beside, name: str, folders: list[str], role: str) -> DataError:
    """The error for folders whose images a table names that has other classes."""
    expected = f"the table; or the folders, with --exclude {beside.file.name}"
    more = {}
    if "label_column" not in beside.suggestion.options and beside.suggestion.labels:
        labels = list(beside.suggestion.labels)
        more["label_column"] = labels[0]
        expected += f"; labels of the table may be in {listed(labels)}"
    return DataError(
        f"{name}: its folders are {listed(folders)}, and {beside.told}: which tells the classes?",
        expected=expected,
        hint=beside.again(name, role, **more),
    )


def _no_classes(
    folder: Path,
    name: str,
    found: Listing,
    loose: Sequence[str],
    reading: Reading,
    *,
    labels_required: bool,
) -> DataError:
    """The error for a folder without class folders, with what tells the labels where something does."""
    what = f"{len(loose):,} images without a class folder" if loose else "no images"
    results = f", of them folders of results of diva: {listed(found.results)}" if found.results else ""
    error = DataError(
        f"{name} has {what} ({len(found.folders):,} sub-folders{results})",
        expected=_LAYOUT if labels_required else _LAYOUT_OPTIONAL,
    )
    shards = [path for path in found.others if path.lower().endswith(".tar")]
    if shards:
        inner = shards[0].rpartition("/")[0]
        error.hint = f"point at the folder with the shards: {name.rstrip('/')}/{inner}"
    elif loose:
        beside = table_beside(folder, found.others, dict.fromkeys(loose, ""), around=True)
        if beside is not None:
            error.hint = beside.again(name, reading.role)
        elif not reading.role and (pattern := _pattern_of(loose)):
            error.hint = Again(name, name, {"label_from": pattern})
    return error


_PATTERNS = (r"^(.+?)[._ -]*\d+\.", r"^([A-Za-z]+)[._ -]", r"[._ -]([A-Za-z]+)\.[A-Za-z0-9]+$")
"""Ways in which names of files tell classes: t-shirt_12.png, cat.front.jpg, 0001-cat.jpg."""


def _pattern_of(names: Sequence[str]) -> str | None:
    """A pattern by which names of files tell classes: cat.0.jpg, dog_12.png."""
    for pattern in _PATTERNS:
        found = [match[1] for path in names if (match := re.search(pattern, path))]
        if len(found) == len(names) and 2 <= len(set(found)) <= len(names) / 2:
            return pattern
    return None
