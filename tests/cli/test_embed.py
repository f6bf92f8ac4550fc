"""`diva embed`: a store that is a kind of DATA."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd


def test_a_store_holds_the_samples_and_says_so(images, model, done):
    result = done("embed", images, *model, "--out", "store")
    assert "36 samples with 10 features each in store; 36 embedded now" in result.stderr
    assert result.stdout == ""
    assert (Path("store") / "store.json").exists()
    assert len(pd.read_parquet("store/samples.parquet")) == 36
    assert Path("store/failed.csv").read_text() == "path,label,reason\n"


def test_embedding_again_computes_nothing(images, model, done):
    done("embed", images, *model, "--out", "store")
    assert "; 0 embedded now" in done("embed", images, *model, "--out", "store").stderr


def test_a_store_needs_neither_network_nor_images_where_it_is_moved_to(images, model, done, tmp_path):
    shutil.copytree(images, tmp_path / "here" / "photos")
    done("embed", "here/photos", *model, "--out", "here/store")
    shutil.move("here/store", "there")
    shutil.rmtree("here")
    done("score", "there", "--out", "scored")
    done("prune", "there", "--keep", "0.5", "--force", "--out", "pruned")
    assert len(pd.read_csv("scored/scores.csv")) == 36
    assert len(pd.read_csv("pruned/kept.csv")) == 18


def test_what_cannot_be_decoded_is_listed(images, model, done, tmp_path):
    shutil.copytree(images, tmp_path / "photos")
    (tmp_path / "photos" / "b" / "broken.png").write_bytes(b"none")
    result = done("embed", "photos", *model, "--out", "store")
    failed = pd.read_csv("store/failed.csv")
    assert failed["path"].tolist() == ["../photos/b/broken.png"]
    assert "1 images cannot be used" in result.stderr
    assert "36 samples" in result.stderr


def test_a_store_does_not_go_to_standard_output(images, model, run):
    result = run("embed", images, *model, "--out", "-")
    assert result.exit_code == 1
    assert "a feature store is a folder" in result.stderr
    assert result.stdout == ""


def test_embeddings_are_not_embedded(blobs, run):
    result = run("embed", blobs().file)
    assert result.exit_code == 1
    assert "holds embeddings already" in result.stderr


def test_another_network_is_refused_by_name_of_what_differs(images, factory, done, run):
    done("embed", images, "--model", f"{factory}:make", "--out", "store")
    result = run("embed", images, "--model", f"{factory}:make_five", "--out", "store")
    assert result.exit_code == 1
    assert "model 'net.py:make' and not 'net.py:make_five'" in " ".join(result.stderr.split())


def test_quiet(images, model, done):
    assert done("embed", images, *model, "--quiet").stderr == ""
