"""HEIC and HEIF, as phones write them: by pillow-heif, the extra `heif`."""

from __future__ import annotations

import io

from PIL import Image


def heif_image(data: bytes) -> Image.Image | None:
    """Look at the beginning of a HEIF file, its pixels not decoded yet.

    Its orientation is applied as it is decoded. Of more than 8 bits a value those that matter most are taken.

    Args:
        data: The content of the file.

    Returns:
        The image, of format HEIF; None where pillow-heif is not installed.

    Raises:
        Exception: Whatever pillow-heif raises of a damaged file.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    return HeifImageFile(io.BytesIO(data))
