"""The same network made fast, and never to be trained: folded, channels-last, compiled if wanted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from divacli.backbones.layer import LayerExtractor, inputs_of, pooled, run_network, same
from divacli.errors import ModelError


def folded(extractor: LayerExtractor, images: Tensor) -> LayerExtractor:
    """Fold each batch norm into the convolution before it, in a copy of the network.

    A batch norm in evaluation mode is linear, and run by itself it costs as much memory traffic as the
    convolution. Which convolution a batch norm follows is seen by running the network, and the features are
    compared, so that whatever a network's code does with a convolution's output besides leaves it unfolded.

    Args:
        extractor: In evaluation mode.
        images: (b, 3, h, w) to try it on, on the network's device.

    Returns:
        One of the copy; the extractor itself where there is nothing to fold, or its features would change.
    """
    pairs = _pairs(extractor.network, images)
    if not pairs:
        return extractor
    try:
        network = copy.deepcopy(extractor.network)
        for convolution, norm in pairs:
            fused = fuse_conv_bn_eval(
                cast("nn.Conv2d", network.get_submodule(convolution)),
                cast("nn.BatchNorm2d", network.get_submodule(norm)),
            )
            network.set_submodule(convolution, fused)
            network.set_submodule(norm, nn.Identity())
        # Their outputs are channels-last as the images are; weights of another layout would be reordered at
        # every call.
        network.to(memory_format=torch.channels_last)
        made = LayerExtractor(network, images, extractor.layer)
        return made if same(made(images), extractor(images)) else extractor
    except (ModelError, TypeError, RuntimeError):  # it cannot be copied, or its code names the batch norms
        return extractor


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch norm that each one's output goes into, where both run once.

    Subclasses may compute something else and are left alone.
    """
    outputs: list[Tensor] = []  # kept, for a freed tensor's place is given to another
    came_from: dict[int, str] = {}
    runs: dict[str, list[str]] = {}

    def after_convolution(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, output: Tensor) -> None:
            outputs.append(output)
            came_from[id(output)] = name
            runs.setdefault(name, [])

        return note

    def before_norm(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            runs.setdefault(name, []).append(came_from.get(id(args[0]), "") if args else "")

        return note

    hooks = []
    for name, module in network.named_modules():
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after_convolution(name)))
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        run_network(network, images)
    finally:
        for hook in hooks:
            hook.remove()
    ran = list(came_from.values())
    pairs = [(sources[0], norm) for norm, sources in runs.items() if len(sources) == 1 and sources[0]]
    convolutions = [convolution for convolution, _ in pairs]
    return [
        (convolution, norm)
        for convolution, norm in pairs
        if ran.count(convolution) == 1 == convolutions.count(convolution)
    ]


class CompiledExtractor:
    """A network compiled by `torch.compile`, for images of one shape.

    Args:
        extractor: What to compile.
    """

    def __init__(self, extractor: LayerExtractor) -> None:
        self.layer, self.head = extractor.layer, extractor.head
        self._run = torch.compile(_Features(extractor), dynamic=False)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (b, d) float32 of images (b, 3, h, w)."""
        return cast("Tensor", run_network(self._run, images))

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        cast("nn.Module", self._run).to(device)


class _Features(nn.Module):
    """From images to features as a module by itself: a compiler must see the hook from the start."""

    def __init__(self, extractor: LayerExtractor) -> None:
        super().__init__()
        self.network = extractor.network
        module = self.network.get_submodule(extractor.layer)
        self._layer, self._linear = extractor.layer, isinstance(module, nn.Linear)
        self._watching = ExitStack()
        self._inputs = self._watching.enter_context(inputs_of(module))

    def forward(self, images: Tensor) -> Tensor:
        """Return features (b, d) float32 of images (b, 3, h, w)."""
        self.network(images)
        return pooled(self._inputs[0], self._layer, into_linear=self._linear)
