"""Files that are not what they are called: read as what they are, or not at all."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from divacli.images.decode import UndecodableImage, decode_image
from divacli.images.kinds import IMAGE_SUFFIXES

NO_IMAGE = (
    "^not an image, or of an unknown format$|^an? [^:]*, which diva does not read: convert it to PNG or JPEG$"
)


@pytest.fixture(scope="module")
def pixels() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("evil.py", "raise SystemExit")
    return stream.getvalue()


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_of_an_image_has_a_format_that_is_read(
    suffix: str, pixels: Image.Image, encoded: Callable
) -> None:
    format = Image.registered_extensions().get(suffix)
    if format not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {suffix}")
    assert decode_image(encoded(pixels, format)).size == (30, 20)


def test_pictures_of_phones_with_several_in_one_file(pixels: Image.Image, encoded: Callable) -> None:
    data = encoded(pixels, "MPO", save_all=True, append_images=[pixels])
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "MPO"
    assert decode_image(data).size == (30, 20)


@pytest.mark.parametrize(
    "format",
    sorted({"PDF", "EPS", "ICO", "ICNS", "TGA", "PCX", "IM", "SPIDER", "MSP", "XBM", "DDS", "SGI", "BLP"}),
)
def test_other_formats_that_pillow_knows_are_out_of_reach(format: str, encoded: Callable) -> None:
    Image.init()
    mode = {"XBM": "1", "MSP": "1", "SPIDER": "F", "BLP": "P"}.get(format, "RGB")
    data = encoded(Image.new(mode, (32, 32)), format)
    with pytest.raises(UndecodableImage, match=NO_IMAGE):
        decode_image(data)


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"%PDF-1.7\n1 0 obj\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) (w) file\n",
        b"SIMPLE  =                    T",
        b"\xd7\xcd\xc6\x9a" + bytes(200),
        b"MZ\x90\x00" + bytes(200),
        b"\x7fELF" + bytes(200),
        b"GIF89a" + b"/*",
        archive(),
        b"plain text",
        bytes(10_000),
    ],
)
def test_what_is_no_image_is_called_one(data: bytes) -> None:
    with pytest.raises(UndecodableImage):
        decode_image(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("tail", [archive(), b"<script>alert(1)</script>", bytes(100_000)])
def test_an_image_with_something_else_behind_it_is_the_image(
    format: str, tail: bytes, pixels: Image.Image, encoded: Callable
) -> None:
    data = encoded(pixels, format)
    assert decode_image(data + tail).tobytes() == decode_image(data).tobytes()


def test_the_content_counts_and_not_the_name(photos, network, run, encoded, pixels) -> None:
    (photos / "a" / "gif.jpg").write_bytes(encoded(pixels, "GIF"))
    (photos / "b" / "svg.jpg").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    result = run("score", photos, "--model", f"{network}:make")
    assert result.exit_code == 0, result.stderr
    assert "1 images cannot be used and are left out: 1 .jpg (an SVG drawing" in result.stderr
