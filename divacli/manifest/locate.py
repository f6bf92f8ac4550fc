"""Look for the files of a table whose paths lead nowhere as they are written."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from divacli.errors import DataError, listed
from divacli.files.path_or_url import is_file, joined
from divacli.files.urls import is_url
from divacli.images.kinds import IMAGE_SUFFIXES, is_called_image
from divacli.manifest.listing import is_dropping, leads_to_folder

MOST_CHECKED = 200_000
"""So many paths are all looked up; of a longer table some are, evenly spread."""

_SAMPLE = 1_000

_DEPTH = 2  # levels of sub-folders that are looked into
_MOST_FOLDERS = 5_000

_BACKSLASH, _CASE, _SUFFIX, _FOLDER = "/ in place of \\", "another case", "a suffix", "a sub-folder"
_ENDING = "the end of the path alone"

_FOREIGN = re.compile(r"/|[A-Za-z]:/")
"""How paths begin that start from the root of a machine."""


@dataclass(frozen=True)
class Located:
    """Where the files of some paths are.

    Attributes:
        paths: In the order given; as they were where nothing was found.
        changes: How many paths were completed, by what.
        missing: Paths that lead nowhere.
        n_changed: How many were completed.
    """

    paths: list[str]
    changes: dict[str, int]
    missing: list[str]
    n_changed: int = 0

    def told(self, name: str) -> list[str]:
        """What was changed, as a sentence."""
        if not self.changes:
            return []
        how = listed([f"{what} ({n:,})" for what, n in self.changes.items()], limit=8)
        return [f"{name}: {self.n_changed:,} paths lead to files with {how}"]


def locate(paths: Sequence[str], folder: Path, *, deep: bool, name: str) -> Located:
    """Find the files of a table, and complete the paths that lead to none.

    Looked for is a path with `/` for backslash, with letters in other case, with a suffix of images, and, if
    `deep`, in the sub-folders of the folder and in theirs.

    Args:
        paths: As written; empty ones and URLs stay.
        folder: Absolute, where relative paths start from.
        deep: Whether sub-folders are looked into.
        name: How messages call the table.

    Raises:
        DataError: A path fits several files.
    """
    finder = Finder(folder, deep=deep)
    step = max(1, len(paths) // _SAMPLE)
    if len(paths) > MOST_CHECKED and not any(finder.lacks(path) for path in paths[::step]):
        return Located(list(paths), {}, [])
    found: list[str] = []
    changes: Counter[str] = Counter()
    missing: list[str] = []
    several: dict[str, list[str]] = {}
    for path in paths:
        if not path or not finder.lacks(path):
            found.append(path)
            continue
        hits = finder.find(path)
        if len(hits) == 1:
            [(hit, how)] = hits.items()
            found.append(hit)
            changes.update(how)
        else:
            found.append(path)
            if hits:
                several[path] = sorted(hits)
            else:
                missing.append(path)
    if several:
        path, hits_of = next(iter(several.items()))
        raise DataError(
            f"{name}: {len(several):,} paths fit several files, the first: {path}, which may be "
            f"{listed(hits_of)}",
            expected=f"one file for each path, in {folder}",
            hint="write the paths out, or name the folder with --root",
        )
    n_changed = sum(one != path for one, path in zip(found, paths, strict=True))
    return Located(found, dict(changes), missing, n_changed)


class Finder:
    """Looks for files by what tables call them.

    Args:
        folder: Absolute, where relative paths start from.
        deep: Whether its sub-folders are looked into, too.
    """

    def __init__(self, folder: Path, *, deep: bool) -> None:
        self._folder = str(folder)
        self._deep = deep
        self._indexes: dict[str, _Index] = {}
        self._merged: _Merged | None = None

    def lacks(self, path: str) -> bool:
        """Whether a path leads to no file as it is written."""
        full = joined(self._folder, path)
        try:
            return not is_url(full) and not is_file(full)
        except (DataError, ValueError):
            return True

    def find(self, path: str) -> dict[str, list[str]]:
        """Files that a path may mean, each with what was changed for it.

        Args:
            path: One that leads to no file.
        """
        plain = path.replace("\\", "/")
        changed = [_BACKSLASH] if plain != path else []
        if changed and not self.lacks(plain):
            return {plain: changed}
        parent, last = posixpath.split(plain)
        here = {
            posixpath.join(parent, file): [*changed, how]
            for file, how in _fitting(last, self._index(parent)).items()
        }
        if here or not self._deep:
            return here
        if is_absolute(plain):
            return self._tail(plain)
        return {file: [*changed, *how, _FOLDER] for file, how in self._below(parent, last).items()}

    def _tail(self, path: str) -> dict[str, list[str]]:
        """The file that an absolute path of another machine ends with."""
        parts = [part for part in path.split("/") if part]
        for start in range(0 if path.startswith("/") else 1, len(parts)):
            tail = "/".join(parts[start:])
            if not self.lacks(tail):
                return {tail: [_ENDING]}
        return {}

    def _below(self, parent: str, last: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        if parent:
            for sub in _folders(self._folder):
                place = posixpath.join(sub, parent)
                index = self._index(place)
                fits = {last: ""} if last in index.files else _fitting(last, index)
                found |= {posixpath.join(place, file): [how] if how else [] for file, how in fits.items()}
            return found
        merged = self._below_all()
        for sub in merged.exact.get(last, ()):
            found[posixpath.join(sub, last)] = []
        if not found:
            for file in merged.stems.get(_stem(last), ()):
                found[file] = [_SUFFIX]
        return found

    def _index(self, place: str) -> _Index:
        """The files of a folder, listed once."""
        if place not in self._indexes:
            self._indexes[place] = _listed(posixpath.join(self._folder, place))
        return self._indexes[place]

    def _below_all(self) -> _Merged:
        """The files of all sub-folders."""
        if self._merged is None:
            exact: dict[str, list[str]] = defaultdict(list)
            stems: dict[str, list[str]] = defaultdict(list)
            for sub in _folders(self._folder):
                index = self._index(sub)
                for file in index.files:
                    exact[file].append(sub)
                for stem, files in index.stems.items():
                    stems[stem] += [posixpath.join(sub, file) for file in files]
            self._merged = _Merged(exact, stems)
        return self._merged


@dataclass(frozen=True)
class _Index:
    """The files of a folder: their names, and by folded stem those of images."""

    files: frozenset[str]
    stems: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class _Merged:
    """The files of the sub-folders of a folder: by name the sub-folders, by stem the paths of images."""

    exact: Mapping[str, Sequence[str]]
    stems: Mapping[str, Sequence[str]]


def is_absolute(path: str) -> bool:
    """Whether a path starts from the root of a machine, this one or another."""
    return _FOREIGN.match(path.replace("\\", "/")) is not None


def _fitting(last: str, index: _Index) -> dict[str, str]:
    """Files of a folder that a name may mean, and what is changed for it."""
    folded = [file for file in index.stems.get(_stem(last), ()) if file.casefold() == last.casefold()]
    if folded:
        return dict.fromkeys(folded, _CASE)
    return dict.fromkeys(index.stems.get(_stem(last), ()), _SUFFIX)


def _stem(name: str) -> str:
    """A name without a suffix of images, folded."""
    stem, suffix = posixpath.splitext(name)
    return (stem if suffix.lower() in IMAGE_SUFFIXES else name).casefold()


def stems_of(paths: Iterable[str]) -> set[str]:
    """The names that a table may call some images by: their last part without its suffix, folded."""
    return {_stem(posixpath.basename(path)) for path in paths}


def _listed(folder: str) -> _Index:
    try:
        with os.scandir(folder) as entries:
            files = [entry.name for entry in entries if not leads_to_folder(entry)]
    except (OSError, ValueError):  # no folder, or a name that none can have
        files = []
    stems: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if is_called_image(file):
            stems[_stem(file)].append(file)
    return _Index(frozenset(files), stems)


def _folders(folder: str, deeper: int = _DEPTH - 1) -> list[str]:
    """Folders in a folder and in those, by their paths relative to it, as many as are looked into."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                entry.name
                for entry in entries
                if leads_to_folder(entry) and not entry.name.startswith(".") and not is_dropping(entry.name)
            )
    except (OSError, ValueError):
        return []
    below = list(found)
    for name in found if deeper else ():
        if len(below) >= _MOST_FOLDERS:
            break
        below += [f"{name}/{inner}" for inner in _folders(posixpath.join(folder, name), deeper - 1)]
    return below[:_MOST_FOLDERS]
