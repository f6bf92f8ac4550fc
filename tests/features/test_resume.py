"""A command that is killed goes on where it stopped and ends with the same files, byte for byte."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.made import Forks

SMALL_SHARDS = "from divacli.features import extract; extract.SHARD_ROWS = 16"

Start = Callable[..., int]
Finish = Callable[[], int]


@pytest.fixture
def pictures(tmp_path: Path, save_noise: Callable) -> Path:
    """150 images, one of them damaged."""
    for number in range(150):
        save_noise(tmp_path / f"pictures/{'ab'[number % 2]}/{number:03d}.png", number)
    (tmp_path / "pictures/a/040.png").write_bytes(b"")
    return tmp_path / "pictures"


@pytest.fixture
def start(model: str, pictures: Path, tmp_path: Path, forks: Forks) -> Start:
    """Start `diva embed` in a process group of its own, with a cache and an output folder."""

    def run(cache: str, out: str, seconds_a_forward: float = 0, *more: str) -> int:
        arguments = ["embed", pictures, "--model", model, "--device", "cpu", "--workers", "2"]
        folders = ["--cache-dir", tmp_path / cache, "--out", tmp_path / out]
        (tmp_path / "messages").unlink(missing_ok=True)
        return forks.start(
            *(*arguments, *folders, *more),
            folder=tmp_path,
            stderr=tmp_path / "messages",
            before=SMALL_SHARDS,
            TEST_SECONDS_A_FORWARD=str(seconds_a_forward),
            COLUMNS="200",
        )

    return run


@pytest.fixture
def finish(tmp_path: Path, forks: Forks) -> Finish:
    """Wait for the end of a command that is to succeed, and return how many images it embedded."""

    def end() -> int:
        status = forks.wait()
        messages = (tmp_path / "messages").read_text()
        assert status == 0, messages
        found = re.search(r"(\d+) embedded now", messages)
        assert found, messages
        return int(found[1])

    return end


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("features/*/shard-*.safetensors"))


def wait_for_shard(cache: Path) -> None:
    deadline = time.monotonic() + 60
    while not shards(cache):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def content(folder: Path) -> dict[str, bytes]:
    """What can be seen in a folder, but for the record of the run, which names the folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "run.json" and not file.name.startswith(".")
    }


def test_killed_command_resumes_and_ends_with_the_same_bytes(
    start: Start, finish: Finish, forks: Forks, tmp_path: Path
) -> None:
    # Batches of 5 put the images of the resumed run elsewhere in their batches than those of the other.
    killed = start("cache", "out", 0.1, "--batch-size", "5")
    wait_for_shard(tmp_path / "cache")
    os.killpg(killed, signal.SIGKILL)
    assert forks.wait() == -signal.SIGKILL
    survived = content(tmp_path / "cache")
    assert len(shards(tmp_path / "cache")) >= 1
    assert not content(tmp_path / "out")

    start("cache", "out")
    embedded = finish()
    start("other cache", "other out")
    assert finish() == 149
    assert 0 < embedded <= 149 - 16
    assert survived.items() <= content(tmp_path / "cache").items()
    expected = content(tmp_path / "other out")
    assert content(tmp_path / "out") == expected
    assert {"samples.parquet", "store.json", "failed.csv", "head.safetensors"} < set(expected)


def test_interrupted_command_says_so_and_keeps_its_shards(
    start: Start, finish: Finish, forks: Forks, tmp_path: Path
) -> None:
    interrupted = start("cache", "out", 0.1)
    wait_for_shard(tmp_path / "cache")
    os.killpg(interrupted, signal.SIGINT)
    assert forks.wait() == 130
    messages = (tmp_path / "messages").read_text()
    assert messages.splitlines()[-1] == (
        "interrupted; features that were computed are kept, and the same command goes on from them"
    )
    assert "Traceback" not in messages
    assert len(shards(tmp_path / "cache")) >= 1
    assert not content(tmp_path / "out")
    start("cache", "out")
    assert 0 < finish() < 149
