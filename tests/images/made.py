"""Image files of kinds that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib
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


def colour_png(values: np.ndarray) -> bytes:
    """Of colours (h, w, 3) or (h, w, 4) uint16."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), 16, {3: 2, 4: 6}[values.shape[2]], 0, 0, 0)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def colour_tiff(values: np.ndarray, order: str = "<", *, packed: bool = False) -> bytes:
    """Of colours (h, w, 3) uint16, in an order of bytes."""
    rows = values.astype(f"{order}u2").tobytes()
    rows = zlib.compress(rows) if packed else rows
    height, width, channels = values.shape
    entries = {256: width, 257: height, 258: 0, 259: 8 if packed else 1, 262: 2, 273: 0, 277: channels}
    entries |= {278: height, 279: len(rows)}
    end = 8 + 2 + 12 * len(entries) + 4
    made = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    for tag, value in entries.items():
        if tag in (273, 279):
            made += struct.pack(f"{order}HHII", tag, 4, 1, end + 6 if tag == 273 else value)
        elif tag == 258:
            made += struct.pack(f"{order}HHII", tag, 3, 3, end)
        else:
            made += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    return made + struct.pack(f"{order}IHHH", 0, 16, 16, 16) + rows
