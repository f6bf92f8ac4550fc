"""What Python people hold as DATA: paths, tables, arrays, data sets, and results of other commands."""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from divacli.api.report import Report
from divacli.curate.score import read_scored
from divacli.errors import DataError
from divacli.features import Samples, read_data
from divacli.features.read import check_images
from divacli.features.texts import holds_texts, texts_of
from divacli.files.write import output_error
from divacli.manifest import Labels, Manifest, manifest_of, read_manifest
from divacli.progress import Progress
from divacli.reading import ALL, AS_IT_IS, NamedData, Reading, Source
from divacli.run_record import current
from divacli.solve.loader import manifest_in

Data = (
    str
    | os.PathLike[str]
    | pd.DataFrame
    | Report
    | Manifest
    | Source
    | Mapping[str, Any]
    | tuple[Any, Any]
    | Dataset[Any]
)
"""DATA: a path or URL as on the command line; a pandas table with path and label, relative paths starting
from the current folder; the result of another command, whose main table is used; (features, labels), or a
mapping of arrays as in an `.npz` file; a `torch.utils.data.Dataset` of PIL images; or a `Source` of any of
these, with what it is to be taken for."""

_EXPECTED = (
    "a path, a pandas table with the columns path and label, a result of another command, (features, "
    "labels), a mapping with embedding and label, or a torch Dataset of PIL images"
)


class Inputs:
    """Opens what the arguments of one call name.

    Args:
        cache: Where arrays and images that exist in memory only are kept as files.
        progress: Told of images that are written.
        note: Told what was made of an argument, one sentence each.
    """

    def __init__(self, cache: Path, progress: Progress, note: Callable[[str], None]) -> None:
        self._cache = cache
        self.progress = progress
        self._note = note

    def open(self, data: Data, name: str, labels: Labels = "required") -> Manifest | Samples:
        """Read and check DATA, and that its images are there.

        Args:
            data: As given.
            name: Of the argument; messages call it so where it has no name of its own.
            labels: As for `read_manifest`.

        Raises:
            DataError: It is no DATA, or not usable.
        """
        data, reading = _apart(data, name)
        path = self._path(data)
        if path is None:
            manifest = self._in_memory(data, name, labels, reading)
            check_images(manifest)
            return manifest
        opened = read_data(path, labels=labels, reading=reading)
        return opened if isinstance(data, str | os.PathLike) else called(opened, name)

    def scores(self, data: Data, name: str) -> Manifest | Samples:
        """As `open`; images of a table of scores need not be there any more."""
        data, reading = _apart(data, name)
        path = self._path(data)
        if path is None:
            return self._in_memory(data, name, "required", reading)
        return read_scored(path, reading)

    def table(
        self, data: Data, name: str, *, labels: Labels = "required", repeated: bool = False
    ) -> Manifest:
        """Read a table without looking at files.

        Args:
            data: As given.
            name: As for `open`.
            labels: As for `read_manifest`.
            repeated: As for `read_manifest`.
        """
        data, reading = _apart(data, name)
        path = self._path(data)
        if path is not None:
            return read_manifest(path, labels=labels, repeated=repeated, reading=reading)
        return self._in_memory(data, name, labels, reading, repeated=repeated)

    def named_or_read(self, data: Data) -> NamedData | Manifest:
        """DATA by its name where it has one, else as it was read."""
        given, reading = _apart(data, "data")
        path = self._path(given)
        if path is not None:
            return NamedData(path, reading)
        return self._in_memory(given, "data", "optional", reading)

    def truth(self, data: Data, name: str) -> Manifest:
        """True labels: all that is there."""
        if not isinstance(data, Source | Manifest | Report):
            data = Source(data, split=ALL)
        return self.table(data, name, labels="optional")

    def pool(self, data: Data, name: str) -> NamedData | Manifest | Samples:
        """A pool of another modality, which may be a table of texts; paths are left as they are."""
        given = data
        data, reading = _apart(data, name)
        path = self._path(data)
        if path is not None:
            return NamedData(path, reading)
        table, folder = _table(data)
        if table is not None and holds_texts(table):
            return _read(texts_of(table, folder, name))
        return self.open(given, name, labels="optional")

    def named(self, data: Data, name: str) -> Manifest | Samples:
        """As `open`, called by a name also where it has one of its own."""
        return called(self.open(data, name), name)

    def _path(self, data: Data) -> str | None:
        """Where DATA lies, or was put; None of a table in memory."""
        if isinstance(data, str | os.PathLike):
            return os.fspath(data)
        if isinstance(data, tuple) and len(data) == 2:
            data = {"embedding": data[0], "label": data[1]}
        if isinstance(data, Mapping):
            return str(kept_arrays(data, self._cache))
        return None

    def _in_memory(
        self, data: Data, name: str, labels: Labels, reading: Reading, *, repeated: bool = False
    ) -> Manifest:
        if isinstance(data, Manifest):
            return _read(data)
        table, folder = _table(data)
        if table is None and _gives_samples(data):
            from divacli.interchange.torch_images import dataset_table

            table, notes = dataset_table(data, self._cache / "datasets", self.progress)
            for note in notes:
                self._note(note)
        if table is None:
            raise DataError(f"{name} is a {type(data).__name__}", expected=_EXPECTED)
        return _read(manifest_of(table, folder, name=name, labels=labels, repeated=repeated, reading=reading))


def _apart(data: Data, name: str) -> tuple[Any, Reading]:
    """DATA, and what it is to be taken for.

    Args:
        data: As given.
        name: Of the argument.
    """
    given, reading = (data.data, data.reading) if isinstance(data, Source) else (data, AS_IT_IS)
    return given, reading if name == "data" else replace(reading, role=name)


def called(opened: Manifest | Samples, name: str) -> Manifest | Samples:
    """What was read last, under another name."""
    manifest = replace(manifest_in(opened), name=name)
    for one in current().inputs[-1:]:
        one.manifest = manifest
    return replace(opened, manifest=manifest) if isinstance(opened, Samples) else manifest


def _table(data: Data) -> tuple[pd.DataFrame | None, Path]:
    """A table in memory, and the folder that its paths start from."""
    if isinstance(data, Report):
        data.require_unchanged()
        return data.table, data.folder
    return (data if isinstance(data, pd.DataFrame) else None), Path.cwd()


def _gives_samples(data: object) -> TypeGuard[Dataset[Any]]:
    """Whether it is a data set, of torch's class or not: torch itself asks for no more."""
    return (
        hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and not isinstance(data, Sequence | np.ndarray)
    )


def _read(manifest: Manifest) -> Manifest:
    current().read(manifest.name, manifest)
    return manifest


def kept_arrays(arrays: Mapping[str, Any], cache: Path) -> Path:
    """Keep arrays as an `.npz` file, which tables made of them can name.

    Args:
        arrays: `embedding` (n, d) floating, `label` (n,), and others of n entries, of numpy or torch.
        cache: The folder of features; the file lies below, named after its content.

    Raises:
        OutputError: It cannot be written.
    """
    values = {str(name): _array(str(name), array) for name, array in arrays.items()}
    digest = hashlib.sha256()
    for name, array in sorted(values.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    place = cache / "arrays" / f"{digest.hexdigest()[:32]}.npz"
    if not place.exists():
        _write_npz(place, values)
    return place.resolve()


def _write_npz(place: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` file whole; not by numpy.savez, which takes some names for options of its own."""
    temporary = place.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(temporary, "w") as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(str(place), error) from error


def _array(name: str, given: Any) -> np.ndarray:
    """An array of numbers or text, "" where text is missing.

    Raises:
        DataError: It is something else.
    """
    try:
        if isinstance(given, torch.Tensor):
            tensor = given.detach().cpu()
            given = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        if np.ma.isMaskedArray(given):
            raise TypeError("a masked array")
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name} cannot be taken as an array: {error}",
            expected="an array of numpy, or a dense tensor of torch, of numbers or text",
        ) from error
    if array.dtype != object:
        return array
    # Texts in a column of pandas are Python objects, and so are numbers beside missing ones.
    column = pd.Series(array.tolist(), dtype=object).infer_objects()
    if column.dtype.kind in "biuf":
        return column.to_numpy()
    return np.array(
        ["" if missing else str(cell) for cell, missing in zip(column, column.isna(), strict=True)]
    )
