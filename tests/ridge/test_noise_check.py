"""Where disagreements contradict the label-noise model, labels are judged by their rivals."""

from __future__ import annotations

import math

import pytest
import torch

from divacli.ridge import fit_noise
from divacli.ridge.labels.disagreement import Disagreement
from divacli.ridge.labels.mistakes import LEARNED, RANDOM, one_rate
from divacli.ridge.labels.noise_check import checked, disagreeing
from divacli.ridge.labels.noise_choice import Trials
from divacli.ridge.labels.noise_fit import Labelled, NoiseModel, fit_shape

from .test_noise import learned_by_heart, pairs, planted


def by_heart(pull: float = 0.25):
    """Labels of which a quarter is wrong, and predictions that the wrong ones lean towards."""
    predictions, truth, labels = learned_by_heart(1200, 5, 0.25, pull, sharpness=0.12)
    return Labelled(predictions, labels), labels != truth


def estimated(share: float, one_way: float = 0.0, ways: torch.Tensor | None = None) -> Disagreement:
    """A second estimate of labels of five classes."""
    return Disagreement(share, one_way, torch.zeros(5, 5, dtype=torch.bool) if ways is None else ways)


def check(samples: Labelled, seen: Disagreement, model: NoiseModel | None = None) -> NoiseModel | None:
    model = model or fit_shape(samples, RANDOM, math.inf).model
    return checked(model, samples, seen, Trials(samples), 10.0)


def test_a_label_is_judged_by_its_most_probable_rival():
    samples, _ = by_heart()
    model = check(samples, estimated(0.5))
    assert model is not None
    logs = model.calibration.logs(samples.predictions)
    posterior = model.posterior(samples.predictions, samples.labels)
    torch.testing.assert_close(posterior.sum(dim=1), torch.ones(1200).double())
    for row in range(0, 1200, 100):
        own = int(samples.labels[row])
        others = [c for c in range(5) if c != own]
        rival = max(logs[row, others])
        assert float(posterior[row, own]) == pytest.approx(
            float(torch.sigmoid(logs[row, own] - rival - model.rivalry[0, 1]))
        )
        share = posterior[row, others] / posterior[row, others].sum()
        torch.testing.assert_close(share, torch.softmax(logs[row, others], dim=0))
    # Without the matrix and the bias, which may have learned mistakes, the order is that of the predictions.
    assert torch.equal(logs.argsort(dim=1), samples.predictions.argsort(dim=1))


def test_the_disagreements_have_the_share_that_the_second_estimate_says():
    samples, _ = by_heart()
    others = disagreeing(samples)
    for share in (0.2, 0.32):
        model = check(samples, estimated(share))
        assert float(model.wrong(samples.part(others)).mean()) == pytest.approx(share, abs=1e-6)
    # Of more than nine in ten no estimate is sure.
    model = check(samples, estimated(1.0))
    assert bool((model.rivalry >= 0).all())
    assert float(model.wrong(samples.part(others)).mean()) <= max(
        0.9 + 1e-6, float(check(samples, estimated(0.6)).wrong(samples.part(others)).mean())
    )


def test_where_most_disagreements_are_wrong_every_one_is_called_wrong():
    samples, wrong = by_heart()
    explained = fit_shape(samples, RANDOM, math.inf).model
    explained = NoiseModel(explained.calibration, explained.mistakes.moved(-2.0))
    called = check(samples, estimated(0.6), explained).wrong(samples) >= 0.5
    others = torch.zeros(1200, dtype=torch.bool)
    others[disagreeing(samples)] = True
    assert bool(called[others].all())
    hits = float((called & wrong).sum())
    assert 2 * hits / float(called.sum() + wrong.sum()) > 0.8


def test_where_labels_go_one_way_those_that_go_it_are_called_wrong():
    samples, _ = by_heart()
    ways = torch.eye(5, dtype=torch.bool).roll(1, dims=1)
    model = check(samples, estimated(0.2, 0.3, ways))
    assert torch.equal(model.rivalry >= 0, ways)
    assert len(model.rivalry[~ways].unique()) == 1
    called = model.wrong(samples) >= 0.5
    others = disagreeing(samples)
    way = ways[samples.predictions[others].argmax(dim=1), samples.labels[others]]
    assert bool(called[others[way]].all())
    assert float(called[others[~way]].double().mean()) < 0.5


def test_of_a_model_that_explains_nothing_the_second_estimate_is_too_low():
    samples, _ = by_heart()
    nothing = fit_shape(samples, RANDOM, math.inf).model
    nothing = NoiseModel(nothing.calibration, nothing.mistakes.moved(-12.0))
    assert not check(samples, estimated(0.45), nothing).rivalry.any()
    assert bool((check(samples, estimated(0.3), nothing).rivalry < 0).all())


def test_a_model_that_explains_the_disagreements_stays():
    predictions, truth, labels = planted(1200, 5, one_rate(0.2, 5))
    samples = Labelled(predictions, labels)
    share = float((labels != truth)[disagreeing(samples)].double().mean())
    assert check(samples, estimated(share)) is None
    # What is not sure contradicts nothing.
    assert check(samples, estimated(0.0)) is None
    alike = samples.part((predictions.argmax(dim=1) == labels).nonzero()[:, 0])
    assert check(alike, estimated(0.5, 0.5)) is None


def test_mistakes_in_pairs_that_were_learned_are_told_by_their_likelihood():
    predictions, _, labels = planted(1200, 5, pairs(5, 0.25))
    honest = Labelled(predictions, labels)
    assert check(honest, estimated(0.0, 0.1), fit_shape(honest, RANDOM, 10.0).model) is None
    one_hot = torch.nn.functional.one_hot
    truth = torch.where(predictions.argmax(dim=1) == labels, labels, predictions.argmax(dim=1))
    predictions = predictions + 0.28 * (one_hot(labels, 5) - one_hot(truth, 5))
    learned = Labelled(predictions, labels)
    model = fit_shape(learned, RANDOM, 10.0).model
    explained = float(model.wrong(learned.part(disagreeing(learned))).mean())
    found = check(learned, estimated(0.0, 0.1), model)
    gain = Trials(learned)(LEARNED, 10.0).value - Trials(learned)(RANDOM, 10.0).value
    contradicted = explained < 0.085 or (explained < 0.5 and gain > 0.004 * 1200)
    assert (found is not None) == contradicted
    assert contradicted


def test_the_fit_says_that_the_labels_were_learned_and_its_interval_is_wide():
    samples, wrong = by_heart()
    alone = fit_noise(samples.predictions, samples.labels)
    fit = fit_noise(samples.predictions, samples.labels, seen=estimated(0.9))
    rate = float(wrong.double().mean())
    assert fit.learned
    assert fit.model.rivalry is not None
    assert fit.rate == pytest.approx(float(fit.model.wrong(samples).mean()))
    low, high = fit.interval
    assert low <= alone.interval[0]
    assert low <= rate <= high
    assert high >= 2 * len(disagreeing(samples)) / 1200
    same = fit_noise(samples.predictions, samples.labels, seen=estimated(0.0))
    assert (same.rate, same.interval, same.shape) == (alone.rate, alone.interval, alone.shape)
