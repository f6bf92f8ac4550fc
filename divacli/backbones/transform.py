"""The usual preparation of images, and the check that a transform gives what a network takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms._presets import ImageClassification

from divacli.errors import ModelError

Transform = Callable[[Image.Image], Tensor]

_RESIZE_TO_CROP = 256 / 224


def imagenet_transform(image_size: int | tuple[int, int] = 224) -> ImageClassification:
    """Return ImageNet's resize, centre crop and normalisation.

    Args:
        image_size: Side of the crop, or its (height, width); the shorter side of the image is first resized
            to 256/224 of the longer of them.
    """
    crop = (image_size, image_size) if isinstance(image_size, int) else image_size
    preset = ImageClassification(crop_size=max(crop), resize_size=round(max(crop) * _RESIZE_TO_CROP))
    preset.crop_size = list(crop)
    return preset


def preset_transform(preset: ImageClassification, image_size: int | None) -> ImageClassification:
    """Return a preset of torchvision at another image size.

    Args:
        preset: A fresh one; changed in place.
        image_size: Side of the crop; the resize keeps its ratio to it. None: as the preset has it.
    """
    if image_size is not None:
        preset.resize_size = [round(image_size * preset.resize_size[0] / preset.crop_size[0])]
        preset.crop_size = [image_size]
    return preset


def probe_images(transform: Transform, n: int) -> Tensor:
    """Return `n` images of seeded noise (n, 3, h, w) of the size that a transform gives.

    Raises:
        ModelError: The transform fails on an image or gives no float tensor (3, h, w).
    """
    expected = "a transform from an RGB PIL image to a float tensor (3, height, width)"
    hint = "end the transform with a conversion such as torchvision.transforms.ToTensor()"
    try:
        image: Any = transform(Image.new("RGB", (256, 256)))
    except Exception as error:
        raise ModelError(
            f"the transform fails on an image: {type(error).__name__}: {error}", expected=expected, hint=hint
        ) from error
    if not isinstance(image, Tensor):
        raise ModelError(f"the transform gives a {type(image).__name__}", expected=expected, hint=hint)
    if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
        raise ModelError(
            f"the transform gives a tensor {tuple(image.shape)} of {image.dtype}",
            expected=expected,
            hint=hint,
        )
    return torch.randn((n, *image.shape), generator=torch.Generator().manual_seed(0))
