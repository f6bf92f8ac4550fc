"""The calibrated, noise-robust cross-entropy: its value and gradient, and the fit of its parameters."""

import math
from functools import partial
from itertools import product

import pytest
import torch
from torch.nn import functional

from divacli.errors import SolveError
from divacli.ridge import CrossEntropyLoss, RobustCrossEntropy, calibrate
from divacli.ridge.fit.descent import minimiser
from divacli.ridge.leave_out import calibration as module
from divacli.ridge.leave_out.calibration import calibration_rows


def random(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_loss(noise=0.2, k=4):
    return RobustCrossEntropy(7.5, random(k, seed=1), noise)


def planted(n, k, t, noise, seed=0):
    """Predictions (n, k), labels drawn by the model with these parameters, and its biases, which sum to 0."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.rand(n, k, generator=generator, dtype=torch.float64)
    bias = torch.linspace(-0.6, 0.6, k, dtype=torch.float64)
    labels = torch.multinomial((t * f + bias).softmax(dim=1), 1, generator=generator)[:, 0]
    drawn = torch.rand(n, generator=generator) < noise
    return f, torch.where(drawn, torch.randint(0, k, (n,), generator=generator), labels), bias


def penalised(f, labels, mask, t, bias, noise):
    """The objective of `calibrate` written once more: mean of -log p, and the priors' one sample each."""
    share = mask / mask.sum()
    probabilities = (t * f + bias).softmax(dim=1)
    mixture = (1 - noise) * probabilities[torch.arange(len(f)), labels] + noise / f.shape[1]
    priors = share @ probabilities.log().mean(dim=1) + math.log1p(-noise) - bias.square().sum() / 2
    return float(-share @ mixture.log() - share.square().sum() * priors)


def test_the_value_is_minus_the_log_of_the_mixture():
    f, labels = 0.5 * random(30, 4), torch.arange(30) % 4
    loss = some_loss()
    probabilities = (7.5 * f + random(4, seed=1)).exp()
    probabilities /= probabilities.sum(dim=1, keepdim=True)
    expected = -torch.log(0.8 * probabilities[torch.arange(30), labels] + 0.2 / 4)
    targets = functional.one_hot(labels, 4).double()
    torch.testing.assert_close(loss.value(f, targets), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(loss.probabilities(f), probabilities, rtol=1e-13, atol=0)


@pytest.mark.parametrize("noise", [0.0, 1e-9, 0.3, 1 - 1e-12])
@pytest.mark.parametrize("k", [2, 5])
def test_the_gradient_is_that_of_autograd(noise, k):
    f = random(40, k).requires_grad_()
    targets = functional.one_hot(torch.arange(40) % k, k).double()
    loss = some_loss(noise, k)
    (expected,) = torch.autograd.grad(loss.value(f, targets).sum(), f)
    torch.testing.assert_close(loss.gradient(f.detach(), targets), expected, rtol=1e-11, atol=1e-14)


def test_without_noise_and_biases_it_is_the_cross_entropy():
    f, targets = random(30, 4), functional.one_hot(torch.arange(30) % 4, 4).double()
    robust, plain = RobustCrossEntropy(7.5, torch.zeros(4), 0.0), CrossEntropyLoss(7.5)
    for method in ("value", "gradient"):
        found, expected = (getattr(loss, method)(f, targets) for loss in (robust, plain))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
        assert not torch.allclose(getattr(some_loss(), method)(f, targets), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_impossible_labels_have_their_whole_gradient_or_none(dtype):
    """Without noise the label is believed, and the loss grows without bound; with noise it is disbelieved.

    In float32 the smallest noise is zero.
    """
    f = torch.tensor([[1e3, 0.0, 0.0]], dtype=dtype)
    targets = torch.tensor([[0.0, 1.0, 0.0]], dtype=dtype)
    for noise in (0.0, 1e-300 if dtype == torch.float32 else 0.0):
        loss = RobustCrossEntropy(10.0, torch.zeros(3, dtype=torch.float64), noise)
        assert float(loss.value(f, targets)) == pytest.approx(1e4)
        assert loss.gradient(f, targets).tolist() == [[10, -10, 0]]
    for noise in (1e-30, 0.5):
        loss = RobustCrossEntropy(10.0, torch.zeros(3, dtype=torch.float64), noise)
        assert float(loss.value(f, targets)) == pytest.approx(-math.log(noise / 3), rel=1e-6)
        assert loss.gradient(f, targets).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
@pytest.mark.parametrize(("k", "t"), [(2, 5.0), (5, 8.0), (5, 40.0)])
def test_planted_parameters_are_recovered(k, t, noise):
    f, labels, bias = planted(20_000, k, t, noise)
    found = calibrate(f, labels, torch.ones(20_000))
    assert found.inverse_temperature == pytest.approx(t, rel=0.1)
    assert found.noise == pytest.approx(noise, abs=0.03)
    torch.testing.assert_close(found.bias, bias, rtol=0, atol=0.2)
    assert float(found.bias.mean()) == pytest.approx(0, abs=1e-6)


SETS = [
    # n, k, t, noise: few samples and predictions that say little, too.
    (400, 3, 6.0, 0.3),
    (150, 2, 4.0, 0.0),
    (60, 4, 10.0, 0.1),
    (200, 3, 0.3, 0.5),
]


@pytest.mark.parametrize(("bias", "noise"), [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("given", SETS, ids=str)
def test_the_fit_is_stationary_and_no_worse_than_a_grid(given, bias, noise):
    f, labels, _ = planted(*given)
    mask = torch.rand(len(f), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = calibrate(f, labels, mask, bias=bias, noise=noise)
    at = (found.inverse_temperature, found.bias, found.noise)
    best = penalised(f, labels, mask, *at)
    if not bias:
        assert torch.equal(found.bias, torch.zeros(given[1], dtype=torch.float64))
    if not noise:
        assert found.noise == 0

    step = 1e-4
    moved = [(at[0] * math.exp(sign * step), at[1], at[2]) for sign in (1, -1)]
    for unit in torch.eye(given[1], dtype=torch.float64) * bias:
        moved += [(at[0], at[1] + sign * step * unit, at[2]) for sign in (1, -1)]
    moved += [(at[0], at[1], min(1.0, max(0.0, at[2] + sign * step * noise))) for sign in (1, -1)]
    for neighbour in moved:  # a slope of 1e-5 at a distance of 1e-4 would show
        assert penalised(f, labels, mask, *neighbour) > best - 1e-9

    noises = [0.0, 0.05, 0.1, 0.2, 0.4, 0.7] if noise else [0.0]
    for t, share in product([0.0, 0.1, 1, 2, 4, 8, 16, 64], noises):
        for b in (found.bias, torch.zeros_like(found.bias)):
            assert penalised(f, labels, mask, t, b, share) >= best - 1e-9


def test_the_comparison_finds_other_parameters_worse():
    """Negative control: the objective tells the fit from parameters that are a tenth off."""
    f, labels, _ = planted(*SETS[0])
    mask = torch.ones(len(f), dtype=torch.float64)
    found = calibrate(f, labels, mask)
    best = penalised(f, labels, mask, found.inverse_temperature, found.bias, found.noise)
    for t, noise in ((1.1, 0.0), (0.9, 0.0), (1.0, 0.1), (1.0, -0.1)):
        other = penalised(f, labels, mask, t * found.inverse_temperature, found.bias, found.noise + noise)
        assert other > best + 1e-4


def same(a, b, tolerance=1e-7):
    assert a.inverse_temperature == pytest.approx(b.inverse_temperature, rel=tolerance)
    assert a.noise == pytest.approx(b.noise, abs=tolerance)
    torch.testing.assert_close(a.bias, b.bias, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("given", SETS, ids=str)
def test_neither_order_nor_absent_rows_matter(given):
    f, labels, _ = planted(*given)
    mask = torch.rand(len(f), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = calibrate(f, labels, mask)
    again = calibrate(f, labels, mask)
    assert (again.inverse_temperature, again.noise) == (expected.inverse_temperature, expected.noise)
    assert torch.equal(again.bias, expected.bias)

    order = torch.randperm(len(f), generator=torch.Generator().manual_seed(4))
    same(calibrate(f[order], labels[order], mask[order]), expected)
    same(calibrate(f, labels, 1000 * mask), expected)
    other = torch.cat([f, 50 * f]), torch.cat([labels, labels.flip(0)])
    same(calibrate(*other, torch.cat([mask, torch.zeros_like(mask)])), expected)
    heard = calibrate(*other, torch.cat([mask, mask]))
    assert float((heard.bias - expected.bias).abs().max()) > 0.01


@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_the_scale_of_predictions_goes_into_the_temperature(scale, monkeypatch):
    monkeypatch.setattr(module, "minimiser", partial(minimiser, most_steps=25))  # at no more effort
    f, labels, _ = planted(*SETS[0])
    mask = torch.ones(len(f))
    expected, found = calibrate(f, labels, mask), calibrate(scale * f, labels, mask)
    assert found.inverse_temperature * scale == pytest.approx(expected.inverse_temperature, rel=1e-4)
    assert found.noise == pytest.approx(expected.noise, abs=1e-4)


def test_single_precision_and_a_disabled_autograd_change_nothing_much():
    f, labels, _ = planted(*SETS[0])
    expected = calibrate(f, labels, torch.ones(len(f)))
    state = torch.get_rng_state()
    with torch.no_grad():
        found = calibrate(f.float(), labels, torch.ones(len(f)))
    assert torch.equal(torch.get_rng_state(), state)
    same(found, expected, 1e-4)


def test_predictions_without_a_mistake_keep_a_finite_temperature():
    """Right by one m times, and half right once: `e^t = 2 m + 1`. Derivatives then do not vanish."""
    m = 500
    f = functional.one_hot(torch.arange(m) % 2, 2).double()
    found = calibrate(f, torch.arange(m) % 2, torch.ones(m), bias=False, noise=False)
    assert found.inverse_temperature == pytest.approx(math.log(2 * m + 1), rel=1e-4)
    free = calibrate(f, torch.arange(m) % 2, torch.ones(m))
    assert free.inverse_temperature == pytest.approx(math.log(2 * m + 1), rel=0.01)
    assert free.noise < 1e-6
    assert float(free.gradient(f, f).abs().min()) > 1e-3


def test_predictions_against_the_labels_get_no_say():
    labels = torch.arange(90) % 3
    f = -functional.one_hot(labels, 3).double()
    found = calibrate(f, labels, torch.ones(90))
    assert found.inverse_temperature < 1e-6
    assert found.noise < 1e-6
    torch.testing.assert_close(found.probabilities(f), torch.full_like(f, 1 / 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1 / 3, 5.0])
def test_equal_predictions_leave_the_classes_shares(value):
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([600, 300, 100]))
    f = torch.full((1000, 3), value, dtype=torch.float64)
    found = calibrate(f, labels, torch.ones(1000))
    probabilities = found.probabilities(f)[0]
    torch.testing.assert_close(probabilities, torch.tensor([0.6, 0.3, 0.1]).double(), rtol=0, atol=5e-3)
    assert math.isfinite(found.inverse_temperature)
    assert found.noise < 1e-3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [2, 10])
def test_labels_drawn_at_random_are_not_worse_than_chance(k, seed):
    """The likelihood is nearly flat there, and a search that gets stuck ends above the uniform guess."""
    f = 0.1 * random(300, k, seed=seed) + 1 / k
    labels = torch.randint(0, k, (300,), generator=torch.Generator().manual_seed(seed))
    found = calibrate(f, labels, torch.ones(300))
    targets = functional.one_hot(labels, k).double()
    assert float(found.value(f, targets).mean()) <= math.log(k) + 1e-6


def test_a_search_that_is_cut_short_ends_on_its_way(monkeypatch):
    f, labels, _ = planted(*SETS[0])
    mask = torch.ones(len(f), dtype=torch.float64)
    values = []
    for steps in (1, 4, 200):
        monkeypatch.setattr(module, "minimiser", partial(minimiser, most_steps=steps))
        found = calibrate(f, labels, mask)
        values.append(penalised(f, labels, mask, found.inverse_temperature, found.bias, found.noise))
    assert values[0] > values[1] + 1e-4 > values[2] + 2e-4


@pytest.mark.parametrize(("n", "k", "most"), [(1000, 3, 100), (1001, 3, 100), (99, 3, 100), (1000, 50, 40)])
def test_rows_are_evenly_spaced_ascending_and_no_more_than_allowed(n, k, most, monkeypatch):
    monkeypatch.setattr(module, "CALIBRATION_ROWS", 100)
    monkeypatch.setattr(module, "CALIBRATION_VALUES", 2000)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    rows = calibration_rows(order, torch.ones(n), k)
    assert most / 2 < len(rows) <= most
    assert torch.equal(rows, rows.sort().values)
    places = order.argsort()[rows].sort().values  # where they stand in the order
    assert places[0] == 0
    assert len(set(places.diff().tolist())) == 1


def test_rows_are_those_that_count_wherever_they_stand(monkeypatch):
    """Every third sample counts, as originals among their copies: equal steps over all would miss them."""
    monkeypatch.setattr(module, "CALIBRATION_ROWS", 100)
    mask = (torch.arange(900) % 3 == 1).double()
    rows = calibration_rows(torch.arange(900), mask, 2)
    assert len(rows) == 100
    assert bool((mask[rows] > 0).all())
    with pytest.raises(SolveError, match="no sample counts"):
        calibration_rows(torch.arange(900), torch.zeros(900), 2)
