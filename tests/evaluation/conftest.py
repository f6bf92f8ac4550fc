"""Samples made on the spot."""

from tests.samples import gaussian, load, net, photos, write_images

__all__ = ["gaussian", "load", "net", "photos", "write_images"]
