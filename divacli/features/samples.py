"""Samples with their features, row by row, and the store that holds them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from divacli.errors import DataError, StoreError, listed
from divacli.features.feature_identity import pixels_of, require_same_space
from divacli.features.feature_rows import GatheredRows
from divacli.features.keys import KEY_BYTES, digest_of
from divacli.features.store import FeatureStore
from divacli.files.path_or_url import STORE_FILE, Place, place_of
from divacli.files.remote import RemoteFile
from divacli.files.urls import suffix_of
from divacli.manifest import Labels, Manifest, read_manifest, relocate
from divacli.manifest.column_types import stacked
from divacli.manifest.columns import FEATURE_SOURCE, IMAGE_SHA256, REASON
from divacli.run_record import current

SAMPLES = "samples"
SAMPLES_FILE = f"{SAMPLES}.parquet"
"""The sample table of a store made by `diva embed`, with each image's key."""


@dataclass(frozen=True)
class Samples:
    """Samples with their features, row by row.

    Attributes:
        manifest: The samples that have features, in the order of DATA.
        features: (n, d) raw features.
        failed: path, label and reason of those that have none.
        fingerprint: Digest of the features' content and origin.
        keys: (n, 32) uint8 keys of the images, None where the features came without images.
        head: (K, d) weight and (K,) bias of the network's own last layer on these features.
        store: The folder that holds the features.
        identity: What the features were computed with.
        network: What the features are, in a sentence; "" where they came without a network.
        embedded: How many images were run through the network now.
        seconds: What finding or computing the features took.
        notes: Sentences for the user.
    """

    manifest: Manifest
    features: GatheredRows
    failed: pd.DataFrame
    fingerprint: str
    keys: np.ndarray | None = None
    head: tuple[Tensor, Tensor] | None = None
    store: Place | None = None
    identity: dict[str, str] = field(default_factory=dict)
    network: str = ""
    embedded: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.manifest.table)

    def select(self, rows: np.ndarray) -> Samples:
        """Some of the samples, in the order given.

        Args:
            rows: Integers (m,), or booleans (n,).
        """
        keys = None if self.keys is None else self.keys[rows]
        return replace(
            self, manifest=self.manifest.select(rows), features=self.features.select(rows), keys=keys
        )


def joined(first: Samples, second: Samples) -> Samples:
    """Two sets of samples as one, with relative paths as the first one has them."""
    features = GatheredRows(
        [*first.features.blocks, *second.features.blocks],
        np.concatenate([first.features.block, second.features.block + len(first.features.blocks)]),
        np.concatenate([first.features.row, second.features.row]),
    )
    moved = relocate(second.manifest.table, second.manifest.folder, first.manifest.folder)
    table = stacked([first.manifest.table, moved])
    keys = None
    if first.keys is not None and second.keys is not None:
        keys = np.concatenate([first.keys, second.keys])
    manifest = replace(first.manifest, kind="table", table=table, embeddings=None)
    return replace(first, manifest=manifest, features=features, keys=keys)


def no_failures() -> pd.DataFrame:
    """The table of samples without features, empty."""
    return pd.DataFrame({"path": [], "label": [], REASON: []}, dtype=str)


def failures_of(manifest: Manifest, failed: dict[int, str]) -> pd.DataFrame:
    """path, label, any feature_source, and reason of the samples (by position) without features."""
    positions = sorted(failed)
    columns = [name for name in ("path", "label", FEATURE_SOURCE) if name in manifest.table]
    failures = manifest.table.iloc[positions][columns].reset_index(drop=True)
    failures[REASON] = pd.Series([failed[position] for position in positions], dtype=str)
    return failures


def undecodable(failures: pd.DataFrame, subject: str) -> DataError:
    """The error that names the images that cannot be decoded, with their reasons."""
    named = [f"{path} ({reason})" for path, reason in zip(failures["path"], failures[REASON], strict=True)]
    return DataError(
        f"{subject} cannot be decoded: {listed(named)}",
        expected="images that Pillow can read",
        hint="repair or remove them",
    )


def left_over(
    manifest: Manifest, failed: dict[int, str], refusal: Callable[[pd.DataFrame, str], DataError]
) -> tuple[np.ndarray, pd.DataFrame, Manifest]:
    """What is left of samples of which some are of no use.

    Args:
        manifest: All of them.
        failed: The reason for each (by position) that is of no use.
        refusal: The error that names these, from their table and the beginning of its sentence.

    Returns:
        (n,) bool, those that are left; path, label and reason of the others; the manifest of those left.

    Raises:
        DataError: The refusal: none is left, or not two classes where labels are required.
    """
    kept = np.array([position not in failed for position in range(len(manifest.table))], dtype=bool)
    failures = failures_of(manifest, failed)
    remaining = manifest.select(kept)
    left = "fewer than two classes are" if manifest.labels_required and len(remaining.classes) < 2 else ""
    if not kept.any():
        left = "no sample is"
    if left:
        raise refusal(failures, f"{manifest.name}: {left} left, for {len(failures):,}")
    return kept, failures, remaining


def samples_in(store: FeatureStore, manifest: Manifest, keys: np.ndarray, failed: dict[int, str]) -> Samples:
    """The samples of a manifest whose features a store holds.

    Args:
        store: The store.
        manifest: The samples.
        keys: (n, 32) uint8 their keys.
        failed: The reason for each (by position) that is to be left out.

    Raises:
        DataError: None is left, or not two classes where labels are required.
        StoreError: The store lacks one of the others.
    """
    kept, failures, remaining = left_over(
        manifest, failed, lambda failures, subject: undecodable(failures, f"{subject} images")
    )
    keys = keys[kept]
    fingerprint = digest_of(store.fingerprint.encode(), keys.tobytes())
    return Samples(
        remaining,
        store.rows(keys),
        failures,
        fingerprint,
        keys=keys,
        head=store.load_head(),
        store=store.folder,
        identity=store.identity,
    )


def is_store(data: str | Place) -> bool:
    """Whether DATA is a feature store.

    Raises:
        DataError: It is at a URL of which that cannot be told.
    """
    place = place_of(data) if isinstance(data, str) else data
    if isinstance(place, RemoteFile) and suffix_of(place.url):
        return False  # saves a question: a store has no suffix, and other DATA at a URL has one
    try:
        return (place / STORE_FILE).exists()
    except OSError:  # a folder that may not be entered, or a name too long: `read_manifest` says so
        return False


def read_store(folder: Place, name: str, *, labels: Labels = "required") -> Samples:
    """The samples of a store made by `diva embed`.

    Args:
        folder: The store.
        name: How messages call it.
        labels: As for `read_manifest`.

    Raises:
        StoreError: It is damaged, unfinished, or a cache without samples of its own.
    """
    start = time.monotonic()
    store = FeatureStore(folder)
    if not (folder / SAMPLES_FILE).exists():
        raise StoreError(
            f"{name} is a feature store without {SAMPLES_FILE}: unfinished, or part of the cache",
            expected="a store made by: diva embed DATA --out DIR",
            hint="run that command again; what it computed is kept",
        )
    manifest = read_manifest(str(folder / SAMPLES_FILE), labels=labels)
    keys = _keys(manifest.table, f"{name}/{SAMPLES_FILE}")
    source = str(folder) if isinstance(folder, RemoteFile) else "."
    table = manifest.table.drop(columns=IMAGE_SHA256).assign(feature_source=source)
    pixels = pixels_of(store.identity, name)
    manifest = replace(manifest, name=name, kind="store", table=table, notes=(), pixel_range=pixels)
    current().read(name, manifest)
    return replace(samples_in(store, manifest, keys, {}), seconds=time.monotonic() - start)


def _keys(table: pd.DataFrame, name: str) -> np.ndarray:
    """The keys of a store's samples, (n, 32) uint8, from their column in hexadecimal."""
    written = table.get(IMAGE_SHA256, pd.Series("", index=table.index))
    # Each for itself: together, one that is too short would shift all others.
    if not written.str.fullmatch(f"[0-9a-f]{{{2 * KEY_BYTES}}}").all():
        raise StoreError(
            f"{name} lacks the keys of its samples",
            expected=f"the column image_sha256, {2 * KEY_BYTES} hexadecimal digits in every row",
            hint="make the store anew with: diva embed DATA --out DIR",
        )
    return np.frombuffer(bytes.fromhex("".join(written)), np.uint8).reshape(-1, KEY_BYTES)


def order_by_path(samples: Samples) -> torch.Tensor:
    """Row numbers sorted by path: what is drawn at random must not change with the order of a table."""
    return torch.from_numpy(np.argsort(samples.manifest.table["path"].to_numpy(str), kind="stable"))


def require_same_features(first: Samples, other: Samples) -> None:
    """Refuse samples whose features come from another network, or have another width.

    Raises:
        StoreError: Another network.
        DataError: Another width.
    """
    require_same_space(first.identity, other.identity, other.manifest.name)
    wanted, found = first.features.shape[1], other.features.shape[1]
    if wanted != found:
        raise DataError(
            f"{other.manifest.name} has {found} features a sample",
            expected=f"{wanted}, as {first.manifest.name} has",
            hint="embed both with the same network and layer",
        )
