"""`--linearize` through the commands: gradients are features like any other."""

from __future__ import annotations

import json

import pandas as pd

BOTH = ("--linearize", "head+2*block:hidden", "--projection", "64")


def test_scores_are_those_of_true_refits(done, images, model, tmp_path):
    result = done("score", images, *model, *BOTH, "--dtype", "float64", "--verify", "5", "--out", "scored")
    assert "features are gradients with respect to 490 parameters, compressed to 64 numbers" in result.stderr
    assert json.loads((tmp_path / "scored" / "summary.json").read_text())["n_features"] == 74
    assert "verif" in result.stderr


def test_around_the_head_the_first_prediction_is_that_of_the_network(
    done, images, model, trained_head, tmp_path
):
    # With a ridge beyond all bounds nothing is added to f_w0 but an intercept, the same for all three.
    options = ("--checkpoint", trained_head, "--around-head", "--scaling", "none", "--ridge", "1e15")
    for name, linearize in {"plain": (), "both": BOTH}.items():
        done("score", images, *model, *options, *linearize, "--out", name)
    plain, both = (
        pd.read_csv(tmp_path / name / "scores.csv").set_index("path")["loo_loss"]
        for name in ("plain", "both")
    )
    pd.testing.assert_series_equal(both.loc[plain.index], plain, rtol=1e-5)


def test_every_command_takes_gradients(done, images, more_images, model, tmp_path):
    given = (*model, *BOTH)
    done("prune", images, *given, "--keep", "0.8", "--out", "pruned")
    kept = tmp_path / "pruned" / "kept.csv"
    assert len(pd.read_csv(kept)) == 29
    done("relabel", images, *given, "--out", "relabelled")
    done("reweight", images, *given, "--out", "weighed")
    done("augment", images, *given, "--transform", "invert", "--out", "augmented")
    done("extend", images, "--pool", more_images, *given, "--budget", "5", "--out", "extended")
    assert len(pd.read_csv(tmp_path / "extended" / "selected.csv")) <= 5
    done(
        "evaluate",
        images,
        "--manifest",
        kept,
        "--test",
        more_images,
        *given,
        "--seeds",
        "1",
        "--out",
        "judged",
    )
    assert {"ridge", "logistic"} == set(pd.read_csv(tmp_path / "judged" / "evaluation.csv")["learner"])


def test_a_store_of_gradients_is_data(done, images, model, tmp_path):
    done("embed", images, *model, *BOTH, "--out", "store")
    done("score", images, *model, *BOTH, "--out", "direct")
    done("score", "store", "--out", "stored")
    tables = [pd.read_csv(tmp_path / name / "scores.csv") for name in ("direct", "stored")]
    assert tables[0]["derivative"].tolist() == tables[1]["derivative"].tolist()


def test_what_does_not_go_together_is_said_before_any_work(run, images, model, tmp_path):
    for arguments, message in (
        (("score", images, "--linearize", "blok"), "expected: a sum of head"),
        (("score", images, "--linearize", "block:nowhere"), "has no layer 'nowhere'"),
        (
            ("evaluate", images, "--manifest", images, "--test", images, "--learner", "finetune", *BOTH),
            "its features are gradients, which are not trained",
        ),
    ):
        result = run(*arguments, *model, "--cache-dir", "cache")
        assert result.exit_code == 1
        assert message in " ".join(result.stderr.split())
    assert not list((tmp_path / "cache").rglob("shard-*"))
    assert run("train", images, "--linearize", "full", *model).exit_code == 2


def test_scores_that_are_there_are_not_made_again(done, images, model, tmp_path):
    done("score", images, *model, "--out", "scored")
    result = done("prune", tmp_path / "scored" / "scores.csv", "--keep", "0.8", *BOTH, "--out", "pruned")
    assert "--linearize and what goes with it change nothing" in " ".join(result.stderr.split())
