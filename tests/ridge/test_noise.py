"""The label-noise model: what was planted is found again, and no step of the fit lowers its likelihood."""

from __future__ import annotations

import math

import pytest
import torch

from divacli.ridge import (
    NoiseFit,
    NoiseModel,
    RidgeTask,
    decompose,
    fit_noise,
    loo_predictions,
    noise_rows,
)
from divacli.ridge import noise as module
from divacli.ridge.expectation import (
    Calibration,
    Labelled,
    fit_calibration,
    fit_transition,
    log_softplus,
    one_rate,
)


def planted(
    n: int, k: int, transition: torch.Tensor, seed: int = 0, sharpness: float = 0.15
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions (n, k) like those of ridge regression, true classes, and labels given by a matrix."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, k, (n,), generator=generator)
    predictions = sharpness * torch.randn(n, k, generator=generator, dtype=torch.float64)
    predictions += 0.6 * torch.nn.functional.one_hot(truth, k)
    labels = torch.multinomial(transition[truth], 1, generator=generator)[:, 0]
    return predictions, truth, labels


def pairs(k: int, rate: float) -> torch.Tensor:
    """Class c becomes c + 1 at a rate."""
    eye = torch.eye(k, dtype=torch.float64)
    return (1 - rate) * eye + rate * eye.roll(1, dims=1)


def one_sided(k: int, rate: float) -> torch.Tensor:
    """Class 0 becomes class 1 at a rate; the others are right."""
    matrix = torch.eye(k, dtype=torch.float64)
    matrix[0, :2] = torch.tensor([1 - rate, rate])
    return matrix


KINDS = {
    "none": lambda k: one_rate(0.0, k),
    "uniform": lambda k: one_rate(0.2, k),
    "pairs": lambda k: pairs(k, 0.25),
    "one-sided": lambda k: one_sided(k, 0.4),
}


def judged(fit: NoiseFit, predictions, truth, labels) -> tuple[float, float, float]:
    """F1 of calling labels wrong, share of right ones that are called wrong, share of good suggestions."""
    posterior = fit.model.posterior(predictions, labels)
    rows = torch.arange(len(labels))
    wrong, called = labels != truth, posterior[rows, labels] < 0.5
    hits = (wrong & called).sum()
    others = posterior.clone()
    others[rows, labels] = -1
    right = (others.argmax(dim=1) == truth)[wrong].double().mean()
    f1 = 2 * hits / (wrong.sum() + called.sum()).clamp_min(1)
    return float(f1), float(called[~wrong].double().mean()), float(right)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 3, 20])
def test_the_noise_that_was_planted_is_found(kind, k):
    predictions, truth, labels = planted(3000, k, KINDS[kind](k))
    fit = fit_noise(predictions, labels)
    wrong = float((labels != truth).double().mean())
    assert fit.rate == pytest.approx(wrong, abs=0.02)
    low, high = fit.interval
    assert low - 0.005 <= wrong <= high + 0.005
    assert low <= fit.rate <= high
    f1, false_alarms, right = judged(fit, predictions, truth, labels)
    assert false_alarms < 0.02
    if wrong:
        assert f1 > 0.9
        assert right > 0.95


def test_the_prior_is_as_strong_as_the_noise_is_simple():
    uniform = fit_noise(*planted(3000, 8, one_rate(0.2, 8))[::2])
    systematic = fit_noise(*planted(3000, 8, pairs(8, 0.25))[::2])
    assert uniform.strength >= 1000
    assert systematic.strength <= 100
    off = pairs(8, 1.0) > 0.5
    assert float(systematic.model.transition[off].min()) > 0.2
    # Neither tries more than two strengths beyond its best one.
    for fit in (uniform, systematic):
        assert len(fit.held_out) - max(range(len(fit.held_out)), key=fit.held_out.__getitem__) - 1 <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_lowers_the_likelihood(kind):
    predictions, _, labels = planted(600, 5, KINDS[kind](5), sharpness=0.4)
    # A class whose predictions are worse than the others', which a calibration mends.
    predictions[:, 0] *= 3
    samples = Labelled.of(predictions, labels)
    for strength in (math.inf, 100.0, 3.0):
        calibration, transition, likelihoods = fit_transition(
            samples, Calibration.of(samples), one_rate(0.1, 5), base=one_rate(0.05, 5), strength=strength
        )
        _, more = fit_calibration(samples, calibration, transition)
        for steps in (likelihoods, more):
            assert len(steps) > 2
            rises = torch.tensor(steps).diff()
            assert float(rises.min()) >= -1e-9 * abs(steps[0])
            assert float(rises[0]) > 0


def test_a_search_ends_in_time(monkeypatch):
    monkeypatch.setattr("divacli.ridge.expectation._MOST_STEPS", 2)
    predictions, _, labels = planted(4000, 4, one_rate(0.1, 4), sharpness=0.3)
    samples = Labelled.of(predictions, labels)
    calibration, transition, likelihoods = fit_transition(
        samples, Calibration.of(samples), one_rate(0.4, 4), base=one_rate(0.4, 4), strength=math.inf
    )
    _, more = fit_calibration(samples, calibration, transition)
    assert len(likelihoods) == len(more) == 2


def test_rows_of_the_matrix_are_probabilities_and_the_posterior_follows_bayes():
    predictions, _, labels = planted(400, 4, pairs(4, 0.2))
    model = fit_noise(predictions, labels).model
    torch.testing.assert_close(model.transition.sum(dim=1), torch.ones(4, dtype=torch.float64))
    before = model.calibration.logs(predictions).exp()
    joint = before * model.transition[:, labels].T
    torch.testing.assert_close(model.posterior(predictions, labels), joint / joint.sum(dim=1, keepdim=True))
    torch.testing.assert_close(model.log_likelihood(predictions, labels), joint.sum(dim=1).log())


def test_a_calibration_is_used_where_it_helps_and_for_few_classes_only(monkeypatch):
    predictions, _, labels = planted(4000, 4, one_rate(0.1, 4), sharpness=0.3)
    # What speaks for class 0 is said by its neighbour as well, and twice as loudly.
    predictions[:, 1] += 1.5 * predictions[:, 0]
    fit = fit_noise(predictions, labels)
    mixing = fit.model.calibration.mixing
    assert float((mixing - mixing.diagonal().diag()).abs().max()) > 0.1
    assert fit.likelihoods[1]
    monkeypatch.setattr(module, "_MOST_CALIBRATED", 3)
    plain = fit_noise(predictions, labels)
    torch.testing.assert_close(
        plain.model.calibration.mixing, plain.model.calibration.inverse_temperature * torch.eye(4).double()
    )
    assert plain.likelihoods[1] == ()


def test_the_fit_is_the_same_every_time_and_whatever_the_dtype():
    predictions, _, labels = planted(500, 3, one_rate(0.2, 3))
    first, again = fit_noise(predictions, labels), fit_noise(predictions, labels)
    assert (first.rate, first.interval, first.held_out) == (again.rate, again.interval, again.held_out)
    assert torch.equal(first.model.transition, again.model.transition)
    single = fit_noise(predictions.float(), labels)
    assert single.rate == pytest.approx(first.rate, abs=1e-4)


def test_the_interval_narrows_with_samples_and_widens_with_groups():
    predictions, _, labels = planted(4000, 3, one_rate(0.2, 3))

    def width(fit: NoiseFit) -> float:
        return fit.interval[1] - fit.interval[0]

    alone, few = fit_noise(predictions, labels), fit_noise(predictions[:400], labels[:400])
    assert width(few) > 1.5 * width(alone)
    # Every sample four times, as a group: no more is known than of one copy.
    copies = torch.arange(1000).repeat_interleave(4)
    grouped = fit_noise(predictions[copies], labels[copies], groups=copies, strengths=(math.inf,))
    once = fit_noise(predictions[:1000], labels[:1000], strengths=(math.inf,))
    assert grouped.rate == pytest.approx(once.rate, abs=0.01)
    assert width(grouped) == pytest.approx(width(once), rel=0.25)


def test_classes_of_five_samples():
    predictions, truth, labels = planted(500, 100, one_rate(0.2, 100))
    fit = fit_noise(predictions, labels)
    assert fit.strength >= 1000
    assert fit.rate == pytest.approx(float((labels != truth).double().mean()), abs=0.05)


def test_hundreds_of_classes():
    predictions, truth, labels = planted(1600, 400, one_rate(0.1, 400), sharpness=0.1)
    fit = fit_noise(predictions, labels, strengths=(math.inf, 100.0))
    assert fit.rate == pytest.approx(float((labels != truth).double().mean()), abs=0.02)
    assert judged(fit, predictions, truth, labels)[0] > 0.9


@pytest.mark.parametrize(
    "predictions", [torch.zeros(8, 2), torch.eye(2).repeat(4, 1), -torch.ones(8, 2) * 1e6]
)
def test_predictions_that_say_nothing_or_everything(predictions):
    fit = fit_noise(predictions, torch.tensor([0, 1] * 4))
    assert 0 <= fit.interval[0] <= fit.rate <= fit.interval[1] <= 1
    assert bool(torch.isfinite(fit.model.posterior(predictions, torch.tensor([0, 1] * 4))).all())


def test_two_samples_are_enough():
    fit = fit_noise(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1]))
    assert 0 <= fit.rate <= 1


def test_without_samples_nothing_is_known():
    fit = fit_noise(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert (fit.rate, fit.interval) == (0.0, (0.0, 1.0))
    assert float(fit.model.posterior(torch.ones(1, 3), torch.tensor([1]))[0, 1]) > 0.999


def test_many_mistakes_in_two_classes_are_found():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(3000) % 2
    features = torch.randn(3000, 8, generator=generator, dtype=torch.float64)
    features += 2.8 * torch.nn.functional.one_hot(truth, 8)
    flipped = torch.rand(3000, generator=generator) < 0.4
    labels = torch.where(flipped, 1 - truth, truth)
    task = RidgeTask(features, labels, 2, torch.ones(3000, dtype=torch.float64), dtype=torch.float64)
    predictions = loo_predictions(task, decompose(task).fit(10.0), torch.arange(3000))
    fit = fit_noise(predictions, labels)
    wrong = float(flipped.double().mean())
    assert fit.rate == pytest.approx(wrong, abs=0.06)
    assert judged(fit, predictions, truth, labels)[0] > 0.85


def test_predictions_that_say_nothing_leave_the_interval_open():
    generator = torch.Generator().manual_seed(0)
    predictions = 0.5 + 0.01 * torch.randn(400, 2, generator=generator, dtype=torch.float64)
    fit = fit_noise(predictions, torch.randint(0, 2, (400,), generator=generator))
    low, high = fit.interval
    assert low < 0.02
    assert high > 0.45


def test_rows_to_fit_to_are_evenly_spaced_in_the_order_given(monkeypatch):
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noise_rows(order, 10), order)
    monkeypatch.setattr(module, "FIT_VALUES", 250)
    assert torch.equal(noise_rows(order, 10), order[::4])
    assert len(noise_rows(order, 1000)) == 1


def test_log_softplus_has_no_hole_where_floats_end():
    values = torch.tensor([-1e4, -31.0, -29.0, 0.0, 5.0, 800.0], dtype=torch.float64)
    expected = [-1e4, -31.0, -29.0, math.log(math.log(2)), math.log(math.log1p(math.exp(5))), math.log(800)]
    torch.testing.assert_close(log_softplus(values), torch.tensor(expected).double())


def test_a_model_moves_to_a_device():
    model = NoiseModel(
        Calibration(1.0, 1.0, torch.eye(2).double(), torch.zeros(2).double()), one_rate(0.1, 2)
    )
    moved = model.to(torch.device("meta"))
    assert {moved.transition.device.type, moved.calibration.mixing.device.type} == {"meta"}
