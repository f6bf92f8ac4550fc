"""Samples made on the spot."""

from tests.samples import gaussian, load

__all__ = ["gaussian", "load"]
