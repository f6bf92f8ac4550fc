"""What must never be mixed or lost silently: networks, features, notes of other runs, the user's columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


def text_of(result) -> str:
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("option", [(), ("--val",)])
def test_embeddings_that_are_not_finite_are_named(blobs, run, option):
    bad = blobs("bad.npz").arrays
    bad["embedding"][[3, 5], 1] = [np.nan, np.inf]
    np.savez("bad.npz", **bad)
    arguments = ("good.npz", "--val", "bad.npz") if option else ("bad.npz",)
    blobs("good.npz")
    result = run("score", *arguments, "--strict", "--out", "scored")
    assert result.exit_code == 1
    assert "2 of 150 embeddings hold NaN or infinite values, at the paths s0003, s0005" in text_of(result)
    assert not list(Path().glob("scored/*.csv"))


def test_a_validation_set_under_another_network_is_refused(images, factory, done, run):
    done("embed", images, "--model", f"{factory}:make", "--out", "one")
    done("embed", images, "--model", f"{factory}:make_five", "--out", "five")
    result = run("score", "one", "--val", "five")
    assert result.exit_code == 1
    assert "five holds features computed otherwise" in text_of(result)


def test_rows_of_stores_of_two_networks_do_not_mix(images, factory, done, run):
    for name, network in (("one", "make"), ("five", "make_five")):
        done("embed", images, "--model", f"{factory}:{network}", "--out", name)
        done("score", name, "--out", f"of {name}", "--quiet")
    tables = [pd.read_csv(f"of {name}/scores.csv") for name in ("one", "five")]
    both = pd.concat([tables[0].iloc[::2], tables[1][~tables[1]["path"].isin(tables[0]["path"].iloc[::2])]])
    Path("both").mkdir()
    both[["path", "label", "feature_source"]].to_csv("both/t.csv", index=False)
    result = run("score", "both/t.csv")
    assert result.exit_code == 1
    assert "holds features computed otherwise" in text_of(result)


def test_a_network_that_is_not_used_is_a_warning(blobs, done):
    result = done("score", blobs().file, "--model", "resnet18", "--weights", "DEFAULT")
    assert "brings its features: the network that was named is not used for it" in text_of(result)


def test_notes_of_equal_scores_from_images_and_store_do_not_replace_each_other(images, model, done):
    done("score", images, *model, "--out", "a")
    done("embed", images, *model, "--out", "store")
    done("score", "store", "--out", "b")
    for name in ("a", "b"):
        done("prune", f"{name}/scores.csv", "--keep", "0.9", "--out", f"pruned {name}")
        assert json.loads(Path(f"pruned {name}/prune.json").read_text())["forecast"] is not None


def test_a_validation_set_is_checked_before_any_work(images, factory, images_table, run, tmp_path):
    table = images_table.assign(label=images_table["label"].replace("a", "unheard"))
    table.to_csv(tmp_path / "val.csv", index=False)
    result = run("score", images, "--model", f"{factory}:make", "--val", tmp_path / "val.csv")
    assert result.exit_code == 1
    assert "has labels that the training samples lack: unheard" in text_of(result)
    assert not factory.with_suffix(".log").exists(), "the network was built"


def test_a_column_named_source_is_the_users_own(images, images_table, model, scores, tmp_path):
    images_table.assign(source="flickr", key="mine").to_csv(tmp_path / "labels.csv", index=False)
    found = scores(tmp_path / "labels.csv", *model)
    assert set(found["source"]) == {"flickr"}
    assert set(found["key"]) == {"mine"}


def test_options_of_the_problem_that_scores_ignore_are_a_warning(blobs, done):
    done("score", blobs().file)
    assert "change nothing" in text_of(done("prune", "diva-out/scores.csv", "--keep", "0.9", "--ridge", "3"))
    assert "change nothing" not in text_of(done("prune", "diva-out/scores.csv", "--keep", "0.9"))


def test_an_optimum_at_the_end_of_the_path_is_a_warning(done, tmp_path):
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", embedding=generator.normal(size=(200, 5)), label=np.arange(200) % 2)
    result = done("score", "noise.npz")
    assert "smallest at the last ridge that was tried" in text_of(result)


def test_a_verification_near_interpolation_says_what_it_cannot_tell(done, tmp_path):
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "wide.npz", embedding=generator.normal(size=(60, 60)), label=np.arange(60) % 2)
    result = done("score", "wide.npz", "--ridge", "1e-9", "--verify", "5", "--dtype", "float64")
    assert "nearly interpolates" in text_of(result)


def test_a_configuration_value_that_is_a_list_is_wrong_usage(blobs, run):
    blobs()
    Path("c.yaml").write_text("data: [blobs.npz]\n")
    result = run("score", "--config", "c.yaml")
    assert result.exit_code == 2
    assert "expected a path" in text_of(result).replace("│ ", "").replace(" │", "")
