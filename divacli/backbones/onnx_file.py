"""Read an ONNX file, and the files beside it that hold its weights.

Weights may lie in other files, which the network names. onnx and onnxruntime would open those themselves,
by rules that changed from release to release. So they are read here, and put into the network: the runtime
gets bytes that name no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

from divacli.backbones.rezip import CHECKPOINT_BYTES, open_checkpoint
from divacli.errors import ModelError
from divacli.files.regular import open_regular, read_at_most, reason

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

ONNX_BYTES = (2 << 30) - (1 << 20)
"""The most that a network and its weights may have: protobuf holds less than 2 GiB."""

_NUMBER, _LENGTH = 0, 2
_VERSION, _GRAPH = 1, 7
_FIELDS = {
    **{_VERSION: _NUMBER, 2: _LENGTH, 3: _LENGTH, 4: _LENGTH, 5: _NUMBER, 6: _LENGTH, _GRAPH: _LENGTH},
    **{8: _LENGTH, 14: _LENGTH, 20: _LENGTH, 25: _LENGTH, 26: _LENGTH},
}
"""How protobuf writes each field of ONNX's `ModelProto`."""

_LOOKED_AT = 1000
"""Fields before the graph that are looked at; there are about ten."""


def is_onnx(stream: BinaryIO) -> bool:
    """Tell whether a file is an ONNX network, by the fields it begins with; it may be cut short.

    Args:
        stream: The file; it is left anywhere.
    """
    stream.seek(0)
    found: set[int] = set()
    for _ in range(_LOOKED_AT):
        tag, value = _varint(stream), _varint(stream)
        if tag is None or value is None or _FIELDS.get(tag >> 3) != tag & 7:
            return False
        found.add(tag >> 3)
        if {_VERSION, _GRAPH} <= found:
            return True
        if tag & 7 == _LENGTH:
            if value > CHECKPOINT_BYTES:
                return False
            stream.seek(value, 1)
    return False


def onnx_library(name: str, path: Path) -> ModuleType:
    """Import onnx, onnxruntime or a module of them.

    Args:
        name: The module.
        path: The file that needs it, for the message.

    Raises:
        ModelError: It is not installed, or does not load.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(
            f"{path} is an ONNX network, which needs {name.partition('.')[0]}: {error}",
            expected="onnx and onnxruntime",
            hint="pip install 'divacli[onnx]'",
        ) from error


def read_model(path: Path) -> tuple[ModelProto, str]:
    """Read a network, with the weights that lie in other files.

    Args:
        path: A file that `is_onnx`.

    Returns:
        The network, which names no other file, and the SHA-256 of the file and of what was read beside it.

    Raises:
        ModelError: onnx is not installed; the file is damaged or too large; weights lie outside of its
            folder, or are not there.
    """
    onnx, messages = onnx_library("onnx", path), onnx_library("google.protobuf.message", path)
    with open_checkpoint(path) as stream:
        try:
            content = read_at_most(stream, ONNX_BYTES, path)
        except OSError as error:
            raise _too_large(path) from error
    digest, room = hashlib.sha256(content), ONNX_BYTES - len(content)
    model: ModelProto = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        # A newer runtime may know fields that are unknown here, and were not looked at.
        model.DiscardUnknownFields()
        parts = list(_parts(model))
    except (messages.DecodeError, ValueError) as error:
        raise ModelError(
            f"{path} is a damaged ONNX file, or is cut short: {error}",
            expected="a whole file as onnx.save writes it",
            hint="fetch or export the file again",
        ) from error
    for part in parts:
        if isinstance(part, onnx.TensorProto) and part.data_location == onnx.TensorProto.EXTERNAL:
            part.raw_data = _read_beside(path, part, room)
            room -= len(part.raw_data)
            digest.update(part.raw_data)
            part.ClearField("external_data")
            part.ClearField("data_location")
    del model.metadata_props[:]  # where onnxruntime may look for settings
    return model, digest.hexdigest()


def _varint(stream: BinaryIO) -> int | None:
    """The next number as protobuf writes it, 7 bits in a byte; None where there is none."""
    value = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _parts(message: Any) -> Iterator[Any]:
    """A message of protobuf and all messages in it; a `ValueError` where a text of theirs is none."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _parts(part)
        elif field.type == field.TYPE_STRING:
            # What is no UTF-8 some releases of protobuf raise an error for, and others give as bytes.
            for text in [value] if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise ValueError(f"a name {text!r}")


def _read_beside(path: Path, tensor: TensorProto, room: int) -> bytes:
    """The bytes of a tensor that lie in another file of the network's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _beside(path, entries.get("location", ""))
    try:
        with open_regular(file) as stream:
            size = stream.seek(0, 2)
            offset = int(entries.get("offset") or 0)
            length = int(entries["length"]) if entries.get("length") else size - offset
            if not 0 <= offset <= offset + length <= size:
                raise ValueError(f"it has {size:,} bytes, and {length:,} from {offset:,} on are asked for")
            if length > room:
                raise _too_large(path)
            stream.seek(offset)
            return stream.read(length)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} keeps its weight {tensor.name} in {file.name}, which cannot be read: {reason(error)}",
            expected=f"that file whole, in {path.parent}",
            hint="fetch or export both files again, into one folder",
        ) from error


def _beside(path: Path, location: str) -> Path:
    """The file in the folder of a network, or below it, that the network names; links are followed in it."""
    try:
        folder = path.parent.resolve()
        file = (folder / location).resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL in the name
        file = folder
    named = Path(location)
    if file == folder or named.is_absolute() or ".." in named.parts or not file.is_relative_to(folder):
        raise ModelError(
            f"{path} keeps weights in {location!r}, which lies outside of its folder or links there: refused",
            expected="weights in the network's own folder",
            hint="copy that file itself into the folder (cp -L follows links), or export into one file",
        )
    return file


def _too_large(path: Path) -> ModelError:
    return ModelError(
        f"{path} and its weights have more than {ONNX_BYTES:,} bytes",
        expected="a network of less than 2 GiB",
        hint="export it in float16, or name the network with --model and give its state dict",
    )
