"""Real `diva` processes on small real data, started quickly and killed at chosen moments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from tests.made import FACTORY, in_turn, write_images

N_IMAGES = 60

OPTIONS = ("../photos", "--model", "../net.py:make", "--workers", "0", "--cache-dir", "cache", "--out")
"""What is given to all commands that embed."""

SMALL = """
from divacli.features import extract, write_store
extract.BLOCK_PIXELS, extract.SHARD_ROWS, write_store._SHARD_ROWS = 8 * 4 * 4, 8, 16
"""
"""What a process does first: passes of 8 images and as many rows a shard, so that there are many of both."""


@dataclass(frozen=True)
class Job:
    """A command, and what happens to it.

    Attributes:
        arguments: Of the command line.
        folder: Where it runs; its messages go to the file `messages` there.
        out: The folder for its results, relative to the former.
        before: Code that the process runs first.
        seconds: When it is killed, in seconds that it has computed; None: not so.
        change: At which change on disk (a file opened for writing, a rename, a sync, ...) it is killed.
        signal: By what it is killed.
        largest_file: Bytes that a file may have.
        stdout: Where standard output goes.
        environment: More variables.
        modules: Whether the server then imports what the command has imported.
    """

    arguments: tuple[str, ...]
    folder: str
    out: str = "out"
    before: str = SMALL
    seconds: float | None = None
    change: int | None = None
    signal: int = SIGKILL
    largest_file: int | None = None
    stdout: str = os.devnull
    environment: dict[str, str] = field(default_factory=dict)
    modules: bool = False


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        status: Its exit status; the negative number of the signal that ended it.
        seconds: That it has computed, without its worker processes.
        phase: start, embed, solve or write: where it was in the end.
        entered: After how many of these seconds it came into each phase; 0 where it did not.
        changes: What it has changed on disk.
        threads: Of the server, which may fork as long as it has one.
        messages: What it wrote to standard error.
    """

    status: int
    seconds: float
    phase: str
    entered: dict[str, float]
    changes: int
    threads: int
    messages: str


class Server:
    """Runs jobs, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "300"},
        )

    def run(self, job: Job) -> Outcome:
        """Run a command to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server has died"
        found = Outcome(**json.loads(answer), messages=(Path(job.folder) / "messages").read_text())
        assert found.threads <= 2  # its own, and one that PyArrow starts when it is imported
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One for all tests."""
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images `photos` and the network `net.py`; commands run in folders beside them."""
    folder = tmp_path_factory.mktemp("faults")
    write_images(folder / "photos", in_turn(N_IMAGES), seed=0)
    (folder / "photos/a/broken.png").write_bytes(b"none")
    (folder / "net.py").write_text(FACTORY)
    return folder


def tree(folder: Path, *, hidden: bool = False) -> dict[str, bytes]:
    """The content of every file below a folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (hidden or not any(part[0] == "." for part in file.relative_to(folder).parts))
    }


def results(folder: Path) -> dict[str, object]:
    """What a command has written, by name; of JSON what is in it, but for what two runs differ in."""
    return {
        name: timeless(json.loads(content)) if name.endswith(".json") else content
        for name, content in tree(folder).items()
    }


def timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {
            key: timeless(value)
            for key, value in content.items()
            if key not in ("seconds", "n_embedded") and not ("sha256" in content and "bytes" in content)
        }
    return [timeless(part) for part in content] if isinstance(content, list) else content


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    """Where a command runs."""
    folder = place / tmp_path.name
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def expected(server: Server, place: Path) -> dict[str, dict[str, object]]:
    """What the commands write where there is room."""
    found = {}
    for name in ("embed", "score"):
        folder = place / f"room-{name}"
        folder.mkdir()
        done = server.run(replace(job_of(name, folder), modules=True))
        assert done.status == 0, done.messages
        found[name] = results(folder / "out")
    return found


def job_of(command: str, folder: Path) -> Job:
    return Job((command, *OPTIONS, "out"), str(folder))


def said_once(messages: str, what: str) -> None:
    # What the loader says of a worker ends with a zero byte.
    errors = [line for line in messages.splitlines() if line.lstrip("\0").startswith("error: ")]
    assert len(errors) == 1, messages
    assert what in errors[0]
    assert "Traceback" not in messages
