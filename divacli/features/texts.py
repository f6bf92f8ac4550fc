"""Texts with labels: read from a table, embedded by CLIP, kept on disk under their content."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from divacli.errors import DataError, ModelError, listed
from divacli.features.feature_rows import batched
from divacli.features.keys import KEY_BYTES, digest_of
from divacli.features.options import ExtractOptions
from divacli.features.samples import Samples, no_failures
from divacli.features.store import FeatureStore
from divacli.files.formats import TABLE_FORMATS
from divacli.files.path_or_url import Place, place_of
from divacli.files.urls import suffix_of
from divacli.manifest import Manifest, manifest_of
from divacli.manifest.column_types import row_numbers
from divacli.manifest.columns import TEXT
from divacli.manifest.tabular import parse_file
from divacli.progress import Progress, silent
from divacli.reading import AS_CALLED

if TYPE_CHECKING:
    from divacli.backbones.hub.clip import TextEncoder

TEXTS = "texts"
"""The kind of a manifest whose paths are texts to embed."""

_SHARD_TEXTS = 1024

_EXPECTED = "a .csv, .tsv, .jsonl or .parquet table with the columns text and label, and no column path"


def is_text_table(data: str) -> bool:
    """Whether DATA is a table of texts: with a column text and without path."""
    try:
        return holds_texts(_parsed(data))
    except (DataError, OSError):  # no such table, or a damaged one: `read_manifest` says so
        return False


def read_texts(data: str) -> Manifest:
    """Read and check a table of texts.

    Args:
        data: A `.csv`, `.tsv`, `.jsonl` or `.parquet` with text and label; weight, id and others if you like.

    Returns:
        The texts as a manifest: path is the text, with its label in brackets where the same text has several.

    Raises:
        DataError: No such table, a text or label missing, a text twice with one label, an unusable weight.
    """
    try:
        raw = _parsed(data)
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror}", expected=_EXPECTED) from error
    if not holds_texts(raw):
        raise DataError(
            f"{data} is no table of texts; its columns are: {listed(list(raw.columns), limit=12)}",
            expected=_EXPECTED,
            hint="name the column of texts text, and leave out or rename a column path",
        )
    return texts_of(raw, place_of(data).parent, data)


def texts_of(raw: pd.DataFrame, folder: Place, name: str) -> Manifest:
    """Check a table of texts that is in memory.

    Args:
        raw: As in a file that `read_texts` reads.
        folder: Where it lies.
        name: How messages call it.

    Returns:
        As `read_texts`.

    Raises:
        DataError: As `read_texts`.
    """
    numbered = raw.assign(path=[str(number) for number in range(len(raw))])
    manifest = manifest_of(numbered, folder, name=name, labels="optional", reading=AS_CALLED)
    if not manifest.labelled:
        raise DataError(f"{name} has no labels", expected=_EXPECTED, hint="fill in the column label")
    table = manifest.table
    no_text = [not isinstance(text, str) or not text.strip() for text in table[TEXT]]
    if any(no_text):
        raise DataError(
            f"{name}: text is empty in {row_numbers(no_text)}",
            expected="a text in every row",
            hint="fill it in, or leave these rows out",
        )
    names = _names(table)
    again = names.duplicated()
    if again.any():
        raise DataError(
            f"{name}: the same text with the same label more than once, again in {row_numbers(again)}: "
            + listed(table[TEXT][again].unique().tolist()),
            expected="one row for each",
            hint="leave the repeated rows out; to count a text twice, give it weight 2",
        )
    return replace(manifest, kind=TEXTS, table=table.assign(path=names))


def embed_texts(texts: Sequence[str], encoder: TextEncoder) -> np.ndarray:
    """Embed some texts; of one that is longer than the encoder takes, its beginning.

    Args:
        texts: (n).
        encoder: The network; it runs on the device where it is.

    Returns:
        (n, d) float32; a row does not depend on the others.

    Raises:
        ModelError: An embedding is not finite.
    """
    limit = encoder.context_length
    # The last token says that the text ends, and is where CLIP takes its embedding.
    tokens = [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in encoder.tokens(texts)]
    found: np.ndarray = np.empty((len(texts), encoder.n_features), np.float32)
    # One at a time: kernels and their threads are shared out by the shape of the input, so that an embedding
    # would differ in the last bits with the texts beside it.
    for row, one in enumerate(tokens):
        found[row] = encoder.features(torch.tensor([one]))[0].cpu()
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        broken = [text for text, good in zip(texts, finite, strict=True) if not good]
        raise ModelError(
            f"{encoder.name} gives NaN or infinite embeddings of {listed(broken)}",
            expected="finite numbers",
            hint="try --no-amp",
        )
    return found


def text_samples(
    texts: Manifest,
    encoder: TextEncoder,
    options: ExtractOptions,
    cache: Path,
    *,
    progress: Progress = silent,
) -> Samples:
    """Find or compute the embeddings of texts.

    Args:
        texts: From `read_texts`.
        encoder: The network.
        options: Where it runs, and how precisely; its batch size is that of images.
        cache: Folder for features, shared by all commands.
        progress: Told how far it is.

    Returns:
        The samples; their `identity` has the entry `space` that images of the same CLIP model have, and their
        manifest warns of texts that were cut.

    Raises:
        ModelError: An embedding is not finite.
        OutputError: The cache cannot be written.
    """
    start = time.monotonic()
    identity = {**encoder.identity, "precision": options.precision}
    store = FeatureStore.in_cache(cache, identity, encoder.n_features)
    contents = texts.table[TEXT].tolist()
    keys = _keys(contents)
    store.mend(keys)
    store.told(options.tell)
    todo = np.flatnonzero(store.positions(keys) < 0)
    # The same text under several labels needs one pass.
    _, first = np.unique(keys[todo], axis=0, return_index=True)
    todo = todo[np.sort(first)]
    if len(todo):
        encoder.to(options.device)
        with progress("embedding texts", len(todo)) as advance, options.arithmetic():
            for part in batched(len(todo), _SHARD_TEXTS):
                rows = todo[part]
                store.append(keys[rows], embed_texts([contents[row] for row in rows], encoder))
                advance(len(rows))
    fingerprint = digest_of(store.fingerprint.encode(), keys.tobytes())
    return Samples(
        replace(texts, warnings=(*texts.warnings, *_cut(texts, encoder))),
        store.rows(keys),
        no_failures(),
        fingerprint,
        keys=keys,
        store=store.folder,
        identity=store.identity,
        embedded=len(todo),
        seconds=time.monotonic() - start,
    )


def _parsed(data: str) -> pd.DataFrame:
    suffix = suffix_of(data)
    if suffix not in TABLE_FORMATS:
        raise DataError(f"{data} is no table of texts", expected=_EXPECTED)
    return parse_file(place_of(data), suffix, data)


def holds_texts(table: pd.DataFrame) -> bool:
    """Whether a table is one of texts: with a column text and without path."""
    return TEXT in table and "path" not in table


def _names(table: pd.DataFrame) -> pd.Series:
    """A readable name for each text, its own but for those that stand there with several labels."""
    with_label = table[TEXT] + " [" + table["label"] + "]"
    return table[TEXT].where(~table[TEXT].duplicated(keep=False), with_label)


def _keys(texts: Sequence[str]) -> np.ndarray:
    """SHA-256 of every text, (n, 32) uint8."""
    digests = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    return np.frombuffer(digests, np.uint8).reshape(-1, KEY_BYTES)


def _cut(texts: Manifest, encoder: TextEncoder) -> list[str]:
    """The warning of texts that are longer than the encoder takes, if there are such."""
    limit = encoder.context_length
    n = sum(len(row) > limit for row in encoder.tokens(texts.table[TEXT].tolist()))
    return [f"{texts.name}: {n:,} of {len(texts.table):,} texts were cut after {limit} tokens."] if n else []
