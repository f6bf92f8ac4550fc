"""Transforms of images that take more than one number, for `FILE.py:NAME`."""

from __future__ import annotations

from torchvision.transforms import v2

shift = v2.RandomAffine(degrees=0, translate=(0.1, 0.1))
