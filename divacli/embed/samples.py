"""DATA of any kind -> samples with features: the one door that every command goes through."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pandas as pd
from torch import Tensor

from divacli.embed.extract import ExtractOptions, extract
from divacli.embed.gathered import GatheredRows, whole
from divacli.embed.keys import content_keys, digest_of
from divacli.embed.progress import Progress, silent
from divacli.embed.store import (
    STORE_FILE,
    FeatureStore,
    batched,
    identity_fingerprint,
    require_same_identity,
)
from divacli.errors import DataError, StoreError, listed
from divacli.manifest import Manifest, check_files, read_manifest

if TYPE_CHECKING:
    from divacli.backbones import Backbone

_CHECKED_ROWS = 1024
SAMPLES_FILE = "samples.parquet"
"""The sample table of a store made by `diva embed`, with each image's key."""


class BackboneChoice:
    """The network that a command line names, loaded at most once and only when images need it.

    Args:
        model: As for `load_backbone`, and so are the others.
        checkpoint: A file.
        weights: Published weights in its place.
        layer: The layer whose input the features are.
        image_size: Side of the crop.
    """

    def __init__(
        self,
        model: str | None = None,
        checkpoint: Path | None = None,
        weights: str | None = None,
        layer: str | None = None,
        image_size: int | None = None,
    ) -> None:
        self._arguments = (model, checkpoint, weights, layer, image_size)

    @cached_property
    def backbone(self) -> Backbone:
        """The network.

        Raises:
            ModelError: It cannot be loaded, or none was named.
        """
        # Features that exist already need no torchvision, which is slow to import and large.
        from divacli.backbones import load_backbone

        model, checkpoint, weights, layer, image_size = self._arguments
        return load_backbone(model, checkpoint, weights=weights, layer=layer, image_size=image_size)


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
    store: Path | None = None
    identity: dict[str, str] = field(default_factory=dict)
    embedded: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.manifest.table)


def load_samples(
    data: str,
    choice: BackboneChoice,
    options: ExtractOptions,
    cache: Path,
    *,
    strict: bool = False,
    stdin: BinaryIO | None = None,
    progress: Progress = silent,
) -> Samples:
    """Read DATA and find or compute its features.

    Args:
        data: A folder, a table, `-`, an `.npz` file or a feature store.
        choice: The network for images.
        options: How it runs.
        cache: Folder for features of images, shared by all commands.
        strict: Raise where an image cannot be decoded, instead of leaving it out.
        stdin: Where `-` reads from.
        progress: Told how far it is.

    Raises:
        DivaError: DATA, the network or the store are not usable.
    """
    opened = read_data(data, stdin=stdin)
    if isinstance(opened, Samples):
        return opened
    return samples_of(opened, choice, options, cache, strict=strict, progress=progress)


def read_data(data: str, *, stdin: BinaryIO | None = None) -> Manifest | Samples:
    """Read and check DATA, without computing anything.

    Returns:
        The samples of a feature store, which has their features; else the manifest, whose files exist.

    Raises:
        DivaError: DATA is not usable.
    """
    if is_store(data):
        return read_store(Path(data), data)
    manifest = read_manifest(data, stdin=stdin)
    if "feature_source" not in manifest.table:
        check_files(manifest)
    return manifest


def is_store(data: str | Path) -> bool:
    """Whether DATA is a feature store."""
    try:
        return (Path(data) / STORE_FILE).exists()
    except OSError:  # a folder that may not be entered, or a name too long: `read_manifest` says so
        return False


def samples_of(
    manifest: Manifest,
    choice: BackboneChoice,
    options: ExtractOptions,
    cache: Path,
    *,
    strict: bool = False,
    progress: Progress = silent,
) -> Samples:
    """As `load_samples`, of a manifest that has been read."""
    start = time.monotonic()
    sources = manifest.table["feature_source"].fillna("") if "feature_source" in manifest.table else None
    if manifest.embeddings is not None:
        found = _of_arrays(manifest, manifest.embeddings)
    elif sources is not None and (sources != "").any():
        found = _of_sources(manifest, sources)
    else:
        found = _of_images(manifest, choice, options, cache, strict, progress)
    return replace(found, seconds=time.monotonic() - start)


def no_failures() -> pd.DataFrame:
    """The table of samples without features, empty."""
    return pd.DataFrame({"path": [], "label": [], "reason": []}, dtype=str)


def _of_arrays(manifest: Manifest, embeddings: object) -> Samples:
    rows = whole(embeddings)  # type: ignore[arg-type]
    _require_finite(rows, manifest)
    file = manifest.folder / str(manifest.table["feature_source"].iloc[0])
    return Samples(manifest, rows, no_failures(), _file_digest(file))


def _require_finite(features: GatheredRows, manifest: Manifest) -> None:
    """Refuse embeddings that hold NaN or infinities, by the paths of their rows.

    Raises:
        DataError: Which rows.
    """
    n = features.shape[0]
    bad = [
        part.start + int(row)
        for part in batched(n, _CHECKED_ROWS)
        for row in (~features[part].isfinite().all(dim=1)).nonzero()
    ]
    if bad:
        raise DataError(
            f"{manifest.name}: {len(bad):,} of {n:,} embeddings hold NaN or infinite values, at the paths "
            + listed([str(manifest.table["path"].iloc[row]) for row in bad[:5]], len(bad)),
            expected="finite numbers",
            hint="leave these rows out, or compute them again",
        )


def _of_sources(manifest: Manifest, sources: pd.Series) -> Samples:
    """Rows whose embeddings lie in `.npz` files or feature stores, found there by their path."""
    if (sources == "").any():
        raise DataError(
            f"{manifest.name}: {int((sources == '').sum()):,} of {len(sources):,} rows name no source",
            expected="a source (.npz file or feature store) in every row, or in none",
            hint="keep samples with and without embeddings in two tables",
        )
    blocks: list[object] = []
    block, row = np.zeros(len(sources), np.int32), np.zeros(len(sources), np.int64)
    digests, heads = [], []
    identity: dict[str, str] = {}
    for source in sorted(sources.unique()):
        here = (sources == source).to_numpy()
        origin = manifest.folder / source
        wanted = manifest.table["path"][here]
        if is_store(origin):
            inner = read_store(origin, str(origin))
            # A store's paths are files, and each table writes a file's path as seen from where it lies.
            wanted = pd.Series(manifest.files())[here]
            names = pd.Index([_normal(file) for file in inner.manifest.files()])
            wanted = wanted.map(_normal)
            features, digest = inner.features, inner.fingerprint
            heads.append(inner.head)
            require_same_identity(identity or inner.identity, inner.identity, str(origin))
            identity = inner.identity
        else:
            source_manifest = read_manifest(str(origin))
            if source_manifest.embeddings is None:
                raise DataError(
                    f"{manifest.name}: its source {origin} holds no embeddings",
                    expected="an .npz file or a feature store in the column feature_source",
                    hint="leave that column out where it means something else",
                )
            names = pd.Index(source_manifest.table["path"])
            features, digest = whole(source_manifest.embeddings), _file_digest(origin)
        # In a store two paths may lead to one file, by way of links; any of its rows has the same features.
        first = np.flatnonzero(~names.duplicated())
        found = names[first].get_indexer(pd.Index(wanted))
        if (found < 0).any():
            missing = wanted.to_numpy()[found < 0].tolist()
            raise DataError(
                f"{manifest.name}: {origin} has no row for {listed(missing)}",
                expected="every path of the table among its rows",
                hint="use the table with the file that it was made from",
            )
        found = first[found]
        block[here] = features.block[found] + len(blocks)
        row[here] = features.row[found]
        blocks.extend(features.blocks)
        digests.append(digest)
    widths = {part.shape[1] for part in blocks}  # type: ignore[attr-defined]
    if len(widths) > 1:
        raise DataError(
            f"{manifest.name}: its sources have embeddings of {sorted(widths)} numbers",
            expected="one width",
            hint="use embeddings from one network",
        )
    features = GatheredRows(blocks, block, row)  # type: ignore[arg-type]
    _require_finite(features, manifest)
    fingerprint = digest_of(*(digest.encode() for digest in digests), block.tobytes(), row.tobytes())
    # Of several stores none can speak for all.
    head = heads[0] if len(heads) == len(digests) == 1 else None
    return Samples(manifest, features, no_failures(), fingerprint, head=head, identity=identity)


def _of_images(
    manifest: Manifest,
    choice: BackboneChoice,
    options: ExtractOptions,
    cache: Path,
    strict: bool,
    progress: Progress,
) -> Samples:
    check_files(manifest)
    backbone = choice.backbone
    identity = {**backbone.identity, "precision": options.precision}
    folder = cache / "features" / identity_fingerprint(identity)[:32]
    store = FeatureStore.create(folder, identity, backbone.n_features)
    store.save_head(backbone.head)
    files = manifest.files()
    keys, failed = content_keys(files, progress)
    wanted = np.array([position not in failed for position in range(len(files))])
    wanted &= store.positions(keys) < 0
    todo = np.flatnonzero(wanted)
    # Files of the same content need one pass.
    _, first = np.unique(keys[todo], axis=0, return_index=True)
    todo = todo[np.sort(first)]
    reasons: dict[int, str] = {}
    if len(todo):
        chosen = [files[position] for position in todo]
        moved = backbone.to(options.device)
        reasons = extract(moved, chosen, keys[todo], store, options, progress, strict=strict)
        by_key = {keys[todo[position]].tobytes(): reason for position, reason in reasons.items()}
        failed |= {
            position: by_key[key.tobytes()] for position, key in enumerate(keys) if key.tobytes() in by_key
        }
    if strict and failed:
        failures = _failures(manifest, failed)
        raise _undecodable(failures, f"{manifest.name}: {len(failures):,} of the images read so far")
    found = samples_in(store, manifest, keys, failed)
    return replace(found, head=backbone.head, embedded=len(todo) - len(reasons), notes=backbone.notes)


def samples_in(store: FeatureStore, manifest: Manifest, keys: np.ndarray, failed: dict[int, str]) -> Samples:
    """The samples of a manifest whose features a store holds.

    Args:
        store: The store.
        manifest: The samples.
        keys: (n, 32) uint8 their keys.
        failed: The reason for each (by position) that is to be left out.

    Raises:
        DataError: None is left, or not two classes.
        StoreError: The store lacks one of the others.
    """
    kept = np.array([position not in failed for position in range(len(keys))], dtype=bool)
    failures = _failures(manifest, failed)
    remaining = manifest.select(kept)
    if len(remaining.classes) < 2:
        raise _undecodable(
            failures, f"{manifest.name}: fewer than two classes are left, for {len(failures):,} images"
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


def _failures(manifest: Manifest, failed: dict[int, str]) -> pd.DataFrame:
    """path, label and reason of the samples (by position) without features."""
    positions = sorted(failed)
    failures = manifest.table.iloc[positions][["path", "label"]].reset_index(drop=True)
    failures["reason"] = pd.Series([failed[position] for position in positions], dtype=str)
    return failures


def _undecodable(failures: pd.DataFrame, subject: str) -> DataError:
    named = [f"{path} ({reason})" for path, reason in zip(failures["path"], failures["reason"], strict=True)]
    return DataError(
        f"{subject} cannot be decoded: {listed(named)}",
        expected="images that Pillow can read",
        hint="repair or remove them",
    )


def read_store(folder: Path, name: str) -> Samples:
    """The samples of a store made by `diva embed`.

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
    manifest = read_manifest(str(folder / SAMPLES_FILE))
    hexadecimal = manifest.table["image_sha256"]
    keys = np.frombuffer(bytes.fromhex("".join(hexadecimal)), np.uint8).reshape(len(hexadecimal), -1)
    table = manifest.table.drop(columns="image_sha256").assign(feature_source=".")
    manifest = replace(manifest, name=name, kind="store", table=table)
    return replace(samples_in(store, manifest, keys, {}), seconds=time.monotonic() - start)


def _normal(file: str) -> str:
    return str(Path(file).resolve())


def _file_digest(path: Path) -> str:
    import hashlib

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
