"""From left-out predictions to probabilities of the true class."""

from __future__ import annotations

import math

import pytest
import torch

from divacli.ridge.labels.class_probability import Calibration, log_softplus, scale_of


def test_probabilities_are_powers_of_positive_predictions():
    mixing = torch.tensor([[4.0, 0.3, 0.0], [-0.2, 5.0, 0.1], [0.0, 0.4, 6.0]], dtype=torch.float64)
    calibration = Calibration(0.5, 1.7, mixing, torch.tensor([0.1, 0.0, -0.3], dtype=torch.float64))
    prediction = [0.8, -0.1, 0.25]
    loud = [math.log(math.log1p(math.exp(1.7 / 0.5 * f))) for f in prediction]
    bias = [0.1, 0.0, -0.3]
    weights = [math.exp(sum(loud[i] * float(mixing[i, c]) for i in range(3)) + bias[c]) for c in range(3)]
    found = calibration.logs(torch.tensor([prediction], dtype=torch.float64)).exp()[0]
    assert found.tolist() == pytest.approx([weight / sum(weights) for weight in weights], rel=1e-12)
    assert calibration.inverse_temperature == pytest.approx(5)


def test_the_scale_is_the_spread_within_a_sample():
    # Means of the samples differ widely, which is no spread.
    assert scale_of(torch.tensor([[100.0, 102.0], [-5.0, -3.0]])) == pytest.approx(1)
    assert scale_of(torch.tensor([[0.0, 3.0], [1.0, 0.0]])) == pytest.approx(math.sqrt((9 + 1) / 8))
    for silent in (torch.zeros(3, 2), torch.full((2, 4), 7.0), torch.zeros(0, 2)):
        assert scale_of(silent) == 1


def test_log_softplus_has_no_hole_where_floats_end():
    values = torch.tensor([-1e4, -31.0, -29.0, 0.0, 5.0, 800.0], dtype=torch.float64, requires_grad=True)
    expected = [-1e4, -31.0, -29.0, math.log(math.log(2)), math.log(math.log1p(math.exp(5))), math.log(800)]
    found = log_softplus(values)
    torch.testing.assert_close(found, torch.tensor(expected).double())
    (slope,) = torch.autograd.grad(found.sum(), values)
    torch.testing.assert_close(slope[:3], torch.ones(3).double())
    assert slope[3].item() == pytest.approx(0.5 / math.log(2))
    assert slope[5].item() == pytest.approx(1 / 800)


def test_a_calibration_moves_to_a_device():
    moved = Calibration(1.0, 2.0, torch.eye(2).double(), torch.zeros(2).double()).to(torch.device("meta"))
    assert {moved.mixing.device.type, moved.bias.device.type} == {"meta"}
    assert (moved.scale, moved.sharpness) == (1.0, 2.0)
