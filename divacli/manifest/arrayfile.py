"""An array that stays on disk and is read a block of rows at a time."""

from __future__ import annotations

import itertools
import math
import os
import struct
import tokenize
import zipfile
from dataclasses import dataclass
from typing import IO

import numpy as np

from divacli.errors import DataError
from divacli.files.path_or_url import Place, opened
from divacli.files.regular import open_regular
from divacli.files.remote import RemoteFile
from divacli.manifest.bounded import most_unpacked, too_dense

_LOCAL_HEADER = struct.Struct(
    "<26xHH"
)  # a zip member's own header ends with the lengths of name and extra field

_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
)

# Of a file at a URL, rows no further apart are read in one range: less than what a request costs.
_GAP_BYTES = 1 << 16


@dataclass(frozen=True)
class ArrayFile:
    """A C-ordered array of numbers inside a file, of which only the rows asked for are ever read.

    Rows are read with `pread` and not mapped: mapped pages count as resident memory and a truncated file
    would kill the process. Every access opens the file anew, so one object serves many threads and pickles.
    Of a file at a URL ranges are asked for; rows that lie near one another come in one of them.

    Attributes:
        path: The file.
        offset: Where the first element lies, in bytes.
        shape: Shape of the whole array, at least one axis.
        dtype: Type of the elements, in this machine's byte order.
    """

    path: Place
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def from_npz(cls, path: Place, member: str, *, whole: bool = False) -> ArrayFile | np.ndarray:
        """Open one array of an `.npz` file.

        Args:
            path: The file.
            member: Name of the array.
            whole: Load it in any case, and compare it with its checksum.

        Returns:
            An `ArrayFile` where the array is stored as it is (`np.savez`); otherwise (`np.savez_compressed`,
            Fortran order, foreign byte order) the array itself, loaded into memory.

        Raises:
            KeyError: The file has no such array.
            ValueError: An array of Python objects, or a header that is malformed or states another size.
            OSError: The file cannot be read.
            zipfile.BadZipFile: Not a zip file, or a damaged one.
            zlib.error: Damaged compressed data.
            DataError: A URL that cannot be read, or an array that is large and packed too densely.
        """
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            info = archive.getinfo(f"{member}.npy")
            with archive.open(info) as stream:
                shape, readable_in_place, dtype = read_npy_header(stream)
                npy_header = stream.tell()
            held, stated = info.file_size - npy_header, math.prod(shape) * dtype.itemsize
            if held != stated and not dtype.hasobject:
                raise ValueError(f"it holds {held:,} bytes where its header states {stated:,}")
            length = file.seek(0, os.SEEK_END)
            if info.compress_size > length:
                raise ValueError(f"it is to take {info.compress_size:,} bytes of a file of {length:,}")
            if info.file_size > most_unpacked(info.compress_size):
                hint = "save it with numpy.savez instead of numpy.savez_compressed"
                raise too_dense(f"{path}: array {member}", info.file_size, info.compress_size, hint)
            if readable_in_place and info.compress_type == zipfile.ZIP_STORED and not whole:
                if info.compress_size != info.file_size:
                    raise ValueError(
                        f"it takes {info.compress_size:,} bytes where {info.file_size:,} are stated"
                    )
                file.seek(info.header_offset)
                lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))  # whole: `open` has read it
                data = info.header_offset + _LOCAL_HEADER.size + sum(lengths)
                return cls(path, data + npy_header, shape, dtype)
            with archive.open(info) as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
                stream.read()  # the end of the member is where its checksum is compared
                return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Read some rows into a fresh array; rows that follow one another are read in one call.

        Args:
            rows: A slice, or an integer array (m,) of row numbers from 0 to `len(self) - 1` in any order.

        Returns:
            Array (m, *shape[1:]) of `dtype`.

        Raises:
            IndexError: A row outside the array, or `rows` is not a vector of integers.
            DataError: The file is gone, or shorter than it was when opened.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise IndexError(f"rows must be a vector of integers, got {rows.dtype} of shape {rows.shape}")
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} asked of an array of {len(self)} rows")
        block = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not block.size:
            return block
        row_bytes = block.nbytes // len(rows)
        if isinstance(self.path, RemoteFile):
            self._fetch(self.path, rows.astype(np.int64), block, row_bytes)
            return block
        buffer = block.reshape(-1).view(np.uint8).data
        # Signed before the difference: unsigned row numbers would wrap around.
        breaks = np.flatnonzero(np.diff(rows.astype(np.int64)) != 1) + 1
        bounds = [0, *breaks.tolist(), len(rows)]
        try:
            with open_regular(self.path) as file:
                for start, stop in itertools.pairwise(bounds):
                    position = self.offset + int(rows[start]) * row_bytes
                    self._fill(file.fileno(), buffer[start * row_bytes : stop * row_bytes], position)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from error
        return block

    def _fill(self, descriptor: int, buffer: memoryview, position: int) -> None:
        """Read until `buffer` is full: one call may return less than it was asked for."""
        while len(buffer):
            count = os.preadv(descriptor, [buffer], position)
            if not count:
                raise self._truncated(position, len(buffer))
            buffer, position = buffer[count:], position + count

    def _fetch(self, file: RemoteFile, rows: np.ndarray, block: np.ndarray, row_bytes: int) -> None:
        """Fill `block` with `rows`, (m,) int64, of a file at a URL."""
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        breaks = np.flatnonzero(np.diff(rows) > 1 + _GAP_BYTES // row_bytes) + 1
        spans = list(itertools.pairwise([0, *breaks.tolist(), len(rows)]))
        ranges = [
            (self.offset + int(rows[start]) * row_bytes, self.offset + (int(rows[stop - 1]) + 1) * row_bytes)
            for start, stop in spans
        ]
        for (start, stop), (first, last), content in zip(
            spans, ranges, file.read_ranges(ranges), strict=True
        ):
            if len(content) < last - first:
                raise self._truncated(first + len(content), last - first - len(content))
            found = np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])
            block[order[start:stop]] = found[rows[start:stop] - rows[start]]

    def _truncated(self, end: int, missing: int) -> DataError:
        return DataError(
            f"{self.path} changed or was truncated while reading: it ends at byte {end:,}",
            expected=f"{missing:,} bytes more",
            hint="write the file again, and let nothing else write to it meanwhile",
        )


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether rows can be read straight from the file, and dtype; leaves `stream` at the data.

    Raises:
        ValueError: The header is malformed, or states what no array can be.
        OSError: The file cannot be read.
    """
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read(stream)
    except _MALFORMED as error:
        # Of a header that is no Python literal, numpy lets through whatever its parser raises.
        raise ValueError(f"its header is malformed: {' '.join(str(error).split())[:200]}") from error
    # An array of nothing may state any number of rows.
    if any(isinstance(size, bool) or size < 0 for size in shape) or (not dtype.itemsize and any(shape)):
        raise ValueError(f"its header states an array of {dtype} of shape {shape}")
    return shape, not (fortran_order or dtype.hasobject) and dtype.isnative and len(shape) > 0, dtype
