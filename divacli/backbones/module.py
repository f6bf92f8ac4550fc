"""A network that Python holds already: a module and its transform."""

from __future__ import annotations

import copy
from types import FunctionType, MethodType

from torch import nn
from torch.nn.parameter import is_lazy

from divacli.backbones.checkpoint import Checkpoint
from divacli.backbones.source import Source
from divacli.backbones.transform import Transform
from divacli.errors import ModelError

_INSTALLED = ("torch", "torchvision", "timm", "transformers")


def from_module(
    network: nn.Module, transform: Transform | None, checkpoint: Checkpoint | None, key: str
) -> Source:
    """Take a copy of a module, on the CPU and in single precision.

    Args:
        network: The module, on any device, in any mode and precision.
        transform: From an RGB PIL image to a float tensor (3, h, w).
        checkpoint: Weights to load into the copy; None: it keeps those of the module.
        key: A part of the identity where the code is the user's own: it may change and print the same.

    Raises:
        ModelError: There is no transform, or the module has no values, cannot be copied or takes no such
            weights.
    """
    name = type(network).__name__
    if transform is None:
        raise ModelError(
            f"a module ({name}) without its transform",
            expected="the transform that the module was validated with, from a PIL image to a tensor",
            hint="Network(module, transform=transform); of torchvision's weights it is weights.transforms()",
        )
    tensors = [*network.parameters(), *network.buffers()]
    if any(is_lazy(tensor) or tensor.is_meta for tensor in tensors):
        raise ModelError(
            f"the module ({name}) has parameters without values",
            expected="a module that has been run, on a device that holds its values",
            hint="load its weights, or run it once on a batch of images",
        )
    try:
        own = copy.deepcopy(network).cpu().float()
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the module ({name}) cannot be copied: {error}",
            expected="a module that copy.deepcopy takes",
            hint="build it anew and load its state dict",
        ) from error
    identity = {"model": name}
    if not (all(map(_is_installed, own.modules())) and _is_installed(transform)):
        identity["object"] = key
    source = Source(name, f"the module {name}", own, transform, identity, "its own", from_file=False)
    return source if checkpoint is None else source.with_weights(checkpoint)


def _is_installed(thing: object) -> bool:
    """Whether a module or transform, with all that it holds, is code of a library: it prints its settings."""
    package = type(thing).__module__.partition(".")[0]
    if isinstance(thing, FunctionType | MethodType) or package not in _INSTALLED:
        return False
    values = getattr(thing, "__dict__", {}).values()
    held = [part for value in values for part in (value if isinstance(value, list) else [value])]
    return all(
        _is_installed(part) for part in held if callable(part) and not isinstance(part, type | nn.Module)
    )
