"""JPEG files decoded as tensors: near those of Pillow, which takes what they cannot."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from divacli.backbones.transform import imagenet_transform
from divacli.features.jpeg import TensorCrops, decodes_on, is_plain_jpeg
from divacli.images.decode import decode_image

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not decodes_on(torch.device("cuda")), reason="no CUDA that decodes")
    ),
]


def photo(seed: int, size: tuple[int, int] = (150, 110)) -> Image.Image:
    """Smooth noise, as photos are."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(0), exif=exif)


def as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@pytest.mark.parametrize("subsampling", [0, 2])
def test_plain_ones(subsampling: int) -> None:
    assert is_plain_jpeg(encoded(photo(0), quality=90, subsampling=subsampling))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\xff\xd8\xff\xd9",
        encoded(photo(0))[:-50],
        encoded(photo(0), progressive=True),
        encoded(photo(0).convert("L")),
        encoded(photo(0).convert("CMYK")),
        turned(),
    ],
    ids=["empty", "text", "nothing between", "cut off", "progressive", "grey", "CMYK", "turned"],
)
def test_others_are_left_to_pillow(data: bytes) -> None:
    assert not is_plain_jpeg(data)


@pytest.mark.parametrize("device", DEVICES)
def test_crops_are_near_those_of_pillow(device: str) -> None:
    preset = imagenet_transform(64)
    files = [encoded(photo(seed, (150 + seed, 110)), quality=95, subsampling=0) for seed in range(5)]
    made = TensorCrops(preset, torch.device(device))([as_tensor(data) for data in files])
    pillow = [preset.crop(decode_image(data)) for data in files]
    difference = (torch.stack(made).cpu().int() - torch.stack(pillow).int()).abs().float()
    assert difference.max() <= (2 if device == "cpu" else 8)
    assert (difference > 1).float().mean() < 0.1
    assert (pillow[0].int() - pillow[1].int()).abs().float().mean() > 10  # and in their order


def test_one_that_the_decoder_refuses_costs_the_others_nothing() -> None:
    calls: list[int] = []

    def decode(files: list[Tensor]) -> list[Tensor]:
        calls.append(len(files))
        if any(len(file) == len(refused) for file in files):
            raise RuntimeError("nvjpeg: not supported")
        return decode_jpeg(files, mode=ImageReadMode.RGB)

    preset = imagenet_transform(32)
    files = [as_tensor(encoded(photo(seed), quality=70 + seed)) for seed in range(6)]
    refused = files[4]
    made = TensorCrops(preset, CPU, decode)(files)
    assert torch.equal(made[4], preset.crop(decode_image(refused.numpy().tobytes(), preset.least_side)))
    others = [0, 1, 2, 3, 5]
    expected = TensorCrops(preset, CPU)([files[place] for place in others])
    assert all(torch.equal(made[place], crop) for place, crop in zip(others, expected, strict=True))
    assert calls[0] == 6


def test_damaged_file_gets_the_reason_of_pillow() -> None:
    data = bytearray(encoded(photo(0)))
    data[300:] = b"\xff\xc4" * 20 + b"\xff\xd9"
    made = TensorCrops(imagenet_transform(32), CPU)([as_tensor(bytes(data)), as_tensor(encoded(photo(1)))])
    assert isinstance(made[0], str)
    assert isinstance(made[1], Tensor)
