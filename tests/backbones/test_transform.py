"""The preset in two halves is torchvision's; less than all pixels are for it alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import MobileNet_V2_Weights
from torchvision.transforms._presets import ImageClassification

from divacli.backbones.load import load_backbone
from divacli.backbones.transform import Preset, imagenet_transform, preset_transform


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(256, 342), (500, 300), (100, 80), (463, 463)])
def test_smaller_images_are_prepared_bit_for_bit_as_by_torchvision(size: tuple[int, int]) -> None:
    published = MobileNet_V2_Weights.DEFAULT.transforms()
    preset = preset_transform(published, None)
    assert torch.equal(preset(noise(*size)), published(noise(*size)))


def test_normalising_a_batch_changes_no_bit_and_no_layout() -> None:
    preset = imagenet_transform(32)
    images = [noise(40 + number, 60) for number in range(5)]
    crops = torch.stack([preset.crop(image) for image in images])
    expected = torch.stack([preset(image) for image in images])
    assert crops.dtype == torch.uint8
    assert torch.equal(preset.normalised(crops), expected)
    last = preset.normalised(crops.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, expected)


@pytest.mark.parametrize("size", [(800, 600), (464, 700)])
def test_larger_images_differ_by_one_level_at_most(size: tuple[int, int]) -> None:
    published = MobileNet_V2_Weights.DEFAULT.transforms()
    preset = preset_transform(published, None)
    assert min(size) >= preset.least_side == 464
    levels = ImageClassification(crop_size=224, resize_size=232, mean=(0.0,) * 3, std=(1.0,) * 3)
    difference = (preset.crop(noise(*size)).int() - (levels(noise(*size)) * 255).round().int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


def test_settings_are_kept_and_told_apart() -> None:
    published = MobileNet_V2_Weights.DEFAULT.transforms()
    preset = preset_transform(published, 112)
    assert (preset.resize_size, preset.crop_size) == ([116], [112])
    assert (preset.mean, preset.std) == (published.mean, published.std)
    assert repr(preset) != repr(published)
    assert "draft_margin=2" in repr(preset)


def test_a_transform_of_a_factory_gets_all_pixels(tmp_path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\n"
        "from torchvision.transforms._presets import ImageClassification\n\n"
        "def own():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), ImageClassification(crop_size=8)\n\n"
        "def none():\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))\n"
    )
    assert not isinstance(load_backbone(f"{file}:own").transform, Preset)
    assert isinstance(load_backbone(f"{file}:none").transform, Preset)
