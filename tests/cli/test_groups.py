"""Groups that are left out together, as a user asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.ridge import Oracle, RidgeTask, SquaredLoss, fit_scaling, split_in_folds

N, COPIES = 60, 3
PATIENTS = np.array([f"{row // COPIES:03d}" for row in range(N)])


def text_of(result) -> str:
    return " ".join(result.stderr.split())


def summary_of(folder: str = "scored") -> dict:
    return json.loads((Path(folder) / "summary.json").read_text())


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Twenty patients of three classes with three nearly identical images each."""
    generator = np.random.default_rng(1)
    label = np.arange(N) // COPIES % 3
    patients = np.repeat(generator.normal(size=(N // COPIES, 6)), COPIES, axis=0)
    embedding = np.random.default_rng(99).normal(size=(3, 6))[label] + patients
    path = np.array([f"s{row:03d}" for row in range(N)])
    return {
        "embedding": (embedding + 0.01 * generator.normal(size=(N, 6))).astype(np.float32),
        "label": label,
        "path": path,
    }


@pytest.fixture
def table(arrays, tmp_path, run) -> pd.DataFrame:
    """Their table, with a column patient_id, written as patients.csv in the current folder."""
    np.savez("patients.npz", **arrays)
    found = pd.DataFrame({"path": arrays["path"], "label": arrays["label"], "feature_source": "patients.npz"})
    found["patient_id"] = PATIENTS
    found.to_csv("patients.csv", index=False)
    return found


@pytest.fixture
def derivatives(scores):
    """Derivatives of a run of `diva score`, in the order of the samples."""

    def invoke(*arguments: object, out: str = "scored") -> np.ndarray:
        return scores(*arguments, out=out).sort_values("path")["derivative"].to_numpy()

    return invoke


def oracle_of(arrays, groups: np.ndarray | None, ridge: float) -> Oracle:
    features = torch.from_numpy(arrays["embedding"])
    task = RidgeTask(
        features,
        torch.from_numpy(arrays["label"]),
        3,
        torch.ones(N, dtype=torch.float64),
        scaling=fit_scaling("unit", [features]),
        dtype=torch.float64,
        groups=None if groups is None else torch.from_numpy(groups),
    )
    return Oracle(task, ridge)


BY_PATIENT = ("--group", "patient_id")


def test_scores_are_those_of_refits_without_the_whole_group(arrays, table, scores):
    found = scores("patients.csv", *BY_PATIENT).sort_values("path")
    summary = summary_of()
    groups = np.arange(N) // COPIES
    oracle = oracle_of(arrays, groups, summary["ridge"])
    expected = np.array([oracle.loo_derivative(SquaredLoss(), row) for row in range(N)])
    assert np.abs(found["derivative"] - expected).max() < 1e-5 * np.abs(expected).max()
    predictions = torch.stack([oracle.loo_prediction(row) for row in range(N)]).numpy()
    losses = ((predictions - np.eye(3)[arrays["label"]]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found["loo_loss"], losses, rtol=1e-4, atol=1e-6)
    assert found["predicted_label"].astype(int).tolist() == predictions.argmax(axis=1).tolist()
    # Negative control: without groups these are others.
    alone = oracle_of(arrays, None, summary["ridge"])
    wrong = np.array([alone.loo_derivative(SquaredLoss(), row) for row in range(N)])
    assert np.abs(wrong - expected).max() > 0.1 * np.abs(expected).max()


def test_a_column_that_is_named_is_used(table, done):
    assert "columns kept but not used: patient_id" in done("score", "patients.csv").stderr
    assert "not used" not in done("score", "patients.csv", *BY_PATIENT).stderr


def test_copies_no_longer_vouch_for_each_other(table, derivatives, done):
    with_groups = derivatives("patients.csv", *BY_PATIENT, out="groups")
    without = derivatives("patients.csv", out="alone")
    assert summary_of("groups")["loo_error"] > summary_of("alone")["loo_error"] + 0.05
    assert summary_of("groups")["ridge"] > summary_of("alone")["ridge"]
    assert summary_of("groups")["fingerprint"] != summary_of("alone")["fingerprint"]
    assert np.corrcoef(with_groups, without)[0, 1] < 0.95


@pytest.mark.parametrize("options", [(), ("--loss", "cross-entropy"), ("--validation", "balanced")])
def test_verify_refits_without_the_whole_group(options, table, done):
    result = text_of(done("score", "patients.csv", *BY_PATIENT, *options, "--verify", "10"))
    prediction, derivative = (
        float(result.partition("largest relative difference ")[2].split(part)[0].split()[-1])
        for part in (" of leave-one-out predictions", " of derivatives")
    )
    assert max(prediction, derivative) < 1e-5


def test_the_column_group_is_used_by_default_and_can_be_switched_off(table, derivatives):
    table.rename(columns={"patient_id": "group"}).to_csv("named.csv", index=False)
    expected = derivatives("patients.csv", *BY_PATIENT)
    assert derivatives("named.csv").tolist() == expected.tolist()
    assert derivatives("named.csv", "--group", "group").tolist() == expected.tolist()
    off = derivatives("named.csv", "--group", "none")
    assert off.tolist() == derivatives("patients.csv").tolist() != expected.tolist()


def test_an_npz_may_hold_groups(arrays, table, derivatives):
    np.savez("grouped.npz", **arrays, group=PATIENTS)
    assert derivatives("grouped.npz").tolist() == derivatives("patients.csv", *BY_PATIENT).tolist()


def test_more_features_than_samples(arrays, table, derivatives):
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(80, 6)))[0].T
    wide = {**arrays, "embedding": arrays["embedding"].astype(float) @ turned}
    np.savez("wide.npz", **wide, group=PATIENTS)
    expected = derivatives("patients.csv", *BY_PATIENT, "--ridge", "1")
    np.testing.assert_allclose(derivatives("wide.npz", "--ridge", "1"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("blank", ["", "  "])
def test_empty_cells_are_groups_of_their_own(blank, table, derivatives):
    table["patient_id"] = np.where(np.arange(N) < 30, PATIENTS, blank)
    table.to_csv("some.csv", index=False)
    table["patient_id"] = np.where(np.arange(N) < 30, PATIENTS, np.arange(N).astype(str))
    table.to_csv("filled.csv", index=False)
    assert derivatives("some.csv", *BY_PATIENT).tolist() == derivatives("filled.csv", *BY_PATIENT).tolist()


def test_groups_of_one_are_no_groups(table, derivatives):
    table.assign(patient_id=table["path"]).to_csv("each.csv", index=False)
    assert derivatives("each.csv", *BY_PATIENT).tolist() == derivatives("patients.csv").tolist()


@pytest.mark.parametrize(
    "cells",
    [
        pd.Categorical(PATIENTS),
        PATIENTS.astype(int),
        PATIENTS.astype(float),
        pd.to_datetime("2024-01-01") + pd.to_timedelta(PATIENTS.astype(int), unit="D"),
    ],
    ids=["categories", "integers", "floats", "dates"],
)
@pytest.mark.parametrize("missing", [False, True])
def test_groups_of_any_type(cells, missing, table, derivatives):
    cells = pd.Series(cells)
    text = pd.Series(PATIENTS)
    if missing:
        if cells.dtype == int:
            cells = cells.astype("Int64")
        cells[:4], text[:4] = None, ""
    table.assign(patient_id=cells).to_parquet("typed.parquet")
    table.assign(patient_id=text).to_csv("text.csv", index=False)
    options = (*BY_PATIENT, "--ridge", "1")
    assert derivatives("typed.parquet", *options).tolist() == derivatives("text.csv", *options).tolist()


def test_a_column_that_is_not_there_is_named_with_those_that_are(table, run):
    result = run("score", "patients.csv", "--group", "patientid")
    assert result.exit_code == 1
    assert (
        "patients.csv has no column patientid for --group; its columns are: "
        "path, label, weight, feature_source, patient_id" in text_of(result)
    )
    assert "expected: " in result.stderr
    assert "to do: " in result.stderr
    assert not Path("diva-out").exists()


def test_one_group_for_all_is_an_error(table, run):
    table.assign(patient_id="x").to_csv("one.csv", index=False)
    result = run("score", "one.csv", *BY_PATIENT)
    assert result.exit_code == 1
    assert "one.csv: column patient_id has the same value in every row" in text_of(result)
    assert "--group none" in result.stderr


@pytest.mark.parametrize("column", ["patient_id", "group"])
def test_a_column_that_is_named_must_tell_groups_apart(column, table, run, done):
    table.rename(columns={"patient_id": column}).assign(**{column: "x"}).to_csv("one.csv", index=False)
    result = run("reweight", "one.csv", "--group", column, "--step-size", "0.1")
    assert result.exit_code == 1
    assert f"one.csv: column {column} has the same value in every row" in text_of(result)
    table.drop(columns="patient_id").to_csv("none.csv", index=False)
    result = run("score", "none.csv", "--group", column)
    assert result.exit_code == 1
    assert f"none.csv has no column {column} for --group" in text_of(result)
    table.assign(**{column: table["path"]}).to_csv("each.csv", index=False)
    warned = text_of(done("score", "each.csv", "--group", column))
    assert f"each.csv: no two samples are of one {column}" in warned


def test_the_column_group_is_optional_where_it_is_not_named(table, done):
    table.assign(patient_id="x").rename(columns={"patient_id": "group"}).to_csv("one.csv", index=False)
    told = [line for line in done("score", "one.csv").stderr.splitlines() if "one.csv" in line]
    assert told == ["note: one.csv: a table of samples with their features, 60 samples in 3 classes"]
    assert (summary_of("diva-out")["group"], summary_of("diva-out")["n_groups"]) == (None, None)


def test_a_wrong_column_is_refused_before_any_image_is_embedded(images_table, model, factory, run):
    images_table.to_csv("photos.csv", index=False)
    assert run("score", "photos.csv", *model, *BY_PATIENT).exit_code == 1
    assert not factory.with_suffix(".log").exists()


def test_an_npz_may_hold_them_under_any_name(arrays, table, derivatives, done):
    np.savez("named.npz", **arrays, patient_id=PATIENTS.astype(int), camera=PATIENTS)
    expected = derivatives("patients.csv", *BY_PATIENT)
    assert derivatives("named.npz", *BY_PATIENT).tolist() == expected.tolist()
    text = text_of(done("score", "named.npz", *BY_PATIENT))
    assert "columns kept but not used: camera." in text
    assert set(pd.read_csv("diva-out/scores.csv")["patient_id"]) == set(range(N // COPIES))


# What is said of them


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("score",), "summary.json"),
        (("reweight", "--step-size", "0.1"), "reweight.json"),
        (("prune", "--keep", "0.9"), "prune.json"),
        (("evaluate", "--manifest", "patients.csv", "--test", "test.csv"), "evaluation.json"),
        (("extend", "--pool", "pool.csv"), "extend.json"),
    ],
    ids=lambda part: part[0] if isinstance(part, tuple) else "",
)
def test_every_summary_says_what_was_left_out(command, file, arrays, table, done):
    np.savez("others.npz", **{**arrays, "embedding": arrays["embedding"] + np.float32(0.1)})
    others = table.assign(feature_source="others.npz", patient_id="new " + table["patient_id"])
    for name in ("pool.csv", "test.csv"):
        others.to_csv(name, index=False)
    for options, expected in ((BY_PATIENT, ("patient_id", 20)), ((), (None, None))):
        name, *more = command
        result = done(name, "patients.csv", *more, *options, "--out", "out")
        content = json.loads(Path("out", file).read_text())
        assert (content["group"], content["n_groups"]) == expected
        shown = " ".join(result.output.split())
        assert shown.count("leave-group-out: 20 groups of patient_id") == bool(options)
        if name in ("score", "extend"):
            loss = "leave-group-out loss" if options else "leave-one-out loss"
            assert loss in shown
            assert ("leave-one-out" in shown) == (not options)


def test_empty_cells_are_counted_as_groups(table, done):
    table["patient_id"] = np.where(np.arange(N) < 30, PATIENTS, "")
    table.to_csv("some.csv", index=False)
    done("score", "some.csv", *BY_PATIENT)
    assert summary_of("diva-out")["n_groups"] == 10 + 30


# Two sets


@pytest.fixture
def divided(table) -> pd.DataFrame:
    """mine.csv with the first two images of each patient, others.csv with the third of all but five."""
    table[np.arange(N) % COPIES < 2].to_csv("mine.csv", index=False)
    others = table[np.arange(N) % COPIES == 2].reset_index(drop=True)
    others["patient_id"] = np.where(np.arange(20) < 5, "new" + others["patient_id"], others["patient_id"])
    others.to_csv("others.csv", index=False)
    return others


KIN = "15 of the 20 samples of others.csv are of a patient_id that is also in mine.csv"


@pytest.mark.parametrize(
    "command",
    [
        ("score", "--val", "others.csv"),
        ("prune", "--val", "others.csv", "--keep", "0.9"),
        ("reweight", "--val", "others.csv", "--step-size", "0.1"),
        ("evaluate", "--manifest", "mine.csv", "--test", "others.csv"),
        ("evaluate", "--curve", "remove", "--fractions", "0.1", "--test", "others.csv"),
    ],
)
def test_patients_in_both_sets_are_counted(command, divided, done):
    name, *more = command
    result = text_of(done(name, "mine.csv", *more, *BY_PATIENT))
    assert result.count(KIN) == 1
    assert "kin" not in text_of(done(name, "mine.csv", *more))
    # Those who belong to nobody or weigh nothing are nobody's kin.
    divided.assign(
        patient_id=divided["patient_id"].where(np.arange(20) != 6, ""),
        weight=np.where(np.arange(20) == 7, 0.0, 1.0),
    ).to_csv("others.csv", index=False)
    fewer = KIN.replace("15 of the 20", "13 of the 19")
    assert fewer in text_of(done(name, "mine.csv", *more, *BY_PATIENT))
    divided.assign(patient_id=[f"new{row}" for row in range(20)]).to_csv("others.csv", index=False)
    assert "kin" not in text_of(done(name, "mine.csv", *more, *BY_PATIENT))


def test_a_validation_set_needs_no_groups_where_it_is_only_predicted(divided, done):
    divided.drop(columns="patient_id").to_csv("others.csv", index=False)
    done("score", "mine.csv", "--val", "others.csv", *BY_PATIENT)


@pytest.fixture
def pools(divided, arrays):
    """pool.csv with the column, lacking.csv without."""
    np.savez("pool.npz", **{**arrays, "embedding": arrays["embedding"] + np.float32(0.05)})
    pool = pd.DataFrame({"path": arrays["path"], "label": arrays["label"], "feature_source": "pool.npz"})
    pool.to_csv("lacking.csv", index=False)
    pool.assign(patient_id=np.where(np.arange(N) < 30, PATIENTS, "")).to_csv("pool.csv", index=False)
    return pool


@pytest.mark.parametrize("command", ["extend", "aggregate"])
def test_a_pool_must_tell_its_groups(command, pools, run, done):
    done(command, "mine.csv", "--pool", "pool.csv", *BY_PATIENT, "--out", "out")
    assert (
        pd.read_csv("out/remaining.csv")["reason"].str.contains("its patient_id is in the core")
    ).sum() == 30
    result = run(command, "mine.csv", "--pool", "lacking.csv", *BY_PATIENT)
    assert result.exit_code == 1
    assert "lacking.csv has no column patient_id for --group" in text_of(result)
    done(command, "mine.csv", "--pool", "lacking.csv", "--group", "none")


@pytest.mark.parametrize("command", ["extend", "aggregate"])
def test_a_pool_without_the_column_group_is_a_warning(command, pools, done):
    pd.read_csv("mine.csv").rename(columns={"patient_id": "group"}).to_csv("mine.csv", index=False)
    said = "lacking.csv has no column group, which mine.csv has"
    assert said in text_of(done(command, "mine.csv", "--pool", "lacking.csv"))
    assert said not in text_of(done(command, "mine.csv", "--pool", "lacking.csv", "--group", "none"))


def test_a_validation_set_that_judges_a_pool_must_tell_its_groups(pools, divided, run, done):
    arguments = ("extend", "mine.csv", "--pool", "pool.csv", *BY_PATIENT, "--val")
    assert KIN in text_of(done(*arguments, "others.csv"))
    divided.drop(columns="patient_id").to_csv("val.csv", index=False)
    result = run(*arguments, "val.csv")
    assert result.exit_code == 1
    assert "val.csv has no column patient_id for --group" in text_of(result)


def test_training_sets_with_groups_and_without_are_a_warning(pools, divided, run, done):
    mine = pd.read_csv("mine.csv")
    mine.rename(columns={"patient_id": "group"}).to_csv("grouped.csv", index=False)
    mine.drop(columns="patient_id").head(30).to_csv("kept.csv", index=False)
    arguments = ("--manifest", "kept.csv", "--test", "lacking.csv", "--learner", "ridge", "--seeds", "1")
    said = "no column group in kept.csv, but in grouped.csv"
    assert said in text_of(done("evaluate", "grouped.csv", *arguments))
    assert said not in text_of(done("evaluate", "grouped.csv", *arguments, "--group", "none"))
    result = run("evaluate", "mine.csv", *arguments, *BY_PATIENT)
    assert result.exit_code == 1
    assert "kept.csv has no column patient_id for --group" in text_of(result)


def test_two_groups_cannot_choose_a_step(table, run, done):
    table.assign(patient_id=np.arange(N) // 30).to_csv("two.csv", index=False)
    result = run("reweight", "two.csv", *BY_PATIENT)
    assert result.exit_code == 1
    assert "K-fold needs three groups or more" in text_of(result)
    assert "--step-size NUMBER or --val DATA" in text_of(result)
    done("reweight", "two.csv", *BY_PATIENT, "--step-size", "0.1")
    done("reweight", "two.csv", *BY_PATIENT, "--val", "patients.csv")


def test_the_order_of_rows_changes_no_score(table, derivatives):
    table.sample(frac=1, random_state=0).to_csv("shuffled.csv", index=False)
    found = derivatives("shuffled.csv", *BY_PATIENT)
    expected = derivatives("patients.csv", *BY_PATIENT)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_fingerprint_is_that_of_the_groups(table, scores):
    def fingerprint(changed: pd.DataFrame) -> str:
        changed.to_csv("changed.csv", index=False)
        scores("changed.csv", *BY_PATIENT, "--ridge", "1")
        return summary_of()["fingerprint"]

    first = fingerprint(table)
    assert fingerprint(table.assign(camera="x")) == first
    assert fingerprint(table.assign(patient_id=np.roll(PATIENTS, 1))) != first


# Prune


def forecast_of(folder: str) -> dict:
    return json.loads((Path(folder) / "prune.json").read_text())["forecast"]


def test_a_forecast_leaves_whole_groups_out(arrays, table, done):
    """Beside refits by hand at a ridge that is given; every label is trusted as far as its score says."""
    options = ("--keep", "0.9", "--ridge", "1", "--by", "random")
    done("score", "patients.csv", *BY_PATIENT, "--ridge", "1", "--out", "scored")
    done("prune", "patients.csv", *BY_PATIENT, *options, "--out", "pruned")
    scored = pd.read_csv("scored/scores.csv").set_index("path").loc[arrays["path"]]
    trust = 1 - scored["mislabel_probability"].to_numpy()
    groups = torch.from_numpy(np.arange(N) // COPIES)
    labels = torch.from_numpy(arrays["label"])
    order = torch.from_numpy(np.argsort(arrays["path"]))
    fold = split_in_folds(labels, order, 0, 5, groups)
    features = torch.from_numpy(arrays["embedding"]).double()
    features /= features.norm(dim=1, keepdim=True)
    design = torch.cat([features, torch.ones(N, 1, dtype=torch.float64)], dim=1)
    penalty = torch.tensor([1.0] * features.shape[1] + [0.0], dtype=torch.float64).diag()
    wrong = torch.zeros(N, dtype=torch.float64)
    for number in range(5):
        others = design[fold != number]
        targets = torch.eye(3, dtype=torch.float64)[labels[fold != number]]
        head = torch.linalg.solve(others.T @ others + penalty, others.T @ targets)
        inside = fold == number
        wrong[inside] = ((design[inside] @ head).argmax(dim=1) != labels[inside]).double()
    assert forecast_of("pruned")["error"]["nothing"] == pytest.approx(
        np.average(wrong, weights=trust), abs=1e-4
    )
    done("prune", "patients.csv", *options, "--out", "alone")
    assert forecast_of("alone")["error"]["nothing"] < forecast_of("pruned")["error"]["nothing"]


@pytest.mark.parametrize("column", ["patient_id", "group"])
def test_a_pipe_keeps_the_groups(column, table, done):
    table.rename(columns={"patient_id": column}).to_csv("data.csv", index=False)
    asked = () if column == "group" else BY_PATIENT
    done("prune", "data.csv", *asked, "--keep", "0.9", "--force", "--out", "at once")
    scored = done("score", "data.csv", *asked, "-o", "-", "--quiet")
    piped = done("prune", "-", "--keep", "0.9", "--force", "--out", "piped", stdin=scored.stdout)
    assert "no forecast was made" not in piped.stderr
    one, other = (set(pd.read_csv(f"{name}/kept.csv")["path"]) for name in ("at once", "piped"))
    assert one == other
    assert forecast_of("piped")["error"] == pytest.approx(forecast_of("at once")["error"], abs=1e-5)


def test_scores_made_without_groups_are_pruned_without_them(table, done):
    table.rename(columns={"patient_id": "group"}).to_csv("data.csv", index=False)
    done("score", "data.csv", "--group", "none", "--out", "scored")
    done("prune", "scored/scores.csv", "--keep", "0.9", "--out", "pruned")
    done("prune", "data.csv", "--group", "none", "--keep", "0.9", "--out", "alone")
    assert forecast_of("pruned")["error"] == pytest.approx(forecast_of("alone")["error"], abs=1e-5)


# Balanced validation


def test_balanced_validation_weighs_classes_alike(arrays, table, derivatives):
    keep = (arrays["label"] != 2) | (np.arange(N) < 20)
    tail = {name: array[keep] for name, array in arrays.items()}
    np.savez("tail.npz", **tail)
    found = derivatives("tail.npz", "--validation", "balanced", "--ridge", "1")
    natural = derivatives("tail.npz", "--ridge", "1")
    features, labels = torch.from_numpy(tail["embedding"]), torch.from_numpy(tail["label"])
    share = len(labels) / 3 / torch.bincount(labels)[labels].double()
    ones = torch.ones(len(labels), dtype=torch.float64)
    scaling = fit_scaling("unit", [features])
    task = RidgeTask(features, labels, 3, ones, share, scaling=scaling, dtype=torch.float64)
    expected = np.array([Oracle(task, 1.0).loo_derivative(SquaredLoss(), row) for row in range(len(labels))])
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(found - natural).max() > 0.05 * np.abs(expected).max()


def test_training_says_which_groups_the_test_set_shares(images_table, model, done):
    table = images_table.assign(patient=[f"p{row // 2}" for row in range(len(images_table))])
    table[:30].to_csv("data.csv", index=False)
    table[28:].to_csv("test.csv", index=False)
    command = ("train", "data.csv", "--test", "test.csv", *model, "--epochs", "1", "--workers", "0")
    result = done(*command, "--group", "patient")
    text = " ".join(result.stderr.split())
    assert "2 of the 8 samples of test.csv are of a patient that is also in data.csv" in text
    assert "leave-group-out: 15 groups of patient" in text
