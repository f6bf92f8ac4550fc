"""Walks through five releases as they come, each in at most two commands, the second out of the first."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.doors.kinds import KINDS, advised, classes_in, ids, put, size_of, write_table
from tests.hub import images, png, write_hub


def test_kaggle(tmp_path, followed):
    names = {f"{number * 7919 % 65_536:06x}": kind for number, kind in enumerate(KINDS * 4)}
    put(tmp_path / "cassava" / "train_images", {f"{name}.jpg": kind for name, kind in names.items()})
    put(tmp_path / "cassava" / "test_images", {f"t{number}.jpg": "cat" for number in range(3)})
    write_table(tmp_path / "cassava" / "train.csv", ("image_id", "label"), names.items())
    write_table(tmp_path / "cassava" / "sample_submission.csv", ("image_id", "label"), [("t0", "cat")])
    assert followed("cassava/train.csv", has="--path-column image_id --root cassava/train_images") == (12, 3)


def test_kaggle_in_its_own_folder(tmp_path, monkeypatch, followed):
    put(tmp_path / "here" / "train_images", {f"{name}.jpg": kind for name, kind in ids(12).items()})
    write_table(tmp_path / "here" / "train.csv", ("id", "label"), ids(12).items())
    monkeypatch.chdir(tmp_path / "here")
    assert followed("train.csv", has="--path-column id --root train_images") == (12, 3)


@pytest.mark.parametrize("data", ["ham", "ham/HAM10000_metadata.csv"])
def test_ham10000(data, tmp_path, followed):
    rows = []
    for number, (name, kind) in enumerate(ids(24).items()):
        put(tmp_path / "ham", {f"HAM10000_images_part_{1 + number // 12}/{name}.jpg": kind}, seed=number)
        lesion = f"HAM_{3 * (number // 6) + number % 3:07d}"
        rows.append(
            (
                lesion,
                name,
                kind,
                ("histo", "follow_up")[number % 2],
                40.0 + number,
                ("male", "female")[number % 2],
            )
        )
    header = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex")
    write_table(tmp_path / "ham" / "HAM10000_metadata.csv", header, rows)
    assert followed(data, has="--group lesion_id") == (24, 3)
    summary = json.loads(Path("scored/summary.json").read_text())
    assert (summary["group"], summary["n_groups"]) == ("lesion_id", 12)


@pytest.mark.parametrize("data", ["val", "val.txt"])
@pytest.mark.parametrize("beside", [True, False])
def test_imagenet(data, beside, tmp_path, run, followed):
    names = {f"ILSVRC2012_val_{number + 1:08d}.JPEG": number % 3 for number in range(12)}
    put(tmp_path / "imagenet" / "val", {name: KINDS[label] for name, label in names.items()})
    text = "".join(f"{name} {label}\n" for name, label in names.items())
    (tmp_path / "imagenet" / "val.txt").write_text(text)
    if beside:
        put(tmp_path / "imagenet" / "train", classes_in(""))
    assert followed(f"imagenet/{data}", has="imagenet/val.txt") == (12, 3)


@pytest.fixture
def ultralytics(tmp_path) -> str:
    for seed, (split, n) in enumerate({"train": 10, "val": 4, "test": 4}.items()):
        put(tmp_path / "root", classes_in(split, n=n), seed)
    return "root"


def test_ultralytics(ultralytics, followed):
    assert followed(ultralytics, has="--split train") == (30, 3)


def test_a_validation_set_out_of_the_same_root(ultralytics, run, model):
    given = ("--split", "train", "--val-split", "val", *model, "--workers", "0", "--out", "scored")
    result = run("score", ultralytics, *given)
    assert result.exit_code == 0, result.stderr
    assert size_of("scored") == (30, 3)
    recorded = json.loads(Path("scored/run.json").read_text())["runs"][-1]["inputs"]
    assert [(one["given"], one["samples"]) for one in recorded] == [("root", 30), ("root (split val)", 12)]


@pytest.mark.parametrize("typed", [(), ("--split", "train")])
def test_a_test_set_out_of_the_same_root(typed, ultralytics, run, model):
    command = [
        "evaluate",
        ultralytics,
        *typed,
        "--curve",
        "remove",
        "--fractions",
        "0.5",
        *model,
        "--workers",
        "0",
    ]
    result = run(*command, "--test-split", "test", "--out", "judged")
    if not typed:
        result = run(*advised(result.stderr), overwrite=False)
    assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"
    recorded = json.loads(Path("judged/run.json").read_text())["runs"][-1]["inputs"]
    assert [(one["given"], one["samples"]) for one in recorded][:2] == [
        ("root", 30),
        ("root (split test)", 12),
    ]


def test_training_with_a_test_set_out_of_the_same_root(ultralytics, done, model):
    given = ("--split", "train", "--test-split", "test", *model, "--epochs", "1", "--workers", "0")
    done("train", ultralytics, *given, "--out", "trained")
    recorded = json.loads(Path("trained/run.json").read_text())["runs"][-1]["inputs"]
    assert {(one["given"], one["samples"]) for one in recorded} == {("root", 30), ("root (split test)", 12)}


def test_a_test_set_with_splits_of_its_own_is_asked_about(ultralytics, tmp_path, run, model):
    put(tmp_path / "other", classes_in("a_train", "a_test", n=4), 7)
    command = ("evaluate", ultralytics, "--split", "train", "--test", "other", "--curve", "remove")
    given = ("--fractions", "0.5", *model, "--workers", "0", "--out", "judged")
    refused = run(*command, *given)
    assert refused.exit_code == 1
    again = advised(refused.stderr)
    assert again[again.index("--test-split") + 1] == "a_test"
    result = run(*again, overwrite=False)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("split", ["vall", "valid"])
def test_a_split_of_a_set_beside_that_is_not_there(split, ultralytics, run, model):
    result = run("score", ultralytics, "--split", "train", "--val-split", split, *model, "--out", "scored")
    assert result.exit_code == 1
    assert f"has no split {split}" in result.stderr
    assert "val (12)" in result.stderr


def test_a_split_out_of_data_without_splits(tmp_path, run, model):
    put(tmp_path / "data", classes_in(""))
    result = run("score", "data", "--val-split", "val", *model, "--out", "scored")
    assert result.exit_code == 1
    assert "split" in result.stderr


def test_a_pool_out_of_splits(ultralytics, tmp_path, run, model):
    put(tmp_path / "pool", classes_in("train", "test", n=4), 8)
    given = ("--split", "train", *model, "--workers", "0", "--budget", "3", "--out", "grown")
    refused = run("extend", ultralytics, "--pool", "pool", *given)
    assert refused.exit_code == 1
    again = advised(refused.stderr)
    assert again[again.index("--pool-split") + 1] == "train"
    result = run(*again, overwrite=False)
    assert result.exit_code == 0, result.stderr


def test_the_hub(tmp_path, scored):
    columns = {"img": images([png(n) for n in range(12)]), "label": [n % 3 for n in range(12)]}
    write_hub(tmp_path / "train-00000-of-00001.parquet", columns, {"label": KINDS})
    assert scored("train-00000-of-00001.parquet") == (12, 3)


def test_the_next_command_reads_what_the_first_one_wrote(ultralytics, done, model):
    done("score", ultralytics, "--split", "train", *model, "--workers", "0", "--out", "scored")
    done("prune", "scored/scores.csv", "--keep", "0.5", "--force", "--out", "pruned")
    kept = pd.read_csv("pruned/kept.csv")
    assert len(kept) == 15
    assert kept["path"].str.contains("root/train/").all()
    done("score", "pruned/kept.csv", *model, "--workers", "0", "--out", "again")
    assert size_of("again")[0] == 15


def test_a_list_as_validation_set_of_a_folder(tmp_path, run, model):
    put(tmp_path / "imagenet" / "train", classes_in(""))
    put(tmp_path / "imagenet" / "val", {f"{name}.png": kind for name, kind in ids(12).items()})
    text = "".join(f"{name}.png {kind}\n" for name, kind in ids(12).items())
    (tmp_path / "imagenet" / "val.txt").write_text(text)
    given = (*model, "--workers", "0", "--out", "scored")
    refused = run("score", "imagenet/train", "--val", "imagenet/val.txt", *given)
    assert refused.exit_code == 1
    result = run(*advised(refused.stderr), overwrite=True)
    assert result.exit_code == 0, result.stderr


def test_a_table_of_ids_as_validation_set(tmp_path, run, model):
    put(tmp_path / "set" / "train", classes_in(""))
    put(tmp_path / "set" / "val", {f"{name}.png": kind for name, kind in ids(12).items()})
    write_table(tmp_path / "set" / "val.csv", ("image_id", "dx"), ids(12).items())
    given = (*model, "--workers", "0", "--out", "scored")
    refused = run("score", "set/train", "--val", "set/val.csv", *given)
    assert refused.exit_code == 1
    result = run(*advised(refused.stderr))
    assert result.exit_code == 0, result.stderr


def test_features_of_a_store_have_no_splits_left(ultralytics, done, model, refused):
    done("embed", ultralytics, "--split", "train", *model, "--workers", "0", "--out", "store")
    assert "--split" in refused("store", "--split", "train")


def test_a_table_of_ids_as_validation_set_of_a_table(tmp_path, run, model):
    for split in ("train", "val"):
        put(tmp_path / split, {f"{name}.png": kind for name, kind in ids(12).items()})
    rows = [(f"train/{name}.png", kind) for name, kind in ids(12).items()]
    write_table(tmp_path / "train.csv", ("path", "label"), rows)
    write_table(tmp_path / "val.csv", ("image_id", "dx"), ids(12).items())
    refused = run("score", "train.csv", "--val", "val.csv", *model, "--out", "scored")
    assert refused.exit_code == 1
    # Options would hold for both.
    assert "write val.csv as the table of DATA is: image_id is path and dx is label" in refused.stderr
    assert "and put the paths after val/" in refused.stderr
    assert "diva score" not in refused.stderr
