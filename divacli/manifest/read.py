"""Turn a DATA argument into a checked sample table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.files.existing import DATA_KINDS, require_present, shard_names
from divacli.files.formats import DATA_SUFFIXES, LIST_FORMATS, TABLE_FORMATS, is_npz
from divacli.files.path_or_url import Place, joined, place_of
from divacli.files.remote import RemoteFile
from divacli.files.urls import suffix_of
from divacli.manifest.arrayfile import ArrayFile
from divacli.manifest.bounded import read_stream, read_table
from divacli.manifest.coco import parse_json
from divacli.manifest.column_types import typed
from divacli.manifest.columns import FEATURE_SOURCE
from divacli.manifest.folder import has_images, read_folder, unlisted_images
from divacli.manifest.hub_parquet import holds_images, hub_files, read_hub_parquet
from divacli.manifest.imagefolder import read_imagefolder
from divacli.manifest.list_file import parse_list
from divacli.manifest.npz import read_npz
from divacli.manifest.reading import AS_IT_IS, Reading
from divacli.manifest.shards import is_shard, read_shards, shards_in
from divacli.manifest.table import Manifest
from divacli.manifest.tabular import SAID, parse, parse_file, recognise
from divacli.manifest.validate import leaving, validate
from divacli.run_record import current

Labels = Literal["required", "optional"]
"""Whether samples must have labels, of two classes at least, or may lack them as those of a pool may."""

_STDIN = "standard input"
_KINDS_AT_URL = f"an .npz file, a {DATA_SUFFIXES} table, or a feature store made by: diva embed"


def read_manifest(
    data: str,
    *,
    stdin: BinaryIO | None = None,
    labels: Labels = "required",
    repeated: bool = False,
    reading: Reading = AS_IT_IS,
) -> Manifest:
    """Read the samples of a DATA argument and check everything but the files they name.

    Args:
        data: A folder (of classes, of images with Hugging Face's metadata, or of tar shards), a table, an
            `.npz` file, a tar shard or a pattern of several, or "-" for a table on standard input, whose
            format is told from its content and whose relative paths start from the current folder. A table or
            an `.npz` file may lie at a URL that fsspec reads.
        stdin: Where "-" reads from; the process's own standard input by default.
        labels: "optional" also takes samples without labels (images directly in a folder, a table or an
            `.npz` file without the column label or with nothing in it), of one class, or all of weight 0.
        repeated: Whether a path of a table may stand in several rows.
        reading: What DATA is to be taken for, where it does not say that itself.

    Raises:
        DataError: Nothing there, nothing diva can read, or a table that is not usable as it is.
    """
    manifest = _read(data, stdin, labels != "optional", repeated, reading)
    current().read(data, manifest)
    return manifest


def _read(data: str, stdin: BinaryIO | None, required: bool, repeated: bool, reading: Reading) -> Manifest:
    if data == "-":
        return _read_stdin(stdin or sys.stdin.buffer, required, repeated)
    if not data:  # an unset shell variable; as a path it would be the current folder
        raise DataError("DATA is an empty string", expected=DATA_KINDS)
    require_present(data)
    path = place_of(data)
    try:
        if isinstance(path, Path) and path.is_dir():
            return _read_directory(path, data, required, reading)
        if isinstance(path, Path) and is_shard(path.name):
            return _read_pattern(path, data, required)
        folder = path.parent.resolve()
        suffix = suffix_of(data)
        if is_npz(data):
            raw, embeddings, warnings = read_npz(path, data, labels_required=required)
            return _checked(data, "npz", raw, folder, required, warnings, embeddings)
        if suffix == "parquet" and isinstance(path, Path) and holds_images(path, reading):
            above, files = path.parent.resolve(), {path.name: ""}
            raw, warnings = read_hub_parquet(above, files, data, reading, labels_required=required)
            return _checked(data, "parquet", raw, above, required, warnings)
        if suffix in TABLE_FORMATS:
            table = parse_file(path, suffix, data)
            return _checked(data, "table", table, folder, required, repeated=repeated)
        if suffix in LIST_FORMATS:
            table, warnings = _read_list(path, suffix, data, required)
            return _checked(data, "table", table, folder, required, warnings, repeated=repeated)
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror}", hint="make it readable") from error
    if isinstance(path, RemoteFile):
        raise DataError(
            f"{data} is no kind of DATA that is read from a URL",
            expected=_KINDS_AT_URL,
            hint="mount or copy images, or run diva embed where they are and give its store",
        )
    raise DataError(f"{data} is no kind of DATA", expected=DATA_KINDS)


def _read_list(place: Place, format: str, name: str, labels_required: bool) -> tuple[pd.DataFrame, list[str]]:
    content = read_table(place, format, name)
    if format == "json":
        return parse_json(content, name, labels_required=labels_required)
    return parse_list(content, name, labels_required=labels_required), []


def _read_directory(path: Path, name: str, labels_required: bool, reading: Reading) -> Manifest:
    folder = path.resolve()
    metadata = read_imagefolder(path, name)
    if metadata is not None:
        n = unlisted_images(path, metadata[0]["path"])
        left = [f"{metadata[1]}: {n:,} images of the folder are not listed in it, and not used."] if n else []
        return _checked(metadata[1], "table", metadata[0], folder, labels_required, left)
    if (shards := shards_in(path)) and not has_images(path):
        raw, warnings = read_shards(folder, shards, name, labels_required=labels_required)
        return _checked(name, "shards", raw, folder, labels_required, warnings)
    if (files := hub_files(path, reading)) and not has_images(path):
        raw, warnings = read_hub_parquet(folder, files, name, reading, labels_required=labels_required)
        return _checked(name, "parquet", raw, folder, labels_required, warnings)
    raw, warnings = read_folder(path, name, labels_required=labels_required)
    return _checked(name, "folder", raw, folder, labels_required, warnings)


def _read_pattern(path: Path, name: str, labels_required: bool) -> Manifest:
    # What the names have in common: braces may stand in the names of folders, too.
    above = Path(str(path).partition("{")[0] + "_").parent
    shards = [str(Path(shard).relative_to(above)) for shard in shard_names(str(path))]
    folder = above.resolve()
    raw, warnings = read_shards(folder, shards, name, labels_required=labels_required)
    return _checked(name, "shards", raw, folder, labels_required, warnings)


def manifest_of(
    table: pd.DataFrame,
    folder: Place,
    *,
    name: str = "the table",
    labels: Labels = "required",
    repeated: bool = False,
) -> Manifest:
    """Check a table that is in memory just as one that was read from a file, but for where its files lie.

    Args:
        table: As in a file: columns path and label, and what else there is; its index means nothing.
        folder: Where relative paths start from.
        name: How messages call it.
        labels: As for `read_manifest`.
        repeated: As for `read_manifest`.

    Raises:
        DataError: It is not usable as it is.
    """
    # Whoever has a table in memory has made it: it came in no folder that it could lead out of.
    required = labels != "optional"
    return _checked(name, "table", table, folder.resolve(), required, confined=False, repeated=repeated)


def _read_stdin(stdin: BinaryIO, labels_required: bool, repeated: bool) -> Manifest:
    content = read_stream(stdin, _STDIN)
    if not content.strip():
        raise DataError(
            "nothing came on standard input",
            expected="a table with the columns path and label",
            hint="the command before the pipe wrote nothing: run it alone to see why",
        )
    table = parse(content, recognise(content), _STDIN)
    return _checked(_STDIN, "table", table, Path.cwd(), labels_required, repeated=repeated)


def _checked(
    name: str,
    kind: str,
    raw: pd.DataFrame,
    folder: Place,
    labels_required: bool,
    warnings: Sequence[str] = (),
    embeddings: ArrayFile | np.ndarray | None = None,
    *,
    confined: bool = True,
    repeated: bool = False,
) -> Manifest:
    said = [raw.attrs[SAID]] if SAID in raw.attrs else []
    table, unused, column_warnings = typed(raw, name, labels_required=labels_required)
    origin = folder
    if isinstance(folder, RemoteFile):
        table, folder = _located(table, folder), Path.cwd()
    manifest = Manifest(
        name,
        kind,
        table,
        folder,
        unused=tuple(unused),
        embeddings=embeddings,
        labels_required=labels_required,
        repeated=repeated,
    )
    manifest = replace(manifest, warnings=(*warnings, *column_warnings, *validate(manifest)))
    return replace(manifest, notes=(*said, *_confined(manifest, origin))) if confined else manifest


def _confined(manifest: Manifest, folder: Place) -> tuple[str, ...]:
    """Say that a table names files outside of its folder, also where diva wrote the table.

    A record beside the table could tell that diva did, but comes from whoever made both.

    Args:
        manifest: As read.
        folder: What it is to keep to.

    Raises:
        DataError: It does, where tables are confined to their folders.
    """
    if manifest.kind == "npz":  # it names no files
        return ()
    confined = current().confined
    if not confined and manifest.kind != "table":
        return ()
    found = leaving(manifest, folder)
    if not found:
        return ()
    told = f"{manifest.name}: {len(found):,} paths lead out of {folder}"
    if confined:
        raise DataError(
            f"{told}: {listed(found)}",
            expected="files in or below that folder, for the command was given --confine",
            hint="copy the files there, or give the DATA that the table was made from; leave --confine out "
            "where you trust who made it",
        )
    return (f"{told}, the first: {found[0]} (--confine refuses that)",)


def _located(table: pd.DataFrame, folder: RemoteFile) -> pd.DataFrame:
    """A table from a URL, with URLs in place of relative paths; names in an `.npz` file stay."""
    if FEATURE_SOURCE not in table:
        return table.assign(path=[joined(folder, path) if path else "" for path in table["path"]])
    sources = [joined(folder, source) if source else "" for source in table[FEATURE_SOURCE]]
    paths = [
        path if not path or is_npz(source) else joined(folder, path)
        for path, source in zip(table["path"], sources, strict=True)
    ]
    return table.assign(path=paths, feature_source=sources)
