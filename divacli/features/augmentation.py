"""Transformed copies of images: a named transform in front of a backbone's own.

A copy depends on nothing but the image's pixels, the transform and a seed: neither on the order of the
images nor on the process that makes it.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from divacli.backbones.backbone import Backbone
from divacli.backbones.checkpoint import first_line
from divacli.backbones.transform import Transform
from divacli.backbones.userfile import UserFile
from divacli.features.keys import digest_of
from divacli.images.decode import FailedCopy

_OVERSHOOT = 0.5
"""So far beyond [0, 1] floats are clipped, as resampling leaves them; further out they are no pixels."""


@dataclass(frozen=True)
class NamedTransform:
    """A transform of images, as it was asked for.

    Attributes:
        name: As typed.
        transform: As torchvision or the file gives it, from an RGB PIL image; can be pickled.
        text: What it does to an image, the same in every process; a part of the features' identity.
        code: The Python expression that makes it.
        imports: The statement that this expression needs.
        random: Whether its copies change with the seed; True where that is not known.
        notes: Sentences for the user.
        source: The file that it is taken from; None for one of torchvision's.
        effect: Equal for two that are known to be the same transform, however they were asked for.
    """

    name: str
    transform: Callable[[Image.Image], Any]
    text: str
    code: str
    imports: str
    random: bool
    notes: tuple[str, ...] = ()
    source: UserFile | None = None
    effect: str = ""

    def imported_as(self, alias: str) -> NamedTransform:
        """The same, under another name in the code of who uses it; for one of a file."""
        assert self.source is not None
        if alias == self.source.name:
            return self
        code = alias + self.code.removeprefix(self.source.name)
        return replace(self, code=code, imports=f"{self.imports} as {alias}")

    def copy(self, image: Image.Image, seed: int) -> Image.Image:
        """Make the transformed copy of an image: the same one always, whatever was drawn before.

        What the transform draws from the global generators of torch (CPU), Python and numpy follows from the
        image, `text` and the seed; outside they go on as if nothing had been drawn.

        Args:
            image: In mode RGB; the transform may change it in place.
            seed: Of the draws.

        Returns:
            In mode RGB, of any size.

        Raises:
            FailedCopy: The transform fails on the image, or gives something else than an RGB image.
        """
        parts = (self.text, str(seed), str(image.size))
        digest = bytes.fromhex(digest_of(*(part.encode() for part in parts), image.tobytes()))
        try:
            with seeded(digest):
                made = self.transform(image)
        except (Exception, SystemExit) as error:
            raise FailedCopy(
                f"transform {self.name} fails: {type(error).__name__}: {first_line(error)}"
            ) from error
        return self._image(made)

    def _image(self, made: Any) -> Image.Image:
        if isinstance(made, Image.Image):
            if 0 in made.size:
                raise FailedCopy(f"transform {self.name} gives an image of {made.width} x {made.height}")
            if made.mode != "RGB":
                # Converting it would hide that a network cannot be trained on it.
                raise FailedCopy(f"transform {self.name} gives an image of mode {made.mode}, not RGB")
            return made
        if not isinstance(made, Tensor):
            raise FailedCopy(f"transform {self.name} gives {type(made).__name__}")
        number_type = made.is_floating_point() or made.dtype == torch.uint8
        if made.ndim != 3 or len(made) != 3 or not made.numel() or not number_type:
            raise FailedCopy(f"transform {self.name} gives a tensor {tuple(made.shape)} of {made.dtype}")
        pixels = made.detach().cpu()
        if pixels.is_floating_point():
            low, high = pixels.min().item(), pixels.max().item()
            if not -_OVERSHOOT <= low <= high <= 1 + _OVERSHOOT:
                raise FailedCopy(f"transform {self.name} gives a tensor with values from {low:g} to {high:g}")
            pixels = v2.functional.to_dtype(pixels.clamp(0, 1), torch.uint8, scale=True)
        return v2.functional.to_pil_image(pixels)


def named_apart(transforms: Sequence[NamedTransform]) -> list[NamedTransform]:
    """Transforms whose imports and code can stand in one file: the second `change` becomes `change_2`.

    Args:
        transforms: As from `parse_transform`.
    """
    taken = {"v2", "augmentation"}
    found = []
    for named in transforms:
        if named.source is not None:
            name = named.source.name
            numbered = (f"{name}_{number}" for number in itertools.count(2))
            alias = next(one for one in itertools.chain([name], numbered) if one not in taken)
            taken.add(alias)
            named = named.imported_as(alias)
        found.append(named)
    return found


def augmented(backbone: Backbone, named: NamedTransform, seed: int) -> Backbone:
    """The same network in front of which every image is replaced by its transformed copy.

    Args:
        backbone: The network; its weights are shared, so that moving one of the two to a device moves both.
        named: The transform.
        seed: Of what it draws; a part of the identity where it draws at all.
    """
    drawn = f", seed {seed}" if named.random else ""
    return replace(
        backbone,
        transform=_Augmented(named, seed, backbone.transform),
        identity={**backbone.identity, "augment": named.text + drawn},
        notes=(*backbone.notes, *named.notes),
    )


@dataclass(frozen=True)
class _Augmented:
    """From an RGB PIL image to the float tensor (3, h, w) of its copy."""

    named: NamedTransform
    seed: int
    then: Transform

    def __call__(self, image: Image.Image) -> Tensor:
        return self.then(self.named.copy(image, self.seed))


@contextlib.contextmanager
def seeded(digest: bytes) -> Iterator[None]:
    """Seed the global generators by a digest, and put them back where they were."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        # Not `torch.manual_seed`: it would seed the generators of CUDA too, which are not put back.
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "little"))
        random.seed(digest)
        np.random.seed(np.frombuffer(digest, "<u4"))
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
