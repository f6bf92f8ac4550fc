"""Write a file whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from divacli.errors import OutputError


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8, replacing it whole where it exists.

    Raises:
        OutputError: It cannot be written there.
    """
    write_bytes(target, text.encode())


def write_bytes(target: Path, content: bytes, temporary: Path | None = None) -> None:
    """Write a file, replacing it whole where it exists; its folder is made.

    Args:
        target: The file.
        content: All of it.
        temporary: The file in the same folder that it is written to first. One that a kill has left there is
            replaced. By default it has a name of its own each time, for others may write the same file.

    Raises:
        OutputError: It cannot be written there.
    """
    # Beside the target, for a rename is atomic only within one file system. Opened by mode "x" rather than by
    # the tempfile module, which would hide the result from everyone but its owner.
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if temporary is None:
            temporary = target.parent / f".diva-{secrets.token_hex(8)}.tmp"
        else:
            temporary.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise output_error(str(target), error) from error


def output_error(where: str, error: OSError) -> OutputError:
    """What to tell the user of a place that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return OutputError(
        f"{where} cannot be written: {error.strerror}",
        expected="room for the result" if full else "a folder that can be written to",
        hint="free some space, or choose another place with --out or --cache-dir"
        if full
        else "choose another one with --out or --cache-dir",
    )
