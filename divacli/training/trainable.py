"""Which parts of a network are trained: its head, its last block, or what the user names."""

from __future__ import annotations

from torch import nn

from divacli.backbones import HEAD_ASIDE
from divacli.backbones.backbone import Backbone
from divacli.backbones.layer import unknown_layer
from divacli.backbones.parts import last_block, within
from divacli.errors import ModelError


def head_of(backbone: Backbone) -> nn.Linear:
    """The linear layer that takes the features and gives the network's output.

    Raises:
        ModelError: There is none, or the network is an exported archive.
    """
    head = backbone.network.get_submodule(backbone.layer)
    if aside := next((note for note in backbone.notes if note.startswith(HEAD_ASIDE)), None):
        raise ModelError(
            f"{backbone.name} was loaded without its head, which is trained here; {aside}",
            expected="a checkpoint whose head is the network's own last layer",
            hint="save the network with a linear head of your classes, even an untrained one",
        )
    if backbone.head is None or not isinstance(head, nn.Linear):
        raise ModelError(
            f"{backbone.name}: what the layer {backbone.layer!r} gives is not the network's output",
            expected="a network that ends in one nn.Linear, which can be trained",
            hint="leave --layer out, or return a network with such a head from a factory",
        )
    return head


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
