"""DICOM files: their values as the file means them, and bad ones with a reason."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from divacli.images.decode import UndecodableImage, decode_image, loaded_image, open_image
from divacli.images.scaling import PixelRange
from tests.images.made import dicom

pytest.importorskip("pydicom")
pytestmark = pytest.mark.filterwarnings("ignore")

TWELVE_BITS = PixelRange(integers=(0, 4095))


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4096, (20, 30), dtype=np.uint16)


def decoded(data: bytes, pixels: PixelRange = TWELVE_BITS) -> np.ndarray:
    return np.asarray(decode_image(data, pixels=pixels))


@pytest.mark.parametrize("rle", [False, True])
def test_grey_of_twelve_bits(values: np.ndarray, rle: bool) -> None:
    got = decoded(dicom(values, rle=rle, BitsStored=12, HighBit=11))
    assert np.array_equal(got, np.round(values * (255 / 4095)).astype(np.uint8)[..., None].repeat(3, 2))


def test_the_largest_value_may_be_black(values: np.ndarray) -> None:
    fields: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}
    inverted = dicom(values, PhotometricInterpretation="MONOCHROME1", **fields)
    assert np.array_equal(decoded(inverted), 255 - decoded(dicom(values, **fields)))


def test_hounsfield_units(values: np.ndarray) -> None:
    data = dicom(values, RescaleSlope="2", RescaleIntercept="-1024")
    with loaded_image(data) as image:
        assert image.mode == "I"
        assert np.array_equal(np.asarray(image), values.astype(int) * 2 - 1024)
    with loaded_image(dicom(values.astype(np.int16) - 1000)) as image:
        assert np.array_equal(np.asarray(image), values.astype(int) - 1000)
    with loaded_image(dicom(values, RescaleSlope="0.5", RescaleIntercept="0.25")) as image:
        assert image.mode == "F"
        assert np.allclose(np.asarray(image), values * 0.5 + 0.25)


def test_windows_are_not_applied(values: np.ndarray) -> None:
    assert np.array_equal(decoded(dicom(values, WindowCenter="40", WindowWidth="10")), decoded(dicom(values)))


@pytest.mark.parametrize("rle", [False, True])
def test_eight_bits_stay_as_they_are(values: np.ndarray, rle: bool) -> None:
    grey = (values // 16).astype(np.uint8)
    assert np.array_equal(decoded(dicom(grey, rle=rle)), grey[..., None].repeat(3, 2))
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(decoded(dicom(colours, rle=rle)), colours)


def test_other_colours() -> None:
    from PIL import Image

    colours = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    ycbcr = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    assert (
        np.abs(decoded(dicom(ycbcr, PhotometricInterpretation="YBR_FULL")).astype(int) - colours).max() <= 3
    )
    palette = np.zeros(256, np.uint16)
    palette[7] = 0xC8C8
    table = {f"{name}PaletteColorLookupTableData": palette.tobytes() for name in ("Red", "Green", "Blue")}
    described = {
        f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")
    }
    data = dicom(
        np.full((4, 4), 7, np.uint8), PhotometricInterpretation="PALETTE COLOR", **table, **described
    )
    assert (decoded(data) == 0xC8).all()


@pytest.mark.parametrize("rle", [False, True])
def test_of_several_frames_the_first(rle: bool) -> None:
    frames = np.stack([np.full((6, 5), value, np.uint8) for value in (9, 90, 200)])
    assert (decoded(dicom(frames, rle=rle)) == 9).all()


def test_too_large_is_said_before_any_pixel_is_decoded(values: np.ndarray) -> None:
    with pytest.raises(UndecodableImage, match=r"^too large: 4,225,000,000 pixels"):
        open_image(dicom(values, Rows=65_000, Columns=65_000))
    with pytest.raises(UndecodableImage, match="one side is more than 1,000 times the other"):
        open_image(dicom(values, Rows=1, Columns=60_000))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"Rows": 60}, "^damaged DICOM image: "),
        ({"Rows": 0}, "^a DICOM file without pixels$"),
        ({"PhotometricInterpretation": "HSV"}, "^damaged DICOM image: "),
        ({"RescaleSlope": "1e300", "RescaleIntercept": "0"}, "^damaged DICOM image: "),
    ],
)
def test_damage_has_a_reason(values: np.ndarray, fields: dict, reason: str) -> None:
    with pytest.raises(UndecodableImage, match=reason) as caught:
        decode_image(dicom(values, **fields))
    assert "\n" not in str(caught.value)


def test_what_is_deflated_is_not_unpacked(values: np.ndarray) -> None:
    data = dicom(values).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"[:20])
    data = data.replace(b"1.2.840.10008.1.2.1.", b"1.2.840.10008.1.2.1.99")
    with pytest.raises(UndecodableImage, match=r"^a deflated DICOM file, which diva does not read"):
        decode_image(data)


def test_a_file_that_was_cut_off_or_damaged_raises_nothing_else(values: np.ndarray) -> None:
    random = np.random.default_rng(1)
    for rle in (False, True):
        data = dicom(values, rle=rle, RescaleSlope="1", RescaleIntercept="-5")
        for length in range(0, len(data), 23):
            with pytest.raises(UndecodableImage) as caught:
                decode_image(data[:length])
            assert "\n" not in str(caught.value)
        for _ in range(300):
            damaged = bytearray(data)
            for position in random.integers(0, 700, 3):
                damaged[position] = random.integers(256)
            with contextlib.suppress(UndecodableImage):
                assert decode_image(bytes(damaged)).mode == "RGB"
