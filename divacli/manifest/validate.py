"""Refuse sample tables that no result could be trusted for, and warn of those that look odd."""

from __future__ import annotations

import posixpath

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.files import is_file, is_url
from divacli.manifest.columns import row_numbers
from divacli.manifest.table import Manifest


def validate(manifest: Manifest) -> list[str]:
    """Check paths, labels and weights.

    Where labels are not required there may be none, one class only, or one sample of a class, and all weights
    may be 0: such samples are a pool that others are chosen from.

    Returns:
        The warnings: classes of one sample, labels that are hard to tell apart, several splits.

    Raises:
        DataError: An empty path or label, a path twice, fewer than two classes, an unusable weight.
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
    alike = counts.index.to_series().groupby(counts.index.str.strip().str.casefold()).agg(list)
    if pairs := [" / ".join(map(repr, labels)) for labels in alike if len(labels) > 1]:
        warnings.append(
            f"{name}: labels that differ only by case or spaces count as different: {listed(pairs)}."
        )
    if "split" in table and table["split"].nunique() > 1:
        splits = sorted(map(repr, table["split"].unique()))
        warnings.append(f"{name}: all rows are used, whatever their split: {listed(splits)}.")
    return warnings


def check_files(manifest: Manifest) -> None:
    """Check that every row's file is there; rows whose `feature_source` holds their embedding need none.

    Raises:
        DataError: A path that is not a regular file, a link to one, or a member of a tar file; or a URL.
    """
    table = manifest.table
    wanted = table["feature_source"] == "" if "feature_source" in table else np.ones(len(table), bool)
    files = [file for file, want in zip(manifest.files(), wanted, strict=True) if want]
    remote = [file for file in files if is_url(file)]
    if remote:
        raise DataError(
            f"{manifest.name}: {len(remote):,} of {len(files):,} images lie at URLs: {listed(remote)}",
            expected="images in a file system of this machine",
            hint="mount or copy them, or run diva embed where they are and give its store as DATA",
        )
    missing = [file for file in files if not is_file(file)]
    if missing:
        raise DataError(
            f"{manifest.name}: {len(missing):,} of {len(files):,} files are not there: {listed(missing)}",
            expected=f"a file for every row; relative paths start from {manifest.folder}",
            hint="correct the paths, or put the table into the folder that its paths start from",
        )


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


def _check_duplicates(manifest: Manifest) -> None:
    table = manifest.table
    keys = pd.Series([posixpath.normpath(file) for file in manifest.files()])
    if "feature_source" in table:
        keys = table["feature_source"].map(posixpath.normpath) + "\0" + keys
    again = keys.duplicated()
    if again.any():
        paths = table["path"][again].unique().tolist()
        raise DataError(
            f"{manifest.name}: the same path more than once, again in {row_numbers(again)}: {listed(paths)}",
            expected="one row for each sample",
            hint="leave the repeated rows out; to count a sample twice, give it weight 2",
        )
