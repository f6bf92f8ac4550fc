"""`diva inspect`: what each kind of DATA is taken for, and what other commands refuse of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import divacli
from divacli.errors import DataError
from tests.doors.kinds import KINDS, advised, classes_in, ids, put, size_of, write_table
from tests.doors.test_tables import write_tar
from tests.hub import images, png, write_hub


def test_a_folder(tmp_path, looked):
    put(tmp_path / "photos", classes_in("", n=6))
    (tmp_path / "photos" / "notes.txt").write_text("mine\n")
    found = looked("photos")
    assert found["kind"] == "folder"
    assert (found["n_samples"], found["n_classes"]) == (18, 3)
    assert found["classes"] == dict.fromkeys(KINDS, 6)
    assert found["splits"] is None
    columns = {role: column for role, column in found["columns"].items() if column is not None}
    assert columns == {"path": "the file", "label": "the folder"}
    assert found["settled_by"] == []
    assert found["images"]["looked_at"] == 18
    assert found["images"]["widths"] == [4, 4, 4]
    assert found["left_out"] == [{"reason": "no image", "suffix": ".txt", "n": 1}]
    assert "photos: a folder of images, 18 samples in 3 classes" in found["shown"]
    assert "left out: 1 .txt (no image)" in found["shown"]
    assert pd.read_csv("looked/classes.csv").to_dict("list") == {"label": list(KINDS), "samples": [6, 6, 6]}


def test_splits(tmp_path, looked):
    put(tmp_path / "root", classes_in("train", n=6) | classes_in("test", n=2))
    found = looked("root")
    assert found["splits"] == {"test": 6, "train": 18}
    assert found["n_samples"] == 24
    [refusal] = found["settled_by"]
    assert refusal["options"] == {"split": "train"}
    assert "options: root has 2 splits: test (6), train (18)" in found["shown"]
    assert "read with: root --split train" in found["shown"]
    assert list(pd.read_csv("looked/classes.csv")) == ["label", "samples", "test", "train"]
    found = looked("root", "--split", "test")
    assert (found["splits"], found["settled_by"]) == ({"test": 6}, [])


def test_a_table_that_needs_options(tmp_path, looked, run, model):
    put(tmp_path / "set" / "jpegs", {f"{name}.jpg": kind for name, kind in ids(24).items()})
    rows = [(*row, f"P{n // 2}", ("train", "test")[n // 3 % 2], n) for n, row in enumerate(ids(24).items())]
    write_table(tmp_path / "set" / "all.csv", ("image_id", "dx", "patient_id", "part", "age"), rows)
    found = looked("set/all.csv")
    assert (found["n_samples"], found["n_classes"]) == (24, 3)
    columns = {role: column for role, column in found["columns"].items() if column is not None}
    assert columns == {"path": "image_id", "label": "dx", "split": "part"}
    assert found["splits"] == {"test": 12, "train": 12}
    assert "age" in found["other_columns"]
    assert any("column patient_id may tell samples that belong together" in said for said in found["odd"])
    options = found["settled_by"][0]["options"]
    wanted = {"path_column": "image_id", "label_column": "dx", "root": "set/jpegs", "split": "train"}
    assert options == {**wanted, "group": "patient_id"}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    result = run("score", "set/all.csv", *words, *model, "--workers", "0", "--out", "scored")
    assert result.exit_code == 0, result.stderr
    assert size_of("scored") == (12, 3)
    assert not looked("set/all.csv", *words[:-4], "--split", "all")["settled_by"]


def test_a_folder_beside_a_table(tmp_path, looked):
    rows = []
    for number, (name, kind) in enumerate(ids(24).items()):
        put(tmp_path / "ham", {f"part_{number % 2}/{name}.jpg": kind}, seed=number)
        rows.append((name, kind))
    write_table(tmp_path / "ham" / "metadata.csv", ("image_id", "dx"), rows)
    found = looked("ham")
    assert (found["kind"], found["n_samples"], found["n_classes"]) == ("table", 24, 3)
    assert found["settled_by"][0]["data"] == "ham/metadata.csv"
    assert "read with: ham/metadata.csv --path-column image_id --label-column dx --root ham" in found["shown"]


def test_embeddings(tmp_path, looked, done, model):
    features = np.random.default_rng(0).normal(size=(12, 3))
    np.savez(tmp_path / "data.npz", embedding=features, label=np.arange(12) % 3)
    found = looked("data.npz")
    assert (found["kind"], found["n_samples"], found["n_classes"], found["images"]) == ("npz", 12, 3, None)
    done("embed", put(tmp_path / "photos", classes_in("")), *model, "--workers", "0", "--out", "store")
    found = looked("store")
    assert (found["kind"], found["n_samples"], found["n_classes"], found["images"]) == ("store", 12, 3, None)


def test_shards_parquet_and_lists(tmp_path, looked):
    write_tar(tmp_path / "one.tar", classes_in(""))
    found = looked("one.tar")
    assert (found["kind"], found["n_samples"], found["n_classes"]) == ("shards", 12, 3)
    assert found["images"]["looked_at"] == 12
    columns = {"image": images([png(n) for n in range(12)]), "label": [n % 3 for n in range(12)]}
    write_hub(tmp_path / "hub.parquet", columns, {"label": KINDS})
    found = looked("hub.parquet")
    assert (found["kind"], found["n_samples"], found["n_classes"]) == ("parquet", 12, 3)
    assert (found["columns"]["path"], found["images"]["widths"]) == ("image", [16, 16, 16])
    labels = {f"val/{name}.png": kind for name, kind in ids(12).items()}
    put(tmp_path, labels)
    (tmp_path / "val.txt").write_text("".join(f"{path[4:]} {label}\n" for path, label in labels.items()))
    found = looked("val.txt")
    assert (found["kind"], found["n_samples"], found["settled_by"][0]["options"]) == (
        "table",
        12,
        {"root": "val"},
    )


def test_images_without_labels(tmp_path, looked):
    put(tmp_path / "flat", {f"DSC{number:02d}x.png": "cat" for number in range(5)})
    found = looked("flat")
    assert (found["n_samples"], found["n_classes"]) == (5, 0)
    assert "samples without labels" in found["shown"]


def test_what_there_is_nothing_to_say_of(tmp_path, run):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a\n")
    for data in ("nothing", "texts"):
        result = run("inspect", data)
        assert result.exit_code == 1
        assert f"error: {data} has no images" in result.stderr
        assert not Path("diva-out").exists()
    result = run("inspect", "photoz")
    assert result.exit_code == 1
    assert "photoz does not exist" in result.stderr


def test_images_that_are_not_there(tmp_path, looked):
    write_table(tmp_path / "t.csv", ("path", "label"), [(f"{n}.png", "ab"[n % 2]) for n in range(6)])
    found = looked("t.csv")
    assert found["missing"].startswith("t.csv: 6 of 6 files are not there")
    assert found["missing"] in found["odd"]


def test_images_that_cannot_be_opened(tmp_path, looked):
    put(tmp_path / "photos", classes_in("", n=6))
    file = tmp_path / "photos" / "cat" / "-0.png"
    file.write_bytes(file.read_bytes()[:40])
    found = looked("photos")
    assert sum(group["n"] for group in found["images"]["unusable"]) == 1
    assert "1 cannot be opened" in found["shown"]


def test_few_of_many_are_looked_at(tmp_path, looked):
    put(tmp_path / "photos", classes_in("", n=6))
    found = looked("photos", "--look-at", "5")
    assert found["images"]["looked_at"] == 5
    assert "of 18 images 5 were looked at" in found["shown"]


def test_standard_output_holds_the_inspection_alone(tmp_path, run):
    put(tmp_path / "photos", classes_in(""))
    result = run("inspect", "photos", "--out", "-", overwrite=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["n_samples"] == 12


def test_standard_input(tmp_path, run):
    labels = classes_in("photos")
    put(tmp_path, labels)
    table = "path,label\n" + "".join(f"{path},{label}\n" for path, label in labels.items())
    result = run("inspect", "-", "--out", "-", stdin=table.encode())
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["n_samples"] == 12
    result = run("inspect", "-", "--out", "-", stdin=table.replace("path,label", "image,class").encode())
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["n_samples"] == 12


def test_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = classes_in("train", "test")
    put(tmp_path / "root", labels)
    quiet = divacli.Compute(progress=False)
    report = divacli.inspect("root", compute=quiet)
    assert report.summary["splits"] == {"test": 12, "train": 12}
    assert report.table["samples"].tolist() == [8, 8, 8]
    assert divacli.inspect(divacli.Source("root", split="test"), compute=quiet).summary["n_samples"] == 12
    table = pd.DataFrame(
        [(f"root/{path}", label) for path, label in labels.items()], columns=["path", "label"]
    )
    assert divacli.inspect(table, compute=quiet).summary["n_samples"] == 24
    named = table.rename(columns={"path": "image", "label": "class"})
    source = divacli.Source(named, path_column="image", label_column="class")
    assert divacli.inspect(source, compute=quiet).summary["n_samples"] == 24
    with pytest.raises(DataError, match="does not exist"):
        divacli.inspect("nowhere", compute=quiet)


def test_torch_is_not_imported(tmp_path):
    put(tmp_path / "photos", classes_in("train", "test"))
    code = "import sys; from divacli.cli.app import main; sys.argv = ['diva', 'inspect', 'photos']\n"
    code += "try: main()\nexcept SystemExit as end: assert not end.code\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("listed", [True, False])
def test_options_of_folders_from_a_file(listed, tmp_path, looked):
    put(tmp_path / "set" / "root", classes_in("train", "test"))
    split = "[train]" if listed else "train"
    (tmp_path / "set" / "how.yaml").write_text(f"data: root\nsplit: {split}\nexclude: ['*-1.png', cat]\n")
    found = looked("--config", "set/how.yaml")
    assert (found["n_samples"], found["splits"]) == (6, {"train": 6})
    (tmp_path / "set" / "how.yaml").write_text(
        "data: root\nlabel-from: '-(\\d)\\.'\ninspect:\n  look-at: 3\n"
    )
    found = looked("--config", "set/how.yaml")
    assert (found["n_classes"], found["images"]["looked_at"]) == (4, 3)


def test_options_of_tables_from_a_file(tmp_path, looked, run, model):
    put(tmp_path / "set" / "jpegs", {f"{name}.jpg": kind for name, kind in ids(12).items()})
    rows = [(*row, n + 1, ("train", "val")[n // 3 % 2]) for n, row in enumerate(ids(12).items())]
    write_table(tmp_path / "set" / "all.csv", ("image_id", "dx", "trust", "split"), rows)
    lines = (
        "path-column: image_id\nlabel_column: dx\nroot: jpegs\nweight: trust\nsplit: train\nrange: 0,4095\n"
    )
    (tmp_path / "set" / "how.yaml").write_text("data: all.csv\n" + lines)
    found = looked("--config", "set/how.yaml")
    assert (found["n_samples"], found["n_classes"], found["settled_by"]) == (6, 3, [])
    assert found["columns"]["weight"] == "trust"
    given = ("--config", "set/how.yaml", *model, "--workers", "0", "--out", "scored")
    result = run("score", *given, "--val-split", "val")
    assert result.exit_code == 0, result.stderr
    assert size_of("scored") == (6, 3)


def test_advice_on_data_that_a_file_names(tmp_path, run, model):
    put(tmp_path / "root", classes_in("inner/train", "inner/test"))
    (tmp_path / "how.yaml").write_text("data: root\n")
    refused = run("score", "--config", "how.yaml", *model, "--workers", "0", "--out", "scored")
    assert refused.exit_code == 1
    command = advised(refused.stderr)
    result = run(*command)
    assert result.exit_code == 0, f"{command} {result.stderr}"
    assert size_of("scored") == (12, 3)
