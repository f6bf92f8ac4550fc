"""Choice of the label-noise model: who made the mistakes, and how strong the prior of the pairs is.

`LEARNED` is taken where it explains the labels as well as the others do and finds more of them wrong, all
predictions being assumed sharp; else `PEOPLE`, unless `RANDOM` is likelier, or mistakes are of one rate or in
pairs of classes.

The strength is chosen by the likelihood of held-out labels. One number a pair of classes is right where
labels are confused in pairs, and too many where any label can become any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.ridge.fit.folds import split_in_folds
from divacli.ridge.labels.mistakes import LEARNED, PEOPLE, RANDOM, Shape
from divacli.ridge.labels.noise_fit import Fitted, Labelled, fit_shape

STRENGTHS = (math.inf, 300.0, 100.0, 30.0, 10.0)
"""Pseudo-counts of the prior of a class that are tried: from one rate to nearly free pairs."""

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

IN_PAIRS = 100.0
"""Strength below which mistakes are in pairs of classes, which a network that has learned them looks like."""

_FAR_BETTER = 3.0
"""Standard errors by which such mistakes must explain held-out labels better than learned ones do."""

_WEAKER = 2.0
"""Standard errors by which a weaker prior than the usual one must be better for people's mistakes."""

_CLOSE = 0.5
"""Standard errors within which a stronger prior is as good as the best one."""


@dataclass(frozen=True)
class Choice:
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


class Trials:
    """Fits to the samples of the choice, each made once.

    Args:
        samples: Of the choice.
    """

    def __init__(self, samples: Labelled) -> None:
        self.n, self.samples = len(samples.labels), samples
        self._fits: dict[tuple[Shape, float, bool], Fitted] = {}

    def __call__(self, shape: Shape, strength: float, *, sharp: bool = False) -> Fitted:
        """Fit one choice; from few mistakes and from many where predictions are assumed to be sharp."""
        key = shape, strength, sharp
        if key not in self._fits:
            rates = (0.1, 0.3) if shape == LEARNED else (0.1,)
            fits = [fit_shape(self.samples, shape, strength, sharp=sharp, rate=rate) for rate in rates]
            self._fits[key] = max(fits, key=lambda fit: fit.value)
        return self._fits[key]

    def rate(self, fitted: Fitted) -> float:
        """Share of wrong labels."""
        return float(fitted.model.wrong(self.samples).mean())


def choose(trials: Trials, groups: Tensor, strengths: Sequence[float], seed: int) -> Choice:
    """Choose shape and strength.

    Args:
        trials: Fits to the samples of the choice.
        groups: (m,) int64 numbers of samples that stay in one half.
        strengths: To choose from, in descending order, the first one infinite.
        seed: Of the halves by which the strength is chosen.
    """
    samples = trials.samples
    learned = trials.n >= _ENOUGH and _is_learned(trials, math.inf, _MORE_WRONG)
    shape = LEARNED if learned else _likelier(trials, strengths[min(1, len(strengths) - 1)])
    halves = Halves(samples, groups, seed)
    held_out = halves.likelihoods(shape, strengths, sharp=learned)
    if shape != RANDOM:
        # What looks like these may be mistakes in few pairs, which no strong prior shows.
        pairs = halves.likelihoods(RANDOM, strengths, sharp=False)
        gain = pairs[_best(pairs)], held_out[_best(held_out)]
        if _strength(RANDOM, pairs) < IN_PAIRS and _better(*gain, _FAR_BETTER):
            learned, shape, held_out = False, RANDOM, pairs
    strength = _strength(shape, held_out)
    if strength < IN_PAIRS:
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
    return Choice(shape, sharp, strength, fitted, tuple(rates), means)


def _assumed(trials: Trials, strength: float) -> list[float]:
    """Shares of wrong labels under all assumptions that the labels do not rule out."""
    usual = min(strength, _OF_PEOPLE)
    random, people = trials(RANDOM, usual), trials(PEOPLE, usual)
    if random.value > people.value + _RULED_OUT:
        return []
    fits = [random, people, trials(LEARNED, usual, sharp=True)]
    if strength >= IN_PAIRS:
        # What looks like confused pairs may be the features' own confusion.
        fits.append(trials(RANDOM, math.inf))
    return [trials.rate(fit) for fit in fits]


def _is_learned(trials: Trials, strength: float, more_wrong: Sequence[float]) -> bool:
    """Whether learned labels explain these as well as any others do, and more of them are wrong then."""
    own, *others = (trials(shape, strength, sharp=True) for shape in (LEARNED, RANDOM, PEOPLE))
    gain = own.value - max(other.value for other in others)
    more = trials.rate(own) - max(trials.rate(other) for other in others)
    least = more_wrong[-1] if gain > _CLEARLY else more_wrong[0]
    return more > least and gain > -_AS_GOOD * trials.n


def _likelier(trials: Trials, strength: float) -> Shape:
    """People's mistakes, unless labels were clearly moved at random."""
    return PEOPLE if trials(PEOPLE, strength).value > trials(RANDOM, strength).value - _TIE else RANDOM


def _strength(shape: Shape, held_out: dict[float, HeldOut]) -> float:
    """The strength that held-out labels ask for."""
    best = _best(held_out)
    if shape == PEOPLE and _OF_PEOPLE in held_out:
        usual = held_out[_OF_PEOPLE]
        if _better(held_out[best], usual, _WEAKER):
            return best
        return math.inf if _better(held_out[math.inf], usual) else _OF_PEOPLE
    return next(strength for strength in held_out if not _better(held_out[best], held_out[strength], _CLOSE))


def _best(held_out: dict[float, HeldOut]) -> float:
    """The strength under which held-out labels are likeliest."""
    return max(held_out, key=lambda strength: held_out[strength].mean)


@dataclass(frozen=True)
class HeldOut:
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


class Halves:
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

    def likelihoods(self, shape: Shape, strengths: Sequence[float], *, sharp: bool) -> dict[float, HeldOut]:
        """Held-out labels by strength; two worse than the best end the search."""
        found: dict[float, HeldOut] = {}
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
                rates.append(float(model.wrong(part).sum()))
            found[strength] = HeldOut(likelihood, sum(rates) / len(likelihood))
            best = _best(found)
            # Where all are alike, weaker ones are tried as well.
            if list(found).index(best) < len(found) - 2 and _better(found[best], found[strength]):
                break
        return found


def _better(one: HeldOut, other: HeldOut, errors: float = 1.0) -> bool:
    """Whether the mean is larger by more than so many standard errors of the difference."""
    gain = one.likelihood - other.likelihood
    return float(gain.mean()) > errors * float(gain.std(correction=0)) / math.sqrt(len(gain))
