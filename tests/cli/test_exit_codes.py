"""What can go wrong: one message, the right status, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

DIVA = [sys.executable, "-m", "divacli"]


def assert_mendable(result, *parts: str) -> None:
    """Status 1 and one message with what was got, what was expected, and what to do."""
    text = " ".join(result.stderr.split())
    assert result.exit_code == 1, text
    assert "Traceback" not in result.stderr
    assert text.count("error:") == 1
    assert "to do:" in text
    for part in parts:
        assert part in text
    assert not list(Path().glob("*/scores.*"))
    assert not list(Path().rglob("*.tmp"))
    assert result.stdout == ""


def table(**columns: object) -> str:
    pd.DataFrame(columns).to_csv("labels.csv", index=False)
    return "labels.csv"


@pytest.fixture
def four(images, images_table):
    """Paths of four images, two of each class."""
    return [
        str(images / "a" / "000.png"),
        str(images / "a" / "003.png"),
        *images_table.query("label == 'b'")["path"][:2],
    ]


def test_data_that_does_not_exist(run, model, images, tmp_path):
    (tmp_path / "photos").mkdir()
    assert_mendable(run("score", "photo", *model), "photo does not exist", "did you mean photos?")


def test_missing_files(run, model, four):
    data = table(path=[*four, "nowhere.png"], label=list("aabba"))
    assert_mendable(
        run("score", data, *model),
        "1 of 5 files are not there: ",
        "nowhere.png",
        "expected: a file for every row",
    )


def test_a_missing_column(run, model, four):
    assert_mendable(
        run("score", table(file=four, label=list("aabb")), *model),
        "no column path",
        "--path-column file",
    )


def test_no_label_column(run, model, four):
    assert_mendable(run("score", table(path=four, size=1), *model), "no column label", "expected:")


def test_unknown_columns_are_kept_with_a_warning(run, model, images_table):
    images_table.assign(colour="x").to_csv("labels.csv", index=False)
    result = run("score", "labels.csv", *model)
    assert result.exit_code == 0
    assert "columns kept but not used: colour" in result.stderr


def test_empty_labels(run, model, four):
    data = table(path=four, label=["a", "", "b", "b"])
    assert_mendable(
        run("score", data, *model), "label is empty in data row 2", "expected: a label in every row"
    )


def test_duplicate_paths(run, model, four):
    data = table(path=[*four, four[0]], label=list("aabba"))
    assert_mendable(
        run("score", data, *model), "same path more than once", "expected: one row for each sample"
    )


def test_one_class(run, model, four):
    assert_mendable(
        run("score", table(path=four, label="a"), *model), "one class only: a", "expected: at least two"
    )


def test_a_class_with_one_sample_is_a_warning(run, model, images_table):
    images_table["label"] = ["single", *images_table["label"][1:]]
    images_table.to_csv("labels.csv", index=False)
    result = run("score", "labels.csv", *model)
    assert result.exit_code == 0
    assert "classes with a single sample: single" in result.stderr


def test_nothing_on_standard_input(run, model):
    assert_mendable(run("prune", "-", "--keep", "0.9", "-o", "-", stdin=""), "nothing came on standard input")


def test_images_without_a_network(run, images):
    result = run("score", images)
    assert_mendable(result, "--model", "expected:")


def test_a_network_that_is_unknown(run, images):
    assert run("score", images, "--model", "mobilenet_v22", "--checkpoint", "none.pth").exit_code == 1


def test_a_checkpoint_that_does_not_fit(run, images, model, tmp_path):
    torch.save({"other.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    result = run("score", images, *model, "--checkpoint", "other.pt")
    assert result.exit_code == 1
    assert "hidden.weight" in result.stderr
    assert "expected:" in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("diva-out/scores.csv").exists()


def test_a_checkpoint_that_is_not_there(run, images, model):
    result = run("score", images, *model, "--checkpoint", "none.pt")
    assert result.exit_code == 1
    assert "none.pt" in result.stderr


def test_an_image_that_cannot_be_decoded_with_strict(run, images, model, tmp_path):
    shutil.copytree(images, tmp_path / "photos")
    (tmp_path / "photos" / "a" / "broken.png").write_bytes(b"none")
    assert_mendable(
        run("score", "photos", *model, "--strict"),
        "1 of the images read so far cannot be decoded: a/broken.png",
        "expected:",
    )


def test_weights_that_are_all_zero(run, model, four):
    data = table(path=four, label=list("aabb"), weight=0)
    result = run("score", data, *model, "--weight", "weight")
    assert result.exit_code == 1
    assert "every weight is 0" in result.stderr


def test_a_ridge_too_small_for_the_features(run):
    features = np.random.default_rng(0).normal(size=(30, 3))
    np.savez("x.npz", embedding=np.c_[features, features], label=np.arange(30) % 2)
    assert_mendable(run("score", "x.npz", "--ridge", "0"), "ridge 0 leaves", "expected: a finite ridge")


# Where results go


@pytest.mark.parametrize("command", [("score",), ("prune", "--keep", "0.9"), ("embed",)])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_out_that_looks_like_a_table(command, suffix, blobs, run):
    name, *options = command
    result = run(name, blobs().file, *options, "--out", f"x.{suffix}")
    assert_mendable(result, f"--out x.{suffix}", "expected: a folder", f"--out - > x.{suffix}")
    assert not Path(f"x.{suffix}").exists()


def test_out_that_is_a_file(blobs, run):
    Path("result").write_text("mine")
    assert_mendable(
        run("score", blobs().file, "--out", "result"), "--out result cannot be made", "File exists"
    )
    assert Path("result").read_text() == "mine"


def test_out_below_a_file(blobs, run):
    Path("result").write_text("mine")
    assert_mendable(run("score", blobs().file, "--out", "result/deep"), "cannot be made")


def test_out_that_is_read_only(blobs, run, monkeypatch):
    Path("closed").mkdir()
    # The super-user, who may run this, can write everywhere.
    true = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and true(path, mode))
    assert_mendable(run("score", blobs().file, "--out", "closed"), "--out closed cannot be written to")


@pytest.mark.skipif(os.geteuid() == 0, reason="the super-user can write everywhere")
def test_out_that_is_really_read_only(blobs, run):
    Path("closed").mkdir(mode=0o500)
    assert_mendable(run("score", blobs().file, "--out", "closed"), "--out closed cannot be written to")


def test_the_folder_is_checked_before_any_work(images, model, factory, run):
    Path("result").write_text("")
    run("score", images, *model, "--out", "result")
    assert not factory.with_suffix(".log").exists()


def test_a_failed_command_leaves_earlier_results_whole(blobs, done, run):
    done("score", blobs().file, "--out", "scored")
    before = {file: file.read_bytes() for file in Path("scored").iterdir()}
    np.savez("bad.npz", embedding=np.full((6, 2), np.nan), label=np.arange(6) % 2)
    assert run("score", "bad.npz", "--out", "scored").exit_code == 1
    assert {file: file.read_bytes() for file in Path("scored").iterdir()} == before


# Devices


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_cuda_without_cuda(device, blobs, run):
    result = run("score", blobs().file, "--device", device)
    assert_mendable(result, f"--device {device}: torch sees 0 CUDA devices", "use --device cpu")


def test_a_device_that_is_none(blobs, run):
    result = run("score", blobs().file, "--device", "tpu")
    assert result.exit_code == 1
    assert "auto, cpu, cuda or cuda:N" in result.stderr


# Wrong usage


@pytest.mark.parametrize(
    "arguments",
    [
        ("score",),
        ("score", "x.npz", "--rigde", "1"),
        ("score", "x.npz", "--ridge", "much"),
        ("score", "x.npz", "--ridge", "-1"),
        ("score", "x.npz", "--ridge", "nan"),
        ("score", "x.npz", "--ridge", "inf"),
        ("score", "x.npz", "--loss", "hinge"),
        ("score", "x.npz", "--scaling", "log"),
        ("score", "x.npz", "--format", "xlsx"),
        ("score", "x.npz", "--batch-size", "0"),
        ("score", "x.npz", "--workers", "-1"),
        ("score", "x.npz", "--verify", "-1"),
        ("score", "x.npz", "y.npz"),
        ("scores", "x.npz"),
        ("--nothing",),
    ],
)
def test_wrong_usage(arguments, run, blobs):
    blobs("x.npz")
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error" in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("diva-out/scores.csv").exists()


NUMBERS = [
    *(("score", "x.npz", "--seed", seed) for seed in ("-1", str(2**31), str(2**70), "9" * 5000)),
    *(("score", "x.npz", option, str(2**70)) for option in ("--verify", "--workers", "--batch-size")),
    *(("score", "x.npz", option, str(2**70)) for option in ("--image-size", "--projection")),
    *(("prune", "x.npz", "--threshold", value) for value in ("inf", "-inf", "nan", "1e999")),
    ("prune", "x.npz", "--keep", "auto", "--budget", str(2**70)),
    ("relabel", "x.npz", "--threshold", "nan"),
    ("relabel", "x.npz", "--budget", str(2**70)),
    ("reweight", "x.npz", "--steps", str(2**70)),
    ("reweight", "x.npz", "--folds", str(2**70)),
    ("extend", "x.npz", "--pool", "x.npz", "--budget", str(2**70)),
    ("extend", "x.npz", "--pool", "x.npz", "--min-trust", "nan"),
    ("evaluate", "x.npz", "--test", "x.npz", "--manifest", "x.npz", "--seeds", str(2**70)),
    ("train", "x.npz", "--epochs", str(2**70)),
    ("train", "x.npz", "--weight-decay", "inf"),
    ("report", "x", "--limit", str(2**70)),
    ("export", "x.csv", "--to", "cleanlab", "--limit", str(2**70)),
    ("demo", "--seed", str(2**70)),
]
"""Numbers that what is behind an option cannot hold."""


@pytest.mark.parametrize("arguments", NUMBERS, ids=lambda line: " ".join(line)[:60])
def test_a_number_that_nothing_can_be_computed_with_is_wrong_usage(arguments, run, blobs):
    blobs("x.npz")
    result = run(*arguments)
    assert result.exit_code == 2, result.stderr
    assert "Error" in result.stderr
    assert len(result.stderr) < 5000
    assert [file.name for file in Path().iterdir()] == ["x.npz"]


PATHS = [
    *(
        ("score", "x.npz", option)
        for option in ("--checkpoint", "--cache-dir", "--config", "--log-file", "--out")
    ),
    ("doctor", "--cache-dir"),
    ("demo", "--out"),
    ("report", "x", "--out"),
    ("plot", "x", "--out"),
    ("export", "x.csv", "--to", "label-studio", "--image-root"),
    ("report",),
]


@pytest.mark.parametrize(
    "path", ["", "a" * 256, "a/" * 2048, "a\0b", "\ud800", "s3://b/x", "file:///x"], ids=ascii
)
@pytest.mark.parametrize("arguments", PATHS, ids=" ".join)
def test_a_path_that_is_none_of_this_machine_is_wrong_usage(arguments, path, run, blobs):
    blobs("x.npz")
    result = run(*arguments, path, overwrite=False)
    # Of results there is more to say.
    assert result.exit_code == 2 or "error: --out s3://b/x" in result.stderr, result.stderr
    assert len(result.stderr) < 5000
    assert [file.name for file in Path().iterdir()] == ["x.npz"]


@pytest.mark.parametrize("option", ["--val", "--model", "--group", "--device"])
def test_a_text_that_nothing_can_be_called_by_is_wrong_usage(option, run, blobs):
    for text in ("a\0b", "\ud800"):
        result = run("score", blobs().file, option, text)
        assert result.exit_code == 2, result.stderr
        assert "nothing can be called by" in " ".join(result.stderr.split())


# --debug


def test_debug_shows_a_traceback_and_keeps_the_status(run):
    result = run("score", "nowhere", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "error: nowhere does not exist" in result.stderr


def test_interrupted(blobs, run, monkeypatch):
    import divacli.curate.sample_scores as module

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "score", interrupt)
    data = blobs().file
    result = run("score", data)
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr
    assert "interrupted" in result.stderr
    assert not Path("diva-out/scores.csv").exists()
    assert "Traceback" in run("score", data, "--debug").stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("odd"), "RuntimeError: odd"),
        (ValueError("x\ny"), "ValueError: x"),
    ],
)
def test_an_error_that_nobody_foresaw_is_no_traceback(error, message, blobs, run, monkeypatch):
    import divacli.curate.sample_scores as module

    def fail(*arguments):
        raise error

    monkeypatch.setattr(module, "score", fail)
    assert_mendable(run("score", blobs().file), message)


def test_an_error_that_nobody_foresaw_shows_where_with_debug(blobs, run, monkeypatch):
    import divacli.curate.sample_scores as module

    def fail(*arguments):
        raise ZeroDivisionError("here")

    monkeypatch.setattr(module, "score", fail)
    result = run("score", blobs().file, "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "error: ZeroDivisionError: here" in result.stderr


def test_out_of_memory_with_debug_shows_where(blobs, run, monkeypatch):
    import divacli.curate.sample_scores as module

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(module, "score", fail)
    result = run("score", blobs().file, "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_ctrl_c_in_a_real_process(images, factory, tmp_path):
    factory.write_text(
        factory.read_text()
        + """
def slow():
    import time
    def wait(image):
        if image.size == (4, 4):
            note("waiting")
            time.sleep(60)
        return TRANSFORM(image)
    return Net(), wait
"""
    )
    process = subprocess.Popen(
        [*DIVA, "score", str(images), "--model", f"{factory}:slow", "--workers", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = factory.with_suffix(".log")
    deadline = time.monotonic() + 60
    while not (log.exists() and "waiting" in log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert not (tmp_path / "diva-out" / "scores.csv").exists()


# What is written besides


def test_json_is_strict_and_ends_with_a_line_break(blobs, done):
    done("score", blobs().file)
    text = Path("diva-out/summary.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text)["inverse_temperature"] is None


def test_the_cache_is_below_the_home_folder_by_default(blobs, done, monkeypatch, tmp_path):
    monkeypatch.delenv("DIVA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    done("score", blobs().file)
    assert len(list((tmp_path / "xdg" / "diva" / "runs").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    done("score", blobs().file)
    assert len(list((tmp_path / "home" / ".cache" / "diva" / "runs").iterdir())) == 1
