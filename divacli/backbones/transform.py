"""The usual preparation of images, and the check that a transform gives what a network takes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.v2 import functional

from divacli.errors import ModelError

Transform = Callable[[Image.Image], Tensor]

_RESIZE_TO_CROP = 256 / 224

_TRIES = 8  # of a transform that may draw from a generator of its own

DRAFT_MARGIN = 2
"""A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as its shorter side stays so many times what
it is resized to. At 2, features of photos keep a cosine of 0.9995 to those of all pixels, at 1 of 0.997."""


class Preset(ImageClassification):
    """torchvision's preparation of images, in two halves: 8-bit crops, and their normalisation as a batch.

    Together they do what torchvision's preset does, bit for bit, as long as the shorter side of an image is
    less than `least_side`. Only this transform, whose first step is known, may be given less than all pixels
    of a larger one; a user's own never is. And larger ones are resized as tensors, in a third of the time:
    fewer than one in a hundred values of a crop then differ, by 1 of 255.

    Of one channel it makes grey images, for a network that takes such.

    Args:
        like: Whose settings to take.
    """

    def __init__(self, like: ImageClassification) -> None:
        super().__init__(crop_size=1)
        self.crop_size, self.resize_size = list(like.crop_size), list(like.resize_size)
        self.mean, self.std = list(like.mean), list(like.std)
        self.interpolation, self.antialias = like.interpolation, like.antialias
        self.channels = len(self.mean)

    @property
    def least_side(self) -> int:
        """Shorter side that a decoder which reduces an image must keep, in pixels."""
        return DRAFT_MARGIN * int(self.resize_size[0])

    def crop(self, image: Image.Image | Tensor) -> Tensor:
        """Return the centre (c, h, w) of the resized image, uint8, of 3 channels or 1.

        Args:
            image: RGB; as a tensor (3, H, W) uint8, on any device.
        """
        if isinstance(image, Image.Image) and min(image.size) >= self.least_side:
            image = functional.pil_to_tensor(image)
        if self.channels == 1:
            image = functional.rgb_to_grayscale(image)
        resized = functional.resize(
            image, self.resize_size, interpolation=self.interpolation, antialias=self.antialias
        )
        centre = functional.center_crop(resized, self.crop_size)
        return centre if isinstance(centre, Tensor) else functional.pil_to_tensor(centre)

    def normalised(self, crops: Tensor) -> Tensor:
        """Return crops (..., c, h, w) uint8 as the network takes them, float32 in the same memory format."""
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=crops.device).view(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        return crops.float().div_(255).sub_(mean).div_(std)

    def forward(self, image: Image.Image | Tensor) -> Tensor:
        """Return an RGB image as the network takes it, (c, h, w) float32."""
        return self.normalised(self.crop(image))

    def __repr__(self) -> str:
        """Print every setting that features depend on."""
        grey = "\n    channels=1" if self.channels == 1 else ""
        return super().__repr__().removesuffix("\n)") + f"\n    draft_margin={DRAFT_MARGIN}{grey}\n)"


def imagenet_transform(image_size: int | tuple[int, int] = 224, *, grey: bool = False) -> Preset:
    """Return ImageNet's resize, centre crop and normalisation.

    Args:
        image_size: Side of the crop, or its (height, width); the shorter side of the image is first resized
            to 256/224 of the longer of them.
        grey: Make images of one channel, normalised by the average of the three means and deviations.
    """
    crop = (image_size, image_size) if isinstance(image_size, int) else image_size
    preset = Preset(ImageClassification(crop_size=max(crop), resize_size=round(max(crop) * _RESIZE_TO_CROP)))
    preset.crop_size = list(crop)
    return _grey(preset) if grey else preset


def _grey(preset: Preset) -> Preset:
    """Have a preset make images of one channel."""
    preset.mean, preset.std = [sum(preset.mean) / 3], [sum(preset.std) / 3]
    preset.channels = 1
    return preset


def preset_transform(preset: ImageClassification, image_size: int | None, *, grey: bool = False) -> Preset:
    """Return a preset of torchvision, at another image size where one is given.

    Args:
        preset: As the weights have it.
        image_size: Side of the crop; the resize keeps its ratio to it. None: as the preset has it.
        grey: Make images of one channel, as `imagenet_transform` does.
    """
    made = Preset(preset)
    if image_size is not None:
        made.resize_size = [round(image_size * preset.resize_size[0] / preset.crop_size[0])]
        made.crop_size = [image_size]
    return _grey(made) if grey else made


def noise_through(transform: Transform) -> Tensor:
    """Return what a transform makes of an image of seeded noise.

    Raises:
        ModelError: It draws from a global generator, or makes something else of the image at another call.
    """
    pixels = torch.randint(0, 256, (200, 260, 3), generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(pixels.to(torch.uint8).numpy())

    def states() -> tuple[object, ...]:
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    first, *others = (transform(image.copy()) for _ in range(_TRIES))
    if states() != before or not all(torch.equal(first, other) for other in others):
        raise ModelError(
            "the transform draws at random",
            expected="the transform of the validation images, which gives the same tensor each time",
            hint="leave random crops, flips and colours out",
        )
    return first


def probe_images(transform: Transform, n: int) -> Tensor:
    """Return `n` images of seeded noise (n, c, h, w) of the size and the channels that a transform gives.

    Raises:
        ModelError: The transform fails on an image or gives no float tensor (c, h, w).
    """
    expected = "a transform from an RGB PIL image to a float tensor (channels, height, width)"
    hint = "end the transform with a conversion such as torchvision.transforms.ToTensor()"
    try:
        image: Any = transform(Image.new("RGB", (256, 256)))
    except Exception as error:
        raise ModelError(
            f"the transform fails on an image: {type(error).__name__}: {error}", expected=expected, hint=hint
        ) from error
    if not isinstance(image, Tensor):
        raise ModelError(f"the transform gives a {type(image).__name__}", expected=expected, hint=hint)
    if image.ndim != 3 or not image.numel() or not image.is_floating_point():
        raise ModelError(
            f"the transform gives a tensor {tuple(image.shape)} of {image.dtype}",
            expected=expected,
            hint=hint,
        )
    return torch.randn((n, *image.shape), generator=torch.Generator().manual_seed(0))
