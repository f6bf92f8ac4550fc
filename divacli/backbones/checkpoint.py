"""Read a checkpoint file into clean weights, and put weights into a network that they fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from divacli.backbones.entries import (
    USUAL,
    Entry,
    entries_of,
    is_averaged,
    network_named,
    settings_of,
    shared_prefix,
)
from divacli.backbones.identify import describe_entries, describe_file, describe_weights
from divacli.backbones.onnx_file import is_onnx
from divacli.backbones.pickles.inert import Inert
from divacli.backbones.pickles.torch_file import read_torch_file
from divacli.backbones.rezip import SMALL, member_names, open_checkpoint, state_dict_folder
from divacli.errors import ModelError, listed

_PRECISIONS = {torch.float16: "half", torch.bfloat16: "bfloat16", torch.float64: "double"}


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds.

    Attributes:
        path: The file.
        entries: The sets of named tensors in it; at least one.
        asked: The entry that the user names; None: the one that fits the network.
        settings: Plain values that the file states beside the weights, by name.
    """

    path: Path
    entries: tuple[Entry, ...]
    asked: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> str:
        """The name of the network that the file itself states; "" where it states none."""
        return network_named(self.settings)

    @property
    def main(self) -> Entry:
        """The entry that most probably holds the weights, as long as no network tells."""
        asked = [one for one in self.entries if one.name == self.asked]
        usual = [one for name in USUAL for one in self.entries if one.name == name]
        plain = [one for one in self.entries if not is_averaged(one.name)]
        return next(iter(asked or usual or sorted(plain, key=lambda one: -len(one.weights)) or self.entries))

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The tensors of the main entry by name, without wrappers' prefixes, floating ones in float32.

        Raises:
            ModelError: One is no plain tensor, or not finite.
        """
        weights = self.main.weights
        prefix = shared_prefix(list(weights))
        return clean({name.removeprefix(prefix): tensor for name, tensor in weights.items()}, self.path)

    def notes_of(self, name: str) -> tuple[str, ...]:
        """Say that the file names another network than the user, in a sentence; nothing where it does not.

        Args:
            name: Of the network that it is loaded into.
        """
        stated = self.network.rpartition("/")[2].removeprefix("timm:")
        if not stated or _plain(stated) == _plain(name.removeprefix("timm:")):
            return ()
        return (
            f"{self.path.name} says that its network is {self.network}, and it is loaded into {name}: there "
            "tensors of the same names and shapes may be used otherwise",
        )

    def describe(self) -> str:
        """Say which network the weights look like."""
        names = {name: tuple(tensor.shape) for name, tensor in self.main.weights.items()}
        prefix = shared_prefix(list(names))
        return describe_weights({name.removeprefix(prefix): shape for name, shape in names.items()})


def archive_kind(path: Path) -> Literal["torchscript", "export", "onnx"] | None:
    """Tell whether a file holds a whole network, by its content.

    Args:
        path: Any file.

    Returns:
        "torchscript", "export" (`torch.export.save`), "onnx", or None for everything else.

    Raises:
        ModelError: There is no such file, or it cannot be read.
    """
    with open_checkpoint(path) as stream:
        return _kind_of(member_names(stream, path)) or ("onnx" if is_onnx(stream) else None)


def read_checkpoint(path: Path, entry: str | None = None) -> Checkpoint:
    """Read the weights in a file written by `torch.save` or safetensors, without running code it may carry.

    Args:
        path: The file; its content counts, not its suffix.
        entry: Which of several sets of weights in it is meant; None: the one that fits the network.

    Raises:
        ModelError: The file is absent, cut short, no checkpoint, or holds no tensors.
    """
    with open_checkpoint(path) as stream:
        content = _read(stream, path)
    return Checkpoint(path, _with_tensors(content, path), entry, settings_of(content))


def clean(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return weights in single precision, as tensors of their own.

    Args:
        weights: Tensor by name, as the file has them.
        path: The file, for messages.

    Raises:
        ModelError: One is no plain tensor, of a type that cannot be converted, or not finite.
    """
    if odd := [name for name, tensor in weights.items() if not _is_plain(tensor)]:
        raise ModelError(
            f"{path}: tensors that are sparse, nested, quantised or much larger than what the file holds of "
            f"them: {listed(odd)}",
            expected="plain tensors",
            hint="save them as such: tensor.dequantize(), tensor.to_dense() or tensor.clone()",
        )
    # And tensors, not parameters: each is another object with the same values.
    read = {name: _in_float32(name, Tensor.detach(tensor), path) for name, tensor in weights.items()}
    check_finite(read, path)
    return read


def precision_notes(weights: Iterable[Tensor]) -> tuple[str, ...]:
    """Sentences for the user on the precisions that weights are converted from."""
    found = sorted({_PRECISIONS[tensor.dtype] for tensor in weights if tensor.dtype in _PRECISIONS})
    return tuple(f"{precision}-precision weights converted to float32" for precision in found)


def _kind_of(names: list[str]) -> Literal["torchscript", "export"] | None:
    """The kind of network in an archive with these members."""
    if any(name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names):
        return "export"
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    return None


def _read(stream: BinaryIO, path: Path) -> Any:
    """What a checkpoint holds: containers and tensors."""
    names = member_names(stream, path)
    if _kind_of(names) or is_onnx(stream):
        raise ModelError(
            f"{path} holds a whole exported network, not weights for one",
            hint="leave --model out: the archive says itself what network it is",
        )
    stream.seek(0)
    start = stream.read(512)
    stream.seek(0)
    if start[8:9] == b"{":
        return _read_safetensors(stream.read(), path)
    if start[:1] == b"\x80" or state_dict_folder(names, path) is not None:
        return read_torch_file(stream, path)
    raise ModelError(
        f"{path} is not a checkpoint: it looks like {describe_file(start, names)}",
        expected="a file written by torch.save or safetensors",
        hint="fetch or save the file again; a network of another framework is exported to ONNX: "
        "--checkpoint model.onnx",
    )


def _in_float32(name: str, weight: Tensor, path: Path) -> Tensor:
    """A tensor of floating numbers in single precision, one of whole or complex numbers as it is."""
    try:
        if weight.is_floating_point():
            return weight.float()
        if not weight.is_complex():
            weight.to(torch.int64)
        return weight
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"{path}: {name} is of the type {weight.dtype}, which torch does not convert to float32",
            expected="weights of float16, bfloat16, float32, float64 or float8",
            hint="save them in one of these",
        ) from error


def check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights with a NaN or an infinity.

    Args:
        weights: Tensor by name.
        path: The file they are from, for the message.

    Raises:
        ModelError: Names the first tensors concerned.
    """
    broken = [
        name
        for name, w in weights.items()
        if (w.is_floating_point() or w.is_complex()) and not torch.isfinite(w).all()
    ]
    if broken:
        raise ModelError(
            f"{path}: NaN or infinite values in {listed(broken)}",
            expected="finite weights",
            hint="the training that wrote this file diverged: use an earlier checkpoint",
        )


def _read_safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        weights = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ModelError(
            f"{path} is a broken safetensors file: {error}",
            expected="a complete header and all the bytes it speaks of",
            hint="fetch or save the file again",
        ) from error
    if not weights:
        raise ModelError(f"{path} holds no tensors", expected="a network's state dict")
    return weights


def _with_tensors(content: Any, path: Path) -> tuple[Entry, ...]:
    """The sets of tensors in what a file holds.

    Raises:
        ModelError: There is none.
    """
    found = tuple(entries_of(content))
    if found:
        return found
    if isinstance(content, dict):
        what = describe_entries(content)
    elif isinstance(content, Inert):
        what = content.describe()
    else:
        what = f"a {type(content).__name__}"
    raise ModelError(
        f"{path} holds {what}",
        expected="a network's state dict, bare or in an entry of the file",
        hint="torch.save(model.state_dict(), 'weights.pt') writes one",
    )


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor lies in memory as it is: a few bytes may stand for terabytes of one value."""
    odd = tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized
    if odd or tensor.device.type != "cpu":
        return False
    size = tensor.numel() * tensor.element_size()
    return size <= max(SMALL, tensor.untyped_storage().nbytes())


def _plain(name: str) -> str:
    """The name of a network without the tag of its weights, and however it is spelt."""
    return name.partition(".")[0].lower().replace("-", "_")


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
