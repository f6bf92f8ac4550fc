"""`diva prune`: what is written, what is predicted, and what is not computed twice."""

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
    kept, dropped, content = pruned(data.file, "--keep", "0.9", "--by", by)
    assert (len(kept), len(dropped)) == (63, 7)
    assert sorted([*kept["path"], *dropped["path"]]) == data.arrays["path"].tolist()
    table = scores(data.file).sort_values([by, "path"], ascending=[False, True])
    assert dropped["path"].tolist() == table["path"].head(7).tolist()
    assert dropped[by].tolist() == table[by].head(7).tolist()
    assert content["by"] == by


def test_kept_is_in_the_order_of_data_and_without_scores(images, images_table, model, pruned, tmp_path):
    images_table.assign(camera=range(36)).to_csv(tmp_path / "labels.csv", index=False)
    kept, dropped, _ = pruned("labels.csv", *model, "--keep", "0.5")
    order = [name for name in names(images_table) if name in set(names(kept))]
    assert names(kept) == order
    assert list(kept) == ["path", "label", "weight", "camera"]
    assert list(dropped)[:7] != list(kept)
    assert {"derivative", "loo_loss", "predicted_label", "camera"} <= set(dropped)


def test_threshold_zero_drops_what_is_harmful(blobs, pruned, scores):
    data = blobs()
    _, dropped, content = pruned(data.file, "--threshold", "0")
    table = scores(data.file)
    assert dropped["path"].tolist() == table.loc[table["derivative"] >= 0, "path"].tolist()
    assert 5 < len(dropped) < 75
    assert (content["threshold"], content["keep"]) == (0, None)


def test_stratify_keeps_the_share_of_every_class(blobs, pruned):
    data = blobs(n=90, label=np.r_[np.zeros(60, int), np.ones(30, int)])
    kept, _, content = pruned(data.file, "--keep", "0.5", "--stratify")
    assert kept["label"].value_counts().to_dict() == {"0": 30, "1": 15}
    assert content["stratify"] is True


def test_every_class_keeps_one(blobs, pruned, done):
    data = blobs()
    kept, _, _ = pruned(data.file, "--threshold", "-1e9")
    assert sorted(kept["label"]) == ["0", "1", "2"]
    assert "last of their class: 0, 1, 2" in done("prune", data.file, "--threshold", "-1e9").stderr


def test_the_files_and_what_prune_json_holds(blobs, done):
    done("prune", blobs().file, "--keep", "0.8")
    folder = Path("diva-out")
    assert sorted(file.name for file in folder.iterdir()) == [
        "dropped.csv",
        "failed.csv",
        "kept.csv",
        "prune.json",
        "run.json",
    ]
    content = json.loads((folder / "prune.json").read_text())
    assert (content["n_kept"], content["n_dropped"], content["keep"]) == (120, 30, 0.8)
    prediction = content["prediction"]
    assert set(prediction) == {"ridge", "before", "after", "change", "change_se"}
    assert prediction["change"] == prediction["after"]["loss"][0] - prediction["before"]["loss"][0]
    assert prediction["change_se"] > 0
    for side in ("before", "after"):
        assert len(prediction[side]["loss"]) == len(prediction[side]["error"]) == 3


def test_the_prediction_before_is_the_loss_of_the_scores(blobs, pruned, scores):
    data = blobs()
    table = scores(data.file)
    _, _, content = pruned("scored/scores.csv", "--keep", "0.9")
    before = content["prediction"]["before"]
    assert before["loss"][0] == pytest.approx(table["loo_loss"].mean(), rel=1e-5)
    assert before["error"][0] == pytest.approx((table["label"] != table["predicted_label"]).mean())


def test_keep_one_keeps_everything(blobs, pruned):
    kept, dropped, content = pruned(blobs().file, "--keep", "1")
    assert (len(kept), len(dropped)) == (150, 0)
    assert content["prediction"]["after"]["loss"][2] is None


def test_the_summary_shows_before_and_after(blobs, done):
    result = done("prune", blobs().file, "--keep", "0.9", "--out", "pruned")
    text = result.stderr
    assert "135 of 150 samples kept, 15 dropped (10.0%)" in text
    content = json.loads(Path("pruned/prune.json").read_text())["prediction"]
    (line,) = (line for line in text.splitlines() if line.startswith("all original samples"))
    assert line.split()[3:5] == [f"{content[side]['loss'][0]:.4f}" for side in ("before", "after")]
    assert result.stdout == ""


def test_a_refit_that_is_worse_is_a_warning(blobs, done):
    result = done("prune", blobs().file, "--keep", "0.1", "--by", "derivative")
    prediction = json.loads(Path("diva-out/prune.json").read_text())["prediction"]
    worse = prediction["after"]["loss"][0] > prediction["before"]["loss"][0]
    assert worse
    text = " ".join(result.stderr.split())
    assert "warning: without the dropped samples the leave-one-out loss" in text
    rise = prediction["after"]["loss"][0] - prediction["before"]["loss"][0]
    error, before = prediction["change_se"], prediction["before"]["loss"][0]
    assert f"rises by {rise:.2g} (± {error:.2g}) from {before:.4g}" in text


def test_a_refit_that_is_better_is_no_warning(blobs, done):
    result = done("prune", blobs(n=300).file, "--keep", "0.99")
    prediction = json.loads(Path("diva-out/prune.json").read_text())["prediction"]
    assert prediction["after"]["loss"][0] < prediction["before"]["loss"][0]
    assert "warning" not in result.stderr


# Scores as DATA


@pytest.mark.parametrize("kind", ["images", "npz", "store"])
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_scores_are_pruned_without_computing_again(
    kind, format, images, model, blobs, done, refuse_to_compute
):
    data = {"images": images, "npz": blobs().file, "store": "store"}[kind]
    done("embed", images, *model, "--out", "store")
    done("prune", data, *model, "--keep", "0.8", "--out", "direct")
    done("score", data, *model, "--out", "scored", "--format", format)
    refuse_to_compute()
    result = done("prune", f"scored/scores.{format}", "--keep", "0.8", "--out", "pruned")
    assert "exact refit" in result.stderr
    assert sorted(names(read("pruned/kept.csv"))) == sorted(names(read("direct/kept.csv")))
    assert names(read("pruned/dropped.csv")) == names(read("direct/dropped.csv"))
    pruned, direct = (
        json.loads(Path(f"{out}/prune.json").read_text())["prediction"] for out in ("pruned", "direct")
    )
    assert pruned["after"]["loss"] == pytest.approx(direct["after"]["loss"], rel=1e-4)


def test_a_store_is_pruned_where_its_images_are_gone(images, model, done, tmp_path):
    import shutil

    shutil.copytree(images, tmp_path / "photos")
    done("embed", "photos", *model, "--out", "store")
    shutil.rmtree(tmp_path / "photos")
    done("score", "store", "--around-head", "--out", "scored")
    assert "exact refit" in done("prune", "scored/scores.csv", "--keep", "0.9").stderr


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["kept", "dropped"])
def test_what_is_written_is_data_again_from_anywhere(
    format, name, images, model, blobs, done, tmp_path, monkeypatch
):
    for data in (images, blobs().file):
        done("prune", data, *model, "--keep", "0.5", "--out", "deep/pruned", "--format", format)
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
    result = done("prune", "scored/scores.csv", "--keep", "0.9", "--cache-dir", tmp_path / "other")
    assert len(read("diva-out/kept.csv")) == 33
    assert "no refit was made" in result.stderr
    assert json.loads(Path("diva-out/prune.json").read_text())["prediction"] is None


def test_scores_of_which_a_row_was_removed_are_still_decided(images, model, scores, done):
    table = scores(images, *model)
    table.drop(index=4).to_csv("scored/scores.csv", index=False)
    result = done("prune", "scored/scores.csv", "--keep", "0.9")
    assert len(read("diva-out/kept.csv")) == 32
    assert "no refit was made" in result.stderr


def test_images_that_changed_since_are_not_predicted(images, model, done, tmp_path):
    import shutil

    shutil.copytree(images, tmp_path / "photos")
    done("score", "photos", *model, "--out", "scored")
    (tmp_path / "photos" / "a" / "000.png").write_bytes(
        (tmp_path / "photos" / "b" / "001.png").read_bytes()[:-1]
    )
    assert "no refit was made" in done("prune", "scored/scores.csv", "--keep", "0.9").stderr


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
    _, dropped, _ = pruned(data.file, "--val", other.file, "--keep", "0.9")
    table = scores(data.file, "--val", other.file)
    assert dropped["path"].tolist() == table["path"].head(15).tolist()


# Standard output


def test_out_dash_writes_kept_and_nothing_else(blobs, done):
    data = blobs()
    done("prune", data.file, "--keep", "0.9", "--out", "files")
    before = set(Path().rglob("*"))
    result = done("prune", data.file, "--keep", "0.9", "--out", "-")
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
    result = done("prune", "-", "--keep", "0.9", "-o", "-", stdin=scored.encode())
    kept = result.stdout.splitlines()
    assert kept[0] == "path,label,weight"
    assert len(kept) == 34
    assert "exact refit" in result.stderr


@pytest.mark.parametrize("command", [("score",), ("prune", "--keep", "0.99")])
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
    assert piped["prediction"]["change"] == pytest.approx(content["prediction"]["change"], rel=1e-6)


def test_auto_follows_threshold_and_budget(blobs, pruned):
    data, wrong = flipped(blobs)
    _, dropped, content = pruned(data, "--keep", "auto", "--budget", "4")
    assert len(dropped) == content["n_dropped"] == 4
    assert set(names(dropped)) < wrong
    _, everything, _ = pruned(data, "--keep", "auto", "--threshold", "0", out="zero")
    assert len(everything) > len(wrong)


def test_a_fraction_that_drops_good_samples_is_a_warning(blobs, done):
    data, wrong = flipped(blobs)
    text = " ".join(done("prune", data, "--keep", "0.5").stderr.split())
    count = 75 - len(wrong)
    assert f"{count} of the 75 dropped samples are useful by their derivative" in text
    assert "--keep auto drops none of these" in text
    assert "useful by their derivative" not in done("prune", data, "--keep", "0.95").stderr


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
