"""Find the feature layer of a network and take what flows into it."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from divacli.errors import ModelError, listed

Head = tuple[Tensor, Tensor]

OUTPUT = "output"
"""The module whose input the features are, where they are what the network gives."""


_SCRIPT = "in the TorchScript interpreter"
"""What the first line of an error of TorchScript says, whose last line has the reason."""


class Extractor(Protocol):
    """A network that gives features in place of its output.

    Attributes:
        layer: Name of the layer whose input the features are.
        head: (K, d) weight and (K,) bias of that layer where it gives the network's output, else None.
    """

    layer: str
    head: Head | None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (b, d) float32 of images (b, 3, h, w)."""
        ...

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        ...


class LayerExtractor:
    """Takes the input of one layer of an ordinary module, with a forward hook.

    Args:
        network: Put into evaluation mode.
        probe: (b, 3, h, w) images to try it on.
        layer: The layer, such as `with_feature_layer` names it.

    Raises:
        ModelError: The network fails on the probe, has no such layer, or its features have no known form.
    """

    def __init__(self, network: nn.Module, probe: Tensor, layer: str) -> None:
        self.network = network.eval()
        self.layer = layer
        modules = dict(network.named_modules())
        if not layer_exists(self.layer, modules):
            raise unknown_layer(self.layer, modules)
        self._module = modules[self.layer]
        features, output = self._run(probe)
        self.head = None
        if isinstance(self._module, nn.Linear):
            head = as_head(self._module.weight, self._module.bias)
            self.head = head if gives(head, features, output) else None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (b, d) float32 of images (b, 3, h, w)."""
        return self._run(images)[0]

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self.network.to(device)

    def _run(self, images: Tensor) -> tuple[Tensor, Any]:
        with inputs_of(self._module) as inputs:
            output = run_network(self.network, images)
        if not inputs:
            raise ModelError(
                f"the layer {self.layer!r} gets no tensor when the network runs",
                expected="a layer that takes part in the forward pass",
                hint="name another module with --layer",
            )
        return pooled(inputs[0], self.layer, into_linear=isinstance(self._module, nn.Linear)), output


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Watch what flows into a module while its network runs.

    Yields:
        A list that holds the first tensor of the module's last call; empty as long as there was none.
    """
    inputs: list[Tensor] = []

    def capture(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[:] = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)][:1]

    hook = module.register_forward_pre_hook(capture, with_kwargs=True)
    try:
        yield inputs
    finally:
        hook.remove()


def pooled(activation: Tensor, layer: str, *, into_linear: bool) -> Tensor:
    """Reduce a layer's input to one float32 vector an image.

    Args:
        activation: (b, d) taken as it is; (b, tokens, d) averaged over the tokens; (b, d, h, w) averaged over
            space, which is (b, h, w, d) where a linear layer takes it.
        layer: The layer's name, for the message.
        into_linear: Whether that layer is linear, and so has the channels last.

    Returns:
        Features (b, d) float32.

    Raises:
        ModelError: The activation has another number of dimensions.
    """
    activation = activation.float()
    match activation.ndim:
        case 2:
            return activation
        case 3:
            return activation.mean(1)
        case 4:
            return activation.mean((1, 2) if into_linear else (2, 3))
    raise ModelError(
        f"what flows into {layer!r} has the shape {tuple(activation.shape)}",
        expected="(images, d), (images, tokens, d) or (images, d, height, width)",
        hint="name another module with --layer",
    )


def as_head(weight: Tensor, bias: Tensor | None) -> Head:
    """Return copies of a linear layer's weight (K, d) and bias (K,), zeros where it has none, in float32."""
    weight = weight.detach().float().clone()
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().float().clone()


def gives(head: Head, features: Tensor, output: Any) -> bool:
    """Tell whether a linear head on the features (b, d) gives one of the tensors in a network's output."""
    if features.shape[1] != head[0].shape[1]:
        return False
    logits = functional.linear(features, *head)
    return any(same(logits, tensor) for tensor in tensors_in(output))


def same(computed: Tensor, reference: Tensor) -> bool:
    """Tell whether two tensors agree, in finite numbers, within what float32 loses in a deep network."""
    if computed.shape != reference.shape or not torch.isfinite(reference).all():
        return False
    reference = reference.float()
    scale = float(reference.abs().max()) if reference.numel() else 0.0
    return torch.allclose(computed, reference, rtol=1e-3, atol=1e-4 * scale)


def tensors_in(output: Any) -> Iterator[Tensor]:
    """Yield the tensors of a network's output: a tensor, or a dictionary, tuple or dataclass of them."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors_in(value)
    elif dataclasses.is_dataclass(output):
        yield from tensors_in(vars(output))


def run_network(network: Any, images: Tensor) -> Any:
    """Run a network without gradients; a failure in it becomes a message.

    What it prints goes to standard error, for standard output may be a table.

    Raises:
        ModelError: The network raised; carries its message's first line.
    """
    try:
        with torch.no_grad(), redirect_stdout(sys.stderr):
            return network(images)
    except (torch.OutOfMemoryError, ModelError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        line = lines[-1 if _SCRIPT in lines[0] else 0]
        raise ModelError(
            f"the network fails on images of shape {tuple(images.shape)}: {type(error).__name__}: {line}",
            expected=f"a network for float images (batch, {images.shape[1]}, height, width)",
            hint=_to_do(error, line, images.shape[1]),
        ) from error


def _to_do(error: Exception, line: str, channels: int) -> str:
    if isinstance(error, TypeError) and "argument" in line:
        return "return a module from the factory whose forward takes images alone, such as one branch"
    return _other_channels(line, channels) or "where the size is wrong, set it with --image-size"


def _other_channels(line: str, channels: int) -> str:
    """What to do where a convolution says that it takes another number of channels; "" where none does."""
    found = re.search(r"to have (\d+) channels?, but got", line)
    if found is None or int(found[1]) == channels:
        return ""
    if int(found[1]) == 1:
        return "begin the transform with torchvision.transforms.Grayscale()"
    return f"return a transform from an RGB PIL image to a float tensor ({found[1]}, height, width)"


def layer_exists(layer: str, names: Iterable[str]) -> bool:
    """Tell whether `layer` names a part of the network; the network as a whole, "", is none."""
    return bool(layer) and layer in names


def unknown_layer(layer: str, names: Iterable[str]) -> ModelError:
    """Return the error for a layer that is not there, with the nearest names that are."""
    known = [name for name in names if name]
    near = difflib.get_close_matches(layer, known, n=3) or known[-4:]
    return ModelError(
        f"the network has no layer {layer!r}",
        expected=f"the name of one of its {len(known)} layers",
        hint=f"near or last ones: {listed(near)}" if near else "",
    )
