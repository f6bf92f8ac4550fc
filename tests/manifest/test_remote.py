"""Tables and arrays at a URL are those of the same file on this machine."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.manifest import ArrayFile, arrayfile, check_files, read_manifest, relocate, write_table
from divacli.manifest.read import manifest_of

EMBEDDING = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)


def saved(tmp_path: Path, bucket: fsspec.AbstractFileSystem, save=np.savez, **more: object) -> str:
    arrays = {"embedding": EMBEDDING, "label": np.arange(60) % 3, **more}
    save(tmp_path / "e.npz", **arrays)
    bucket.put(str(tmp_path / "e.npz"), "/bucket/set/e.npz")
    return "memory://bucket/set/e.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_embeddings(tmp_path, bucket, save) -> None:
    more = {"path": np.array([f"s{row}" for row in range(60)]), "camera": np.arange(60) % 2}
    remote = read_manifest(saved(tmp_path, bucket, save, **more))
    local = read_manifest(str(tmp_path / "e.npz"))
    assert remote.table["feature_source"].unique().tolist() == ["memory://bucket/set/e.npz"]
    pd.testing.assert_frame_equal(
        remote.table.drop(columns="feature_source"), local.table.drop(columns="feature_source")
    )
    assert isinstance(remote.embeddings, ArrayFile) is (save is np.savez)
    assert (remote.embeddings[:] == EMBEDDING).all()
    assert (remote.folder, remote.kind, remote.warnings) == (Path.cwd(), "npz", local.warnings)


@pytest.mark.parametrize("gap", [0, 40, 1 << 16])
@pytest.mark.parametrize(
    "rows", [[], [59], [3, 4, 5], [59, 0, 30, 30, 1], [0, 2, 4, 40, 58], list(range(60))[::-1]]
)
def test_rows_near_one_another_come_together(tmp_path, bucket, monkeypatch, gap, rows) -> None:
    monkeypatch.setattr(arrayfile, "_GAP_BYTES", gap)
    array = read_manifest(saved(tmp_path, bucket)).embeddings
    for kind in (np.int64, np.uint8):
        assert np.array_equal(array[np.array(rows, kind)], EMBEDDING[rows])
    assert np.array_equal(array[50:10:-7], EMBEDDING[50:10:-7])


def test_rows_near_one_another_are_asked_for_at_once(tmp_path, bucket, monkeypatch) -> None:
    array = read_manifest(saved(tmp_path, bucket)).embeddings
    asked: list[int] = []
    read_ranges = type(array.path).read_ranges
    monkeypatch.setattr(
        type(array.path),
        "read_ranges",
        lambda file, ranges: asked.append(len(ranges)) or read_ranges(file, ranges),
    )
    array[np.arange(0, 60, 2)]
    monkeypatch.setattr(arrayfile, "_GAP_BYTES", 0)
    array[np.arange(0, 60, 2)]
    assert asked == [1, 30]


def test_a_file_that_was_cut_short(tmp_path, bucket) -> None:
    array = read_manifest(saved(tmp_path, bucket)).embeddings
    bucket.pipe("/bucket/set/e.npz", bucket.cat_file("/bucket/set/e.npz")[: array.offset + 30])
    with pytest.raises(DataError, match="truncated while reading"):
        array[:]


def test_no_npz_at_all(bucket) -> None:
    bucket.pipe("/bucket/set/e.npz", b"hello")
    with pytest.raises(DataError, match=r"numpy\.savez"):
        read_manifest("memory://bucket/set/e.npz")


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_table_of_local_images(tmp_path, bucket, format) -> None:
    table = pd.DataFrame({"path": ["a.png", "b.png"], "label": ["x", "y"]})
    table["path"] = [str(tmp_path / name) for name in table["path"]]
    write_table(table, tmp_path / f"t.{format}", format)
    bucket.put(str(tmp_path / f"t.{format}"), f"/bucket/set/t.{format}")
    remote = read_manifest(f"memory://bucket/set/t.{format}")
    assert remote.table["path"].tolist() == remote.files() == table["path"].tolist()
    with pytest.raises(DataError, match="2 of 2 files are not there"):
        check_files(remote)
    for name in table["path"]:
        Path(name).write_bytes(b"")
    check_files(remote)


def test_relative_paths_start_from_where_the_table_lies(bucket) -> None:
    bucket.pipe("/bucket/set/t.csv", b"path,label\nimages/1.png,a\n../2.png,b\n")
    remote = read_manifest("memory://bucket/set/t.csv")
    assert remote.files() == ["memory://bucket/set/images/1.png", "memory://bucket/2.png"]
    with pytest.raises(DataError, match=r"2 of 2 images lie at URLs[\s\S]*to do: mount or copy"):
        check_files(remote)


def test_sources_of_a_remote_table(bucket) -> None:
    bucket.pipe(
        "/bucket/set/t.csv",
        b"path,label,feature_source\n7,a,e.npz\nimages/8.png,b,../store\n9,a,s3://other/f.NPZ\n",
    )
    remote = read_manifest("memory://bucket/set/t.csv")
    assert remote.table["path"].tolist() == ["7", "memory://bucket/set/images/8.png", "9"]
    assert remote.table["feature_source"].tolist() == [
        "memory://bucket/set/e.npz",
        "memory://bucket/store",
        "s3://other/f.NPZ",
    ]


def test_urls_stay_when_a_table_moves(tmp_path) -> None:
    table = pd.DataFrame(
        {
            "path": ["7", "s3://b/8.png", "c/9.png", "7"],
            "label": ["a", "b", "a", "b"],
            "feature_source": ["s3://b/e.npz", "s3://b/store", "store", "https://h/e.npz?token=1"],
        }
    )
    moved = relocate(table, tmp_path, tmp_path / "out")
    assert moved["path"].tolist() == ["7", "s3://b/8.png", "../c/9.png", "7"]
    assert moved["feature_source"].tolist() == [
        "s3://b/e.npz",
        "s3://b/store",
        "../store",
        "https://h/e.npz?token=1",
    ]
    assert manifest_of(moved, tmp_path / "out").files()[1:3] == ["s3://b/8.png", f"{tmp_path}/out/../c/9.png"]


def test_data_at_a_url_that_is_none(bucket) -> None:
    for name, message in {
        "memory://bucket/set/none.csv": "does not exist",
        "memory://bucket/set": "no kind of DATA that is read from a URL",
        "memory://bucket/set/a.jpg": "no kind of DATA that is read from a URL",
    }.items():
        with pytest.raises(DataError, match=message):
            read_manifest(name)


def test_a_file_url_is_the_file(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("path,label\n1.png,a\n2.png,b\n")
    by_url, by_path = read_manifest(f"file://{tmp_path}/t.csv"), read_manifest(f"{tmp_path}/t.csv")
    assert by_url.folder == by_path.folder == tmp_path
    assert by_url.files() == by_path.files()
