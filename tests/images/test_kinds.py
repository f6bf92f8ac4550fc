"""What a file is, by its first bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from divacli.images.decode import UndecodableImage, decode_image
from divacli.images.kinds import KINDS, START_BYTES, kind_of, sniff
from tests.images.made import dicom, encoded, heic

PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))

STARTS = {
    "PSD": b"8BPS\0\1" + bytes(20),
    "XCF": b"gimp xcf v011\0",
    "EXR": b"\x76\x2f\x31\x01\x02\0\0\0",
    "HDR": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
    "JXL": b"\xff\x0a\xfa\x1f\x41",
    "ICO": b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0",
    "QOI": b"qoif" + bytes(10),
    "FITS": b"SIMPLE  =                    T",
    "DDS": b"DDS \x7c\0\0\0" + bytes(20),
    "NIFTI": b"\x5c\x01\0\0" + bytes(340) + b"n+1\0",
    "SVG": b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PDF": b"%PDF-1.7\n",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "CR2": b"II*\0\x10\0\0\0CR\x02\0" + bytes(20),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "RAF": b"FUJIFILMCCD-RAW 0201",
    "ORF": b"IIRO\x08\0\0\0",
    "RW2": b"IIU\0\x18\0\0\0",
}


@pytest.mark.parametrize("name", STARTS)
def test_what_is_not_read_has_a_name_and_advice(name: str) -> None:
    assert kind_of(STARTS[name]) == name
    kind = KINDS[name]
    assert not kind.read
    assert kind.image == (name not in ("PDF", "EPS"))
    with pytest.raises(UndecodableImage) as caught:
        decode_image(STARTS[name])
    assert str(caught.value) == f"{kind.called}, which diva does not read: convert it to PNG or JPEG"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_what_is_read_goes_by_the_name_of_pillow(format: str) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    data = encoded(PIXELS, format)
    assert kind_of(data[:START_BYTES]) == format
    assert KINDS[format].read
    assert not KINDS[format].extra


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"x,y\n1,2\n",
        bytes(5000),
        b"\0\0\0\x20ftypisom\0\0\2\0isomiso2mp41",
        b"PK\3\4",
        b"BMW is",
    ],
)
def test_other_files_are_none_of_them(data: bytes) -> None:
    assert kind_of(data) is None


def test_the_families_of_heif() -> None:
    box = b"\0\0\0\x1cftyp%b\0\0\0\0mif1%bmiaf"
    assert kind_of(box % (b"heic", b"heic")) == "HEIC"
    assert kind_of(box % (b"mif1", b"heic")) == "HEIC"
    assert kind_of(box % (b"mif1", b"avif")) == "AVIF"
    assert kind_of(box % (b"avif", b"avif")) == "AVIF"
    assert kind_of(box % (b"qt  ", b"qt  ")) is None
    pytest.importorskip("pillow_heif")
    assert kind_of(heic(PIXELS)[:START_BYTES]) == "HEIC"


def test_dicom_counts_whatever_stands_before_it() -> None:
    pytest.importorskip("pydicom")
    data = dicom(np.zeros((4, 4), np.uint8))
    assert kind_of(data[:START_BYTES]) == "DICOM"
    assert kind_of(b"II*\0" + data[4:START_BYTES]) == "DICOM"


def test_a_damaged_image_of_a_known_kind_is_called_so() -> None:
    with pytest.raises(UndecodableImage, match=r"^damaged: it begins as a PNG image and cannot be read$"):
        decode_image(b"\x89PNG\r\n\x1a\n" + bytes(100))


def test_a_raw_image_that_is_a_tiff_to_every_reader() -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags[254], tags[330] = 1, 8
    data = encoded(PIXELS, "TIFF", tiffinfo=tags)
    assert kind_of(data[:START_BYTES]) == "TIFF"
    with pytest.raises(UndecodableImage, match=r"^a raw image of a camera, of which only a thumbnail can be"):
        decode_image(data)


def test_sniffing_opens_nothing_but_regular_files(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(encoded(PIXELS))
    assert sniff(str(tmp_path / "1")) == "PNG"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").touch()
    for name in ("pipe", "loop", "empty", "missing", ".", "a\0b"):
        assert sniff(f"{tmp_path}/{name}") is None


@pytest.mark.parametrize(
    ("module", "data", "said"),
    [
        ("pillow_heif", b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "a HEIC image: pip install 'divacli[heif]'"),
        ("pydicom", bytes(128) + b"DICM", "a DICOM image: pip install 'divacli[dicom]'"),
    ],
)
def test_an_extra_that_is_missing_is_named(
    module: str, data: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UndecodableImage) as caught:
        decode_image(data)
    assert str(caught.value) == said


def test_the_room_needs_no_torch() -> None:
    script = """
import sys
from divacli.images import decode, dicom, header, heif, kinds, pixel_range, png, scaling, survey
assert not {"torch", "torchvision", "pydicom", "pillow_heif"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
