"""The check against refits finds the closed form right, and what is wrong wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from divacli.curate.sample_scores import ScoreResult, score
from divacli.curate.verify import verify
from divacli.features import Samples
from divacli.ridge import RidgeTask, loo_derivative
from divacli.solve.ridge_problem import SolveOptions

DOUBLE = SolveOptions(dtype=torch.float64)


def with_groups(result: ScoreResult, groups: torch.Tensor) -> ScoreResult:
    """The result as it would be had its samples these groups."""

    def together(task: RidgeTask) -> RidgeTask:
        return replace(task, groups=groups)

    solution = result.solution
    solution = replace(solution, task=together(solution.task), solved=together(solution.solved))
    fit = solution.spectrum.fit(solution.ridge)
    derivative = loo_derivative(solution.solved, fit, solution.loss).derivative
    return replace(result, solution=solution, derivative=derivative.numpy())


@pytest.fixture(params=[(60, 6), (20, 30)], ids=["n>d", "n<d"])
def samples(request, gaussian) -> Samples:
    return gaussian(*request.param)


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "groups"])
def test_the_closed_form_is_that_of_refits(grouped, loss, samples):
    result = score(samples, replace(DOUBLE, loss=loss))
    if grouped:
        result = with_groups(result, torch.arange(len(result.derivative)) % (len(result.derivative) // 3))
    found = verify(result, 7)
    assert found.n == 7
    assert found.prediction < 1e-9
    assert found.derivative < 1e-6


def test_the_derivative_of_single_samples_is_wrong_for_groups(samples):
    """Negative control: scores that did not leave the group out differ from the refits that do."""
    alone = score(samples, DOUBLE)
    n = len(alone.derivative)
    grouped = with_groups(alone, torch.arange(n) % (n // 3))
    forgotten = verify(replace(grouped, derivative=alone.derivative), n)
    assert forgotten.derivative > 0.01
    assert verify(grouped, n).derivative < 1e-6
    leaking = replace(grouped.solution, solved=alone.solution.solved)
    assert verify(replace(grouped, solution=leaking), n).prediction > 0.01
    assert not np.allclose(alone.derivative, grouped.derivative)
