"""Which sample is this: the name by which samples of several tables are compared."""

from __future__ import annotations

import os

import pandas as pd

from divacli.files.formats import is_npz
from divacli.manifest import Manifest
from divacli.manifest.columns import FEATURE_SOURCE


def sample_names(manifest: Manifest) -> list[str]:
    """Where each sample comes from, told alike from everywhere."""
    files = [os.path.normpath(file) for file in manifest.files()]
    if FEATURE_SOURCE not in manifest.table:
        return files
    sources = [os.path.normpath(str(manifest.source(name))) for name in manifest.table[FEATURE_SOURCE]]
    # The length says where the path begins. A NUL would say so as well, but for pandas 2 text ends there.
    return [
        f"{len(source)}:{source}{path}" for source, path in zip(sources, manifest.table["path"], strict=True)
    ]


def npz_sources(manifest: Manifest) -> list[str]:
    """The `.npz` file of each row whose path is a name in one; "" of the others, whose path is a file."""
    sources = manifest.table.get(FEATURE_SOURCE, pd.Series("", manifest.table.index))
    return [source if is_npz(source) else "" for source in sources.fillna("")]
