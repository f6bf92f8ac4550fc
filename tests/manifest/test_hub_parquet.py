"""Parquet files of the Hugging Face Hub, with images in them, become tables of samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from divacli.errors import DataError
from divacli.files.path_or_url import read_bytes
from divacli.manifest import Manifest, check_files, read_manifest, relocate, write_table
from divacli.manifest.understood import sentence
from divacli.reading import Reading
from tests.hub import images, png, write_hub

ANIMALS = {"label": ["cat", "dog"]}


def hub(file: Path, n: int = 4, names: Mapping[str, Any] = ANIMALS, **columns: Any) -> Path:
    """A file of n images with the labels 0, 1, 0, 1 ..."""
    return write_hub(
        file,
        {"image": images([png(number) for number in range(n)]), "label": [0, 1] * (n // 2), **columns},
        names,
    )


def read(data: Path, labels: str = "required", **reading: Any) -> Manifest:
    manifest = read_manifest(str(data), labels=labels, reading=Reading(**reading))  # type: ignore[arg-type]
    check_files(manifest)
    return manifest


def refused(data: Path, labels: str = "required", **reading: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(data, labels, **reading)
    return caught.value


def test_a_file_as_the_hub_has_it(tmp_path: Path) -> None:
    columns = {
        "image": images([png(number) for number in range(4)], ["a.png", None, "c.png", "d.png"]),
        "label": [1, 0, 1, 0],
        "age": [1, None, 3, 4],
        "place": ["x", "y", None, "z"],
        "objects": [[1], [2], [3], []],
    }
    manifest = read(write_hub(tmp_path / "x.parquet", columns, ANIMALS))
    table = manifest.table
    assert list(table) == ["path", "label", "weight", "age", "place", "image_path"]
    assert table["path"].tolist() == [f"x.parquet/{row}" for row in range(4)]
    assert table["label"].tolist() == ["dog", "cat", "dog", "cat"]
    assert table["age"].tolist() == [1, None, 3, 4]
    assert table["image_path"].tolist() == ["a.png", "", "c.png", "d.png"]
    assert [read_bytes(file) for file in manifest.files()] == [png(number) for number in range(4)]
    assert manifest.kind == "parquet"
    assert manifest.notes == ()
    assert sentence(manifest).endswith(
        "x.parquet: Parquet with images in it, 4 samples in 2 classes; path from image; label from label"
    )
    (warning,) = manifest.warnings
    assert warning.endswith("columns not kept, for they hold no single values: objects.")


def test_the_bytes_of_images_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = hub(tmp_path / "x.parquet")
    content = bytearray(file.read_bytes())
    start = content.index(b"\x89PNG")
    content[start : start + 400] = bytes(400)  # a checksum of pages would not stand that
    file.write_bytes(content)
    manifest = read(file)
    assert len(manifest.table) == 4
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_bytes(manifest.files()[0])


def test_a_column_of_bytes_without_a_word_of_what_it_is(tmp_path: Path) -> None:
    table = pa.table({"picture": [png(0), png(1)], "label": ["a", "b"], "raw": [b"x", b"y"]})
    pq.write_table(table, tmp_path / "x.parquet")
    manifest = read(tmp_path / "x.parquet")
    assert manifest.table["label"].tolist() == ["a", "b"]
    assert read_bytes(manifest.files()[1]) == png(1)
    assert "not kept, for they hold no single values: raw" in manifest.warnings[0]


def test_tables_that_name_their_images_are_read_as_before(tmp_path: Path) -> None:
    for cell in (png(0), {"bytes": png(0), "path": "1.png"}):
        table = pa.table({"path": ["1.png", "2.png"], "label": ["a", "b"], "thumbnail": [cell, cell]})
        pq.write_table(table, tmp_path / "x.parquet")
        manifest = read_manifest(str(tmp_path / "x.parquet"))
        assert manifest.kind == "table"
        assert manifest.table["path"].tolist() == ["1.png", "2.png"]


def test_columns_that_are_called_as_diva_calls_its_own(tmp_path: Path) -> None:
    file = hub(tmp_path / "x.parquet", path=["p"] * 4, other=[1, 0, 0, 1], names={"other": ["a", "b"]})
    manifest = read(file)
    assert manifest.table["path"].tolist() == [f"x.parquet/{row}" for row in range(4)]
    assert manifest.table["label"].tolist() == ["b", "a", "a", "b"]
    assert manifest.table["original_path"].tolist() == ["p"] * 4
    assert manifest.table["original_label"].tolist() == [0, 1, 0, 1]


def test_which_column_is_the_label(tmp_path: Path) -> None:
    file = hub(tmp_path / "x.parquet", fine=[3, 2, 1, 0], names={**ANIMALS, "fine": list("abcd")})
    error = refused(file)
    assert "has 2 columns of class labels: label, fine" in str(error)
    assert "--label-column label" in error.typed_parts[-1]
    assert read(file, label_column=("fine",)).table["label"].tolist() == ["d", "c", "b", "a"]
    assert "has no column x" in str(refused(file, label_column=("x",)))
    columns = {"img": images([png(0), png(1)]), "kind": ["a", "b"]}
    error = refused(write_hub(tmp_path / "y.parquet", columns))
    assert "has no column label; its columns are: path, kind" in str(error)
    assert "--label-column kind" in error.typed_parts[-1]
    assert read(tmp_path / "y.parquet", label_column=("kind",)).table["label"].tolist() == ["a", "b"]
    assert not read(tmp_path / "y.parquet", "optional").labelled
    assert read(write_hub(tmp_path / "z.parquet", {"img": columns["img"], "label": [7, 3]})).classes == [
        "3",
        "7",
    ]


def test_which_column_is_the_image(tmp_path: Path) -> None:
    file = hub(tmp_path / "x.parquet", mask=images([png(10 + number) for number in range(4)]))
    error = refused(file)
    assert "has 2 columns of images: image, mask" in str(error)
    assert "--path-column image" in error.typed_parts[-1]
    manifest = read(file, path_column="mask")
    assert manifest.table["path"].tolist() == [f"x.parquet/mask/{row}" for row in range(4)]
    assert read_bytes(manifest.files()[2]) == png(12)
    again = pd.DataFrame({"path": manifest.table["path"], "label": manifest.table["label"]})
    again.to_csv(tmp_path / "again.csv", index=False)
    assert read_bytes(read(tmp_path / "again.csv").files()[2]) == png(12)


def test_labels_that_are_missing(tmp_path: Path) -> None:
    file = hub(tmp_path / "x.parquet", label=[0, -1, None, 1])
    assert "label is empty in data rows 2, 3" in str(refused(file))
    none = hub(tmp_path / "y.parquet", label=[-1] * 4)
    assert "label is empty in data rows 1, 2, 3, 4" in str(refused(none))
    assert not read(none, "optional").labelled
    assert "2 of 4 rows have no label" in str(refused(file, "optional"))


def test_labels_without_names(tmp_path: Path) -> None:
    error = refused(hub(tmp_path / "x.parquet", label=[0, 1, 2, -2]))
    assert "a number without a name in data rows 3, 4: 2" in str(error)
    assert "two classes of one name" in str(refused(hub(tmp_path / "x.parquet", names={"label": ["a", "a"]})))
    odd = hub(tmp_path / "x.parquet", names={"label": []}, label=["b", "a", "b", "a"])
    assert read(odd).classes == ["a", "b"]


def test_rows_without_images_are_samples_that_fail(tmp_path: Path) -> None:
    file = hub(tmp_path / "x.parquet", image=images([png(0), None, png(2), b""]))
    manifest = read(file)
    with pytest.raises(DataError, match="row 1 has no bytes in its column image"):
        read_bytes(manifest.files()[1])


def test_a_folder_of_shards(tmp_path: Path) -> None:
    for number in range(2):
        hub(tmp_path / f"d/data/train-0000{number}-of-00002.parquet", 4, age=[number] * 4)
    hub(tmp_path / "d/data/test-00000-of-00001-0123456789abcdef.parquet", 2)
    (tmp_path / "d/README.md").write_text("x")
    error = refused(tmp_path / "d")
    assert "has 2 splits: test (2), train (8)" in str(error)
    assert error.typed_parts[-1] == f"to do: give {tmp_path}/d --split train"
    train = read(tmp_path / "d", split=("train",))
    assert train.table["path"].tolist() == [
        f"data/train-0000{number}-of-00002.parquet/{row}" for number in range(2) for row in range(4)
    ]
    assert train.table["split"].unique().tolist() == ["train"]
    assert len(read(tmp_path / "d", split=("test",)).table) == 2
    everything = read(tmp_path / "d", split=("all",))
    assert everything.table["split"].value_counts().to_dict() == {"train": 8, "test": 2}
    assert everything.table["age"].tolist() == [None] * 2 + [0] * 4 + [1] * 4
    assert "has no split val" in str(refused(tmp_path / "d", split=("val",)))


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train.parquet", "validation.parquet"], {"train": 2, "validation": 2}),
        (
            ["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"],
            {"train": 4, "test": 2},
        ),
        (["0000.parquet", "0001.parquet"], {}),
        (["train/0000.parquet"], {"train": 2}),
        (["plain/train-00000-of-00001.parquet"], {"train": 2}),
    ],
)
def test_layouts(tmp_path: Path, files: list[str], splits: dict[str, int]) -> None:
    for file in files:
        hub(tmp_path / "d" / file, 2)
    manifest = read(tmp_path / "d", split=("all",) if len(splits) > 1 else ())
    assert len(manifest.table) == 2 * len(files)
    found = manifest.table["split"].value_counts().to_dict() if "split" in manifest.table else {}
    assert found == splits


def test_several_configurations(tmp_path: Path) -> None:
    for config in ("clean", "noisy"):
        hub(tmp_path / f"d/{config}/train-00000-of-00001.parquet")
    error = refused(tmp_path / "d")
    assert "has 2 data sets in Parquet: clean, noisy" in str(error)
    assert error.hint.endswith("d/clean")
    assert len(read(tmp_path / "d/noisy").table) == 4


def test_a_folder_of_images_is_one_also_beside_parquet(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(png(0))
    hub(tmp_path / "x.parquet")
    assert read(tmp_path).kind == "folder"


def test_a_written_table_leads_to_the_same_bytes(tmp_path: Path) -> None:
    manifest = read(hub(tmp_path / "in/x.parquet"))
    for format in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"out/kept.{format}"
        out.parent.mkdir(exist_ok=True)
        write_table(relocate(manifest.table, manifest.folder, out.parent), out, format)  # type: ignore[arg-type]
        again = read(out)
        assert again.table["path"].tolist() == [f"../in/x.parquet/{row}" for row in range(4)]
        assert [read_bytes(file) for file in again.files()] == [png(number) for number in range(4)]
    rows = pd.DataFrame({"path": ["../in/x.parquet/3", "../in/x.parquet/4"], "label": ["a", "b"]})
    rows.to_csv(tmp_path / "out/gone.csv", index=False)
    assert "1 of 2 files are not there" in str(refused(tmp_path / "out/gone.csv"))


def test_where_images_in_parquet_are_not_read(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    content = hub(tmp_path / "x.parquet").read_bytes()
    with fsspec.open("memory://hub/x.parquet", "wb") as stream:
        stream.write(content)
    with pytest.raises(DataError, match="holds images, in its column image") as caught:
        read_manifest("memory://hub/x.parquet")
    assert "download it" in str(caught.value)
    with (tmp_path / "x.parquet").open("rb") as stream, pytest.raises(DataError, match="holds images"):
        read_manifest("-", stdin=stream)


def test_more_rows_than_a_file_has_room_for(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    nothing = pa.nulls(3_000_000, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": nothing}), file, compression="zstd")
    assert file.stat().st_size < 20_000
    assert "states 3,000,000 rows" in str(refused(file, "optional"))
