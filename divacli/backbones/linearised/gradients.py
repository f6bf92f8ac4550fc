"""The gradient of a combination of a network's outputs, for each image by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from divacli.backbones.layer import inputs_of, pooled

Gradients = dict[str, Tensor]
"""Gradient (b, *shape) of each parameter, by its name, in the network's order."""


class SampleGradients:
    """The gradients of `direction . phi(x)` with respect to some parameters, where the network stands.

    Args:
        network: In evaluation mode: batch norms use their running statistics, nothing is dropped out.
        layer: Name of the layer whose input is phi(x).
        direction: (d,) what the features are combined with.
        names: Of the parameters.
    """

    def __init__(self, network: nn.Module, layer: str, direction: Tensor, names: list[str]) -> None:
        self._network, self._layer = network, layer
        self._module = network.get_submodule(layer)
        self._direction = direction
        self._names = names
        self._one = grad(self._combined, has_aux=True)

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self._network.to(device)
        self._direction = self._direction.to(device)

    def __call__(self, images: Tensor) -> tuple[Tensor, Gradients]:
        """Features and gradients.

        Args:
            images: (b, 3, h, w) on the network's device, outside of inference mode.

        Returns:
            (b, d) float32 features phi(x), and the gradient of each parameter, (b, *shape).
        """
        named = dict(self._network.named_parameters())
        parameters = {name: named[name].detach() for name in self._names}
        if len(images) == 1:  # as fast as any batch on a CPU, and needs nothing of the network's code
            found, features = self._one(parameters, images[0])
            return features[None], {name: one[None] for name, one in found.items()}
        found, features = vmap(self._one, in_dims=(None, 0))(parameters, images)
        return features, found

    def _combined(self, parameters: dict[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
        with inputs_of(self._module) as inputs:
            _: Any = functional_call(self._network, parameters, (image[None],))
        into_linear = isinstance(self._module, nn.Linear)
        features = pooled(inputs[0], self._layer, into_linear=into_linear)[0]
        return features @ self._direction, features
