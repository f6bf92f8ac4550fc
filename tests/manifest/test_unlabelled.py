"""Pools may lack labels, be of one class, or weigh nothing; samples to learn classes from may not."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.manifest import Manifest, manifest_of, read_manifest, relocate, write_table
from tests.made import WEIGHTS


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def read(tmp_path: Path, text: str, name: str = "t.csv") -> Manifest:
    (tmp_path / name).write_text(text)
    return read_manifest(str(tmp_path / name), labels="optional", reading=WEIGHTS)


def npz(tmp_path: Path, **arrays: object) -> str:
    np.savez(tmp_path / "e.npz", embedding=np.eye(3, dtype=np.float32), **arrays)
    return str(tmp_path / "e.npz")


UNLABELLED = [
    ("path\n1\n2\n", "t.csv"),
    ("path,label\n1,\n2, \n", "t.csv"),
    ("path\tlabel\n1\t\n2\t\n", "t.tsv"),
    ('{"path": "1"}\n{"path": "2"}\n', "t.jsonl"),
    ('{"path": "1", "label": null}\n{"path": "2", "label": ""}\n', "t.jsonl"),
]


@pytest.mark.parametrize(("text", "name"), UNLABELLED)
def test_tables_without_labels(tmp_path: Path, text: str, name: str) -> None:
    manifest = read(tmp_path, text, name)
    assert list(manifest.table) == ["path", "label", "weight"]
    assert manifest.table["path"].tolist() == ["1", "2"]
    assert manifest.table["label"].tolist() == ["", ""]
    assert (manifest.labelled, manifest.classes, manifest.warnings) == (False, [], ())
    with pytest.raises(DataError, match=r"no column label|label is empty in data rows 1, 2"):
        read_manifest(str(tmp_path / name))


def test_standard_input_without_labels() -> None:
    manifest = read_manifest("-", stdin=io.BytesIO(b"path\n1\n"), labels="optional")
    assert manifest.table["label"].tolist() == [""]


def test_a_pool_with_labels_is_read_as_ever(tmp_path: Path) -> None:
    text = "mine,label,path\nx,a,1\ny,b,2\nz,B,3\n"
    manifest = read(tmp_path, text)
    required = read_manifest(str(tmp_path / "t.csv"))
    assert manifest.labelled
    pd.testing.assert_frame_equal(manifest.table, required.table)
    # Every class of a pool may have a single sample: none is ever left out.
    assert set(required.warnings) - set(manifest.warnings) == {
        f"{tmp_path}/t.csv: classes with a single sample: B, a, b."
    }


def test_one_class_and_weights_of_zero_are_fine_in_a_pool(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label,weight\n1,a,0\n2,a,0\n")
    assert (manifest.labelled, manifest.classes) == (True, ["a"])
    assert manifest.table["weight"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("path,label\n1,a\n2,\n3, \n", ["2 of 3 rows have no label", "or in none", "two tables"]),
        ("file\n1\n", ["no column path;", "with the columns path,", "path_column='file'"]),
        ("x\nnowhere at all\n", ["add the header path"]),
        ("path\n1\n./1\n", ["the same path more than once"]),
        ("path,label\n,\n", ["path is empty in data row 1"]),
        ("path,weight\n1,-1\n", ["weight is empty, negative"]),
        ("path\n", ["a header and no rows"]),
    ],
)
def test_all_other_checks_stay(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    for part in parts:
        assert part in str(caught.value)


def test_a_column_that_looks_like_labels_is_pointed_out(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,Class\n1,a\n2,b\n")
    assert not manifest.labelled
    assert (
        manifest.warnings[-1]
        == f"{tmp_path}/t.csv: no column label; --label-column 'Class' takes that for it."
    )
    assert read(tmp_path, "path,true_label\n1,a\n2,b\n").warnings == ()


def test_images_directly_in_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "2.png", "1.jpg", "notes.txt", "empty/.keep")
    manifest = read_manifest(str(tmp_path), labels="optional")
    assert manifest.table["path"].tolist() == ["1.jpg", "2.png"]
    assert manifest.table["label"].tolist() == ["", ""]
    assert not manifest.labelled
    others, empty = manifest.warnings
    assert "1 sub-folders without images: empty." in empty
    assert "1 files that are not images: notes.txt." in others
    with pytest.raises(DataError, match=r"2 images without a class folder \(1 sub-folders\)"):
        read_manifest(str(tmp_path))


def test_folder_of_class_folders_has_labels(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "loose.png")
    manifest = read_manifest(str(tmp_path), labels="optional")
    assert manifest.table["label"].tolist() == ["cat"]
    assert "1 images outside any class folder: loose.png." in manifest.warnings[0]


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images(.|\n)*or images without labels directly in the folder"):
        read_manifest(str(tmp_path), labels="optional")


def test_embeddings_without_labels(tmp_path: Path) -> None:
    manifest = read_manifest(npz(tmp_path, path=np.array(["x", "y", "z"])), labels="optional")
    assert list(manifest.table) == ["path", "label", "weight", "feature_source"]
    assert manifest.table["label"].tolist() == [""] * 3
    assert (manifest.embeddings[:] == np.eye(3)).all()
    with pytest.raises(DataError, match="no array label; it has: embedding, path"):
        read_manifest(npz(tmp_path, path=np.array(["x", "y", "z"])))


def test_names_of_classes_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no array label; it has: embedding, class_name"):
        read_manifest(npz(tmp_path, class_name=np.array(["x", "y", "z"])), labels="optional")


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_written_and_read_back(tmp_path: Path, format: str) -> None:
    manifest = read_manifest(str(touch(tmp_path, "data/1.png", "data/2.png") / "data"), labels="optional")
    target = tmp_path / "out" / f"t.{format}"
    write_table(relocate(manifest.table, manifest.folder, target.parent), target, format)
    again = read_manifest(str(target), labels="optional")
    assert again.table["path"].tolist() == ["../data/1.png", "../data/2.png"]
    assert not again.labelled


def test_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    labelled = read_manifest(str(tmp_path))
    bare = labelled.without_labels()
    assert (bare.labelled, bare.labels_required, bare.classes) == (False, False, [])
    assert bare.table["path"].tolist() == ["a/1.png", "b/2.png"]
    assert not bare.select(np.array([1])).labelled
    assert labelled.classes == ["a", "b"]


def test_without_labels_keeps_embeddings(tmp_path: Path) -> None:
    manifest = read_manifest(npz(tmp_path, label=np.array([0, 1, 1]))).without_labels()
    assert (manifest.embeddings[:] == np.eye(3)).all()


def test_table_in_memory_is_checked_as_a_file_is(tmp_path: Path) -> None:
    table = pd.DataFrame({"label": [1, 2], "path": ["x.png", "y.png"]}, index=[7, 7])
    table.to_csv(tmp_path / "t.csv", index=False)
    manifest = manifest_of(table, tmp_path, reading=WEIGHTS)
    pd.testing.assert_frame_equal(manifest.table, read_manifest(str(tmp_path / "t.csv")).table)
    assert manifest.files() == [f"{tmp_path}/x.png", f"{tmp_path}/y.png"]
    with pytest.raises(DataError, match="pool has no column label"):
        manifest_of(table[["path"]], tmp_path, name="pool")
    assert not manifest_of(table[["path"]], tmp_path, labels="optional").labelled


def test_class_numbers(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label\n1,b\n2,a\n3,b\n")
    numbers = manifest.class_numbers(["c", "b", "a"])
    assert numbers.tolist() == [1, 2, 1]
    assert numbers.dtype == np.int64
    with pytest.raises(
        DataError, match=r"training samples lack: b\nexpected: only the 2 training classes: a, c"
    ):
        manifest.class_numbers(["a", "c"])
    with pytest.raises(DataError, match="has no labels"):
        manifest.without_labels().class_numbers(["a", "b"])
