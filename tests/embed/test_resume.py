"""A command that is killed goes on where it stopped and ends with the same files, byte for byte."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

DRIVER = """
from divacli.cli.app import main
from divacli.embed import extract

extract.SHARD_ROWS = 16
main()
"""

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def pictures(tmp_path: Path, save_noise: Callable) -> Path:
    """150 images, one of them damaged."""
    for number in range(150):
        save_noise(tmp_path / f"pictures/{'ab'[number % 2]}/{number:03d}.png", number)
    (tmp_path / "pictures/a/040.png").write_bytes(b"")
    return tmp_path / "pictures"


@pytest.fixture
def start(model: str, pictures: Path, tmp_path: Path) -> Start:
    """Start `diva embed` in a process group of its own, with a cache and an output folder."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)

    def run(cache: str, out: str, seconds_a_forward: float = 0, *more: str) -> subprocess.Popen:
        arguments = ["embed", str(pictures), "--model", model, "--device", "cpu", "--workers", "2"]
        folders = ["--cache-dir", str(tmp_path / cache), "--out", str(tmp_path / out)]
        return subprocess.Popen(
            [sys.executable, str(driver), *arguments, *folders, *more],
            env={**os.environ, "TEST_SECONDS_A_FORWARD": str(seconds_a_forward), "COLUMNS": "200"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return run


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("features/*/shard-*.safetensors"))


def wait_for_shard(cache: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not shards(cache):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finish(process: subprocess.Popen) -> int:
    """Wait for the end of a command that is to succeed, and return how many images it embedded."""
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    found = re.search(r"(\d+) embedded now", messages)
    assert found, messages
    return int(found[1])


def content(folder: Path) -> dict[str, bytes]:
    """What can be seen in a folder, but for the record of the run, which names the folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "run.json" and not file.name.startswith(".")
    }


def test_killed_command_resumes_and_ends_with_the_same_bytes(start: Start, tmp_path: Path) -> None:
    # Batches of 5 put the images of the resumed run elsewhere in their batches than those of the other.
    killed = start("cache", "out", 0.1, "--batch-size", "5")
    wait_for_shard(tmp_path / "cache", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    survived = content(tmp_path / "cache")
    assert len(shards(tmp_path / "cache")) >= 1
    assert not content(tmp_path / "out")

    resumed, uninterrupted = start("cache", "out"), start("other cache", "other out")
    embedded = finish(resumed)
    assert finish(uninterrupted) == 149
    assert 0 < embedded <= 149 - 16
    assert survived.items() <= content(tmp_path / "cache").items()
    expected = content(tmp_path / "other out")
    assert content(tmp_path / "out") == expected
    assert {"samples.parquet", "store.json", "failed.csv", "head.safetensors"} < set(expected)


def test_interrupted_command_says_so_and_keeps_its_shards(start: Start, tmp_path: Path) -> None:
    interrupted = start("cache", "out", 0.1)
    wait_for_shard(tmp_path / "cache", interrupted)
    os.killpg(interrupted.pid, signal.SIGINT)
    _, messages = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130
    assert messages.splitlines()[-1] == (
        "interrupted; features that were computed are kept, and the same command goes on from them"
    )
    assert "Traceback" not in messages
    assert len(shards(tmp_path / "cache")) >= 1
    assert not content(tmp_path / "out")
    assert 0 < finish(start("cache", "out")) < 149
