"""Posing and solving: what the solution says of itself, and what cannot be posed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.curate.sample_scores import score
from divacli.errors import DataError, SolveError
from divacli.ridge import CrossEntropyLoss, loo_predictions
from divacli.solve.groups import group_names, group_numbers
from divacli.solve.ridge_problem import SolveOptions, class_numbers, pose
from divacli.solve.solution import solve


def test_classes_are_numbered_by_value(tmp_path, load):
    labels = np.array([10, 9, 2, 10, 9, 2])
    np.savez(tmp_path / "x.npz", embedding=np.eye(6), label=labels)
    samples = load(tmp_path / "x.npz")
    assert samples.manifest.classes == ["2", "9", "10"]
    assert class_numbers(samples.manifest, samples.manifest.classes).tolist() == [2, 1, 0, 2, 1, 0]


def test_a_label_of_no_class_is_named(gaussian):
    with pytest.raises(DataError, match="lack: 2") as caught:
        class_numbers(gaussian().manifest, ["0", "1"])
    assert "2 training classes" in caught.value.expected


def test_weights_are_those_of_the_table(gaussian):
    weights = np.linspace(0, 2, 60)
    assert pose(gaussian(weights=weights), SolveOptions()).weights.tolist() == pytest.approx(weights.tolist())


def test_an_automatic_ridge_says_how_it_was_chosen(gaussian):
    solution = solve(gaussian(), SolveOptions())
    assert solution.path is not None
    assert len(solution.path.ridges) >= 20
    assert solution.ridge == float(solution.path.ridges[solution.path.loss.argmin()])


def test_a_given_ridge_is_taken_as_it_is(gaussian):
    solution = solve(gaussian(), SolveOptions(ridge=0.2))
    assert solution.ridge == 0.2
    assert solution.path is None


@pytest.mark.parametrize(("n", "d", "dual"), [(60, 6, False), (20, 30, True), (30, 30, False)])
def test_the_form_is_chosen_by_samples_against_features(n, d, dual, gaussian):
    solution = solve(gaussian(n=n, d=d), SolveOptions(ridge=0.3))
    assert solution.solved.n_features == (n - 1 if dual else d)
    assert solution.solved.dtype == (torch.float64 if dual else solution.task.dtype)


def test_a_loss_that_is_none_is_an_error(gaussian):
    with pytest.raises(SolveError, match="hinge"):
        solve(gaussian(), SolveOptions(loss="hinge"))


def test_equal_features_are_an_error(tmp_path, load):
    np.savez(tmp_path / "x.npz", embedding=np.ones((6, 2)), label=np.arange(6) % 2)
    with pytest.raises(SolveError, match="same features"):
        solve(load(tmp_path / "x.npz"), SolveOptions())


def test_features_that_are_not_finite_are_left_out(tmp_path, load):
    embedding = np.random.default_rng(0).normal(size=(6, 2))
    embedding[3, 1], embedding[5] = np.nan, [np.inf, np.nan]
    np.savez(tmp_path / "x.npz", embedding=embedding, label=np.arange(6) % 2)
    samples = load(tmp_path / "x.npz")
    assert samples.manifest.table["path"].tolist() == ["0", "1", "2", "4"]
    assert (samples.features[:].numpy() == embedding[[0, 1, 2, 4]]).all()
    assert samples.failed[["path", "label", "reason"]].to_numpy().tolist() == [
        ["3", "1", "its embedding holds NaN"],
        ["5", "1", "its embedding holds NaN and infinite values"],
    ]


def test_the_derivative_of_a_result_is_in_the_order_of_the_samples(gaussian):
    result = score(gaussian(), SolveOptions(ridge=1.0))
    assert result.table["path"].tolist() == [f"s{row:03d}" for row in result.order]
    np.testing.assert_array_equal(result.table["derivative"], result.derivative[result.order])


def test_the_calibration_is_at_the_minimum_with_one_random_label_more(gaussian):
    solution = solve(gaussian(), SolveOptions(loss="cross-entropy", ridge=1.0, dtype=torch.float64))
    best = solution.loss.inverse_temperature
    predictions = loo_predictions(solution.solved, solution.spectrum.fit(1.0), torch.arange(60))
    hot = torch.nn.functional.one_hot(solution.task.labels).double()
    soft = (60 * hot + 1 / hot.shape[1]) / 61
    loss = {
        t: float(CrossEntropyLoss(t).value(predictions, soft).sum()) for t in (best, best * 0.9, best * 1.1)
    }
    assert loss[best] == min(loss.values())


def test_predictions_without_a_mistake_still_have_derivatives(tmp_path, load):
    """Certainty would make the loss flat: every derivative zero, and every sample harmless and useless."""
    generator = np.random.default_rng(0)
    label = np.arange(200) % 2
    embedding = generator.normal(size=(200, 4)) * 0.05 + np.where(label, 1, -1)[:, None]
    np.savez(tmp_path / "x.npz", embedding=embedding, label=label)
    result = score(load(tmp_path / "x.npz"), SolveOptions(loss="cross-entropy"))
    assert result.summary["loo_error"] == 0
    assert result.solution.loss.inverse_temperature < 30
    assert (np.abs(result.derivative) > 1e-9).all()


def with_column(samples, name: str, cells):
    table = samples.manifest.table.assign(**{name: cells})
    return replace(samples, manifest=replace(samples.manifest, table=table))


def test_groups_are_equal_cells_and_blank_ones_are_alone(gaussian):
    cells = ["a", "b", "a", "", None, "b", " "] + ["a"] * 53
    numbers = group_numbers(with_column(gaussian(), "who", cells).manifest, "who")
    assert numbers.dtype == torch.int64
    same = numbers[:, None] == numbers
    expected = np.array([[bool(one and one == other) for other in cells] for one in cells])
    for row in (3, 4, 6):
        expected[row] = expected[:, row] = np.arange(60) == row
        expected[row, row] = True
    assert torch.equal(same, torch.from_numpy(expected))


def test_names_of_groups_are_text_whatever_their_type():
    for cells in (
        pd.Series([1, None], dtype="Int64"),
        pd.Series(["1", np.nan], dtype=object),
        pd.Series(pd.Categorical(["1", None])),
    ):
        assert group_names(cells).tolist() == ["1", ""]


def test_groups_are_posed_where_there_are_any(gaussian):
    samples = gaussian()
    assert pose(samples, SolveOptions()).groups is None
    grouped = with_column(samples, "group", [f"g{row // 2}" for row in range(60)])
    assert len(pose(grouped, SolveOptions()).groups.unique()) == 30
    assert pose(grouped, SolveOptions(group=None)).groups is None
    assert pose(with_column(samples, "group", list("ab") * 30), SolveOptions()).groups is not None
    # As many groups as samples are none, which is quicker.
    assert pose(samples, SolveOptions(group="path")).groups is None


def test_a_group_column_that_is_none(gaussian):
    with pytest.raises(DataError, match="no column who for --group"):
        pose(gaussian(), SolveOptions(group="who"))
    with pytest.raises(DataError, match="column who has the same value in every row") as caught:
        pose(with_column(gaussian(), "who", ["x"] * 60), SolveOptions(group="who"))
    assert "--group none" in caught.value.hint


def test_balanced_validation_gives_every_class_the_same_say(gaussian):
    samples = gaussian(weights=np.linspace(0, 2, 60))
    task = pose(samples, SolveOptions(balanced=True))
    sums = torch.zeros(3, dtype=torch.float64).index_add_(0, task.labels, task.validation_mask)
    assert sums.tolist() == pytest.approx([20, 20, 20])
    # Weights say how much is trained on, and not how much is counted.
    assert torch.equal(task.weights, pose(samples, SolveOptions()).weights)
    assert pose(samples, SolveOptions()).validation_mask.unique().tolist() == [1]
