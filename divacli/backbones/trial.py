"""Compare one set of tensors in a file with what a network needs."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from divacli.backbones.entries import WRAPPERS, Entry, common_prefix, is_named, shared_prefix

_ACTS_ON_TRUNK = re.compile(
    r"(^|[._])lora_|^(?!mask_|decoder_)\w*(token|prompt|pos_embed|position\w*_embedding)\w*$"
)
"""Names beside a network's own that change its features: low-rank updates, and what joins its tokens."""


class Wanted:
    """What a network needs.

    Args:
        state: Its state dict.
        heads: Names of its head's tensors.
        resizable: Whether it can be built for another number of classes.
    """

    def __init__(self, state: dict[str, Tensor], heads: frozenset[str], *, resizable: bool = True) -> None:
        self.resizable = resizable
        # A network may itself be a wrapper whose names all begin alike: that part is not compared.
        self.common = common_prefix(list(state))
        self.state = {key.removeprefix(self.common): tensor for key, tensor in state.items()}
        self.heads = {key.removeprefix(self.common) for key in heads}
        self.trunk = [key for key in self.state if key not in self.heads and not is_counter(key)]
        self.parts = {key.partition(".")[0] for key in self.state}
        self.head_modules = {self._top(key.rpartition(".")[0]) for key in self.heads}

    def _top(self, module: str) -> str:
        """The outermost module around one that holds nothing but tensors of the head."""
        while parent := module.rpartition(".")[0]:
            if any(key.startswith(f"{parent}.") and key not in self.heads for key in self.state):
                break
            module = parent
        return module

    def in_head(self, key: str) -> bool:
        """Whether a tensor stands where the network has its head."""
        return any(key == module or key.startswith(f"{module}.") for module in self.head_modules)

    def prefixes(self, entry: Entry) -> list[str]:
        """What may stand before the network's names in an entry."""
        anchor = (self.trunk or list(self.state))[0] if self.state else ""
        found = [key.removesuffix(anchor) for key in entry.weights if is_named(key, anchor)]
        return found or [shared_prefix(list(entry.weights))]


class Trial:
    """An entry of a file, compared with what a network needs.

    Args:
        wanted: What the network needs.
        entry: The tensors.
        prefix: What stands before the network's names in it.

    Attributes:
        prefix: As given.
        keys: Name in the file by the network's own name.
        problems: What does not fit, by kind; empty where all does.
        aside: Names of tensors where the head is, which do not fit it.
        foreign: Names of tensors that are no part of the network.
        n_classes: Rows of the head, where it fits.
    """

    def __init__(self, wanted: Wanted, entry: Entry, prefix: str) -> None:
        self.weights, self.numbered = entry.weights, entry.numbered
        self._entry, self.prefix = entry, prefix
        self.keys: dict[str, str] = {}
        self.aside: list[str] = []
        self.foreign: list[str] = []
        self.n_classes: int | None = None
        missing = [key for key in wanted.trunk if prefix + key not in entry.weights]
        odd: dict[str, list[str]] = {"of another shape": [], "of another kind of numbers": []}
        unexpected: list[str] = []
        for key, tensor in entry.weights.items():
            own = key.removeprefix(prefix)
            if not key.startswith(prefix):
                self.foreign.append(key)
            elif own in wanted.heads or (own not in wanted.state and wanted.in_head(own)):
                self.aside.append(key)
            elif own not in wanted.state:
                part = own.partition(".")[0] in wanted.parts or _ACTS_ON_TRUNK.search(own)
                (unexpected if part else self.foreign).append(key)
            else:
                self.keys[wanted.common + own] = key
                expected = wanted.state[own]
                if tensor.shape != expected.shape:
                    odd["of another shape"].append(
                        f"{own} {tuple(tensor.shape)} in place of {tuple(expected.shape)}"
                    )
                if kind(tensor) != kind(expected):
                    odd["of another kind of numbers"].append(
                        f"{own} {tensor.dtype} in place of {expected.dtype}"
                    )
        told = {"missing": missing, "unexpected": unexpected, **odd}
        self.problems = {what: keys for what, keys in told.items() if keys}
        self._take_head(wanted)

    def _take_head(self, wanted: Wanted) -> None:
        """Take the head, too, where all of it is there and it has one number of classes."""
        if not wanted.heads:
            self.n_classes = 0
            return
        names = {key.removeprefix(self.prefix): key for key in self.aside}
        if names.keys() != wanted.heads or not wanted.resizable:
            return
        shapes = [(self.weights[key].shape, wanted.state[own].shape) for own, key in names.items()]
        rows = {got[:1] for got, _ in shapes}
        if len(rows) == 1 and all(len(got) and got[1:] == expected[1:] for got, expected in shapes):
            self.keys.update({wanted.common + own: key for own, key in names.items()})
            self.n_classes, self.aside = shapes[-1][0][0], []

    @property
    def name(self) -> str:
        """Where in the file the weights lie; wrappers are not named."""
        own = [part for part in self.prefix.split(".") if part and part not in WRAPPERS]
        return ".".join([*filter(None, [self._entry.name]), *own])

    def is_called(self, asked: str) -> bool:
        """Whether a name stands for these weights."""
        full = ".".join(filter(None, [self._entry.name, self.prefix.rstrip(".")]))
        return asked == self._entry.name or any(is_named(one, asked) for one in (self.name, full) if one)

    def same_as(self, other: Trial) -> bool:
        """Whether two places hold the same numbers."""
        return self.keys.keys() == other.keys.keys() and all(
            torch.equal(self.weights[key], other.weights[other.keys[own]]) for own, key in self.keys.items()
        )


def is_counter(key: str) -> bool:
    """Whether a tensor only counts the batches that a batch norm has seen."""
    return key.endswith("num_batches_tracked")


def kind(tensor: Tensor) -> str:
    """The kind of a tensor's numbers: complex, floating or whole."""
    return "complex" if tensor.is_complex() else "floating" if tensor.is_floating_point() else "whole"
