"""Data sets of Hugging Face go through diva and come back: the same rows, labels, weights and scores."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from divacli.errors import DataError, DivaError, OutputError
from divacli.interchange.huggingface import from_dataset, to_dataset
from divacli.manifest import check_files, read_manifest, write_table
from tests.made import FACTORY, tinted

datasets = pytest.importorskip("datasets", reason="datasets is not installed")

N = 36
NAMES = ["cat", "=dog", "owl"]


def encoded(row: int, format: str) -> bytes:
    stream = io.BytesIO()
    tinted(row % 3, np.random.default_rng(row)).save(stream, format)
    return stream.getvalue()


def dataset_of(**columns: Any) -> datasets.Dataset:
    """N images of three classes, PNG and JPEG by turns, and more columns."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    images = [{"bytes": encoded(row, "PNG" if row % 2 else "JPEG"), "path": None} for row in range(N)]
    made = datasets.Dataset.from_dict({"image": images, "label": [row % 3 for row in range(N)]}, features)
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


@pytest.fixture
def dataset() -> datasets.Dataset:
    return dataset_of(note=[f"=n{row}" for row in range(N)], size=list(range(N)), list=[[1]] * N)


@pytest.fixture
def diva(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command that must succeed, with a tiny network, in a fresh folder."""
    from divacli.cli.app import app

    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(FACTORY)

    def run(*arguments: object) -> None:
        result = CliRunner().invoke(app, [*map(str, arguments), "--model", "net.py:make"])
        assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"

    return run


def raw(data: datasets.Dataset) -> list[bytes]:
    return [image["bytes"] for image in data.cast_column("image", datasets.Image(decode=False))["image"][:]]


def refused(call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_images_are_written_as_they_are_encoded(dataset: datasets.Dataset, tmp_path: Path) -> None:
    file = from_dataset(dataset, tmp_path / "data")
    assert file == tmp_path / "data/manifest.csv"
    manifest = read_manifest(str(file))
    check_files(manifest)
    assert list(manifest.table) == ["path", "label", "weight", "id", "note", "size"]
    assert manifest.table["path"][:2].tolist() == ["images/000000.jpg", "images/000001.png"]
    assert [Path(path).read_bytes() for path in manifest.files()] == raw(dataset)
    assert manifest.table["label"].tolist() == NAMES * (N // 3)
    assert manifest.table["id"].tolist() == [str(row) for row in range(N)]
    assert manifest.table["note"].tolist() == dataset["note"][:]


def test_pixels_alone_are_written_as_png(tmp_path: Path) -> None:
    pixels = [np.random.default_rng(row).integers(0, 256, (5, 6, 3), dtype=np.uint8) for row in range(4)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    images = [Image.fromarray(array) for array in pixels]
    made = datasets.Dataset.from_dict({"image": images, "label": list("abab")}, features)
    manifest = read_manifest(str(from_dataset(made, tmp_path)))
    for file, array in zip(manifest.files(), pixels, strict=True):
        with Image.open(file) as image:
            assert image.format == "PNG"
            assert np.array_equal(np.asarray(image), array)


def test_images_by_path_and_other_columns(tmp_path: Path) -> None:
    for row in range(4):
        (tmp_path / f"{row}.jpg").write_bytes(encoded(row, "JPEG"))
    made = datasets.Dataset.from_dict(
        {"photo": [str(tmp_path / f"{row}.jpg") for row in range(4)], "kind": [7, 8, 7, 8]}
    ).cast_column("photo", datasets.Image())
    manifest = read_manifest(str(from_dataset(made, tmp_path / "data", image="photo", label="kind")))
    assert manifest.table["label"].tolist() == ["7", "8", "7", "8"]
    assert [Path(file).read_bytes() for file in manifest.files()] == [
        encoded(row, "JPEG") for row in range(4)
    ]
    pool = read_manifest(str(from_dataset(made, tmp_path / "pool", "photo", label=None)), labels="optional")
    assert not pool.labelled
    assert pool.table["kind"].tolist() == ["7", "8", "7", "8"]


def test_called_again_it_writes_what_is_missing_or_differs(dataset: datasets.Dataset, tmp_path: Path) -> None:
    from_dataset(dataset, tmp_path)
    images = sorted((tmp_path / "images").iterdir())
    before = [image.stat().st_mtime_ns for image in images]
    expected = [image.read_bytes() for image in images]
    images[3].unlink()
    images[5].write_bytes(expected[5][:10])
    images[6].write_bytes(bytes(len(expected[6])))
    from_dataset(dataset, tmp_path)
    assert [image.read_bytes() for image in images] == expected
    same = [row for row in range(N) if images[row].stat().st_mtime_ns == before[row]]
    assert same == [row for row in range(N) if row not in (3, 5, 6)]


@pytest.mark.parametrize("shuffled", [False, True])
def test_score_prune_and_back(dataset: datasets.Dataset, diva: Callable[..., Any], *, shuffled: bool) -> None:
    if shuffled:
        dataset = dataset.shuffle(seed=0)
    file = from_dataset(dataset, "data")
    diva("score", file, "--out", "scored")
    diva("prune", "scored/scores.csv", "--keep", "0.5", "--force", "--out", "pruned")
    kept = read_manifest("pruned/kept.csv").table
    rows = sorted(map(int, kept["id"]))
    assert len(rows) == N // 2
    back = to_dataset(dataset, "pruned/kept.csv")
    assert raw(back) == raw(dataset.select(rows))
    assert {name: back.features[name] for name in dataset.features} == dict(dataset.features)
    for name in ("label", "note", "size", "list"):
        assert back[name][:] == dataset.select(rows)[name][:]
    assert back["weight"][:] == [1.0] * len(rows)

    scored = to_dataset(dataset, Path("scored/scores.csv"))
    table = read_manifest("scored/scores.csv").table
    by_row = dict(zip(map(int, table["id"]), table["derivative"], strict=True))
    assert scored["derivative"][:] == [by_row[row] for row in range(N)]
    assert sorted(scored["rank"][:]) == list(range(1, N + 1))
    assert {type(value) for value in scored["significant"][:]} == {bool}
    # Scores of before are no columns for diva, and make way for later ones.
    again = read_manifest(str(from_dataset(scored, "again")))
    assert "derivative" not in again.table
    assert to_dataset(scored, "scored/scores.csv")["derivative"][:] == scored["derivative"][:]


def test_labels_and_weights_of_the_table(dataset: datasets.Dataset, tmp_path: Path) -> None:
    table = read_manifest(str(from_dataset(dataset, tmp_path))).table.iloc[::-1]
    table.loc[0, "label"], table.loc[1, "label"], table.loc[2, "label"] = "owl", "zebra", "ant"
    table["weight"] = [float(row) for row in table["id"]]
    write_table(table.drop(index=3), tmp_path / "relabelled.csv", "csv")
    back = to_dataset(dataset, tmp_path / "relabelled.csv")
    assert len(back) == N - 1
    assert back.features["label"].names == [*NAMES, "ant", "zebra"]
    assert back["label"][:5] == [2, 4, 3, 1, 2]
    assert back["weight"][:] == [float(row) for row in range(N) if row != 3]
    assert back.column_names[:5] == dataset.column_names
    untouched = to_dataset(dataset, tmp_path / "relabelled.csv", label=None)
    assert untouched["label"][:5] == [0, 1, 2, 1, 2]
    assert dataset.features["label"].names == NAMES


@pytest.mark.parametrize(
    ("values", "label", "expected"),
    [([7, 8], "9", 9), ([True, False], "False", False), (["a", "b"], "c", "c")],
)
def test_labels_keep_their_type(tmp_path: Path, values: list[Any], label: str, expected: object) -> None:
    made = dataset_of().remove_columns("label").add_column("label", values * (N // 2))
    table = pd.read_csv(from_dataset(made, tmp_path), dtype=str)
    table.loc[0, "label"] = label
    back = to_dataset(made, table)
    assert back.features == {**made.features, "weight": datasets.Value("float64")}
    assert back["label"][:] == [expected, *(values * (N // 2))[1:]]


def test_labels_of_another_type(tmp_path: Path) -> None:
    made = dataset_of().remove_columns("label").add_column("label", [7, 8] * (N // 2))
    table = pd.read_csv(from_dataset(made, tmp_path), dtype=str)
    table.loc[0, "label"] = "cat"
    assert "the label 'cat' is no int64" in refused(to_dataset, made, table)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["0", "1", str(N)], f"1 ids are no rows of this data set of {N}, in data row 3: '{N}'"),
        (["0", "-1", "x"], "2 ids are no rows of this data set of 36, in data rows 2, 3: '-1', 'x'"),
        (["0", "", "2"], "1 ids are no rows"),
        (["0", "1", "1"], "the same id more than once, again in data row 3"),
    ],
)
def test_ids_that_do_not_match(dataset: datasets.Dataset, ids: list[str], said: str) -> None:
    table = pd.DataFrame({"path": ["a", "b", "c"], "label": ["cat", "owl", "cat"], "id": ids})
    assert said in refused(to_dataset, dataset, table)
    assert "has no column id" in refused(to_dataset, dataset, table.drop(columns="id"))


def test_data_sets_that_are_none(dataset: datasets.Dataset, tmp_path: Path) -> None:
    splits = datasets.DatasetDict({"train": dataset, "test": dataset})
    for call, rest in ((from_dataset, tmp_path), (to_dataset, "kept.csv")):
        assert "several data sets: train, test" in refused(call, splits, rest)
        assert 'dataset["train"]' in refused(call, splits, rest)
        assert "is a stream" in refused(call, dataset.to_iterable_dataset(), rest)
        assert "this is a list" in refused(call, [], rest)
        assert "has no column kind; its columns are: image, label" in refused(
            call, dataset, rest, label="kind"
        )
    assert "has no column photo" in refused(from_dataset, dataset, tmp_path, image="photo")
    assert "cast_column" in refused(from_dataset, dataset, tmp_path, image="note")
    assert "expected: a ClassLabel" in refused(from_dataset, dataset, tmp_path, label="list")
    assert "no rows" in refused(from_dataset, dataset.select([]), tmp_path)


def test_a_row_without_an_image(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    images = [{"bytes": encoded(0, "PNG"), "path": None}, None]
    made = datasets.Dataset.from_dict({"image": images, "label": ["a", "b"]}, features)
    assert "no image in row 1" in refused(from_dataset, made, tmp_path)
    gone = datasets.Dataset.from_dict({"image": [str(tmp_path / "gone.png")], "label": ["a"]}, features)
    assert "row 0 of the data set cannot be read" in refused(from_dataset, gone, tmp_path)
    assert not (tmp_path / "manifest.csv").exists()


def test_an_image_that_is_damaged_is_left_to_diva(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    images = [{"bytes": data, "path": None} for data in (b"no image", encoded(0, "PNG"))]
    file = from_dataset(
        datasets.Dataset.from_dict({"image": images, "label": ["a", "b"]}, features), tmp_path
    )
    assert pd.read_csv(file)["path"].tolist() == ["images/000000.bin", "images/000001.png"]


def test_a_folder_that_cannot_be_made(dataset: datasets.Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        from_dataset(dataset, tmp_path / "file")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DivaError, match=r"pip install 'divacli\[huggingface\]'"):
        from_dataset(None, tmp_path)  # type: ignore[arg-type]
