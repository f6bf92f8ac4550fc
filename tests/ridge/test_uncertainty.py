"""Standard errors of derivatives: against single contributions, and against new validation samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from divacli.ridge import RidgeTask, SquaredLoss, decompose, loo_derivative, validation_derivative
from divacli.ridge.leave_out.uncertainty import derivative_errors, significant


def posed(n: int, seed: int, **more: object) -> RidgeTask:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    labels = (features[:, 0] + torch.randn(n, generator=generator, dtype=torch.float64) > 0).long()
    weights = 0.5 + torch.rand(n, generator=generator, dtype=torch.float64)
    return RidgeTask(features, labels, 2, weights, dtype=torch.float64, **more)  # type: ignore[arg-type]


def test_of_groups_is_the_spread_of_single_contributions() -> None:
    n = 24
    groups = torch.arange(n) // 3 * 7
    task = posed(n, 0, groups=groups)
    fit = decompose(task).fit(2.0)
    contributions = torch.stack(
        [
            loo_derivative(
                replace(task, validation_mask=(groups == group).double()), fit, SquaredLoss()
            ).derivative
            for group in groups.unique()
        ]
    )
    own = groups.unique()[:, None] == groups
    # A group's loss does not depend on its own weights.
    assert contributions[own].abs().max() < 1e-12
    expected = torch.stack(
        [
            (len(column[~mine]) + 1) ** 0.5 * column[~mine].std()
            for column, mine in zip(contributions.T, own.T, strict=True)
        ]
    )
    found = derivative_errors(task, fit, SquaredLoss(), torch.arange(n).flip(0))
    torch.testing.assert_close(found, expected)


def test_is_that_of_new_validation_samples() -> None:
    task = posed(60, 1)
    fit = decompose(task).fit(5.0)
    counted = torch.ones(200, dtype=torch.float64)
    drawn = [replace(posed(200, seed), validation_mask=counted) for seed in range(2, 302)]
    derivatives = torch.stack([validation_derivative(task, one, fit, SquaredLoss())[0] for one in drawn])
    found = derivative_errors(task, fit, SquaredLoss(), torch.arange(200), drawn[0])
    ratio = found / derivatives.std(dim=0)
    assert 0.8 < float(ratio.median()) < 1.25


def test_a_part_of_the_samples_speaks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    task = posed(900, 3)
    fit = decompose(task).fit(5.0)
    order = torch.arange(900)
    monkeypatch.setattr("divacli.ridge.leave_out.jackknife.MOST_DELETED", 900)
    everything = derivative_errors(task, fit, SquaredLoss(), order)
    monkeypatch.setattr("divacli.ridge.leave_out.jackknife.MOST_DELETED", 128)
    part = derivative_errors(task, fit, SquaredLoss(), order)
    ratio = part / everything
    assert 0.8 < float(ratio.median()) < 1.25
    assert not torch.equal(part, everything)


@pytest.mark.parametrize("grouped", [False, True])
def test_follows_the_order_that_it_is_given_and_not_that_of_rows(
    grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divacli.ridge.leave_out.uncertainty.MOST_SAMPLES", 20)
    monkeypatch.setattr("divacli.ridge.leave_out.jackknife.MOST_DELETED", 20)
    task = posed(60, 4, groups=torch.arange(60) // 2 if grouped else None)
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    names = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    other = replace(
        task,
        features=task.features[shuffled],
        labels=task.labels[shuffled],
        weights=task.weights[shuffled],
        validation_mask=task.validation_mask[shuffled],
        groups=names[task.groups[shuffled]] if task.groups is not None else None,
    )
    found = derivative_errors(task, decompose(task).fit(3.0), SquaredLoss(), torch.arange(60))
    again = derivative_errors(other, decompose(other).fit(3.0), SquaredLoss(), shuffled.argsort())
    torch.testing.assert_close(again, found[shuffled])


def test_few_of_many_noisy_derivatives_are_significant() -> None:
    noise = torch.randn(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = torch.ones(5000, dtype=torch.float64)
    assert significant(noise, errors).sum() <= 2
    noise[:100] = 6.0
    noise[100:200] = -6.0
    found = significant(noise, errors)
    assert bool(found[:200].all())
    assert found[200:].sum() <= 30


def test_of_fewer_than_two_samples_nothing_is_known() -> None:
    task = posed(12, 5, groups=torch.arange(12) % 2)
    errors = derivative_errors(task, decompose(task).fit(3.0), SquaredLoss(), torch.arange(12))
    assert bool(errors.isnan().all())
    assert not bool(significant(torch.ones(12, dtype=torch.float64), errors).any())


def test_without_errors_all_but_zeros_are_significant() -> None:
    found = significant(torch.tensor([0.0, 1e-9, -1.0]).double(), torch.zeros(3).double())
    assert found.tolist() == [False, True, True]
