"""Say in a sentence what DATA was taken for."""

from __future__ import annotations

from collections.abc import Sequence

from divacli.errors import listed
from divacli.manifest.columns import SPLIT
from divacli.manifest.table import Manifest

_KINDS = {
    "folder": "a folder of images",
    "table": "a table",
    "npz": "embeddings",
    "shards": "tar shards",
    "store": "a feature store",
}


def sentence(manifest: Manifest, columns: Sequence[str] = ()) -> str:
    """What a data set was taken for: its kind and size, and where its labels, weights and splits are from.

    Args:
        manifest: As read.
        columns: What its columns were taken for, some words each.
    """
    table = manifest.table
    n_classes = len(manifest.classes)
    what = f"{_KINDS.get(manifest.kind, manifest.kind)}, {len(table):,} samples"
    what += f" in {n_classes:,} classes" if n_classes else " without labels"
    parts = [what, *columns]
    if SPLIT in table and manifest.kind == "folder":
        counts = table[SPLIT].value_counts().sort_index()
        parts.append(f"split {listed([f'{split} ({n:,})' for split, n in counts.items()])}")
    if table["weight"].nunique() > 1:
        parts.append(f"weights {table['weight'].min():g} to {table['weight'].max():g}")
    return f"{manifest.name}: {'; '.join(parts)}"
