"""Embeddings with labels, and what is said of files that hold something else."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from divacli.errors import DataError
from divacli.manifest import ArrayFile, Manifest, check_files, read_manifest, relocate, write_table

EMBEDDING = np.arange(12, dtype=np.float32).reshape(4, 3)


def read(tmp_path: Path, **arrays: object) -> Manifest:
    np.savez(tmp_path / "e.npz", **{"embedding": EMBEDDING, "label": np.array([0, 1, 1, 0]), **arrays})
    return read_manifest(str(tmp_path / "e.npz"))


def test_labels_alone(tmp_path: Path) -> None:
    manifest = read(tmp_path)
    assert (manifest.kind, manifest.folder, manifest.warnings) == ("npz", tmp_path, ())
    assert manifest.table.to_dict("list") == {
        "path": ["0", "1", "2", "3"],
        "label": ["0", "1", "1", "0"],
        "weight": [1.0] * 4,
        "feature_source": ["e.npz"] * 4,
    }
    assert isinstance(manifest.embeddings, ArrayFile)
    assert (manifest.embeddings[1:3] == EMBEDDING[1:3]).all()
    check_files(manifest)


def test_everything(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        path=np.array(["x/1.png", "x/2.png", "ü", "4"]),
        weight=np.array([1, 2, 0.5, 0], np.float16),
        group=np.array([7, 7, 8, 8]),
        label=np.array([b"a", b"b", b"b", b"a"]),
    ).table
    assert table["path"].tolist() == ["x/1.png", "x/2.png", "ü", "4"]
    assert table["weight"].tolist() == [1.0, 2.0, 0.5, 0.0]
    assert table["group"].tolist() == ["7", "7", "8", "8"]
    assert table["label"].tolist() == ["a", "b", "b", "a"]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_embeddings_in_memory_or_not(tmp_path: Path, dtype: str, save: object) -> None:
    save(tmp_path / "e.npz", embedding=EMBEDDING.astype(dtype), label=["a", "b", "b", "a"])
    embeddings = read_manifest(str(tmp_path / "e.npz")).embeddings
    assert embeddings.shape == (4, 3)
    assert embeddings.dtype == np.dtype(dtype).newbyteorder("=")
    assert (embeddings[:] == EMBEDDING).all()


@pytest.mark.parametrize(
    ("labels", "class_name", "expected"),
    [
        ([0, 1, 1, 0], ["cat", "dog"], ["cat", "dog", "dog", "cat"]),
        ([0, 1, 1, 0], ["cat", "dog", "bird"], ["cat", "dog", "dog", "cat"]),
        # As many names as samples: one a sample if that agrees with the labels, else one a class.
        ([0, 1, 1, 0], ["cat", "dog", "dog", "cat"], ["cat", "dog", "dog", "cat"]),
        ([3, 1, 1, 3], ["ant", "bee", "cat", "dog"], ["dog", "bee", "bee", "dog"]),
        ([70, 10, 10, 70], ["cat", "dog", "dog", "cat"], ["cat", "dog", "dog", "cat"]),
        (["n1", "n2", "n2", "n1"], ["cat", "dog", "dog", "cat"], ["cat", "dog", "dog", "cat"]),
    ],
)
def test_class_names(tmp_path: Path, labels: list, class_name: list[str], expected: list[str]) -> None:
    manifest = read(tmp_path, label=np.array(labels), class_name=np.array(class_name))
    assert manifest.table["label"].tolist() == expected
    assert "class_name" not in manifest.table


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([7, 7, 8, 9], ">i4"), [7, 7, 8, 9]),
        (np.array([0.5, np.inf, 2.5, 3.5], np.float16), [0.5, np.inf, 2.5, 3.5]),
        (np.array([True, False, False, True]), [True, False, False, True]),
        (np.array(["p1", "p1", "", "ü"]), ["p1", "p1", "", "ü"]),
        (np.array([b"p1", b"p1", b"p2", b""]), ["p1", "p1", "p2", ""]),
    ],
    ids=["integers", "floats", "booleans", "texts", "bytes"],
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_other_arrays_of_one_entry_a_sample_are_columns(
    tmp_path: Path, save: object, values: np.ndarray, expected: list, form: str
) -> None:
    save(tmp_path / "e.npz", embedding=EMBEDDING, label=[0, 1, 1, 0], patient_id=values)
    manifest = read_manifest(str(tmp_path / "e.npz"))
    assert manifest.table["patient_id"].tolist() == expected
    assert (manifest.unused, manifest.warnings) == (("patient_id",), ())
    write_table(manifest.table, tmp_path / f"out.{form}", form)
    again = read_manifest(str(tmp_path / f"out.{form}")).table["patient_id"]
    assert again.astype(str).tolist() == manifest.table["patient_id"].astype(str).tolist()


@pytest.mark.parametrize(
    "extra",
    [
        np.zeros(9),
        np.zeros((4, 1)),
        np.array(1),
        np.array(["a", None, "b", 1], object),
        np.zeros(4, complex),
        np.array([b"\xff"] * 4),
    ],
    ids=["length", "matrix", "scalar", "objects", "complex", "encoding"],
)
def test_arrays_that_are_no_columns_are_named(tmp_path: Path, extra: np.ndarray) -> None:
    manifest = read(tmp_path, extra=extra)
    assert manifest.warnings == (f"{tmp_path}/e.npz: arrays not used: extra.",)
    assert "extra" not in manifest.table


def test_an_array_cannot_say_where_the_embeddings_are(tmp_path: Path) -> None:
    manifest = read(tmp_path, feature_source=np.array(["other.npz"] * 4))
    assert manifest.table["feature_source"].tolist() == ["e.npz"] * 4
    assert manifest.warnings == (f"{tmp_path}/e.npz: arrays not used: feature_source.",)


def test_a_large_array_that_is_no_column_is_not_read(tmp_path: Path) -> None:
    pixels = np.zeros((4, 3_000_000), np.uint8)
    np.savez_compressed(tmp_path / "e.npz", embedding=EMBEDDING, label=[0, 1, 1, 0], pixels=pixels)
    tracemalloc.start()
    try:
        read_manifest(str(tmp_path / "e.npz"))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embedding": np.zeros(4, "f4")}, r"float32 of shape \(4,\)"),
        ({"embedding": np.zeros((4, 0), "f4")}, r"shape \(4, 0\)"),
        ({"embedding": np.zeros((4, 3), "i4")}, "embedding is int32"),
        ({"embedding": np.array([[None]])}, r"array embedding cannot be read(.|\n)*without Python objects"),
        ({"label": np.array(["a", None], object)}, r"array label cannot be read(.|\n)*astype\(str\)"),
        ({"label": np.eye(4)}, r"label has shape \(4, 4\)(.|\n)*argmax"),
        ({"label": np.arange(3)}, r"label has shape \(3,\)(.|\n)*\(4,\), one entry for each row"),
        ({"label": np.zeros(4, int)}, "one class only: 0"),
        (
            {"weight": np.array([1, 1, -1, np.nan])},
            "weight is empty, negative or not finite in data rows 3, 4",
        ),
        ({"path": np.array(["a", "b", "b", "c"])}, "same path more than once, again in data row 3: b"),
        ({"group": np.array(1)}, "group has shape"),
        ({"class_name": np.array(["cat"])}, "class_name has 1 entries, which do not name the labels"),
        ({"class_name": np.array([["cat", "dog"]])}, r"class_name has shape \(1, 2\)"),
        ({"label": np.array([0, -1, 0, 1]), "class_name": np.array(["a", "b"])}, "do not name the labels"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, **arrays)


def test_missing_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", features=EMBEDDING)
    with pytest.raises(DataError, match="no array embedding, label; it has: features"):
        read_manifest(str(tmp_path / "e.npz"))


def test_no_npz_at_all(tmp_path: Path) -> None:
    (tmp_path / "e.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"numpy\.savez"):
        read_manifest(str(tmp_path / "e.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_file_never_gives_another_error(tmp_path: Path, save: object) -> None:
    save(tmp_path / "good.npz", embedding=EMBEDDING, label=["a", "b", "b", "a"])
    data = (tmp_path / "good.npz").read_bytes()
    random = np.random.default_rng(0)
    seen = 0
    for _ in range(200):
        damaged = bytearray(data)
        for position in random.integers(0, len(data), 3):
            damaged[position] = random.integers(256)
        (tmp_path / "e.npz").write_bytes(damaged)
        try:
            manifest = read_manifest(str(tmp_path / "e.npz"))
            assert len(manifest.embeddings[:]) == len(manifest.table)
        except DataError:
            seen += 1
    assert seen > 20


def test_a_part_of_it_is_a_table_that_says_where_the_embeddings_are(tmp_path: Path) -> None:
    part = read(tmp_path).select(np.array([2, 0]))
    assert (part.kind, part.embeddings) == ("table", None)
    target = tmp_path / "out" / "kept.csv"
    write_table(relocate(part.table, part.folder, target.parent), target, "csv")
    again = read_manifest(str(target))
    assert again.table["path"].tolist() == ["2", "0"]
    assert again.table["feature_source"].tolist() == ["../e.npz"] * 2
    check_files(again)


def test_hundreds_of_other_arrays_are_columns_without_a_warning_of_pandas(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    more = {f"c{number}": np.array([number, 0, 0, 0]) for number in range(200)}
    np.savez(tmp_path / "x.npz", embedding=np.eye(4, 2), label=np.array([0, 0, 1, 1]), **more)
    table = read_manifest(str(tmp_path / "x.npz")).table
    assert [table[name][0] for name in more] == list(range(200))
    assert not recwarn.list


def test_more_arrays_than_any_data_set_has(tmp_path: Path) -> None:
    """Each was looked for among all of them, so that 4,000 took minutes."""
    more = {f"c{number}": np.zeros(1) for number in range(999)}
    np.savez(tmp_path / "x.npz", embedding=np.eye(4, 2), label=np.array([0, 0, 1, 1]), **more)
    with pytest.raises(DataError, match=r"x\.npz has 1,001 arrays\nexpected: 1,000 at the most"):
        read_manifest(str(tmp_path / "x.npz"))
