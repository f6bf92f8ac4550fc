"""What every source of networks hands on: the network, its transform and where they are from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from divacli.backbones.transform import Transform


@dataclass(frozen=True)
class Source:
    """A network with its weights, before its feature layer is chosen.

    Attributes:
        name: Short, for people.
        network: The module, on the CPU.
        transform: From an RGB PIL image to a float tensor (3, h, w).
        identity: What the network depends on besides its printed form and its weights.
        notes: Sentences for the user.
        from_file: Whether `identity` says which code makes the network and its transform.
        layer: The layer whose input the features are, where the source knows it.
    """

    name: str
    network: nn.Module
    transform: Transform
    identity: dict[str, str]
    notes: tuple[str, ...] = ()
    from_file: bool = True
    layer: str | None = None
