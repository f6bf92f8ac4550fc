"""Members of tar files are read one by one, and what is no whole tar file is refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divacli.errors import DataError
from divacli.files.containers import Contained, contained
from divacli.files.existing import shard_names
from divacli.files.path_or_url import file_digest, is_file, read_bytes
from divacli.files.tar import members, others, read_member

LONG = f"{'deep/' * 40}{'n' * 120}.jpg"


def write_tar(target: Path, content: Sequence[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(target, "w", format=format) as archive:
        for name, data in content:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return target


@settings(max_examples=30, deadline=None)
@given(contents=st.lists(st.binary(max_size=1500), min_size=1, max_size=6), format=st.sampled_from([0, 1, 2]))
def test_members_have_their_bytes(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], format: int
) -> None:
    names = ["a.jpg", "b/c.jpg", "ü \n.png", "n" * 100, "d/e/f.cls", "x.tar/y.jpg"][: len(contents)]
    tar = write_tar(tmp_path_factory.mktemp("t") / "s.tar", list(zip(names, contents, strict=True)), format)
    assert list(members(str(tar))) == names
    for name, content in zip(names, contents, strict=True):
        assert read_member(str(tar), name) == read_bytes(f"{tar}/{name}") == content
        assert is_file(f"{tar}/{name}")
    assert not is_file(f"{tar}/other.jpg")


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path: Path, format: int) -> None:
    tar = write_tar(tmp_path / "s.tar", [(LONG, b"1"), ("./b.jpg", b"2"), ("/c.jpg", b"3")], format)
    assert {name: read_member(str(tar), name) for name in members(str(tar))} == {
        LONG: b"1",
        "b.jpg": b"2",
        "c.jpg": b"3",
    }


def write_links(
    target: Path, links: Sequence[tuple[str, str, bytes]], format: int = tarfile.PAX_FORMAT
) -> Path:
    """One file `d/1.jpg`, and members without content: name, what it leads to, type."""
    with tarfile.open(target, "w", format=format) as archive:
        entry = tarfile.TarInfo("d/1.jpg")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"one"))
        for name, to, kind in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, to
            archive.addfile(entry)
    return target


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("to", ["d/1.jpg", "./d/1.jpg", "/d/1.jpg", "../d/x/../1.jpg"])
def test_a_hard_link_is_a_second_name_of_the_content(tmp_path: Path, format: int, to: str) -> None:
    links = [("d/2.jpg", to, tarfile.LNKTYPE), ("3.jpg", "d/2.jpg", tarfile.LNKTYPE)]
    tar = str(write_links(tmp_path / "s.tar", links, format))
    assert {name: read_member(tar, name) for name in members(tar)} == dict.fromkeys(
        ("d/1.jpg", "d/2.jpg", "3.jpg"), b"one"
    )
    assert not others(tar)
    assert is_file(f"{tar}/d/2.jpg")
    assert file_digest(Path(f"{tar}/3.jpg")) == file_digest(Path(f"{tar}/d/1.jpg"))


def test_hard_links_of_a_system_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/1.jpg").write_bytes(b"1")
    (tmp_path / "d/2.jpg").hardlink_to(tmp_path / "d/1.jpg")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(tmp_path / "d", "d")
        assert sum(entry.islnk() for entry in archive) == 1
    tar = str(tmp_path / "s.tar")
    assert {name: read_member(tar, name) for name in members(tar)} == {"d/1.jpg": b"1", "d/2.jpg": b"1"}


def test_other_members_are_none_and_told_apart(tmp_path: Path) -> None:
    (tmp_path / "outside.jpg").write_bytes(b"outside")
    links = [
        ("2.jpg", "d/1.jpg", tarfile.SYMTYPE),
        ("3.jpg", str(tmp_path / "outside.jpg"), tarfile.LNKTYPE),
        ("4.jpg", "5.jpg", tarfile.LNKTYPE),
        ("5.jpg", "2.jpg", tarfile.LNKTYPE),
        ("6.jpg", "6.jpg", tarfile.LNKTYPE),
        ("7.jpg", "", tarfile.CHRTYPE),
        ("8.jpg", "", tarfile.FIFOTYPE),
        ("9.jpg", "", b"Z"),
        ("folder", "", tarfile.DIRTYPE),
    ]
    tar = str(write_links(tmp_path / "s.tar", links))
    assert list(members(tar)) == ["d/1.jpg"]
    nothing = "hard link to no member before it"
    assert others(tar) == [
        ("2.jpg", "symbolic link"),
        *((f"{number}.jpg", nothing) for number in (3, 4, 5, 6)),
        *((f"{number}.jpg", "no plain file") for number in (7, 8, 9)),
    ]
    for number in range(2, 10):
        assert not is_file(f"{tar}/{number}.jpg")


def test_a_hard_link_that_takes_the_name_of_a_member(tmp_path: Path) -> None:
    tar = write_links(tmp_path / "s.tar", [("d/1.jpg", "d/1.jpg", tarfile.LNKTYPE)])
    with pytest.raises(DataError, match=r"several members have the same name: d/1\.jpg"):
        members(str(tar))


def test_links_and_folders_are_no_members(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/1.jpg").write_bytes(b"1")
    (tmp_path / "d/2.jpg").symlink_to("1.jpg")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(tmp_path / "d", "d")
    assert list(members(str(tmp_path / "s.tar"))) == ["d/1.jpg"]
    assert others(str(tmp_path / "s.tar")) == [("d/2.jpg", "symbolic link")]


def test_only_a_file_is_gone_through(tmp_path: Path) -> None:
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "folder.tar/1.jpg").write_bytes(b"in a folder")
    inner = write_tar(tmp_path / "folder.tar/s.TAR", [("1.jpg", b"in a tar")])
    assert read_bytes(f"{tmp_path}/folder.tar/1.jpg") == b"in a folder"
    assert read_bytes(f"{inner}/1.jpg") == b"in a tar"
    assert contained(f"{tmp_path}/gone.tar/1.jpg") is None
    assert contained(str(inner)) is None
    assert contained(f"{inner}/../1.jpg") == Contained(str(inner), "1.jpg", tar=True)


def test_a_path_through_very_many_tar_files_is_answered_at_once(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", [("1.jpg", b"x")])
    assert contained("a.tar/" * 700_000 + "1.jpg") is None
    assert contained(f"{tar}/{'a.tar/' * 700_000}1.jpg") == Contained(
        str(tar), "a.tar/" * 700_000 + "1.jpg", tar=True
    )


def test_digest_is_that_of_the_member(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"content")
    tar = write_tar(tmp_path / "s.tar", [("1.jpg", b"content")])
    assert file_digest(tar / "1.jpg") == file_digest(tmp_path / "1.jpg")


def test_a_tar_file_that_changed_is_looked_up_again(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", [("1.jpg", b"old")])
    assert read_bytes(f"{tar}/1.jpg") == b"old"
    write_tar(tmp_path / "new.tar", [("0.jpg", b"more"), ("1.jpg", b"new")]).replace(tar)
    assert read_bytes(f"{tar}/1.jpg") == b"new"


def test_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = write_tar(tmp_path / "s.tar", [(f"{number}.jpg", b"x") for number in range(50)])
    opened = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    for number in range(50):
        read_bytes(f"{tar}/{number}.jpg")
    assert len(opened) == 1


def test_cut_off_at_every_byte(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "s.tar", [("1.jpg", b"x" * 700), ("2.jpg", b"y" * 10)], tarfile.USTAR_FORMAT)
    content = whole.read_bytes()
    end = 512 + 1024 + 512 + 512  # headers and content of both; the mark of the end follows
    assert content[end:] == bytes(len(content) - end)
    for stop in [0, 1, 511, 512, 700, 1535, 1536, 1537, 2047, 2048, 2058, end - 1, end, end + 511]:
        cut = tmp_path / f"{stop}.tar"
        cut.write_bytes(content[:stop])
        with pytest.raises(DataError, match=rf"{stop}\.tar is damaged or was cut off"):
            members(str(cut))
    whole.write_bytes(content[: end + 512])
    assert list(members(str(whole))) == ["1.jpg", "2.jpg"]


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", [("1.jpg", b"x"), ("2.jpg", b"y")], tarfile.USTAR_FORMAT)
    content = bytearray(tar.read_bytes())
    content[1024 + 5] ^= 1
    tar.write_bytes(content)
    with pytest.raises(DataError, match=r"no end of the archive after 1 members, at byte 1,024"):
        members(str(tar))


def test_no_tar_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(DataError, match="is damaged or was cut off"):
        members(str(tmp_path / "s.tar"))


def test_compressed(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", [("1.jpg", b"x")])
    tar.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(DataError, match=r"compressed(.|\n)*gunzip"):
        members(str(tar))


def test_a_name_twice(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", [("1.jpg", b"x"), ("./1.jpg", b"y")])
    with pytest.raises(DataError, match=r"several members have the same name: 1\.jpg"):
        members(str(tar))


def test_cut_off_after_it_was_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = write_tar(tmp_path / "s.tar", [("1.jpg", b"x" * 600)])
    found = members(str(tar))
    os.truncate(tar, 700)
    monkeypatch.setattr("divacli.files.tar.members", lambda tar: found)
    with pytest.raises(DataError, match=r"truncated while reading: 1\.jpg is not whole"):
        read_bytes(f"{tar}/1.jpg")


def test_a_member_that_is_not_there(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", [("1.jpg", b"x")])
    with pytest.raises(DataError, match=r"has no member 2\.jpg"):
        read_bytes(f"{tar}/2.jpg")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s.tar", ["s.tar"]),
        ("s-{8..11}.tar", ["s-8.tar", "s-9.tar", "s-10.tar", "s-11.tar"]),
        ("s-{008..010}.tar", ["s-008.tar", "s-009.tar", "s-010.tar"]),
        ("s-{0..2}.tar", ["s-0.tar", "s-1.tar", "s-2.tar"]),
        ("s-{2..0}.tar", ["s-2.tar", "s-1.tar", "s-0.tar"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("s-{x}.tar", ["s-{x}.tar"]),
        ("s-{0..2}.csv", ["s-{0..2}.csv"]),
    ],
)
def test_patterns(pattern: str, names: list[str]) -> None:
    assert list(shard_names(pattern)) == names


def test_a_file_with_braces_in_its_name(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s-{0..1}.tar", [("1.jpg", b"x")])
    assert list(shard_names(str(tar))) == [str(tar)]
