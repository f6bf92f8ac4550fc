"""Samples made on the spot."""

from tests.samples import net, photos, write_images

__all__ = ["net", "photos", "write_images"]
