"""Find the feature layer of a network and take what flows into it."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from itertools import takewhile
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from divacli.errors import ModelError, listed

Head = tuple[Tensor, Tensor]

OUTPUT = "output"
"""The module whose input the features are, where they are what the network gives."""

_CONSTANT = 1e-2  # of how much an output differs between images, to be called the same for all of them


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
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        line = lines[-1 if _SCRIPT in lines[0] else 0]
        raise ModelError(
            f"the network fails on images of shape {tuple(images.shape)}: {type(error).__name__}: {line}",
            expected=f"a network for float images (batch, {images.shape[1]}, height, width)",
            hint=_other_channels(line, images.shape[1])
            or "where the size is wrong, set it with --image-size",
        ) from error


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


class OutputFeatures(nn.Module):
    """A network whose output is the features, pooled as the input of a layer is.

    Args:
        network: It gives a tensor, or several of them: the first of two dimensions counts, else the first.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.output = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (b, d) float32 of images (b, c, h, w)."""
        tensors = [tensor for tensor in tensors_in(self.network(images)) if tensor.is_floating_point()]
        if not tensors:
            raise ModelError(
                "the network gives no tensor of floating numbers",
                expected="features, or the output of a classifier",
                hint="name the layer whose input to take with --layer",
            )
        chosen = next((tensor for tensor in tensors if tensor.ndim == 2), tensors[0])
        return self.output(pooled(chosen, OUTPUT, into_linear=False))


def with_feature_layer(
    network: nn.Module, probe: Tensor, layer: str | None, head: str | None = None
) -> tuple[nn.Module, str]:
    """Find the layer whose input is the features.

    It is the last `nn.Linear` that runs, where the network's output depends on the image through it alone: a
    classifier's last layer, whatever activation follows. Where no linear layer is of that kind, the network
    has no head, and its output is the features.

    Args:
        network: In evaluation mode.
        probe: (b, c, h, w) different images to run it on, at least two.
        layer: The layer that the user names. None: it is searched for.
        head: Name of the network's last layer, where its source knows it: a convolution may be one.

    Returns:
        The network, or one around it that hands its output over, and the name of the layer.

    Raises:
        ModelError: The network fails on the probe.
    """
    if layer == OUTPUT and OUTPUT not in dict(network.named_modules()):
        layer = None
    elif layer is None:
        layer = head_layer(network, probe) or head
    return (OutputFeatures(network).eval(), OUTPUT) if layer is None else (network, layer)


def head_layer(network: nn.Module, probe: Tensor) -> str | None:
    """Name the last `nn.Linear` through which alone a network's output depends on the image; None for none.

    Where several linear layers that run last give the output together, each from an input of its own, it is
    the last of them: networks distilled from others have two heads.

    Args:
        network: In evaluation mode.
        probe: As for `with_feature_layer`.

    Raises:
        ModelError: The network fails on the probe.
    """
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    ran: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in linears.items()
    ]
    try:
        output = run_network(network, probe)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        return None
    last = linears[ran[-1]]
    if _give_output(network, [last], probe, output):
        return ran[-1]
    backwards = [linears[name] for name in reversed(ran)]
    heads = list(dict.fromkeys(takewhile(lambda one: one.out_features == last.out_features, backwards)))
    alone = len(heads) == 1 or not _side_by_side(network, heads, probe)
    return None if alone or not _give_output(network, heads, probe, output) else ran[-1]


def _side_by_side(network: nn.Module, modules: list[nn.Linear], probe: Tensor) -> bool:
    """Tell whether the first of several layers, which runs last, takes nothing from the others."""
    last, *others = modules
    with inputs_of(last) as inputs:
        run_network(network, probe)
        before = list(inputs)
        try:
            with _all_the_same(others):
                run_network(network, probe)
        except ModelError:  # its code takes their output for what it no longer is
            return False
    return all(map(torch.equal, before, inputs))


def _give_output(network: nn.Module, modules: list[nn.Linear], probe: Tensor, output: Any) -> bool:
    """Tell whether a part of the output is the same for all images once some layers give all the same."""
    try:
        with _all_the_same(modules):
            replaced = run_network(network, probe)
    except ModelError:  # its code takes the layer's output for what it no longer is
        return False
    spreads = [
        (_spread(before), _spread(after))
        for before, after in zip(tensors_in(output), tensors_in(replaced), strict=True)
        if before.is_floating_point() and before.ndim and len(before) == len(probe)
    ]
    if not any(before for before, _ in spreads):
        return True  # of weights that are zero, say: nothing tells where its output comes from
    return any(after <= _CONSTANT * before for before, after in spreads if before)


@contextmanager
def _all_the_same(modules: list[nn.Linear]) -> Iterator[None]:
    """Have layers give for every image what they give for the first one."""

    def constant(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output[:1].expand_as(output).contiguous()

    hooks = [module.register_forward_hook(constant) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _spread(rows: Tensor) -> float:
    """How far the rows of a tensor (b, ...) lie from the first one, at most."""
    return float((rows.float() - rows[:1].float()).abs().max()) if rows.numel() else 0.0
