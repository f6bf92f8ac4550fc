"""Which labels are wrong: a model of how given labels come about, fitted to leave-one-out predictions.

    p(y | f) = sum_c q(c | f) M[c, y],   q(. | f) = softmax(L(f) Theta + b),   L(f) = log softplus(g f)

A sample has a true class c, which its left-out prediction f makes more or less likely, and was given the
label y by row c of the transition matrix `M`. What its label says of the true class follows by Bayes' rule.

Ridge predictions of one-hot labels are estimates of probabilities, with errors that make some of them
negative: `softplus` makes them positive, and the posterior is a power of them, not an exponential.

Labels alone do not tell a confusion of the annotators from one of the predictions. So the noise is fitted
first, with one inverse temperature for all classes (`Theta` a multiple of the identity); then the calibration
`Theta`, with the noise held fixed. Each is an expectation maximisation (`divacli.ridge.expectation`).

One entry of `M` a pair of classes is right where labels are confused in pairs, and far too many numbers where
any label can become any other. So every row has a Dirichlet prior around the matrix of one rate for all
mistakes; how strong it is, is chosen by the likelihood of held-out labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.ridge.expectation import (
    Calibration,
    Labelled,
    fit_calibration,
    fit_transition,
    joint_logs,
    one_rate,
)
from divacli.ridge.folds import split_in_folds

STRENGTHS = (math.inf, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)
"""Pseudo-counts of the prior of a row of `M` that are tried in turn: from one rate to nearly free rows."""

FIT_VALUES = 2_000_000
"""Predictions (rows x classes) that the model is fitted to, at the most."""

CHOICE_VALUES = 1_000_000
"""Predictions by which the strength is chosen and the interval found, at the most."""

_MOST_CALIBRATED = 100
"""Classes beyond which a calibration, k x k numbers, is not tried: it would be slow, and samples too few."""

_CLOSE = 0.5
"""Standard errors within which a stronger prior is as good as the best one."""

_DEVIATIONS = 1.96
"""Standard errors to either side of a 95 % interval."""

_SIMPLE = 1000.0
"""Strength from which on a model is one of one rate for all mistakes, more or less."""

_FIXED = 1e9
"""Pseudo-counts that leave the prior no room."""

_MANY_WRONG = 0.4
_LEAST_WRONG = 0.1
"""Share of wrong labels that a search for pairs begins with, at the least: what is impossible stays so."""


@dataclass(frozen=True)
class NoiseModel:
    """How given labels come about.

    Attributes:
        calibration: From left-out predictions to probabilities of the true class.
        transition: (k, k) float64 `M`: row c, column y is the probability of the label y where c is true.
    """

    calibration: Calibration
    transition: Tensor

    def posterior(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Probability (m, k) float64 of each class being the true one, given prediction and label.

        Args:
            predictions: (m, k) left-out predictions.
            labels: (m,) int64 given labels.
        """
        return self.posterior_of(self.calibration.logs(predictions.double()), labels)

    def posterior_of(self, logs: Tensor, labels: Tensor) -> Tensor:
        """As `posterior`, from the log-probabilities (m, k) before the label is looked at."""
        return torch.softmax(joint_logs(logs, self.transition, labels), dim=1)

    def log_likelihood(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """`log p(y | f)` of each sample, (m,) float64, in nats."""
        logs = self.calibration.logs(predictions.double())
        return torch.logsumexp(joint_logs(logs, self.transition, labels), dim=1)

    def to(self, device: torch.device) -> NoiseModel:
        """The same model on another device."""
        return NoiseModel(self.calibration.to(device), self.transition.to(device))


@dataclass(frozen=True)
class NoiseFit:
    """A fitted model, how it was chosen, and how sure the share of wrong labels is.

    Attributes:
        model: The model.
        rate: Share of labels that are wrong: the mean over the samples of the probability.
        interval: What the rate lies in with 95 %, as far as the draw of the samples and the choice among
            priors go; not what the model itself gets wrong.
        strength: Pseudo-counts of the prior of each row of `M`; infinite: one rate for all mistakes.
        held_out: Mean log-likelihood of held-out labels, in nats, for each of the strengths that were tried.
        likelihoods: Penalised log-likelihood after each step, of the noise and then of the calibration;
            neither falls.
    """

    model: NoiseModel
    rate: float
    interval: tuple[float, float]
    strength: float
    held_out: tuple[float, ...]
    likelihoods: tuple[tuple[float, ...], tuple[float, ...]]


def noise_rows(order: Tensor, n_classes: int) -> Tensor:
    """Evenly spaced samples to fit the model to, (m,) row numbers in the order that they are drawn in.

    Args:
        order: (n,) row numbers of all samples in an order that does not depend on how they are stored.
        n_classes: k.
    """
    return order[_spaced(len(order), FIT_VALUES // n_classes)]


def fit_noise(
    predictions: Tensor,
    labels: Tensor,
    *,
    groups: Tensor | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> NoiseFit:
    """Fit the model, its prior as strong as the likelihood of held-out labels asks for.

    Each of two halves of the samples is predicted by the model of the other one. Of the strengths whose
    likelihood is within half a standard error of the best, the largest is taken: labels are wrong in simple
    ways unless they say otherwise.

    Args:
        predictions: (m, k) left-out predictions.
        labels: (m,) int64 given labels.
        groups: (m,) int64 numbers of samples that stay in one half and are drawn together.
        strengths: To choose from, in descending order, the first one infinite.
        seed: Of the halves and of the interval.

    Returns:
        The fit; without a sample one by which every label is right, and an interval from 0 to 1.
    """
    if len(labels) == 0:
        nothing = Labelled.of(predictions, labels)
        right = NoiseModel(Calibration.of(nothing), one_rate(0.0, nothing.k))
        return NoiseFit(right, 0.0, (0.0, 1.0), math.inf, (), ((), ()))
    groups = torch.arange(len(labels)) if groups is None else groups
    everything = Labelled.of(predictions, labels)
    few = _spaced(len(labels), CHOICE_VALUES // predictions.shape[1])
    choice = _chosen(everything.part(few), groups[few], strengths, seed)
    model, likelihoods = _fitted(everything, choice.start, choice.strength)
    rates = [_rate(model, everything), *choice.rates]
    more: tuple[float, ...] = ()
    if choice.calibrated:
        model, more = _calibrated(everything, model)
        rates.append(_rate(model, everything))
    spread = _DEVIATIONS * _standard_error(_wrong(model, everything), groups)
    low, high = max(0.0, min(rates) - spread), min(1.0, max(rates) + spread)
    if choice.strength >= _SIMPLE:
        low, high = _profiled(everything.part(few), choice.start, low, high)
    rate = rates[-1] if more else rates[0]
    return NoiseFit(model, rate, (low, high), choice.strength, choice.held_out, (likelihoods, more))


def _profiled(samples: Labelled, start: NoiseModel, low: float, high: float) -> tuple[float, float]:
    """An interval of the rate widened to all rates whose likelihood is hardly less than that of the best.

    Where predictions say little, right labels that are hard to predict and wrong ones look the same.

    Args:
        samples: What is fitted.
        start: The model of one rate for all mistakes, fitted.
        low: Lower end.
        high: Upper end.
    """
    best = _log_likelihood(samples, start)
    highest = 1 - 1 / samples.k  # then labels say nothing

    def possible(rate: float) -> bool:
        return best - _log_likelihood(samples, _at_rate(samples, start, rate)) < _DEVIATIONS**2 / 2

    width = max(0.02, high - low)
    while low > 0 and possible(max(0.0, low - width)):
        low, width = max(0.0, low - width), 2 * width
    width = max(0.02, high - low)
    while high < highest and possible(min(highest, high + width)):
        high, width = min(highest, high + width), 2 * width
    return low, high


def _at_rate(samples: Labelled, start: NoiseModel, rate: float) -> NoiseModel:
    """The model of one rate for all mistakes that is given."""
    fixed = one_rate(rate, samples.k)
    calibration, _, _ = fit_transition(samples, start.calibration, fixed, base=fixed, strength=_FIXED)
    return NoiseModel(calibration, fixed)


def _log_likelihood(samples: Labelled, model: NoiseModel) -> float:
    return float(samples.weights @ model.log_likelihood(samples.predictions, samples.labels))


@dataclass(frozen=True)
class _Choice:
    """How strong the prior is, and whether the calibration is fitted.

    Attributes:
        start: The model of one rate for all mistakes.
        strength: Chosen.
        held_out: As of `NoiseFit`.
        rates: Shares of wrong labels by the strengths that held-out labels do not rule out.
        calibrated: Whether a calibration raises the likelihood of held-out labels.
    """

    start: NoiseModel
    strength: float
    held_out: tuple[float, ...]
    rates: tuple[float, ...]
    calibrated: bool


def _chosen(samples: Labelled, groups: Tensor, strengths: Sequence[float], seed: int) -> _Choice:
    n = len(samples.labels)
    start = _one_rate_model(samples)
    together = groups if bool((groups.sort().values.diff() == 0).any()) else None
    half = split_in_folds(samples.labels, torch.arange(n), seed, 2, together)
    halves = [((half != side).nonzero()[:, 0], (half == side).nonzero()[:, 0]) for side in (0, 1)]
    # Half of the samples, so half of the pseudo-counts.
    models: list[list[NoiseModel]] = []
    likelihoods: list[Tensor] = []
    for strength in strengths:
        models.append([_fitted(samples.part(rest), start, strength / 2)[0] for rest, _ in halves])
        likelihoods.append(_held_out(samples, halves, models[-1]))
        best = max(range(len(likelihoods)), key=lambda index: float(likelihoods[index].mean()))
        if len(likelihoods) - best > 2:
            break  # weaker priors have been worse twice
    possible = [not _better(likelihoods[best], likelihood) for likelihood in likelihoods]
    close = [not _better(likelihoods[best], likelihood, _CLOSE) for likelihood in likelihoods]
    chosen = close.index(True)
    calibrated = False
    if samples.k <= _MOST_CALIBRATED:
        mixed = [
            _calibrated(samples.part(rest), model)[0]
            for (rest, _), model in zip(halves, models[chosen], strict=True)
        ]
        calibrated = _better(_held_out(samples, halves, mixed), likelihoods[chosen])
    return _Choice(
        start,
        strengths[chosen],
        tuple(float(likelihood.mean()) for likelihood in likelihoods),
        tuple(
            sum(_rate(model, samples.part(held)) for (_, held), model in zip(halves, pair, strict=True)) / 2
            for pair, within in zip(models, possible, strict=True)
            if within
        ),
        calibrated,
    )


def _one_rate_model(samples: Labelled) -> NoiseModel:
    """The model of one rate for all mistakes, from few and from many to begin with.

    The likelihood may have two maxima; many mistakes are believed only where they are clearly more likely,
    and never that most labels are wrong.
    """
    found = []
    for wrong in (_LEAST_WRONG, _MANY_WRONG):
        start = NoiseModel(Calibration.of(samples), one_rate(wrong, samples.k))
        found.append(_fitted(samples, start, math.inf))
    (few, of_few), (many, of_many) = found
    likelier = of_many[-1] > of_few[-1] + _DEVIATIONS**2 / 2
    return many if likelier and float(many.transition[0, 0]) > 0.5 else few


def _held_out(
    samples: Labelled, halves: Sequence[tuple[Tensor, Tensor]], models: Sequence[NoiseModel]
) -> Tensor:
    """Log-likelihood (m,) of every label by the model that was fitted without its half."""
    found = torch.zeros(len(samples.labels), dtype=torch.float64)
    for (_, held), model in zip(halves, models, strict=True):
        found[held] = model.log_likelihood(samples.predictions[held], samples.labels[held])
    return found


def _better(likelihood: Tensor, other: Tensor, errors: float = 1.0) -> bool:
    """Whether the mean is larger by more than so many standard errors of the difference."""
    gain = likelihood - other
    return float(gain.mean()) > errors * float(gain.std(correction=0)) / math.sqrt(len(gain))


def _fitted(samples: Labelled, start: NoiseModel, strength: float) -> tuple[NoiseModel, tuple[float, ...]]:
    """The noise by one strength of the prior, and the likelihood after each step."""
    wrong = 1 - float(start.transition.diagonal().mean())
    base = one_rate(wrong, samples.k)
    begin = start.transition if strength == math.inf else one_rate(max(wrong, _LEAST_WRONG), samples.k)
    calibration, transition, likelihoods = fit_transition(
        samples, start.calibration, begin, base=base, strength=strength
    )
    return NoiseModel(calibration, transition), likelihoods


def _calibrated(samples: Labelled, model: NoiseModel) -> tuple[NoiseModel, tuple[float, ...]]:
    calibration, likelihoods = fit_calibration(samples, model.calibration, model.transition)
    return replace(model, calibration=calibration), likelihoods


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


def _rate(model: NoiseModel, samples: Labelled) -> float:
    return float(samples.weights @ _wrong(model, samples) / samples.weights.sum())


def _wrong(model: NoiseModel, samples: Labelled) -> Tensor:
    """Probability of each label being wrong, (m,)."""
    return 1 - model.posterior(samples.predictions, samples.labels).gather(1, samples.labels[:, None])[:, 0]


def _spaced(n: int, most: int) -> Tensor:
    return torch.arange(0, n, max(1, -(-n // max(1, most))))
