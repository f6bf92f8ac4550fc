"""Open weights as people have them: compressed by gzip, or unpacked into a folder by their system."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import IO

from divacli.errors import ModelError
from divacli.files.regular import read_regular

GZIP = b"\x1f\x8b"
"""How a file that gzip compressed begins."""

_PART = 1 << 20  # bytes
_WEIGHTS = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")
"""How files of weights are mostly called."""

_PICKLE = "data.pkl"
_MOST_FILES = 100_000


def unzipped(stream: IO[bytes], path: Path, most: int) -> io.BytesIO:
    """Decompress a file that gzip compressed.

    Args:
        stream: The file, at its beginning.
        path: What messages call it.
        most: The bytes that may come out of it.

    Raises:
        ModelError: It is damaged, or more comes out.
    """
    made = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=stream) as unpacked:
            while part := unpacked.read(_PART):
                made.write(part)
                if made.tell() > most:
                    raise ModelError(
                        f"{path} unpacks to more than {most:,} bytes: refused",
                        expected="weights compressed by gzip, which makes them little smaller",
                        hint="where the file is trusted, unpack it with gunzip",
                    )
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(
            f"{path} is damaged: {error}", expected="a file compressed by gzip", hint="fetch it again"
        ) from error
    made.seek(0)
    return made


def packed_again(folder: Path, most: int) -> io.BytesIO:
    """Put the files of an unpacked checkpoint into the archive that `torch.save` wrote.

    Args:
        folder: It holds data.pkl, or one folder that does.
        most: The bytes that its files may have together.

    Raises:
        ModelError: It is no unpacked checkpoint, a file cannot be read, or they are too large.
    """
    inner = sorted(file.parent for file in folder.glob(f"*/{_PICKLE}"))
    root = folder if (folder / _PICKLE).exists() else inner[0] if len(inner) == 1 else None
    if root is None:
        raise ModelError(
            f"{folder} is a folder, and no checkpoint that was unpacked",
            expected="a file of weights, or the folder of a Hugging Face model with its config.json",
            hint=_what_to_give(folder),
        )
    made = io.BytesIO()
    left = most
    try:
        with zipfile.ZipFile(made, "w") as archive:
            for number, file in enumerate(sorted(root.rglob("*"))):
                if number == _MOST_FILES:
                    raise OSError("too many files")
                if file.is_dir():
                    continue
                content = read_regular(file, left)
                left -= len(content)
                archive.writestr(f"archive/{file.relative_to(root).as_posix()}", content)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} cannot be read: {error}", expected="the files of an unpacked checkpoint"
        ) from error
    made.seek(0)
    return made


def _what_to_give(folder: Path) -> str:
    """What to give in place of a folder that is no checkpoint, by what lies in it."""
    if (folder / "saved_model.pb").exists():
        return "it is a network of TensorFlow: export it to ONNX, and give --checkpoint model.onnx"
    if (folder / "adapter_config.json").exists():
        return "it holds an adapter of peft alone: merge_and_unload() adds it to its network; save that"
    within = [one.parent for one in folder.glob("*/config.json")]
    files = [one for kind in _WEIGHTS for one in sorted(folder.glob(f"*{kind}"))]
    newest = max(within, key=lambda one: one.stat().st_mtime, default=files[0] if files else None)
    return f"give what is in it: --checkpoint {newest or 'FOLDER/FILE'}"
