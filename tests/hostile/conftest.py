"""Real attacks: what would create a file if it ran, and data that a command is started on."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.doors.conftest import no_noise
from tests.made import FACTORY, in_turn, write_images

__all__ = ["no_noise"]

NETWORK = f"""
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
{FACTORY}"""


class Exploit:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


@pytest.fixture
def created(tmp_path: Path) -> Path:
    """What an exploit would create."""
    return tmp_path / "created-by-the-exploit"


@pytest.fixture
def exploit(created: Path) -> Exploit:
    return Exploit(created)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command line in this process, in a fresh folder."""
    from divacli.cli.app import app

    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object, stdin: bytes | None = None) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)

    return invoke


@pytest.fixture
def refused(run: Callable[..., Any]) -> Callable[..., str]:
    """Run a command that must end with one message, a status and nothing written; returns the message."""

    def invoke(*arguments: object, stdin: bytes | None = None, status: int = 1) -> str:
        result = run(*arguments, stdin=stdin)
        assert result.exit_code == status, f"{result.stderr}\n{result.exception!r}"
        assert "Traceback" not in result.stderr
        assert "may be a mistake in diva" not in result.stderr
        assert result.stderr.count("error:") == (1 if status == 1 else 0), result.stderr
        assert result.stdout == ""
        assert not Path("diva-out").exists() or not list(Path("diva-out").glob("[!.]*"))
        return str(result.stderr)

    return invoke


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images in the class folders a, b and c."""
    write_images(tmp_path / "photos", in_turn(12), seed=0, side=6)
    return tmp_path / "photos"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A factory file; that it ran can be seen beside it."""
    file = tmp_path / "net.py"
    file.write_text(NETWORK)
    return file


@pytest.fixture
def embeddings(tmp_path: Path) -> Callable[..., Path]:
    """Write 30 embeddings with labels, and arrays beside them or in their place."""

    def write(name: str = "x.npz", *, compressed: bool = False, **arrays: Any) -> Path:
        file = tmp_path / name
        usual = {
            "embedding": np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32),
            "label": np.arange(30) % 3,
        }
        (np.savez_compressed if compressed else np.savez)(file, **{**usual, **arrays})
        return file

    return write


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """An image as the bytes of a file."""

    def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
        stream = io.BytesIO()
        image.save(stream, format, **options)
        return stream.getvalue()

    return encode
