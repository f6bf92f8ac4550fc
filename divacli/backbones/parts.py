"""Which parameters of a network its features depend on, and what its last block is."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from divacli.backbones.checkpoint import first_line
from divacli.backbones.layer import inputs_of, pooled
from divacli.errors import ModelError


def within(name: str, part: str) -> bool:
    """Whether a module or parameter belongs to a part of the network; "" is all of it."""
    return not part or name == part or name.startswith(f"{part}.")


def active_names(network: nn.Module, layer: str, probe: Tensor) -> list[str]:
    """Names of the parameters that the input of a layer depends on, and of that layer's own, in order.

    Args:
        network: In evaluation mode; every parameter is left trainable.
        layer: Name of the layer.
        probe: (b, 3, h, w) images to run it on.

    Raises:
        ModelError: No parameter before the layer has a part in its input, or the network fails when it is
            differentiated.
    """
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    module = network.get_submodule(layer)
    try:
        with inputs_of(module) as inputs:
            network(probe)
        features = pooled(inputs[0], layer, into_linear=isinstance(module, nn.Linear))
        if features.requires_grad:
            features.sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise _untrainable(
            f"the network cannot be differentiated: {type(error).__name__}: {first_line(error)}"
        ) from error
    if not features.requires_grad:
        raise _untrainable(
            "the features of this network depend on no parameter, or are computed under torch.no_grad()"
        )
    found = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is not None or within(name, layer)
    ]
    network.zero_grad(set_to_none=True)
    return found


def _untrainable(what: str) -> ModelError:
    return ModelError(
        what,
        expected="a network whose features can be trained",
        hint="take the features as they are: diva score or diva reweight, without --linearize",
    )


def last_block(network: nn.Module, head: str, active: list[str]) -> list[str]:
    """The parts of a network from its last block on.

    A block is what the network is built of: a module of several layers whose class occurs more than once
    (ResNet's `Bottleneck`, a transformer's encoder layer), not within another one, and no mere container. In
    a network without blocks the last layer with a weight matrix before the head stands for one.

    Args:
        network: The network.
        head: Name of its last layer.
        active: Names of the parameters that its output depends on.

    Returns:
        Names of modules.
    """
    classes = Counter(type(module) for module in network.modules())
    blocks: list[str] = []
    matrices: list[str] = []
    layers: list[str] = []
    for name, module in network.named_modules():
        if within(head, name) or not any(within(parameter, name) for parameter in active):
            continue
        if _is_block(module) and classes[type(module)] > 1 and not any(within(name, one) for one in blocks):
            blocks.append(name)
        own = list(module.parameters(recurse=False))
        if own:
            layers.append(name)
        if any(parameter.ndim > 1 for parameter in own):
            matrices.append(name)
    if not layers:
        return [head]
    first = (blocks or matrices or layers)[-1]
    return [*layers[next(i for i, name in enumerate(layers) if within(name, first)) :], head]


def _is_block(module: nn.Module) -> bool:
    """Whether a module has several layers with weights; a container of others is none."""
    container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    return not container and sum(parameter.ndim > 1 for parameter in module.parameters()) > 1
