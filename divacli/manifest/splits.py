"""Tell the splits of a data set from its classes, and choose among them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import pandas as pd

from divacli.errors import Again, DataError, listed
from divacli.manifest.columns import SPLIT
from divacli.reading import ALL, NONE, Reading

_WORD = re.compile(
    r"(^|[^a-z])(train(ing)?|trn?|val(id(ation)?)?|dev|eval(uation)?|test(ing)?|tst|hold-?out)(set|[^a-z]|$)",
    re.IGNORECASE,
)

_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
"""Where a word begins without a blank, as in PublicTest."""

_PLAIN = re.compile(r"(train(ing)?|val(id(ation)?)?|dev|test(ing)?)[\W\d_]*(set|images)?", re.IGNORECASE)
"""Names of splits that mean nothing else, also where there are no classes in them."""

_VERSIONS = frozenset(
    (
        *(
            "image",
            "images",
            "img",
            "imgs",
            "photo",
            "photos",
            "mask",
            "masks",
            "gt",
            "ground",
            "groundtruth",
        ),
        *("annotation", "annotations", "ann", "seg", "segmentation", "segmentations", "depth", "rgb", "raw"),
        *("thumb", "thumbs", "thumbnail", "thumbnails", "original", "originals", "crop", "crops", "cropped"),
        *("aug", "augmented", "contour", "contours", "overlay", "overlays", "heatmap", "heatmaps", "edges"),
        *("label", "labels", "left", "right", "front", "back"),
    )
)
"""Names of folders that hold the same samples in several forms: images and their masks."""

_FLAGS = frozenset(("true", "false", "0", "1", "0.0", "1.0"))
"""Cells that say yes or no."""

_FIRST = 20
_MOST_SPLITS = 10
_LONGEST = 20
_MOST_WORDS = 3

_NEAR = 0.8
"""A split has at least this share of its classes in common with the split that has most."""


def is_split_name(name: str) -> bool:
    """Whether a folder or a cell is called as a split is: train, Training, val2017, seg_test, PublicTest."""
    return _WORD.search(_CAPITAL.sub("_", name)) is not None


@dataclass(frozen=True)
class Splits:
    """A folder that holds splits, or domains.

    Attributes:
        counts: Images of each split, by name.
        prefixes: By split the folders before the class in a path, such as "train/".
        inside: Whether each class has a folder for each split, as in cat/train, and not the reverse.
        certain: Whether the names say so too, or the structure alone.
        rest: Other folders with images beside the splits.
    """

    counts: dict[str, int]
    prefixes: dict[str, str]
    inside: bool = False
    certain: bool = True
    rest: list[str] = field(default_factory=list)

    def have_classes(self, paths: Iterable[str]) -> bool:
        """Whether some images are in class folders.

        Args:
            paths: Of the images, relative to the folder.
        """
        return any(self.split_and_class(path) for path in paths)

    def split(self, path: str) -> str | None:
        """The split of an image, whether it is in a class folder or not; None where it is in none.

        Args:
            path: Relative to the folder.
        """
        first, _, rest = path.partition("/")
        split, _, below = (rest if self.inside else path).partition("/")
        return split if below and split in self.counts and (self.inside or first in self.prefixes) else None

    def split_and_class(self, path: str) -> tuple[str, str] | None:
        """The split and the class of an image; None where it is in no class folder of a split.

        Args:
            path: Relative to the folder.
        """
        if self.inside:
            label, _, rest = path.partition("/")
            split, below, _ = rest.partition("/")
            return (split, label) if below and split in self.counts else None
        split = path.partition("/")[0]
        prefix = self.prefixes.get(split)
        if prefix is None or not path.startswith(prefix):
            return None
        label, below, _ = path[len(prefix) :].partition("/")
        return (split, label) if below else None


@dataclass
class _Folder:
    """A folder of images: those directly in it, all, and its folders that have images."""

    direct: int = 0
    total: int = 0
    folders: dict[str, _Folder] = field(default_factory=dict)


def splits_in(paths: Iterable[str]) -> Splits | None:
    """Find splits by the structure of a folder.

    Folders at the top are splits where at least two of them hold nearly the same folders, or where all are
    called as splits are. Where the folders that they share are called as splits are, each class has its
    splits. Where these are called images, masks or the like, there are none.

    Args:
        paths: Of the images, relative to the folder.
    """
    root = _tree(paths)
    tops = root.folders
    if not tops:
        return None
    branches = {name: _branch(folder, f"{name}/") for name, folder in tops.items()}
    nested = any(folder.folders for folder in tops.values())
    if all(is_split_name(name) and (nested or _PLAIN.fullmatch(name)) for name in tops):
        prefixes = {
            name: prefix if folder.folders else f"{name}/" for name, (prefix, folder) in branches.items()
        }
        return Splits({name: tops[name].total for name in sorted(tops)}, prefixes)
    wide = {name: folder for name, (_, folder) in branches.items() if len(folder.folders) > 1}
    near, shared = _alike(wide)
    if len(near) < 2 or 2 * sum(tops[name].total for name in near) < root.total:
        return None
    forms = {name for name in shared if _VERSIONS & set(re.findall("[a-z]+", name.lower()))}
    named = {name for name in shared if is_split_name(name)}
    if named and (len(named) > 1 or named | forms == shared):
        inside: Counter[str] = Counter()
        for folder in tops.values():
            inside.update({name: below.total for name, below in folder.folders.items() if name in shared})
        return Splits(dict(sorted(inside.items())), {}, inside=True)
    if forms == shared:
        return None
    return Splits(
        {name: tops[name].total for name in sorted(near)},
        {name: branches[name][0] for name in near},
        certain=all(map(is_split_name, near)),
        rest=sorted(set(tops) - set(near)),
    )


def only_folder(paths: Iterable[str]) -> str:
    """The folder that holds all images, as deep as there is one; "" for none.

    Args:
        paths: Of the images, relative to the folder.
    """
    return _branch(_tree(paths), "")[0].rstrip("/")


def shared_folders(paths: Iterable[str]) -> dict[str, int]:
    """Images in folders of one name that most classes have, such as images and masks; empty for none.

    Args:
        paths: Of the images, relative to the folder of the classes.
    """
    tops = _tree(paths).folders
    names: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for top in tops.values():
        for name, folder in top.folders.items():
            names[name] += 1
            images[name] += folder.total
    return {name: images[name] for name, n in sorted(names.items()) if n > 1 and 2 * n > len(tops)}


def _tree(paths: Iterable[str]) -> _Folder:
    root = _Folder()
    for parent, n in Counter(path.rpartition("/")[0] for path in paths).items():
        folder = root
        folder.total += n
        for name in parent.split("/") if parent else ():
            folder = folder.folders.setdefault(name, _Folder())
            folder.total += n
        folder.direct += n
    return root


def _branch(folder: _Folder, prefix: str) -> tuple[str, _Folder]:
    """Go down as long as a folder holds one folder and nothing else."""
    while not folder.direct and len(folder.folders) == 1:
        [(name, folder)] = folder.folders.items()
        prefix += f"{name}/"
    return prefix, folder


def _alike(folders: Mapping[str, _Folder]) -> tuple[list[str], set[str]]:
    """The folders that hold nearly the same folders as one of them, and those that they share.

    Of all that each may be compared with, the one is taken that gives the most images.
    """
    best: tuple[int, list[str], set[str]] = (0, [], set())
    # Sets of folders repeat: each is compared once.
    for reference in {frozenset(folder.folders) for folder in folders.values()}:
        near = [name for name, folder in folders.items() if _is_near(folder.folders.keys(), reference)]
        images = sum(folders[name].total for name in near)
        if len(near) > 1 and images > best[0]:
            shared = {name for one in near for name in folders[one].folders if name in reference}
            best = images, near, shared
    return best[1], best[2]


def _is_near(names: Set[str], reference: frozenset[str]) -> bool:
    common = names & reference
    return len(common) > 1 and len(common) >= _NEAR * len(names)


def split_column(table: pd.DataFrame) -> str | None:
    """The column that tells the splits of a table: `split`, or one whose cells are all called as splits are.

    Args:
        table: As read; a column has text cells or it is none.
    """
    if SPLIT in table:
        return SPLIT
    for name in table:
        cells = table[name]
        if all(isinstance(cell, str) and _is_split_cell(cell) for cell in cells.head(_FIRST)):
            found = cells.drop_duplicates().head(_MOST_SPLITS)
            if 1 < len(found) < _MOST_SPLITS and all(map(_is_split_cell, found.map(str))):
                return str(name)
    return None


def flag_of_split(table: pd.DataFrame) -> str | None:
    """A column such as is_train or is_valid that says of each row whether it is of one split."""
    if split_column(table) is not None:
        return None
    for name in map(str, table):
        cells = table[name]
        if name not in ("path", "label") and is_split_name(name) and _is_flag(cells):
            return name
    return None


def _is_flag(cells: pd.Series) -> bool:
    if not {str(cell).lower() for cell in cells.head(_FIRST)} <= _FLAGS:
        return False
    return len({str(cell).lower() for cell in cells} & _FLAGS) > 1


def splits_of_files(names: Iterable[str]) -> dict[str, list[str]]:
    """Files by the split that their names begin with, such as train-0001.tar; empty where these tell none.

    Args:
        names: Paths of files that are numbered.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        stem = name.rpartition("/")[2].partition(".")[0]
        found.setdefault(re.sub(r"[-_]?\d+(-of-\d+)?$", "", stem), []).append(name)
    return found if len(found) > 1 and all(map(is_split_name, found)) else {}


def splits_of(table: pd.DataFrame) -> list[str]:
    """The names of the splits that a table tells, sorted; nothing where it tells none."""
    column = split_column(table)
    if column is None:
        return []
    return sorted({str(cell).strip() for cell in table[column].dropna()} - {""})


def _is_split_cell(cell: str) -> bool:
    """Whether a cell is the name of a split, and no path or sentence that has one in it."""
    short = len(cell) <= _LONGEST and len(cell.split()) <= _MOST_WORDS
    return short and re.search(r"[/\\.]", cell) is None and is_split_name(cell)


def require_split(
    name: str,
    counts: Mapping[str, int],
    reading: Reading,
    *,
    given: str = "",
    doubt: str = "",
    what: str = "",
) -> tuple[str, ...]:
    """The splits that are read.

    Args:
        name: How messages call the data.
        counts: Samples of each split, by name.
        reading: Which are asked for.
        given: DATA as it was named, where that is not `name`.
        what: What is counted, where that is not samples.
        doubt: What else the splits may be, and the option that says so, where only the structure tells them.

    Raises:
        DataError: There are several and none is asked for, or one that is asked for is not there.
    """
    told = [f"{split} ({n:,}{f' {what}' if what else ''})" for split, n in counts.items()]
    if not reading.split:
        if len(counts) == 1:
            return tuple(counts)
        first = preferred(list(counts), reading.role)
        raise DataError(
            f"{name} has {len(counts)} splits: {listed(told, limit=8)}",
            expected=f"the one that is meant, several, or all{doubt}",
            hint=Again(given or name, given or name, {SPLIT: first}, role=reading.role),
        )
    if reading.split == (ALL,) and ALL not in counts:
        return tuple(counts)
    return tuple(dict.fromkeys(_named(name, split, counts, told) for split in reading.split))


def preferred(splits: Sequence[str], role: str = "") -> str:
    """The split that is most likely meant.

    Args:
        splits: Names of all.
        role: As of `Reading`.
    """
    word = {"": "train", "test": "test", "val": "val"}.get(role, "")

    def unlikely(split: str) -> tuple[bool, bool, bool, str]:
        name = split.lower()
        # Samples of a test set that are chosen from a pool would be trained on.
        return word not in name, role == "pool" and "test" in name, bool(role) and "train" in name, split

    return min(splits, key=unlikely)


def _named(name: str, split: str, counts: Mapping[str, int], told: list[str]) -> str:
    if split in counts:
        return split
    alike = [other for other in counts if other.casefold() == split.casefold()]
    if len(alike) != 1:
        raise DataError(
            f"{name} has no split {split}",
            expected=f"{NONE}, {ALL}, or of its splits: {listed(told, limit=8)}",
        )
    return alike[0]
