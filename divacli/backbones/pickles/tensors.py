"""Make tensors of what a pickle says of them. Nothing is taken from beyond the bytes that the file holds."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from divacli.backbones.pickles.inert import Inert, Meaning, Name, Unreadable

_DIMENSIONS = 64
_MOST = 1 << 62
_PARTS = 100_000
_DEPTH = 100

_DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
_STORAGES = {
    "BFloat16": "bfloat16",
    "Bool": "bool",
    "Byte": "uint8",
    "Char": "int8",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "Int": "int32",
    "Long": "int64",
    "QInt32": "qint32",
    "QInt8": "qint8",
    "QUInt2x4": "quint2x4",
    "QUInt4x2": "quint4x2",
    "QUInt8": "quint8",
    "Short": "int16",
    "Untyped": "uint8",
}
_QUANTISED = {dtype for name, dtype in _DTYPES.items() if name.startswith("torch.q")}
_NUMPY = {
    "b1": torch.bool,
    "c16": torch.complex128,
    "c8": torch.complex64,
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "u2": torch.uint16,
    "u4": torch.uint32,
    "u8": torch.uint64,
}


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers in a row, of which tensors are views.

    Attributes:
        content: Bytes (uint8, one dimension). They may be filled in later, in place.
        dtype: Type of the numbers.
        order: "little" or "big" if the bytes are of unknown numbers in this order; None if they are in ours.
    """

    content: Tensor
    dtype: torch.dtype
    order: str | None = None


def storage_dtype(kind: Name) -> torch.dtype:
    """Type of the numbers in a storage of a class of torch.

    Args:
        kind: Name of the class, such as `torch.FloatStorage`.

    Raises:
        Unreadable: torch has no such class.
    """
    found = re.fullmatch(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage", kind.text)
    dtype = _DTYPES.get(f"torch.{_STORAGES.get(found[1])}") if found else None
    if dtype is None:
        raise Unreadable(f"it has a storage of the unknown kind {kind.text}")
    return dtype


def held(content: bytes | bytearray) -> Tensor:
    """Copy bytes into a tensor (uint8, one dimension)."""
    made = torch.empty(len(content), dtype=torch.uint8)
    made.numpy()[:] = np.frombuffer(content, dtype=np.uint8)
    return made


def in_our_order(content: Tensor, dtype: torch.dtype, order: str) -> Tensor:
    """Turn the bytes of each number round, in place, where the file has the other order.

    Args:
        content: Bytes (uint8, one dimension).
        dtype: Type of the numbers.
        order: "little" or "big".

    Raises:
        Unreadable: There is a part of a number.
    """
    if len(content) % dtype.itemsize:
        raise Unreadable("it has a part of a number")
    if order != sys.byteorder and dtype.itemsize > 1 and len(content):
        content.untyped_storage().byteswap(dtype)
    return content


def view(storage: Storage, dtype: torch.dtype, offset: int, size: tuple[Any, ...], stride: Any) -> Tensor:
    """Make a tensor that lies in a storage.

    Args:
        storage: Its numbers.
        dtype: Type of the numbers.
        offset: Where it begins, in numbers.
        size: Its shape.
        stride: Step along each dimension, in numbers; None for a tensor without gaps.

    Raises:
        Unreadable: It would not lie within the storage.
    """
    numbers = (offset, *size, *(stride or ()))
    if not all(type(number) is int and 0 <= number < _MOST for number in numbers):
        raise Unreadable("it has a tensor of an impossible shape")
    if len(size) > _DIMENSIONS or prod(max(number, 1) for number in size) >= _MOST:
        raise Unreadable("it has a tensor of an impossible shape")
    if storage.order not in (None, sys.byteorder) and dtype.itemsize > 1:
        raise Unreadable("it has bytes of unknown numbers in another order than this machine's")
    if 0 in size:
        return torch.empty(size, dtype=dtype)
    stride = [prod(size[at + 1 :]) for at in range(len(size))] if stride is None else stride
    if len(size) != len(stride):
        raise Unreadable("it has a tensor of an impossible shape")
    last = offset + sum((number - 1) * step for number, step in zip(size, stride, strict=True))
    start = storage.content.storage_offset()
    if (last + 1) * dtype.itemsize > len(storage.content) or start % dtype.itemsize:
        raise Unreadable("it has a tensor that reaches beyond its numbers")
    bytes_held = storage.content.untyped_storage()
    return torch.empty(0, dtype=dtype).set_(bytes_held, start // dtype.itemsize + offset, size, tuple(stride))


def odd() -> Tensor:
    """Stand for a tensor that is not plain: sparse, nested, quantised or without numbers."""
    return torch.empty(0, device="meta")


def _rebuilt(arguments: tuple[Any, ...]) -> Any:
    """`torch._utils._rebuild_tensor`, and `_rebuild_tensor_v2` with its metadata at the end."""
    match arguments:
        case (Storage() as storage, offset, tuple() as size, tuple() as stride, *more):
            plain = storage.dtype not in _QUANTISED and _is_empty(more[2:])
            return view(storage, storage.dtype, offset, size, stride) if plain else odd()
    return NotImplemented


def _rebuilt_with_dtype(arguments: tuple[Any, ...]) -> Any:
    """`torch._utils._rebuild_tensor_v3`."""
    match arguments:
        case (Storage() as storage, offset, tuple() as size, tuple() as stride, _, _, Name() as name, *more):
            if name.text not in _DTYPES:
                return NotImplemented
            dtype = _DTYPES[name.text]
            plain = dtype not in _QUANTISED and _is_empty(more)
            return view(storage, dtype, offset, size, stride) if plain else odd()
    return NotImplemented


def _is_empty(metadata: list[Any]) -> bool:
    """Whether nothing says that a tensor's numbers are conjugates or negatives of those that are held."""
    return all(one is None or (type(one) is dict and not one) for one in metadata)


def _parameter(arguments: tuple[Any, ...]) -> Any:
    """`torch._utils._rebuild_parameter`: its tensor, whose gradients nobody needs."""
    return arguments[0] if arguments and isinstance(arguments[0], Tensor) else NotImplemented


def _of_a_subclass(arguments: tuple[Any, ...]) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a plain tensor in place of one of a subclass."""
    match arguments:
        case (Name() as rebuild, _, tuple() as inner, *_) if rebuild.text in _REBUILT:
            return _REBUILT[rebuild.text](inner)
    return NotImplemented


def _numpy_dtype(given: Any) -> tuple[torch.dtype, str] | None:
    """Type and byte order of plain numbers, of the stand-in of a NumPy type."""
    if type(given) is not Inert or given.name.text != "numpy.dtype":
        return None
    kind = given.arguments[0] if given.arguments else None
    order = given.state[1] if type(given.state) is tuple and len(given.state) > 1 else "|"
    fields = given.state[2:5] if type(given.state) is tuple else ()
    if type(kind) is not str or kind not in _NUMPY or any(one is not None for one in fields):
        return None
    return _NUMPY[kind], {"<": "little", ">": "big"}.get(order if type(order) is str else "", sys.byteorder)


def _array(content: Any, given: Any, shape: Any, in_columns: Any) -> Any:
    """A tensor of the bytes of a NumPy array; NotImplemented if it has other things than plain numbers."""
    numbers = _numpy_dtype(given)
    content = content.encode("latin-1") if type(content) is str else content
    if numbers is None or type(content) not in (bytes, bytearray) or type(shape) is not tuple:
        return NotImplemented
    storage = Storage(in_our_order(held(content), *numbers), numbers[0])
    if in_columns is not True:
        return view(storage, numbers[0], 0, shape, None)
    return view(storage, numbers[0], 0, shape[::-1], None).permute(tuple(reversed(range(len(shape)))))


def _scalar(arguments: tuple[Any, ...]) -> Any:
    """`numpy.core.multiarray.scalar`: a plain number."""
    match arguments:
        case (given, content):
            made = _array(content, given, (), False)
            return made.item() if isinstance(made, Tensor) else NotImplemented
    return NotImplemented


def _of_a_buffer(arguments: tuple[Any, ...]) -> Any:
    """`numpy.core.numeric._frombuffer`, which protocol 5 has."""
    match arguments:
        case (content, given, shape, "C" | "F" as order):
            return _array(content, given, shape, order == "F")
    return NotImplemented


def _size(arguments: tuple[Any, ...]) -> Any:
    """`torch.Size`: a tuple."""
    match arguments:
        case (list() | tuple() as numbers,):
            return tuple(numbers)
    return NotImplemented


def finished_array(inert: Inert) -> Any:
    """Give a tensor for a NumPy array of plain numbers, and anything else back.

    Args:
        inert: A stand-in whose state is known.

    Raises:
        Unreadable: The array claims another number of bytes than it has.
    """
    if not inert.name.text.endswith(".multiarray._reconstruct"):
        return inert
    match inert.state:
        case (int(), shape, given, in_columns, content):
            made = _array(content, given, shape, in_columns)
            return inert if made is NotImplemented else made
    return inert


def _odd(arguments: tuple[Any, ...]) -> Any:
    return odd()


_REBUILT: dict[str, Meaning] = {
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _parameter,
    "torch._utils._rebuild_meta_tensor_no_storage": _odd,
    "torch._utils._rebuild_nested_tensor": _odd,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_qtensor": _odd,
    "torch._utils._rebuild_sparse_csr_tensor": _odd,
    "torch._utils._rebuild_sparse_tensor": _odd,
    "torch._utils._rebuild_tensor": _rebuilt,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_tensor_v3": _rebuilt_with_dtype,
    "torch._utils._rebuild_wrapper_subclass": _odd,
}

TENSORS: Mapping[str, Meaning] = {
    **_REBUILT,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _of_a_buffer,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _of_a_buffer,
    "torch.Size": _size,
    "torch._tensor._rebuild_from_type_v2": _of_a_subclass,
}
"""Calls that make tensors, as torch and NumPy write them."""


def module_tensors(inert: Inert) -> dict[str, Tensor] | None:
    """Give the state dict of a pickled `torch.nn.Module`.

    Args:
        inert: Stand-in of an object.

    Returns:
        Tensor by name, as the module's own `state_dict` has them. None if the object is no module, or has
        more parts than any network.
    """
    found: dict[str, Tensor] = {}
    waiting: list[tuple[str, Inert, frozenset[int]]] = [("", inert, frozenset())]
    n_parts = 0
    while waiting:
        prefix, part, above = waiting.pop()
        state = _attributes(part)
        if state is None or len(above) > _DEPTH or (n_parts := n_parts + 1) > _PARTS:
            return None
        left_out = state.get("_non_persistent_buffers_set")
        for name, tensor in (*state["_parameters"].items(), *state["_buffers"].items()):
            persistent = type(left_out) is not set or name not in left_out
            if tensor is not None and persistent and isinstance(name, str):
                found[prefix + name] = tensor if isinstance(tensor, Tensor) else odd()
        inner = above | {id(part)}
        for name, child in reversed(state["_modules"].items()):
            if isinstance(child, Inert) and isinstance(name, str) and id(child) not in inner:
                waiting.append((f"{prefix}{name}.", child, inner))
    return found


def _attributes(inert: Inert) -> dict[Any, Any] | None:
    """Attributes of a pickled module; None of any other object."""
    state = inert.state[0] if type(inert.state) is tuple and inert.state else inert.state
    if type(state) is not dict:
        return None
    parts = (state.get(name) for name in ("_parameters", "_buffers", "_modules"))
    return state if all(type(part) is dict for part in parts) else None
