"""The path of ridges from one decomposition is what a solve at each ridge gives."""

from dataclasses import replace

import pytest
import torch

from divacli.errors import SolveError
from divacli.ridge import RidgePath, SquaredLoss, decompose, leave_one_out, ridge_grid, ridge_path
from divacli.ridge.leave_out import ridge_path as path_module


@pytest.fixture(params=[False, True], ids=["fresh-head", "trained-head"])
def offset(request):
    return request.param


@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no-intercept"])
def test_the_path_is_leave_one_out_at_every_ridge(intercept, offset, make_problem, losses):
    problem = make_problem(60, 6, 4, intercept=intercept, offset=offset, batch_rows=25)
    spectrum = decompose(problem.task)
    path = ridge_path(problem.task, spectrum)
    mask = problem.task.validation_mask
    for index, ridge in enumerate(path.ridges):
        loo = leave_one_out(problem.task, spectrum.fit(float(ridge)), losses["squared"])
        assert float(path.loss[index]) == pytest.approx(float(mask @ loo.loss / mask.sum()), rel=1e-11)
    assert path.best == int(path.loss.argmin())
    assert float(path.loss.max()) > 1.001 * float(path.loss.min())


@pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0])
def test_a_given_ridge_is_that_of_n_refits(ridge, offset, make_problem):
    problem = make_problem(offset=offset, ridge=ridge)
    path = ridge_path(problem.task, decompose(problem.task), torch.tensor([ridge], dtype=torch.float64))
    mean = problem.loo_loss("squared") / float(problem.task.validation_mask.sum())
    assert path.loss.tolist() == pytest.approx([mean], rel=1e-11)
    assert path.best == 0


def test_masked_samples_do_not_count(make_problem):
    """Their labels may be anything when they are absent from training as well."""
    problem = make_problem()
    absent = problem.task.weights == 0
    mask = torch.where(absent, 0.0, 1.0).double()
    task = replace(problem.task, validation_mask=mask)
    other = replace(task, labels=torch.where(absent, (task.labels + 1) % 3, task.labels))
    expected, found = (ridge_path(t, decompose(t)) for t in (task, other))
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-13, atol=0)
    counted = replace(other, validation_mask=torch.ones(24, dtype=torch.float64))
    assert not torch.allclose(ridge_path(counted, decompose(counted)).loss, expected.loss)


def test_the_mask_is_a_weight_of_the_mean(make_problem):
    problem = make_problem()
    tripled = replace(problem.task, validation_mask=3 * problem.task.validation_mask)
    expected, found = (ridge_path(t, decompose(t)) for t in (problem.task, tripled))
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-13, atol=0)


def test_a_whole_path_takes_one_decomposition(make_problem, monkeypatch):
    calls = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(matrix.shape) or eigh(matrix))
    problem = make_problem()
    path = ridge_path(problem.task, decompose(problem.task))
    assert len(path.ridges) >= 15
    assert calls == [(5, 5)]


def test_the_coarse_path_spans_seven_decades_two_values_each(make_problem):
    spectrum = decompose(make_problem().task)
    grid = ridge_grid(spectrum)
    assert grid.dtype == torch.float64
    assert len(grid) == 15
    torch.testing.assert_close(grid[1:] / grid[:-1], torch.full((14,), 10**0.5, dtype=torch.float64))
    assert float(grid[-1]) == pytest.approx(10 * float(spectrum.eigenvalues.max()), rel=1e-14)


def test_the_fine_path_is_eight_values_a_decade_around_the_best(make_problem):
    problem = make_problem(60, 6, 4)
    spectrum = decompose(problem.task)
    path = ridge_path(problem.task, spectrum)
    grid = ridge_grid(spectrum)
    coarse = ridge_path(problem.task, spectrum, grid)
    around = float(grid[coarse.best])
    steps = (path.ridges / around).log10() * 8
    near = path.ridges[steps.abs() < 4 - 1e-9]
    assert len(path.ridges) == 21
    assert (near / around).log10().mul(8).tolist() == pytest.approx([-3, -2, -1, 0, 1, 2, 3], abs=1e-9)
    assert set(grid.tolist()) <= set(path.ridges.tolist())
    assert float(path.loss.min()) < float(coarse.loss.min())
    assert not path.at_edge


def test_of_very_many_samples_a_part_is_walked_whole_groups_of_it(make_problem, make_groups, monkeypatch):
    problem = make_problem(120, 4, 3, groups=make_groups(*[3] * 40), batch_rows=25)
    spectrum = decompose(problem.task)
    everyone = ridge_path(problem.task, spectrum)
    monkeypatch.setattr(path_module, "PATH_SAMPLES", 60)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(4))
    path = ridge_path(problem.task, spectrum, order=order)
    drawn = path_module.draw(problem.task, order, 60)
    assert 30 <= len(drawn.rows) <= 60
    counted = torch.zeros(120, dtype=torch.float64)
    counted[drawn.rows] = problem.task.validation_mask[drawn.rows]
    expected = ridge_path(replace(problem.task, validation_mask=counted), spectrum, path.ridges)
    torch.testing.assert_close(path.loss, expected.loss, rtol=1e-11, atol=0)
    assert not torch.allclose(path.loss[:15], everyone.loss[:15], rtol=1e-6)


def test_the_best_of_equals_is_the_largest_ridge():
    path = RidgePath(torch.arange(4.0), torch.tensor([2.0, 1.0, 1.0, 3.0]))
    assert path.best == 2


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 12345.678])
@pytest.mark.parametrize("batch_rows", [4, 100])
def test_features_that_do_not_vary_have_no_grid(value, batch_rows, make_problem):
    """Rounding of their mean must not pass for variation, nor must absent samples' features."""
    task = make_problem(batch_rows=batch_rows).task
    features = torch.full((24, 5), value, dtype=torch.float64)
    features[task.weights == 0] = 7.0
    with pytest.raises(SolveError, match="have the same features"):
        ridge_grid(decompose(replace(task, features=features)))


def test_features_that_vary_a_little_have_a_grid(make_problem):
    """Control of the test above: a relative variation of 1e-10, seen from the same distance."""
    task = make_problem().task
    features = 12345.678 * (1 + 1e-10 * task.features)
    grid = ridge_grid(decompose(replace(task, features=features)))
    centred = task.features - (task.weights @ task.features) / task.weights.sum()
    varied = torch.linalg.eigvalsh(centred.T @ (centred * task.weights[:, None]))[-1]
    assert float(grid[-1]) == pytest.approx(10 * float(varied) * 12345.678e-10**2, rel=1e-4)


def test_no_features_at_all_have_no_grid(make_problem):
    task = make_problem().task
    with pytest.raises(SolveError, match="have the same features"):
        ridge_grid(decompose(replace(task, features=torch.zeros(24, 0, dtype=torch.float64))))


def test_a_mask_of_zeros_leaves_nothing_to_choose_by(make_problem):
    task = make_problem().task
    task = replace(task, validation_mask=torch.zeros(24, dtype=torch.float64))
    with pytest.raises(SolveError, match="no sample counts in the validation loss"):
        ridge_path(task, decompose(task))


def test_a_leverage_of_one_does_not_stop_the_path_and_is_not_chosen(make_problem):
    """Where single samples have no answer the loss is large; `leave_one_out` at that ridge would refuse."""
    problem = make_problem()
    features = problem.task.features.clone()
    features[:, 4] = 0.0
    features[0, 4] = 3.0
    task = replace(problem.task, features=features, validation_mask=torch.ones(24, dtype=torch.float64))
    spectrum = decompose(task)
    path = ridge_path(task, spectrum, torch.tensor([1e-9, 1e-3, 1.0, 10.0], dtype=torch.float64))
    assert bool(torch.isfinite(path.loss).all())
    assert path.best >= 2
    refused = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert bool(torch.isfinite(ridge_path(task, spectrum, refused).loss).all())
    with pytest.raises(SolveError, match="sample 0 has a leverage of one at ridge 0:"):
        leave_one_out(task, spectrum.fit(0.0), SquaredLoss())
