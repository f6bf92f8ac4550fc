"""What an image file is: by its name, and by its first bytes."""

from __future__ import annotations

# What Pillow decodes in every build of the supported versions, and AVIF, which newer ones do.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
