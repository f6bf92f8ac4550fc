"""One range of pixel values for all sets of a command: what is black in one image is black in all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from divacli.features.feature_identity import pixels_of
from divacli.features.read import stored_sources
from divacli.features.samples import Samples
from divacli.images.scaling import AS_STORED, PixelRange
from divacli.manifest import Manifest
from divacli.parallel import world


def range_of(manifest: Manifest) -> PixelRange:
    """The range of a set of images: as given, or as found by a look at them.

    Args:
        manifest: The samples. Where they bring their features no image is looked at.
    """
    given = manifest.pixel_range
    if isinstance(given, PixelRange):
        return given
    if given is not None:
        return PixelRange.given(given)
    if manifest.embeddings is not None or stored_sources(manifest) is not None:
        return AS_STORED
    from divacli.images.pixel_range import find_range  # only here: it imports Pillow

    return world().once(lambda: find_range(manifest.files()))


def with_range(manifest: Manifest) -> Manifest:
    """The same samples, which know their range."""
    return replace(manifest, pixel_range=range_of(manifest))


class SharedRange:
    """The range of all sets of a command, which go through one network.

    It is that of the first set that says anything: features that are there were computed with some range,
    and images of more than 8 bits have one. Where none does, nothing needs a range.

    Args:
        tell: Told what was found, in a sentence.
        warn: Told of sets that would have another range by themselves.
    """

    def __init__(self, tell: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._tell, self._warn = tell, warn
        self._pixels: PixelRange | None = None

    def settle(self, *sets: Manifest | Samples | None) -> None:
        """Choose the range, unless that was done before.

        Args:
            sets: As read, the most important one first.
        """
        if self._pixels is not None:
            return
        chosen: tuple[str, PixelRange] | None = None
        for part in sets:
            if part is None:
                continue
            name, found, says = _said_of(part)
            if says and chosen is None:
                chosen = name, found
            elif says and chosen is not None and found.text != chosen[1].text:
                self._warn(
                    f"pixel values of more than 8 bits are scaled in {name} as in {chosen[0]}, although its "
                    f"own go another way{': ' if found.sentence else ''}{found.sentence}"
                )
        self._pixels = AS_STORED if chosen is None else chosen[1]
        if chosen is not None and chosen[1].sentence:
            self._tell(f"{chosen[0]}: {chosen[1].sentence}")

    def of(self, manifest: Manifest) -> Manifest:
        """The same samples, which know the range; their own where none was chosen before."""
        self.settle(manifest)
        return replace(manifest, pixel_range=self._pixels)


def _said_of(part: Manifest | Samples) -> tuple[str, PixelRange, bool]:
    """A set's name, its range, and whether it says anything."""
    if isinstance(part, Samples):
        return part.manifest.name, pixels_of(part.identity, part.manifest.name), bool(part.identity)
    found = range_of(part)
    return part.name, found, found.seen
