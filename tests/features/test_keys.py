"""The key of an image is its content, whatever its name and dates."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from divacli.features.keys import content_keys, digest_of
from divacli.progress import silent


def test_key_is_the_digest_of_the_content(tmp_path: Path) -> None:
    contents = [b"", b"a", b"b" * 100_000]
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    keys, unreadable = content_keys([str(file) for file in files], silent)
    assert not unreadable
    assert keys.dtype == np.uint8
    assert [key.tobytes() for key in keys] == [hashlib.sha256(content).digest() for content in contents]


def test_equal_content_has_an_equal_key_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    files = [tmp_path / "a.png", tmp_path / "folder/b.jpg", tmp_path / "c.png"]
    for file, content in zip(files, [b"same", b"same", b"other"], strict=True):
        file.write_bytes(content)
    keys, _ = content_keys([str(file) for file in files], silent)
    assert (keys[0] == keys[1]).all()
    assert (keys[0] != keys[2]).any()


def test_changed_content_has_another_key_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"before")
    was = file.stat()
    before, _ = content_keys([str(file)], silent)
    file.write_bytes(b"after!")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    after, _ = content_keys([str(file)], silent)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    assert (before != after).any()


def test_unreadable_files_are_reported_and_the_others_read(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    files = [str(tmp_path / name) for name in ("gone.png", "good.png", "folder.png")]
    keys, unreadable = content_keys(files, silent)
    assert unreadable == {
        0: "cannot be read: No such file or directory",
        2: "cannot be read: Is a directory",
    }
    assert keys[1].tobytes() == hashlib.sha256(b"x").digest()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_file_without_permission_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    file.chmod(0)
    assert content_keys([str(file)], silent)[1] == {0: "cannot be read: Permission denied"}


def test_progress_is_told_of_every_file(tmp_path: Path) -> None:
    told: list[object] = []

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
        told.extend([what, total])
        yield told.append

    content_keys([str(tmp_path / "gone")] * 3, progress)
    assert told == ["reading", 3, 1, 1, 1]


def test_digest_tells_where_one_part_ends() -> None:
    assert digest_of(b"ab", b"c") != digest_of(b"a", b"bc")
    assert digest_of(b"abc") != digest_of(b"abc", b"")
    assert digest_of(b"ab", b"c") == digest_of(b"ab", b"c")
