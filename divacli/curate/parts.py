"""Which parts of a network are trained: its head, its last block, or what the user names."""

from __future__ import annotations

from collections import Counter

from torch import Tensor, nn

from divacli.backbones import Backbone
from divacli.backbones.layer import inputs_of, pooled, unknown_layer
from divacli.errors import ModelError


def head_of(backbone: Backbone) -> nn.Linear:
    """The linear layer that takes the features and gives the network's output.

    Raises:
        ModelError: There is none, or the network is an exported archive.
    """
    head = backbone.network.get_submodule(backbone.layer)
    if backbone.head is None or not isinstance(head, nn.Linear):
        raise ModelError(
            f"{backbone.name}: what the layer {backbone.layer!r} gives is not the network's output",
            expected="a network that ends in one nn.Linear, which can be trained",
            hint="leave --layer out, or return a network with such a head from a factory",
        )
    return head


def active_names(backbone: Backbone, probe: Tensor) -> list[str]:
    """Names of the parameters that a network's output depends on in evaluation mode, in its order.

    Args:
        backbone: The network; every parameter is left trainable.
        probe: (b, 3, h, w) images to run it on.

    Raises:
        ModelError: No parameter before the head has a part in its output.
    """
    network = backbone.network
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    with inputs_of(head_of(backbone)) as inputs:
        network(probe)
    features = pooled(inputs[0], backbone.layer, into_linear=True)
    if not features.requires_grad:
        raise ModelError(
            f"{backbone.name}: its features depend on no parameter, or are computed under torch.no_grad()",
            expected="a network whose features can be trained",
            hint="weigh the samples with diva reweight, which takes the features as they are",
        )
    features.sum().backward()
    found = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is not None or within(name, backbone.layer)
    ]
    network.zero_grad(set_to_none=True)
    return found


def trained_names(backbone: Backbone, which: str, active: list[str]) -> list[str]:
    """Names of the parameters that are trained, in the network's order; the head's are always among them.

    Args:
        backbone: The network; nothing in it changes.
        which: "all", "last" (see `last_block`), or the name of a part.
        active: Names of the parameters that its output depends on; the others are not trained.

    Raises:
        ModelError: No such part, or one without parameters that the output depends on.
    """
    network = backbone.network
    if which == "all":
        parts = [""]
    elif which == "last":
        parts = last_block(network, backbone.layer, active)
    else:
        parts = [which]
        modules = [name for name, _ in network.named_modules()]
        if which not in modules and which not in active:
            raise unknown_layer(which, modules)
    wanted = [name for name in active if any(within(name, part) for part in parts)]
    if not wanted:
        raise ModelError(
            f"--trainable {which}: {backbone.name} has no parameters there that its output depends on",
            expected="last, all, or the name of a part with such parameters",
            hint="print the network to see the names of its parts",
        )
    return [name for name in active if name in wanted or within(name, backbone.layer)]


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


def within(name: str, part: str) -> bool:
    """Whether a module or parameter belongs to a part of the network; "" is all of it."""
    return not part or name == part or name.startswith(f"{part}.")
