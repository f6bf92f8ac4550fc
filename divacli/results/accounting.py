"""Check that no sample of the input is lost, doubled or mixed up on its way into the tables of a result."""

from __future__ import annotations

import functools
import os.path
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from divacli.errors import DivaError, listed
from divacli.files.formats import is_npz
from divacli.files.path_or_url import joined
from divacli.files.urls import is_url
from divacli.manifest import Manifest
from divacli.manifest.columns import FEATURE_SOURCE


def account(
    read: Sequence[Manifest], parts: Sequence[pd.DataFrame], folder: Path, *, labels: bool = True
) -> None:
    """Require that each sample that was read is in exactly one of some tables.

    A sample is known by its file, or by its name in a file of embeddings; never by its place in a table.

    Args:
        read: All samples of the input.
        parts: Tables as they are written.
        folder: That their relative paths start from.
        labels: Whether each must have the label, too, that it was read with.

    Raises:
        DivaError: A mistake in diva, with the samples that it is about; nothing is to be written then.
    """
    wanted = Counter(sample for one in read for sample in _samples(one.table, one.folder, labels=labels))
    found = Counter(sample for table in parts for sample in _samples(table, folder, labels=labels))
    if wanted == found:
        return
    problems = [
        f"{some.total():,} {what} ({listed([repr(sample) for sample in list(some)[:3]], some.total())})"
        for what, some in (("are lost", wanted - found), ("are too many", found - wanted))
        if some
    ]
    raise DivaError(
        f"of the {wanted.total():,} samples of {listed([one.name for one in read])}, "
        f"{' and '.join(problems)} in the results, which are not written",
        expected="each sample in exactly one of them; this is a mistake in diva",
        hint="please report it, with the command",
    )


def _samples(table: pd.DataFrame, folder: Path, *, labels: bool) -> Iterator[tuple[str, str, str]]:
    """What each row is known by: file or name, source, and label."""
    base = str(folder.resolve())
    files = [_normal(joined(base, path)) for path in table["path"]]
    if FEATURE_SOURCE not in table:
        sources = [""] * len(table)
    else:
        written = table[FEATURE_SOURCE].fillna("")
        names = written.map(is_npz).to_numpy(bool)
        # A name in a file of embeddings is no path; a store's rows are known by their files.
        files = [path if name else file for path, file, name in zip(table["path"], files, names, strict=True)]
        sources = [
            _normal(joined(base, source)) if name else "" for source, name in zip(written, names, strict=True)
        ]
    given = table["label"] if labels else [""] * len(table)
    return zip(files, sources, given, strict=True)


def _normal(file: str) -> str:
    """A file by where its folder really is: `..` behind a link leads elsewhere than its name says."""
    if is_url(file):
        return file
    folder, _, name = file.rpartition("/")
    return f"{_real(folder)}/{name}"


@functools.lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)
