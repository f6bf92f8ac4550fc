"""Turn a DATA argument into a checked sample table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from divacli.manifest.bounded import read_stream
from divacli.manifest.column_types import typed
from divacli.manifest.columns import FEATURE_SOURCE, SPLIT
from divacli.manifest.folder import read_folder
from divacli.manifest.hub_parquet import holds_images, hub_files, read_hub_parquet
from divacli.manifest.imagefolder import read_imagefolder
from divacli.manifest.listing import has_images, unlisted_images
from divacli.manifest.npz import read_npz
from divacli.manifest.shards import is_shard, read_shards, shards_in
from divacli.manifest.splits import require_split, splits_of_files
from divacli.manifest.table import Manifest
from divacli.manifest.table_file import read_table_file
from divacli.manifest.table_reading import Origin, require_no_options, rows_of_split, samples_of_table
from divacli.manifest.tabular import SAID, parse, recognise
from divacli.manifest.validate import leaving, validate
from divacli.reading import AS_IT_IS, OPTIONS, Reading, called
from divacli.run_record import current

Labels = Literal["required", "optional"]
"""Whether samples must have labels, of two classes at least, or may lack them as those of a pool may."""

_STDIN = "standard input"
_FOR_TABLES = ("path_column", "label_column", "root", "weight")
_WORKBOOKS = ("xlsx", "xlsm", "xls", "ods", "numbers")
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
        reading: What DATA is to be taken for, where it does not say so itself.

    Raises:
        DataError: Nothing there, nothing diva can read, a table that is not usable as it is, or what may be
            read in several ways.
    """
    manifest = _Reader(data, labels != "optional", repeated, reading).read(stdin)
    manifest = replace(manifest, name=called(manifest.name, reading))
    current().read(called(data, reading), manifest)
    return manifest


@dataclass(frozen=True)
class _Reader:
    """Reads one DATA argument.

    Attributes:
        given: As it was named.
        labels_required: Whether samples must have labels.
        repeated: Whether a path may stand in several rows.
        reading: What it is to be taken for.
        confined: Whether a table may be confined to its folder.
    """

    given: str
    labels_required: bool
    repeated: bool
    reading: Reading
    confined: bool = True

    def read(self, stdin: BinaryIO | None) -> Manifest:
        """Read it, whatever it is."""
        data = self.given
        if data == "-":
            return self._stdin(stdin or sys.stdin.buffer)
        if not data:  # an unset shell variable; as a path it would be the current folder
            raise DataError("DATA is an empty string", expected=DATA_KINDS)
        require_present(data)
        path = place_of(data)
        try:
            if isinstance(path, Path) and path.is_dir():
                return self._directory(path)
            if isinstance(path, Path) and is_shard(path.name):
                return self._shard_pattern(path)
            folder = path.parent.resolve()
            suffix = suffix_of(data)
            if is_npz(data):
                return self._npz(path, folder)
            if suffix == "parquet" and isinstance(path, Path) and holds_images(path, self.reading):
                return self._parquet(path.parent.resolve(), {path.name: ""})
            if suffix in (*TABLE_FORMATS, *LIST_FORMATS):
                required = self.labels_required and self.reading.label_from is None
                raw, warnings = read_table_file(path, suffix, data, labels_required=required)
                return self.table(raw, Origin(data, data, folder, path), warnings)
        except OSError as error:
            raise DataError(f"{data} cannot be read: {error.strerror}", hint="make it readable") from error
        if isinstance(path, RemoteFile):
            raise DataError(
                f"{data} is no kind of DATA that is read from a URL",
                expected=_KINDS_AT_URL,
                hint="mount or copy images, or run diva embed where they are and give its store",
            )
        workbook = suffix in _WORKBOOKS
        raise DataError(
            f"{data} is {'a workbook of a spreadsheet' if workbook else 'no kind of DATA'}",
            expected=DATA_KINDS,
            hint="save its sheet as CSV in UTF-8" if workbook else "",
        )

    def _directory(self, path: Path) -> Manifest:
        name, reading = self.given, self.reading
        folder = path.resolve()
        metadata = read_imagefolder(path, name, reading)
        if metadata is not None:
            raw, called_so = metadata
            splits = set(raw[SPLIT]) if called_so == name else None  # each has metadata of its own
            n = unlisted_images(path, raw["path"], reading.exclude, splits)
            left = (
                [f"{called_so}: {n:,} images of the folder are not listed in it, and not used."] if n else []
            )
            origin = Origin(called_so, name, folder, folder / Path(called_so).name)
            return replace(self.table(raw, origin, left), n_unlisted=n)
        if not has_images(path):
            if shards := shards_in(path):
                return self._shards(folder, shards)
            if files := hub_files(path, reading):
                return self._parquet(folder, files)
        require_no_options(reading, name, "a folder", _FOR_TABLES)
        found = read_folder(path, name, labels_required=self.labels_required, reading=reading)
        return self._checked(
            name,
            "folder",
            found.table,
            folder,
            warnings=found.warnings,
            notes=found.notes,
            left_out=found.left_out,
            roles={} if reading.label_from is None else {"label": reading.label_from},
        )

    def _parquet(self, folder: Path, files: Mapping[str, str]) -> Manifest:
        """The samples of Parquet files with images in them."""
        name, reading = self.given, self.reading
        require_no_options(reading, name, "Parquet with images in it", ("root", "label_from"))
        found = read_hub_parquet(folder, files, name, reading)
        reader = replace(self, reading=found.reading)
        return reader.table(
            found.table, Origin(name, name, folder), found.warnings, "parquet", {"path": found.images}
        )

    def _shard_pattern(self, path: Path) -> Manifest:
        # What the names have in common: braces may stand in the names of folders, too.
        above = Path(str(path).partition("{")[0] + "_").parent
        shards = [str(Path(shard).relative_to(above)) for shard in shard_names(str(path))]
        return self._shards(above.resolve(), shards)

    def _shards(self, folder: Path, shards: Sequence[str]) -> Manifest:
        """The samples of tar files, whose names may tell their splits."""
        name, reading = self.given, self.reading
        require_no_options(reading, name, "tar shards", _FOR_TABLES)
        required = self.labels_required and reading.label_from is None
        if splits := splits_of_files(shards):
            counts = {split: len(files) for split, files in splits.items()}
            chosen = require_split(name, counts, reading, what="shards")
            shards = [shard for split in chosen for shard in splits[split]]
            reading = replace(reading, split=())
        raw, warnings = read_shards(folder, shards, name, labels_required=required)
        return replace(self, reading=reading).table(raw, Origin(name, name, folder), warnings, "shards")

    def _npz(self, path: Place, folder: Place) -> Manifest:
        """The samples of an `.npz` file, of the splits that its array `split` tells."""
        name, reading = self.given, self.reading
        require_no_options(reading, name, "an .npz file", [one for one in OPTIONS if one != "split"])
        raw, embeddings, warnings = read_npz(path, name, labels_required=self.labels_required)
        manifest = self._checked(name, "npz", raw, folder, warnings=warnings, embeddings=embeddings)
        rows = rows_of_split(manifest.table, name, reading)
        if rows is None or rows.all():
            return manifest
        return manifest.select(rows)

    def _stdin(self, stdin: BinaryIO) -> Manifest:
        content = read_stream(stdin, _STDIN)
        if not content.strip():
            raise DataError(
                "nothing came on standard input",
                expected="a table with the columns path and label",
                hint="the command before the pipe wrote nothing: run it alone to see why",
            )
        raw = parse(content, recognise(content), _STDIN)
        return self.table(raw, Origin(_STDIN, "-", Path.cwd(), content=content))

    def table(
        self,
        raw: pd.DataFrame,
        origin: Origin,
        warnings: Sequence[str] = (),
        kind: str = "table",
        roles: Mapping[str, str] | None = None,
    ) -> Manifest:
        """The samples of a table, checked.

        Args:
            raw: As its format gave it.
            origin: Where it comes from.
            warnings: What is known already.
            kind: "table"; "parquet" or "shards", whose paths are known to lead to images.
            roles: Columns that path was made from already.
        """
        found = samples_of_table(
            raw, origin, self.reading, labels_required=self.labels_required, located=kind != "table"
        )
        said = [raw.attrs[SAID]] if SAID in raw.attrs else []
        return self._checked(
            origin.name,
            kind,
            found.table,
            found.folder,
            warnings=[*warnings, *found.warnings],
            notes=[*said, *found.notes],
            used=found.used,
            roles={**(roles or {}), **found.roles},
        )

    def _checked(
        self,
        name: str,
        kind: str,
        raw: pd.DataFrame,
        folder: Place,
        *,
        warnings: Sequence[str] = (),
        notes: Sequence[str] = (),
        embeddings: ArrayFile | np.ndarray | None = None,
        used: Sequence[str] = (),
        roles: Mapping[str, str] | None = None,
        left_out: Mapping[tuple[str, str], int] | None = None,
    ) -> Manifest:
        table, unused, column_warnings = typed(raw, name, labels_required=self.labels_required)
        origin = folder
        if isinstance(folder, RemoteFile):
            table, folder = _located(table, folder), Path.cwd()
        manifest = Manifest(
            name,
            kind,
            table,
            folder,
            unused=tuple(column for column in unused if column not in used),
            embeddings=embeddings,
            labels_required=self.labels_required,
            repeated=self.repeated,
            pixel_range=self.reading.range,
            given=self.given,
            role=self.reading.role,
            roles=dict(roles or {}),
            left_out=dict(left_out or {}),
        )
        manifest = replace(manifest, warnings=(*warnings, *column_warnings, *validate(manifest)))
        outside = _confined(manifest, origin) if self.confined else ()
        return replace(manifest, notes=(*notes, *outside))


def manifest_of(
    table: pd.DataFrame,
    folder: Place,
    *,
    name: str = "the table",
    labels: Labels = "required",
    repeated: bool = False,
    reading: Reading = AS_IT_IS,
) -> Manifest:
    """Check a table that is in memory just as one that was read from a file, but for where its files lie.

    Args:
        table: As in a file: columns path and label, and what else there is; its index means nothing.
        folder: Where relative paths start from.
        name: How messages call it.
        labels: As for `read_manifest`.
        repeated: As for `read_manifest`.
        reading: As for `read_manifest`.

    Raises:
        DataError: It is not usable as it is.
    """
    # Whoever has a table in memory has made it: it came in no folder that it could lead out of.
    reader = _Reader(name, labels != "optional", repeated, reading, confined=False)
    return reader.table(table, Origin(name, name, folder.resolve()))


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
