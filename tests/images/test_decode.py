"""Every kind of image file comes out as the same upright RGB pixels, and a bad one with a reason."""

import contextlib
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from divacli.images.decode import UndecodableImage, decode_image

# pytest sets its own filters in place of the one that the module sets up; the last test looks at that one.
pytestmark = pytest.mark.filterwarnings("ignore")


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (13, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_keep_every_pixel(pixels: np.ndarray, format: str) -> None:
    assert (decoded(encoded(Image.fromarray(pixels), format)) == pixels).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_and_not_blended(mode: str) -> None:
    image = Image.new("RGB", (4, 3), (90, 90, 90)).convert(mode)
    image.putalpha(0)
    assert (decoded(encoded(image)) == 90).all()


def test_palette_with_alpha_channel() -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image = image.convert("PA")
    assert (decoded(encoded(image, "TIFF")) == (10, 20, 30)).all()


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
def test_palette_colours(transparency: int | bytes | None) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    options = {} if transparency is None else {"transparency": transparency}
    expected = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]
    assert decoded(encoded(image, **options)).tolist() == expected


@pytest.mark.parametrize("transparency", [{}, {"transparency": 7}])
def test_grey(transparency: dict) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (decoded(encoded(Image.fromarray(grey), **transparency)) == grey[..., None]).all()


def test_one_bit() -> None:
    bits = np.array([[0, 1, 1], [1, 0, 1]], bool)
    assert (decoded(encoded(Image.fromarray(bits))) == bits[..., None] * np.uint8(255)).all()


def grey16_files(samples: np.ndarray) -> dict[str, bytes]:
    little = Image.fromarray(samples)
    wide = Image.fromarray(samples.astype(np.int32))
    big = Image.frombytes("I;16B", little.size, samples.astype(">u2").tobytes())
    header = f"P5 {samples.shape[1]} {samples.shape[0]} 65535\n".encode()
    return {
        "png": encoded(little),
        "tiff": encoded(little, "TIFF"),
        "big-endian tiff": encoded(big, "TIFF"),
        "32-bit tiff": encoded(wide, "TIFF"),
        "pgm": header + samples.astype(">u2").tobytes(),
    }


@pytest.mark.parametrize("kind", ["png", "tiff", "big-endian tiff", "32-bit tiff", "pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str) -> None:
    samples = np.linspace(0, 65535, 16 * 32).round().astype(np.uint16).reshape(16, 32)
    got = decoded(grey16_files(samples)[kind])
    assert (got == np.round(samples / 257).astype(np.uint8)[..., None]).all()
    assert (got.min(), got.max()) == (0, 255)


def test_float_images_are_scaled_where_they_lie_in_the_unit_interval() -> None:
    unit = np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)
    assert decoded(encoded(Image.fromarray(unit), "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 0]
    wide = np.array([[-5.0, 0.4, 100.0, 300.0]], np.float32)
    assert decoded(encoded(Image.fromarray(wide), "TIFF"))[0, :, 0].tolist() == [0, 0, 100, 255]


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (20, 40, 200), (255, 255, 255)])
def test_cmyk_jpeg(colour: tuple[int, int, int]) -> None:
    image = Image.new("RGB", (16, 16), colour).convert("CMYK")
    assert np.abs(decoded(encoded(image, "JPEG")).astype(int) - colour).max() <= 4


def test_lab_tiff() -> None:
    # L*a*b* of sRGB red under D50.
    image = Image.merge("LAB", [Image.new("L", (3, 3), value) for value in (138, 209, 198)])
    assert np.abs(decoded(encoded(image, "TIFF")).astype(int) - (255, 0, 0)).max() <= 12


def test_ycbcr_tiff() -> None:
    image = Image.new("RGB", (8, 8), (200, 100, 50)).convert("YCbCr")
    assert np.abs(decoded(encoded(image, "TIFF")).astype(int) - (200, 100, 50)).max() <= 3


# What a camera stores for an upright picture, by the orientation it notes.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_rotated_equals_upright(pixels: np.ndarray, orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](pixels)))
    assert (decoded(encoded(stored, format, exif=exif, **options)) == pixels).all()


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"],
)
def test_broken_exif_is_no_reason_to_refuse(pixels: np.ndarray, exif: bytes) -> None:
    image = Image.fromarray(pixels)
    assert (decoded(encoded(image, "JPEG", exif=exif)) == decoded(encoded(image, "JPEG"))).all()


def test_exif_in_a_png_text_that_is_no_exif(pixels: np.ndarray) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n 4\nno hexadecimal digits")
    assert (decoded(encoded(Image.fromarray(pixels), pnginfo=text)) == pixels).all()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_changes_nothing(pixels: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (decoded(encoded(Image.fromarray(pixels), exif=exif)) == pixels).all()


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in [(250, 0, 0), (0, 250, 0), (0, 0, 250)]]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (decoded(data) == (250, 0, 0)).all()


def test_result_needs_no_open_file(pixels: np.ndarray) -> None:
    image = decode_image(encoded(Image.fromarray(pixels)))
    assert image.getpixel((0, 0)) == tuple(pixels[0, 0].tolist())
    assert type(image) is Image.Image


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"^empty file \(0 bytes\)$"),
        (b"hello", "^not an image, or of an unknown format$"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "^an SVG drawing, which diva"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
            "^a PostScript document",
        ),
    ],
)
def test_no_image(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImage, match=reason):
        decode_image(data)


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    said = r"^too large: 4,000,000 pixels, the limit is 2,000; scale it down$"
    with pytest.raises(UndecodableImage, match=said):
        decode_image(encoded(Image.new("L", (2000, 2000))))


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
    ],
)
def test_truncated_file_is_refused_or_whole(format: str, options: dict) -> None:
    x = np.linspace(0, 6, 48)
    smooth = (127 + 120 * np.sin(x[:, None, None] + x[None, :, None] * [1, 2, 3])).astype(np.uint8)
    data = encoded(Image.fromarray(smooth), format, **options)
    whole = decoded(data)
    reasons = []
    for length in range(len(data)):
        try:
            got = decoded(data[:length])
        except UndecodableImage as error:
            reasons.append(str(error))
        else:
            assert (got == whole).all(), f"{length} of {len(data)} bytes gave other pixels"
    assert len(reasons) > 0.8 * len(data)
    assert all(reason and "\n" not in reason for reason in reasons)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000"])
def test_damaged_bytes_raise_nothing_else(pixels: np.ndarray, format: str) -> None:
    data = encoded(Image.fromarray(pixels), format)
    random = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(data)
        for position in random.integers(0, len(data), 4):
            damaged[position] = random.integers(256)
        with contextlib.suppress(UndecodableImage):
            assert decode_image(bytes(damaged)).mode == "RGB"


def test_warnings_of_pillow_do_not_leak() -> None:
    script = """
import io, sys
from PIL import Image
from divacli.images.decode import decode_image
image = Image.new("P", (40, 40))
stream = io.BytesIO()
image.save(stream, "PNG", transparency=bytes([0, 1, 2]))
Image.MAX_IMAGE_PIXELS = 1000  # 1,600 pixels: worth a warning, not yet an error
decode_image(stream.getvalue())
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("megabytes", [0.5, 3, 20])
def test_a_large_colour_profile_is_no_damage(pixels: np.ndarray, megabytes: float) -> None:
    profile = np.random.default_rng(0).bytes(int(megabytes * 1e6))
    data = encoded(Image.fromarray(pixels), icc_profile=profile)
    assert np.array_equal(np.asarray(decode_image(data)), pixels)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 3_001)])
def test_a_line_of_pixels_is_no_image(size: tuple[int, int]) -> None:
    with pytest.raises(UndecodableImage, match=r"one side is more than 1,000 times the other"):
        decode_image(encoded(Image.new("RGB", size)))
    assert decode_image(encoded(Image.new("RGB", (2, 2_000)))).size == (2, 2_000)
