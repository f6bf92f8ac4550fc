"""JPEG files decoded and cropped as tensors, on the device where the network runs."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Sequence

import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from divacli.backbones.transform import Preset
from divacli.features.feature_rows import batched
from divacli.images.decode import UndecodableImage, decode_image, open_image

_END = b"\xff\xd9"

_TOGETHER = 64
"""Files decoded at once: all their pixels are in memory."""

Decode = Callable[[list[Tensor]], list[Tensor]]
"""From files, each (m,) uint8 on the CPU, to images (3, H, W) uint8; raises RuntimeError where one fails."""


def is_plain_jpeg(data: bytes) -> bool:
    """Tell whether any decoder makes the same upright RGB image of a file: a whole baseline JPEG in colour.

    Others (CMYK, grey, progressive, turned by EXIF, cut off) are left to `decode_image`, which knows them.

    Args:
        data: The content of the file.
    """
    if not data.startswith(b"\xff\xd8") or not data.endswith(_END):
        return False
    try:
        with open_image(data) as image:
            return (
                image.format == "JPEG"
                and image.mode == "RGB"
                and "progressive" not in image.info
                and image.info.get("adobe_transform", 1) == 1
                and image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            )
    except Exception:  # noqa: BLE001  # whatever it is, `decode_image` says it in one line
        return False


class TensorCrops:
    """Crops of JPEG files, decoded and resized on a device, with Pillow for those that cannot be.

    Against `decode_image` of all pixels and the preset on it, nine in ten values of a crop differ by at most
    one of 255, on the CPU; decoders of other makers differ somewhat more where colours change.

    Args:
        preset: How to crop.
        device: Where.
        decode: Decoder of several files; None: torchvision's.
    """

    def __init__(self, preset: Preset, device: torch.device, decode: Decode | None = None) -> None:
        self._preset = preset
        self._device = device
        self._decode = decode or functools.partial(decode_jpeg, mode=ImageReadMode.RGB, device=device)

    def __call__(self, files: Sequence[Tensor]) -> list[Tensor | str]:
        """Return the crop (3, h, w) uint8 of each file, or the reason why there is none.

        Args:
            files: Their bytes (m,) uint8, on the CPU.
        """
        parts = (files[part] for part in batched(len(files), _TOGETHER))
        return [crop for part in parts for crop in self._crops(part)]

    def _crops(self, files: Sequence[Tensor]) -> list[Tensor | str]:
        with contextlib.suppress(RuntimeError):  # one cannot be decoded, or all do not fit in memory
            return [self._preset.crop(image) for image in self._decode(list(files))]
        if len(files) > 1:
            middle = len(files) // 2
            return [*self._crops(files[:middle]), *self._crops(files[middle:])]
        try:
            image = decode_image(files[0].numpy().tobytes(), self._preset.least_side)
        except UndecodableImage as error:
            return [str(error)]
        return [self._preset.crop(image).to(self._device)]


@functools.cache
def decodes_on(device: torch.device) -> bool:
    """Whether torchvision decodes JPEG files on a CUDA device, tried on a small one."""
    if device.type != "cuda":
        return False
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "JPEG")
    data = torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)
    try:
        return decode_jpeg([data], mode=ImageReadMode.RGB, device=device)[0].shape == (3, 16, 16)
    except RuntimeError:
        return False
