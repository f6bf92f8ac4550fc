"""A disk that is full or read-only costs one message and nothing else; with room the same command is done."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import OPTIONS, Job, Server, job_of, results, said_once, tree

Mount = Callable[..., Path]

FULL = "free some space, or choose another place with --out or --cache-dir"


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount a small file system in memory in a new folder."""
    mounted: list[Path] = []

    def make(place: Path, options: str) -> Path:
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", place], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("mounting a file system is not permitted here")
        mounted.append(place)
        return place

    try:
        yield make
    finally:
        for place in mounted:
            subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("command", ["embed", "score"])
@pytest.mark.parametrize("pages", [0, 2, 6])
def test_full_disk_for_the_results(
    command: str, pages: int, server: Server, folder: Path, mount: Mount, expected: dict
) -> None:
    disk = mount(folder / "out", "size=256k")
    job = job_of(command, folder)
    filled(disk, pages)
    failed = server.run(job)
    assert failed.status == 1, failed.messages
    said_once(failed.messages, "No space left on device")
    assert FULL in failed.messages
    (disk / "filler").unlink()
    assert results(disk).items() <= expected[command].items()
    assert not set(tree(disk)) & {"scores.csv", "samples.parquet", "run.json"}
    assert not [name for name in tree(disk, hidden=True) if name.endswith(".tmp")]
    done = server.run(job)
    assert done.status == 0, done.messages
    assert results(disk) == expected[command]


@pytest.mark.parametrize("pages", [0, 2, 8])
def test_full_disk_for_the_cache(
    pages: int, server: Server, folder: Path, mount: Mount, expected: dict
) -> None:
    disk = mount(folder / "cache", "size=256k")
    job = job_of("score", folder)
    filled(disk, pages)
    failed = server.run(job)
    assert failed.status == 1, failed.messages
    said_once(failed.messages, "No space left on device")
    assert not results(folder / "out")
    assert not [name for name in tree(disk, hidden=True) if name.endswith(".tmp")]
    shards = len(list(disk.glob("features/*/shard-*")))
    (disk / "filler").unlink()
    done = server.run(job)
    assert done.status == 0, done.messages
    assert results(folder / "out") == expected["score"]
    assert len(list(disk.glob("features/*/shard-*"))) > shards


def test_no_names_left_on_the_disk(server: Server, folder: Path, mount: Mount, expected: dict) -> None:
    disk = mount(folder / "out", "nr_inodes=5")
    job = job_of("score", folder)
    failed = server.run(job)
    assert failed.status == 1
    said_once(failed.messages, "No space left on device")
    assert not tree(disk)
    subprocess.run(["mount", "-o", "remount,nr_inodes=50", disk], check=True)
    assert server.run(job).status == 0
    assert results(disk) == expected["score"]


@pytest.mark.parametrize("limit", [1500, 2240, 5000])
@pytest.mark.parametrize("command", ["embed", "score"])
def test_files_may_not_be_so_large(
    command: str, limit: int, server: Server, folder: Path, expected: dict
) -> None:
    """As on a full disk, in a way that needs no rights: the system refuses what goes beyond."""
    job = job_of(command, folder)
    failed = server.run(replace(job, largest_file=limit))
    assert failed.status == 1, failed.messages
    said_once(failed.messages, "File too large")
    assert results(folder / "out").items() <= expected[command].items()
    assert not set(tree(folder / "out")) & {"scores.csv", "samples.parquet", "run.json"}
    assert not [name for name in tree(folder, hidden=True) if name.endswith(".tmp")]
    done = server.run(job)
    assert done.status == 0, done.messages
    assert results(folder / "out") == expected[command]


def test_full_device_as_standard_output(server: Server, folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    failed = server.run(Job(("score", *OPTIONS, "-"), str(folder), stdout="/dev/full"))
    assert failed.status == 1
    said_once(failed.messages, "standard output cannot be written: No space left on device")


@pytest.mark.parametrize("what", ["out", "cache"])
def test_read_only_folder(what: str, server: Server, folder: Path, mount: Mount) -> None:
    disk = mount(folder / what, "size=256k")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    failed = server.run(job_of("score", folder))
    assert failed.status == 1
    said_once(failed.messages, "cannot be")
    assert not tree(disk, hidden=True)
    assert not (folder / "out" / "scores.csv").exists()


def test_read_only_cache_that_has_everything_is_enough(
    server: Server, folder: Path, mount: Mount, expected: dict
) -> None:
    disk = mount(folder / "cache", "size=1m")
    first = job_of("score", folder)
    assert server.run(first).status == 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = server.run(replace(first, arguments=(*first.arguments, "--overwrite")))
    assert done.status == 0, done.messages
    assert results(folder / "out") == expected["score"]


def filled(disk: Path, pages: int) -> None:
    """Leave room for so many pages."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        os.ftruncate(file.fileno(), (disk / "filler").stat().st_size // 4096 * 4096 - 4096 * pages)
