"""From raw features to `z`, against NumPy; and the outputs of a linear head."""

import numpy as np
import pytest
import torch

from divacli.errors import SolveError
from divacli.ridge import LinearOutput, Scaling, fit_scaling
from divacli.ridge.fit.scaling import SCALINGS


def raw_features(n=100, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_unit_rows_have_norm_one_and_keep_their_direction():
    raw = raw_features() * torch.logspace(-8, 8, 100, dtype=torch.float64)[:, None]
    found = fit_scaling("unit", [])(raw)
    expected = raw.numpy() / np.linalg.norm(raw.numpy(), axis=1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14)


def test_a_row_of_zeros_stays_a_row_of_zeros():
    raw = raw_features()
    raw[3] = 0.0
    found = Scaling("unit")(raw)
    assert torch.equal(found[3], torch.zeros(6, dtype=torch.float64))
    assert float(found[2].norm()) == pytest.approx(1)


@pytest.mark.parametrize("sizes", [[100], [1, 99], [30, 1, 7, 62], [1] * 100], ids=str)
@pytest.mark.parametrize("offset", [0.0, 1e6], ids=["near-zero", "far-from-zero"])
def test_standard_is_numpys_mean_and_deviation_whatever_the_batches(sizes, offset):
    """With an offset of 1e6 a sum of squares would lose 12 digits of the variance; 1e-9 is input rounding."""
    raw = raw_features() * torch.logspace(-1, 1, 6, dtype=torch.float64) + offset
    scaling = fit_scaling("standard", iter(raw.split(sizes)))
    centred = raw.numpy() - raw.numpy().mean(axis=0)
    expected = centred / np.sqrt((centred**2).mean(axis=0))
    np.testing.assert_allclose(scaling(raw).numpy(), expected, atol=1e-12 if offset == 0 else 1e-8)
    np.testing.assert_allclose(scaling.mean.numpy(), raw.numpy().mean(axis=0), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("value", [0.0, 0.1, -12345.678])
def test_a_constant_column_becomes_zero(value):
    raw = raw_features()
    raw[:, 2] = value
    scaling = fit_scaling("standard", raw.split(13))
    found = scaling(raw)
    assert float(scaling.inverse_deviation[2]) == 0.0
    assert torch.equal(found[:, 2], torch.zeros(100, dtype=torch.float64))
    assert bool((found[:, [0, 1, 3, 4, 5]].std(dim=0, correction=0) - 1).abs().max() < 1e-12)


def test_a_column_that_varies_little_is_not_constant():
    raw = raw_features()
    raw[:, 2] = 1000 + 1e-6 * raw[:, 2]
    assert float(fit_scaling("standard", [raw])(raw)[:, 2].std(correction=0)) == pytest.approx(1, rel=1e-4)


def test_none_changes_nothing():
    raw = raw_features()
    assert torch.equal(fit_scaling("none", [])(raw), raw)
    assert torch.equal(Scaling()(raw), raw)


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scaling_keeps_shape_and_dtype(kind, dtype):
    raw = raw_features().to(dtype)
    scaling = fit_scaling(kind, [raw])
    assert scaling.kind == kind
    assert scaling(raw[:7]).shape == (7, 6)
    assert scaling(raw).dtype == dtype
    torch.testing.assert_close(scaling(raw).double(), scaling(raw.double()), rtol=1e-5, atol=1e-6)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="scaling 'whiten': expected one of unit, standard, none"):
        fit_scaling("whiten", [raw_features()])


def test_linear_output_is_the_head_applied_to_the_rows():
    raw = raw_features().float()
    head = torch.nn.Linear(6, 3)
    output = LinearOutput(raw, head.weight.detach(), head.bias.detach())
    assert output.shape == (100, 3)
    assert output[10:17].shape == (7, 3)
    assert output[0:100].dtype == torch.float64
    torch.testing.assert_close(output[10:17], head(raw[10:17]).detach().double(), rtol=1e-5, atol=1e-6)
    exact = head.double()(raw[10:17].double()).detach()
    torch.testing.assert_close(output[10:17], exact, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_unit_length_does_not_depend_on_the_size_of_a_row(dtype):
    """Powers of two over nearly the whole range of the dtype, in one batch: not a digit differs."""
    rows = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    most = 120 if dtype == torch.float32 else 1000
    powers = torch.linspace(-most, most, 9, dtype=torch.float64).round()
    sizes = torch.pow(torch.tensor(2.0, dtype=torch.float64), powers)[:, None].to(dtype)
    unit = Scaling("unit")
    assert torch.equal(unit(rows * sizes), unit(rows))
    lengths = torch.linalg.vector_norm(unit(rows * sizes), dim=1)
    torch.testing.assert_close(lengths, torch.ones(9, dtype=dtype))


@pytest.mark.parametrize("size", [torch.finfo(torch.float32).max, 1e-45], ids=["largest", "smallest"])
def test_the_ends_of_single_precision_have_unit_length(size):
    rows = torch.tensor([[size, 0.0, -size], [0.0, 0.0, 0.0], [3.0, 4.0, 0.0]])
    expected = torch.tensor([[0.5**0.5, 0.0, -(0.5**0.5)], [0.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    torch.testing.assert_close(Scaling("unit")(rows), expected)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_deviations_whose_squares_are_out_of_range_are_refused(size):
    rows = size * (1 + torch.rand(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    with pytest.raises(SolveError, match="whose powers float64 cannot hold"):
        fit_scaling("standard", [rows])
