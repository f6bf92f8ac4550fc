"""HEIC files."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from PIL import Image

from divacli.images.decode import UndecodableImage, decode_image, open_image
from tests.images.made import encoded, heic

pillow_heif = pytest.importorskip("pillow_heif")


@pytest.fixture
def photo() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((96, 64), Image.Resampling.BICUBIC)


def test_pixels_of_a_heic(photo: Image.Image) -> None:
    got = decode_image(heic(photo), least_side=16)
    assert (got.mode, got.size) == ("RGB", photo.size)
    assert np.abs(np.asarray(got).astype(int) - np.asarray(photo)).mean() < 8
    with open_image(heic(photo)) as image:
        assert image.format == "HEIF"


def test_a_turned_one_is_turned_once(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.register_heif_opener()
    try:
        data = encoded(photo, "HEIF", exif=exif.tobytes(), quality=95)
    finally:
        Image.OPEN.pop("HEIF", None)
    got = decode_image(data)
    assert got.size == (64, 96)
    upright = np.asarray(photo.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(got).astype(int) - upright).mean() < 8


def test_a_file_that_was_cut_off_or_damaged_raises_nothing_else(photo: Image.Image) -> None:
    data = heic(photo)
    for length in range(12, len(data) - 1, len(data) // 40):
        with pytest.raises(UndecodableImage) as caught:
            decode_image(data[:length])
        assert "\n" not in str(caught.value)
    random = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(data)
        for position in random.integers(12, 500, 3):
            damaged[position] = random.integers(256)
        with contextlib.suppress(UndecodableImage):
            assert decode_image(bytes(damaged)).mode == "RGB"
