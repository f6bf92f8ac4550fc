"""What a stranger may leave beside DATA: nothing that is read is written, moved or removed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes | str]]:
    """Every name below a folder, with its inode, the time of its last change and its content."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for place in sorted(folder.rglob("*")):
        status = place.lstat()
        content: bytes | str = place.read_bytes() if place.is_file() else "no file"
        found[str(place.relative_to(folder))] = (status.st_ino, status.st_mtime_ns, content)
    return found


def plant(folder: Path, *waiting: str) -> None:
    """Leave what a killed command would, and a file of the user that it would remove."""
    (folder / "thesis.docx").write_text("precious")
    (folder / "notes.txt").write_text("precious")
    stage = folder / ".diva-staged"
    stage.mkdir()
    for name in ("notes.txt", *waiting):
        (stage / name).write_text("planted")
    note = {"command": "score", "names": ["notes.txt", *waiting], "stale": ["thesis.docx"]}
    (stage / "commit.json").write_text(json.dumps(note))


@pytest.fixture
def received(photos: Path, network: Path, embeddings: Callable, run: Callable) -> Path:
    """A stranger's folder: embeddings, results, a store and images, each with a planted note."""
    folder = photos.parent / "received"
    folder.mkdir()
    embeddings("received/tiny.npz")
    photos.rename(folder / "photos")
    model = ("--model", f"{network}:make")
    assert run("score", folder / "photos", *model, "--out", folder / "results").exit_code == 0
    assert run("embed", folder / "photos", *model, "--out", folder / "store").exit_code == 0
    return folder


COMMANDS = {
    "embeddings": (("score", "received/tiny.npz", "--out", "elsewhere"), 0),
    "confined": (("score", "received/tiny.npz", "--out", "elsewhere", "--confine"), 0),
    "images": (("apply", "received/photos", "--materialize", "copy", "--out", "elsewhere"), 1),
    "a table": (("prune", "received/results/scores.csv", "--keep", "0.9", "--out", "elsewhere"), 0),
    "results": (("report", "received/results", "--out", "page.html"), 1),
    "a store": (("score", "received/store", "--out", "elsewhere"), 1),
    "an export": (("export", "received/results/scores.csv", "--to", "cleanlab", "--out", "elsewhere"), 0),
    "a pool": (("extend", "received/tiny.npz", "--pool", "received/tiny.npz", "--out", "elsewhere"), 1),
    "into it": (("score", "received/tiny.npz", "--out", "received"), 1),
    "over it": (("prune", "received/tiny.npz", "--keep", "0.9", "--out", "received", "--overwrite"), 1),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_planted_note_changes_nothing(name: str, received: Path, run: Callable) -> None:
    for folder in (received, received / "photos", received / "photos/a"):
        plant(folder)
    for folder in (received / "results", received / "store"):
        plant(folder, "samples.parquet", "summary.json")
    before = snapshot(received)
    arguments, status = COMMANDS[name]
    result = run(*arguments)
    assert result.exit_code == status, result.stderr
    assert snapshot(received) == before
    if status and "--pool" not in arguments:
        assert "may hold files of two runs" in result.stderr


@pytest.mark.parametrize("command", ["score", "embed", "apply"])
def test_reading_needs_no_right_to_write(
    command: str, received: Path, network: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever would be opened for writing, made, moved or removed there is an error."""
    import builtins

    inside = str(received.resolve())

    def guarded(real: Callable, *, opens: bool) -> Callable:
        def call(path: object, *arguments: object, **options: object) -> object:
            given = os.fspath(path) if isinstance(path, str | os.PathLike) else ""  # else a descriptor
            writes = not opens or int(arguments[0]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and str(Path(str(given)).absolute()).startswith(inside):
                raise PermissionError(13, "it is written to", str(given))
            return real(path, *arguments, **options)

        return call

    for name in ("open", "mkdir", "unlink", "rename", "replace", "rmdir", "symlink", "link", "utime"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), opens=name == "open"))
    opened = builtins.open

    def reading(file: object, mode: str = "r", *arguments: object, **options: object) -> object:
        if set(mode) & set("wax+") and str(Path(str(file)).absolute()).startswith(inside):
            raise PermissionError(13, "it is written to", str(file))
        return opened(file, mode, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", reading)
    more = {"apply": ["--materialize", "copy"]}.get(command, ["--model", f"{network}:make"])
    result = run(command, "received/photos", *more, "--out", "elsewhere")
    assert result.exit_code == 0, result.stderr
