"""Read the scores that are exported to other tools."""

from __future__ import annotations

from typing import BinaryIO

import pandas as pd

from divacli.errors import DataError, listed
from divacli.files.containers import contained
from divacli.files.urls import is_url
from divacli.manifest import Manifest, read_manifest
from divacli.manifest.columns import DERIVATIVE
from divacli.reading import AS_CALLED


def read_scores(table: str, *, stdin: BinaryIO | None = None) -> Manifest:
    """Read a table of scores, most harmful first, ties by path.

    Args:
        table: As DATA: a table that `diva score` wrote, or `-`.
        stdin: Where `-` reads from.

    Raises:
        DataError: It cannot be read, or holds no scores.
    """
    manifest = read_manifest(table, stdin=stdin, labels="optional", reading=AS_CALLED)
    derivative = manifest.table.get(DERIVATIVE)
    if derivative is None or derivative.isna().any():
        raise DataError(
            f"{manifest.name} has no scores{'' if derivative is None else ' in some rows'}",
            expected="a table of scores, such as scores.csv, with a derivative in every row",
            hint="run diva score, and give the scores.csv it writes",
        )
    order = manifest.table.assign(down=-derivative).sort_values(["down", "path"], kind="stable").index
    return manifest.select(order.to_numpy())


def require_images(scores: Manifest, *, at_urls: bool) -> None:
    """Refuse samples that another program cannot show.

    Args:
        scores: The samples.
        at_urls: Whether it shows images at URLs.

    Raises:
        DataError: Some are rows of an `.npz` file, or lie in tar or Parquet files, or at URLs that it does
            not read.
    """
    rows = scores.names_only
    if rows.any():
        raise DataError(
            f"{scores.name}: {rows.sum():,} samples are rows of an .npz file, not images",
            expected="samples that are images",
            hint="score the images themselves",
        )
    files = scores.files()
    apart = [file for file in files if contained(file) or (not at_urls and is_url(file))]
    if apart:
        raise DataError(
            f"{scores.name}: {len(apart):,} of {len(files):,} images are no local files of their own: "
            f"{listed(apart)}",
            expected="images in a file system of this machine",
            hint="make a folder of them with diva apply DATA --materialize copy, and score its applied.csv",
        )


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column of scores; of missing values where there is none."""
    return table[name] if name in table else pd.Series([None] * len(table), dtype=object)
