"""Folders that Hugging Face reads as `imagefolder` are read the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from divacli.errors import DataError
from divacli.manifest import check_files, read_manifest, write_table

FILES = ["a/1.png", "a/2.png", "b/1.png", "b/=3.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images in two sub-folders, one of a name that a spreadsheet would run."""
    for number, name in enumerate(FILES):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "data" / name)
    return tmp_path / "data"


def write(folder: Path, columns: dict[str, list[Any]], format: str = "csv") -> Path:
    write_table(pd.DataFrame(columns), folder / f"metadata.{format}", format)  # type: ignore[arg-type]
    return folder


def refused(data: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_manifest(str(data))
    return str(caught.value)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_metadata_is_the_table(folder: Path, format: str) -> None:
    columns = {"file_name": FILES[::-1], "label": [1, 0, 1, 0], "note": ["x", "y", "z", "=w"]}
    manifest = read_manifest(f"{write(folder, columns, format)}/")
    check_files(manifest)
    assert (manifest.kind, manifest.folder) == ("table", folder)
    assert manifest.name == f"{folder}/metadata.{format}"
    assert list(manifest.table) == ["path", "label", "weight", "note"]
    assert manifest.table["path"].tolist() == FILES[::-1]
    assert manifest.table["label"].tolist() == ["1", "0", "1", "0"]
    assert manifest.table["note"].tolist() == ["x", "y", "z", "=w"]


def test_labels_come_from_sub_folders_where_there_is_no_column(folder: Path) -> None:
    manifest = read_manifest(str(write(folder, {"file_name": [f"./{file}" for file in FILES]})))
    assert manifest.table["label"].tolist() == ["a", "a", "b", "b"]


def test_a_pool_of_one_folder_has_no_labels(folder: Path) -> None:
    manifest = read_manifest(str(write(folder, {"file_name": FILES[:2]})), labels="optional")
    assert not manifest.labelled


@pytest.mark.parametrize("names", [FILES[:2], ["a/1.png", "2.png"], ["a/1.png", "b/c/2.png"]])
def test_no_labels_at_all(folder: Path, names: list[str]) -> None:
    message = refused(write(folder, {"file_name": names, "category": ["x"] * len(names)}))
    assert "metadata.csv has no column label; its columns are: " in message
    if len({Path(name).parent for name in names}) == 1:
        assert "label_column='category'" in message


def test_files_that_are_not_there(folder: Path) -> None:
    manifest = read_manifest(str(write(folder, {"file_name": ["a/1.png", "b/9.png"], "label": ["a", "b"]})))
    with pytest.raises(DataError, match=r"1 of 2 files are not there: .*/data/b/9\.png"):
        check_files(manifest)


def test_metadata_without_file_names_is_none(folder: Path) -> None:
    manifest = read_manifest(str(write(folder, {"author": ["me"]})))
    assert manifest.kind == "folder"
    assert manifest.table["label"].tolist() == ["a", "a", "b", "b"]
    assert "metadata.csv" in manifest.warnings[0]


def test_metadata_twice(folder: Path) -> None:
    write(folder, {"file_name": FILES})
    assert "metadata twice: metadata.csv, metadata.jsonl" in refused(
        write(folder, {"file_name": FILES}, "jsonl")
    )


def test_a_path_beside_the_file_name(folder: Path) -> None:
    assert "both a column file_name and a column path" in refused(
        write(folder, {"file_name": FILES, "path": FILES})
    )


def test_splits(folder: Path) -> None:
    write(folder / "a", {"file_name": ["1.png", "2.png"], "label": ["x", "y"]})
    assert "metadata in its sub-folder a, and none of its own" in refused(folder)
    assert "split='a'" in refused(folder)
    (folder / "a").rename(folder / "train")
    write(folder / "b", {"file_name": ["1.png"], "label": ["x"]})
    assert "2 splits: b (1), train (2)" in refused(folder)
    assert "split='train'" in refused(folder)
    assert read_manifest(f"{folder}/train").table["path"].tolist() == ["1.png", "2.png"]


@pytest.mark.parametrize("metadata", [True, False])
def test_the_same_as_hugging_face(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, metadata: bool
) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    if metadata:
        write(folder, {"file_name": FILES, "label": ["cat", "dog", "cat", "owl"], "note": list("wxyz")})
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    labels = loaded["label"][:] if metadata else loaded.features["label"].int2str(loaded["label"][:])
    images = loaded.cast_column("image", datasets.Image(decode=False))["image"][:]
    expected = {image["path"]: label for image, label in zip(images, labels, strict=True)}
    manifest = read_manifest(str(folder))
    assert len(expected) == 4
    assert dict(zip(manifest.files(), manifest.table["label"], strict=True)) == expected
