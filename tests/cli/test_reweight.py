"""`diva reweight`: what is written, that every command honours it, and what is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FAST = ("--steps", "1", "--folds", "2")
ONE_STEP = ("--step-size", "0.1")
DOCS = Path(__file__).parents[2]


def text_of(result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


def assert_mendable(result, message: str) -> None:
    assert result.exit_code == 1, result.output
    assert message in text_of(result)
    for part in ("error: ", "expected: ", "to do: "):
        assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("diva-out/reweighted.csv").exists()


def table_of(file: str | Path = "diva-out/reweighted.csv") -> pd.DataFrame:
    return pd.read_csv(file, dtype={"path": str, "label": str})


def summary_of(folder: str | Path = "diva-out") -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((Path(folder) / "reweight.json").read_text(), parse_constant=refuse)


@pytest.fixture
def clean(blobs):
    """Classes far apart, every label right: no weights are better than equal ones."""
    data = blobs("clean.npz", n=90)
    np.savez(data.file, **{**data.arrays, "label": np.arange(90) % 3})
    return data.file


# What is written


def test_every_row_is_there_once_and_in_the_order_of_data(blobs, done):
    weights = np.random.default_rng(0).uniform(0.5, 2, 90)
    data = blobs(n=90, weight=weights)
    order = np.random.default_rng(1).permutation(90)
    table = pd.DataFrame({"path": data.arrays["path"], "label": data.arrays["label"], "weight": weights})
    table = table.assign(feature_source="blobs.npz", camera="x").iloc[order]
    table.to_csv("rows.csv", index=False)
    result = done("reweight", "rows.csv", *ONE_STEP)
    found = table_of()
    assert list(found) == ["path", "label", "weight", "feature_source", "camera"]
    assert found["path"].tolist() == table["path"].tolist()
    assert found["label"].tolist() == table["label"].astype(str).tolist()
    assert set(found["feature_source"]) == {"../blobs.npz"}
    assert set(found["camera"]) == {"x"}
    assert found["weight"].sum() == pytest.approx(weights.sum())
    assert found["weight"].min() >= 0
    assert np.abs(found["weight"].to_numpy() - weights[order]).max() > 0.05
    assert result.stdout == ""
    assert "wrote failed.csv, reweight.json, reweighted.csv in diva-out" in text_of(result)


def test_the_json_says_what_was_done(blobs, done):
    done("reweight", blobs(n=90).file, *FAST, "--seed", "3")
    content = summary_of()
    assert (content["n_samples"], content["n_classes"]) == (90, 3)
    assert (content["per"], content["loss"], content["validation"]) == (
        "sample",
        "robust-cross-entropy",
        "natural",
    )
    assert content["step_size"] is None
    assert [trial["size"] for trial in content["trials"]] == [0.025, 0.05, 0.1, 0.2, 0.4]
    assert {trial["step"] for trial in content["trials"]} == {1}
    assert [row["size"] for row in content["history"]] == [0, *content["sizes"]]
    assert 0 < content["effective_samples"] <= 90
    assert content["n_zero"] == (table_of()["weight"] == 0).sum()
    for key in ("ridge", "seconds", "device", "versions", "fingerprint"):
        assert content[key]


def test_given_steps_are_taken_as_they_are(blobs, done):
    done("reweight", blobs(n=90).file, "--step-size", "0.1", "--steps", "2")
    content = summary_of()
    assert (content["step_size"], content["sizes"], content["trials"]) == (0.1, [0.1, 0.1], None)
    assert content["forecast"]["chosen"] == "reweighting"
    assert [row["step"] for row in content["history"]] == [0, 1, 2]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_other_formats_hold_the_same(format, blobs, done):
    data = blobs(n=60).file
    done("reweight", data, *ONE_STEP)
    done("reweight", data, *ONE_STEP, "--format", format, "--out", "other")
    file = Path("other") / f"reweighted.{format}"
    found = pd.read_parquet(file) if format == "parquet" else pd.read_json(file, lines=True)
    np.testing.assert_allclose(found["weight"], table_of()["weight"], rtol=1e-8)
    assert found["path"].tolist() == table_of()["path"].tolist()


def test_the_same_command_writes_the_same_bytes(blobs, done):
    data = blobs(n=60).file
    for out in ("one", "two"):
        done("reweight", data, *FAST, "--out", out)
    assert Path("one/reweighted.csv").read_bytes() == Path("two/reweighted.csv").read_bytes()


def test_the_order_of_rows_changes_no_weight(blobs, done):
    data = blobs(n=90)
    order = np.random.default_rng(1).permutation(90)
    np.savez("shuffled.npz", **{name: array[order] for name, array in data.arrays.items()})
    for name in ("blobs", "shuffled"):
        done("reweight", f"{name}.npz", *FAST, "--out", name)
    one, other = (table_of(f"{name}/reweighted.csv").set_index("path") for name in ("blobs", "shuffled"))
    np.testing.assert_allclose(other["weight"][one.index], one["weight"], rtol=1e-5)


def test_images_that_cannot_be_decoded_are_listed_and_not_weighted(
    images, images_table, model, done, tmp_path
):
    (tmp_path / "broken.png").write_bytes(b"no image")
    table = pd.concat(
        [images_table, pd.DataFrame({"path": ["broken.png"], "label": ["a"]})], ignore_index=True
    )
    table.to_csv("labels.csv", index=False)
    done("reweight", "labels.csv", *model, *ONE_STEP)
    assert table_of()["path"].tolist() == images_table["path"].tolist()
    failed = pd.read_csv("diva-out/failed.csv")
    assert failed["path"].tolist() == ["../broken.png"]


def test_no_step_is_said_and_leaves_the_weights_as_they_were(clean, done):
    result = done("reweight", clean, "--folds", "3")
    assert "by more than two of its standard errors" in text_of(result)
    assert "the weights are as they were" in text_of(result)
    assert "steps taken: none" in result.stderr
    assert "Nothing to gain by reweighting: the weights stay." in text_of(result)
    assert (summary_of()["sizes"], summary_of()["forecast"]) == ([], None)
    assert (table_of()["weight"] == 1).all()


def test_steps_that_pay_are_taken_and_not_excused(blobs, done):
    weights = np.where(np.arange(90) % 3 == 1, 0.02, 1.0)
    result = done("reweight", blobs(n=90, weight=weights).file, *FAST)
    assert "no step" not in text_of(result)
    assert "steps taken: 0." in result.stderr
    (size,) = summary_of()["sizes"]
    assert [*summary_of()["forecast"]["error"]] == ["nothing", "reweighting", "random"]
    assert "Reweighting should lower the error on new images from" in text_of(result)
    assert "the same weights dealt out at random would" in text_of(result)
    assert "The new weights were written." in text_of(result)
    assert f"steps taken: {size:g}" in result.stderr
    assert table_of()["weight"][1::3].mean() > 0.1


def test_quiet_says_nothing_when_nothing_is_wrong(blobs, done):
    result = done("reweight", blobs(n=60).file, *ONE_STEP, "--quiet")
    assert (result.stdout, result.stderr) == ("", "")


# Given back


def test_given_back_the_walk_goes_on_from_the_weights(blobs, done):
    data = blobs(n=90).file
    done("reweight", data, "--step-size", "0.1", "--steps", "2", "--ridge", "1", "--out", "two")
    done("reweight", data, *ONE_STEP, "--ridge", "1", "--out", "one")
    done("reweight", "one/reweighted.csv", *ONE_STEP, "--ridge", "1", "--out", "again")
    expected = table_of("two/reweighted.csv")["weight"]
    np.testing.assert_allclose(table_of("again/reweighted.csv")["weight"], expected, rtol=1e-5)


def test_a_pipe_passes_the_weights_on(blobs, done):
    data = blobs(n=90).file
    piped = done("reweight", data, *ONE_STEP, "-o", "-", "--quiet")
    assert not Path("diva-out").exists()
    done("reweight", data, *ONE_STEP)
    assert piped.stdout.replace("blobs.npz", "../blobs.npz") == Path("diva-out/reweighted.csv").read_text()
    scored = done("score", "-", "-o", "-", "--quiet", stdin=piped.stdout)
    done("score", "diva-out/reweighted.csv", "--out", "scored")
    expected = Path("scored/scores.csv").read_text()
    assert scored.stdout.replace("blobs.npz", "../blobs.npz") == expected
    weights = pd.read_csv("scored/scores.csv").set_index("path")["weight"]
    np.testing.assert_allclose(weights[table_of()["path"]], table_of()["weight"], rtol=1e-8)


def test_scores_are_reweighted_anew_and_leave_no_stale_column(blobs, done):
    data = blobs(n=60, group=np.array([f"g{n // 2}" for n in range(60)])).file
    done("score", data, "--out", "scored")
    done("reweight", "scored/scores.csv", *ONE_STEP, "--out", "from scores")
    done("reweight", data, *ONE_STEP)
    found = table_of("from scores/reweighted.csv")
    assert list(found) == ["path", "label", "weight", "group", "feature_source"]
    expected = table_of().set_index("path")["weight"]
    np.testing.assert_allclose(found.set_index("path")["weight"][expected.index], expected, rtol=1e-5)


@pytest.fixture
def alike(blobs, done):
    """Files that pose the same problem: a row of weight 2 or twice; a row of weight 0 or none."""
    blobs("val.npz", n=30, seed=8)
    blobs("pool.npz", n=30, seed=5)
    single = blobs("single.npz", n=45)
    n = np.arange(45)
    np.savez("heavy.npz", **single.arrays, weight=np.where(n == 0, 2.0, 1.0))
    rows = np.r_[n, 0]
    twice = {name: array[rows] for name, array in single.arrays.items()}
    np.savez("twice.npz", **{**twice, "path": np.append(single.arrays["path"], "again")})
    np.savez("zero.npz", **single.arrays, weight=np.where(n == 0, 0.0, 1.0))
    np.savez("absent.npz", **{name: array[1:] for name, array in single.arrays.items()})
    return [("heavy.npz", "twice.npz"), ("zero.npz", "absent.npz")]


# Of a validation set's loss: a sample's own leave-one-out prediction is another one where it is there twice.
POSED = ("--val", "val.npz", "--ridge", "0.5", "--dtype", "float64")


def test_reweight_honours_weights(alike, done):
    losses = {}
    for file in ("single.npz", *sum(alike, ())):
        done("reweight", file, *ONE_STEP, *POSED)
        losses[file] = summary_of()["history"][0]["loss"]
    for one, other in alike:
        assert losses[one] == pytest.approx(losses[other], rel=1e-9)
        assert abs(losses[one] - losses["single.npz"]) > 1e-6


def test_prune_honours_weights(alike, done):
    for one, other in alike:
        dropped = []
        for file in (one, other):
            done("prune", file, "--threshold", "0", "--force", *POSED)
            table = (
                pd.read_csv("diva-out/dropped.csv")
                .set_index("path")
                .drop(["again", "s0000"], errors="ignore")
            )
            dropped.append(table["derivative"])
        assert dropped[0].index.tolist() == dropped[1].index.tolist() != []
        np.testing.assert_allclose(dropped[0], dropped[1], rtol=1e-7)


def test_extend_honours_weights(alike, done):
    for one, other in alike:
        chosen = []
        for file in (one, other):
            done("extend", file, "--pool", "pool.npz", "--budget", "8", *POSED)
            chosen.append(pd.read_csv("diva-out/selected.csv"))
        assert chosen[0]["path"].tolist() == chosen[1]["path"].tolist() != []
        np.testing.assert_allclose(chosen[0]["pool_derivative"], chosen[1]["pool_derivative"], rtol=1e-6)


def test_evaluate_honours_weights(alike, done):
    for one, other in alike:
        arguments = ("--manifest", one, "--manifest", other, "--test", "val.npz", "--ridge", "0.5")
        done("evaluate", "single.npz", *arguments, "--learner", "ridge", "--seeds", "1")
        errors = pd.read_csv("diva-out/evaluation.csv").groupby("training_set")["test_error"].first()
        assert errors[one] == errors[other]


# Options


def test_per_class_and_per_group_share_weights(blobs, done):
    data = blobs(n=60, group=np.array([f"g{n // 4}" for n in range(60)])).file
    for per, column in (("class", "label"), ("group", "group")):
        done("reweight", data, *ONE_STEP, "--per", per, "--out", per)
        groups = table_of(Path(per) / "reweighted.csv").groupby(column)["weight"]
        assert groups.nunique().eq(1).all()
        assert groups.first().nunique() == len(groups)
        assert summary_of(per)["per"] == per


def test_per_group_without_groups_is_an_error(blobs, run):
    result = run("reweight", blobs(n=60).file, "--per", "group")
    assert_mendable(result, "blobs.npz has no groups that could share a weight")


def test_balanced_validation_starts_at_inverse_frequencies(blobs, done):
    data = blobs(n=90)
    keep = (data.arrays["label"] != 2) | (np.arange(90) % 9 == 2)
    np.savez("tail.npz", **{name: array[keep] for name, array in data.arrays.items()})
    result = done("reweight", "tail.npz", *FAST, "--validation", "balanced", "--step-size", "1e-9")
    table = table_of()
    sums = table.groupby("label")["weight"].sum()
    assert sums.tolist() == pytest.approx([len(table) / 3] * 3, rel=1e-6)
    assert table["weight"][table["label"] == "2"].min() > 3 * table["weight"][table["label"] == "0"].max()
    assert summary_of()["validation"] == "balanced"
    assert "share of weight" in result.stderr


def test_no_step_of_balanced_validation_still_balances(clean, done):
    data = dict(np.load(clean))
    keep = (data["label"] != 2) | (np.arange(90) % 2 == 0)
    np.savez("tail.npz", **{name: array[keep] for name, array in data.items()})
    result = done("reweight", "tail.npz", "--folds", "3", "--validation", "balanced")
    assert "the weights are those that balance the classes" in text_of(result)
    sums = table_of().groupby("label")["weight"].sum()
    assert sums.tolist() == pytest.approx([75 / 3] * 3)


def test_losses_and_validation_sets_give_other_weights(blobs, done):
    data, other = blobs(n=90).file, blobs("val.npz", n=60, seed=4).file
    found = []
    for options in ((), ("--loss", "squared"), ("--val", other), ("--ridge", "0.01"), ("--group", "label")):
        done("reweight", data, *ONE_STEP, *options)
        found.append(table_of()["weight"].to_numpy())
    for first in range(5):
        for second in range(first):
            assert np.abs(found[first] - found[second]).max() > 1e-3
    assert summary_of()["ridge"] != 0.01


def test_a_given_ridge_is_taken(blobs, done):
    done("reweight", blobs(n=60).file, *ONE_STEP, "--ridge", "0.25")
    assert summary_of()["ridge"] == 0.25


def test_options_from_the_sample_configuration(done, blobs):
    blobs("photos.npz", n=60)
    sample = (DOCS / "sample_configs" / "reweight.yaml").read_text()
    lines = [line for line in sample.splitlines() if not re.match(r"(data|model|checkpoint):", line)]
    Path("mine.yaml").write_text("data: photos.npz\n" + "\n".join(lines))
    done("reweight", "--config", "mine.yaml")
    assert summary_of()["validation"] == "balanced"
    assert summary_of()["per"] == "class"


# In PyTorch


def recipe(page: str) -> list[str]:
    """The lines of the documented Python example that use the weights."""
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL):
        if "weighted_sampler" in block:
            return block.splitlines()
    raise AssertionError(f"{page} has no such example")


def test_the_documented_recipe_draws_by_weight(images, model, done):
    lines = recipe("docs/reweight.md")
    assert len([line for line in lines if line and "import" not in line]) == 3
    assert recipe("README.md") == lines
    done("reweight", images, *model, *ONE_STEP)
    table = table_of()
    table["weight"] = (np.arange(36) % 4 == 0).astype(float)
    table.to_csv("diva-out/reweighted.csv", index=False)

    def transform(image):
        from torchvision.transforms.functional import pil_to_tensor

        return pil_to_tensor(image).float()

    names = {"transform": transform}
    exec("\n".join(lines), names)  # the lines as they stand in the documentation
    batches = list(names["loader"])
    assert sum(len(labels) for _, labels in batches) == 9
    drawn = {image.numpy().tobytes() for batch, _ in batches for image in batch}
    there = [names["dataset"][row][0].numpy().tobytes() for row in range(0, 36, 4)]
    assert drawn <= set(there)
    assert len(drawn) > 1


# What is refused


@pytest.mark.parametrize(
    "arguments",
    [
        ("--step-size", "0"),
        ("--step-size", "-0.1"),
        ("--step-size", "nan"),
        ("--step-size", "inf"),
        ("--step-size", "some"),
        ("--steps", "0"),
        ("--folds", "1"),
        ("--per", "image"),
        ("--validation", "fair"),
        ("--loss", "hinge"),
        ("--ridge", "-1"),
        ("--stepsize", "1"),
    ],
)
def test_wrong_usage(arguments, blobs, run):
    result = run("reweight", blobs(n=60).file, *arguments)
    assert result.exit_code == 2
    assert "Error" in result.stderr
    assert not Path("diva-out/reweighted.csv").exists()


def test_features_that_are_all_the_same(blobs, run):
    data = blobs(n=60)
    np.savez(data.file, **{**data.arrays, "embedding": np.ones((60, 8), np.float32)})
    assert_mendable(run("reweight", data.file), "same features")


def test_a_validation_set_with_a_label_of_its_own(blobs, run):
    val = blobs("val.npz", n=30)
    np.savez(val.file, **{**val.arrays, "label": np.full(30, 7) - np.arange(30) % 2})
    assert_mendable(run("reweight", blobs(n=60).file, "--val", val.file), "lack: 6, 7")


def test_interrupted_between_the_folds(blobs, run, monkeypatch):
    import divacli.ridge.weights.reweighting as module

    true, calls = module.predictions, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(module, "predictions", interrupted)
    result = run("reweight", blobs(n=60).file)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("diva-out").exists()


def test_out_that_is_read_only(blobs, run, monkeypatch):
    Path("closed").mkdir()
    # The super-user, who may run this, can write everywhere.
    true = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and true(path, mode))
    result = run("reweight", blobs(n=60).file, "--out", "closed")
    assert_mendable(result, "--out closed cannot be written to")


def test_a_failed_command_leaves_earlier_results_whole(blobs, done, run):
    data = blobs(n=60).file
    done("reweight", data, *ONE_STEP)
    before = Path("diva-out/reweighted.csv").read_bytes()
    assert run("reweight", data, "--per", "group").exit_code == 1
    assert Path("diva-out/reweighted.csv").read_bytes() == before


def test_each_command_has_its_cross_entropy(blobs, run):
    file = blobs().file
    for command, wrong, other in (
        ("reweight", "cross-entropy", "robust-cross-entropy"),
        ("score", "robust-cross-entropy", "cross-entropy"),
    ):
        result = run(command, file, "--loss", wrong)
        assert result.exit_code == 2
        said = " ".join(result.stderr.replace("│", " ").split())
        assert f"{wrong} is no loss of this command; expected squared or {other}" in said
