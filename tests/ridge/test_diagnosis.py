"""What leaving samples out says of them: planted errors and strangers, and equality with the plain way."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from divacli.ridge import (
    RidgeTask,
    SquaredLoss,
    decompose,
    diagnose,
    fit_noise,
    leave_one_out,
    loo_predictions,
    predictable,
)


def clusters(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    features = 3 * torch.nn.functional.one_hot(labels, 8).double()
    return features + torch.randn(n, 8, generator=generator, dtype=torch.float64), labels


def task_of(features: torch.Tensor, labels: torch.Tensor, **more: object) -> RidgeTask:
    options = {"dtype": torch.float64, **more}
    weights = torch.ones(len(labels), dtype=torch.float64)
    return RidgeTask(features, labels, 3, weights, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("groups", [None, torch.arange(60) // 2])
def test_a_pass_in_batches_is_that_of_all_predictions_at_once(groups):
    features, labels = clusters(60)
    task = task_of(features, labels, groups=groups)
    fit = decompose(task).fit(1.0)
    predictions = loo_predictions(task, fit, torch.arange(60))
    model = fit_noise(predictions, labels).model
    loo, found = diagnose(replace(task, batch_rows=7), fit, SquaredLoss(), model)
    plain = leave_one_out(task, fit, SquaredLoss())
    torch.testing.assert_close(loo.loss, plain.loss)
    assert torch.equal(loo.predicted, plain.predicted)
    posterior = model.posterior(predictions, labels)
    rows = torch.arange(60)
    torch.testing.assert_close(found.mislabel_probability, 1 - posterior[rows, labels])
    others = posterior.clone()
    others[rows, labels] = 0
    assert torch.equal(found.suggested, others.argmax(dim=1))
    torch.testing.assert_close(found.suggested_probability, others.max(dim=1).values)
    one_hot = torch.nn.functional.one_hot(labels, 3).double()
    torch.testing.assert_close(found.confusions, posterior.T @ one_hot)
    before = model.calibration.logs(predictions)
    entropy = -(before.exp() * before).sum(dim=1) / math.log(3)
    distance = (features - features.mean(dim=0)).square().sum(dim=1)
    torch.testing.assert_close(found.outlier_score, distance / distance.mean() * entropy)


def test_planted_errors_and_strangers_stand_out():
    features, truth = clusters(600)
    labels = truth.clone()
    labels[:30] = (truth[:30] + 1) % 3
    generator = torch.Generator().manual_seed(1)
    features[30:60, :3] = 0
    features[30:60, 3:] = 4 * torch.randn(30, 5, generator=generator, dtype=torch.float64)
    task = task_of(features, labels)
    fit = decompose(task).fit(1.0)
    model = fit_noise(loo_predictions(task, fit, torch.arange(600)), labels).model
    _, found = diagnose(task, fit, SquaredLoss(), model)
    assert (found.mislabel_probability[:30] > 0.5).double().mean() > 0.7
    assert (found.mislabel_probability[60:] > 0.5).double().mean() < 0.02
    assert (found.suggested[:30] == truth[:30]).double().mean() > 0.9
    assert found.outlier_score[30:60].median() > found.outlier_score[60:].quantile(0.99)
    assert (found.outlier_score >= 0).all()


def test_samples_without_a_spread_have_no_outliers():
    features, labels = clusters(12)
    task = task_of(features, labels)
    fit = decompose(task).fit(1.0)
    model = fit_noise(loo_predictions(task, fit, torch.arange(12)), labels).model
    still = replace(task, features=fit.mean.expand(12, 8))
    _, found = diagnose(still, fit, SquaredLoss(), model)
    assert found.outlier_score.tolist() == [0.0] * 12


def test_a_class_that_is_nowhere_else_cannot_be_predicted():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    weights = torch.tensor([1, 1, 1, 1, 0, 1, 1, 1.0]).double()
    features = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    task = RidgeTask(features, labels, 3, weights)
    # The only sample of class 1 that is present is alone; the absent one has it to learn from.
    assert predictable(task).tolist() == [True] * 3 + [False, True] + [True] * 3
    groups = torch.tensor([5, 7, 7, 5, 7, 9, 9, 9])
    assert predictable(replace(task, groups=groups)).tolist() == [True] * 3 + [False, True] + [False] * 3
    nobody = replace(task, weights=torch.tensor([1, 1, 1, 0, 0, 1, 1, 1.0]).double())
    assert predictable(nobody).tolist() == [True] * 3 + [False] * 2 + [True] * 3
