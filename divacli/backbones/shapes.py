"""The names and shapes of a network's tensors, found without allocating its weights."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

Shapes = dict[str, tuple[int, ...]]

RGB = 3
"""Channels of the images."""

_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


_FILLS = (
    "kaiming_uniform_",
    "normal_",
    "uniform_",
    "erfinv_",
    "clamp_",
    "mul_",
    "add_",
    "fill_",
    "zero_",
    "trunc_normal_",
)
"""Methods that give fresh weights their values: on tensors without storage they take time for nothing."""


class _WeightsOnMeta(TorchFunctionMode):
    """Makes `torch.empty` give tensors without storage.

    Layers allocate their weights with `torch.empty`, so a network of gigabytes is built in milliseconds.
    `torch.device("meta")` would also take away the numbers that some constructors compute with (RegNet's
    block widths, drop-path schedules).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _FILLS:
            filled = args[0] if args else kwargs.get("tensor")
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def skeleton_network(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the network that `build` makes, most of its tensors without values if it can be built so."""
    try:
        with _WeightsOnMeta():
            return build()
    except RuntimeError:  # it runs a part of itself, to learn what shape that gives
        return build()


def skeleton_state(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Return the state dict of the network that `build` makes, most of it without values."""
    return dict(skeleton_network(build).state_dict())


def skeleton(build: Callable[[], nn.Module]) -> Shapes:
    """Return the shape of every tensor in the state dict of the network that `build` makes."""
    return {name: tuple(tensor.shape) for name, tensor in skeleton_state(build).items()}


def head_tensors(build: Callable[[int], nn.Module], n_classes: int) -> list[str]:
    """Name the tensors whose shape follows the number of classes, whatever the architecture calls them.

    Args:
        build: Makes the network for a given number of classes.
        n_classes: The usual number, to compare with one more.
    """
    usual, wider = skeleton(lambda: build(n_classes)), skeleton(lambda: build(n_classes + 1))
    return [name for name, shape in usual.items() if shape != wider[name]]


def torchvision_names() -> list[str]:
    """Return torchvision's image classification networks, sorted; the quantised ones are left out."""
    return models.list_models(module=models)


def torchvision_family(name: str) -> str:
    """Return the module that builds `name`: networks of one family share most of their tensor names."""
    return inspect.getmodule(models.get_model_builder(name)).__name__  # type: ignore[union-attr]


def build_torchvision(
    name: str,
    n_classes: int = 1000,
    tensors: Iterable[str] | None = None,
    *,
    image_size: int | None = None,
    channels: int = 3,
) -> nn.Module:
    """Build a torchvision classification network with fresh weights.

    Args:
        name: One of `torchvision_names()`.
        n_classes: Rows of the classification head.
        tensors: Names of the tensors that will be loaded into it. GoogLeNet and Inception v3 are built with
            auxiliary heads only where these hold some, because both kinds of checkpoint are about.
        image_size: Side of the images of a Vision Transformer, whose position embeddings depend on it; None:
            that of its published weights.
        channels: Of the images.
    """
    options: dict[str, Any] = {}
    if name in _WITH_AUXILIARY_HEADS:
        auxiliary = tensors is None or any(re.search(r"(^|\.)aux", name.lower()) for name in tensors)
        # transform_input: as torchvision itself sets it whenever it loads weights for these two.
        options = {"aux_logits": auxiliary, "init_weights": False, "transform_input": True}
    if image_size is not None:
        options["image_size"] = image_size
    network = models.get_model(name, weights=None, num_classes=n_classes, **options)
    if channels != RGB:
        _take_channels(network, channels)
    return network


@functools.cache
def torchvision_state(name: str) -> dict[str, Tensor]:
    """Return the state dict of a torchvision network without auxiliary heads; it is not to be changed.

    Most of its tensors have no values.
    """
    return skeleton_state(lambda: build_torchvision(name, tensors=()))


def _take_channels(network: nn.Module, channels: int) -> None:
    """Give the first convolution of a network another number of input channels, in place."""
    name, first = next((name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d))
    made = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # what a convolution keeps fits what it takes
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    network.set_submodule(name, made)
