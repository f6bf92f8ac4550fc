"""Image files of kinds that Pillow does not write."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def grey(values: np.ndarray, format: str = "PNG") -> bytes:
    """Of uint16, int32 or float32 values (h, w)."""
    return encoded(Image.fromarray(values), format)


def dicom(values: np.ndarray, *, rle: bool = False, **fields: Any) -> bytes:
    """Of values (h, w), (h, w, 3) or (frames, h, w), of 8 or 16 bits; `fields` stand in it as they are."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("made", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    colour = values.shape[-1] == 3 and values.ndim == 3
    made.Rows, made.Columns = values.shape[:2] if colour or values.ndim == 2 else values.shape[1:3]
    if values.ndim == 3 and not colour:
        made.NumberOfFrames = len(values)
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    bits = 8 * values.dtype.itemsize
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    made.PixelData = values.tobytes()
    made["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in fields.items():
        setattr(made, name, value)
    if rle:
        made.compress(RLELossless)
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def heic(image: Image.Image) -> bytes:
    import pillow_heif

    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=95)
    return stream.getvalue()
