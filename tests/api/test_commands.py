"""Every command from Python writes what the command line writes, byte for byte."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pandas as pd
import pytest

import divacli
from divacli import Compute, Network, Problem, Training
from divacli.cli.app import app
from divacli.cli.options import ComputeOptions, NetworkOptions, ProblemOptions
from divacli.errors import DivaError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

NET = Network("net.py:make")
HERE = Compute(workers=0)

WITH_FEATURES = {
    "score": (
        lambda: divacli.score("data.npz", by=["class", "annotator"], verify=3),
        "score data.npz --by class --by annotator --verify 3",
    ),
    "score a validation set": (
        lambda: divacli.score("data.npz", problem=Problem(val="test.npz", ridge=2.0, loss="cross-entropy")),
        "score data.npz --val test.npz --ridge 2 --loss cross-entropy",
    ),
    "score balanced": (
        lambda: divacli.score("data.npz", problem=Problem(validation="balanced", scaling="standard")),
        "score data.npz --validation balanced --scaling standard",
    ),
    "score in groups": (
        lambda: divacli.score("data.npz", problem=Problem(dtype="float64", group="annotator", seed=3)),
        "score data.npz --dtype float64 --group annotator --seed 3",
    ),
    "prune": (lambda: divacli.prune("data.npz", keep="auto"), "prune data.npz --keep auto"),
    "prune by a threshold": (
        lambda: divacli.prune("data.npz", keep="auto", threshold=0.8, budget=3),
        "prune data.npz --keep auto --threshold 0.8 --budget 3",
    ),
    "prune a share": (
        lambda: divacli.prune("data.npz", keep=0.8, stratify=True),
        "prune data.npz --keep 0.8 --stratify",
    ),
    "prune by a rule": (
        lambda: divacli.prune("data.npz", keep=0.7, by="easy", force=True),
        "prune data.npz --keep 0.7 --by easy --force",
    ),
    "prune by loss": (
        lambda: divacli.prune("data.npz", threshold=0.01, by="loo_loss"),
        "prune data.npz --threshold 0.01 --by loo_loss",
    ),
    "relabel": (lambda: divacli.relabel("data.npz", budget=8), "relabel data.npz --budget 8"),
    "relabel for a review": (
        lambda: divacli.relabel("data.npz", decide="balanced", force=True),
        "relabel data.npz --decide balanced --force",
    ),
    "reweight": (
        lambda: divacli.reweight("data.npz", step_size=0.1, steps=2),
        "reweight data.npz --step-size 0.1 --steps 2",
    ),
    "reweight classes": (
        lambda: divacli.reweight("data.npz", per="class", folds=3, problem=Problem(validation="balanced")),
        "reweight data.npz --per class --folds 3 --validation balanced",
    ),
    "extend": (
        lambda: divacli.extend("data.npz", "pool.npz", budget=10, by="balanced", min_trust=0.4),
        "extend data.npz --pool pool.npz --budget 10 --by balanced --min-trust 0.4",
    ),
    "extend without labels": (
        lambda: divacli.extend("data.npz", "pool.npz", budget="25%", pool_labels="none"),
        "extend data.npz --pool pool.npz --budget 25% --pool-labels none",
    ),
    "aggregate": (
        lambda: divacli.aggregate("data.npz", "pool.npz", budget=10),
        "aggregate data.npz --pool pool.npz --budget 10",
    ),
    "evaluate": (
        lambda: divacli.evaluate("data.npz", "test.npz", manifests=["pool.npz"], learners=["ridge"], seeds=2),
        "evaluate data.npz --test test.npz --manifest pool.npz --learner ridge --seeds 2",
    ),
    "evaluate a curve": (
        lambda: divacli.evaluate("data.npz", "test.npz", curve="remove", fractions=[0.2], seeds=1),
        "evaluate data.npz --test test.npz --curve remove --fractions 0.2 --seeds 1",
    ),
    "apply": (
        lambda: divacli.apply("data.npz", "decisions.csv"),
        "apply data.npz decisions.csv",
    ),
    "votes": (
        lambda: divacli.votes("votes.csv", budget=3),
        "votes votes.csv --budget 3",
    ),
}
"""What Python is asked for, and the same on the command line."""

WITH_IMAGES = {
    "score": (lambda: divacli.score("photos", NET, compute=HERE), "score photos --model net.py:make"),
    "embed": (lambda: divacli.embed("photos", NET, compute=HERE), "embed photos --model net.py:make"),
    "augment": (
        lambda: divacli.augment("photos", ["hflip", "rotate:15"], NET, step_size=0.2, compute=HERE),
        "augment photos --model net.py:make --transform hflip --transform rotate:15 --step-size 0.2",
    ),
    "train": (
        lambda: divacli.train("photos", NET, training=Training("all", epochs=1, lr=0.01), compute=HERE),
        "train photos --model net.py:make --trainable all --epochs 1 --lr 0.01 --workers 0",
    ),
    "apply": (
        lambda: divacli.apply("photos", materialize="copy"),
        "apply photos --materialize copy",
    ),
}


def both(of, command, same_files):
    called, typed = of
    command(*typed.split(), "--out", "written")
    called().save("saved")
    same_files("written", "saved")


@pytest.mark.parametrize("of", WITH_FEATURES.values(), ids=WITH_FEATURES)
def test_python_writes_what_the_command_writes(of, data, command, same_files):
    Path("decisions.csv").write_text("path,decision\n3,drop\n5,drop\n")
    rows = [
        f"{row},{label},{who},data.npz" for row in range(60) for who, label in zip("xyz", "011", strict=True)
    ]
    Path("votes.csv").write_text("path,label,annotator,feature_source\n" + "\n".join(rows))
    both(of, command, same_files)


@pytest.mark.parametrize("of", WITH_IMAGES.values(), ids=WITH_IMAGES)
def test_so_it_does_with_images(of, images, command, same_files):
    both(of, command, same_files)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_so_it_does_in_every_format(format, data, command, same_files):
    command("score", data, "--out", "written", "--format", format)
    names = divacli.score(data).save("saved", format)
    same_files("written", "saved")
    assert sorted(names) == sorted(path.name for path in Path("saved").iterdir())


def test_every_command_that_has_a_result_is_a_function():
    names = {command.name for command in app.registered_commands}
    others = {"plot", "report", "review", "export", "demo", "doctor"}
    assert names - others == {name for name in divacli.__all__ if name in names}
    for name in names - others:
        assert callable(getattr(divacli, name))


def test_the_defaults_are_those_of_the_command_line():
    groups = ((NetworkOptions, Network), (ComputeOptions, Compute), (ProblemOptions, Problem))
    for typed, given in groups:
        options = {field.name: field.default for field in dataclasses.fields(typed)}
        ours = {field.name: field.default for field in dataclasses.fields(given)}
        assert options == {name: ours[name] for name in options}
        assert set(ours) - set(options) <= {"transform", "progress", "key"}


def test_no_function_has_more_options_than_can_be_read():
    for name in divacli.__all__:
        thing = getattr(divacli, name)
        if inspect.isfunction(thing):
            assert len(inspect.signature(thing).parameters) <= 15, name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"keep": 0.5, "threshold": 0.1},
        {"keep": 2.0},
        {"keep": "most"},
        {"keep": 0.5, "budget": 3},
        {"keep": "auto", "budget": -1},
        {"keep": "auto", "stratify": True},
        {"keep": "auto", "by": "balanced"},
        {"keep": "auto", "threshold": 1.0},
        {"threshold": 0.1, "by": "balanced"},
    ],
)
def test_options_of_prune_that_do_not_go_together_are_refused(options):
    with pytest.raises(DivaError, match="expected:"):
        divacli.prune("nothing is read", **options)


@pytest.mark.parametrize(
    "call",
    [
        lambda: divacli.relabel("x", decide="never"),
        lambda: divacli.relabel("x", decide=1.0),
        lambda: divacli.reweight("x", per="box"),
        lambda: divacli.reweight("x", step_size=0),
        lambda: divacli.reweight("x", folds=1),
        lambda: divacli.reweight("x", steps=0),
        lambda: divacli.extend("x", "y", budget=0),
        lambda: divacli.extend("x", "y", budget="half"),
        lambda: divacli.extend("x", "y", pool_labels="some"),
        lambda: divacli.extend("x", "y", min_trust=2),
        lambda: divacli.evaluate("x", "y", learners=["forest"]),
        lambda: divacli.evaluate("x", "y", curve="add"),
        lambda: divacli.evaluate("x", "y", curve="remove", fractions=[1.5]),
        lambda: divacli.evaluate("x", "y", manifests=["x"], seeds=0),
        lambda: divacli.apply("x"),
        lambda: divacli.train("x", problem=Problem(val="y")),
        lambda: Training(epochs=0),
        lambda: Training(optimizer="adam"),
        lambda: Training(step_size=-1),
        lambda: divacli.evaluate("x", "y", curve="remove", fractions=2.0),
        lambda: divacli.prune("x", keep=True),
        lambda: divacli.score("x", verify=-1),
        lambda: divacli.score("x", compute="cpu"),
        lambda: divacli.score("x", problem={"ridge": 1}),
        lambda: divacli.augment("x", []),
        lambda: divacli.augment("x", [str.upper]),
        lambda: divacli.apply("x", {"path": "decision"}),
        lambda: divacli.apply("x", materialize="move"),
        lambda: Compute(batch_size=0),
        lambda: Compute(workers=-1),
        lambda: Problem(seed=-1),
        lambda: Problem(seed=1.5),
        lambda: Problem(ridge=True),
        lambda: Problem(ridge=-1),
        lambda: Problem(ridge="much"),
        lambda: Problem(loss="hinge"),
        lambda: Problem(scaling="half"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_read(call):
    with pytest.raises(DivaError, match="expected:"):
        call()


def test_a_loss_of_another_command_is_refused(data):
    with pytest.raises(DivaError, match="robust-cross-entropy is no loss"):
        divacli.score(data, problem=Problem(loss="robust-cross-entropy"))
    with pytest.raises(DivaError, match="cross-entropy is no loss"):
        divacli.reweight(data, problem=Problem(loss="cross-entropy"))


def test_results_go_from_one_command_into_the_next(data):
    scored = divacli.score(data)
    kept = divacli.prune(scored, keep=0.8, force=True)
    assert len(kept.kept) == 96
    extended = divacli.extend(kept, "pool.npz", budget=10)
    assert len(extended.extended) == 96 + len(extended.selected)
    judged = divacli.evaluate(data, "test.npz", manifests={"pruned": kept}, seeds=1)
    assert "pruned" in set(judged.table["training_set"])
    decisions = pd.DataFrame({"path": scored.table["path"][:2], "decision": ["drop", "drop"]})
    assert len(divacli.apply(kept, decisions.iloc[:0]).applied) == 96


def test_scores_that_are_there_are_used_as_they_are(data):
    scored = divacli.score(data)
    first = divacli.relabel(scored).table
    scored.save("scored")
    again = divacli.relabel("scored/scores.csv").table.sort_values("path", ignore_index=True)
    first = first.sort_values("path", ignore_index=True)
    pd.testing.assert_frame_equal(again, first, check_dtype=False)
    with pytest.warns(UserWarning, match="change nothing"):
        divacli.relabel(scored, problem=Problem(ridge=3.0))


def test_an_interrupted_training_goes_on_from_its_checkpoint(images):
    training = Training("all", epochs=1)
    first = divacli.train(images, NET, training=training, checkpoint="made.pt", compute=HERE)
    again = divacli.train(images, NET, training=training, checkpoint="made.pt", compute=HERE)
    pd.testing.assert_frame_equal(first.history, again.history)
