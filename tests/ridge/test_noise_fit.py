"""The likelihood of the label-noise model and its priors, by hand, and the search for its maximum."""

from __future__ import annotations

import math

import pytest
import torch

from divacli.ridge import NoiseModel
from divacli.ridge.labels import noise_fit as module
from divacli.ridge.labels.class_probability import Calibration
from divacli.ridge.labels.mistakes import LEARNED, PEOPLE, RANDOM, Mistakes, one_rate
from divacli.ridge.labels.noise_fit import Labelled, fit_shape
from tests.ridge.test_noise import pairs, planted

SHAPES = [RANDOM, PEOPLE, LEARNED]
STRENGTHS = [math.inf, 40.0]


def samples_of(n: int, k: int, transition: torch.Tensor, **options) -> Labelled:
    predictions, _, labels = planted(n, k, transition, **options)
    return Labelled(predictions, labels)


def problem_of(k: int, shape=PEOPLE, strength: float = 40.0, *, sharp: bool = False, seed: int = 0):
    """A problem and a point at random near the start."""
    problem = module._Problem(samples_of(60, k, one_rate(0.2, k)), shape, strength, sharp)
    begin = problem.begin(0.1)
    move = torch.randn(len(begin), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return problem, begin + 0.3 * move


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("k", [2, 4])
def test_slopes_are_those_of_finite_differences(shape, strength, sharp, k):
    problem, point = problem_of(k, shape, strength, sharp=sharp)
    point = point.requires_grad_()
    assert torch.autograd.gradcheck(problem.loss, point, eps=1e-6, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("place", [(0, 0.5), (1, 2.0), (1, -2.0)])
def test_slopes_are_right_where_bounds_are_crossed(place):
    problem, point = problem_of(3, sharp=True)
    number, value = place
    point[number] = value
    assert torch.autograd.gradcheck(problem.loss, point.requires_grad_(), eps=1e-6, atol=1e-4, rtol=1e-5)


def require_equal_slopes(problem, point: torch.Tensor) -> None:
    variable = point.clone().requires_grad_()
    loss = problem.loss(variable)
    (expected,) = torch.autograd.grad(loss, variable)
    value, slope = problem.slope(point)
    assert value == pytest.approx(float(loss.detach()), rel=1e-14)
    # With most versions of torch to the last bit.
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-13 * float(expected.abs().max()))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("sharp", [False, True])
def test_slopes_by_hand_are_those_of_automatic_differentiation(shape, strength, sharp):
    """Also where bounds are crossed."""
    for k, far in ((2, 0.0), (4, 1.0), (4, 10.0), (7, 3.0)):
        problem, point = problem_of(k, shape, strength, sharp=sharp)
        require_equal_slopes(problem, point + far * (point - problem.begin(0.1)))


def test_slopes_by_hand_of_many_classes_and_of_bounds():
    require_equal_slopes(*problem_of(module.MOST_MIXED + 1, LEARNED, math.inf))
    for number, place in ((0, 0.5), (1, 2.0), (1, -2.0)):
        problem, point = problem_of(3, sharp=True)
        point[number] = place
        require_equal_slopes(problem, point)


def test_a_point_out_of_reach_has_no_slope_and_is_no_error():
    problem, point = problem_of(3)
    point[5:8] = -1e6  # rates of 0
    assert not math.isfinite(problem.slope(point)[0])


def by_hand(problem, point: torch.Tensor, *, sharp: bool) -> float:
    """The loss, from the model at the point."""
    model, samples, strength = problem.model(point), problem._samples, problem._strength
    n, k = samples.predictions.shape
    logs = model.calibration.logs(samples.predictions)
    loss = -float(model.log_likelihood(samples.predictions, samples.labels).sum())
    # A sample whose label is drawn at random, and one whose label is right.
    loss -= float(sum(logs[i, c] for i in range(n) for c in range(k))) / (n * k)
    rate = float(torch.sigmoid(model.mistakes.rates.mean()))
    loss -= math.log(1 - rate)
    heat, sharpness = float(point[0].exp()), model.calibration.sharpness
    loss += float(model.calibration.bias.square().sum()) / 2 + math.log(sharpness) ** 2 / 2
    loss += (math.log(heat / 4) / 0.5) ** 2 / 2
    loss += 0.01 * n * max(0.0, abs(math.log(sharpness)) - math.log(2.5)) ** 2
    mixing = model.calibration.mixing / heat - torch.eye(k)
    loss += 1000 / 2 * float(mixing.square().sum())
    if sharp:
        # What a one-hot prediction, in units of its spread, leaves to all the other classes.
        one_hot = torch.eye(k, dtype=torch.float64)[:1]
        spread = float((one_hot - one_hot.mean()).square().mean().sqrt())
        plain = Calibration(
            spread, sharpness, heat * torch.eye(k, dtype=torch.float64), torch.zeros(k).double()
        )
        left = plain.logs(one_hot)[0]
        ratio = float((left[1:] - left[0]).exp().sum())
        loss += 0.02 * n * max(0.0, math.log(ratio / 0.02)) ** 2
        loss += 0.3 * n * max(0.0, math.log(4 / heat)) ** 2
    if math.isfinite(strength):
        for c in range(k):
            base = [1 - rate if y == c else rate / (k - 1) for y in range(k)]
            own = float(torch.sigmoid(model.mistakes.rates[c]))
            row = [1 - own if y == c else own * float(model.mistakes.pairs[c, y]) for y in range(k)]
            loss += strength * sum(b * math.log(b / r) for b, r in zip(base, row, strict=True))
    return loss


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("k", [2, 4])
def test_the_loss_is_likelihood_and_priors(shape, strength, sharp, k):
    for seed in range(3):
        problem, point = problem_of(k, shape, strength, sharp=sharp, seed=seed)
        assert float(problem.loss(point)) == pytest.approx(by_hand(problem, point, sharp=sharp), rel=1e-7)
    # Far away, where all bounds are crossed.
    for heat in (-1.0, 3.0):
        for sharpness in (-2.5, 2.5):
            point[:2] = torch.tensor([heat, sharpness])
            assert float(problem.loss(point)) == pytest.approx(by_hand(problem, point, sharp=sharp), rel=1e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_no_move_raises_the_likelihood_of_the_best_fit(shape, strength):
    samples = samples_of(400, 3, pairs(3, 0.2), sharpness=0.4)
    # A class whose predictions are worse than the others'.
    samples.predictions[:, 0] *= 2
    for sharp in (False, True):
        fit = fit_shape(samples, shape, strength, sharp=sharp)
        problem = module._Problem(samples, shape, strength, sharp)
        assert fit.value == pytest.approx(-float(problem.loss(fit.point)), rel=1e-12)
        assert fit.value > -float(problem.loss(problem.begin(0.1))) + 1
        generator = torch.Generator().manual_seed(0)
        size = problem.curvature().rsqrt()
        for length in (0.03, 0.3, 3.0):
            for _ in range(20):
                move = size * torch.randn(len(size), generator=generator, dtype=torch.float64)
                assert -float(problem.loss(fit.point + length * move)) < fit.value + 0.05


def test_the_rough_curvature_is_of_the_size_of_the_real_one():
    for strength in STRENGTHS:
        samples = samples_of(300, 3, one_rate(0.2, 3))
        problem = module._Problem(samples, RANDOM, strength, False)
        point = fit_shape(samples, RANDOM, strength).point
        real = torch.autograd.functional.hessian(problem.loss, point).diagonal()
        rough = problem.curvature()
        assert rough.shape == point.shape == problem.begin(0.2).shape
        counts = real > 1e-3  # the way to the own class has none
        assert float((real / rough)[counts].log().abs().max()) < math.log(100)


def test_a_search_begins_where_another_has_ended():
    samples = samples_of(500, 3, one_rate(0.2, 3))
    first = fit_shape(samples, RANDOM, 100.0)
    again = fit_shape(samples, RANDOM, 100.0, start=first.point)
    assert first.value <= again.value < first.value + 0.05
    torch.testing.assert_close(again.point, first.point, rtol=0, atol=0.1)
    begin = module._Problem(samples, RANDOM, math.inf, False).begin(0.3)
    assert float(begin[2 + 3].sigmoid()) == pytest.approx(0.3)
    assert float(begin[0].exp()) == pytest.approx(4)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_an_infinite_strength_means_one_rate(shape):
    samples = samples_of(500, 4, pairs(4, 0.2))
    mistakes = fit_shape(samples, shape, math.inf).model.mistakes
    assert len(mistakes.rates) == 4
    assert len(mistakes.rates.unique()) == 1
    torch.testing.assert_close(mistakes.pairs, Mistakes.even(shape, 0.1, 4).pairs)


def test_the_weaker_the_prior_the_more_the_pairs_follow_the_labels():
    samples = samples_of(2000, 4, pairs(4, 0.25))
    off = pairs(4, 1.0) > 0.5
    least = [float(fit_shape(samples, RANDOM, s).model.mistakes.pairs[off].min()) for s in (1e6, 300.0, 10.0)]
    assert least[0] == pytest.approx(1 / 3, abs=0.01)
    assert least[0] + 0.1 < least[1] < least[2] - 0.1
    assert least[2] > 0.9


def test_rates_of_classes_differ_where_their_labels_do():
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0] = torch.tensor([0.6, 0.2, 0.2])
    rates = fit_shape(samples_of(2000, 3, matrix), RANDOM, 30.0).model.mistakes.rates.sigmoid()
    assert float(rates[0]) == pytest.approx(0.4, abs=0.06)
    assert float(rates[1:].max()) < 0.05


def test_a_confusion_of_the_predictions_is_mixed_away_of_few_classes_only(monkeypatch):
    predictions, truth, labels = planted(3000, 4, one_rate(0.1, 4), sharpness=0.25)
    # What speaks for class 0 is said by its neighbour as well, and twice as loudly.
    predictions[:, 1] += 1.5 * predictions[:, 0]
    samples = Labelled(predictions, labels)

    def right(fit) -> float:
        return float((fit.model.calibration.logs(predictions).argmax(dim=1) == truth).double().mean())

    fit = fit_shape(samples, RANDOM, math.inf)
    mixing = fit.model.calibration.mixing
    # The second input speaks against the second class as long as the first does not explain it.
    assert float(mixing[0, 1]) < -0.1
    monkeypatch.setattr(module, "MOST_MIXED", 3)
    plain = fit_shape(samples, RANDOM, math.inf)
    calibration = plain.model.calibration
    torch.testing.assert_close(
        calibration.mixing, calibration.inverse_temperature * torch.eye(4, dtype=torch.float64)
    )
    assert len(plain.point) == len(fit.point) - 16
    assert fit.value > plain.value + 10
    assert right(fit) > right(plain) + 0.01


def test_predictions_that_are_assumed_sharp_leave_little_to_other_classes():
    # Predictions say hardly anything of the labels.
    predictions, _, labels = planted(1500, 3, one_rate(0.45, 3), sharpness=0.5)
    samples = Labelled(predictions, labels)
    open_fit, sharp = (fit_shape(samples, LEARNED, math.inf, sharp=sharp) for sharp in (False, True))
    heats = [fit.model.calibration.inverse_temperature for fit in (open_fit, sharp)]
    assert heats[0] < 3
    assert heats[1] > 3.5
    assert sharp.value < open_fit.value

    def left(fit) -> float:
        """What a one-hot prediction leaves to all other classes."""
        found = fit.model.calibration
        own = Calibration(math.sqrt(2) / 3, found.sharpness, found.mixing, torch.zeros(3).double())
        return float(1 - own.logs(torch.eye(3, dtype=torch.float64)).exp().diagonal().mean())

    assert left(sharp) < 0.06
    assert left(open_fit) > 0.3


def test_the_sharpness_has_a_bound(monkeypatch):
    # Labels drawn with a sharpness of 40.
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randn(3000, 2, generator=generator, dtype=torch.float64)
    logs = Calibration(1.0, 40.0, 2 * torch.eye(2).double(), torch.zeros(2).double()).logs(predictions)
    samples = Labelled(predictions, torch.multinomial(logs.exp(), 1, generator=generator)[:, 0])
    bound = fit_shape(samples, RANDOM, math.inf).model.calibration.sharpness
    monkeypatch.setattr(module, "_SHARP_STRENGTH", 0.0)
    free = fit_shape(samples, RANDOM, math.inf).model.calibration.sharpness
    assert bound < 6
    assert free > 10


def test_a_part_of_the_samples_is_chosen_by_rows():
    samples = samples_of(10, 3, one_rate(0.2, 3))
    part = samples.part(torch.tensor([7, 2]))
    assert part.k == 3
    assert torch.equal(part.predictions, samples.predictions[[7, 2]])
    assert torch.equal(part.labels, samples.labels[[7, 2]])


def test_what_a_label_says_follows_bayes_and_is_a_mean_over_the_doubt():
    predictions, _, labels = planted(200, 4, pairs(4, 0.2), sharpness=0.4)
    model = fit_shape(Labelled(predictions, labels), PEOPLE, 30.0).model
    logs = model.calibration.logs(predictions)
    joint = model.mistakes.joint(logs, labels).exp()
    plain = joint / joint.sum(dim=1, keepdim=True)
    torch.testing.assert_close(model.posterior(predictions, labels), plain)
    torch.testing.assert_close(model.posterior_of(logs, labels), plain)
    torch.testing.assert_close(model.log_likelihood(predictions, labels), joint.sum(dim=1).log())
    doubtful = NoiseModel(model.calibration, model.mistakes, ((0.3, -1.0), (0.7, 0.5)))
    parts = []
    for weight, move in doubtful.doubt:
        moved = model.mistakes.moved(move).joint(logs, labels).exp()
        parts.append(weight * moved / moved.sum(dim=1, keepdim=True))
    torch.testing.assert_close(doubtful.posterior(predictions, labels), parts[0] + parts[1])
    torch.testing.assert_close(
        doubtful.log_likelihood(predictions, labels), model.log_likelihood(predictions, labels)
    )
    assert doubtful.posterior(predictions.float(), labels).dtype == torch.float64


def test_a_model_moves_to_a_device():
    calibration = Calibration(1.0, 1.0, torch.eye(2).double(), torch.zeros(2).double())
    model = NoiseModel(calibration, Mistakes.even(PEOPLE, 0.1, 2), ((0.5, 0.0), (0.5, 1.0)))
    moved = model.to(torch.device("meta"))
    assert {moved.mistakes.rates.device.type, moved.calibration.mixing.device.type} == {"meta"}
    assert moved.doubt == model.doubt
    predictions, labels = torch.zeros(3, 2, device="meta"), torch.zeros(3, dtype=torch.int64, device="meta")
    assert moved.posterior(predictions, labels).shape == (3, 2)
