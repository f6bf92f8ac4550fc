"""Say in a sentence what DATA was taken for."""

from __future__ import annotations

from divacli.errors import listed
from divacli.manifest.columns import FEATURE_SOURCE, SPLIT
from divacli.manifest.table import Manifest

_KINDS = {
    "folder": "a folder of images",
    "table": "a table",
    "npz": "embeddings",
    "shards": "tar shards",
    "parquet": "Parquet with images in it",
    "store": "a feature store",
}


def kind_in_words(manifest: Manifest) -> str:
    """The kind of a data set."""
    if manifest.kind == "table" and FEATURE_SOURCE in manifest.table:
        return "a table of samples with their features"
    return _KINDS.get(manifest.kind, manifest.kind)


def split_counts(manifest: Manifest) -> dict[str, int]:
    """Samples of each split that was chosen, by name; empty where there are none."""
    column = manifest.roles.get("split", SPLIT if manifest.kind == "folder" else None)
    if column is None or column not in manifest.table:
        return {}
    counts = manifest.table[column].value_counts().sort_index()
    return {str(split): int(n) for split, n in counts.items()}


def sentence(manifest: Manifest) -> str:
    """What a data set was taken for: its kind and size, and where labels, weights and splits are from."""
    table, roles = manifest.table, manifest.roles
    n_classes = len(manifest.classes)
    what = f"{kind_in_words(manifest)}, {len(table):,} samples"
    parts = [what + (f" in {n_classes:,} classes" if n_classes else " without labels")]
    for role in ("path", "label"):
        if role in roles:
            parts.append(f"{role} from {_columns(roles[role])}")
    if table["weight"].nunique() > 1:
        parts.append(
            f"weight {table['weight'].min():g} to {table['weight'].max():g}"
            + (f" from {_columns(roles['weight'])}" if "weight" in roles else "")
        )
    if splits := split_counts(manifest):
        told = listed([f"{split} ({n:,})" for split, n in splits.items()], limit=8)
        parts.append(f"split {told}" + (f" by {_columns(roles['split'])}" if "split" in roles else ""))
    return f"{manifest.name}: {'; '.join(parts)}"


def _columns(names: str) -> str:
    n = names.count(",") + 1
    return names if n == 1 else f"{n} columns"
