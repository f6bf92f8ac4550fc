"""Read what `torch.save` or `pickle.dump` wrote, without the reader of either.

The three forms are a zip archive, torch's format before 1.6, and a bare pickle. `pickle_machine` reads the
pickle in each.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from divacli.backbones.pickles.inert import PLAIN, Name, Unreadable
from divacli.backbones.pickles.machine import read_pickle
from divacli.backbones.pickles.tensors import TENSORS, Storage, finished_array, in_our_order, storage_dtype
from divacli.backbones.rezip import UNREADABLE, damaged, member_names, members, state_dict_folder
from divacli.errors import ModelError

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_CHUNK = 1 << 20
_WITHIN = {**PLAIN, **TENSORS}


def read_torch_file(stream: BinaryIO, path: Path) -> Any:
    """Read a file of weights. No code runs, whatever the file names.

    Args:
        stream: The file, which is read once.
        path: What messages call it.

    Returns:
        Plain values and containers; tensors on the CPU, which share memory where the file says so; `Name` and
        `Inert` for everything else. A tensor that is not plain, such as a sparse one, lies on the device
        `meta` and has no numbers.

    Raises:
        ModelError: The file is damaged, or claims what it does not hold.
    """
    folder = state_dict_folder(member_names(stream, path), path)
    stream.seek(0)
    try:
        return _read_stream(stream) if folder is None else _read_zip(stream, path, folder)
    except (Unreadable, OSError) as error:
        raise ModelError(
            f"{path} cannot be read, as if damaged or incomplete: {error}",
            expected="a file written by torch.save",
            hint="fetch or save the file again, with torch.save(model.state_dict(), 'weights.pt')",
        ) from error


def _read_zip(stream: BinaryIO, path: Path, folder: str) -> Any:
    try:
        archive = zipfile.ZipFile(stream)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    with archive:
        storages = _ZipStorages(archive, path, folder)
        pickled = storages.content("data.pkl").numpy().tobytes()
        return read_pickle(io.BytesIO(pickled), _WITHIN, storages.find, finished_array)


class _ZipStorages:
    """Storages in an archive: one member each, read when the pickle first names it."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, folder: str) -> None:
        self.archive = archive
        self.path = path
        self.folder = folder
        self.entries = members(archive, path, folder)
        self.found: dict[str, Storage] = {}
        self.order = "little"
        if f"{folder}/byteorder" in self.entries:
            self.order = self.content("byteorder").numpy().tobytes().decode("latin-1")
        if self.order not in ("little", "big"):
            raise Unreadable("it states an unknown order of bytes")

    def find(self, saved: Any) -> Storage:
        """Give the storage of a persistent id."""
        match saved:
            case ("storage", Name() as kind, str() as key, _, int() as count):
                dtype = storage_dtype(kind)
                if key not in self.found:
                    self.found[key] = self._storage(key, dtype, untyped=kind.text.endswith("UntypedStorage"))
                return _as_claimed(self.found[key], dtype, count)
        raise Unreadable("it names something outside of itself that is no storage")

    def content(self, name: str) -> Tensor:
        """Read one member: bytes (uint8, one dimension)."""
        entry = self.entries.get(f"{self.folder}/{name}")
        if entry is None:
            raise Unreadable(f"it has no member {name}")
        made = torch.empty(entry.file_size, dtype=torch.uint8)
        place, at = _bytes_of(made), 0
        try:
            with self.archive.open(entry) as member:
                while chunk := member.read(_CHUNK):
                    place[at : at + len(chunk)] = chunk
                    at += len(chunk)
        except UNREADABLE as error:
            raise damaged(self.path, error) from error
        if at < len(made):
            raise Unreadable(f"the member {name} is cut short")
        return made

    def _storage(self, key: str, dtype: torch.dtype, *, untyped: bool) -> Storage:
        content = self.content(f"data/{key}")
        if untyped:
            return Storage(content, dtype, self.order)
        return Storage(in_our_order(content, dtype, self.order), dtype)


def _bytes_of(content: Tensor) -> memoryview:
    """The memory of a tensor of bytes."""
    return memoryview(content.numpy())  # type: ignore[arg-type]


def _as_claimed(storage: Storage, dtype: torch.dtype, count: int) -> Storage:
    """A storage that is named once more, or for the first time."""
    if storage.dtype is not dtype or len(storage.content) != count * dtype.itemsize:
        raise Unreadable("it has a storage of another size than it claims")
    return storage


def _read_stream(stream: BinaryIO) -> Any:
    """A bare pickle, or torch's format before 1.6: it begins with the pickle of a certain number."""
    meanings = {**_WITHIN, "torch.storage._load_from_bytes": _nested}
    first = read_pickle(stream, meanings, _nothing_outside, finished_array)
    return _read_legacy(stream) if type(first) is int and first == _MAGIC else first


def _nested(arguments: tuple[Any, ...]) -> Any:
    """`torch.storage._load_from_bytes`: a storage in a file of its own, which holds no further files."""
    match arguments:
        case (bytes() | bytearray() as content,):
            stream = io.BytesIO(content)
            first = read_pickle(stream, _WITHIN, _nothing_outside)
            found = _read_legacy(stream) if type(first) is int and first == _MAGIC else None
            return found if isinstance(found, Storage) else NotImplemented
    return NotImplemented


def _nothing_outside(saved: Any) -> Any:
    raise Unreadable("it names something outside of itself")


def _read_legacy(stream: BinaryIO) -> Any:
    """Four more pickles: a protocol, the system, the content, the keys of storages. Their bytes follow."""
    protocol = read_pickle(stream, PLAIN, _nothing_outside)
    if type(protocol) is not int or protocol != _LEGACY_PROTOCOL:
        raise Unreadable("it is of an unknown version of torch's format")
    read_pickle(stream, PLAIN, _nothing_outside)
    storages = _LegacyStorages(stream)
    content = read_pickle(stream, _WITHIN, storages.find, finished_array)
    storages.fill(read_pickle(stream, PLAIN, _nothing_outside))
    return content


class _LegacyStorages:
    """Storages whose bytes follow the pickle that names them."""

    def __init__(self, stream: BinaryIO) -> None:
        start = stream.tell()
        self.left = stream.seek(0, io.SEEK_END) - start
        stream.seek(start)
        self.stream = stream
        self.found: dict[Any, Storage] = {}

    def find(self, saved: Any) -> Any:
        """Give the storage of a persistent id, which has no content yet."""
        match saved:
            case ("module", Name() as name, *_):
                return name
            case ("storage", Name() as kind, str() | int() as key, _, int() as count, *part):
                return _part_of(self._storage(key, storage_dtype(kind), count), part)
        raise Unreadable("it names something outside of itself that is no storage")

    def fill(self, keys: Any) -> None:
        """Read the bytes of all storages, in the order of their keys."""
        if type(keys) is not list or not all(type(key) in (str, int) for key in keys):
            raise Unreadable("it has no list of its storages")
        if set(keys) != set(self.found) or len(keys) != len(self.found):
            raise Unreadable("it has other storages than its tensors lie in")
        for key in keys:
            storage = self.found[key]
            count = int.from_bytes(self.stream.read(8), "little")
            _as_claimed(storage, storage.dtype, count)
            place = _bytes_of(storage.content)
            if self.stream.readinto(place) < len(place):  # type: ignore[attr-defined]
                raise Unreadable("it ends too early")
            in_our_order(storage.content, storage.dtype, "little")

    def _storage(self, key: str | int, dtype: torch.dtype, count: int) -> Storage:
        if key not in self.found:
            length = count * dtype.itemsize
            self.left -= length
            if count < 0 or self.left < 0:
                raise Unreadable("it has a storage of another size than it claims")
            self.found[key] = Storage(torch.empty(length, dtype=torch.uint8), dtype)
        return _as_claimed(self.found[key], dtype, count)


def _part_of(storage: Storage, part: list[Any]) -> Storage:
    """The part of a storage that files of torch before 0.4 may ask for; all of it where they do not."""
    match part:
        case [] | [None]:
            return storage
        case [(_, int() as offset, int() as count)] if offset >= 0 and count >= 0:
            width = storage.dtype.itemsize
            if (offset + count) * width <= len(storage.content):
                return Storage(storage.content[offset * width : (offset + count) * width], storage.dtype)
    raise Unreadable("it has a storage of another size than it claims")
