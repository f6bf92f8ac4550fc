"""The preparation of images that an image processor of transformers states, made of torchvision's steps."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from divacli.backbones.transform import Transform
from divacli.errors import ModelError

_CONVNEXT, _DINOV3, _EFFICIENTNET, _LEVIT, _POOLFORMER = (
    f"{name}ImageProcessor" for name in ("ConvNext", "DINOv3ViT", "EfficientNet", "Levit", "PoolFormer")
)
_KNOWN = (
    *("BeitImageProcessor", "BitImageProcessor", "CLIPImageProcessor", "DeiTImageProcessor"),
    *("MobileNetV1ImageProcessor", "MobileNetV2ImageProcessor", "MobileViTImageProcessor"),
    *("PvtImageProcessor", "SegformerImageProcessor", "SiglipImageProcessor", "ViTImageProcessor"),
    *(_CONVNEXT, _DINOV3, _EFFICIENTNET, _LEVIT, _POOLFORMER),
)
"""Image processors whose steps are those below."""

_WARPED_FROM = 384
"""Pixels from which ConvNeXt's images are resized to a square in place of a crop."""


class CentreCrop(nn.Module):
    """A crop of an image's centre, with black margins where the image is smaller.

    Of an odd number of pixels the smaller half is cut off above and to the left, as transformers does.
    torchvision rounds halves to even ones.

    Args:
        height: Of the crop, in pixels.
        width: Likewise.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """Return the crop of an image (..., h, w)."""
        height, width = v2.functional.get_size(image)
        top, left = int((height - self.height) / 2), int((width - self.width) / 2)
        return v2.functional.crop(image, top, left, self.height, self.width)

    def extra_repr(self) -> str:
        """Print the size."""
        return f"{self.height}, {self.width}"


class ReversedChannels(nn.Module):
    """From RGB to BGR."""

    def forward(self, image: Tensor) -> Tensor:
        """Return an image (3, h, w) with its channels in reverse."""
        return image.flip(-3)


def processor_transform(processor: Any, model: str) -> Transform:
    """Return the preparation of images that an image processor's settings state.

    Resizing works on the PIL image, as when most of these networks were trained. transformers itself may
    resize tensors, which rounds pixels otherwise.

    Args:
        processor: An image processor of transformers.
        model: What it belongs to, for messages.

    Raises:
        ModelError: It is of an unknown kind, or states something else than resize, centre crop, scale to
            [0, 1] and normalise.
    """
    kind = type(processor).__name__.removesuffix("Fast").removesuffix("Pil")
    if kind not in _KNOWN:
        raise _unknown(model, f"is a {kind}", f"one of {', '.join(_KNOWN)}")
    settings = processor.to_dict()
    if not settings["do_rescale"] or abs(settings["rescale_factor"] * 255 - 1) > 1e-6:
        raise _unknown(model, f"has rescale_factor {settings['rescale_factor']}", "values divided by 255")
    for setting in ("do_pad", "rescale_offset"):
        if settings.get(setting):
            raise _unknown(model, f"has {setting}", "resize, centre crop, scale to [0, 1] and normalise")
    to_tensor: list[nn.Module] = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    geometry = _geometry(settings, kind, model)
    # DINOv3 was trained on images that were resized as tensors.
    steps = [*to_tensor, *geometry] if kind == _DINOV3 else [*geometry, *to_tensor]
    if settings.get("do_flip_channel_order"):
        steps.append(ReversedChannels())
    if settings.get("do_normalize"):
        steps.append(v2.Normalize(list(settings["image_mean"]), list(settings["image_std"])))
    if kind == _EFFICIENTNET and settings["include_top"]:
        steps.append(v2.Normalize([0.0, 0.0, 0.0], list(settings["image_std"])))
    return v2.Compose(steps)


def _geometry(settings: dict[str, Any], kind: str, model: str) -> list[nn.Module]:
    """Return the steps that change an image's size."""
    steps: list[nn.Module] = []
    if settings["do_resize"]:
        sides, crop = _sides(settings, kind, model)
        filter = InterpolationMode[Image.Resampling(settings["resample"]).name]
        steps.append(v2.Resize(sides, interpolation=filter))
        steps += [CentreCrop(crop, crop)] if crop else []
    if settings.get("do_center_crop"):
        steps.append(CentreCrop(settings["crop_size"]["height"], settings["crop_size"]["width"]))
    return steps


def _sides(settings: dict[str, Any], kind: str, model: str) -> tuple[list[int], int | None]:
    """Return the sides to resize to, one of the shorter side, and the side of a crop that belongs to it."""
    size = {side: length for side, length in settings["size"].items() if length is not None}
    if set(size) not in ({"shortest_edge"}, {"height", "width"}):
        raise _unknown(model, f"has size {size}", "a size by shortest_edge, or by height and width")
    sides, fraction = list(size.values()), settings.get("crop_pct")
    if len(sides) == 2:
        sides = [size["height"], size["width"]]
    match kind:
        case "ConvNextImageProcessor" if len(sides) == 1:
            return (
                ([*sides, *sides], None)
                if sides[0] >= _WARPED_FROM
                else ([int(sides[0] / fraction)], sides[0])
            )
        case "PoolFormerImageProcessor" if fraction and len(set(sides)) == 1:
            return [int(sides[0] / fraction)], None
        case "LevitImageProcessor" if len(sides) == 1:
            return [int(256 / 224 * sides[0])], None
    return sides, None


def _unknown(model: str, what: str, expected: str) -> ModelError:
    return ModelError(
        f"{model}: its image processor {what}",
        expected=expected,
        hint="write a factory that returns the network and its transform: --model FILE.py:FACTORY",
    )
