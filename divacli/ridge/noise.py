"""Which labels are wrong: a model of how given labels come about, fitted to leave-one-out predictions.

    p(y | f) = sum_c q(c | f) p(y | c, f)

A sample has a true class c, which its left-out prediction f makes more or less likely
(`divacli.ridge.class_probability`), and was given the label y (`divacli.ridge.mistakes`). What the label says
of the true class follows by Bayes' rule. `divacli.ridge.noise_fit` has the likelihood and its priors.

Three things are not fitted:

1. *The shape of the mistakes.* Labels that are moved at random, people's mistakes, and labels that the
   network has learned look alike in part. `LEARNED` is taken where it explains the labels as well as the
   others do and finds more of them wrong, all predictions being assumed sharp; else `PEOPLE`, unless `RANDOM`
   is likelier, or mistakes are of one rate or in pairs of classes.
2. *The strength of the prior of the pairs*, by the likelihood of held-out labels. One number a pair of
   classes is right where labels are confused in pairs, and too many where any label can become any other.
3. *The rate* is not chosen where the data leave it open: probabilities are a mean over it.

The interval holds the rates of all choices that the labels do not rule out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.parallel import one_thread
from divacli.ridge.class_probability import Calibration
from divacli.ridge.folds import split_in_folds
from divacli.ridge.mistakes import LEARNED, PEOPLE, RANDOM, Mistakes, Shape
from divacli.ridge.noise_fit import Fitted, Labelled, NoiseModel, fit_shape

STRENGTHS = (math.inf, 300.0, 100.0, 30.0, 10.0)
"""Pseudo-counts of the prior of a class that are tried: from one rate to nearly free pairs."""

FIT_VALUES, FIT_ROWS = 400_000, 20_000
"""Predictions (rows x classes) and rows that the model is fitted to, at the most."""

CHOICE_VALUES, CHOICE_ROWS = 120_000, 5_000
"""Predictions and rows by which shape and strength are chosen, at the most."""

_OF_PEOPLE = 300.0
"""Strength for people's mistakes, unless another one is clearly better."""

_TIE = 1.0
"""Nats by which `RANDOM` must be likelier than `PEOPLE` to be taken."""

_RULED_OUT = 4.0
"""Nats by which a shape must be less likely to be left out of the interval."""

_AS_GOOD = 0.0013
"""Nats a sample by which `LEARNED` may be less likely than the others: 4 in 3,000 samples."""

_CLEARLY = 3.0
_MORE_WRONG = (0.06, 0.02)
"""Share of labels that `LEARNED` must find wrong beyond the others: where it is as likely, and where it is
likelier by more than `_CLEARLY` nats."""

_ENOUGH = 1000
"""Samples below which nobody can tell whether labels were learned."""

_IN_PAIRS = 100.0
"""Strength below which mistakes are in pairs of classes, which a network that has learned them looks like."""

_FAR_BETTER = 3.0
"""Standard errors by which such mistakes must explain held-out labels better than learned ones do."""

_WEAKER = 2.0
"""Standard errors by which a weaker prior than the usual one must be better for people's mistakes."""

_PAIRS_WIDER = 3.0
"""Factor of the standard error where mistakes are in pairs: those are estimated as well. It was chosen on the
cells of `benchmarks.noise_rate`."""

_CLOSE = 0.5
"""Standard errors within which a stronger prior is as good as the best one."""

_DEVIATIONS = 1.96
"""Standard errors to either side of a 95 % interval."""

_FEW = 0.15
"""Standard error of the log-odds of the rate from which on probabilities are a mean over it."""


@dataclass(frozen=True)
class NoiseFit:
    """A fitted model, how it was chosen, and how sure the share of wrong labels is.

    Attributes:
        model: The model.
        rate: Share of labels that are wrong: the mean over the samples of the probability.
        interval: What the rate lies in with 95 %, by all choices that the labels do not rule out.
        shape: Who made the mistakes, by assumption.
        strength: Pseudo-counts of the prior of each class; infinite: one rate for all mistakes.
        held_out: Mean log-likelihood of held-out labels, in nats, by strength in the order of trial.
        confused: Share of the samples whose true class the features themselves get wrong, as expected.
    """

    model: NoiseModel
    rate: float
    interval: tuple[float, float]
    shape: Shape
    strength: float
    held_out: tuple[float, ...]
    confused: float

    @property
    def learned(self) -> bool:
        """Whether the network seems to have learned these labels, wrong ones included."""
        return self.shape == LEARNED


def noise_rows(order: Tensor, n_classes: int) -> Tensor:
    """Evenly spaced samples to fit the model to, (m,) row numbers in the order that they are drawn in.

    Args:
        order: (n,) row numbers of all samples in an order that does not depend on how they are stored.
        n_classes: k.
    """
    return order[_spaced(len(order), min(FIT_ROWS, FIT_VALUES // n_classes))]


def fit_noise(
    predictions: Tensor,
    labels: Tensor,
    *,
    groups: Tensor | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> NoiseFit:
    """Choose and fit the model.

    Args:
        predictions: (m, k) left-out predictions, k >= 2.
        labels: (m,) int64 given labels.
        groups: (m,) int64 numbers of samples that stay in one half.
        strengths: To choose from, in descending order, the first one infinite.
        seed: Of the halves by which the strength is chosen.

    Returns:
        The fit; without a sample one by which every label is right, and an interval from 0 to 1.
    """
    k = predictions.shape[1]
    if len(labels) == 0:
        right = Calibration(1.0, 1.0, 4 * torch.eye(k).double(), torch.zeros(k).double())
        model = NoiseModel(right, Mistakes.even(RANDOM, 0.0, k))
        return NoiseFit(model, 0.0, (0.0, 1.0), RANDOM, math.inf, (), 0.0)
    groups = torch.arange(len(labels)) if groups is None else groups
    everything = Labelled(predictions.double(), labels)
    few = _spaced(len(labels), min(CHOICE_ROWS, CHOICE_VALUES // k))
    samples = everything if len(few) == len(labels) else everything.part(few)
    with one_thread():
        choice = _chosen(samples, groups[few], strengths, seed)
        model = choice.fitted.model
        if samples is not everything:
            model = fit_shape(
                everything, choice.shape, choice.strength, sharp=choice.sharp, start=choice.fitted.point
            ).model
        model, doubts = _doubtful(model, everything, groups)
    wrong = _wrong(model, everything)
    rate, spread = float(wrong.mean()), _DEVIATIONS * _standard_error(wrong, groups)
    if choice.strength < _IN_PAIRS:
        spread *= _PAIRS_WIDER
    low = min(min(rate, *choice.rates) - spread, doubts[0])
    # Less than one label is none.
    low = low if low * len(wrong) >= 1 else 0.0
    high = min(1.0, max(rate, *choice.rates) + spread)
    before = model.calibration.logs(everything.predictions)
    return NoiseFit(
        model,
        rate,
        (low, max(high, doubts[1])),
        choice.shape,
        choice.strength,
        choice.held_out,
        float(1 - before.max(dim=1).values.exp().mean()),
    )


@dataclass(frozen=True)
class _Choice:
    """Shape and strength, and what else is possible.

    Attributes:
        shape: Chosen.
        sharp: Whether the predictions are assumed to be sharp.
        strength: Chosen.
        fitted: To the samples of the choice.
        rates: Shares of wrong labels by all choices that the labels do not rule out.
        held_out: As of `NoiseFit`.
    """

    shape: Shape
    sharp: bool
    strength: float
    fitted: Fitted
    rates: tuple[float, ...]
    held_out: tuple[float, ...]


class _Trials:
    """Fits to the samples of the choice, each made once.

    Args:
        samples: Of the choice.
    """

    def __init__(self, samples: Labelled) -> None:
        self.n = len(samples.labels)
        self._samples, self._fits = samples, dict[tuple[Shape, float, bool], Fitted]()

    def __call__(self, shape: Shape, strength: float, *, sharp: bool = False) -> Fitted:
        """Fit one choice; from few mistakes and from many where predictions are assumed to be sharp."""
        key = shape, strength, sharp
        if key not in self._fits:
            rates = (0.1, 0.3) if shape == LEARNED else (0.1,)
            fits = [fit_shape(self._samples, shape, strength, sharp=sharp, rate=rate) for rate in rates]
            self._fits[key] = max(fits, key=lambda fit: fit.value)
        return self._fits[key]

    def rate(self, fitted: Fitted) -> float:
        """Share of wrong labels."""
        return float(_wrong(fitted.model, self._samples).mean())


def _chosen(samples: Labelled, groups: Tensor, strengths: Sequence[float], seed: int) -> _Choice:
    trials = _Trials(samples)
    learned = len(samples.labels) >= _ENOUGH and _is_learned(trials, math.inf, _MORE_WRONG)
    shape = LEARNED if learned else _likelier(trials, strengths[min(1, len(strengths) - 1)])
    halves = _Halves(samples, groups, seed)
    held_out = halves.likelihoods(shape, strengths, sharp=learned)
    if shape != RANDOM:
        # What looks like these may be mistakes in few pairs, which no strong prior shows.
        pairs = halves.likelihoods(RANDOM, strengths, sharp=False)
        gain = pairs[_best(pairs)], held_out[_best(held_out)]
        if _strength(RANDOM, pairs) < _IN_PAIRS and _better(*gain, _FAR_BETTER):
            learned, shape, held_out = False, RANDOM, pairs
    strength = _strength(shape, held_out)
    if strength < _IN_PAIRS:
        # Mistakes in pairs look like learned labels while one rate is to explain them.
        shape = RANDOM
    elif learned and math.isfinite(strength):
        shape = LEARNED if _is_learned(trials, strength, _MORE_WRONG[1:]) else _likelier(trials, strength)
    elif not learned:
        shape = _likelier(trials, strength) if math.isfinite(strength) else RANDOM
    sharp = shape == LEARNED
    fitted = trials(shape, strength, sharp=sharp)
    best = held_out[_best(held_out)]
    rates = [found.rate for found in held_out.values() if not _better(best, found)]
    rates += _assumed(trials, strength)
    if sharp:
        rates.append(float((samples.predictions.argmax(dim=1) != samples.labels).double().mean()))
    means = tuple(found.mean for found in held_out.values())
    return _Choice(shape, sharp, strength, fitted, tuple(rates), means)


def _assumed(trials: _Trials, strength: float) -> list[float]:
    """Shares of wrong labels under all assumptions that the labels do not rule out."""
    usual = min(strength, _OF_PEOPLE)
    random, people = trials(RANDOM, usual), trials(PEOPLE, usual)
    if random.value > people.value + _RULED_OUT:
        return []
    fits = [random, people, trials(LEARNED, usual, sharp=True)]
    if strength >= _IN_PAIRS:
        # What looks like confused pairs may be the features' own confusion.
        fits.append(trials(RANDOM, math.inf))
    return [trials.rate(fit) for fit in fits]


def _is_learned(trials: _Trials, strength: float, more_wrong: Sequence[float]) -> bool:
    """Whether learned labels explain these as well as any others do, and more of them are wrong then."""
    own, *others = (trials(shape, strength, sharp=True) for shape in (LEARNED, RANDOM, PEOPLE))
    gain = own.value - max(other.value for other in others)
    more = trials.rate(own) - max(trials.rate(other) for other in others)
    least = more_wrong[-1] if gain > _CLEARLY else more_wrong[0]
    return more > least and gain > -_AS_GOOD * trials.n


def _likelier(trials: _Trials, strength: float) -> Shape:
    """People's mistakes, unless labels were clearly moved at random."""
    return PEOPLE if trials(PEOPLE, strength).value > trials(RANDOM, strength).value - _TIE else RANDOM


def _strength(shape: Shape, held_out: dict[float, _HeldOut]) -> float:
    """The strength that held-out labels ask for."""
    best = _best(held_out)
    if shape == PEOPLE and _OF_PEOPLE in held_out:
        usual = held_out[_OF_PEOPLE]
        if _better(held_out[best], usual, _WEAKER):
            return best
        return math.inf if _better(held_out[math.inf], usual) else _OF_PEOPLE
    return next(strength for strength in held_out if not _better(held_out[best], held_out[strength], _CLOSE))


def _best(held_out: dict[float, _HeldOut]) -> float:
    """The strength under which held-out labels are likeliest."""
    return max(held_out, key=lambda strength: held_out[strength].mean)


@dataclass(frozen=True)
class _HeldOut:
    """Held-out labels under one strength.

    Attributes:
        likelihood: (m,) log-likelihood of each label, in nats.
        rate: Share of wrong labels.
    """

    likelihood: Tensor
    rate: float

    @property
    def mean(self) -> float:
        """Mean log-likelihood."""
        return float(self.likelihood.mean())


class _Halves:
    """Two halves of the samples, each predicted by the model of the other one.

    Args:
        samples: Of the choice.
        groups: (m,) int64 numbers of samples that stay in one half.
        seed: Of the halves.
    """

    def __init__(self, samples: Labelled, groups: Tensor, seed: int) -> None:
        n = len(samples.labels)
        together = groups if bool((groups.sort().values.diff() == 0).any()) else None
        half = split_in_folds(samples.labels, torch.arange(n), seed, 2, together)
        self._samples = samples
        self._halves = [((half != side).nonzero()[:, 0], (half == side).nonzero()[:, 0]) for side in (0, 1)]

    def likelihoods(self, shape: Shape, strengths: Sequence[float], *, sharp: bool) -> dict[float, _HeldOut]:
        """Held-out labels by strength; two worse than the best end the search."""
        found: dict[float, _HeldOut] = {}
        for strength in strengths:
            likelihood = torch.zeros(len(self._samples.labels), dtype=torch.float64)
            rates = []
            # People's mistakes are never of one rate.
            tried = RANDOM if shape == PEOPLE and math.isinf(strength) else shape
            for rest, held in self._halves:
                # Half of the samples, so half of the pseudo-counts.
                model = fit_shape(self._samples.part(rest), tried, strength / 2, sharp=sharp).model
                part = self._samples.part(held)
                likelihood[held] = model.log_likelihood(part.predictions, part.labels)
                rates.append(float(_wrong(model, part).sum()))
            found[strength] = _HeldOut(likelihood, sum(rates) / len(likelihood))
            best = _best(found)
            # Where all are alike, weaker ones are tried as well.
            if list(found).index(best) < len(found) - 2 and _better(found[best], found[strength]):
                break
        return found


def _better(one: _HeldOut, other: _HeldOut, errors: float = 1.0) -> bool:
    """Whether the mean is larger by more than so many standard errors of the difference."""
    gain = one.likelihood - other.likelihood
    return float(gain.mean()) > errors * float(gain.std(correction=0)) / math.sqrt(len(gain))


def _doubtful(model: NoiseModel, samples: Labelled, groups: Tensor) -> tuple[NoiseModel, tuple[float, float]]:
    """The model as a mean over the rates that the data allow, and the smallest and largest of these.

    Log-odds of mistakes are equally likely beforehand, from half a wrong label in all samples upwards.
    """
    wrong = _wrong(model, samples)
    rate = float(wrong.mean())
    least = math.log(0.5 / len(wrong))
    odds = float(model.mistakes.rates.mean())
    error = _standard_error(wrong, groups)
    if odds > least and 0 < error < _FEW * rate * (1 - rate):
        return model, (rate, rate)
    logs = model.calibration.logs(samples.predictions)
    moves = torch.linspace(least, max(1.0, odds), 33, dtype=torch.float64) - odds
    values, rates = [], []
    for move in moves.tolist():
        joint = model.mistakes.moved(move).joint(logs, samples.labels)
        values.append(torch.logsumexp(joint, dim=1).sum())
        own = torch.softmax(joint, dim=1).gather(1, samples.labels[:, None])
        rates.append(float(1 - own.mean()))
    weights = torch.softmax(torch.stack(values), dim=0)
    kept = weights > weights.max() / 50
    doubt = zip((weights[kept] / weights[kept].sum()).tolist(), moves[kept].tolist(), strict=True)
    passed = weights.cumsum(0)
    low = rates[int((passed > 0.025).nonzero()[0, 0])]
    high = rates[int((passed >= 0.975 - 1e-9).nonzero()[0, 0])]
    return replace(model, doubt=tuple(doubt)), (low, high)


def _standard_error(wrong: Tensor, groups: Tensor) -> float:
    """Standard error of the rate, by the information that the labels hold on it (Louis 1982).

    With `w` the probability of each label being wrong, the score of the rate `p` is `(w - p) / (p (1 - p))`
    a sample: less than of labels known to be wrong or right by what is unknown of them.

    Args:
        wrong: (m,) `w`.
        groups: (m,) int64; scores of one group go together.
    """
    rate = wrong.mean()
    number = torch.searchsorted(groups.sort().values, groups)
    scores = torch.zeros(len(wrong), dtype=torch.float64).index_add_(0, number, wrong - rate)
    information = (wrong - rate).square().sum()
    if information <= 0:
        return 0.0
    return float(rate * (1 - rate) * scores.square().sum().sqrt() / information)


def _wrong(model: NoiseModel, samples: Labelled) -> Tensor:
    """Probability of each label being wrong, (m,)."""
    return 1 - model.posterior(samples.predictions, samples.labels).gather(1, samples.labels[:, None])[:, 0]


def _spaced(n: int, most: int) -> Tensor:
    return torch.arange(0, n, max(1, -(-n // max(1, most))))
