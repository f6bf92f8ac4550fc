"""Read a folder with one sub-folder a class as a sample table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from divacli.errors import DataError, listed
from divacli.files.path_or_url import holds_results
from divacli.images.kinds import IMAGE_SUFFIXES

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
DROPPINGS = (
    *("@eaDir", "#recycle", "#snapshot", "__MACOSX"),
    *("$RECYCLE.BIN", "System Volume Information", "lost+found"),
)
"""Folders that storage boxes, archives and file systems leave behind, with thumbnails or old images."""

_LAYOUT = "one sub-folder a class with images in it, such as cat/1.jpg and dog/2.jpg"
_LAYOUT_OPTIONAL = f"{_LAYOUT}, or images without labels directly in the folder"


def read_folder(folder: Path, name: str, *, labels_required: bool = True) -> tuple[pd.DataFrame, list[str]]:
    """List the images of a folder, each labelled with the sub-folder it lies in.

    Images may lie at any depth below the class folder. Symbolic links are followed. Hidden files and folders
    are not looked at, and neither are folders of results, whose plots are no samples.

    Args:
        folder: The folder.
        name: How messages call it.
        labels_required: Whether there must be class folders; else images that all lie directly in the folder
            have the label "".

    Returns:
        The table (path relative to `folder` with "/", and label), sorted by path, and the warnings.

    Raises:
        DataError: A folder cannot be listed, a name is not UTF-8, or no class folder has images.
    """
    images: list[str] = []
    others: list[str] = []
    classes: set[str] = set()
    results: list[str] = []
    skipped: list[str] = []
    for path, is_folder in _walk(folder, results, skipped):
        if is_folder:
            if "/" not in path:
                classes.add(path)
        elif _is_image(path):
            images.append(path)
        else:
            others.append(path)
    check_names([*images, *classes], name)

    loose = sorted(path for path in images if "/" not in path)
    paths = sorted(path for path in images if "/" in path)
    if not paths and not labels_required:
        paths, loose = loose, []
    labels = [path.partition("/")[0] if "/" in path else "" for path in paths]
    if not paths:
        found = f"{len(loose):,} images without a class folder" if loose else "no images"
        shards = sorted(path for path in others if path.lower().endswith(".tar"))
        raise DataError(
            f"{name} has {found} ({len(classes):,} sub-folders"
            + (f", of them folders of results of diva: {listed(sorted(results))})" if results else ")"),
            expected=_LAYOUT if labels_required else _LAYOUT_OPTIONAL,
            hint=f"point at the folder with the shards: {name.rstrip('/')}/{shards[0].rpartition('/')[0]}"
            if shards
            else "",
        )
    used = set(labels)
    if used <= _SPLITS:
        first = f"{name.rstrip('/')}/{min(used, key=lambda split: (not split.startswith('train'), split))}"
        split_note = (
            f"{name} looks like a folder of splits ({listed(sorted(used))}), which were taken for classes"
        )
        if len(used) == 1:
            raise DataError(split_note, expected=_LAYOUT, hint=f"point at one of them: {first}")
        warnings = [f"{split_note}: point at one of them, such as {first}."]
    else:
        warnings = []
    if loose:
        warnings.append(f"{name}: not used, {len(loose):,} images outside any class folder: {listed(loose)}.")
    if results:
        warnings.append(
            f"{name}: not used, {len(results):,} folders of results of diva: {listed(sorted(results))}."
        )
    if skipped:
        warnings.append(
            f"{name}: not used, {len(skipped):,} folders that systems leave behind: "
            f"{listed(sorted(skipped))}."
        )
    if empty := sorted(classes - used - set(results)):
        warnings.append(f"{name}: not used, {len(empty):,} sub-folders without images: {listed(empty)}.")
    if others:
        warnings.append(
            f"{name}: not used, {len(others):,} files that are not images: {listed(sorted(others))}."
        )
    return pd.DataFrame(
        {"path": pd.Series(paths, dtype="str"), "label": pd.Series(labels, dtype="str")}
    ), warnings


def has_images(folder: Path) -> bool:
    """Whether there is an image anywhere below a folder, as `read_folder` looks for them.

    Raises:
        DataError: A folder cannot be listed.
    """
    return any(not is_folder and _is_image(path) for path, is_folder in _walk(folder, [], []))


def unlisted_images(folder: Path, listed_paths: Iterable[object]) -> int:
    """Count the images below a folder that a table of it does not name.

    Args:
        folder: The folder.
        listed_paths: Paths of the table, relative to it.

    Raises:
        DataError: A folder cannot be listed.
    """
    known = {os.path.normpath(path) for path in listed_paths if isinstance(path, str)}
    found = (path for path, is_folder in _walk(folder, [], []) if not is_folder)
    return sum(_is_image(path) and path not in known for path in found)


def _walk(top: Path, results: list[str], skipped: list[str]) -> Iterator[tuple[str, bool]]:
    """Every file and folder below `top`: its path relative to `top`, and whether it is a folder.

    Args:
        top: The folder.
        results: Takes the paths of folders of results, which are not looked into.
        skipped: Takes the paths of `DROPPINGS`, likewise.
    """
    # With each folder go the identities of the folders above it: a link back to one of those is a loop and is
    # not entered, while two links to one folder outside are two folders.
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        prefix, above = pending.pop()
        try:
            status = (top / prefix).stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                continue
            if prefix and holds_results(top / prefix):
                results.append(prefix.rstrip("/"))
                continue
            with os.scandir(top / prefix) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    is_folder = _is_folder(entry)
                    if is_folder and entry.name in DROPPINGS:
                        skipped.append(prefix + entry.name)
                        continue
                    yield prefix + entry.name, is_folder
                    if is_folder:
                        pending.append((f"{prefix}{entry.name}/", above | {identity}))
        except OSError as error:
            raise DataError(
                f"{top / prefix} cannot be listed: {error.strerror}",
                hint="make it readable, or move it elsewhere",
            ) from error


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself leads nowhere
        return False


def check_names(paths: list[str], name: str) -> None:
    """Refuse names that a table cannot hold.

    Args:
        paths: The names.
        name: How messages call the data.

    Raises:
        DataError: Names that are not UTF-8.
    """
    try:
        "\0".join(paths).encode()
    except UnicodeEncodeError:
        wrong = [ascii(path) for path in sorted(paths) if _undecodable(path)]
        raise DataError(
            f"{name}: {len(wrong):,} names are not UTF-8: {listed(wrong)}",
            expected="names that a table can hold",
            hint="rename them, for example with: convmv -r -f latin1 -t utf-8 --notest"
            if sys.getfilesystemencoding() == "utf-8"
            else f"Python takes names for {sys.getfilesystemencoding()} here: set PYTHONUTF8=1",
        ) from None


def _undecodable(path: str) -> bool:
    # The operating system's undecodable bytes arrive as lone surrogates.
    return any("\ud800" <= character <= "\udfff" for character in path)
