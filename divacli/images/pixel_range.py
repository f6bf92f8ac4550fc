"""Find which values of more than 8 bits a set of images uses, so that all of it is scaled alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from divacli.files.containers import in_parquet, reading_order
from divacli.images.decode import deep_values
from divacli.images.header import Header, read_header, read_image
from divacli.images.scaling import Limits, PixelRange
from divacli.images.spread import evenly
from divacli.images.undecodable import UndecodableImage

N_HEADERS = 256
"""So many files are asked whether they have more than 8 bits."""

_PIXELS = 1 << 26  # decoded together, unless that makes it less than so many images:
_FEWEST = 8

_EIGHT_BIT = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".avif", ".pbm", ".ppm"),
    *(".heic", ".heif", ".hif"),
)

_TABLES = 4  # Parquet files that are looked into
_THREADS = 8  # that wait for a disk or a network side by side

_BITS = (8, 10, 12, 14, 16)
_OUTSIDE = 0.1  # percent of an image's pixels at either end: hot and dead ones
_LOOKED_AT = 1 << 17  # of an image's pixels, for these
_OVERSHOOT = 0.05  # so far beyond [0, 1] lie floats that were resampled
_DARK = 0.1  # of the largest value: below, the smallest one counts as 0


@dataclass(frozen=True)
class _Values:
    """The values of an image: whether integers, the least and the most, and those without outliers."""

    integers: bool
    least: float
    most: float
    low: float
    high: float
    whole: bool


def find_range(files: Sequence[str], n_samples: int = 64) -> PixelRange:
    """Look which values the images of more than 8 bits of a set use.

    Of a few hundred files, spread evenly over those whose suffix may hold such images, the headers are read,
    and some of those with more than 8 bits are decoded. Integers use 8, 10, 12, 14 or 16 bits: as few as hold
    all values. Where some are negative, or have more bits, black and white are the smallest and the largest
    value, rounded outwards. Floating point numbers lie within 0 and 1, within 0 and 255, or are taken as
    integers are. The order of the files does not matter.

    Args:
        files: Paths, which may lead into tar files, or URLs.
        n_samples: Images that are decoded at most.

    Returns:
        The range, with a sentence where it is not that of `scaling.AS_STORED`. Files that cannot be read are
        passed over.
    """
    asked = _asked({file for file in files if not file.lower().endswith(_EIGHT_BIT)})
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = list(pool.map(_header_of, asked)) if asked else []
    deep = [(file, header) for file, header in zip(asked, headers, strict=True) if header and header.deep]
    if not deep:
        return PixelRange()
    pixels = sum(header.width * header.height for _, header in deep) / len(deep)
    n = min(n_samples, max(_FEWEST, int(_PIXELS / pixels)))
    return _range_of([values for file, _ in evenly(deep, n) if (values := _values_of(file)) is not None])


def _asked(candidates: set[str]) -> list[str]:
    """The files whose headers are read, spread evenly over all but for rows of Parquet files.

    There a row costs as much as all rows before it, so these are the first rows of some files.
    """
    rows: dict[str, list[str]] = {}
    for file in candidates:
        if ".parquet/" in file.lower() and in_parquet(file):
            rows.setdefault(file.rpartition("/")[0], []).append(file)
    others = candidates.difference(*rows.values()) if rows else candidates
    asked = evenly(sorted(others), N_HEADERS)
    for table in evenly(sorted(rows), _TABLES):
        first = sorted(rows[table], key=lambda file: (len(file), file))[: N_HEADERS // _TABLES]
        asked += [first[position] for position in reading_order(first)]
    return asked


def _header_of(file: str) -> Header | None:
    try:
        return read_header(file)
    except UndecodableImage:
        return None


def _range_of(found: Sequence[_Values]) -> PixelRange:
    """The range of a set from the values of some of its images."""
    integers: list[_Values] = []
    floats: list[_Values] = []
    for values in found:
        (integers if values.integers else floats).append(values)
    of_integers, of_floats = _of_integers(integers), _of_floats(floats)
    sentences = []
    if of_integers is not None:
        sentences.append(_sentence("images of more than 8 bits", integers, of_integers))
    if of_floats is not None:
        sentences.append(_sentence("floating point images", floats, of_floats))
    said = "; ".join(sentences)
    said = f"{said} (--range LOW,HIGH sets them)" if said else ""
    return PixelRange(of_integers, of_floats, said, seen=True)


def _values_of(file: str) -> _Values | None:
    try:
        with deep_values(read_image(file)) as found:
            if found is None:
                return None
            values = found
    except UndecodableImage:
        return None
    few = values.ravel()[:: max(1, values.size // _LOOKED_AT)].astype(np.float64)
    integers = values.dtype.kind != "f"
    if not integers:
        values, few = values[np.isfinite(values)], few[np.isfinite(few)]
    if not few.size:
        return None
    low, high = np.percentile(few, [_OUTSIDE, 100 - _OUTSIDE]).tolist()
    whole = integers or bool((few == np.round(few)).all())
    return _Values(integers, float(values.min()), float(values.max()), low, high, whole)


def _of_integers(found: Sequence[_Values]) -> Limits | None:
    if not found:
        return None
    least, most = min(values.least for values in found), max(values.most for values in found)
    if least < 0 or most > 65_535:
        return _rounded(found)
    bits = next(bits for bits in _BITS if most < 1 << bits)
    # Nothing but black says nothing.
    return None if bits == 16 or most == 0 else (0, (1 << bits) - 1)


def _of_floats(found: Sequence[_Values]) -> Limits | None:
    if not found:
        return None
    least, most = min(values.least for values in found), max(values.most for values in found)
    unit = [values.least >= 0 and values.most <= 1 for values in found]
    if all(unit):
        return None  # each image for itself gives the same
    low, high = min(values.low for values in found), max(values.high for values in found)
    if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        return 0, 1
    if least >= 0 and most <= 255:
        return (0, 255) if any(unit) else None
    if least >= 0 and most <= 65_535 and all(values.whole for values in found):
        return 0, (1 << next(bits for bits in _BITS if most < 1 << bits)) - 1
    return _rounded(found)


def _rounded(found: Sequence[_Values]) -> Limits:
    """The smallest and the largest value but for outliers, rounded outwards to a number that can be said."""
    low, high = min(values.low for values in found), max(values.high for values in found)
    if 0 <= low < _DARK * high:
        low = 0
    if low == high:
        return low, low + 1
    power = math.floor(math.log10(high - low))
    step = 10.0**power / 20
    digits = max(0, 2 - power)
    return round(math.floor(low / step) * step, digits), round(math.ceil(high / step) * step, digits)


def _sentence(kind: str, found: Sequence[_Values], limits: Limits) -> str:
    least, most = min(values.least for values in found), max(values.most for values in found)
    bits = {float((1 << bits) - 1): f" ({bits} bits)" for bits in _BITS} if limits[0] == 0 else {}
    return (
        f"pixel values of {kind} go from {least:,.6g} to {most:,.6g}{bits.get(limits[1], '')}: "
        f"{limits[0]:,.6g} is black and {limits[1]:,.6g} white"
    )
