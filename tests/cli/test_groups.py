"""Groups that are left out together, as a user asks for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.ridge import Oracle, RidgeTask, SquaredLoss, fit_scaling

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
    oracle = oracle_of(arrays, groups, summary["ranking_ridge"])
    expected = np.array([oracle.loo_derivative(SquaredLoss(), row) for row in range(N)])
    assert np.abs(found["derivative"] - expected).max() < 1e-5 * np.abs(expected).max()
    at_optimum = oracle_of(arrays, groups, summary["ridge"])
    predictions = torch.stack([at_optimum.loo_prediction(row) for row in range(N)]).numpy()
    losses = ((predictions - np.eye(3)[arrays["label"]]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found["loo_loss"], losses, rtol=1e-4, atol=1e-6)
    assert found["predicted_label"].astype(int).tolist() == predictions.argmax(axis=1).tolist()
    # Negative control: without groups these are others.
    alone = oracle_of(arrays, None, summary["ranking_ridge"])
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
    assert not list(Path("diva-out").iterdir())


def test_one_group_for_all_is_an_error(table, run):
    table.assign(patient_id="x").to_csv("one.csv", index=False)
    result = run("score", "one.csv", *BY_PATIENT)
    assert result.exit_code == 1
    assert "one.csv: column patient_id has the same value in every row" in text_of(result)
    assert "--group none" in result.stderr


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


def prediction_of(folder: str) -> dict:
    return json.loads((Path(folder) / "prune.json").read_text())["prediction"]


def test_prune_refits_with_groups(arrays, table, done):
    done("prune", "patients.csv", *BY_PATIENT, "--keep", "0.9", "--ridge", "1", "--out", "pruned")
    kept = set(pd.read_csv("pruned/kept.csv")["path"])
    weights = torch.tensor([float(path in kept) for path in arrays["path"]], dtype=torch.float64)
    oracle = oracle_of(arrays, np.arange(N) // COPIES, 1.0)
    before = oracle.loo_losses(SquaredLoss())
    found = prediction_of("pruned")
    assert found["before"]["loss"][0] == pytest.approx(float(before.mean()), rel=1e-5)
    after = Oracle(replace(oracle.task, weights=weights), 1.0).loo_losses(SquaredLoss())
    assert found["after"]["loss"][0] == pytest.approx(float(after.mean()), rel=1e-5)
    done("prune", "patients.csv", "--keep", "0.9", "--ridge", "1", "--out", "alone")
    assert prediction_of("alone")["before"]["loss"][0] < 0.9 * found["before"]["loss"][0]


@pytest.mark.parametrize("column", ["patient_id", "group"])
def test_a_pipe_keeps_the_groups(column, table, done):
    table.rename(columns={"patient_id": column}).to_csv("data.csv", index=False)
    asked = () if column == "group" else BY_PATIENT
    done("prune", "data.csv", *asked, "--keep", "0.9", "--out", "at once")
    scored = done("score", "data.csv", *asked, "-o", "-", "--quiet")
    piped = done("prune", "-", "--keep", "0.9", "--out", "piped", stdin=scored.stdout)
    assert "no refit was made" not in piped.stderr
    one, other = (set(pd.read_csv(f"{name}/kept.csv")["path"]) for name in ("at once", "piped"))
    assert one == other
    for state in ("before", "after"):
        assert prediction_of("piped")[state]["loss"] == pytest.approx(
            prediction_of("at once")[state]["loss"], rel=1e-5
        )


def test_scores_made_without_groups_are_pruned_without_them(table, done):
    table.rename(columns={"patient_id": "group"}).to_csv("data.csv", index=False)
    done("score", "data.csv", "--group", "none", "--out", "scored")
    done("prune", "scored/scores.csv", "--keep", "0.9", "--out", "pruned")
    assert prediction_of("pruned")["before"]["loss"][0] == pytest.approx(summary_of()["loo_loss"], rel=1e-5)


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
