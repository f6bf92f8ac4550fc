"""List what lies in a folder: images, other files, and what is passed over."""

from __future__ import annotations

import os
import posixpath
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from divacli.errors import DataError, listed
from divacli.files.path_or_url import holds_results
from divacli.images.kinds import KINDS, is_called_image, sniff
from divacli.images.spread import evenly

DROPPINGS = (
    *("@eaDir", "@Recycle", "@Recently-Snapshot", "@tmp", "@__thumb", "#recycle", "#snapshot"),
    *("__MACOSX", "Network Trash Folder", "Temporary Items", "$RECYCLE.BIN", "RECYCLER", "Recycled"),
    *("System Volume Information", "FOUND.000", "lost+found", "__pycache__"),
)
"""Folders that storage boxes, archives and file systems leave behind, with thumbnails or old images."""

_DROPPED = frozenset(name.casefold() for name in DROPPINGS)
_FEW = 5
_LOOKED_INTO = 20


@dataclass
class Listing:
    """What lies in a folder; paths are relative to it, with "/".

    Attributes:
        images: Image files, sorted.
        others: Other files, sorted.
        folders: Names of the folders directly in it.
        results: Folders of diva's results, which are not looked into.
        droppings: Folders of `DROPPINGS`, likewise.
        excluded: Files and folders that a pattern excludes.
        unmatched: Patterns that match nothing.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    droppings: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)

    def warnings(self, name: str) -> list[str]:
        """What is passed over, one sentence each.

        Args:
            name: How messages call the folder.
        """
        told = [
            (self.results, "folders of results of diva", listed(self.results)),
            (self.droppings, "folders that systems leave behind", listed(self.droppings)),
            (self.others, "files that are not images", by_suffix(self.others)),
        ]
        said = [f"{name}: not used, {len(found):,} {what}: {which}." for found, what, which in told if found]
        if self.unmatched:
            said.append(f"{name}: nothing is excluded by {listed(self.unmatched)}.")
        return said

    def left_out(self, used: Iterable[str] | None = None) -> dict[tuple[str, str], int]:
        """How many files and folders are no samples, by reason and suffix.

        Args:
            used: The images that are samples; None: all.
        """
        samples = set(self.images if used is None else used)
        unused = (
            [path for path in self.images if path not in samples] if len(samples) < len(self.images) else []
        )
        told = {
            "no image": self.others,
            "image of another split, or in no class folder": unused,
            "folder that systems leave behind": self.droppings,
            "folder of results of diva": self.results,
            "excluded": self.excluded,
        }
        counts = Counter((reason, _suffix(path)) for reason, paths in told.items() for path in paths)
        return dict(sorted(counts.items()))

    def notes(self, name: str) -> list[str]:
        """What the user asked for, one sentence each."""
        if not self.excluded:
            return []
        return [f"{name}: {len(self.excluded):,} files and folders are excluded: {by_suffix(self.excluded)}"]


def by_suffix(paths: Sequence[str]) -> str:
    """Name some paths, or count many by their suffix."""
    if len(paths) <= _FEW:
        return listed(list(paths))
    counts = Counter(map(_suffix, paths))
    return listed([f"{n:,} {suffix}" for suffix, n in counts.most_common()])


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower() or "no suffix"


def list_folder(folder: Path, name: str, exclude: Sequence[str] = ()) -> Listing:
    """List a folder and all below it.

    Symbolic links are followed. Hidden files and folders are not looked at.

    Args:
        folder: The folder.
        name: How messages call it.
        exclude: Glob patterns. One with "/" is compared with whole paths, another one with each name in them.

    Raises:
        DataError: A folder cannot be listed, or a name is not UTF-8.
    """
    found = Listing()
    excluded = Excluded(exclude)
    others: list[str] = []
    for path, is_folder in _walk(folder, found, excluded):
        if not is_folder:
            (found.images if is_called_image(path) else others).append(path)
        elif "/" not in path:
            found.folders.append(path)
    images = images_among(folder, others)
    found.images += images
    found.others += sorted(set(others) - images) if images else others
    check_names([*found.images, *found.folders], name)
    for names in (found.images, found.others, found.folders, found.results, found.droppings, found.excluded):
        names.sort()
    found.unmatched = excluded.unmatched
    return found


class Excluded:
    """What patterns exclude.

    Args:
        patterns: As of `list_folder`.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = {pattern: pattern.strip("/").removeprefix("./") for pattern in patterns}
        self._used: set[str] = set()

    def __call__(self, path: str) -> bool:
        """Whether a path is excluded, by itself or by a folder that it lies in."""
        hit = False
        for pattern, plain in self._patterns.items():
            if "/" in plain:
                matches = fnmatchcase(path, plain) or fnmatchcase(path, f"{plain}/*")
            else:
                matches = any(fnmatchcase(part, plain) for part in path.split("/"))
            if matches:
                self._used.add(pattern)
                hit = True
        return hit

    @property
    def unmatched(self) -> list[str]:
        """Patterns that have matched nothing so far."""
        return [pattern for pattern in self._patterns if pattern not in self._used]


def has_images(folder: Path) -> bool:
    """Whether there is an image anywhere below a folder, as `list_folder` looks for them.

    Raises:
        DataError: A folder cannot be listed.
    """
    walk = _walk(folder, Listing(), Excluded(()))
    return any(not is_folder and is_called_image(path) for path, is_folder in walk)


def unlisted_images(
    folder: Path,
    listed_paths: Iterable[object],
    exclude: Sequence[str] = (),
    below: Collection[str] | None = None,
) -> int:
    """Count the images below a folder that a table of it does not name.

    Args:
        folder: The folder.
        listed_paths: Paths of the table, relative to it.
        exclude: As of `list_folder`.
        below: Names of the sub-folders that the table is of; None: it is of all that is there.

    Raises:
        DataError: A folder cannot be listed.
    """
    known = {os.path.normpath(path) for path in listed_paths if isinstance(path, str)}
    walk = _walk(folder, Listing(), Excluded(exclude))
    return sum(
        not is_folder
        and is_called_image(path)
        and path not in known
        and (below is None or path.partition("/")[0] in below)
        for path, is_folder in walk
    )


def images_among(folder: Path, others: Sequence[str]) -> set[str]:
    """Files that are images by their content, whatever they are called.

    Of each suffix some files are looked into, and all where one of these is an image.

    Args:
        folder: The folder.
        others: Files that are not called as images are, relative to it.
    """
    by_suffix: dict[str, list[str]] = {}
    for path in others:
        by_suffix.setdefault(posixpath.splitext(path)[1].lower(), []).append(path)
    found: set[str] = set()
    for paths in by_suffix.values():
        if any(_holds_picture(folder, path) for path in evenly(paths, _LOOKED_INTO)):
            found.update(path for path in paths if _holds_picture(folder, path))
    return found


def _holds_picture(folder: Path, path: str) -> bool:
    kind = sniff(str(folder / path))
    return kind is not None and KINDS[kind].image


def is_dropping(name: str) -> bool:
    """Whether a folder is one of `DROPPINGS`, in letters of any case."""
    return name.casefold() in _DROPPED


def _walk(top: Path, found: Listing, excluded: Excluded) -> Iterator[tuple[str, bool]]:
    """Every file and folder below `top`: its path relative to `top`, and whether it is a folder.

    Args:
        top: The folder.
        found: Takes the folders that are not looked into, and what is excluded.
        excluded: The patterns.
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
                found.results.append(prefix.rstrip("/"))
                continue
            with os.scandir(top / prefix) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = prefix + entry.name
                    is_folder = leads_to_folder(entry)
                    if is_folder and is_dropping(entry.name):
                        found.droppings.append(path)
                    elif excluded(path):
                        found.excluded.append(path)
                    else:
                        yield path, is_folder
                        if is_folder:
                            pending.append((f"{path}/", above | {identity}))
        except OSError as error:
            raise DataError(
                f"{top / prefix} cannot be listed: {error.strerror}",
                hint="make it readable, or move it elsewhere",
            ) from error


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
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
