"""Build a network of a library as a checkpoint needs it, or with weights that are downloaded."""

from __future__ import annotations

import difflib
import http.client
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version

from torch import Tensor, nn

from divacli.backbones.checkpoint import Checkpoint, first_line
from divacli.backbones.entries import is_named
from divacli.backbones.fitting import fit, put_into, replaced_part
from divacli.backbones.identify import IMAGENET_CLASSES
from divacli.backbones.shapes import RGB, head_tensors, skeleton_state
from divacli.errors import ModelError, listed

TOKENS, KERNEL = 3, 4
"""Dimensions of embeddings (1, tokens, d) and of a convolution's weight."""


@dataclass(frozen=True)
class Expected:
    """What a checkpoint says of the images that its network takes.

    Attributes:
        channels: Of the images: as many as the first convolution takes.
        shapes: Of all tensors, by name.
    """

    channels: int
    shapes: list[tuple[str, tuple[int, ...]]]

    @classmethod
    def of(cls, checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> Expected:
        """Look at a checkpoint.

        Args:
            checkpoint: The file.
            state: State dict of the network as it usually is.

        Raises:
            ModelError: The network takes images of another number of channels than 1 or 3.
        """
        asked = checkpoint.asked or ""
        shapes = [
            (f"{entry.name}.{key}", tuple(tensor.shape))
            for entry in checkpoint.entries
            for key, tensor in entry.weights.items()
            if asked in f"{entry.name}.{key}"
        ]
        first = next((key for key, one in state.items() if one.ndim == KERNEL), "")
        usual = tuple(state[first].shape) if first else ()
        # Other convolutions may be called so too, and a file of two networks has two: one for RGB is meant.
        found = [
            shape
            for key, shape in shapes
            if is_named(key, first)
            and len(shape) == KERNEL
            and (shape[0], *shape[2:]) == (usual[0], *usual[2:])
        ]
        got = min(found, key=lambda shape: shape[1] != RGB, default=None)
        channels = got[1] if got is not None and usual[1] == RGB else RGB
        if channels not in (1, RGB):
            raise ModelError(
                f"{checkpoint.path} is of a network for images of {channels} channels ({first} {got})",
                expected="a network for images of 3 channels, or 1",
                hint="images are read as RGB; compute features of others yourself and give an .npz file",
            )
        return cls(channels, shapes)

    def side(self, name: str, *, patch: int, n_prefix: int) -> int | None:
        """The image size in pixels that position embeddings are for; None where there are none.

        Args:
            name: Of their tensor.
            patch: Side of a patch, in pixels.
            n_prefix: Embeddings of other tokens among them.
        """
        shape = next((shape for key, shape in self.shapes if is_named(key, name)), ())
        if len(shape) == KERNEL:
            return patch * shape[1] if shape[1] == shape[2] else None
        n_patches = shape[1] - n_prefix if len(shape) == TOKENS else 0
        rows = math.isqrt(max(0, n_patches))
        return patch * rows if n_patches and rows * rows == n_patches else None


def require_side(name: str, checkpoint: Checkpoint, side: int | None, image_size: int | None) -> None:
    """Refuse another image size than that of the position embeddings in a checkpoint.

    Args:
        name: Of the network.
        checkpoint: The file.
        side: What its embeddings are for; None: it has none.
        image_size: What the user asks for; None: nothing.

    Raises:
        ModelError: They differ.
    """
    if side is not None and image_size not in (None, side):
        raise ModelError(
            f"--image-size {image_size} with {checkpoint.path}, which was trained at {side} pixels",
            expected=f"{side}: {name} has position embeddings for this size alone",
            hint="leave --image-size out",
        )


@dataclass(frozen=True)
class Blueprint:
    """How a library's network is built for the weights of a checkpoint.

    Attributes:
        build: Makes the network for a number of classes.
        side: Of its images, in pixels, where the weights or the user say it; else None.
        channels: Of its images.
    """

    build: Callable[[int], nn.Module]
    side: int | None
    channels: int


@dataclass(frozen=True)
class Built:
    """A network with the weights of a checkpoint.

    Attributes:
        network: The network.
        head: Name of its last layer.
        headless: Whether the file has no head for it.
        weights: Where the weights are from, for people.
        notes: Sentences for the user.
    """

    network: nn.Module
    head: str | None
    headless: bool
    weights: str
    notes: tuple[str, ...]

    @classmethod
    def fitting(cls, build: Callable[[int], nn.Module], checkpoint: Checkpoint, name: str) -> Built:
        """Build a network with as many classes as a checkpoint has, and load it.

        Args:
            build: Makes the network for a number of classes.
            checkpoint: Its weights.
            name: What to call it.

        Raises:
            ModelError: The weights do not fit.
        """
        heads = head_tensors(build, IMAGENET_CLASSES)
        head = module_of(heads)
        state = skeleton_state(lambda: build(IMAGENET_CLASSES))
        if (replaced := replaced_part(checkpoint, state, heads)) is not None:
            head, heads = replaced
        found = fit(checkpoint, state, heads, name, resizable=replaced is None)
        n_classes = found.n_classes or IMAGENET_CLASSES
        network = build(n_classes)
        put_into(network, found, heads)
        notes = [*found.notes, *checkpoint.notes_of(name)]
        if found.n_classes not in (None, IMAGENET_CLASSES):
            notes.append(f"checkpoint has {n_classes} classes: built {name} with a head of {n_classes}")
        return cls(network, head, found.n_classes is None, found.place(checkpoint), tuple(notes))


def module_of(tensors: list[str]) -> str | None:
    """The module that the last of some tensors belongs to."""
    return tensors[-1].rpartition(".")[0] if tensors else None


def downloaded(build: Callable[[], nn.Module], name: str, address: str) -> nn.Module:
    """Build a network whose weights are downloaded.

    Args:
        build: Does so.
        name: What to call the network.
        address: Where its weights are.

    Raises:
        ModelError: They cannot be had.
    """
    try:
        # torch tells there what it downloads, and standard output may be a table.
        with redirect_stdout(sys.stderr):
            return build()
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise ModelError(
            f"the weights of {name} cannot be downloaded: {type(error).__name__}: {first_line(error)}",
            expected=f"a connection to {address}",
            hint=f"download that file elsewhere and give it: --model {name} --checkpoint FILE",
        ) from error


def unknown_network(name: str, known: list[str], kind: str) -> ModelError:
    """Return the error for a name that a library does not know, with the nearest ones that it does."""
    near = difflib.get_close_matches(name, known, n=4)
    return ModelError(
        f"no {kind} is called {name!r}",
        expected=f"one of {len(known)} names, timm:NAME, or FILE.py:FACTORY",
        hint=f"near ones: {', '.join(near)}" if near else f"the first ones: {listed(known)}",
    )


def wrong_weights(name: str, weights: str | None, known: list[str]) -> ModelError:
    """Return the error for weights that are not among the published ones of a network."""
    return ModelError(
        f"{name} has no published weights {weights!r}",
        expected=f"one of {', '.join(known)}" if known else "a network that has published weights",
        hint="" if known else "give its weights with --checkpoint FILE",
    )


def release(package: str) -> str:
    """Return a package's version without the build ("+cpu"): the features do not hang on that."""
    return version(package).partition("+")[0]
