"""What an image file is: by its name, and by its first bytes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from divacli.files.regular import open_regular

# What Pillow decodes in every build of the supported versions, AVIF, which newer ones do, and what the extras
# heif and dicom decode: without them such an image is left out with the extra's name, and no class vanishes.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
    *(".heic", ".heif", ".hif", ".dcm", ".dicom"),
)

START_BYTES = 4096
"""So many bytes are enough to tell what a file is."""

CONVERT = "convert it to PNG or JPEG"
"""What to do about an image that is not read."""


@dataclass(frozen=True)
class Kind:
    """A kind of image file.

    Attributes:
        name: What `kind_of` calls it; of those that diva reads, Pillow's name of the format.
        called: In a sentence, with its article.
        magic: What its first bytes match, from the first one on; None where `kind_of` looks closer.
        read: Whether diva reads it, be it with an extra.
        extra: The optional dependencies of diva that read it; "" where it needs none.
        image: Whether such a file is a picture; False of documents that may hold some.
        advice: What to do about one that is not read.
    """

    name: str
    called: str
    magic: re.Pattern[bytes] | None = None
    read: bool = False
    extra: str = ""
    image: bool = True
    advice: str = CONVERT

    @property
    def refusal(self) -> str:
        """Why such a file is not used, in one line: the extra to install, or what to convert it to."""
        if self.extra:
            return f"{self.called}: pip install 'divacli[{self.extra}]'"
        if self.read:
            return f"{self.called}, which this release of Pillow does not read: {self.advice}"
        return f"{self.called}, which diva does not read: {self.advice}"


def _magic(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


_PILLOW = (
    Kind("JPEG", "a JPEG image", _magic(rb"\xff\xd8\xff"), read=True),
    Kind("PNG", "a PNG image", _magic(rb"\x89PNG\r\n\x1a\n"), read=True),
    Kind("GIF", "a GIF image", _magic(rb"GIF8[79]a"), read=True),
    Kind("WEBP", "a WebP image", _magic(rb"RIFF....WEBP"), read=True),
    Kind("BMP", "a BMP image", _magic(rb"BM.{4}(\0\0\0\0|.{4}..\0\0(\x0c|[\x28-\x80])\0\0\0)"), read=True),
    Kind("JPEG2000", "a JPEG 2000 image", _magic(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"), read=True),
    Kind("PPM", "a PNM image", _magic(rb"P[1-6fFyY0][ \t\r\n#]"), read=True),
    Kind("AVIF", "an AVIF image", read=True),
)

# Before TIFF, which some of them begin as.
_RAW = (
    Kind("CR2", "a Canon raw image (CR2)", _magic(rb"II\*\0....CR\x02")),
    Kind("CR3", "a Canon raw image (CR3)", _magic(rb"....ftypcrx ")),
    Kind("RAF", "a Fujifilm raw image (RAF)", _magic(rb"FUJIFILMCCD-RAW")),
    Kind("ORF", "an Olympus raw image (ORF)", _magic(rb"IIR[OS]|MMOR")),
    Kind("RW2", "a Panasonic raw image (RW2)", _magic(rb"IIU\0")),
)

_TIFF = Kind("TIFF", "a TIFF image", _magic(rb"II(\*\0|\+\0)|MM(\0\*|\0\+)"), read=True)

_UNREAD = (
    Kind("PSD", "a PSD image", _magic(rb"8BPS\0[\1\2]")),
    Kind("XCF", "a GIMP image (XCF)", _magic(rb"gimp xcf ")),
    Kind("EXR", "an OpenEXR image", _magic(rb"\x76\x2f\x31\x01")),
    Kind("HDR", "a Radiance HDR image", _magic(rb"#\?(RADIANCE|RGBE)")),
    Kind("JXL", "a JPEG XL image", _magic(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n")),
    Kind("ICO", "an ICO image", _magic(rb"\0\0[\1\2]\0[\x01-\x40]\0..[\x00-\xff]\0[\0\1]\0")),
    Kind("ICNS", "an ICNS image", _magic(rb"icns")),
    Kind("DDS", "a DDS image", _magic(rb"DDS \x7c\0\0\0")),
    Kind("QOI", "a QOI image", _magic(rb"qoif")),
    Kind("FITS", "a FITS image", _magic(rb"SIMPLE  = ")),
    Kind("DJVU", "a DjVu image", _magic(rb"AT&TFORM")),
    Kind("NIFTI", "a NIfTI volume", _magic(rb"(\x5c\x01\0\0|\0\0\x01\x5c).{340}(n\+1|ni1)\0")),
    Kind("SVG", "an SVG drawing"),
    Kind("PDF", "a PDF document", _magic(rb"%PDF-"), image=False),
    Kind("EPS", "a PostScript document", _magic(rb"%!PS"), image=False),
)

_HEIC = Kind("HEIC", "a HEIC image", read=True, extra="heif")
_DICOM = Kind("DICOM", "a DICOM image", _magic(rb".{128}DICM"), read=True, extra="dicom")

# First of all DICOM, whose first 128 bytes may be anything: often they look like the header of a TIFF.
_IN_ORDER = (_DICOM, *_PILLOW, *_RAW, _TIFF, *_UNREAD, _HEIC)

KINDS = {kind.name: kind for kind in _IN_ORDER}
"""Every kind that is known, by its name."""

_SVG = _magic(rb"(\xef\xbb\xbf)?\s*(<\?xml.*|<!--.*|<!DOCTYPE svg.*)?<svg[\s>]")
_HEIC_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2")
)
_AVIF_BRANDS = frozenset((b"avif", b"avis"))


def is_called_image(name: str) -> bool:
    """Whether a file, by its name alone, is an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def kind_of(start: bytes) -> str | None:
    """Tell what kind of image a file is, whatever its name.

    Raw images of cameras that are TIFF files to every reader (NEF, ARW, DNG) are called TIFF.

    Args:
        start: The first `START_BYTES` of the file, or all of it where it is shorter.

    Returns:
        A name among `KINDS`; None where it is none of those.
    """
    if start[4:8] == b"ftyp" and (family := _heif_family(start)):
        return family
    for kind in _IN_ORDER:
        if kind.magic is not None and kind.magic.match(start):
            return kind.name
    return "SVG" if _SVG.match(start) else None


def sniff(path: str) -> str | None:
    """Tell what kind of image a local file is, from its first bytes.

    Args:
        path: The file; only a regular one is opened.

    Returns:
        As `kind_of`; None also where it cannot be read.
    """
    try:
        with open_regular(os.fspath(path)) as stream:
            return kind_of(stream.read(START_BYTES))
    except (OSError, ValueError):
        return None


def _heif_family(start: bytes) -> str | None:
    """AVIF or HEIC by the brands of a file of their family; None of films and others."""
    stated = int.from_bytes(start[:4], "big")
    box = start[: stated if 16 <= stated <= START_BYTES else 16]
    brands = [box[8:12], *(box[place : place + 4] for place in range(16, len(box), 4))]
    # HEIF's own names mif1 and msf1 say nothing of how the pixels are packed.
    if not _AVIF_BRANDS.isdisjoint(brands):
        return "AVIF"
    return "HEIC" if brands[0] in _HEIC_BRANDS else None
