"""DICOM, as scanners of hospitals write it: by pydicom, the extra `dicom`."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFile

from divacli.images.undecodable import UndecodableImage

if TYPE_CHECKING:
    from pydicom import Dataset

INVERTED = "inverted"
"""Entry of `info` of an image whose largest value is black (MONOCHROME1)."""

_LONGEST = 200  # characters of what pydicom says

_ALL_FAILED = "Unable to decode as exceptions were raised by all available plugins:"
_LARGEST = 1e30  # number that values are rescaled by

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_GREY = ("MONOCHROME1", "MONOCHROME2")

warnings.filterwarnings("ignore", module=r"pydicom\.")


def dicom_image(data: bytes) -> Image.Image | None:
    """Look at the header of a DICOM file, its pixels not decoded yet.

    Args:
        data: The content of the file.

    Returns:
        The image, of format DICOM; None where pydicom is not installed. Its mode is L or RGB, or I or F where
        it has grey values of more than 8 bits. To those the file's own rescaling is applied (which gives
        Hounsfield units of a CT), and its windows are not: they differ from image to image.

    Raises:
        UndecodableImage: It is damaged, or holds no pixels.
    """
    try:
        import pydicom  # noqa: F401  # whether it is there
    except ImportError:
        return None
    return DicomImage(io.BytesIO(data))


class DicomImage(ImageFile.ImageFile):
    """The first frame of a DICOM file as an image of Pillow.

    Args:
        fp: The file.

    Raises:
        UndecodableImage: It is damaged, or holds no pixels.
    """

    format = "DICOM"
    format_description = "DICOM"
    _decoded = False

    def _open(self) -> None:
        assert isinstance(self.fp, io.BytesIO)
        self._data = self.fp.getvalue()
        header = _header(self._data)
        try:
            self._header = header
            self._size = int(header.Columns), int(header.Rows)
            self._grey = str(header.PhotometricInterpretation) in _GREY
            self._mode = _mode(header, self._grey)
        except AttributeError:
            raise UndecodableImage("a DICOM file without pixels") from None
        except Exception as error:  # a value may be of any kind
            raise _damaged(error) from error
        if min(self._size) < 1:
            raise UndecodableImage("a DICOM file without pixels")
        if header.PhotometricInterpretation == "MONOCHROME1":
            self.info[INVERTED] = True

    def load(self) -> Any:
        """Decode the pixels.

        Raises:
            UndecodableImage: They are damaged, or packed in a way that pydicom does not read here.
        """
        if not self._decoded:
            made = Image.fromarray(self._pixels())
            self.im, self._mode, self._size = made.im, made.mode, made.size
            self._decoded, self._data = True, b""
        return Image.Image.load(self)

    def _pixels(self) -> np.ndarray:
        """The values (h, w) or (h, w, 3) as `Image.fromarray` takes them."""
        from pydicom.pixels import pixel_array

        try:
            values = pixel_array(io.BytesIO(self._data), index=0)
            if values.shape[:2] != self._size[::-1]:
                raise ValueError(f"pixels {values.shape[:2]} in place of {self._size[::-1]}")
            if not self._grey:
                return _colours(values, self._header)
            if self._mode == "L":
                return (values * 255 if self._header.BitsAllocated == 1 else values).astype(np.uint8)
            return _rescaled(values, self._header)
        except MemoryError:
            raise
        except RuntimeError as error:
            if "missing dependencies" not in str(error):
                raise _damaged(error) from error
            packed = self._header.file_meta.TransferSyntaxUID.name
            raise UndecodableImage(
                f"a DICOM image packed as {packed}: pip install pylibjpeg pylibjpeg-libjpeg"
            ) from error
        except Exception as error:  # of damaged files pydicom raises anything
            raise _damaged(error) from error


def _header(data: bytes) -> Dataset:
    """All that stands before the pixels."""
    from pydicom import dcmread

    # pydicom would unpack such a file as a whole, however large that makes it.
    if _DEFLATED in data[: 1 << 20]:
        raise UndecodableImage("a deflated DICOM file, which diva does not read: convert it to PNG")
    try:
        return dcmread(io.BytesIO(data), stop_before_pixels=True)
    except Exception as error:  # of damaged files pydicom raises anything
        raise _damaged(error) from error


def _mode(header: Dataset, grey: bool) -> str:
    if not grey:
        return "RGB"
    if int(header.get("BitsStored", 64)) <= 8 and not int(header.get("PixelRepresentation", 0)):
        return "L"
    slope, intercept = _rescaling(header)
    whole = slope == int(slope) and intercept == int(intercept)
    return "I" if "BitsStored" in header and int(header.BitsStored) <= 16 and whole else "F"


def _rescaling(header: Dataset) -> tuple[float, float]:
    slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    if not max(abs(slope), abs(intercept)) < _LARGEST:
        raise ValueError(f"rescaled by {slope} and {intercept}")
    return slope, intercept


def _rescaled(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Grey values in the unit that the file gives them, int32 where they are whole numbers, else float32."""
    from pydicom.pixels import apply_modality_lut

    if "ModalityLUTSequence" in header:
        values = np.asarray(apply_modality_lut(values, header))
        return values.astype(np.int32 if values.dtype.kind in "iu" else np.float32)
    slope, intercept = _rescaling(header)
    if _mode(header, grey=True) == "I" and max(abs(slope), abs(intercept)) < 1 << 14:
        return values.astype(np.int32) * np.int32(slope) + np.int32(intercept)
    return (values.astype(np.float32) * np.float32(slope) + np.float32(intercept)).astype(np.float32)


def _colours(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Colours (h, w, 3) uint8."""
    from pydicom.pixels import apply_color_lut

    bits = int(header.BitsStored)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, header)
        bits = 8 * values.dtype.itemsize
    if values.ndim != 3 or values.shape[2] not in (3, 4):
        raise ValueError(f"colours of shape {values.shape}")
    return np.ascontiguousarray(values[..., :3] >> max(bits - 8, 0)).astype(np.uint8)


def _damaged(error: Exception) -> UndecodableImage:
    text = " ".join(str(error).removeprefix(_ALL_FAILED).split())[:_LONGEST]
    return UndecodableImage(f"damaged DICOM image: {text or type(error).__name__}")
