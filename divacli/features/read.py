"""Read DATA of any kind: a manifest, or samples where it is a feature store. Nothing is computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from divacli.errors import DataError
from divacli.features.keys import KEY_BYTES, content_keys
from divacli.features.samples import Samples, is_store, read_store
from divacli.files.path_or_url import place_of
from divacli.manifest import Labels, Manifest, check_files, read_manifest
from divacli.manifest.columns import FEATURE_SOURCE
from divacli.manifest.table_reading import require_no_options
from divacli.parallel import world
from divacli.progress import Progress
from divacli.reading import AS_IT_IS, OPTIONS, Reading

if TYPE_CHECKING:
    import pandas as pd


def read_data(
    data: str,
    *,
    stdin: BinaryIO | None = None,
    labels: Labels = "required",
    reading: Reading = AS_IT_IS,
) -> Manifest | Samples:
    """Read and check DATA, without computing anything.

    Args:
        data: A folder, a table, `-`, an `.npz` file or a feature store.
        stdin: Where `-` reads from.
        labels: As for `read_manifest`.
        reading: As for `read_manifest`.

    Returns:
        The samples of a feature store, which has their features; else the manifest, whose files exist.

    Raises:
        DivaError: DATA is not usable.
    """
    if is_store(data):
        require_no_options(reading, data, "a feature store", OPTIONS)
        return read_store(place_of(data), data, labels=labels)
    manifest = read_manifest(data, stdin=stdin, labels=labels, reading=reading)
    check_images(manifest)
    return manifest


def check_images(manifest: Manifest) -> None:
    """Check that the files are there of samples that bring no features.

    Raises:
        DataError: Some are not.
    """
    if stored_sources(manifest) is None:
        check_files(manifest)


def require_images(manifest: Manifest) -> None:
    """Refuse samples that bring their features.

    Raises:
        DataError: Some do.
    """
    if stored_sources(manifest) is not None:
        raise DataError(
            f"{manifest.name} brings its features: there are no images to run a network on",
            expected="a folder or a table of images",
            hint="give the images that the features were computed from",
        )


def stored_sources(manifest: Manifest) -> pd.Series | None:
    """The column that names where embeddings lie, "" for none; None where no row names one."""
    if FEATURE_SOURCE not in manifest.table:
        return None
    sources = manifest.table[FEATURE_SOURCE].fillna("")
    return sources if (sources != "").any() else None


def stored_keys(files: list[str], progress: Progress, cache: Path) -> tuple[np.ndarray, dict[int, str]]:
    """As `content_keys`, every process reading its share of the files."""
    here = world()
    own = here.share_of(len(files))
    keys = np.zeros((len(files), KEY_BYTES), np.uint8)
    keys[own.start : own.stop], unreadable = content_keys(files[own.start : own.stop], progress, cache)
    failed: dict[int, str] = {}
    for others in here.gathered({own.start + position: reason for position, reason in unreadable.items()}):
        failed |= others
    here.merged(torch.from_numpy(keys))
    return keys, failed
