"""`diva train`: a network and weights, resumed by the same command, and what can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

QUICK = ("--epochs", "2", "--workers", "0", "--step-size", "0.4")
FILES = ["failed.csv", "history.csv", "model.pt", "model.json", "train.json", "reweighted.csv"]


@pytest.fixture
def trained(images, model, done) -> Callable[..., object]:
    """Run `diva train` on the images."""
    return lambda *arguments: done("train", images, *model, *QUICK, *arguments)


def weights(folder: str = "diva-out") -> pd.Series:
    return pd.read_csv(Path(folder) / "reweighted.csv")["weight"]


def test_what_is_written_and_said(trained, images):
    result = trained("--test", images)
    assert result.stdout == ""
    text = " ".join(result.stderr.split())
    assert "note: training 523 of 523 parameters, from hidden.weight on" in text
    assert "the head is a fresh one for 3 classes" in text
    assert f"wrote {', '.join(FILES)} in diva-out" in text
    assert sorted(file.name for file in Path("diva-out").iterdir()) == sorted(
        [*FILES, "checkpoint.pt", "run.json"]
    )
    assert json.loads(Path("diva-out/model.json").read_text()) == {
        "model": "net.py:make",
        "classes": ["a", "b", "c"],
    }
    history = pd.read_csv("diva-out/history.csv")
    assert history["step"].tolist() == [0, 2, 4]
    assert history["test_error"].notna().all()
    summary = json.loads(Path("diva-out/train.json").read_text())
    assert summary["n_samples"] == 36
    assert summary["options"]["size"] == 0.4
    assert summary["best"]["kfold_loss"] == pytest.approx(history["kfold_loss"].min())
    assert Path("diva-out/failed.csv").read_text() == "path,label,reason\n"
    assert weights().sum() == pytest.approx(36)
    assert weights().nunique() > 10


def test_the_written_table_and_network_are_for_every_command(trained, images, factory, done, model):
    trained()
    done("score", "diva-out/reweighted.csv", *model, "--out", "scored")
    scored = pd.read_csv("scored/scores.csv")
    assert sorted(scored["weight"]) == pytest.approx(sorted(weights()))
    plain = torch.load("diva-out/model.pt", weights_only=True)
    assert plain["fc.weight"].shape == (3, 10)
    for command in (("score",), ("train", *QUICK)):
        done(*command, images, *model, "--checkpoint", "diva-out/model.pt", "--out", "again")
    # It is known which classes the head is for, so it stays.
    assert json.loads(Path("again/train.json").read_text())["head"] == "kept"


def test_constant_weights(trained):
    trained("--step-size", "0")
    assert weights().tolist() == [1.0] * 36


def test_the_table_is_that_of_the_images_wherever_it_is_written(images_table, model, done):
    Path("data").mkdir()
    table = images_table.assign(path=[os.path.relpath(path, "data") for path in images_table["path"]])
    table.assign(weight=2.0, note="x").to_csv("data/labels.csv", index=False)
    done(
        *("train", "data/labels.csv", "--weight", "weight", *model, *QUICK),
        *("--out", "out", "--format", "parquet", "--quiet"),
    )
    written = pd.read_parquet("out/reweighted.parquet")
    assert list(written) == ["path", "label", "weight", "note"]
    assert [(Path("out") / path).resolve() for path in written["path"]] == [
        Path(path).resolve() for path in images_table["path"]
    ]
    assert written["weight"].sum() == pytest.approx(72)


def test_a_finished_training_is_said_to_be_so(trained):
    trained()
    before = {name: Path("diva-out", name).read_bytes() for name in FILES if name != "train.json"}
    for name in FILES:
        Path("diva-out", name).unlink()
    result = trained()
    assert "this training is finished: diva-out/checkpoint.pt holds its result" in result.stderr
    for name, content in before.items():
        assert Path("diva-out", name).read_bytes() == content


def test_other_options_are_not_mixed_in(trained, run, images, model):
    trained()
    # As an interrupted training leaves it.
    for file in Path("diva-out").iterdir():
        if file.name != "checkpoint.pt":
            file.unlink()
    result = run("train", images, *model, *QUICK, "--lr", "0.01", overwrite=False)
    assert result.exit_code == 1
    text = " ".join(result.stderr.split())
    assert "is the progress of another training; different: --lr (0.005 there, 0.01 now)" in text
    assert "--restart" in text
    trained("--lr", "0.01", "--restart")
    trained("--lr", "0.02", "--overwrite")


def test_an_interrupted_command_goes_on_from_there(images, factory, done, forks, tmp_path):
    """Ctrl-C in another process, as from a terminal; then the same command."""
    # Slow enough to be interrupted on the way.
    text = factory.read_text().replace('note("forward")', 'note("forward")\n        time.sleep(0.01)')
    factory.write_text(f"import time\n{text}")
    command = ["train", str(images), "--model", f"{factory}:make", *QUICK, "--epochs", "6", "--patience", "9"]
    messages = tmp_path / "messages"
    process = forks.start(*command, "--out", "stopped", folder=tmp_path, stderr=messages)
    checkpoint = Path("stopped/checkpoint.pt")
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process, signal.SIGINT)
    status = forks.wait()
    said = " ".join(messages.read_text().split())
    assert status == 130, said
    assert "Traceback" not in said
    assert "stopped/checkpoint.pt keeps the progress, and the same command goes on from there" in said
    assert [file.name for file in checkpoint.parent.iterdir()] == ["checkpoint.pt"]
    assert "going on from" in done(*command, "--out", "stopped").stderr
    assert "going on from" not in done(*command, "--out", "whole").stderr
    stopped, whole = (torch.load(f"{out}/model.pt", weights_only=True) for out in ("stopped", "whole"))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in stopped.items())
    assert Path("stopped/reweighted.csv").read_bytes() == Path("whole/reweighted.csv").read_bytes()


def test_the_weights_it_begins_with_are_not_replaced(trained, images, model, run):
    trained("--out", "own")
    before = Path("own/model.pt").read_bytes()
    Path("own/model.pt").rename("own/checkpoint.pt")
    for name in ("checkpoint.pt", "model.pt"):
        Path("own", name).write_bytes(before)
        given = ("--checkpoint", f"own/{name}", "--out", "own", "--restart")
        result = run("train", images, *model, *QUICK, *given)
        assert result.exit_code == 1
        text = " ".join(result.stderr.split())
        assert f"own/{name} is --checkpoint, and own/{name} would replace it" in text
        assert Path("own", name).read_bytes() == before
    # Nor is a file of that name that is no progress.
    for more in ((), ("--restart",)):
        result = run("train", images, *model, *QUICK, "--out", "own", *more)
        assert result.exit_code == 1
        text = " ".join(result.stderr.split())
        assert "own/checkpoint.pt is another file, which training would replace" in text
        assert Path("own/checkpoint.pt").read_bytes() == before


def test_a_restart_that_is_interrupted_says_how_to_go_on(trained, images, model, run, monkeypatch):
    trained()
    checkpoint = Path("diva-out/checkpoint.pt")
    import divacli.training.train as module

    first_features = module._first_features

    def interrupted(*_):
        raise KeyboardInterrupt

    # Before anything is kept: the progress of the old training is gone, and not called that of the new one.
    monkeypatch.setattr(module, "_first_features", interrupted)
    result = run("train", images, *model, *QUICK, "--restart")
    assert result.exit_code == 130
    assert "interrupted before there was any progress to keep" in result.stderr
    assert not checkpoint.exists()
    monkeypatch.setattr(module, "_first_features", first_features)
    monkeypatch.setattr(module.JointTraining, "finish", interrupted)
    result = run("train", images, *model, *QUICK, "--restart")
    assert "the same command without --restart goes on from there" in " ".join(result.stderr.split())
    assert checkpoint.exists()
    # A damaged file is nothing that would be lost.
    checkpoint.write_bytes(b"damaged")
    monkeypatch.undo()
    trained("--restart")


def test_damaged_images(images, model, run, done, tmp_path):
    shutil.copytree(images, tmp_path / "photos")
    (tmp_path / "photos" / "b" / "broken.png").write_bytes(b"none")
    result = done("train", "photos", *model, *QUICK, "--quiet")
    assert "1 images cannot be used and were left out: see failed" in result.stderr
    assert pd.read_csv("diva-out/failed.csv")["path"].tolist() == ["../photos/b/broken.png"]
    assert len(weights()) == 36
    result = run("train", "photos", *model, *QUICK, "--strict", "--restart")
    assert result.exit_code == 1
    assert "b/broken.png (not an image, or of an unknown format)" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "-"), "the trained network is a file"),
        (("--trainable", "nothing"), "the network has no layer 'nothing'"),
        (("--layer", "hidden"), "is not the network's output"),
        (("--lr", "1e30", "--clip-norm", "1e30"), "the training has diverged: the training loss is"),
        (("--test", "missing"), "missing does not exist"),
    ],
)
def test_what_can_be_mended(arguments, message, run, images, model):
    result = run("train", images, *model, *QUICK, *arguments)
    text = " ".join(result.stderr.split())
    assert result.exit_code == 1, text
    assert message in text
    assert "to do:" in text
    assert "Traceback" not in text
    assert result.stdout == ""
    assert not list(Path().rglob("model.*"))
    assert not list(Path().rglob("*.tmp"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--step-size", "-1"),
        ("--step-size", "large"),
        ("--lr", "0"),
        ("--epochs", "0"),
        ("--optimizer", "adagrad"),
        ("--clip-norm", "0"),
        ("--val", "held_out"),
        ("--around-head",),
        ("--reweight-every", "0"),
    ],
)
def test_wrong_usage(arguments, run, images, model):
    result = run("train", images, *model, *arguments)
    assert result.exit_code == 2, result.stderr
    assert not Path("diva-out").exists()


def test_features_are_no_images(blobs, run, model, images, done):
    result = run("train", blobs().file, *model)
    assert result.exit_code == 1
    assert "brings its features: there are no images" in " ".join(result.stderr.split())
    done("embed", images, *model, "--out", "store")
    result = run("train", "store", *model)
    assert result.exit_code == 1
    assert "brings its features: there are no images" in " ".join(result.stderr.split())


def test_options_from_a_file(images, model, done, tmp_path):
    (tmp_path / "config").mkdir()
    Path("config/train.yaml").write_text(
        f"data: {images}\nmodel: {model[1]}\nworkers: 0\ntrain:\n  epochs: 1\n  step-size: 0\n"
        f"  test: {os.path.relpath(images, 'config')}\n"
    )
    done("train", "--config", "config/train.yaml", "--quiet")
    history = pd.read_csv("diva-out/history.csv")
    assert history["epoch"].tolist() == [0, 1]
    assert history["test_error"].notna().all()
    assert weights().tolist() == [1.0] * 36


def test_help(run):
    text = run("train", "--help").stdout
    for option in ("--trainable", "--reweight-every", "--step-size", "--patience", "--restart", "--test"):
        assert f"{option} " in text
    assert "diva train photos/" in text
