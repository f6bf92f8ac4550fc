"""`diva prune`: what is written, what is forecast, and what is not computed twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divacli.manifest import read_manifest

TEXT = {"path": str, "label": str, "predicted_label": str}


def read(file: str | Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=TEXT)


def names(table: pd.DataFrame) -> list[str]:
    return [Path(path).name for path in table["path"]]


@pytest.fixture
def pruned(done):
    """Run `diva prune` and return kept, dropped and prune.json."""

    def invoke(*arguments, out="pruned", stdin=None):
        done("prune", *arguments, "--out", out, stdin=stdin)
        content = json.loads((Path(out) / "prune.json").read_text())
        return read(f"{out}/kept.csv"), read(f"{out}/dropped.csv"), content

    return invoke


@pytest.mark.parametrize("by", ["derivative", "loo_loss"])
def test_kept_and_dropped_are_the_input(by, blobs, pruned, scores):
    data = blobs(n=70)
    kept, dropped, content = pruned(data.file, "--keep", "0.9", "--by", by, "--force")
    assert (len(kept), len(dropped)) == (63, 7)
    assert sorted([*kept["path"], *dropped["path"]]) == data.arrays["path"].tolist()
    table = scores(data.file).sort_values([by, "path"], ascending=[False, True])
    assert dropped["path"].tolist() == table["path"].head(7).tolist()
    assert dropped[by].tolist() == table[by].head(7).tolist()
    assert content["by"] == by


def test_kept_is_in_the_order_of_data_and_without_scores(images, images_table, model, pruned, tmp_path):
    images_table.assign(camera=range(36)).to_csv(tmp_path / "labels.csv", index=False)
    kept, dropped, _ = pruned("labels.csv", *model, "--keep", "0.5", "--force")
    order = [name for name in names(images_table) if name in set(names(kept))]
    assert names(kept) == order
    assert list(kept) == ["path", "label", "weight", "camera"]
    assert list(dropped)[:7] != list(kept)
    assert {"derivative", "loo_loss", "predicted_label", "camera"} <= set(dropped)


def test_threshold_zero_drops_what_is_harmful(blobs, pruned, scores):
    data = blobs()
    _, dropped, content = pruned(data.file, "--threshold", "0", "--force")
    table = scores(data.file)
    assert dropped["path"].tolist() == table.loc[table["derivative"] >= 0, "path"].tolist()
    assert 5 < len(dropped) < 75
    assert (content["threshold"], content["keep"]) == (0, None)


def test_stratify_keeps_the_share_of_every_class(blobs, pruned):
    data = blobs(n=90, label=np.r_[np.zeros(60, int), np.ones(30, int)])
    kept, _, content = pruned(data.file, "--keep", "0.5", "--stratify", "--force")
    assert kept["label"].value_counts().to_dict() == {"0": 30, "1": 15}
    assert content["stratify"] is True


def test_every_class_keeps_one(blobs, pruned, done):
    data = blobs()
    kept, _, _ = pruned(data.file, "--threshold", "-1e9", "--force")
    assert sorted(kept["label"]) == ["0", "1", "2"]
    assert "last of their class: 0, 1, 2" in done("prune", data.file, "--threshold", "-1e9", "--force").stderr


def test_the_files_and_what_prune_json_holds(blobs, done):
    done("prune", blobs().file, "--keep", "0.8", "--force")
    folder = Path("diva-out")
    assert sorted(file.name for file in folder.iterdir()) == [
        "dropped.csv",
        "failed.csv",
        "kept.csv",
        "prune.json",
        "run.json",
    ]
    content = json.loads((folder / "prune.json").read_text())
    assert set(content) == {
        *("n_kept", "n_dropped", "n_chosen", "written", "by", "keep", "threshold", "stratify"),
        *("group", "n_groups", "forecast", "features"),
    }
    assert (content["n_kept"], content["n_dropped"], content["n_chosen"], content["keep"]) == (
        120,
        30,
        30,
        0.8,
    )
    found = content["forecast"]
    assert set(found) == {"chosen", "pays", "error", "change"}
    assert found["chosen"] == content["by"]
    assert set(found["error"]) == {"nothing", "balanced", "coverage", "easy", "random"}
    assert set(found["change"]) == set(found["error"]) - {"nothing"}
    for name, change in found["change"].items():
        assert set(change) == {"mean", "se", "low", "high"}
        assert change["mean"] == pytest.approx(found["error"][name] - found["error"]["nothing"], abs=1e-12)
        assert change["low"] < change["mean"] < change["high"]
    assert all(0 <= error <= 1 for error in found["error"].values())


def test_auto_has_its_own_keys(blobs, done):
    done("prune", blobs().file, "--keep", "auto")
    content = json.loads(Path("diva-out/prune.json").read_text())
    assert set(content) == {
        *("n_kept", "n_dropped", "n_chosen", "written", "by", "keep", "threshold", "budget"),
        *("mislabelled", "n_outliers", "group", "n_groups", "forecast", "features"),
    }
    assert set(content["forecast"]["error"]) == {"nothing", "called wrong", "random"}


def test_keep_one_keeps_everything(blobs, pruned):
    kept, dropped, content = pruned(blobs().file, "--keep", "1")
    assert (len(kept), len(dropped)) == (150, 0)
    assert (content["n_chosen"], content["written"]) == (0, "choice")


# What is written


def noisy(blobs, share: float = 0.3) -> Path:
    """Well separated classes; of two the labels are confused, always in the same direction."""
    generator = np.random.default_rng(0)
    truth = np.arange(300) % 3
    features = 2 * np.eye(8)[truth] + 0.8 * generator.normal(size=(300, 8))
    labels = np.where((truth == 0) & (generator.random(300) < share), 1, truth)
    return blobs("noisy.npz", n=300, embedding=features.astype(np.float32), label=labels).file


def hard(blobs) -> Path:
    """Classes that a head tells apart by many small differences: every sample is missed."""
    generator = np.random.default_rng(0)
    truth = np.arange(240) % 6
    features = 0.5 * generator.normal(size=(6, 60))[truth] + generator.normal(size=(240, 60))
    return blobs("hard.npz", n=240, embedding=features.astype(np.float32), label=truth).file


def test_where_labels_are_wrong_the_choice_is_written(blobs, done, pruned):
    data = noisy(blobs)
    kept, dropped, content = pruned(data, "--keep", "0.9")
    assert content["written"] == "choice"
    assert content["forecast"]["pays"] is True
    assert content["n_dropped"] == content["n_chosen"] == len(dropped) == 30
    assert len(kept) == 270
    assert set(dropped["reason"]) >= {"label"}
    text = " ".join(done("prune", data, "--keep", "0.9").stderr.split())
    assert "270 of 300 samples kept, 30 dropped (10.0%)" in text
    assert "Dropping these 30 should" in text
    assert "the error on new images from" in text


@pytest.mark.parametrize("options", [("--keep", "0.1", "--by", "random"), ("--threshold", "-1e9")])
def test_where_it_harms_everything_is_kept_and_that_is_said(options, blobs, done, pruned):
    data = hard(blobs)
    kept, dropped, content = pruned(data, *options)
    assert (len(kept), len(dropped)) == (240, 0)
    assert kept["path"].tolist() == [f"s{number:04d}" for number in range(240)]
    assert (content["written"], content["n_dropped"], content["forecast"]["pays"]) == ("everything", 0, False)
    assert content["n_chosen"] > 200
    text = " ".join(done("prune", data, *options).stderr.split())
    assert "240 of 240 samples kept, 0 dropped (0.0%)" in text
    assert "Nothing to gain by dropping: keep everything (--force writes the choice all the same)." in text
    assert f"Dropping these {content['n_chosen']} should raise the error on new images from" in text
    error = content["forecast"]["error"]
    assert f"from {100 * error['nothing']:.1f} to {100 * error[content['by']]:.1f} %" in text


def test_force_writes_it(blobs, done, pruned):
    data = hard(blobs)
    options = ("--keep", "0.1", "--by", "random")
    _, _, content = pruned(data, *options)
    kept, dropped, forced = pruned(data, *options, "--force", out="forced")
    assert (len(kept), len(dropped)) == (24, 216)
    assert (forced["written"], forced["n_dropped"]) == ("choice", 216)
    assert forced["forecast"] == content["forecast"]
    assert "Nothing to gain" not in done("prune", data, *options, "--force").stderr


def test_everything_kept_is_said_also_where_all_is_quiet(blobs, done):
    data = hard(blobs)
    result = done("prune", data, "--keep", "0.1", "--by", "random", "--quiet", "--out", "-")
    assert "warning: Nothing to gain by dropping: keep everything" in " ".join(result.stderr.split())
    assert len(result.stdout.splitlines()) == 241
    assert done("prune", data, "--keep", "0.1", "--by", "random", "--quiet", "--force").stderr == ""


@pytest.mark.parametrize("by", ["balanced", "coverage", "easy", "random", "derivative", "loo_loss"])
def test_every_rule_is_beside_nothing_and_random(by, blobs, pruned):
    kept, dropped, content = pruned(noisy(blobs), "--keep", "0.8", "--by", by, "--force")
    assert content["by"] == content["forecast"]["chosen"] == by
    assert set(content["forecast"]["error"]) == {"nothing", "random", by}
    assert (len(kept), len(dropped)) == (240, 60)
    if by in ("balanced", "coverage", "easy"):
        called = dropped["mislabel_probability"] > 0.5
        assert called.tolist() == sorted(called, reverse=True)
        assert set(dropped["reason"][called]) == {"label"}
    assert set(dropped["reason"]) <= {"label", "outlier", by}


def test_the_rule_is_the_one_with_the_best_forecast(blobs, pruned):
    _, dropped, content = pruned(noisy(blobs), "--keep", "0.7", "--force")
    alone = pruned(noisy(blobs), "--keep", "0.7", "--by", content["by"], "--force", out="alone")
    assert names(dropped) == names(alone[1])
    for name in ("nothing", content["by"]):
        assert alone[2]["forecast"]["error"][name] == content["forecast"]["error"][name]


def test_the_rules_that_were_tried_are_shown(blobs, done):
    text = done("prune", noisy(blobs), "--keep", "0.7", "--force").stderr
    content = json.loads(Path("diva-out/prune.json").read_text())["forecast"]
    for name, error in content["error"].items():
        [line] = (line for line in text.splitlines() if line.split()[-1:] == [name] and "%" in line)
        assert line.split()[0] == f"{error:.1%}"
        assert ("chosen" in line) == (name == content["chosen"])
    text = done("prune", noisy(blobs), "--keep", "0.7", "--by", "random", "--force").stderr
    assert "as many at random" not in text


def test_the_order_of_the_rows_does_not_matter(blobs, pruned):
    data = blobs(n=120)
    order = np.random.default_rng(5).permutation(120)
    other = blobs("other.npz", n=120, **{name: values[order] for name, values in data.arrays.items()})
    one, two = (
        pruned(file, "--keep", "0.8", "--dtype", "float64", "--force", out=name)
        for name, file in (("one", data.file), ("two", other.file))
    )
    assert one[1]["path"].tolist() == two[1]["path"].tolist()
    assert one[2]["forecast"]["error"] == pytest.approx(two[2]["forecast"]["error"], abs=1e-5)


@pytest.mark.parametrize("asked", [("--keep", "0.8"), ("--keep", "auto"), ("--threshold", "0")])
def test_groups_leave_as_wholes(asked, blobs, pruned):
    """Six copies of each image: a forecast that tears them apart sees hardly an error."""
    generator = np.random.default_rng(0)
    label = np.arange(60) % 6
    features = 0.3 * generator.normal(size=(6, 60))[label] + generator.normal(size=(60, 60))
    copies = np.repeat(np.arange(60), 6)
    arrays = {"embedding": features[copies].astype(np.float32), "label": label[copies], "group": copies}
    paths = np.array([f"s{number:04d}" for number in range(360)])
    grouped = blobs("copied.npz", n=360, path=paths, **arrays).file
    _, _, content = pruned(grouped, *asked)
    assert (content["group"], content["n_groups"]) == ("group", 60)
    _, _, alone = pruned(grouped, *asked, "--group", "none", out="alone")
    assert alone["group"] is None
    assert alone["forecast"]["error"]["nothing"] < 0.1 < content["forecast"]["error"]["nothing"]


# Scores as DATA


@pytest.mark.parametrize("kind", ["images", "npz", "store"])
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_scores_are_pruned_without_computing_again(
    kind, format, images, model, blobs, done, refuse_to_compute
):
    data = {"images": images, "npz": blobs().file, "store": "store"}[kind]
    done("embed", images, *model, "--out", "store")
    done("prune", data, *model, "--keep", "0.8", "--force", "--out", "direct")
    done("score", data, *model, "--out", "scored", "--format", format)
    refuse_to_compute()
    result = done("prune", f"scored/scores.{format}", "--keep", "0.8", "--force", "--out", "pruned")
    assert "the error on new images" in " ".join(result.stderr.split())
    assert sorted(names(read("pruned/kept.csv"))) == sorted(names(read("direct/kept.csv")))
    assert names(read("pruned/dropped.csv")) == names(read("direct/dropped.csv"))
    pruned, direct = (
        json.loads(Path(f"{out}/prune.json").read_text())["forecast"] for out in ("pruned", "direct")
    )
    assert pruned["chosen"] == direct["chosen"]
    assert pruned["error"] == pytest.approx(direct["error"], abs=1e-4)


def test_a_store_is_pruned_where_its_images_are_gone(images, model, trained_head, done, tmp_path):
    import shutil

    shutil.copytree(images, tmp_path / "photos")
    done("embed", "photos", *model, "--checkpoint", trained_head, "--out", "store")
    shutil.rmtree(tmp_path / "photos")
    done("score", "store", "--around-head", "--out", "scored")
    done("prune", "scored/scores.csv", "--keep", "0.9")
    assert json.loads(Path("diva-out/prune.json").read_text())["forecast"] is not None


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["kept", "dropped"])
def test_what_is_written_is_data_again_from_anywhere(
    format, name, images, model, blobs, done, tmp_path, monkeypatch
):
    for data in (images, blobs().file):
        done("prune", data, *model, "--keep", "0.5", "--force", "--out", "deep/pruned", "--format", format)
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        file = f"../deep/pruned/{name}.{format}"
        n = len(read_manifest(file).table)
        assert n > 10
        done("score", file, *model, "--out", "again")
        assert len(read("again/scores.csv")) == n
        monkeypatch.chdir(tmp_path)


def test_scores_whose_cache_is_gone_are_still_decided(images, model, done, tmp_path):
    done("score", images, *model, "--out", "scored", "--cache-dir", tmp_path / "one")
    others = ("scored/scores.csv", "--cache-dir", tmp_path / "other")
    result = done("prune", *others, "--keep", "0.9")
    assert len(read("diva-out/kept.csv")) == 33
    assert "no forecast was made" in result.stderr
    assert json.loads(Path("diva-out/prune.json").read_text())["forecast"] is None


def test_scores_of_which_a_row_was_removed_are_still_decided(images, model, scores, done):
    table = scores(images, *model)
    table.drop(index=4).to_csv("scored/scores.csv", index=False)
    result = done("prune", "scored/scores.csv", "--keep", "0.9")
    assert len(read("diva-out/kept.csv")) == 32
    assert "no forecast was made" in result.stderr


def test_images_that_changed_since_are_not_predicted(images, model, done, tmp_path):
    import shutil

    shutil.copytree(images, tmp_path / "photos")
    done("score", "photos", *model, "--out", "scored")
    (tmp_path / "photos" / "a" / "000.png").write_bytes(
        (tmp_path / "photos" / "b" / "001.png").read_bytes()[:-1]
    )
    assert "no forecast was made" in done("prune", "scored/scores.csv", "--keep", "0.9").stderr


def test_scores_without_the_column_to_drop_by(blobs, scores, run):
    scores(blobs().file).drop(columns="loo_loss").to_csv("scored/scores.csv", index=False)
    result = run("prune", "scored/scores.csv", "--keep", "0.5", "--by", "loo_loss")
    assert result.exit_code == 1
    assert "no value of loo_loss" in result.stderr


def test_pruning_scores_leaves_the_list_of_failed_images_alone(images, images_table, model, done, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    table = pd.concat([images_table, pd.DataFrame({"path": ["broken.png"], "label": ["a"]})])
    table.to_csv("labels.csv", index=False)
    done("score", "labels.csv", *model)
    before = Path("diva-out/failed.csv").read_text()
    assert "broken.png" in before
    done("prune", "diva-out/scores.csv", "--keep", "0.9")
    assert Path("diva-out/failed.csv").read_text() == before


def test_pruning_images_lists_those_that_cannot_be_decoded(images_table, model, done, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    table = pd.concat([images_table, pd.DataFrame({"path": ["broken.png"], "label": ["a"]})])
    table.to_csv("labels.csv", index=False)
    result = done("prune", "labels.csv", *model, "--keep", "1")
    assert read("diva-out/failed.csv")["path"].tolist() == ["../broken.png"]
    assert len(read("diva-out/kept.csv")) == 36
    assert "1 images cannot be used" in result.stderr


def test_prune_of_a_validation_loss(blobs, pruned, scores):
    data, other = blobs(), blobs("other.npz", n=60, seed=4)
    options = ("--val", other.file, "--keep", "0.9", "--force")
    _, dropped, content = pruned(data.file, *options, "--by", "derivative")
    table = scores(data.file, "--val", other.file)
    assert dropped["path"].tolist() == table["path"].head(15).tolist()
    # Shares are of the 60 samples that judge.
    assert (60 * content["forecast"]["error"]["nothing"]) % 1 == pytest.approx(0, abs=1e-6)
    for by in ("balanced", "coverage", "easy"):
        assert len(pruned(data.file, *options, "--by", by)[1]) == 15


# Standard output


def test_out_dash_writes_kept_and_nothing_else(blobs, done):
    data = blobs()
    done("prune", data.file, "--keep", "0.9", "--force", "--out", "files")
    before = set(Path().rglob("*"))
    result = done("prune", data.file, "--keep", "0.9", "--force", "--out", "-")
    assert result.stdout.startswith("path,label,weight,feature_source\n")
    lines = [line.replace("blobs.npz", "../blobs.npz") for line in result.stdout.splitlines()]
    assert lines[1:] == Path("files/kept.csv").read_text().splitlines()[1:]
    assert set(Path().rglob("*")) == before
    assert "135 of 150 samples kept" in result.stderr


def test_score_out_dash_writes_scores_and_nothing_else(blobs, done):
    result = done("score", blobs().file, "-o", "-")
    assert result.stdout.startswith(
        "rank,path,label,weight,derivative,loo_loss,predicted_label,mislabel_probability,suggested_label,"
        "suggested_probability,outlier_score,derivative_se,significant,feature_source\n1,"
    )
    assert len(result.stdout.splitlines()) == 151
    assert not Path("diva-out").exists()


def test_a_table_may_come_from_standard_input(images, model, done, refuse_to_compute):
    scored = done("score", images, *model, "-o", "-").stdout
    refuse_to_compute()
    result = done("prune", "-", "--keep", "0.9", "--force", "-o", "-", stdin=scored.encode())
    kept = result.stdout.splitlines()
    assert kept[0] == "path,label,weight"
    assert len(kept) == 34
    assert "the error on new images" in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", [("score",), ("prune", "--keep", "0.99", "--force")])
def test_quiet_says_nothing_when_nothing_is_wrong(command, images, model, done):
    result = done(*command, images, *model, "--quiet", "--out", "out")
    assert result.stderr == ""
    assert result.stdout == ""


def test_quiet_still_warns(images, images_table, model, done, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    table = pd.concat([images_table, pd.DataFrame({"path": ["broken.png"], "label": ["a"]})])
    table.to_csv("labels.csv", index=False)
    assert "broken.png" in done("score", "labels.csv", *model, "--quiet").stderr


# Wrong usage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "one of --keep"),
        (("--keep", "0.5", "--threshold", "0"), "one of --keep"),
        (("--keep", "0"), "(0, 1]"),
        (("--keep", "1.5"), "(0, 1]"),
        (("--keep", "-0.5"), "(0, 1]"),
        (("--keep", "nan"), "(0, 1]"),
        (("--keep", "half"), "expected auto, or a fraction"),
        (("--keep", "auto", "--threshold", "1"), "expected a probability"),
        (("--keep", "auto", "--stratify"), "--stratify is for --keep"),
        (("--keep", "auto", "--by", "loo_loss"), "--keep auto decides by"),
        (("--keep", "auto", "--by", "random"), "--keep auto decides by"),
        (("--threshold", "0", "--by", "balanced"), "--by balanced has no --threshold"),
        (("--threshold", "0", "--by", "random"), "--by random has no --threshold"),
        (("--threshold", "0", "--budget", "3"), "--budget is for --keep auto"),
        (("--keep", "0.9", "--budget", "3"), "--budget is for --keep auto"),
        (("--threshold", "nan"), "expected a number"),
        (("--threshold", "0", "--stratify"), "--stratify is for --keep"),
        (("--keep", "0.5", "--by", "size"), "size"),
    ],
)
def test_wrong_usage(options, message, blobs, run):
    result = run("prune", blobs().file, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not Path("diva-out").exists()


# Automatic


def flipped(blobs) -> tuple[str, set[str]]:
    """Well separated classes, every tenth sample with the label of the next one; and the names of these."""
    truth = np.arange(150) % 3
    features = 3 * np.eye(8)[truth] + 0.5 * np.random.default_rng(0).normal(size=(150, 8))
    labels = np.where(np.arange(150) % 10 == 0, (truth + 1) % 3, truth)
    data = blobs(embedding=features.astype(np.float32), label=labels)
    return data.file, {str(path) for path in data.arrays["path"][::10]}


def test_auto_drops_wrong_labels_and_says_how_sure_that_is(blobs, pruned, done):
    data, wrong = flipped(blobs)
    kept, dropped, content = pruned(data, "--keep", "auto")
    assert set(names(dropped)) == wrong
    assert len(kept) + len(dropped) == 150
    assert set(dropped["reason"]) == {"label"}
    assert "reason" not in kept
    assert (content["keep"], content["threshold"], content["budget"]) == ("auto", 0.5, None)
    expected = content["mislabelled"]
    assert expected["n"] == len(wrong)
    assert expected["expected_precision"] > 0.9
    assert expected["expected_recall"] > 0.9
    probability = dropped["mislabel_probability"]
    assert expected["expected_precision"] == pytest.approx(probability.mean(), rel=1e-6)
    assert probability.is_monotonic_decreasing
    text = " ".join(done("prune", data, "--keep", "auto", "--out", "again").stderr.split())
    assert f"labels called wrong (probability above 0.5): {len(wrong)}: about" in text
    assert "outliers, like nothing else in the set: 0" in text


def test_auto_decides_the_same_by_a_table_of_scores(blobs, pruned, done, refuse_to_compute):
    data, _ = flipped(blobs)
    kept, dropped, content = pruned(data, "--keep", "auto", out="direct")
    done("score", data)
    refuse_to_compute()
    again, gone, piped = pruned("diva-out/scores.csv", "--keep", "auto", out="piped")
    assert names(gone) == names(dropped)
    assert sorted(names(again)) == sorted(names(kept))
    assert piped["forecast"]["error"] == pytest.approx(content["forecast"]["error"], abs=1e-5)


def test_auto_follows_threshold_and_budget(blobs, pruned):
    data, wrong = flipped(blobs)
    _, dropped, content = pruned(data, "--keep", "auto", "--budget", "4")
    assert len(dropped) == content["n_dropped"] == 4
    assert set(names(dropped)) < wrong
    _, everything, _ = pruned(data, "--keep", "auto", "--threshold", "0", out="zero")
    assert len(everything) > len(wrong)


def test_auto_on_clean_labels_drops_hardly_anything(blobs, pruned):
    truth = np.arange(150) % 3
    features = 3 * np.eye(8)[truth] + 0.5 * np.random.default_rng(0).normal(size=(150, 8))
    _, dropped, content = pruned(
        blobs(embedding=features.astype(np.float32), label=truth).file, "--keep", "auto"
    )
    assert len(dropped) <= 3
    assert content["forecast"] is not None


def test_auto_needs_scores_with_probabilities(blobs, done, run):
    data, _ = flipped(blobs)
    done("score", data)
    table = pd.read_csv("diva-out/scores.csv").drop(columns="mislabel_probability")
    table.to_csv("old.csv", index=False)
    result = run("prune", "old.csv", "--keep", "auto")
    assert result.exit_code == 1
    assert "the scores have no value of mislabel_probability in any row" in result.stderr
    assert "score the samples again" in result.stderr
    assert not Path("diva-out/kept.csv").exists()


@pytest.mark.parametrize("command", [("prune", "--keep", "auto"), ("relabel",)])
def test_most_labels_being_wrong_is_a_warning(command, blobs, done):
    data, _ = flipped(blobs)
    done("score", data)
    table = pd.read_csv("diva-out/scores.csv").assign(mislabel_probability=0.9)
    table.to_csv("doubtful.csv", index=False)
    result = done(*command, "doubtful.csv")
    assert "150 of the 150 labels are called wrong" in " ".join(result.stderr.split())
    assert "are called wrong:" not in done(*command, "diva-out/scores.csv", "--out", "fine").stderr


def test_coverage_needs_the_features(images, model, done, run, tmp_path):
    done("score", images, *model, "--out", "scored", "--cache-dir", tmp_path / "one")
    given = ("scored/scores.csv", "--keep", "0.9", "--cache-dir", tmp_path / "other")
    result = run("prune", *given, "--by", "coverage")
    assert result.exit_code == 1
    text = " ".join(result.stderr.split())
    assert "--by coverage: the cache knows nothing of these scores" in text
    assert "give the images and the network in place of the scores" in text
    assert not Path("diva-out/kept.csv").exists()
    done("prune", *given, "--by", "balanced")


def test_scores_without_probabilities_are_dropped_by_a_column_and_not_judged(blobs, scores, run, done):
    scores(blobs().file).drop(columns=["mislabel_probability", "outlier_score"]).to_csv(
        "old.csv", index=False
    )
    result = done("prune", "old.csv", "--keep", "0.9", "--by", "derivative")
    assert "no forecast was made" in " ".join(result.stderr.split())
    assert len(read("diva-out/kept.csv")) == 135
    refused = run("prune", "old.csv", "--keep", "0.9")
    assert refused.exit_code == 1
    assert "no value of mislabel_probability" in " ".join(refused.stderr.split())
