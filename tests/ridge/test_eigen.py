"""In the coordinates of the eigenbasis every answer is the same, and rows are rotated once."""

from dataclasses import replace

import pytest
import torch

from divacli.ridge import (
    CrossEntropyLoss,
    SquaredLoss,
    decompose,
    derivative_errors,
    diagnose,
    fit_noise,
    in_eigenbasis,
    loo_derivative,
    loo_predictions,
    ridge_path,
    scores,
    validation_derivative,
)
from divacli.ridge.fit import eigen as module


@pytest.fixture(params=["plain", "trained head", "groups"])
def given(request, make_problem, make_groups):
    groups = make_groups(8, 5, 3, 2, 2, 1, 1, 2) if request.param == "groups" else None
    offset = request.param == "trained head"
    return make_problem(batch_rows=7, offset=offset, groups=groups), make_problem(11, seed=1, offset=offset)


@pytest.mark.parametrize("intercept", [True, False])
def test_answers_do_not_depend_on_coordinates(intercept, given, relative_error):
    task, held_out = (replace(problem.task, intercept=intercept) for problem in given)
    raw = decompose(task)
    spectrum, turned, [judged, none] = in_eigenbasis(task, raw, held_out, None)
    assert none is None
    assert judged is not None

    def answers(task, held_out, spectrum):
        fit = spectrum.fit(0.7)
        path = ridge_path(task, spectrum)
        return [
            loo_derivative(task, fit, SquaredLoss()).derivative,
            loo_predictions(task, fit, torch.tensor([20, 3, 11])),
            validation_derivative(task, held_out, fit, SquaredLoss())[0],
            derivative_errors(task, fit, SquaredLoss(), torch.arange(24)),
            path.ridges,
            path.loss,
        ]

    for found, expected in zip(answers(turned, judged, spectrum), answers(task, held_out, raw), strict=True):
        assert relative_error(found, expected) < 1e-8


def test_rows_are_rotated_once_as_long_as_there_is_room(make_problem, monkeypatch):
    task = make_problem(batch_rows=7).task
    _, turned, _ = in_eigenbasis(task, decompose(task))
    reads = []
    monkeypatch.setattr(type(task), "raw", lambda self, rows: reads.append(rows) or self.features[rows])
    first = [batch.features.clone() for batch in turned.batches()]
    again = [batch.features for batch in turned.batches()]
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert [rows.start for rows in reads] == [0, 7, 14, 21]
    reads.clear()
    monkeypatch.setattr(module, "KEPT_BYTES", 2 * 7 * 5 * 8)  # for two of four batches
    _, turned, _ = in_eigenbasis(task, spectrum=decompose(task))
    reads.clear()
    for _ in range(2):
        list(turned.batches())
    assert [rows.start for rows in reads] == [0, 7, 14, 21, 14, 21]


def test_its_decomposition_is_diagonal(make_problem):
    task = make_problem().task
    spectrum, turned, _ = in_eigenbasis(task, decompose(task))
    again = decompose(turned)
    torch.testing.assert_close(again.eigenvalues, spectrum.eigenvalues, rtol=1e-10, atol=0)
    assert float(again.mean.abs().max()) < 1e-12


@pytest.mark.parametrize("loss", [SquaredLoss(), CrossEntropyLoss(3.0)], ids=["squared", "cross-entropy"])
@pytest.mark.parametrize("separate", [False, True], ids=["leave-one-out", "validation"])
def test_scores_in_two_passes_are_those_of_one_pass_each(loss, separate, given, relative_error):
    task, held_out = (problem.task for problem in given)
    spectrum = decompose(task)
    fit = spectrum.fit(0.7)
    model = fit_noise(loo_predictions(task, fit, torch.arange(24)), task.labels).model
    validation = held_out if separate else None
    order = torch.arange(11 if separate else 24)
    found = scores(task, fit, loss, model, order, validation)
    if separate:
        derivative, validated = validation_derivative(task, held_out, fit, loss)
        assert torch.equal(found.validation.loss, validated.loss)
        assert torch.equal(found.validation.predicted, validated.predicted)
    else:
        derivative = loo_derivative(task, fit, loss).derivative
        assert found.validation is None
    loo, diagnosis = diagnose(task, fit, loss, model)
    errors = derivative_errors(task, fit, loss, order, validation)
    pairs = [
        (found.derivative, derivative),
        (found.errors, errors),
        (found.loo.loss, loo.loss),
        (found.loo.leverage, loo.leverage),
        (found.diagnosis.mislabel_probability, diagnosis.mislabel_probability),
        (found.diagnosis.outlier_score, diagnosis.outlier_score),
        (found.diagnosis.confusions, diagnosis.confusions),
    ]
    for one, other in pairs:
        assert relative_error(one, other) < 1e-12
    assert torch.equal(found.loo.predicted, loo.predicted)
    assert torch.equal(found.diagnosis.suggested, diagnosis.suggested)
