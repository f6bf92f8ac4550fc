"""The derivative in a table of scores is the slope of the loss that stands beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from divacli.curate.sample_scores import ScoreResult, score
from divacli.curate.score import of_known_labels
from divacli.report.words import first_sentence
from divacli.ridge import Oracle
from divacli.solve.ridge_problem import SolveOptions

DOUBLE = SolveOptions(dtype=torch.float64)


def in_rows(result: ScoreResult, column: str) -> np.ndarray:
    """A column of the table in the order of the samples."""
    values = np.empty(len(result.table))
    values[result.order] = result.table[column]
    return values


def furthest(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("ridge", [None, 0.7], ids=["chosen ridge", "given ridge"])
@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "groups"])
def test_the_derivative_is_the_slope_of_the_loss_beside_it(grouped, loss, ridge, gaussian):
    """A weight moves by a thousandth up and down; `loo_loss` of all samples is refitted at `ridge`."""
    samples = gaussian(90, 6)
    table = samples.manifest.table.assign(group=[f"g{row // 3}" if grouped else "" for row in range(90)])
    samples = replace(samples, manifest=replace(samples.manifest, table=table))
    result = score(samples, replace(DOUBLE, loss=loss, ridge=ridge))
    task, of_loss, reported = result.solution.task, result.solution.loss, result.summary["ridge"]
    assert (task.groups is not None) == grouped

    def slopes(at: float) -> np.ndarray:
        oracle, step = Oracle(task, at), 1e-3
        changes = [
            oracle.loo_losses(of_loss, row, step) - oracle.loo_losses(of_loss, row, -step) for row in rows
        ]
        return np.array([float(change.sum()) / (2 * step) for change in changes])

    rows = range(0, 90, 4)
    losses = in_rows(result, "loo_loss")
    np.testing.assert_allclose(losses, Oracle(task, reported).loo_losses(of_loss), rtol=1e-9)
    assert result.summary["loo_loss"] == pytest.approx(losses.mean())
    derivative = in_rows(result, "derivative")[:: rows.step]
    assert furthest(derivative, slopes(reported)) < 1e-5
    # Negative control: the slope at a larger ridge, as versions before took it, is another.
    assert furthest(derivative, slopes(10 * reported)) > 0.1


def test_removing_a_sample_changes_the_losses_of_the_table_by_about_minus_its_derivative(gaussian):
    n = 600
    result = score(gaussian(n, 6), DOUBLE)
    ridge, derivative = result.summary["ridge"], in_rows(result, "derivative")
    before = in_rows(result, "loo_loss").sum()
    rows = result.order[:: n // 12]  # from the most harmful to the most useful

    def changes(at: float) -> np.ndarray:
        """Of the summed loss, by refits; a sample that is absent from the fit still counts."""
        oracle, loss = Oracle(result.solution.task, at), result.solution.loss
        now = oracle.loo_losses(loss)
        return np.array([float((oracle.loo_losses(loss, int(row), -1.0) - now).sum()) for row in rows])

    exact = changes(ridge)
    # What a weight of 0 does to the table that people read.
    weights = np.ones(n)
    weights[rows[0]] = 0.0
    rest = score(gaussian(n, 6, weights=weights), replace(DOUBLE, ridge=ridge))
    assert rest.table["loo_loss"].sum() - before == pytest.approx(exact[0], rel=1e-6)
    assert (np.sign(exact) == -np.sign(derivative[rows]))[np.abs(derivative[rows]) > 0.002].all()
    # 0.30 of the largest change, which is of the most harmful sample; 0.65 at ten times the ridge.
    assert furthest(-derivative[rows], exact) < 0.35
    assert furthest(-derivative[rows], changes(10 * ridge)) > 0.5


@pytest.mark.parametrize(("apart", "known"), [(1.5, "suspected"), (0.2, None)])
def test_features_that_tell_the_classes_apart_and_nothing_else_are_suspected(apart, known, tmp_path, load):
    generator = np.random.default_rng(0)
    truth = np.arange(240) % 4
    features = apart * 10 * np.eye(4, 100)[truth] + generator.normal(size=(240, 100))
    file = tmp_path / "samples.npz"
    np.savez(file, embedding=features, label=truth)
    result = score(load(file), SolveOptions(scaling="none"))
    summary = result.summary
    assert summary["labels_known"] == known
    warnings = list(of_known_labels(summary))
    assert [("--weights DEFAULT" in warning) for warning in warnings] == [True] * (known is not None)
    low, high = summary["noise_interval"]
    assert low <= summary["noise_rate"] <= high
    assert known is None or high >= summary["loo_error"]


@pytest.mark.parametrize(
    ("learned", "names", "known"),
    [
        (True, ("a", "b", "c"), "suspected"),
        (True, ("8", "9", "10"), "suspected"),
        (False, ("a", "b", "c"), None),
    ],
    ids=["learned", "numbers", "honest"],
)
def test_a_network_whose_outputs_agree_with_the_labels_is_suspected(learned, names, known, tmp_path, load):
    generator = np.random.default_rng(0)
    truth = np.arange(600) % 3
    wrong = generator.random(600) < 0.2
    given = np.where(wrong, (truth + 1) % 3, truth)
    features = 1.5 * np.eye(3, 300)[truth] + generator.normal(size=(600, 300))
    file = tmp_path / "samples.npz"
    np.savez(file, embedding=features.astype(np.float32), label=np.array(names)[given])
    target = np.eye(3)[given if learned else truth]
    # Fitted to these labels it agrees with them; to other samples of the same classes as often as they do.
    train = features if learned else 1.5 * np.eye(3, 300)[truth] + generator.normal(size=(600, 300))
    weight = np.linalg.solve(train.T @ train + 10 * np.eye(300), train.T @ target)
    head = torch.from_numpy(weight.T.copy()), torch.zeros(3, dtype=torch.float64)
    summary = score(replace(load(file), head=head), SolveOptions()).summary
    assert summary["labels_known"] == known
    assert (
        score(replace(load(file), head=(head[0][:2], head[1][:2])), SolveOptions()).summary["labels_known"]
        is None
    )


def test_the_labels_to_look_at_first_are_named_however_improbable_an_error_is(gaussian):
    result = score(gaussian(), DOUBLE)
    first = result.summary["first"]
    best = result.table.nlargest(3, "mislabel_probability")
    assert [found["path"] for found in first] == best["path"].tolist()
    [sentence] = first_sentence(result.summary)
    assert all(found["path"] in sentence.rest for found in first)
