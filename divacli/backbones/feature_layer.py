"""Find the layer whose input is the features, by running the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from divacli.backbones.layer import OUTPUT, inputs_of, pooled, run_network, tensors_in
from divacli.errors import Advice, ModelError, listed

_CONSTANT = 1e-2  # of how much an output differs between images, to be called the same for all of them
_MOST_HEADS = 8
"""Layers, from the last one back, that may be heads of a network with several outputs."""


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
        ModelError: The network fails on the probe, or has several heads that take different features.
    """
    if layer == OUTPUT and OUTPUT not in dict(network.named_modules()):
        layer = None
    elif layer is None:
        layer = head_layer(network, probe, ask=head is None) or head
    return (OutputFeatures(network).eval(), OUTPUT) if layer is None else (network, layer)


def head_layer(network: nn.Module, probe: Tensor, *, ask: bool = False) -> str | None:
    """Name the last `nn.Linear` through which alone a network's output depends on the image; None for none.

    Where several linear layers that run last give the output together, each from an input of its own, it is
    the last of them: networks distilled from others have two heads.

    Args:
        network: In evaluation mode.
        probe: As for `with_feature_layer`.
        ask: Refuse a network with several outputs whose heads take different features.

    Raises:
        ModelError: The network fails on the probe, or is refused.
    """
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    ran: dict[str, Tensor] = {}  # what entered each, in the order of their last calls

    def note(name: str, features: Tensor) -> None:
        ran.pop(name, None)
        ran[name] = features

    hooks = [
        module.register_forward_hook(lambda _, args, out, name=name: note(name, args[0] if args else out))
        for name, module in linears.items()
    ]
    try:
        output = run_network(network, probe)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        return None
    *_, last = ran
    if ask and (named := _asked_for(network, {name: linears[name] for name in ran}, ran, probe, output)):
        return named
    if _effect(network, [linears[last]], probe, output)[0]:
        return last
    backwards = [linears[name] for name in reversed(ran)]
    n_outputs = linears[last].out_features
    heads = list(takewhile(lambda one: one.out_features == n_outputs, backwards))
    alone = len(heads) == 1 or not _side_by_side(network, heads, probe)
    return None if alone or not _effect(network, heads, probe, output)[0] else last


def _asked_for(
    network: nn.Module, linears: dict[str, nn.Linear], inputs: dict[str, Tensor], probe: Tensor, output: Any
) -> str | None:
    """Name the head of a network's `logits` where it has several outputs; None for one head or one input.

    Raises:
        ModelError: Several heads take different features, and no output is called logits.
    """
    tensors = list(tensors_in(output))
    heads: dict[str, set[int]] = {}
    for name in list(reversed(linears))[: _MOST_HEADS if len(tensors) > 1 else 0]:
        constant, changed = _effect(network, [linears[name]], probe, output)
        if constant and constant == changed and not any(constant & other for other in heads.values()):
            heads[name] = constant
    first = next(iter(heads), "")
    if all(torch.equal(inputs[name], inputs[first]) for name in heads):
        return None
    logits = output.get("logits") if isinstance(output, Mapping) else None
    for name, given in heads.items():
        if any(tensors[i] is logits for i in given):
            return name
    raise ModelError(
        f"several layers give the network's outputs, of different features: {listed(list(heads))}",
        expected="the name of the one whose input the features are",
        hint=Advice(f"name it: {{layer}} {min(heads, key=lambda one: min(heads[one]))}"),
    )


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


def _effect(
    network: nn.Module, modules: list[nn.Linear], probe: Tensor, output: Any
) -> tuple[set[int], set[int]]:
    """Give all images the same output of some layers.

    Returns:
        The tensors of the network's output, by number, that become the same for all images, and those that
        change at all. Where all were the same before, as of weights that are zero, all become so: nothing
        tells where they come from.
    """
    try:
        with _all_the_same(modules):
            replaced = run_network(network, probe)
    except ModelError:  # its code takes the layer's output for what it no longer is
        return set(), set()
    pairs = {
        i: (before, after)
        for i, (before, after) in enumerate(zip(tensors_in(output), tensors_in(replaced), strict=True))
        if before.is_floating_point() and before.ndim and len(before) == len(probe)
    }
    spreads = {i: _spread(before) for i, (before, _) in pairs.items()}
    if not any(spreads.values()):
        return set(pairs) or {-1}, set(pairs)
    same_for_all = {
        i for i, (_, after) in pairs.items() if spreads[i] > 0 and _spread(after) <= _CONSTANT * spreads[i]
    }
    return same_for_all, {i for i, (before, after) in pairs.items() if not torch.equal(before, after)}


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
