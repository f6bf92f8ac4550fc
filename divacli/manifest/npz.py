"""Read an `.npz` file of embeddings and labels as a sample table."""

from __future__ import annotations

import os
import sys
import zipfile
import zlib
from collections import Counter

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.files.path_or_url import Place, opened
from divacli.files.regular import reason
from divacli.manifest.arrayfile import ArrayFile, read_npy_header
from divacli.manifest.bounded import require_room
from divacli.manifest.columns import FEATURE_SOURCE

_PER_SAMPLE = ("label", "path", "weight", "group")
_KNOWN = ("embedding", "class_name", *_PER_SAMPLE)
_MOST_ARRAYS = 1_000
_OF_NUMBERS_OR_TEXT = "biufUS"
_EXPECTED = "arrays embedding (n, d) and label (n,), optionally path, weight, group (n,) and class_name"
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(
    file: Place, name: str, *, labels_required: bool = True
) -> tuple[pd.DataFrame, ArrayFile | np.ndarray, list[str]]:
    """Read the table and open the embeddings of an `.npz` file.

    `class_name` may hold one name a sample or one a class. It is taken as one a sample where it has n entries
    and samples with the same label always have the same name, and otherwise as a list that integer labels
    0 ... k-1 index.

    Args:
        file: The file; objects in it are never unpickled.
        name: How messages call it.
        labels_required: Whether it must have the array label.

    Returns:
        The table (n rows: path, label where there is one, feature_source, and a column for every other array
        of n numbers or texts; `feature_source` is the file's name, `path` the row number from 0 where the
        file has none), the embeddings (n, d) in the same order, and the warnings.

    Raises:
        DataError: Not an `.npz` file, or an array missing, of objects, or of a wrong type or shape.
    """
    try:
        with opened(file) as stream, zipfile.ZipFile(stream) as archive:
            entries = archive.namelist()
            held = stream.seek(0, os.SEEK_END)
    except _UNREADABLE as error:
        raise DataError(
            f"{name} cannot be read: {reason(error)}",
            expected=f"a file saved by numpy.savez with {_EXPECTED}",
        ) from error
    members = [entry.removesuffix(".npy") for entry in entries if entry.endswith(".npy")]
    if twice := sorted(member for member, count in Counter(members).items() if count > 1):
        raise DataError(f"{name} has more than one array named {listed(twice)}", expected="different names")
    # Names of classes say nothing without the labels that they name.
    required = ("embedding", "label") if labels_required or "class_name" in members else ("embedding",)
    missing = [member for member in required if member not in members]
    if missing:
        raise DataError(
            f"{name} has no array {listed(missing)}; it has: {listed(members)}", expected=_EXPECTED
        )
    if len(members) > _MOST_ARRAYS:  # each is looked for among all of them
        raise DataError(
            f"{name} has {len(members):,} arrays",
            expected=f"{_MOST_ARRAYS:,} at the most",
            hint="give what else is known of the samples in a table",
        )

    embeddings = _open(file, "embedding", name)
    if len(embeddings.shape) != 2 or 0 in embeddings.shape or embeddings.dtype not in ("f2", "f4", "f8"):
        raise DataError(
            f"{name}: embedding is {embeddings.dtype} of shape {embeddings.shape}",
            expected="float16, float32 or float64 of shape (n, d): a row of d features for each of n samples",
        )
    n = len(embeddings)
    require_room(n, held, name, "save it with numpy.savez instead of numpy.savez_compressed")
    arrays = {member: _open(file, member, name, whole=True)[:] for member in _KNOWN[1:] if member in members}
    for member, array in arrays.items():
        if array.dtype.kind not in _OF_NUMBERS_OR_TEXT:
            raise DataError(f"{name}: {member} is {array.dtype}", expected="an array of numbers or strings")
        if member in _PER_SAMPLE and array.shape == (n, 1):
            arrays[member] = array = array[:, 0]  # one column is one entry a sample
        if array.ndim != 1 or (member in _PER_SAMPLE and len(array) != n):
            raise DataError(
                f"{name}: {member} has shape {array.shape}",
                expected=f"({n},), one entry for each row of embedding"
                if member in _PER_SAMPLE
                else "a vector",
                hint="save one-hot labels as label.argmax(axis=1)"
                if member == "label" and array.ndim == 2
                else "",
            )
    if "class_name" in arrays:
        arrays["label"] = _named(arrays["label"], arrays.pop("class_name"), name)
    arrays.setdefault("path", np.arange(n))
    cells = {member: _cells(array, f"{name}: array {member}") for member, array in arrays.items()}
    columns = {member: pd.Series(values, dtype=object) for member, values in cells.items()}
    columns[FEATURE_SOURCE] = pd.Series([file.name] * n)
    unused = [entry for entry in entries if not entry.endswith(".npy")]
    for member in members:
        if member not in _KNOWN:
            column = None if member in columns else _column(file, member, n, name)
            if column is None:
                unused.append(member)
            else:
                columns[member] = column
    table = pd.DataFrame(columns)
    return table, embeddings, [f"{name}: arrays not used: {listed(unused)}."] if unused else []


def _open(file: Place, member: str, name: str, *, whole: bool = False) -> ArrayFile | np.ndarray:
    try:
        return ArrayFile.from_npz(file, member, whole=whole)
    except _UNREADABLE as error:
        raise DataError(
            f"{name}: array {member} cannot be read: {reason(error)}",
            expected="an array of numbers or strings, without Python objects",
            hint="save it again as such, for example numpy.savez(file, label=label.astype(str), ...)",
        ) from error


def _cells(array: np.ndarray, where: str) -> list[object]:
    """The entries of a vector, (n,), as Python objects.

    Raises:
        DataError: Text that is none in Unicode.
    """
    if array.dtype.kind == "U":
        # Codes beyond the last character of Unicode would end Python itself with an error of its own.
        codes = np.ascontiguousarray(array).view(np.uint32)
        if len(codes) and (codes.max() > sys.maxunicode or ((codes >= 0xD800) & (codes < 0xE000)).any()):
            raise DataError(
                f"{where} holds text that is no Unicode",
                expected="characters of Unicode, without halves of surrogate pairs",
                hint="give these samples other names",
            )
    return array.tolist()


def _column(file: Place, member: str, n: int, name: str) -> pd.Series | None:
    """An array that diva does not know as a column of the table; None where it cannot be one."""
    try:
        # The header first: what else is in the file may be large.
        with (
            opened(file) as whole,
            zipfile.ZipFile(whole) as archive,
            archive.open(f"{member}.npy") as stream,
        ):
            shape, _, dtype = read_npy_header(stream)
    except _UNREADABLE:
        return None
    if shape != (n,) or dtype.kind not in _OF_NUMBERS_OR_TEXT:
        return None
    values = _open(file, member, name, whole=True)[:]
    try:
        values = values.astype(str) if dtype.kind == "S" else values
    except UnicodeDecodeError:
        return None
    return pd.Series(_cells(values, f"{name}: array {member}"))


def _named(labels: np.ndarray, class_name: np.ndarray, name: str) -> np.ndarray:
    """The label of each sample by its name."""
    if len(class_name) == len(labels):
        pairs = set(zip(labels.tolist(), class_name.tolist(), strict=True))
        if len(pairs) == len(set(labels.tolist())):
            return class_name
    if labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < len(class_name):
        return class_name[labels]
    raise DataError(
        f"{name}: class_name has {len(class_name):,} entries, which do not name the labels",
        expected=f"one name for each of {len(labels):,} samples, or a list that labels 0, 1, ... index",
    )
