"""Weights of a network that was put together anew from its children, which have numbers for names then."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from divacli.backbones.entries import Entry


def renamed(entry: Entry, state: Mapping[str, Tensor]) -> Entry | None:
    """Give the children in an entry the names that the network has for them, in their order.

    `nn.Sequential(*list(network.children())[:-1])` is how many scripts cut a head off: its tensors are called
    "0.weight" and "4.0.conv1.weight" in place of "conv1.weight" and "layer1.0.conv1.weight".

    Args:
        entry: Tensors of a file.
        state: What the network needs, by its own names.

    Returns:
        The entry under these names; None where it has no numbers, or the network has them itself.
    """
    children = list(dict.fromkeys(key.partition(".")[0] for key in state))
    first = next(iter(state), "")
    _, dot, rest = first.partition(".")
    if not dot or children[0].isdigit():
        return None
    pattern = re.compile(rf"(.*?)\d+\.{re.escape(rest)}")
    found = (
        match[1]
        for key, tensor in entry.weights.items()
        if tensor.shape == state[first].shape and (match := pattern.fullmatch(key))
    )
    prefix = next(found, None)
    if prefix is None:
        return None
    number = re.compile(rf"{re.escape(prefix)}(\d+)\.")
    numbers = sorted({int(match[1]) for key in entry.weights if (match := number.match(key))})
    names = dict(zip(numbers, children, strict=False))

    def name(key: str) -> str:
        match = number.match(key)
        child = names.get(int(match[1])) if match else None
        return key if match is None or child is None else f"{prefix}{child}.{key[match.end() :]}"

    return Entry(entry.name, {name(key): tensor for key, tensor in entry.weights.items()}, numbered=True)
