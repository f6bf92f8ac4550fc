"""Samples with their features, row by row, and the store that holds them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from torch import Tensor

from divacli.embed.gathered import GatheredRows
from divacli.embed.keys import digest_of
from divacli.embed.store import FeatureStore
from divacli.errors import DataError, StoreError, listed
from divacli.files import STORE_FILE, Place, RemoteFile, place_of, suffix_of
from divacli.manifest import Labels, Manifest, read_manifest, relocate

SAMPLES_FILE = "samples.parquet"
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
    table = pd.concat([first.manifest.table, moved], ignore_index=True)
    keys = None
    if first.keys is not None and second.keys is not None:
        keys = np.concatenate([first.keys, second.keys])
    manifest = replace(first.manifest, kind="table", table=table, embeddings=None)
    return replace(first, manifest=manifest, features=features, keys=keys)


def no_failures() -> pd.DataFrame:
    """The table of samples without features, empty."""
    return pd.DataFrame({"path": [], "label": [], "reason": []}, dtype=str)


def failures_of(manifest: Manifest, failed: dict[int, str]) -> pd.DataFrame:
    """path, label and reason of the samples (by position) without features."""
    positions = sorted(failed)
    failures = manifest.table.iloc[positions][["path", "label"]].reset_index(drop=True)
    failures["reason"] = pd.Series([failed[position] for position in positions], dtype=str)
    return failures


def undecodable(failures: pd.DataFrame, subject: str) -> DataError:
    """The error that names the images that cannot be decoded, with their reasons."""
    named = [f"{path} ({reason})" for path, reason in zip(failures["path"], failures["reason"], strict=True)]
    return DataError(
        f"{subject} cannot be decoded: {listed(named)}",
        expected="images that Pillow can read",
        hint="repair or remove them",
    )


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
    kept = np.array([position not in failed for position in range(len(keys))], dtype=bool)
    failures = failures_of(manifest, failed)
    remaining = manifest.select(kept)
    if manifest.labels_required and len(remaining.classes) < 2:
        raise undecodable(
            failures, f"{manifest.name}: fewer than two classes are left, for {len(failures):,} images"
        )
    if not kept.any():
        raise undecodable(failures, f"{manifest.name}: no image is left, for {len(failures):,} images")
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
    hexadecimal = manifest.table["image_sha256"]
    keys = np.frombuffer(bytes.fromhex("".join(hexadecimal)), np.uint8).reshape(len(hexadecimal), -1)
    source = str(folder) if isinstance(folder, RemoteFile) else "."
    table = manifest.table.drop(columns="image_sha256").assign(feature_source=source)
    manifest = replace(manifest, name=name, kind="store", table=table)
    return replace(samples_in(store, manifest, keys, {}), seconds=time.monotonic() - start)
