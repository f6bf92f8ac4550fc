"""`diva evaluate`: what is written, what is compared with what, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divacli.cli.commands.evaluate import LearnerName
from divacli.evaluation.finetune_learner import FinetuneLearner
from divacli.evaluation.learners import LEARNERS

FILES = ["curve.csv", "curve.svg", "evaluation.csv", "evaluation.json", "evaluation.svg", "run.json"]


def text_of(result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


def report(out: str = "diva-out") -> dict:
    return json.loads((Path(out) / "evaluation.json").read_text())


def runs(out: str = "diva-out", name: str = "evaluation") -> pd.DataFrame:
    return pd.read_csv(Path(out) / f"{name}.csv")


@pytest.fixture
def noisy(blobs):
    """DATA with wrong labels, a manifest of the right ones, and a clean test set of the same classes."""
    data = blobs("data.npz", n=120, d=4)
    truth = np.arange(120) % 3
    pd.DataFrame({"path": data.arrays["path"], "true_label": truth}).to_csv("truth.csv", index=False)
    table = pd.DataFrame({"path": data.arrays["path"], "label": data.arrays["label"]})
    table["feature_source"] = "data.npz"
    table[~data.flipped].to_csv("kept.csv", index=False)
    test = blobs("test.npz", n=60, d=4, seed=7)
    test.arrays["label"] = np.arange(60) % 3
    test.arrays["path"] = np.array([f"t{number}" for number in range(60)])
    np.savez("test.npz", **test.arrays)
    return data


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


pytestmark = pytest.mark.usefixtures("in_folder")


def test_the_files_and_their_rows(noisy, done):
    result = done(
        *("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--truth", "truth.csv"),
        *("--seeds", "2", "--seed", "5"),
    )
    assert sorted(file.name for file in Path("diva-out").iterdir()) == FILES[2:]
    table = runs()
    assert (
        table["training_set"].tolist() == ["everything", "kept.csv", "random 108", "random 108", "oracle"] * 2
    )
    assert table["learner"].tolist() == ["ridge"] * 5 + ["logistic"] * 5
    assert table["seed"].tolist()[:5] == pytest.approx([np.nan, np.nan, 5, 6, np.nan], nan_ok=True)
    assert table["n_train"].tolist()[:5] == [120, 108, 108, 108, 108]
    content = report()
    assert (content["n_test"], content["n_test_classes"], content["seeds"]) == (60, 3, [5, 6])
    assert content["learners"] == ["ridge", "logistic"]
    assert content["n_test_shared"] == {"data.npz": 0, "kept.csv": 0}
    means = {(row["learner"], row["training_set"]): row for row in content["evaluation"]}
    for learner in ("ridge", "logistic"):
        by_name = table[table["learner"] == learner].groupby("training_set")["test_error"]
        row = means[learner, "random 108"]
        assert row["test_error"] == pytest.approx(by_name.mean()["random 108"], rel=1e-6)
        assert row["test_error_sd"] == pytest.approx(by_name.std()["random 108"], rel=1e-6, abs=1e-9)
        # The manifest is the oracle.
        assert means[learner, "kept.csv"]["test_error"] == means[learner, "oracle"]["test_error"]
    assert "kept.csv" in result.stderr
    assert "wrote evaluation.svg, evaluation.json, evaluation.csv in diva-out" in text_of(result)
    assert result.stdout == ""


def test_a_sentence_for_each_learner_says_who_won(noisy, done):
    result = done(
        *("evaluate", "data.npz", "--manifest", "kept.csv", "--manifest", "data.npz", "--test", "test.npz"),
        *("--seeds", "3"),
    )
    content = report()
    assert list(content["sentence"]) == ["ridge", "logistic"]
    for sentence in content["sentence"].values():
        assert " ".join(sentence.split()) in text_of(result)
        assert "(best of 2)" in sentence
    verdicts = content["verdicts"]
    assert [(one["learner"], one["training_set"], one["rival"]) for one in verdicts] == [
        (learner, *pair)
        for learner in ("ridge", "logistic")
        for pair in (("kept.csv", "everything"), ("kept.csv", "random 108"), ("data.npz", "everything"))
    ]
    means = {(row["learner"], row["training_set"]): row["test_error"] for row in content["evaluation"]}
    for one in verdicts:
        found = means[one["learner"], one["training_set"]] - means[one["learner"], one["rival"]]
        assert one["difference"] == pytest.approx(found, abs=1e-9)
        assert one["low"] < one["difference"] < one["high"]
        assert one["confidence"] == pytest.approx(0.975)
        assert one["more_than_chance"] is (one["low"] > 0 or one["high"] < 0)


def test_one_random_choice_gives_no_interval(noisy, done):
    done(
        *("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--learner", "ridge"),
        *("--seeds", "1"),
    )
    everything, random = report()["verdicts"]
    assert everything["low"] is not None
    assert (random["low"], random["high"], random["more_than_chance"]) == (None, None, False)
    assert "one run: no interval" in report()["sentence"]["ridge"]


@pytest.fixture
def extended(noisy, blobs, done):
    """A pool, a table of true labels of DATA and pool, and what `diva extend` makes of them."""
    pool = blobs("pool.npz", n=60, d=4, seed=3)
    pool.arrays["path"] = np.array([f"p{number}" for number in range(60)])
    np.savez("pool.npz", **pool.arrays)
    pairs = [
        (path, number % 3)
        for paths in (noisy.arrays["path"], pool.arrays["path"])
        for number, path in enumerate(paths)
    ]
    pd.DataFrame(pairs, columns=["path", "true_label"]).to_csv("truth.csv", index=False)
    done("extend", "data.npz", "--pool", "pool.npz", "--budget", "9", "--out", "more")
    return (
        "evaluate",
        "data.npz",
        "--manifest",
        "more/extended.csv",
        "--test",
        "test.npz",
        "--learner",
        "ridge",
    )


def test_the_rivals_of_an_extended_manifest_are_random_choices_from_its_pool(extended, done):
    added = len(pd.read_csv("more/selected.csv"))
    assert added > 1
    result = done(*extended, "--pool", "pool.npz", "--seeds", "2", "--truth", "truth.csv")
    table = runs()
    assert table["training_set"].tolist() == [
        *("everything", "more/extended.csv", f"random pool {added}", f"random pool {added}"),
        *("whole pool", "oracle"),
    ]
    assert table["n_train"].tolist()[:5] == [120, *[120 + added] * 3, 180]
    pool = np.load("pool.npz")
    data = np.load("data.npz")
    n_right = (pool["label"] == np.arange(60) % 3).sum() + (data["label"] == np.arange(120) % 3).sum()
    assert table["n_train"].iloc[-1] == n_right
    assert [one["rival"] for one in report()["verdicts"]] == [
        "everything",
        f"random pool {added}",
        "whole pool",
    ]
    assert report()["n_test_shared"] == {"data.npz": 0, "more/extended.csv": 0, "pool.npz": 0}
    assert "with --pool POOL" not in text_of(result)
    assert "not used: origin" not in text_of(result)


def test_without_its_pool_an_extended_manifest_is_told_of_it(extended, done):
    result = done(*extended)
    added = len(pd.read_csv("more/selected.csv"))
    assert f"{added} samples of more/extended.csv come from a pool (column origin): with --pool" in text_of(
        result
    )
    assert runs()["training_set"].tolist() == ["everything", "more/extended.csv"]


def test_a_truth_that_does_not_cover_the_pool_gives_no_oracle(extended, done):
    pd.read_csv("truth.csv").iloc[:130].to_csv("short.csv", index=False)
    result = done(*extended, "--pool", "pool.npz", "--seeds", "1", "--truth", "short.csv")
    assert "no oracle: the true labels of pool.npz are not known" in text_of(result)
    assert "oracle" not in runs()["training_set"].tolist()


def test_true_labels_by_names_that_data_and_pool_share_are_not_taken_for_both(noisy, blobs, done):
    blobs("pool.npz", n=60, d=4, seed=3)
    done("extend", "data.npz", "--pool", "pool.npz", "--budget", "9", "--out", "more")
    result = done(
        *("evaluate", "data.npz", "--manifest", "more/extended.csv", "--test", "test.npz", "--seeds", "1"),
        *("--pool", "pool.npz", "--truth", "truth.csv", "--learner", "ridge"),
    )
    assert "no oracle" in text_of(result)
    assert "whole pool" in runs()["training_set"].tolist()


def test_a_pool_serves_a_manifest_beside_a_curve_of_either_kind(extended, done):
    for name in ("remove", "add"):
        done(
            *(*extended, "--pool", "pool.npz", "--seeds", "1", "--out", name),
            *("--curve", name, "--fractions", "0.5"),
        )
        assert "whole pool" in runs(name)["training_set"].tolist()
        assert report(name)["curve"]["of"] == {"remove": "removed", "add": "added"}[name]


def test_a_pool_that_nothing_was_taken_from_is_told(extended, done):
    result = done(
        *("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--learner", "ridge"),
        *("--pool", "pool.npz", "--seeds", "1"),
    )
    assert "no manifest has samples that only pool.npz has: it gives no rivals" in text_of(result)
    assert runs()["training_set"].tolist() == ["everything", "kept.csv", "random 108"]


def test_a_pool_that_adds_nothing_is_refused(noisy, run):
    mended(
        run("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--pool", "kept.csv"),
        "all 108 samples of kept.csv are in data.npz",
    )


def test_the_table_alone_goes_to_standard_output(noisy, done):
    arguments = ("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--learner", "ridge")
    result = done(*arguments, "--out", "-")
    done(*arguments, "--out", "there")
    assert result.stdout == (Path("there") / "evaluation.csv").read_text()
    assert not Path("diva-out").exists()


def test_the_same_command_writes_the_same_bytes(noisy, done):
    for out in ("one", "two"):
        done(
            *("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--out", out),
            *("--curve", "remove", "--fractions", "0.3,0.1", "--seeds", "2", "--learner", "ridge"),
        )
    assert sorted(file.name for file in Path("one").iterdir()) == FILES
    for name in FILES:
        assert (Path("one") / name).read_bytes() == (Path("two") / name).read_bytes()


def test_a_curve_needs_no_manifest(noisy, done):
    result = done(
        *("evaluate", "data.npz", "--curve", "remove", "--fractions", "0.3,0.1", "--seeds", "2"),
        *("--test", "test.npz", "--learner", "ridge"),
    )
    assert sorted(file.name for file in Path("diva-out").iterdir()) == [
        *FILES[:2],
        "evaluation.json",
        "run.json",
    ]
    table = runs(name="curve")
    assert table["fraction"].tolist() == [0, 0.1, 0.3] * 2 + [0, 0.1, 0.1, 0.3, 0.3]
    assert table["n_train"].tolist()[:3] == [120, 108, 84]
    assert report()["curve"]["of"] == "removed"
    assert "evaluation" not in report()
    assert "removed derivative loo_loss random" in text_of(result)
    piped = done(
        *("evaluate", "data.npz", "--curve", "remove", "--fractions", "0.3,0.1", "--seeds", "2"),
        *("--test", "test.npz", "--learner", "ridge", "--out", "-"),
    )
    assert piped.stdout == Path("diva-out/curve.csv").read_text()


def test_a_pool_is_added_to_data(noisy, blobs, done):
    pool = blobs("pool.npz", n=60, d=4, seed=3)
    pool.arrays["path"] = np.array([f"p{number}" for number in range(60)])
    np.savez("pool.npz", **pool.arrays)
    result = done(
        *("evaluate", "data.npz", "--curve", "add", "--pool", "pool.npz", "--fractions", "0.05,1"),
        *("--test", "test.npz", "--learner", "ridge", "--seeds", "2"),
    )
    table = runs(name="curve")
    assert table["rule"].unique().tolist() == ["derivative", "loss", "random"]
    assert table.query("rule == 'loss'")["n_train"].tolist() == [120, 123, 180]
    derivative = table.query("rule == 'derivative'")
    assert derivative["n_train"].tolist()[:2] == [120, 123]
    assert 123 < derivative["n_train"].iloc[-1] < 180, "what would raise the loss is left out"
    everything = table.query("fraction == 1")
    assert everything["test_error"].nunique() == 1
    assert report()["curve"]["of"] == "added"
    assert report()["n_test_shared"] == {"data.npz": 0, "pool.npz": 0}
    assert "added derivative loss random" in text_of(result)


def test_a_pool_brings_labels_that_the_test_set_may_have(noisy, blobs, run, done):
    new = blobs("new.npz", n=60, d=4, seed=3)
    new.arrays["label"] = np.where(new.arrays["label"] == 2, 5, new.arrays["label"])
    np.savez("new.npz", **new.arrays)
    arguments = ("evaluate", "data.npz", "--test", "new.npz", "--learner", "ridge", "--seeds", "1")
    mended(run(*arguments, "--curve", "remove"), "labels that no training set has: 5")
    done(*arguments, "--curve", "add", "--pool", "new.npz", "--fractions", "1")


def test_a_pool_without_labels_cannot_be_trained_on(noisy, run):
    np.savez("bare.npz", embedding=noisy.arrays["embedding"])
    mended(
        run("evaluate", "data.npz", "--curve", "add", "--pool", "bare.npz", "--test", "test.npz"),
        "bare.npz has no labels",
    )


def test_removing_by_derivative_is_diva_prune(noisy, done):
    done("prune", "data.npz", "--keep", "0.7", "--by", "derivative", "--force", "--out", "pruned")
    done(
        *("evaluate", "data.npz", "--curve", "remove", "--fractions", "0.3", "--learner", "ridge"),
        *("--manifest", "pruned/kept.csv", "--test", "test.npz", "--seeds", "1"),
    )
    curve = runs(name="curve").query("rule == 'derivative' and fraction == 0.3")
    kept = runs().query("training_set == 'pruned/kept.csv'")
    assert curve["test_error"].tolist() == kept["test_error"].tolist()
    assert curve["difference_se"].tolist() == kept["difference_se"].tolist()


def test_a_manifest_from_a_pipe(noisy, done):
    kept = done("prune", "data.npz", "--keep", "0.7", "--out", "-").stdout
    done("evaluate", "data.npz", "--manifest", "-", "--test", "test.npz", "--learner", "ridge", stdin=kept)
    assert runs()["n_train"].tolist() == [120, *[84] * 6]


def test_weights_in_a_manifest_are_honoured(noisy, done):
    table = pd.read_csv("kept.csv")
    everything = pd.DataFrame({"path": noisy.arrays["path"], "label": noisy.arrays["label"]})
    everything["feature_source"] = "data.npz"
    everything["weight"] = everything["path"].isin(table["path"]).astype(float)
    everything.to_csv("weighted.csv", index=False)
    done(
        *("evaluate", "data.npz", "--manifest", "kept.csv", "--manifest", "weighted.csv"),
        *("--test", "test.npz", "--seeds", "1"),
    )
    found = runs().pivot(index="learner", columns="training_set", values="difference")
    assert found["weighted.csv"].tolist() == found["kept.csv"].tolist()
    assert (found["kept.csv"] != 0).any()


def test_images_are_embedded_once(images, images_table, model, done, tmp_path, monkeypatch):
    held_out = tmp_path / "held_out"
    for file in sorted(images.rglob("*.png"))[::4]:
        target = held_out / file.parent.name / f"copy of {file.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    images_table[::2].to_csv("kept.csv", index=False)
    done("score", images, *model)
    monkeypatch.delattr("divacli.features.extract.extract")
    result = done(
        *("evaluate", images, "--manifest", "kept.csv", "--test", held_out, "--learner", "ridge", *model)
    )
    # Of equal content under other names.
    assert "9 of the 9 test samples are also in" in text_of(result)
    assert report()["n_test_shared"][str(images)] == 9


def test_true_labels_may_be_a_column_of_data(noisy, done):
    table = pd.DataFrame({"path": noisy.arrays["path"], "label": noisy.arrays["label"]})
    table.assign(true_label=np.arange(120) % 3, feature_source="data.npz").to_csv("labels.csv", index=False)
    done("evaluate", "labels.csv", "--manifest", "kept.csv", "--test", "test.npz", "--learner", "ridge")
    assert runs()["training_set"].tolist()[-1] == "oracle"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --manifest DATA, or --curve, or both"),
        (("--curve", "remove", "--fractions", "0.1,1"), "expected numbers in (0, 1)"),
        (("--curve", "remove", "--fractions", "some"), "expected numbers in (0, 1)"),
        (("--curve", "add", "--pool", "more.npz", "--fractions", "0.1,1.1"), "numbers in (0, 1]"),
        (("--curve", "add"), "--curve add takes from --pool DATA"),
        (("--curve", "add", "--manifest", "kept.csv"), "--curve add takes from --pool DATA"),
        (
            ("--curve", "remove", "--pool", "more.npz"),
            "--pool DATA belongs to --manifest DATA or --curve add",
        ),
        (("--curve", "sideways"), "Invalid value for '--curve'"),
        (("--manifest", "kept.csv", "--learner", "forest"), "Invalid value for '--learner'"),
        (("--manifest", "kept.csv", "--seeds", "0"), "Invalid value for '--seeds'"),
        (("--manifest", "-", "--val", "-"), "only one of DATA and the options can be standard input"),
    ],
)
def test_wrong_usage(arguments, message, run):
    result = run("evaluate", "data.npz", "--test", "test.npz", *arguments)
    assert result.exit_code == 2
    assert message in text_of(result)
    assert not Path("diva-out").exists()


def test_a_test_set_is_required(run):
    result = run("evaluate", "data.npz", "--manifest", "kept.csv")
    assert result.exit_code == 2
    assert "--test" in result.stderr


def mended(result, *parts: str) -> None:
    assert result.exit_code == 1, result.stderr
    for part in ("error:", "expected:", *parts):
        assert part in text_of(result)
    assert not Path("diva-out").exists()


def test_labels_that_cannot_be_learned_are_refused_before_any_work(images, images_table, factory, model, run):
    table = images_table.assign(label=images_table["label"].replace("a", "unheard"))
    table.to_csv("test.csv", index=False)
    images_table[::2].to_csv("kept.csv", index=False)
    mended(
        run("evaluate", images, "--manifest", "kept.csv", "--test", "test.csv", *model),
        "test.csv has labels that no training set has: unheard",
    )
    assert not factory.with_suffix(".log").exists(), "the network was built"


def test_a_truth_that_repeats_the_labels_is_none(noisy, run):
    for truth in ("data.npz", "kept.csv"):
        data = "data.npz" if truth == "data.npz" else "kept.csv"
        result = run("evaluate", data, "--manifest", "kept.csv", "--test", "test.npz", "--truth", truth)
        assert result.exit_code == 1
        assert f"{truth} has no column true_label, and its labels are those of {data}" in text_of(result)


def test_a_truth_with_missing_rows(noisy, run):
    pd.read_csv("truth.csv").iloc[3:].to_csv("short.csv", index=False)
    mended(
        run("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--truth", "short.csv"),
        "short.csv has no true label for 3 of 120 samples: s0000, s0001, s0002",
    )


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_manifest_or_one_of_a_single_class(rows, noisy, run):
    pd.read_csv("kept.csv").iloc[:rows].to_csv("kept.csv", index=False)
    message = "one class only" if rows else "has a header and no rows"
    mended(run("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz"), message)


def test_features_of_another_width_or_network(noisy, blobs, images, factory, done, run):
    blobs("wide.npz", d=9)
    mended(
        run("evaluate", "data.npz", "--manifest", "wide.npz", "--test", "test.npz"),
        "wide.npz has 9 features a sample expected: 4, as data.npz has",
    )
    for name, network in (("one", "make"), ("five", "make_five")):
        done("embed", images, "--model", f"{factory}:{network}", "--out", name)
    mended(
        run("evaluate", "one", "--manifest", "one", "--test", "five"),
        "five holds features computed otherwise",
    )


def test_a_test_set_that_shares_samples_is_a_warning(noisy, done):
    result = done(
        *("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "data.npz", "--learner", "ridge")
    )
    assert "120 of the 120 test samples are also in data.npz: the test flatters" in text_of(result)
    assert "108 of the 120 test samples are also in kept.csv" in text_of(result)


def test_options_that_change_nothing_are_a_warning(noisy, done):
    arguments = ("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--learner", "ridge")
    result = done(*arguments, "--loss", "cross-entropy", "--val", "test.npz")
    assert "without --curve nothing is scored, and without effect: --val, --loss" in text_of(result)
    for more in ((), ("--curve", "remove", "--fractions", "0.5", "--seeds", "1", "--val", "test.npz")):
        assert "without effect" not in text_of(done(*arguments, *more))


def test_a_ridge_of_ones_own_is_used(noisy, done):
    for ridge, out in (("1e6", "much"), ("0.1", "little")):
        done(
            *("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--learner", "ridge"),
            *("--ridge", ridge, "--out", out),
        )
    # All but the class of the largest weight is lost under such a penalty.
    assert runs("much")["test_error"].iloc[0] != runs("little")["test_error"].iloc[0]


def test_lists_in_a_configuration_file(noisy, done, tmp_path):
    (tmp_path / "set").mkdir()
    Path("set/diva.yaml").write_text(
        "data: ../data.npz\ntest: ../test.npz\ntruth: ../truth.csv\nseeds: 1\n"
        "evaluate:\n  manifest: [../kept.csv, ../data.npz]\n  learner:\n    - logistic\n    - ridge\n"
    )
    done("evaluate", "--config", "set/diva.yaml")
    names = list(dict.fromkeys(Path(name).name for name in runs()["training_set"]))
    assert names == ["everything", "kept.csv", "data.npz", "random 108", "oracle"]
    assert runs()["learner"].unique().tolist() == ["logistic", "ridge"]


def test_the_command_line_offers_the_learners_there_are():
    assert [name.value for name in LearnerName] == [*LEARNERS, FinetuneLearner.name]


FINETUNE = ("--learner", "finetune", "--workers", "0", "--seeds", "2")


def test_fine_tuning_runs_the_network_once_a_seed(images, images_table, model, done):
    images_table[:24].to_csv("kept.csv", index=False)
    command = ("evaluate", images, "--manifest", "kept.csv", "--test", images, *model, *FINETUNE)
    result = done(*command, "--learner", "ridge", "--epochs", "1", "--trainable", "all")
    table = runs()
    assert table["learner"].value_counts().to_dict() == {"finetune": 6, "ridge": 4}
    fine = table[table["learner"] == "finetune"]
    assert fine.groupby("training_set")["seed"].apply(sorted).to_dict() == {
        name: [0, 1] for name in ("everything", "kept.csv", "random 24")
    }
    assert report()["learners"] == ["ridge", "finetune"]
    assert "without effect" not in result.stderr
    # What is asked for reaches the training.
    done(*command, "--epochs", "40", "--trainable", "all", "--out", "longer")
    longer = runs("longer")
    everything = longer[longer["training_set"] == "everything"]["test_error"].mean()
    assert everything < fine[fine["training_set"] == "everything"]["test_error"].mean()


def test_fine_tuning_is_refused_before_any_work(noisy, images, model, run):
    given = ("--manifest", "kept.csv", "--test", "test.npz", *FINETUNE)
    result = run("evaluate", "data.npz", *given, *model)
    assert result.exit_code == 1
    assert "data.npz brings its features: there are no images to run a network on" in text_of(result)
    given = ("--manifest", images, "--test", images, *FINETUNE)
    result = run("evaluate", images, *given)
    assert result.exit_code == 1
    result = run("evaluate", images, *given, *model, "--trainable", "nowhere")
    assert result.exit_code == 1
    assert "nowhere" in text_of(result)
    assert not Path("diva-out/evaluation.csv").exists()


def test_options_of_fine_tuning_without_it_are_said_to_be_idle(noisy, done):
    result = done(
        *("evaluate", "data.npz", "--manifest", "kept.csv", "--test", "test.npz", "--learner", "ridge"),
        *("--epochs", "3"),
    )
    assert "--trainable and --epochs are without effect without --learner finetune" in text_of(result)


def test_the_help_has_examples_and_options(run):
    text = run("evaluate", "--help").stdout
    assert "diva evaluate photos/ --manifest diva-out/kept.csv --test held_out/" in " ".join(
        text.replace("│", " ").split()
    )
    for option in (
        "--manifest",
        "--test",
        "--truth",
        "--learner",
        "--seeds",
        "--curve",
        "--pool",
        "--fractions",
    ):
        assert f"{option} " in text
