"""Read a checkpoint file into clean weights, and put weights into a network that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from divacli.backbones.identify import describe_entries, describe_file, describe_weights
from divacli.backbones.inert import Inert
from divacli.backbones.pickled_tensors import module_tensors
from divacli.backbones.rezip import SMALL, member_names, open_checkpoint, state_dict_folder
from divacli.backbones.torch_file import read_torch_file
from divacli.errors import ModelError, listed

_ENTRIES = ("state_dict", "model_state_dict", "model", "ema")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_PRECISIONS = {torch.float16: "half", torch.bfloat16: "bfloat16", torch.float64: "double"}


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one file.

    Attributes:
        path: The file.
        weights: Tensor by name, on the CPU, floating ones in float32, without wrappers' prefixes.
        notes: What was changed on the way, in sentences for the user.
    """

    path: Path
    weights: dict[str, Tensor]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Say which network the weights look like."""
        return describe_weights({name: tuple(tensor.shape) for name, tensor in self.weights.items()})


def archive_kind(path: Path) -> Literal["torchscript", "export"] | None:
    """Tell whether a file holds a whole network, by its content.

    Args:
        path: Any file.

    Returns:
        "torchscript", "export" (`torch.export.save`), or None for everything else.

    Raises:
        ModelError: There is no such file, or it cannot be read.
    """
    with open_checkpoint(path) as stream:
        return _kind_of(member_names(stream, path))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the weights in a file written by `torch.save` or safetensors, without running code it may carry.

    A state dict is taken as it is or from under `state_dict`, `model_state_dict` or `model`, however deep.
    The prefixes that DataParallel, wrappers and `torch.compile` put before every name are removed.

    Args:
        path: The file; its content counts, not its suffix.

    Raises:
        ModelError: The file is absent, cut short, no checkpoint, refers to code, or holds no finite weights.
    """
    with open_checkpoint(path) as stream:
        read = _without_prefix(_read(stream, path))
    weights = {name: _in_float32(name, weight, path) for name, weight in read.items()}
    check_finite(weights, path)
    precisions = sorted({_PRECISIONS[w.dtype] for w in read.values() if w.dtype in _PRECISIONS})
    return Checkpoint(
        path=path,
        weights=weights,
        notes=tuple(f"{precision}-precision weights converted to float32" for precision in precisions),
    )


def _kind_of(names: list[str]) -> Literal["torchscript", "export"] | None:
    """The kind of network in an archive with these members."""
    if any(name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names):
        return "export"
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    return None


def _read(stream: BinaryIO, path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, as the file has them."""
    names = member_names(stream, path)
    if _kind_of(names):
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
        return _state_dict(read_torch_file(stream, path), path)
    raise ModelError(
        f"{path} is not a checkpoint: it looks like {describe_file(start, names)}",
        expected="a file written by torch.save or safetensors",
        hint="fetch or save the file again",
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


def load_weights(module: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Copy a checkpoint's weights into a network that has exactly these tensors.

    Batch normalisation's `num_batches_tracked` may be missing: old checkpoints lack it, inference ignores it.

    Args:
        module: Changed in place.
        checkpoint: The weights.
        name: What to call the network in a message.

    Raises:
        ModelError: Tensors are missing, left over or of other shapes; names the first few of each.
    """
    # A network may itself be a wrapper whose names all begin "model.": that prefix is not compared.
    prefix = _shared_prefix(list(module.state_dict()))
    expected = {key.removeprefix(prefix): tuple(t.shape) for key, t in module.state_dict().items()}
    got = {key: tuple(tensor.shape) for key, tensor in checkpoint.weights.items()}
    differences = {
        "missing": [k for k in expected if k not in got and not k.endswith("num_batches_tracked")],
        "unexpected": [k for k in got if k not in expected],
        "of another shape": [
            f"{k} {got[k]} in place of {shape}"
            for k, shape in expected.items()
            if k in got and got[k] != shape
        ],
        "of another kind of numbers": [
            f"{key.removeprefix(prefix)} {found.dtype} in place of {tensor.dtype}"
            for key, tensor in module.state_dict().items()
            if (found := checkpoint.weights.get(key.removeprefix(prefix))) is not None
            and _kind(found) != _kind(tensor)
        ],
    }
    if any(differences.values()):
        told = "; ".join(
            f"{len(keys)} {kind}: {listed(keys, limit=3)}" for kind, keys in differences.items() if keys
        )
        raise ModelError(
            f"{checkpoint.path} does not fit {name}: {told}",
            expected=f"the {len(expected)} tensors of {name}",
            hint=f"name the network that the file was saved from; it looks like {checkpoint.describe()}",
        )
    # Its own state dict brings the versions that some layers insist on, and counters that may be missing.
    state = module.state_dict()
    state.update({prefix + key: tensor for key, tensor in checkpoint.weights.items()})
    module.load_state_dict(state)


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "floating" if tensor.is_floating_point() else "whole"


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


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    expected = f"a state dict, bare or under one of {', '.join(_ENTRIES)}"
    hint = "torch.save(model.state_dict(), 'weights.pt') writes one"
    outer: list[object] = []  # which a file may hold inside of themselves
    content = _opened(content)
    while isinstance(content, dict) and all(content is not one for one in outer):
        outer.append(content)
        inner = [
            found
            for entry in _ENTRIES
            if entry in content and isinstance(found := _opened(content[entry]), dict)
        ]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, dict):
        kind = content.describe() if isinstance(content, Inert) else f"a {type(content).__name__}"
        raise ModelError(f"{path} holds {kind}", expected=expected, hint=hint)
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if len(others) == len(content):
        raise ModelError(f"{path} holds {describe_entries(content)}", expected=expected, hint=hint)
    if others:
        raise ModelError(
            f"{path}: not tensors in its state dict: {listed(others)}", expected=expected, hint=hint
        )
    weights = {str(name): tensor for name, tensor in content.items()}
    if len(weights) < len(content):
        raise ModelError(
            f"{path}: tensors of one name: {listed(list(map(repr, content)))}", expected=expected
        )
    if odd := [name for name, tensor in weights.items() if not _is_plain(tensor)]:
        raise ModelError(
            f"{path}: tensors that are sparse, nested, quantised or much larger than what the file holds of "
            f"them: {listed(odd)}",
            expected="plain tensors",
            hint="save them as such: tensor.dequantize(), tensor.to_dense() or tensor.clone()",
        )
    return weights


def _opened(content: Any) -> Any:
    """The state dict of a whole module, the attributes of another object such as fastai's Learner."""
    if not isinstance(content, Inert):
        return content
    weights = module_tensors(content)
    if weights is None and isinstance(content.state, dict) and "model" in content.state:
        return content.state
    return content if weights is None else weights


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor lies in memory as it is: a few bytes may stand for terabytes of one value."""
    odd = tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized
    if odd or tensor.device.type != "cpu":
        return False
    size = tensor.numel() * tensor.element_size()
    return size <= max(SMALL, tensor.untyped_storage().nbytes())


def _shared_prefix(names: list[str]) -> str:
    """Return the run of wrappers' prefixes that all names carry."""
    shared = ""
    while True:
        more = next((p for p in _PREFIXES if names and all(n.startswith(shared + p) for n in names)), "")
        if not more:
            return shared
        shared += more


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = _shared_prefix(list(weights))
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
