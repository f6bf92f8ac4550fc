"""Features that were computed already: arrays of an `.npz` file, and rows that name their source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.features.feature_identity import require_same_identity
from divacli.features.feature_rows import GatheredRows, batched, whole
from divacli.features.keys import digest_of
from divacli.features.samples import Samples, failures_of, is_store, left_over, no_failures, read_store
from divacli.files.path_or_url import file_digest
from divacli.manifest import ArrayFile, Manifest, read_manifest
from divacli.manifest.columns import FEATURE_SOURCE
from divacli.parallel import world
from divacli.reading import AS_CALLED

_CHECKED_ROWS = 1024


def of_arrays(manifest: Manifest, embeddings: ArrayFile | np.ndarray) -> Samples:
    """Samples of an `.npz` file; `finite_samples` are those whose embeddings are of use."""
    file = manifest.source(str(manifest.table[FEATURE_SOURCE].iloc[0]))
    return Samples(manifest, whole(embeddings), no_failures(), file_digest(file).hex())


def of_sources(manifest: Manifest, sources: pd.Series) -> Samples:
    """Rows whose embeddings lie in `.npz` files or feature stores, found there by their path.

    `finite_samples` are those whose embeddings are of use.

    Args:
        manifest: The samples.
        sources: (n,) the column `feature_source`, "" for none.

    Raises:
        DataError: A source that holds no embeddings or lacks a path, or rows without one.
        StoreError: Stores of different networks.
    """
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
        origin = manifest.source(source)
        wanted = manifest.table["path"][here]
        if is_store(origin):
            inner = read_store(origin, str(origin), labels="optional")
            # A store's paths are files, and each table writes a file's path as seen from where it lies.
            wanted = pd.Series(manifest.files())[here]
            names = pd.Index([_normal(file) for file in inner.manifest.files()])
            wanted = wanted.map(_normal)
            features, digest = inner.features, inner.fingerprint
            heads.append(inner.head)
            require_same_identity(identity or inner.identity, inner.identity, str(origin))
            identity = inner.identity
        else:
            # The table has the labels; a pool that was labelled later came without.
            source_manifest = read_manifest(str(origin), labels="optional", reading=AS_CALLED)
            if source_manifest.embeddings is None:
                raise DataError(
                    f"{manifest.name}: its source {origin} holds no embeddings",
                    expected="an .npz file or a feature store in the column feature_source",
                    hint="leave that column out where it means something else",
                )
            names = pd.Index(source_manifest.table["path"])
            features, digest = whole(source_manifest.embeddings), file_digest(origin).hex()
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
    fingerprint = digest_of(*(digest.encode() for digest in digests), block.tobytes(), row.tobytes())
    # Of several stores none can speak for all.
    head = heads[0] if len(heads) == len(digests) == 1 else None
    return Samples(manifest, features, no_failures(), fingerprint, head=head, identity=identity)


def finite_samples(samples: Samples, *, strict: bool = False) -> Samples:
    """The samples without those whose features hold NaN or infinite values, which are then among `failed`.

    Args:
        samples: Whose features were computed elsewhere.
        strict: Raise where there are such, instead of leaving them out.

    Raises:
        DataError: There are such and `strict`, or too few samples are left without them.
    """
    manifest, features = samples.manifest, samples.features
    broken = _broken(features)
    if not broken:
        return samples
    if strict:
        subject = f"{manifest.name}: {len(broken):,} of {len(manifest.table):,}"
        raise _not_finite(failures_of(manifest, broken), subject)
    kept, failures, remaining = left_over(manifest, broken, _not_finite)
    return replace(
        samples,
        manifest=remaining,
        features=features.select(kept),
        failed=pd.concat([samples.failed, failures], ignore_index=True),
        keys=None if samples.keys is None else samples.keys[kept],
    )


def _broken(features: GatheredRows) -> dict[int, str]:
    """What is the matter with the features that are not finite, by their row."""
    here = world()
    parts = list(batched(features.shape[0], _CHECKED_ROWS))
    own: dict[int, str] = {}
    for number in here.share_of(len(parts)):
        part = features[parts[number]]
        for row in (~part.isfinite().all(dim=1)).nonzero()[:, 0].tolist():
            kinds = {"NaN": part[row].isnan(), "infinite values": part[row].isinf()}
            holds = " and ".join(kind for kind, where in kinds.items() if bool(where.any()))
            own[parts[number].start + row] = f"its embedding holds {holds}"
    return {row: reason for found in here.gathered(own) for row, reason in found.items()}


def _not_finite(failures: pd.DataFrame, subject: str) -> DataError:
    return DataError(
        f"{subject} embeddings hold NaN or infinite values, at the paths {listed(failures['path'].tolist())}",
        expected="finite numbers",
        hint="leave these rows out, or compute them again",
    )


def _normal(file: str) -> str:
    return str(Path(file).resolve())
