"""What the page's script is given: samples by column, lists of their rows, thumbnails and neighbours."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from divacli.files.containers import contained
from divacli.files.urls import is_url, suffix_of
from divacli.manifest import Manifest
from divacli.manifest.columns import (
    DERIVATIVE,
    DERIVATIVE_SE,
    LOO_LOSS,
    MISLABEL_PROBABILITY,
    OUTLIER_SCORE,
    REASON,
    SUGGESTED_LABEL,
    SUGGESTED_PROBABILITY,
)
from divacli.progress import Progress
from divacli.report.page.galleries import Gallery
from divacli.report.page.neighbours import Neighbours
from divacli.report.page.shown_range import shown_range
from divacli.report.page.thumbnails import SIDE, SMALL_SIDE, thumbnails
from divacli.results.names import SUMMARY
from divacli.results.read import Results

_NUMBERS = {
    "derivative": DERIVATIVE,
    "se": DERIVATIVE_SE,
    "loss": LOO_LOSS,
    "wrong": MISLABEL_PROBABILITY,
    "sure": SUGGESTED_PROBABILITY,
    "outlier": OUTLIER_SCORE,
    "weight": "weight",
}
"""Columns of numbers in the page, and in tables."""

_DIGITS = 6

_IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "gif", "webp", "bmp", "avif"})
"""How files end that browsers show as an image. Under another name an image may be a page with a script."""


def class_names(table: pd.DataFrame) -> list[str]:
    """Every label that a table gives or suggests, sorted as classes are."""
    labels = [table[name] for name in ("label", SUGGESTED_LABEL) if name in table]
    named = pd.DataFrame({"label": pd.concat(labels, ignore_index=True).fillna("")})
    return Manifest("labels", "table", named, Path()).classes


def places_of(manifest: Manifest) -> list[str]:
    """What `decisions.csv` calls each sample: its file or URL, absolute; in an `.npz` file its name there."""
    return [
        path if named else file if is_url(file) else os.path.normpath(file)
        for path, file, named in zip(
            manifest.table["path"], manifest.files(), manifest.names_only, strict=True
        )
    ]


def common_folder(places: Sequence[str]) -> str:
    """The folder that all samples lie in, "" where they are not all files.

    Args:
        places: As of `places_of`.
    """
    folders = {place.rpartition("/")[0] for place in places}
    return os.path.commonpath(folders) if folders and all(map(os.path.isabs, folders)) else ""


def shown_paths(places: Sequence[str]) -> list[str]:
    """Paths as people read them: without the folder that all of them lie in.

    Args:
        places: As of `places_of`.
    """
    common = common_folder(places)
    return [place[len(common) :].removeprefix("/") for place in places] if common else list(places)


def columns(
    manifest: Manifest, all_places: Sequence[str], rows: np.ndarray, classes: list[str]
) -> dict[str, list[Any]]:
    """Samples by column: texts, class numbers (-1: none), and numbers (null: unknown).

    Args:
        manifest: All samples.
        all_places: As of `places_of`.
        rows: (m,) int, those that are wanted.
        classes: The label of each class number.

    Returns:
        Lists of m: `path` (see `shown_paths`), `place` (see `places_of`), `label`, and where known
        `suggested`, `derivative`, `se`, `loss`, `wrong`, `sure`, `outlier`, `weight`, `reason`.
    """
    table = manifest.table.iloc[rows]
    index = pd.Index(classes)
    paths = shown_paths(all_places)
    found: dict[str, list[Any]] = {
        "path": [paths[row] for row in rows],
        "place": [all_places[row] for row in rows],
        "label": index.get_indexer(pd.Index(table["label"])).tolist(),
    }
    if SUGGESTED_LABEL in table:
        found["suggested"] = index.get_indexer(pd.Index(table[SUGGESTED_LABEL].fillna(""))).tolist()
    for name, column in _NUMBERS.items():
        if column in table:
            found[name] = _rounded(table[column])
    reasons = [table[name].fillna("").astype(str) for name in (REASON, "action") if name in table]
    if reasons:
        found["reason"] = sum(reasons[1:], reasons[0]).tolist()
    return found


def links(
    manifest: Manifest, all_places: Sequence[str], rows: np.ndarray, folder: Path
) -> dict[str, list[str | None]]:
    """Addresses of the samples' files, for a page that stands by itself.

    Args:
        manifest: All samples.
        all_places: As of `places_of`.
        rows: (m,) int, those that are wanted.
        folder: Where the page will lie.

    Returns:
        Lists of m: `file` to show as an image, null where it is none in the file system; `link` to open, null
        where that could open something else than an image.
    """
    named = manifest.names_only
    files, opened = [], []
    for row in rows:
        place = all_places[row]
        local = not (named[row] or is_url(place) or contained(place))
        # Relative to the page, so that both can move together.
        file = quote(os.path.relpath(place, folder), errors="surrogateescape") if local else None
        files.append(file)
        opened.append((file or place) if not named[row] and _opens_as_image(place) else None)
    return {"file": files, "link": opened}


def lists(galleries: Sequence[Gallery], position: np.ndarray | None = None) -> list[dict[str, Any]]:
    """The lists as the script wants them.

    Args:
        galleries: Lists of rows.
        position: Where each row is among the samples of the page; None: where it was.
    """
    return [
        {
            "name": one.name,
            "title": one.title,
            "about": one.about,
            "rows": (one.rows if position is None else position[one.rows]).tolist(),
            "total": one.total,
        }
        for one in galleries
    ]


def key_of(results: Results, places: Sequence[str]) -> str:
    """What a browser keeps decisions under: the same for every page of the same scores of the same files."""
    fingerprint = str(results.summaries.get(SUMMARY, {}).get("fingerprint", ""))
    parts = (fingerprint, common_folder(places)) if fingerprint else places
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def embedded(
    results: Results,
    samples: Manifest,
    galleries: Sequence[Gallery],
    neighbours: Neighbours | None,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Everything that a page which stands by itself shows, thumbnails within.

    Args:
        results: The folder.
        samples: n samples.
        galleries: Lists of their rows.
        neighbours: Of the first of them, those that have scores.
        folder: Where the page will lie.
        progress: Of reading the images.
    """
    rows = np.unique(np.concatenate([one.rows for one in galleries])) if galleries else np.array([], int)
    position = np.full(len(samples.table), -1)
    position[rows] = np.arange(len(rows))
    classes = class_names(samples.table)
    places = places_of(samples)
    files, paths = samples.files(), shown_paths(places)
    n_scored = 0 if neighbours is None else len(neighbours.labels)
    scored = rows[rows < n_scored]
    near = [] if neighbours is None else neighbours.of(scored)
    others = np.unique([number for both in near for found in both for number, _ in found]).astype(int)
    pixels = shown_range(results, samples)
    with progress("reading images", len(rows) + len(others)) as advance:
        large = thumbnails([files[row] for row in rows], SIDE, advance, pixels)
        small = thumbnails([files[row] for row in others], SMALL_SIDE, advance, pixels)
    place = {int(row): number for number, row in enumerate(others)}
    renumbered = [[[(place[number], cosine) for number, cosine in found] for found in both] for both in near]
    return {
        "served": False,
        "key": key_of(results, places),
        "root": common_folder(places),
        "classes": classes,
        "samples": {
            **columns(samples, places, rows, classes),
            **links(samples, places, rows, folder),
        },
        "galleries": lists(galleries, position),
        "thumbnails": large,
        # Samples with scores come first, so those without neighbours are at the end.
        "near": renumbered,
        "others": {"path": [paths[row] for row in others], "thumbnail": small},
    }


def _opens_as_image(place: str) -> bool:
    """Tell whether a browser that follows a link to a file or URL shows an image, or nothing.

    Browsers go by the name; by that of its target where the file is a link itself. A table may name anything,
    such as `javascript://`.
    """
    if is_url(place):
        return place.startswith(("http://", "https://")) and suffix_of(place) in _IMAGE_SUFFIXES
    if "\0" in place or contained(place):
        return False
    return {suffix_of(place), suffix_of(os.path.realpath(place))} <= _IMAGE_SUFFIXES


def _rounded(numbers: pd.Series) -> list[float | None]:
    values = pd.to_numeric(numbers, errors="coerce").to_numpy(float)
    return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in values]
