"""`run.json`: which commands wrote what into a folder, from which inputs, with which options and versions."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divacli.errors import OutputError
from divacli.files.path_or_url import RUN_FILE
from divacli.files.regular import DOCUMENT_BYTES, open_regular, read_regular
from divacli.files.urls import without_secrets
from divacli.machine.versions import versions
from divacli.manifest import Manifest
from divacli.run_record import Input, Run

FORMAT = 1


@dataclass(frozen=True)
class RunFile:
    """The runs that a folder holds files of.

    Attributes:
        runs: One object each, in the order in which they were made: command, options, inputs, samples,
            outputs and versions; see docs/formats.md.
    """

    runs: tuple[dict[str, Any], ...] = ()

    @classmethod
    def read(cls, folder: Path) -> RunFile:
        """The record of a folder; empty where there is none.

        Raises:
            OutputError: It is damaged, or of a later version.
        """
        file = folder / RUN_FILE
        try:
            content = json.loads(read_regular(file, DOCUMENT_BYTES))
            known = content["format"]
            runs = tuple(content["runs"])
            if not all(isinstance(run["outputs"], dict) and isinstance(run["command"], str) for run in runs):
                raise ValueError("no runs")
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputError(
                f"{file} is not what diva writes",
                expected="a record of the runs that wrote into this folder",
                hint="move it away, or choose another folder with --out",
            ) from error
        if known != FORMAT:
            raise OutputError(
                f"{file} is of format {known!r}",
                expected=f"format {FORMAT}",
                hint="use the version of diva that wrote it, or choose another folder with --out",
            )
        return cls(runs)

    def makers_of(self, name: str) -> list[str]:
        """The commands that wrote a file; none where that is not known."""
        return [run["command"] for run in self.runs if name in run["outputs"]]

    def made_here(self) -> list[str]:
        """Files whose makers read what lies in the folder itself, such as `scores.csv`."""
        return [
            name
            for run in self.runs
            if any(isinstance(one, dict) and one.get("folder") == "." for one in run.get("inputs", ()))
            for name in run["outputs"]
        ]

    def with_run(
        self, run: dict[str, Any], *, unchanged: Collection[str], whole: bool
    ) -> tuple[RunFile, dict[str, dict[str, Any]]]:
        """The record with one run more, whose files replace those of the same names.

        Args:
            run: What is added.
            unchanged: Those of its files that were there already with the same content: they are still those
                of another command that made them, too.
            whole: Whether an earlier run of the same command that loses a file loses all of them: its tables
                would stand beside those of another run otherwise.

        Returns:
            The record, and by name what it says of the files that are to be removed.
        """
        names = set(run["outputs"])
        kept: list[dict[str, Any]] = []
        stale: dict[str, dict[str, Any]] = {}
        for earlier in self.runs:
            outputs = earlier["outputs"]
            same = earlier["command"] == run["command"]
            new = names if same else names - set(unchanged)
            left = {name: about for name, about in outputs.items() if name not in new}
            if whole and same and len(left) < len(outputs):
                stale |= left
            elif left:
                kept.append({**earlier, "outputs": left})
        owned = {name for one in (*kept, run) for name in one["outputs"]}
        return RunFile((*kept, run)), {name: made for name, made in stale.items() if name not in owned}

    def encoded(self) -> bytes:
        """The content of the file."""
        return (json.dumps({"format": FORMAT, "runs": self.runs}, indent=2) + "\n").encode()


def described(
    run: Run, command: str, samples: dict[str, int], outputs: Sequence[Path], folder: Path
) -> dict[str, Any]:
    """A run as `run.json` holds it.

    Args:
        run: The command.
        command: How it is called.
        samples: How many samples were read, and are in each table.
        outputs: The files and folders that it made.
        folder: Where they will lie, which places of inputs are told from.
    """
    return {
        "command": command,
        "options": {name: _plain(value) for name, value in run.options.items()},
        "inputs": [_input(one, folder) for one in run.inputs],
        "samples": samples,
        "outputs": {file.name: recorded_output(file) for file in outputs},
        "versions": {name: found for name, found in versions() if found is not None and name != "system"},
    }


def _plain(value: Any) -> Any:
    """An option as JSON has it, without what is secret in URLs."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float) or value is None else without_secrets(str(value))


def _input(read: Input, folder: Path) -> dict[str, Any]:
    manifest = read.manifest
    return {
        "given": without_secrets(read.given),
        "kind": manifest.kind,
        "folder": os.path.relpath(manifest.folder, folder.resolve()),
        "samples": len(manifest.table),
        "classes": len(manifest.classes),
        "fingerprint": _fingerprint(manifest),
        "features": read.features or None,
    }


def _fingerprint(manifest: Manifest) -> str:
    """SHA-256 of the rows: every cell of every column, in order."""
    digest = hashlib.sha256()
    for name, column in manifest.table.items():
        digest.update(f"{name}\0{len(column)}\0".encode(errors="surrogatepass"))
        digest.update("\0".join(map(str, column.tolist())).encode(errors="surrogatepass"))
    return digest.hexdigest()


def recorded_output(file: Path) -> dict[str, Any]:
    """Describe a file or folder as the record does: by length and digest, or by the number of files.

    Raises:
        OSError: It cannot be read.
    """
    if file.is_dir():
        return {"files": sum(len(names) for _, _, names in os.walk(file))}
    with open_regular(file) as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
