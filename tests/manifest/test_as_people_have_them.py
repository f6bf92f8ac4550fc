"""Data as people have them: droppings of systems, Excel's tables, numbers as labels, partial metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divacli.errors import DataError
from divacli.manifest import read_manifest
from divacli.manifest.listing import DROPPINGS
from divacli.manifest.understood import split_counts
from divacli.reading import Reading


def images(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
    return folder


@pytest.mark.parametrize("dropping", DROPPINGS)
def test_what_systems_leave_behind_is_no_sample(dropping, tmp_path):
    folder = images(
        tmp_path / "photos",
        *(f"{label}/{number}.jpg" for label in ("cat", "dog") for number in range(2)),
        f"cat/{dropping}/0.jpg",
        f"{dropping}/cat/1.jpg",
    )
    manifest = read_manifest(str(folder))
    assert manifest.table["path"].tolist() == ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"]
    [said] = manifest.warnings
    both = ", ".join(sorted([dropping, f"cat/{dropping}"]))
    assert said.endswith(f"2 folders that systems leave behind: {both}.")


def test_a_folder_of_which_only_droppings_are_left_has_no_images(tmp_path):
    folder = images(tmp_path / "photos", "@eaDir/0.jpg", "cat/@eaDir/1.jpg")
    with pytest.raises(DataError, match="has no images"):
        read_manifest(str(folder))


ROWS = [("a;b/1.png", "cat"), ("2, 3.png", 'the "dog"'), ("c.png", "cat"), ("d.png", 'the "dog"')]


@pytest.mark.parametrize("mark", [";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "sep={}\r\n", '\ufeff"sep={}"\n'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_with_other_marks_between_cells(mark, start, end, tmp_path):
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if set(text) & {mark, '"', ","} else text

    rows = [("path", "label"), *ROWS]
    lines = [mark.join(map(cell, row)) for row in rows]
    lines[0] = lines[0] if start else f'"path"{mark}"label"'
    file = tmp_path / "table.csv"
    file.write_bytes((start.format(mark) + end.join(lines) + end).encode())
    manifest = read_manifest(str(file))
    assert [*zip(manifest.table["path"], manifest.table["label"], strict=True)] == ROWS
    name = {";": "semicolons", "\t": "tabs"}[mark]
    assert f"{file}: its cells are separated by {name}" in manifest.notes


def test_a_table_with_commas_is_read_as_ever(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("path,label;x\na.png,1;2\nb.png,2\n")
    manifest = read_manifest(str(file), labels="optional")
    assert manifest.table["label;x"].tolist() == ["1;2", "2"]
    assert manifest.notes == ()
    file.write_text("sep=,\npath,label\na.png,cat\nb.png,dog\n")
    assert read_manifest(str(file)).table["label"].tolist() == ["cat", "dog"]


def test_labels_that_are_equal_as_numbers_are_told_of(tmp_path):
    file = tmp_path / "table.csv"
    labels = ["1", "01", "1.0", "2", "+2", "x1", "10", "1e1"]
    file.write_text("path,label\n" + "".join(f"{n}.png,{label}\n" for n, label in enumerate(labels)))
    [said] = [one for one in read_manifest(str(file)).warnings if "count as different" in one]
    assert said.endswith("how a number is written count as different: '01' / '1' / '1.0', '+2' / '2'.")


def test_metadata_that_leave_images_out_say_so(tmp_path):
    folder = images(tmp_path / "photos", *(f"{number}.png" for number in range(6)), "more/7.jpg")
    rows = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(4))
    (folder / "metadata.csv").write_text("file_name,label\n" + rows)
    said = read_manifest(str(folder)).warnings
    assert any("3 images of the folder are not listed in it, and not used" in one for one in said)
    (folder / "metadata.csv").write_text("file_name,label\n" + rows + "./4.png,a\n5.png,b\nmore/7.jpg,a\n")
    assert not any("not listed" in one for one in read_manifest(str(folder)).warnings)


def test_labels_in_one_column_of_an_array(tmp_path):
    file = tmp_path / "data.npz"
    labels = np.arange(12).reshape(-1, 1) % 3
    np.savez(file, embedding=np.ones((12, 2)), label=labels)
    assert read_manifest(str(file)).table["label"].tolist() == [str(label) for label in labels[:, 0]]
    np.savez(file, embedding=np.ones((12, 2)), label=np.eye(3)[labels[:, 0]])
    with pytest.raises(DataError, match=r"argmax\(axis=1\)"):
        read_manifest(str(file))


def test_the_index_that_pandas_writes_tells_no_splits(tmp_path):
    images(tmp_path, "0.png", "1.png")
    table = tmp_path / "t.csv"
    table.write_text(",path,label\n0,0.png,cat\n1,1.png,dog\n")
    manifest = read_manifest(str(table))
    assert split_counts(manifest) == {}


def test_masks_are_told_of_until_they_are_excluded(tmp_path):
    kinds = ("images/0", "images/1", "masks/0", "masks/1")
    names = [f"{label}/{kind}.png" for label in ("cat", "dog") for kind in kinds]
    folder = str(images(tmp_path / "photos", *names))
    [said] = read_manifest(folder).warnings
    assert said.endswith("images (4), masks (4). --exclude '*/masks/*' leaves one of them out.")
    assert read_manifest(folder, reading=Reading(exclude=("*/masks/*",))).warnings == ()
