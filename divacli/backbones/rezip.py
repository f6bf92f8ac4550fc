"""Copy a zip archive into memory, so that torch is given the very bytes that were looked at.

torch has a zip reader of its own. In one file it may see other members than Python does: by a second
directory, by names that differ by case, by sizes in fields that Python does not read. So Python reads the
file once, and torch gets an archive that was written from what Python read.
"""

from __future__ import annotations

import io
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from divacli.backbones.packed import GZIP, packed_again, unzipped
from divacli.errors import ModelError, listed
from divacli.files.regular import open_regular, reason

CHECKPOINT_BYTES = 64 << 30
"""The most that a file of weights may have."""

_GROWTH = 20
"""How many times larger than gzip's file its content may be; weights hardly shrink."""

SMALL = 1 << 28
"""Bytes that may come out of a file, or of a tensor in it, beyond what the file holds."""

UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What Python raises for a zip archive that is damaged."""


def open_checkpoint(path: Path) -> BinaryIO:
    """Open a file of weights or a whole network; of gzip its content, of an unpacked one all of its files.

    Raises:
        ModelError: There is no such file, it is no regular file, or it is too large.
    """
    if path.is_dir():
        return packed_again(path, CHECKPOINT_BYTES)
    try:
        stream = open_regular(path, CHECKPOINT_BYTES)
    except FileNotFoundError as error:
        raise ModelError(
            f"no file {path}", expected="a checkpoint file", hint="check the path after --checkpoint"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {reason(error)}",
            expected="a checkpoint file",
            hint="check the path after --checkpoint",
        ) from error
    start = stream.read(len(GZIP))
    held = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if start != GZIP:
        return stream
    with stream:
        return unzipped(stream, path, min(CHECKPOINT_BYTES, SMALL + _GROWTH * held))


def member_names(stream: BinaryIO, path: Path) -> list[str]:
    """List the members of a zip archive; nothing of any other file.

    Args:
        stream: The file; it is left anywhere.
        path: What messages call it.

    Raises:
        ModelError: The archive is damaged, or unpacks to far more than it holds.
    """
    try:
        if not zipfile.is_zipfile(stream):
            return []
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
    except UNREADABLE as error:
        raise damaged(path, error) from error
    names = [entry.filename for entry in entries]
    stated, held = sum(entry.file_size for entry in entries), stream.seek(0, io.SEEK_END)
    # Tensors are not compressed, the code of TorchScript is.
    if stated > 2 * held + SMALL and any(name.lower().endswith((".pkl", ".json")) for name in names):
        raise ModelError(
            f"{path} unpacks to {stated:,} bytes, and has {held:,}: refused",
            expected="tensors as torch.save writes them, not compressed",
            hint="where the file is trusted, load it with torch and save it again",
        )
    return names


def copied(stream: BinaryIO, path: Path) -> io.BytesIO:
    """Write the members of a zip archive into a new one.

    Args:
        stream: The archive, of which `member_names` were looked at.
        path: What messages call it.

    Returns:
        The new archive, uncompressed, at its beginning.

    Raises:
        ModelError: The archive is damaged, or has two members that torch may take for one.
    """
    made = io.BytesIO()
    try:
        with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(made, "w") as copy:
            for name, entry in members(archive, path).items():
                with archive.open(entry) as source, copy.open(name, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    made.seek(0)
    return made


def members(archive: zipfile.ZipFile, path: Path, folder: str | None = None) -> dict[str, zipfile.ZipInfo]:
    """List the members of an archive by name, ready to be read.

    Args:
        archive: The archive. Checksums that nobody wrote are removed, so that they are not compared.
        path: What messages call it.
        folder: The only folder whose members are wanted; None for all.

    Raises:
        ModelError: Two members have one name, or torch may take them for one.
    """
    entries = archive.infolist()
    found: dict[str, zipfile.ZipInfo] = {}
    taken: set[str] = set()
    without_checksums = not any(entry.CRC for entry in entries)
    for entry in entries:
        name = entry.filename
        if without_checksums:  # as torch writes them if asked to: the reader then compares nothing
            del entry.CRC
        if name.endswith("/") or (folder is not None and not name.startswith(f"{folder}/")):
            continue
        # torch does not tell cases apart where it looks for a member.
        if name.lower() in taken or not re.fullmatch(r"[^\x00-\x1f\\]+", name):
            raise ModelError(
                f"{path} has a member {name!r} a second time, or with an odd name: refused",
                expected="an archive as torch writes it",
                hint="export or save it again yourself",
            )
        taken.add(name.lower())
        found[name] = entry
    return found


def state_dict_folder(names: list[str], path: Path) -> str | None:
    """Return the folder in an archive that `torch.save` wrote its content into; None where there is none.

    Raises:
        ModelError: There are several.
    """
    found = [name.removesuffix("/data.pkl") for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(found) > 1:
        raise ModelError(
            f"{path} holds several checkpoints: {listed(found)}",
            expected="one",
            hint="save the one that is meant again: torch.save(model.state_dict(), 'weights.pt')",
        )
    return found[0] if found else None


def damaged(path: Path, error: Exception) -> ModelError:
    """Say that a zip archive is damaged, and how."""
    return ModelError(
        f"{path} is a damaged zip archive: {' '.join(str(error).split()) or type(error).__name__}",
        expected="a file written by torch.save",
        hint="fetch or save the file again",
    )
