"""Refuse sample tables that no result could be trusted for, and warn of those that look odd."""

from __future__ import annotations

import functools
import os
import posixpath
import unicodedata

import numpy as np
import pandas as pd

from divacli.errors import Again, DataError, listed
from divacli.files.path_or_url import Place, is_file, is_special, joined
from divacli.files.regular import NO_REGULAR_FILE
from divacli.files.remote import RemoteFile
from divacli.files.urls import is_url
from divacli.manifest.column_types import row_numbers
from divacli.manifest.columns import FEATURE_SOURCE
from divacli.manifest.suggest import suggest
from divacli.manifest.table import LOOKS, Manifest, alike

_LOOKED_AT = 100  # of the files that are missing

_LARGEST_WEIGHT = 1e12

_NO_LABEL = frozenset(("nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat"))
"""How programs write that a cell is empty."""
"""Of a data set, and one over it: beyond these the squares of derivatives leave the range of float32."""


def validate(manifest: Manifest) -> list[str]:
    """Check paths, labels and weights.

    Where labels are not required there may be none, one class only, or one sample of a class, and all weights
    may be 0: such samples are a pool that others are chosen from.

    Returns:
        The warnings: classes of one sample, labels that are hard to tell apart.

    Raises:
        DataError: An empty path or label, a path twice that may not be, fewer than two classes, an unusable
            weight.
    """
    table, name = manifest.table, manifest.name
    _check_filled("path", table["path"] == "", name)
    unlabelled = table["label"].str.strip() == ""
    if manifest.labels_required:
        _check_filled("label", unlabelled, name)
    elif unlabelled.any() and not unlabelled.all():
        raise DataError(
            f"{name}: {int(unlabelled.sum()):,} of {len(table):,} rows have no label",
            expected="a label in every row, or in none",
            hint="keep samples with and without labels in two tables",
        )
    _check_weights(table["weight"], name)
    if not manifest.repeated:
        _check_duplicates(manifest)

    counts = table["label"].value_counts(sort=False).sort_index()
    warnings = []
    if manifest.labels_required:
        if not table["weight"].any():
            raise DataError(f"{name}: every weight is 0", expected="at least some weights above 0")
        if len(counts) < 2:
            raise DataError(
                f"{name} has one class only: {counts.index[0]}",
                expected="at least two classes to tell apart",
                hint="check that the labels are what the label column holds",
            )
        if single := counts.index[counts == 1].tolist():
            warnings.append(f"{name}: classes with a single sample: {listed(single)}.")
    none = [f"{label} ({n:,})" for label, n in counts.items() if str(label).strip().lower() in _NO_LABEL]
    if none:
        warnings.append(f"{name}: classes that are called as an empty cell is: {listed(none)}.")
    if pairs := alike(counts.index):
        warnings.append(f"{name}: labels that differ only by {LOOKS} count as different: {listed(pairs)}.")
    return warnings


def leaving(manifest: Manifest, folder: Place) -> list[str]:
    """The paths and sources of a table that lead to something outside of its folder, by links too.

    Args:
        manifest: Samples.
        folder: What they must lie in or below, absolute.

    Returns:
        As they are written in the table, each once, in its order.
    """
    table = manifest.table
    cells = table["path"][~manifest.names_only].tolist()
    if FEATURE_SOURCE in table:
        cells += [source for source in table[FEATURE_SOURCE] if source]
    cells = list(dict.fromkeys(cells))
    if isinstance(folder, RemoteFile):
        return [cell for cell in cells if not cell.startswith(folder.url.rstrip("/") + "/")]
    root = posixpath.join(os.path.realpath(folder), "")
    resolved = functools.cache(os.path.realpath)  # of folders, which many files share

    def inside(cell: str) -> bool:
        if is_url(cell):
            return False
        above, name = posixpath.split(joined(folder, cell))
        try:
            place = posixpath.join(resolved(above), name)
            if name in ("", ".", "..") or os.path.islink(place):  # noqa: PTH114  # a fifth of Path's time
                place = os.path.realpath(place)
        except ValueError:  # a name that no file can have
            return False
        return posixpath.join(place, "").startswith(root)

    return [cell for cell in cells if not inside(cell)]


def check_files(manifest: Manifest) -> None:
    """Check that every row's file is there; rows whose `feature_source` holds their embedding need none.

    Raises:
        DataError: A path that is not a regular file, a link to one, or in a tar or Parquet file; or a URL.
    """
    table = manifest.table
    wanted = table[FEATURE_SOURCE] == "" if FEATURE_SOURCE in table else np.ones(len(table), bool)
    files = [file for file, want in zip(manifest.files(), wanted, strict=True) if want]
    remote = [file for file in files if is_url(file)]
    if remote:
        raise DataError(
            f"{manifest.name}: {len(remote):,} of {len(files):,} images lie at URLs: {listed(remote)}",
            expected="images in a file system of this machine",
            hint="mount or copy them, or run diva embed where they are and give its store as DATA",
        )
    require_files(manifest, files)


def require_all_listed(manifest: Manifest) -> None:
    """Refuse a table that leaves out images of its folder.

    Raises:
        DataError: It does.
    """
    if manifest.n_unlisted:
        raise DataError(
            f"{manifest.name} does not list {manifest.n_unlisted:,} images of its folder",
            expected="a row for each image, with --strict",
            hint="list them, or leave them out with --exclude",
        )


def require_files(manifest: Manifest, files: list[str]) -> None:
    """Check that files are there.

    Args:
        manifest: That they are of, for the message.
        files: Absolute paths, which may lead into tar or Parquet files.

    Raises:
        DataError: Some are missing, or no regular files.
    """
    missing = [file for file in files if not is_file(file)]
    special = [file for file in missing if is_special(file)]
    if special:
        raise DataError(
            f"{manifest.name}: {len(special):,} of {len(files):,} are {NO_REGULAR_FILE}: {listed(special)}",
            expected="regular files, or links to them",
            hint="leave them out: reading one may never end",
        )
    if missing:
        advice, there = _where_they_are(manifest, missing)
        raise DataError(
            f"{manifest.name}: {len(missing):,} of {len(files):,} files are not there: {listed(missing)}"
            + there,
            expected=f"a file for every row; relative paths start from {manifest.folder}",
            hint=advice,
        )


def _where_they_are(manifest: Manifest, missing: list[str]) -> tuple[str, str]:
    """What to do about files that are not there, and where they are, if that is near."""
    if any(map(_otherwise_composed, missing[:_LOOKED_AT])):
        return "write their names in the Unicode form (NFC or NFD) that they have in the file system", ""
    if manifest.kind == "table":
        name = manifest.given or manifest.name
        found = suggest(manifest.table[["path"]], manifest.folder, called=posixpath.basename(name))
        root = found.options.get("root")
        if root is not None:
            there = f". Of {found.n_sought} that were looked for, {found.n_found} are below {root}"
            return Again(name, name, {"root": root}, role=manifest.role), there
        if len(missing) == len(manifest.table) and (column := _other_paths(manifest)) is not None:
            there = f". Those that column {column} names are there"
            return Again(name, name, {"path_column": column}, role=manifest.role), there
    return "correct the paths, or name the folder that they start from with --root", ""


def _other_paths(manifest: Manifest) -> str | None:
    """A column that names files, where the column path is one that names none."""
    table = manifest.table
    rest = table.drop(columns=["path", "label"])
    if any(table[column].equals(table["path"]) for column in rest):
        return None  # the column of paths was chosen
    found = suggest(rest, manifest.folder)
    column = found.options.get("path_column")
    certain = 0 < found.n_found == found.n_sought and "root" not in found.options
    return column if certain and isinstance(column, str) else None


def _otherwise_composed(file: str) -> bool:
    """Whether a file that is not there is, under a name of the same letters in another Unicode form."""
    return any(is_file(unicodedata.normalize(form, file)) for form in ("NFC", "NFD"))


def _check_filled(column: str, empty: pd.Series, name: str) -> None:
    if empty.any():
        raise DataError(
            f"{name}: {column} is empty in {row_numbers(empty)}",
            expected=f"a {column} in every row",
            hint="fill it in, or leave these rows out",
        )


def _check_weights(weights: pd.Series, name: str) -> None:
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        raise DataError(
            f"{name}: weight is empty, negative or not finite in {row_numbers(wrong)}",
            expected="a number from 0 up in every row",
            hint="fill it in, or leave the whole column out for weights of 1",
        )
    largest = float(weights.max())
    if largest and not 1 / _LARGEST_WEIGHT <= largest <= _LARGEST_WEIGHT:
        raise DataError(
            f"{name}: the largest weight is {largest:g}",
            expected=f"the largest between {1 / _LARGEST_WEIGHT:g} and {_LARGEST_WEIGHT:g}",
            hint="divide all weights by one number: their ratios are what counts (a --ridge NUMBER is "
            "divided with them)",
        )


def sample_keys(manifest: Manifest) -> pd.Series:
    """What tells the samples of a table apart, (n,) text: the file, and the source of its embedding."""
    keys = pd.Series([posixpath.normpath(file) for file in manifest.files()], dtype="str")
    if FEATURE_SOURCE in manifest.table:
        keys = manifest.table[FEATURE_SOURCE].map(posixpath.normpath) + "\0" + keys
    return keys


def _check_duplicates(manifest: Manifest) -> None:
    table = manifest.table
    again = sample_keys(manifest).duplicated()
    if again.any():
        paths = table["path"][again].unique().tolist()
        raise DataError(
            f"{manifest.name}: the same path more than once, again in {row_numbers(again)}: {listed(paths)}",
            expected="one row for each sample",
            hint="leave the repeated rows out; to count a sample twice, give it weight 2 (--weight COLUMN)"
            + ("; diva votes makes one label of several votes" if manifest.kind == "table" else ""),
        )
