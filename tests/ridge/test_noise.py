"""Choice of the label-noise model: what was planted is found again, and the interval holds it."""

from __future__ import annotations

import math

import pytest
import torch

from divacli.ridge import NoiseFit, RidgeTask, decompose, fit_noise, loo_predictions, noise_rows
from divacli.ridge.labels import noise as module
from divacli.ridge.labels import noise_choice
from divacli.ridge.labels.class_probability import Calibration, scale_of
from divacli.ridge.labels.mistakes import LEARNED, PEOPLE, RANDOM, Mistakes, Shape, one_rate
from divacli.ridge.labels.noise_fit import Labelled, fit_shape


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


def made_by(
    shape: Shape, n: int, k: int, rate: float, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions that confuse a sixth of the samples, and true classes and labels drawn by the model."""
    generator = torch.Generator().manual_seed(seed)
    looks = torch.randint(0, k, (n,), generator=generator)
    predictions = 0.25 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    predictions += 0.6 * torch.nn.functional.one_hot(looks, k)
    mixing, bias = 4 * torch.eye(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64)
    logs = Calibration(scale_of(predictions), 1.0, mixing, bias).logs(predictions)
    truth = torch.multinomial(logs.exp(), 1, generator=generator)[:, 0]
    mistakes = Mistakes.even(shape, rate, k)
    every = [(mistakes.joint(logs, torch.full((n,), y)) - logs).exp() for y in range(k)]
    given = torch.stack(every, dim=2)[torch.arange(n), truth]
    return predictions, truth, torch.multinomial(given, 1, generator=generator)[:, 0]


def learned_by_heart(n: int, k: int, rate: float, pull: float, sharpness: float = 0.15):
    """Predictions that the given label has pulled towards itself."""
    predictions, truth, labels = planted(n, k, one_rate(rate, k), sharpness=sharpness)
    one_hot = torch.nn.functional.one_hot
    return predictions + pull * (one_hot(labels, k) - one_hot(truth, k)), truth, labels


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


def share_wrong(truth: torch.Tensor, labels: torch.Tensor) -> float:
    return float((labels != truth).double().mean())


def wrong_by(fit: NoiseFit, predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Probability of each label being wrong."""
    return 1 - fit.model.posterior(predictions, labels)[torch.arange(len(labels)), labels]


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
@pytest.mark.parametrize("k", [2, 5])
def test_the_noise_that_was_planted_is_found(kind, k):
    predictions, truth, labels = planted(1200, k, KINDS[kind](k))
    fit = fit_noise(predictions, labels)
    wrong = share_wrong(truth, labels)
    assert fit.rate == pytest.approx(wrong, abs=0.02)
    low, high = fit.interval
    assert low - 0.005 <= wrong <= high + 0.005
    assert low <= fit.rate <= high
    assert high - low < (0.2 if kind in ("pairs", "one-sided") else 0.08)
    assert not fit.learned
    f1, false_alarms, right = judged(fit, predictions, truth, labels)
    assert false_alarms < 0.02
    if wrong:
        assert fit.shape == RANDOM
        assert f1 > 0.9
        assert right > 0.95


@pytest.mark.parametrize("shape", [RANDOM, PEOPLE], ids=lambda shape: shape.name)
def test_who_made_the_mistakes_is_found_and_the_interval_holds_their_share(shape):
    for seed in range(3):
        predictions, truth, labels = made_by(shape, 1500, 4, 0.2, seed)
        fit = fit_noise(predictions, labels)
        assert fit.shape == shape
        wrong = share_wrong(truth, labels)
        assert fit.rate == pytest.approx(wrong, abs=0.06)
        assert fit.interval[0] <= wrong <= fit.interval[1]
        assert fit.confused == pytest.approx(0.16, abs=0.05)


@pytest.mark.parametrize("pull", [0.1])
def test_labels_that_the_network_has_learned_are_found_again(pull):
    predictions, truth, labels = learned_by_heart(1500, 3, 0.25, pull)
    fit = fit_noise(predictions, labels)
    assert fit.learned
    assert fit.shape == LEARNED
    wrong = share_wrong(truth, labels)
    low, high = fit.interval
    assert low <= wrong <= high + 0.01
    # Without this assumption nothing would be wrong, and nobody can exclude that.
    assert low < 0.02
    contradicted = float((predictions.argmax(dim=1) != labels).double().mean())
    assert high >= contradicted
    f1, false_alarms, _ = judged(fit, predictions, truth, labels)
    assert f1 > 0.9
    assert false_alarms < 0.01


def test_learned_labels_may_have_pairs_of_usual_strength():
    predictions, truth, labels = learned_by_heart(1000, 3, 0.25, 0.2, sharpness=0.08)
    fit = fit_noise(predictions, labels, strengths=(300.0,))
    assert fit.learned
    assert fit.strength == 300
    assert judged(fit, predictions, truth, labels)[0] > 0.9
    # Of fewer, nobody can tell.
    assert not fit_noise(predictions[1:], labels[1:]).learned


def test_labels_learned_as_assumed_have_an_interval_that_holds_their_share():
    for k, seed in ((6, 1),):
        predictions, truth, labels = made_by(LEARNED, 1200, k, 0.2, seed)
        fit = fit_noise(predictions, labels)
        assert fit.learned
        wrong = share_wrong(truth, labels)
        assert fit.rate == pytest.approx(wrong, abs=0.06)
        assert fit.interval[0] < 0.05 < wrong <= fit.interval[1]


def test_probabilities_are_frequencies():
    predictions, truth, labels = made_by(RANDOM, 4000, 4, 0.2)
    fit = fit_noise(predictions, labels)
    probability, wrong = wrong_by(fit, predictions, labels), (labels != truth).double()
    for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (probability >= low) & (probability < high)
        error = float((wrong[inside].var() / inside.sum()).sqrt())
        assert float(wrong[inside].mean() - probability[inside].mean()) == pytest.approx(0, abs=4 * error)


def test_mistakes_of_one_class_of_two_are_not_taken_for_learned_labels():
    """One rate does not explain them, and learned labels seem to: held-out labels tell."""
    for n, sharpness in ((300, 0.3), (1200, 0.15)):
        predictions, truth, labels = planted(n, 2, one_sided(2, 0.4), sharpness=sharpness)
        fit = fit_noise(predictions, labels)
        assert not fit.learned
        assert fit.rate == pytest.approx(share_wrong(truth, labels), abs=0.02)
        assert judged(fit, predictions, truth, labels)[0] > 0.8


def test_the_prior_is_as_strong_as_the_noise_is_simple():
    uniform = fit_noise(*planted(1500, 6, one_rate(0.2, 6))[::2])
    systematic = fit_noise(*planted(1500, 6, pairs(6, 0.25))[::2])
    assert uniform.strength >= 300
    assert systematic.strength <= 30
    off = pairs(6, 1.0) > 0.5
    assert float(systematic.model.mistakes.pairs[off].min()) > 0.8
    # Neither tries more than two strengths beyond its best one.
    for fit in (uniform, systematic):
        assert len(fit.held_out) - max(range(len(fit.held_out)), key=fit.held_out.__getitem__) - 1 <= 2
    assert len(uniform.held_out) < len(noise_choice.STRENGTHS) == len(systematic.held_out)


def test_held_out_labels_are_predicted_by_the_other_half():
    predictions, _, labels = planted(300, 3, one_rate(0.2, 3))
    samples = Labelled(predictions, labels)
    halves = noise_choice.Halves(samples, torch.arange(300), 0)
    found = halves.likelihoods(RANDOM, (math.inf, 30.0), sharp=False)
    expected = torch.zeros(300, dtype=torch.float64)
    (one, other), (again, back) = halves._halves
    assert torch.equal(one, back)
    assert torch.equal(other, again)
    assert sorted([*one.tolist(), *other.tolist()]) == list(range(300))
    for rest, held in ((one, other), (other, one)):
        model = fit_shape(samples.part(rest), RANDOM, 15.0).model
        expected[held] = model.log_likelihood(predictions[held], labels[held])
    torch.testing.assert_close(found[30.0].likelihood, expected)
    assert fit_noise(predictions, labels).held_out[0] == pytest.approx(found[math.inf].mean)
    # Groups stay in one half.
    groups = torch.arange(300) // 3
    for rest, held in noise_choice.Halves(samples, groups, 0)._halves:
        assert not set(groups[rest].tolist()) & set(groups[held].tolist())


def test_the_strength_is_the_largest_that_is_as_good_as_the_best():
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(100, generator=generator, dtype=torch.float64)
    spread = (spread - spread.mean()) / spread.std(correction=0)

    def held_out(found: dict[float, torch.Tensor]) -> dict[float, noise_choice.HeldOut]:
        return {strength: noise_choice.HeldOut(likelihood, 0.0) for strength, likelihood in found.items()}

    def likelihoods(*errors: float) -> dict[float, noise_choice.HeldOut]:
        """By strength: so many standard errors worse than the last, which is 0 everywhere."""
        strengths = (math.inf, 300.0, 100.0, 30.0)
        values = [-(spread + error / 10) * (error > 0) for error in errors]
        return held_out(dict(zip(strengths, values, strict=True)))

    assert noise_choice._strength(RANDOM, likelihoods(0.6, 0.4, 0.2, 0.0)) == 300
    assert noise_choice._strength(RANDOM, likelihoods(0.4, 0.6, 0.2, 0.0)) == math.inf
    assert noise_choice._strength(RANDOM, likelihoods(2.0, 0.9, 0.6, 0.0)) == 30
    # Of people's mistakes the usual one, unless one rate is better or a weaker one clearly so.
    # Differences from 300 are in standard errors of their own.
    zero = torch.zeros(100, dtype=torch.float64)

    def people(even: float, usual: float, weak: float) -> float:
        """Standard errors by which two strengths are better than the usual one."""
        one, other = ((spread + error / 10) * (error != 0) for error in (even, weak))
        return noise_choice._strength(PEOPLE, held_out({math.inf: one, 300.0: zero + usual, 30.0: other}))

    assert people(0.9, 0.0, 0.0) == 300
    assert people(1.1, 0.0, 1.05) == math.inf
    assert people(1.1, 0.0, 2.5) == 30
    assert people(-3.0, 0.0, 1.9) == 300
    assert people(-3.0, 0.0, 2.1) == 30
    assert noise_choice._strength(PEOPLE, held_out({math.inf: spread, 30.0: spread})) == math.inf


def test_a_clean_set_has_few_labels_that_are_called_wrong():
    for seed in range(2):
        predictions, _, labels = planted(600, 4, torch.eye(4).double(), seed=seed, sharpness=0.2)
        fit = fit_noise(predictions, labels)
        assert fit.rate < 0.02
        assert fit.interval[0] < 0.002
        assert int((wrong_by(fit, predictions, labels) > 0.5).sum()) <= 5


@pytest.mark.parametrize(("k", "seed"), [(3, 0), (3, 2), (5, 3)])
def test_three_wrong_labels_of_three_hundred_are_among_the_first(k, seed):
    predictions, _, labels = planted(300, k, torch.eye(k).double(), seed=seed)
    rows = torch.tensor([17, 101, 233])
    labels[rows] = (labels[rows] + 1) % k
    fit = fit_noise(predictions, labels)
    wrong = wrong_by(fit, predictions, labels)
    assert set(rows.tolist()) <= set(wrong.argsort(descending=True)[:6].tolist())
    assert float(wrong[rows].min()) > 0.02
    assert fit.interval[0] <= 0.01 <= fit.interval[1]
    # A rate that so few labels leave open is not chosen.
    assert len(fit.model.doubt) > 1


def test_the_doubt_is_a_mean_over_the_rates_that_the_labels_allow():
    predictions, _, labels = planted(200, 3, one_rate(0.02, 3), sharpness=0.3)
    samples, groups = Labelled(predictions, labels), torch.arange(200)
    model = fit_shape(samples, RANDOM, math.inf).model
    doubtful, (low, high) = module._doubtful(model, samples, groups)
    weights, moves = torch.tensor(doubtful.doubt, dtype=torch.float64).T
    assert float(weights.sum()) == pytest.approx(1)
    assert len(weights) > 3
    # Weights are likelihoods, from half a wrong label in all samples to log-odds of 1.
    likelihoods = []
    odds = float(model.mistakes.rates[0])
    for move in moves.tolist():
        moved = Mistakes(RANDOM, model.mistakes.rates + move, model.mistakes.pairs)
        likelihoods.append(
            torch.logsumexp(moved.joint(model.calibration.logs(predictions), labels), dim=1).sum()
        )
    torch.testing.assert_close(weights, torch.softmax(torch.stack(likelihoods), dim=0))
    assert float(weights.min()) > float(weights.max()) / 50
    least, most = math.log(0.5 / 200), 1.0
    steps = (moves + odds - least) / (most - least) * 32
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
    assert float(steps.min()) >= 0
    assert 0 <= low < float(doubtful.wrong(samples).mean()) < high <= 1
    # With many wrong labels, there is none.
    predictions, _, labels = planted(1000, 3, one_rate(0.2, 3))
    samples, groups = Labelled(predictions, labels), torch.arange(1000)
    model = fit_shape(samples, RANDOM, math.inf).model
    certain, edges = module._doubtful(model, samples, groups)
    assert certain.doubt == ((1.0, 0.0),)
    assert edges == (pytest.approx(float(model.wrong(samples).mean())),) * 2


def test_the_interval_holds_all_choices_that_the_labels_do_not_rule_out():
    ruled_out = []
    for predictions, _, labels in (
        planted(400, 3, one_rate(0.2, 3)),
        made_by(PEOPLE, 400, 4, 0.2),
        learned_by_heart(1000, 3, 0.25, 0.15),
        made_by(RANDOM, 400, 3, 0.15, seed=1),
    ):
        fit = fit_noise(predictions, labels)
        samples = Labelled(predictions, labels)

        def rate(shape: Shape, strength: float, samples: Labelled = samples, *, sharp: bool = False) -> float:
            return noise_choice.Trials(samples).rate(
                noise_choice.Trials(samples)(shape, strength, sharp=sharp)
            )

        usual = min(fit.strength, 300.0)
        people, random = (fit_shape(samples, shape, usual).value for shape in (PEOPLE, RANDOM))
        possible = []
        if random <= people + 4:
            possible = [rate(RANDOM, usual), rate(PEOPLE, usual), rate(LEARNED, usual, sharp=True)]
            if fit.strength >= 100:
                possible += [rate(RANDOM, math.inf)]
        if fit.learned:
            possible += [float((predictions.argmax(dim=1) != labels).double().mean())]
        ruled_out.append(not possible)
        choice = noise_choice.choose(
            noise_choice.Trials(samples), torch.arange(len(labels)), noise_choice.STRENGTHS, 0
        )
        assert set(possible) <= set(choice.rates)
        assert fit.interval[0] <= min(*choice.rates, fit.rate)
        assert fit.interval[1] >= max(*choice.rates, fit.rate)
    assert ruled_out[0]
    assert not all(ruled_out)


def test_the_standard_error_is_that_of_a_share_where_labels_are_known_to_be_wrong():
    wrong = (torch.arange(400) % 5 == 0).double()
    expected = math.sqrt(0.2 * 0.8 / 400)
    assert module._standard_error(wrong, torch.arange(400)) == pytest.approx(expected)
    # Four copies of each say no more than one, whatever the groups are called.
    copies = (torch.arange(100) * 1000 - 7).repeat_interleave(4)
    copied = (torch.arange(100) % 5 == 0).double().repeat_interleave(4)
    assert module._standard_error(copied, copies) == pytest.approx(2 * expected)
    # Of what is half unknown, it is larger; where nothing differs, it cannot be told.
    assert module._standard_error(0.1 + wrong / 2, torch.arange(400)) > 1.5 * expected
    assert module._standard_error(torch.full((400,), 0.2).double(), torch.arange(400)) == 0


def test_the_interval_has_the_width_of_repeated_fits():
    rates, widths = [], []
    for seed in range(10):
        predictions, _, labels = planted(600, 3, one_rate(0.2, 3), seed=seed)
        fit = fit_noise(predictions, labels, strengths=(math.inf,))
        rates.append(fit.rate)
        widths.append((fit.interval[1] - fit.interval[0]) / 2 / 1.96)
    assert max(widths) < 2 * min(widths)
    assert 0.6 < float(torch.tensor(rates).std() / torch.tensor(widths).mean()) < 1.5


def test_the_interval_narrows_with_samples_and_widens_with_groups():
    predictions, _, labels = planted(1600, 3, one_rate(0.2, 3))

    def width(fit: NoiseFit) -> float:
        return fit.interval[1] - fit.interval[0]

    alone, few = fit_noise(predictions, labels), fit_noise(predictions[:200], labels[:200])
    assert width(few) > 1.5 * width(alone)
    # Every sample four times, as a group: no more is known than of one copy.
    copies = torch.arange(400).repeat_interleave(4)
    grouped = fit_noise(predictions[copies], labels[copies], groups=copies, strengths=(math.inf,))
    once = fit_noise(predictions[:400], labels[:400], strengths=(math.inf,))
    assert grouped.rate == pytest.approx(once.rate, abs=0.01)
    assert width(grouped) == pytest.approx(width(once), rel=0.25)


def test_the_fit_is_the_same_every_time_and_whatever_the_dtype():
    predictions, _, labels = planted(500, 3, one_rate(0.2, 3))
    first, again = fit_noise(predictions, labels), fit_noise(predictions, labels)
    assert (first.rate, first.interval, first.held_out) == (again.rate, again.interval, again.held_out)
    assert torch.equal(first.model.mistakes.pairs, again.model.mistakes.pairs)
    single = fit_noise(predictions.float(), labels)
    assert single.rate == pytest.approx(first.rate, abs=1e-4)


def test_classes_may_be_numbered_in_any_order_and_rows_stored_in_any():
    predictions, _, labels = planted(300, 3, one_sided(3, 0.3))
    classes = torch.tensor([2, 0, 1])  # the new class i is the old one classes[i]
    fit = fit_noise(predictions, labels)
    expected = fit.model.posterior(predictions, labels)
    renamed = fit_noise(predictions[:, classes], classes.argsort()[labels])
    assert renamed.shape == fit.shape
    found = renamed.model.posterior(predictions[:, classes], classes.argsort()[labels])
    torch.testing.assert_close(found, expected[:, classes], rtol=0, atol=0.01)
    # By another order the halves are other ones, so the strength may be another one.
    rows = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    for strengths in ((math.inf,), (30.0,)):
        before = fit_noise(predictions, labels, strengths=strengths)
        after = fit_noise(predictions[rows], labels[rows], strengths=strengths)
        assert (after.rate, after.shape) == (pytest.approx(before.rate, abs=1e-6), before.shape)
        torch.testing.assert_close(
            after.model.posterior(predictions, labels),
            before.model.posterior(predictions, labels),
            rtol=0,
            atol=1e-4,
        )


def test_of_many_samples_a_part_makes_the_choice_and_all_of_them_the_fit(monkeypatch):
    predictions, truth, labels = planted(1500, 3, pairs(3, 0.25))
    monkeypatch.setattr(module, "CHOICE_ROWS", 400)
    fit = fit_noise(predictions, labels)
    few = torch.arange(0, 1500, 4)
    part = fit_noise(predictions[few], labels[few])
    assert (fit.shape, fit.strength, fit.held_out) == (part.shape, part.strength, part.held_out)
    whole = fit_shape(Labelled(predictions, labels), fit.shape, fit.strength)
    torch.testing.assert_close(fit.model.mistakes.rates, whole.model.mistakes.rates, rtol=0, atol=0.1)
    assert fit.rate == pytest.approx(share_wrong(truth, labels), abs=0.01)
    # Of many classes fewer rows.
    monkeypatch.setattr(module, "CHOICE_VALUES", 900)
    again = fit_noise(predictions, labels)
    assert again.held_out == fit_noise(predictions[::5], labels[::5]).held_out


def test_classes_of_five_samples():
    predictions, truth, labels = planted(200, 40, one_rate(0.2, 40))
    fit = fit_noise(predictions, labels)
    assert fit.strength >= 300
    wrong = share_wrong(truth, labels)
    assert fit.rate == pytest.approx(wrong, abs=0.1)
    assert fit.interval[0] <= wrong <= fit.interval[1]
    assert judged(fit, predictions, truth, labels)[0] > 0.7


def test_hundreds_of_classes():
    predictions, truth, labels = planted(480, 120, one_rate(0.1, 120), sharpness=0.1)
    fit = fit_noise(predictions, labels, strengths=(math.inf, 100.0))
    assert fit.rate == pytest.approx(share_wrong(truth, labels), abs=0.02)
    assert judged(fit, predictions, truth, labels)[0] > 0.9


def test_a_class_of_one_sample_or_none():
    predictions, truth, labels = planted(1200, 2, one_rate(0.2, 2))
    # Classes 2 and 3 have no sample.
    generator = torch.Generator().manual_seed(1)
    silent = 0.15 * torch.randn(1200, 2, generator=generator, dtype=torch.float64)
    predictions = torch.cat([predictions, silent], dim=1)
    fit = fit_noise(predictions, labels)
    assert bool(torch.isfinite(fit.model.posterior(predictions, labels)).all())
    assert judged(fit, predictions, truth, labels)[0] > 0.9
    labels = labels.clone()
    labels[3] = 3
    fit = fit_noise(predictions, labels)
    posterior = fit.model.posterior(predictions, labels)
    assert bool(torch.isfinite(posterior).all())
    assert judged(fit, predictions, truth, labels)[0] > 0.9
    assert fit.interval[0] <= share_wrong(truth, labels) <= fit.interval[1]


@pytest.mark.parametrize(
    "predictions",
    [
        torch.zeros(8, 2),
        torch.eye(2).repeat(4, 1),
        -torch.ones(8, 2) * 1e6,
        torch.tensor([[1e9, -1e9], [0.1, 0.2]]).repeat(4, 1),
        torch.tensor([[1e-300, 0.0], [0.0, 1e-300]], dtype=torch.float64).repeat(4, 1),
    ],
)
def test_predictions_that_say_nothing_or_everything(predictions):
    labels = torch.tensor([0, 1] * 4)
    fit = fit_noise(predictions, labels)
    assert 0 <= fit.interval[0] <= fit.rate <= fit.interval[1] <= 1
    posterior = fit.model.posterior(predictions, labels)
    torch.testing.assert_close(posterior.sum(dim=1), torch.ones(8, dtype=torch.float64))
    # Of eight samples nobody knows.
    assert fit.interval[1] - fit.interval[0] > 0.3


@pytest.mark.parametrize("n", [1, 2])
def test_two_samples_are_enough(n):
    predictions, labels = torch.tensor([[0.9, 0.1], [0.2, 0.8]])[:n], torch.arange(n)
    fit = fit_noise(predictions, labels)
    assert 0 <= fit.interval[0] <= fit.rate <= fit.interval[1] <= 1
    assert bool(torch.isfinite(fit.model.posterior(predictions, labels)).all())
    together = fit_noise(predictions, labels, groups=torch.zeros(n, dtype=torch.int64))
    assert 0 <= together.rate <= 1


def test_without_samples_nothing_is_known():
    fit = fit_noise(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert (fit.rate, fit.interval, fit.shape, fit.confused) == (0.0, (0.0, 1.0), RANDOM, 0.0)
    assert float(fit.model.posterior(torch.ones(1, 3), torch.tensor([1]))[0, 1]) > 0.999


def test_many_mistakes_in_two_classes_are_found():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(2000) % 2
    features = torch.randn(2000, 8, generator=generator, dtype=torch.float64)
    features += 2.8 * torch.nn.functional.one_hot(truth, 8)
    flipped = torch.rand(2000, generator=generator) < 0.4
    labels = torch.where(flipped, 1 - truth, truth)
    task = RidgeTask(features, labels, 2, torch.ones(2000, dtype=torch.float64), dtype=torch.float64)
    predictions = loo_predictions(task, decompose(task).fit(10.0), torch.arange(2000))
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
    monkeypatch.setattr(module, "FIT_ROWS", 10)
    assert torch.equal(noise_rows(order, 10), order[::10])
    assert len(noise_rows(order[:0], 10)) == 0
