"""Tables as people have them: ids, one-hot columns, marks between cells, paths of Windows, lists, splits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import divacli
from divacli.errors import DataError
from divacli.manifest import read_manifest
from divacli.reading import Reading
from tests.doors.kinds import KINDS, advised, classes_in, ids, put, write_table
from tests.hub import images, png, write_hub


@pytest.fixture
def cells(tmp_path):
    """Twelve images in `pictures`, and rows of their paths and classes."""
    labels = {f"pictures/{name}.png": kind for name, kind in ids(12).items()}
    put(tmp_path, labels)
    return list(labels.items())


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("split", ("train", "train", "valid", "test")),
        ("Usage", ("Training", "Training", "PublicTest", "PrivateTest")),
        ("data set", ("TRAIN", "TRAIN", "VAL", "TEST")),
        ("fold_type", ("train_set", "train_set", "dev", "dev")),
    ],
)
@pytest.mark.parametrize("header", [("path", "label"), ("image", "class")])
def test_several_splits_of_a_table(column, values, header, cells, tmp_path, followed):  # D2
    n_rows = [(*row, values[number % 4]) for number, row in enumerate(cells)]
    write_table(tmp_path / "all.csv", (*header, column), n_rows)
    assert followed("all.csv", has=f"--split {values[0]}") == (6, 3)


def test_one_split_alone_is_no_question(cells, tmp_path, scored):
    write_table(tmp_path / "all.csv", ("path", "label", "split"), [(*row, "train") for row in cells])
    assert scored("all.csv") == (12, 3)


def test_rows_that_tell_no_split(cells, tmp_path, scored):
    rows = [(*row, ("train", "test", "")[number // 3 % 3]) for number, row in enumerate(cells)]
    write_table(tmp_path / "all.csv", ("path", "label", "split"), rows)
    assert scored("all.csv", "--split", "all") == (12, 3)
    assert scored("all.csv", "--split", "none") == (12, 3)
    assert scored("all.csv", "--split", "train") == (6, 3)


def test_a_column_of_other_words_is_no_split(cells, tmp_path, scored):
    sentences = ("the train was late", "this is a test")
    rows = [(*row, sentences[number % 2]) for number, row in enumerate(cells)]
    write_table(tmp_path / "all.csv", ("path", "label", "remark"), rows)
    assert scored("all.csv") == (12, 3)


def test_a_split_of_a_table_without_any(cells, tmp_path, refused):
    write_table(tmp_path / "all.csv", ("path", "label"), cells)
    assert "has no column split" in refused("all.csv", "--split", "train")


@pytest.mark.parametrize("kind", ["npz", "list", "imagefolder", "folder", "parquet", "store", "shards"])
def test_a_split_that_no_kind_of_data_has(kind, cells, tmp_path, done, model, refused):
    labels = dict(cells)
    data = {"npz": "data.npz", "list": "list.txt", "parquet": "data.parquet", "shards": "s.tar"}.get(
        kind, "data"
    )
    if kind == "npz":
        np.savez(
            tmp_path / data,
            embedding=np.random.default_rng(0).normal(size=(12, 3)),
            label=list(labels.values()),
        )
    elif kind == "list":
        (tmp_path / data).write_text("".join(f"{path} {label}\n" for path, label in cells))
    elif kind == "imagefolder":
        put(tmp_path / data, labels)
        write_table(tmp_path / data / "metadata.csv", ("file_name", "label"), cells)
    elif kind == "folder":
        put(tmp_path / data, classes_in(""))
    elif kind == "store":
        done("embed", put(tmp_path / "images", classes_in("")), *model, "--workers", "0", "--out", "data")
    elif kind == "parquet":
        write_hub(
            tmp_path / data,
            {"image": images([png(n) for n in range(6)]), "label": [n % 2 for n in range(6)]},
            {"label": ["cat", "dog"]},
        )
    else:
        write_tar(tmp_path / data, classes_in(""))
    message = refused(data, "--split", "train")
    assert data in message.splitlines()[-3]
    assert "split" in message
    assert "columns for --split" not in message


def write_tar(file: Path, labels: dict[str, str]) -> Path:
    """Write images as WebDataset has them."""
    import tarfile

    put(file.parent / "for-tar", labels)
    with tarfile.open(file, "w") as archive:
        for number, (path, label) in enumerate(labels.items()):
            archive.add(file.parent / "for-tar" / path, f"{number:04d}.png")
            member = tarfile.TarInfo(f"{number:04d}.cls")
            member.size = len(label)
            archive.addfile(member, io.BytesIO(label.encode()))
    return file


@pytest.mark.parametrize(
    ("suffix", "written"),
    [(".png", "{}"), (".jpg", "{}"), (".JPG", "{}.jpg"), (".png", "{}.jpg"), (".jpeg", "{}.JPG")],
)
def test_ids_find_their_files(suffix, written, tmp_path, followed):  # T1
    put(tmp_path / "set" / "train_images", {f"{name}{suffix}": kind for name, kind in ids(12).items()})
    rows = [(written.format(name), kind) for name, kind in ids(12).items()]
    write_table(tmp_path / "set" / "train.csv", ("image_id", "diagnosis"), rows)
    has = "--path-column image_id --label-column diagnosis --root set/train_images"
    assert followed("set/train.csv", has=has) == (12, 3)


def test_ids_that_are_numbers(tmp_path, followed):
    put(tmp_path / "images", {f"{n}.png": KINDS[n % 3] for n in range(12)})
    write_table(tmp_path / "train.csv", ("id_code", "diagnosis"), [(n, n % 3) for n in range(12)])
    assert followed("train.csv", has="--path-column id_code --label-column diagnosis --root images") == (
        12,
        3,
    )


def test_ids_in_several_folders(tmp_path, followed):
    rows = []
    for number, (name, kind) in enumerate(ids(12).items()):
        put(tmp_path / "set" / f"part{number % 2}", {f"{name}.png": kind}, seed=number)
        rows.append((name, kind))
    write_table(tmp_path / "set" / "train.csv", ("image_id", "dx"), rows)
    assert followed("set/train.csv", has="--root set") == (12, 3)


def test_paths_that_fit_two_files_are_named(cells, tmp_path, refused):
    for path, kind in cells:
        put(tmp_path, {path.replace(".png", ".jpg"): kind})
    write_table(tmp_path / "train.csv", ("path", "label"), [(path[:-4], kind) for path, kind in cells])
    message = refused("train.csv")
    assert "12 paths fit several files" in message
    assert "pictures/img_0000.jpg, pictures/img_0000.png" in message


@pytest.mark.parametrize("header", [("path", "label"), ("filename", "class")])
def test_relative_paths_of_windows(header, cells, tmp_path, run, model, scored, followed):  # T4
    rows = [(path.replace("/", "\\"), kind) for path, kind in cells]
    write_table(tmp_path / "table.csv", header, rows)
    size = scored("table.csv") if header[0] == "path" else followed("table.csv")
    assert size == (12, 3)


@pytest.mark.parametrize("above", ["D:\\data\\of anna\\", "/home/anna/data/", "C:/Users/Ben/"])
def test_absolute_paths_of_another_machine(above, cells, tmp_path, followed):
    mark = "\\" if "\\" in above else "/"
    rows = [(above + path.replace("/", mark), kind) for path, kind in cells]
    write_table(tmp_path / "table.csv", ("path", "label"), rows)
    assert followed("table.csv", has="--root ") == (12, 3)


def test_one_hot_columns(cells, tmp_path, followed, scored, refused):  # T2
    for one, zero in (("1.0", "0.0"), ("1", "0")):
        rows = [(path, *(one if kind == other else zero for other in KINDS)) for path, kind in cells]
        write_table(tmp_path / "truth.csv", ("image", "MEL", "NV", "BCC"), rows)
        assert followed("truth.csv", has="--label-column MEL,NV,BCC") == (12, 3)
    options = (
        "--path-column",
        "image",
        "--label-column",
        "MEL",
        "--label-column",
        "NV",
        "--label-column",
        "BCC",
    )
    assert scored("truth.csv", *options) == (12, 3)
    rows[4] = (rows[4][0], "1", "1", "0")
    rows[7] = (rows[7][0], "0", "0", "0")
    write_table(tmp_path / "truth.csv", ("image", "MEL", "NV", "BCC"), rows)
    message = refused("truth.csv", *options)
    assert "2 rows are not of one class, data rows 5, 8: the first has 2: MEL, NV" in message
    rows[4] = (rows[4][0], "0.7", "1", "0")
    write_table(tmp_path / "truth.csv", ("image", "MEL", "NV", "BCC"), rows)
    assert "column 'MEL' is neither 0 nor 1 in data row 5: '0.7'" in refused("truth.csv", *options)


def test_one_hot_columns_with_commas_in_their_names(cells, tmp_path, followed):
    rows = [(path, *(int(kind == other) for other in KINDS)) for path, kind in cells]
    write_table(tmp_path / "truth.csv", ("image", "cat, small", "dog", "owl"), rows)
    assert followed("truth.csv", has="--label-column cat, small --label-column dog") == (12, 3)


def test_one_hot_columns_with_an_empty_class(cells, tmp_path, followed):
    rows = [(path, *(float(kind == other) for other in KINDS), 0.0) for path, kind in cells]
    write_table(tmp_path / "truth.csv", ("image", "MEL", "NV", "BCC", "UNK"), rows)
    assert followed("truth.csv", has="--label-column MEL,NV,BCC,UNK") == (12, 3)


def advised_line(message: str) -> str:
    """What a message says is to be done."""
    return message.partition("to do: ")[2]


def test_lines_above_the_header_are_named(cells, tmp_path, refused):
    lines = ["# our photos", "path,label", *map(",".join, cells)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    assert "remove the lines above the header" in advised_line(refused("table.csv"))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_unicode_text_without_its_mark(encoding, cells, tmp_path, scored):
    write_table(tmp_path / "table.csv", ("path", "label"), cells, encoding=encoding)
    assert scored("table.csv") == (12, 3)


@pytest.mark.parametrize("word", ["nan", "None", "N/A", "NULL"])
def test_labels_that_are_words_for_none_are_told_of(word, cells, tmp_path):
    rows = [(path, word if n < 3 else kind) for n, (path, kind) in enumerate(cells)]
    file = write_table(tmp_path / "table.csv", ("path", "label"), rows)
    assert any(f"called as an empty cell is: {word} (3)" in one for one in read_manifest(str(file)).warnings)


def test_blanks_around_names_of_splits(cells, tmp_path, followed):
    rows = [(*row, ("train", "train ", "test")[n % 3]) for n, row in enumerate(cells[:9])]
    rows[2] = (*cells[2], "train")
    write_table(tmp_path / "table.csv", ("path", "label", "split"), rows)
    assert followed("table.csv", has="--split train") == (7, 3)


@pytest.mark.parametrize(("column", "yes", "no"), [("is_valid", True, False), ("is_train", 1, 0)])
def test_columns_that_flag_a_split_are_told_of(column, yes, no, cells, tmp_path, scored):
    rows = [(*row, no if n % 4 else yes) for n, row in enumerate(cells)]
    file = write_table(tmp_path / "table.csv", ("path", "label", column), rows)
    assert any(f"column {column} may tell splits" in one for one in read_manifest(str(file)).warnings)
    write_table(file, ("path", "label", "split"), rows)
    assert scored("table.csv", "--split", str(no)) == (9, 3)


def test_a_column_path_that_names_no_files(cells, tmp_path, followed):
    rows = [(f"/api/{n}", *row) for n, row in enumerate(cells)]
    write_table(tmp_path / "table.csv", ("path", "file", "label"), rows)
    assert followed("table.csv", has="--path-column file") == (12, 3)


def test_a_drive_with_two_slashes_is_no_url(cells, tmp_path, followed):
    rows = [("D:\\\\" + path.replace("/", "\\\\"), kind) for path, kind in cells]
    write_table(tmp_path / "table.csv", ("path", "label"), rows)
    assert followed("table.csv", has="--root ") == (12, 3)


@pytest.mark.parametrize(
    ("mark", "encoding", "start", "suffix"),
    [
        (";", "utf-8-sig", "", "csv"),
        (";", "utf-8", "sep=;\n", "csv"),
        ("\t", "utf-8", "", "csv"),
        ("|", "utf-8", "", "csv"),
        ("\t", "utf-16", "", "csv"),
        ("\t", "utf-16", "", "txt"),
        (";", "utf-8", "", "tsv"),
    ],
)
def test_marks_between_cells(mark, encoding, start, suffix, cells, tmp_path, followed):  # T3
    lines = [("Datei", "Klasse", "Schärfe"), *((path, f"für {kind}", "0,5") for path, kind in cells)]
    if suffix == "txt":
        lines[0] = ("path", "label", "Schärfe")
    text = start + "".join(mark.join(line) + "\r\n" for line in lines)
    (tmp_path / f"table.{suffix}").write_text(text, encoding=encoding, newline="")
    if suffix == "txt":
        assert len(read_manifest(str(tmp_path / "table.txt")).table) == 12
    else:
        assert followed(f"table.{suffix}", has="--path-column Datei --label-column Klasse") == (12, 3)


def test_another_encoding_is_named(cells, tmp_path, refused):
    write_table(
        tmp_path / "table.csv", ("path", "label"), [(p, f"für {k}") for p, k in cells], encoding="latin-1"
    )
    assert "iconv -f latin1 -t utf-8 table.csv" in refused("table.csv")


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.xls"])
def test_a_workbook_is_named(name, tmp_path, refused):
    (tmp_path / name).write_bytes(b"PK\3\4" + bytes(60))
    message = refused(name)
    assert "CSV" in message


@pytest.mark.parametrize("end", ["\n\n\n", ",\n,\n,\n", ",\n\n", "\n,\n,\n\n"])
def test_empty_rows_at_the_end(end, cells, tmp_path, scored):
    text = "path,label\n" + "".join(f"{path},{kind}\n" for path, kind in cells) + end
    (tmp_path / "table.csv").write_text(text)
    found = read_manifest(str(tmp_path / "table.csv"))
    assert len(found.table) == 12
    n = end.count(",")
    told = [note for note in found.notes if "rows of empty cells" in note]
    assert told == ([f"{tmp_path}/table.csv: {n} rows of empty cells at its end are left out"] if n else [])


def test_empty_rows_among_others_are_refused(cells, tmp_path):
    lines = [f"{path},{kind}\n" for path, kind in cells]
    (tmp_path / "table.csv").write_text("path,label\n" + ",\n" + "".join(lines) + ",\n")
    with pytest.raises(DataError, match="path is empty in data row 1"):
        read_manifest(str(tmp_path / "table.csv"))


def test_a_parquet_file_of_the_hub(tmp_path, scored):  # T5
    numbers = [n % 3 for n in range(12)]
    columns = {"image": images([png(n) for n in range(12)]), "label": numbers}
    write_hub(tmp_path / "cifar" / "data" / "train-00000-of-00001.parquet", columns, {"label": KINDS})
    assert scored("cifar/data/train-00000-of-00001.parquet") == (12, 3)
    assert sorted(pd.read_csv("scored/scores.csv")["label"].unique()) == list(KINDS)
    assert scored("cifar") == (12, 3)


def test_splits_of_the_hub(tmp_path, followed):
    for split, n in {"train": 12, "test": 6}.items():
        columns = {"img": images([png(k) for k in range(n)]), "fine": [k % 3 for k in range(n)]}
        write_hub(tmp_path / "cifar" / "data" / f"{split}-00000-of-00001.parquet", columns, {"fine": KINDS})
    assert followed("cifar", has="--split train") == (12, 3)


def test_two_columns_of_images_or_of_classes(tmp_path, followed):
    pictures = images([png(n) for n in range(12)])
    several = {"image": pictures, "mask": pictures, "label": [n % 3 for n in range(12)]}
    write_hub(tmp_path / "one.parquet", several, {"label": KINDS})
    assert followed("one.parquet", has="--path-column image") == (12, 3)
    several = {"image": pictures, "coarse": [n % 2 for n in range(12)], "fine": [n % 3 for n in range(12)]}
    write_hub(tmp_path / "two.parquet", several, {"coarse": ["pet", "wild"], "fine": KINDS})
    assert followed("two.parquet", has="--label-column coarse") == (12, 2)


@pytest.mark.parametrize("line", ["{} {}\n", "{}\t{}\n", "{},{}\n", "/{}    {}\n"])
def test_lists(line, tmp_path, scored, followed):  # T6
    put(tmp_path / "val", {f"{name}.png": kind for name, kind in ids(12).items()})
    text = "".join(line.format(f"{name}.png", KINDS.index(kind)) for name, kind in ids(12).items())
    (tmp_path / "val.txt").write_text(text)
    assert followed("val.txt", has="--root val") == (12, 3)
    assert scored("val.txt", "--root", "val") == (12, 3)


def test_a_list_of_paths_with_labels_in_them(tmp_path, scored):
    labels = classes_in("train")
    put(tmp_path, labels)
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in labels))
    assert scored("list.txt", "--label-from", "train/([a-z]+)/") == (12, 3)


def test_labels_in_one_column_of_an_array(tmp_path, scored):  # T7
    labels = (np.arange(12) % 3).reshape(-1, 1)
    features = np.eye(3)[labels[:, 0]] + np.random.default_rng(0).normal(size=(12, 3))
    np.savez(tmp_path / "data.npz", embedding=features, label=labels)
    assert scored("data.npz") == (12, 3)
    np.savez(tmp_path / "data.npz", embedding=features, label=labels.ravel())
    assert scored("data.npz") == (12, 3)


def test_columns_that_are_not_there_are_named(cells, tmp_path, refused):
    write_table(tmp_path / "table.csv", ("path", "kind"), cells)
    assert "has no column class\nexpected: one of its columns: path, kind" in refused(
        "table.csv", "--label-column", "class"
    )
    assert "--root nowhere is no folder" in refused(
        "table.csv", "--label-column", "kind", "--root", "nowhere"
    )


def test_what_was_typed_stays_and_what_lacks_is_added(tmp_path, refused, run):
    put(tmp_path / "a b", {f"{name}.png": kind for name, kind in ids(12).items()})
    write_table(tmp_path / "t.csv", ("id", "dx", "split"), [(*row, "train") for row in ids(12).items()])
    message = refused("t.csv", "--root", "a b", "--ridge", "2", "--seed", "3", "--dtype", "float64")
    command = advised(message)
    assert command.count("--root") == 1
    assert command[command.index("--root") + 1] == "a b"
    assert command[command.index("--ridge") + 1] == "2.0"
    result = run(*command)
    assert result.exit_code == 0, result.stderr


def test_a_table_in_memory(tmp_path, monkeypatch, from_python, cells):
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame(cells, columns=["image", "class"])
    assert from_python(table) == (12, 3)
    assert from_python(table.assign(split=["train", "test"] * 6)) == (6, 3)


@pytest.mark.parametrize("reading", [Reading(), Reading(split=("all",)), Reading(label_column=("label",))])
def test_the_reading_changes_no_cell(reading, cells, tmp_path):
    file = write_table(tmp_path / "t.csv", ("path", "label", "note"), [(*row, " 01 ") for row in cells])
    if reading.split:
        file = write_table(
            file, ("path", "label", "note", "split"), [(*row, " 01 ", "train") for row in cells]
        )
    found = read_manifest(str(file), reading=reading)
    assert found.table["note"].tolist() == [" 01 "] * 12
    assert divacli.Source(str(file), split="all").reading == Reading(split=("all",))
