"""A network that Python holds already: a module and its transform."""

from __future__ import annotations

import copy

from torch import nn

from divacli.backbones.checkpoint import Checkpoint, load_weights
from divacli.backbones.source import Source
from divacli.backbones.transform import Transform
from divacli.errors import ModelError


def from_module(network: nn.Module, transform: Transform | None, checkpoint: Checkpoint | None) -> Source:
    """Take a copy of a module, on the CPU.

    Args:
        network: The module, on any device and in any mode.
        transform: From an RGB PIL image to a float tensor (3, h, w).
        checkpoint: Weights to load into the copy; None: it keeps those of the module.

    Raises:
        ModelError: There is no transform, or the module cannot be copied or takes no such weights.
    """
    name = type(network).__name__
    if transform is None:
        raise ModelError(
            f"a module ({name}) without its transform",
            expected="the transform that the module was validated with, from a PIL image to a tensor",
            hint="Network(module, transform=transform); of torchvision's weights it is weights.transforms()",
        )
    try:
        own = copy.deepcopy(network).cpu()
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the module ({name}) cannot be copied: {error}",
            expected="a module that copy.deepcopy takes",
            hint="build it anew and load its state dict",
        ) from error
    if checkpoint is not None:
        load_weights(own, checkpoint, name)
    return Source(name, own, transform, {"model": name}, from_file=False)
