"""Features that are gradients: a network linearised in more than its last layer.

Around its weights w0 a network is `f_w(x) = f_w0(x) + J(x) (w - w0)`, with a Jacobian J(x) of a row for each
of its K outputs. Ridge regression takes one vector a sample, in which every class of the data has
coefficients of its own. That vector is here the gradient of one combination of the outputs,

    g(x) = sum_c r_c grad f_c(x) / sqrt(K),    r_c independent random signs,

whose inner products are, in expectation over r, the mean over the outputs of the tangent kernel,

    E <g(x), g(x')> = 1/K sum_c <grad f_c(x), grad f_c(x')>.

That is the tangent kernel of a new head on the same network under one assumption: that its block of two
classes is zero when these differ, and else the same for every class (Mohamadi et al. 2023). It holds in
expectation for a head with independent random weights, and exactly for the parameters of a head itself, whose
gradient is the features phi(x), for every class. So labels, and even their number, have no part in g(x).

With `f_c = phi . W_c` that gradient is `r_c phi / sqrt(K)` for the head, and elsewhere that of `phi . u`,
`u = W' r / sqrt(K)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from divacli.backbones.checkpoint import first_line
from divacli.backbones.layer import Head, LayerExtractor, unknown_layer
from divacli.backbones.linearised.expression import BLOCK, FULL, HEAD, LAST, Linearize, Part
from divacli.backbones.linearised.gradients import Gradients, SampleGradients
from divacli.backbones.linearised.sketch import Sketch
from divacli.backbones.parts import active_names, last_block, within
from divacli.errors import ModelError

_VALUES = 1 << 28
"""Entries of gradients that are computed together on CUDA, at most: 1 GB."""

_VERSION = 2
"""Of what is computed: gradients of another version are not these."""

_TOGETHER = 64
"""Images whose gradients are computed together on CUDA, at most."""


class TangentExtractor:
    """Takes gradients from an ordinary module, made short (`divacli.backbones.linearised.sketch`).

    A part's gradient is compressed as it comes, image by image on the CPU: beside the network there are in
    memory one gradient, and b rows of features.

    Args:
        network: Put into evaluation mode.
        probe: (b, 3, h, w) images to try it on.
        layer: The layer whose input the features phi are.
        linearize: What is linearised, and how.

    Attributes:
        layer: Name of the layer whose input the features phi are.
        head: (K, d + width) weight and (K,) bias that give the network's output from the features, where
            these hold phi.
        n_parameters: That gradients are taken with respect to.
        text: What features depend on beside the network, for their identity.

    Raises:
        ModelError: The network fails on the probe, or has no such layer, block, or parameters.
    """

    def __init__(self, network: nn.Module, probe: Tensor, layer: str, linearize: Linearize) -> None:
        plain = LayerExtractor(network, probe, layer)
        self.layer = plain.layer
        d = plain(probe[:1]).shape[1]

        # The head comes first, and as it is: then its outputs are a linear map of the features.
        parts = sorted(linearize.parts, key=lambda part: part.kind != HEAD)
        parts = [replace(part, factor=part.factor / parts[0].factor) for part in parts]
        active = [name for name in active_names(network, self.layer, probe) if not within(name, self.layer)]
        found = [(part, self._names(network, part, active)) for part in parts]
        shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        self._parts = [
            (part, names, Sketch(sum(shapes[name].numel() for name in names), linearize.projection, seed))
            for seed, (part, names) in enumerate(found, start=1 + len(found) * linearize.seed)
        ]
        self.text = _described(linearize, [(part, tuple(names)) for part, names in found])
        self.n_parameters = sum(shapes[name].numel() for _, names in found for name in names)
        wanted = {name for _, names in found for name in names}
        direction = _direction(plain.head, d, linearize.seed)
        self._gradients = SampleGradients(
            network, self.layer, direction, [name for name in active if name in wanted]
        )
        self._device = probe.device
        self._together = 1

        width = sum(sketch.n_out for _, _, sketch in self._parts)
        self.head: Head | None = None
        if plain.head is not None and parts[0].kind in (HEAD, FULL):
            weight, bias = plain.head
            self.head = torch.cat([weight, weight.new_zeros(len(weight), width)], dim=1), bias

    @property
    def note(self) -> str:
        """What was done, in a sentence for the user."""
        length = sum(sketch.n_out for _, names, sketch in self._parts if names)
        kept = "as they are"
        if any(sketch.shortens for _, _, sketch in self._parts):
            kept = f"compressed to {length:,} numbers"
        return f"features are gradients with respect to {self.n_parameters:,} parameters, {kept}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (b, d) float32 of images (b, 3, h, w)."""
        with self._full_precision():
            return torch.cat([self._rows(features, found) for features, found in self._computed(images)])

    def to(self, device: torch.device) -> None:
        """Move all to a device."""
        self._device = device
        self._gradients.to(device)
        for _, _, sketch in self._parts:
            sketch.to(device)
        if device.type == "cuda":
            self._together = max(1, min(_TOGETHER, _VALUES // max(1, self.n_parameters)))
        else:
            self._together = 1

    def _computed(self, images: Tensor) -> Iterator[tuple[Tensor, Gradients]]:
        """Features and gradients of images, some at a time."""
        start = 0
        while start < len(images):
            part = images[start : start + self._together]
            try:
                features, found = self._of(part)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                if len(part) > 1:  # code that cannot be run for many images side by side
                    self._together = 1
                    continue
                raise ModelError(
                    f"the gradient of the network fails: {type(error).__name__}: {first_line(error)}",
                    expected="a network that torch.func can differentiate in evaluation mode",
                    hint="use --linearize head, or a block without the code that fails",
                ) from error
            start += len(part)
            yield features, found

    def _of(self, images: Tensor) -> tuple[Tensor, Gradients]:
        # What is computed within inference mode cannot be differentiated.
        with torch.inference_mode(False), torch.no_grad():
            return self._gradients(images.clone())

    def _rows(self, features: Tensor, gradients: Gradients) -> Tensor:
        rows: list[Tensor] = []
        for part, names, sketch in self._parts:
            own = features
            if part.kind != HEAD:
                flat = torch.cat([gradients[name].reshape(len(features), -1) for name in names], dim=1)
                own = sketch(flat)
            if part.kind == FULL:
                own = torch.cat([features, own], dim=1)
            if rows:
                own = functional.normalize(own, dim=1) * (part.factor * _lengths(rows[0]))
            rows.append(own)
        return torch.cat(rows, dim=1)

    def _full_precision(self) -> AbstractContextManager[object]:
        """Half precision loses gradients, and the products that a projection sums."""
        return torch.autocast(self._device.type, enabled=False)

    def _names(self, network: nn.Module, part: Part, active: list[str]) -> list[str]:
        """The parameters of a part, in the network's order."""
        if part.kind == HEAD:
            return []
        known = [name for name, _ in network.named_modules()]
        parameters = [name for name, _ in network.named_parameters()]
        found: set[str] = set()
        for name in part.names if part.kind == BLOCK else ("",):
            if name == LAST and LAST not in known:
                blocks = last_block(network, self.layer, active)
            elif name not in known and name not in parameters:
                raise unknown_layer(name, known)
            else:
                blocks = [name]
            own = {one for one in active if any(within(one, block) for block in blocks)}
            if not own:
                raise ModelError(
                    f"--linearize {part}: the features depend on no parameters of {name or 'the network'}",
                    expected=f"parts of the network before {self.layer!r}, whose gradient is the part head",
                    hint="print the network to see the names of its parts, or use block:last",
                )
            found |= own
        return [name for name in active if name in found]


def _lengths(rows: Tensor) -> Tensor:
    """Of each row, (b, 1)."""
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True)


def _described(linearize: Linearize, found: list[tuple[Part, tuple[str, ...]]]) -> str:
    """The parts as they were resolved: by their parameters, with all digits of their factors."""
    parameters = hashlib.sha256(repr([names for _, names in found]).encode()).hexdigest()
    kept = {
        "parameters": parameters[:16],
        "projection": str(linearize.projection),
        "seed": str(linearize.seed),
    }
    terms = " + ".join(f"{part.factor!r} * {part.kind}" for part, _ in found)
    return "; ".join([terms, *(f"{name} {value}" for name, value in kept.items()), f"version {_VERSION}"])


def _direction(head: Head | None, d: int, seed: int) -> Tensor:
    """What features are combined with, (d,): the outputs of the head, or they themselves, by random signs."""
    generator = torch.Generator().manual_seed(seed)
    n_outputs = d if head is None else len(head[0])
    signs = torch.randint(0, 2, (n_outputs,), generator=generator).mul_(2).sub_(1) / n_outputs**0.5
    return signs if head is None else head[0].T @ signs
