"""Tar shards become the table that WebDataset would read, and what is odd in them is said."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.files.path_or_url import read_bytes
from divacli.manifest import check_files, read_manifest, relocate, write_table

Shard = Callable[..., Path]


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """Write a tar file of members by name."""

    def write(content: dict[str, str | bytes], name: str = "s.tar") -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(tmp_path / name, "w") as archive:
            for member, data in content.items():
                data = data.encode() if isinstance(data, str) else data
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return tmp_path / name

    return write


def rows(data: str | Path) -> list[tuple[str, str]]:
    manifest = read_manifest(str(data))
    check_files(manifest)
    assert manifest.kind == "shards"
    return list(manifest.table[["path", "label"]].itertuples(index=False, name=None))


def refused(data: str | Path, labels: str = "required") -> str:
    with pytest.raises(DataError) as caught:
        read_manifest(str(data), labels=labels)  # type: ignore[arg-type]
    return str(caught.value)


def by_webdataset(shards: Sequence[Path]) -> list[tuple[bytes, str]]:
    """The image and label of every sample, as WebDataset reads them."""
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    found = webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False, empty_check=False)
    samples = []
    for sample in found:
        (image,) = [value for part, value in sample.items() if part in ("jpg", "png", "webp")]
        label = sample.get("cls") or str(json.loads(sample["json"])["label"]).encode()
        samples.append((image, label.decode()))
    return samples


def test_the_same_samples_as_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with webdataset.ShardWriter(str(tmp_path / "s-%03d.tar"), maxcount=4, verbose=0) as writer:
        for number in range(10):
            label = number % 3
            label_part = {"cls": label} if number % 2 else {"json": {"label": f"class {label}", "more": [1]}}
            image = {"jpg" if number < 5 else "png": b"image %d" % number}
            writer.write({"__key__": f"deep.er/{number:04d}", **image, **label_part})
    shards = sorted(tmp_path.glob("*.tar"))
    expected = by_webdataset(shards)
    assert len(expected) == 10
    for data in (tmp_path, f"{tmp_path}/s-{{000..002}}.tar"):
        manifest = read_manifest(str(data))
        found = [read_bytes(file) for file in manifest.files()]
        assert list(zip(found, manifest.table["label"], strict=True)) == expected
        assert not any("not used" in warning for warning in manifest.warnings)
    first = read_manifest(str(shards[0]))
    assert first.table["path"].tolist() == [f"s-000.tar/deep.er/000{number}.jpg" for number in range(4)]


def test_layout(shard: Shard) -> None:
    content = {
        "a/1.JPG": "x",
        "a/1.Cls": " cat\n",
        "2.seg.png": "mask",
        "2.jpg": "x",
        "2.json": '{"label": 7, "cls": 8}',
        "2.cls": "dog",
        "3.webp": "x",
        "3.json": '{"cls": "dog"}',
        "4.5.png": "x",
        "4.txt": "cat",
        "5.png": "x",
        "5.json": '{"label": 7}',
    }
    assert rows(shard(content)) == [
        ("s.tar/a/1.JPG", "cat"),
        ("s.tar/2.jpg", "dog"),
        ("s.tar/3.webp", "dog"),
        ("s.tar/4.5.png", "cat"),
        ("s.tar/5.png", "7"),
    ]


def test_members_of_a_sample_need_not_follow_one_another(shard: Shard) -> None:
    content = {"1.jpg": "x", "2.jpg": "y", "1.cls": "a", "2.cls": "b"}
    assert rows(shard(content)) == [("s.tar/1.jpg", "a"), ("s.tar/2.jpg", "b")]


def test_what_is_not_used_is_counted(shard: Shard) -> None:
    content = {"__notes__/1.jpg": "x", "README": "x", "a/._1.jpg": "mac", "9.cls": "a", "9.mp4": "film"}
    for number in range(4):
        content |= {f"{number}.jpg": "x", f"{number}.cls": "ab"[number % 2], f"{number}.json": "{}"}
    (warning,) = read_manifest(str(shard(content))).warnings
    assert "not used, 8 members that are neither images nor labels" in warning
    assert warning.endswith(": (no suffix) (2), .cls (1), .json (4), .mp4 (1).")


def test_samples_that_are_links(tmp_path: Path) -> None:
    """What tar makes of a file with two names is a sample; what has no content is counted."""

    def add(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.type, entry.linkname = len(content), kind, to
        archive.addfile(entry, io.BytesIO(content))

    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        add("1.jpg", b"one")
        add("1.cls", b"a")
        add("2.jpg", kind=tarfile.LNKTYPE, to="1.jpg")
        add("2.cls", b"b")
        add("3.jpg", b"three")
        add("3.cls", kind=tarfile.LNKTYPE, to="2.cls")
        add("4.jpg", kind=tarfile.SYMTYPE, to="1.jpg")
        add("4.cls", b"a")
        add("5.jpg", kind=tarfile.LNKTYPE, to="/etc/passwd")
        add("6.jpg", kind=tarfile.CHRTYPE)
        add("7.jpg", kind=tarfile.GNUTYPE_SPARSE)
        add("__notes__/1.jpg", kind=tarfile.SYMTYPE, to="1.jpg")
    manifest = read_manifest(str(tmp_path / "s.tar"))
    assert manifest.table["path"].tolist() == ["s.tar/1.jpg", "s.tar/2.jpg", "s.tar/3.jpg"]
    assert manifest.table["label"].tolist() == ["a", "b", "b"]
    assert [read_bytes(file) for file in manifest.files()] == [b"one", b"one", b"three"]
    assert manifest.warnings[0].endswith(
        "not used, 5 members that are neither images nor labels: (hard link to no member before it) (1), "
        "(no plain file) (1), (sparse file) (1), (symbolic link) (1), .cls (1)."
    )


def test_keys_may_come_again_in_another_shard(shard: Shard, tmp_path: Path) -> None:
    shard({"1.jpg": "x", "1.cls": "a"}, "d/0.tar")
    shard({"1.jpg": "y", "1.cls": "b"}, "d/1.tar")
    assert rows(tmp_path / "d") == [("0.tar/1.jpg", "a"), ("1.tar/1.jpg", "b")]


def test_patterns_over_folders(shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard({"1.jpg": "x", "1.cls": "a"}, "in/a/0.tar")
    shard({"1.jpg": "y", "1.cls": "b"}, "in/b/0.tar")
    monkeypatch.chdir(tmp_path)
    assert rows("in/{a,b}/0.tar") == [("a/0.tar/1.jpg", "a"), ("b/0.tar/1.jpg", "b")]
    assert read_manifest("in/{a,b}/0.tar").folder == tmp_path / "in"
    assert "in/c/0.tar does not exist" in refused("in/{a,c}/0.tar")
    assert "0-2.tar does not exist" in refused("in/a/0-{2..5}.tar")


def test_a_written_table_leads_to_the_same_bytes(shard: Shard, tmp_path: Path) -> None:
    manifest = read_manifest(str(shard({"1.jpg": "x", "1.cls": "a", "2.jpg": "y", "2.cls": "b"}, "in/s.tar")))
    out = tmp_path / "out/kept.csv"
    write_table(relocate(manifest.table, manifest.folder, out.parent), out, "csv")
    again = read_manifest(str(out))
    check_files(again)
    assert again.table["path"].tolist() == ["../in/s.tar/1.jpg", "../in/s.tar/2.jpg"]
    assert [read_bytes(file) for file in again.files()] == [b"x", b"y"]
    gone = pd.DataFrame({"path": ["../in/s.tar/3.jpg"], "label": ["a"], "weight": [1.0]})
    write_table(pd.concat([again.table, gone]), out, "csv")
    with pytest.raises(DataError, match=r"1 of 3 files are not there: .*s\.tar/3\.jpg"):
        check_files(read_manifest(str(out)))


def test_labels_that_are_missing(shard: Shard, tmp_path: Path) -> None:
    data = shard({"1.jpg": "x", "1.cls": "a", "2.jpg": "y", "3.jpg": "z", "3.json": '{"caption": "z"}'})
    message = refused(data)
    assert "2 of 3 samples have no label: s.tar/2.jpg, s.tar/3.jpg" in message
    assert ".cls" in message
    assert "2 of 3 rows have no label" in refused(data, "optional")
    pool = read_manifest(str(shard({"1.jpg": "x", "2.jpg": "y"}, "pool.tar")), labels="optional")
    assert not pool.labelled
    assert pool.table["path"].tolist() == ["pool.tar/1.jpg", "pool.tar/2.jpg"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"1.jpg": "x", "1.png": "x", "1.cls": "a"}, "one sample has 2 images: 1.jpg, 1.png"),
        ({"img_0.5.jpg": "x", "img_0.7.jpg": "x", "img_0.cls": "a"}, "up to the first dot"),
        ({"1.jpg": "x", "1.JPG": "x"}, "differ only by case: 1.jpg and 1.JPG"),
        ({"1.jpg": "x", "1.cls": b"\xff"}, "s.tar/1.cls is not UTF-8"),
        ({"1.jpg": "x", "1.json": "{"}, "s.tar/1.json is not valid JSON"),
        ({"1.jpg": "x", "1.json": '{"label": [1]}'}, "column 'label' has a cell of type list"),
        ({"1.cls": "a"}, "has no images (1 other members in 1 shards)"),
        ({}, "has no images"),
    ],
)
def test_refused(shard: Shard, content: dict[str, str | bytes], said: str) -> None:
    assert said in refused(shard(content))


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with tarfile.open(tmp_path / "d/s.tar.gz", "w:gz"):
        pass
    for data in (tmp_path / "d", tmp_path / "d/s.tar.gz"):
        assert "s.tar.gz is compressed" in refused(data)


def test_folders_with_images_stay_folders(shard: Shard, tmp_path: Path) -> None:
    shard({"1.jpg": "x", "1.cls": "a"}, "d/s.tar")
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / "d" / name).parent.mkdir()
        (tmp_path / "d" / name).write_bytes(b"x")
    manifest = read_manifest(str(tmp_path / "d"))
    assert manifest.kind == "folder"
    assert "files that are not images: s.tar" in manifest.warnings[0]


def test_shards_further_below(shard: Shard, tmp_path: Path) -> None:
    shard({"1.jpg": "x", "1.cls": "a"}, "d/train/s.tar")
    assert f"point at the folder with the shards: {tmp_path}/d/train" in refused(tmp_path / "d")
