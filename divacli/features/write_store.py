"""Write samples and their features as a store that is a kind of DATA."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from divacli.errors import DataError
from divacli.features.feature_rows import batched
from divacli.features.samples import SAMPLES_FILE, Samples
from divacli.features.store import FeatureStore
from divacli.manifest import relocate, write_table
from divacli.manifest.columns import FEATURE_SOURCE

_SHARD_ROWS = 8192


def silently(sentence: str) -> None:
    """Tell nobody."""


def write_store(samples: Samples, folder: Path, tell: Callable[[str], None] = silently) -> None:
    """Write a feature store that holds just these samples, in their order.

    Args:
        samples: Samples whose features were computed from images.
        folder: Where to. A store of the same network that lies there gets a new sample table, and features
            that it has already are not written again, unless they are damaged.
        tell: Told, in one sentence, of what was damaged there.

    Raises:
        DataError: The features came without images.
        StoreError: The folder holds features of another network.
        OutputError: It cannot be written.
    """
    table = samples_table(samples)
    write_features(samples, folder, tell)
    write_table(relocate(table, samples.manifest.folder, folder), folder / SAMPLES_FILE, "parquet")


def samples_table(samples: Samples) -> pd.DataFrame:
    """The table of a store, to be written as `SAMPLES_FILE`, with paths as the samples have them.

    Args:
        samples: As for `write_store`.

    Raises:
        DataError: The features came without images.
    """
    if samples.keys is None:
        raise DataError(
            f"{samples.manifest.name} holds embeddings already",
            expected="images to embed",
            hint="give it to the other commands as it is",
        )
    table = samples.manifest.table.drop(columns=FEATURE_SOURCE, errors="ignore")
    return table.assign(image_sha256=[key.tobytes().hex() for key in samples.keys])


def write_features(samples: Samples, folder: Path, tell: Callable[[str], None] = silently) -> None:
    """Write all of a store but the table of its samples; without that it is unfinished.

    Args:
        samples: As for `write_store`, from which `samples_table` can be made.
        folder: Where to.
        tell: Told of damage.

    Raises:
        DivaError: As `write_store`.
    """
    assert samples.keys is not None
    store = FeatureStore.create(folder, samples.identity, samples.features.shape[1])
    store.save_head(samples.head)
    store.mend(samples.keys)
    store.told(tell)
    for part in batched(len(samples), _SHARD_ROWS):
        missing = store.positions(samples.keys[part]) < 0
        if missing.any():
            store.append(samples.keys[part][missing], samples.features[part][missing].numpy())
