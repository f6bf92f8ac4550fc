"""What a set of image files looks like, without a network: kinds, sizes, values, what cannot be opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median_low

from divacli.files.containers import reading_order
from divacli.images.failures import Group, groups_of
from divacli.images.header import Header, read_header
from divacli.images.pixel_range import find_range
from divacli.images.scaling import PixelRange
from divacli.images.spread import evenly
from divacli.images.undecodable import UndecodableImage
from divacli.progress import Progress, silent

_MODES = {
    "1": "black and white",
    "L": "8-bit grey",
    "P": "8-bit palette",
    "PA": "8-bit palette with alpha",
    "LA": "8-bit grey with alpha",
    "RGB": "8-bit RGB",
    "RGBA": "8-bit RGB with alpha",
    "RGBX": "8-bit RGB",
    "CMYK": "8-bit CMYK",
    "YCbCr": "8-bit YCbCr",
    "LAB": "8-bit Lab",
    "I": "grey of integers",
    "F": "grey of floating point numbers",
}
_THREADS = 8  # that wait for a disk or a network side by side


@dataclass(frozen=True)
class Survey:
    """What a look at some files of a set found.

    Attributes:
        n_files: Files of the set.
        n_looked_at: Those that were looked at, spread evenly.
        modes: How many have which kind of pixels, in words such as "8-bit RGB", the most first.
        formats: How many are of which format by their content, such as "JPEG", the most first.
        widths: The smallest, the middle and the largest, in pixels, upright; None where none can be opened.
        heights: Likewise.
        n_turned: Those whose EXIF data turn them.
        n_unusable: Those that cannot be opened.
        unusable: These by suffix and reason, the most first.
        pixels: The range that the values of more than 8 bits use, found among all files; its `sentence` says
            so, and is "" where there is nothing to say.
    """

    n_files: int
    n_looked_at: int
    modes: Mapping[str, int]
    formats: Mapping[str, int]
    widths: tuple[int, int, int] | None
    heights: tuple[int, int, int] | None
    n_turned: int
    n_unusable: int
    unusable: tuple[Group, ...]
    pixels: PixelRange


def survey(files: Sequence[str], progress: Progress = silent, n: int = 500) -> Survey:
    """Look at the headers of some image files, and at the pixels of some of more than 8 bits.

    Args:
        files: Paths, which may lead into tar files, or URLs.
        progress: Told of every file that was looked at.
        n: Files to look at, at most.
    """
    spread = evenly(files, n)
    chosen = [spread[position] for position in reading_order(spread)]
    headers: list[Header] = []
    failed: list[tuple[str, str]] = []
    with ThreadPoolExecutor(_THREADS) as pool, progress("looking", len(chosen)) as advance:
        for file, found in zip(chosen, pool.map(_header_or_reason, chosen), strict=True):
            if isinstance(found, Header):
                headers.append(found)
            else:
                failed.append((file, found))
            advance(1)
    modes = Counter(_in_words(header) for header in headers)
    formats = Counter("JPEG" if header.format == "MPO" else header.format for header in headers)
    return Survey(
        n_files=len(files),
        n_looked_at=len(chosen),
        modes=dict(modes.most_common()),
        formats=dict(formats.most_common()),
        widths=_spread([header.upright[0] for header in headers]),
        heights=_spread([header.upright[1] for header in headers]),
        n_turned=sum(header.orientation != 1 for header in headers),
        n_unusable=len(failed),
        unusable=tuple(groups_of([file for file, _ in failed], [reason for _, reason in failed])),
        pixels=find_range(files),
    )


def _header_or_reason(file: str) -> Header | str:
    try:
        return read_header(file)
    except UndecodableImage as error:
        return str(error)


def _in_words(header: Header) -> str:
    if header.mode.startswith("I;16"):
        return "16-bit grey"
    if header.deep and header.mode.startswith("RGB"):
        return _MODES[header.mode].replace("8-bit", "16-bit")
    return _MODES.get(header.mode, f"pixels of mode {header.mode}")


def _spread(numbers: Sequence[int]) -> tuple[int, int, int] | None:
    return (min(numbers), median_low(numbers), max(numbers)) if numbers else None
