"""A file that has not changed is not read again, and one that may have changed is."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from divacli.features import digests
from divacli.features.digests import KnownDigests
from divacli.features.keys import content_keys
from divacli.progress import silent


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.png").write_bytes(b"content %d" % number)
    return [str(folder / f"{number:02d}.png") for number in range(40)]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for settled though they have just been written."""
    monkeypatch.setattr(digests, "_SETTLED", -(10**9))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files as they are read."""
    names: list[str] = []
    digest_of_file = hashlib.file_digest

    def noted(stream: object, algorithm: str) -> object:
        names.append(Path(stream.name).name)  # type: ignore[attr-defined]
        return digest_of_file(stream, algorithm)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return names


def right(files: list[str]) -> np.ndarray:
    return np.stack(
        [np.frombuffer(hashlib.sha256(Path(file).read_bytes()).digest(), np.uint8) for file in files]
    )


def keys_of(files: list[str], cache: Path) -> np.ndarray:
    keys, unreadable = content_keys(files, silent, cache)
    assert not unreadable
    return keys


def test_a_second_look_reads_nothing(files, cache, read, settled):
    assert (keys_of(files, cache) == right(files)).all()
    assert sorted(read) == sorted(Path(file).name for file in files)
    read.clear()
    shuffled = [files[row] for row in np.random.default_rng(0).permutation(40)]
    assert (keys_of(shuffled, cache) == right(shuffled)).all()
    assert read == []


def test_files_that_changed_lately_are_read_again(files, cache, read):
    for look in (1, 2):
        assert (keys_of(files, cache) == right(files)).all()
        assert len(read) == 40 * look


def test_files_of_long_ago_are_remembered(files, cache, read, monkeypatch):
    later = time.time_ns() + digests._SETTLED + 10**9
    monkeypatch.setattr(digests.time, "time_ns", lambda: later)
    keys_of(files, cache)
    keys_of(files, cache)
    assert len(read) == 40


def rewrite(file: Path) -> None:
    file.write_bytes(b"another  7")  # as long as before


def rewrite_with_the_old_time(file: Path) -> None:
    was = file.stat()
    rewrite(file)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def replace(file: Path) -> None:
    new = file.with_name("new")
    new.write_bytes(b"another  7")
    new.replace(file)


def replace_by_link(file: Path) -> None:
    target = file.with_name("target")
    target.write_bytes(b"another  7")
    file.unlink()
    file.symlink_to(target)


@pytest.mark.parametrize("change", [rewrite, rewrite_with_the_old_time, replace, replace_by_link])
def test_only_a_changed_file_is_read(change: Callable[[Path], None], files, cache, read, settled):
    Path(files[7]).write_bytes(b"content  7")
    keys_of(files, cache)
    read.clear()
    time.sleep(0.02)  # a tick of the clock of the file system, for which the margin stands otherwise
    change(Path(files[7]))
    assert (keys_of(files, cache) == right(files)).all()
    assert read == ["07.png"]


def test_a_file_that_changes_while_it_is_read_is_not_remembered(files, cache, settled):
    known = KnownDigests(files, cache)
    time.sleep(0.02)
    Path(files[3]).write_bytes(b"something else")
    known.remember(np.arange(40), np.ones((40, 32), np.uint8))
    again = KnownDigests(files, cache)
    assert np.flatnonzero(~again.found).tolist() == [3]


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-80], lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:], lambda data: b""],
)
def test_what_is_damaged_counts_as_nothing_and_is_made_anew(damage, files, cache, read, settled):
    keys_of(files, cache)
    [kept] = (cache / "digests").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    read.clear()
    assert (keys_of(files, cache) == right(files)).all()
    assert len(read) == 40
    assert kept.read_bytes() == whole


def test_what_is_known_of_other_files_stays(files, cache, read, settled):
    keys_of(files, cache)
    ends = [files[0], files[-1]]
    Path(files[0]).write_bytes(b"x")
    keys_of(ends, cache)
    read.clear()
    keys_of(files, cache)
    assert read == []


def test_two_writers_at_once_only_forget(files, cache, read, settled):
    one, two = KnownDigests(files, cache / "digests"), KnownDigests(files, cache / "digests")
    one.remember(np.arange(30), right(files[:30]))
    two.remember(np.arange(20, 40), right(files[20:]))
    assert (keys_of(files, cache) == right(files)).all()


def test_many_writers_at_once_forget_nothing(files, cache, read, settled):
    known = [KnownDigests(files, cache / "digests") for _ in files]

    def remember(row: int) -> None:
        known[row].remember(np.array([row]), right([files[row]]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remember, range(40)))
    assert KnownDigests(files, cache / "digests").found.all()
    assert [file.name for file in (cache / "digests").iterdir() if file.suffix != ".bin"] == []


class Clock:
    """The clock of a machine, of its files, and one that is never set; all in nanoseconds.

    Args:
        tick: How coarse times of files are.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tick: int) -> None:
        self.now, self.running, self.tick = 10**18, 0, tick
        self.written: dict[str, int] = {}
        status_of = digests.status_of

        def status(file: str) -> SimpleNamespace:
            found, changed = status_of(file), self.written[file]
            return SimpleNamespace(
                st_size=found.st_size, st_mtime_ns=changed, st_ctime_ns=changed, st_ino=found.st_ino
            )

        monkeypatch.setattr(digests, "status_of", status)
        monkeypatch.setattr(digests.time, "time_ns", lambda: self.now)
        monkeypatch.setattr(digests.time, "monotonic_ns", lambda: self.running)

    def passes(self, seconds: float) -> None:
        self.now += int(seconds * 10**9)
        self.running += int(seconds * 10**9)

    def write(self, file: str, content: bytes) -> None:
        """In place: as long as before, with the same inode."""
        Path(file).write_bytes(content)
        self.written[file] = self.now // self.tick * self.tick


def test_clock_that_is_set_back_to_the_moment_of_a_change(files, cache, read, monkeypatch):
    clock = Clock(monkeypatch, tick=2 * 10**9)
    for file in files:
        clock.write(file, b"content 1")
    then = clock.now
    clock.passes(60)
    keys_of(files, cache)
    read.clear()
    assert (keys_of(files, cache) == right(files)).all()
    assert read == []  # they are remembered

    clock.now = then
    clock.write(files[7], b"content 2")
    assert clock.written[files[7]] == clock.written[files[8]]  # nothing tells it from before
    for seconds in (0, 5, 60, 3600):
        clock.passes(seconds)
        assert (keys_of(files, cache) == right(files)).all()


def test_clock_that_is_set_back_during_a_run(files, cache, monkeypatch):
    clock = Clock(monkeypatch, tick=1)
    for file in files:
        clock.write(file, b"content 1")
    clock.passes(60)
    known = KnownDigests(files, cache)
    clock.now -= 3 * 10**9
    clock.running += 10**9
    known.remember(np.arange(40), right(files))
    clock.passes(60)
    assert not KnownDigests(files, cache).found.any()
    known = KnownDigests(files, cache)
    clock.passes(1)
    known.remember(np.arange(40), right(files))
    assert KnownDigests(files, cache).found.all()


@pytest.mark.parametrize("seed", range(5))
def test_no_digest_is_ever_stale_whatever_the_clock_does(files, cache, read, monkeypatch, seed):
    """200 changes, jumps of the clock and runs in random order."""
    generator = np.random.default_rng(seed)
    clock = Clock(monkeypatch, tick=1)
    for file in files:
        clock.write(file, b"content 0")
    runs = 0
    for step in range(200):
        clock.passes(float(generator.exponential(8)))
        what = generator.integers(4)
        if what == 0:
            clock.now += int(generator.normal(0, 30) * 10**9)
        elif what == 1:
            for row in generator.integers(0, 40, 3):
                clock.write(files[row], b"change%03d" % step)
        else:
            assert (keys_of(files, cache) == right(files)).all()
            runs += 1
    assert 0 < len(read) < 0.8 * 40 * runs  # and yet some were known


def test_missing_files_and_folders_are_not_remembered(tmp_path, files, cache, settled):
    named = [*files, str(tmp_path / "gone.png"), str(tmp_path / "photos")]
    for _ in range(2):
        keys, unreadable = content_keys(named, silent, cache)
        assert sorted(unreadable) == [40, 41]
        assert (keys[:40] == right(files)).all()


def test_a_cache_that_cannot_be_written_is_none(files, tmp_path, settled):
    (tmp_path / "file").write_text("no folder")
    assert (keys_of(files, tmp_path / "file") == right(files)).all()


def test_no_files_at_all(cache):
    keys, unreadable = content_keys([], silent, cache)
    assert keys.shape == (0, 32)
    assert not unreadable
