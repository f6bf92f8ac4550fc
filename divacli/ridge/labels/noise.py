"""Which labels are wrong: a model of how given labels come about, fitted to leave-one-out predictions.

    p(y | f) = sum_c q(c | f) p(y | c, f)

A sample has a true class c, which its left-out prediction f makes more or less likely
(`divacli.ridge.labels.class_probability`), and was given the label y (`divacli.ridge.labels.mistakes`). What
the label says of the true class follows by Bayes' rule. `noise_fit.py` has the likelihood and its priors.

Three things are not fitted:

1. *The shape of the mistakes*, which are random, of people, or learned by the network, and
2. *the strength of the prior of the pairs*: `noise_choice.py` chooses both.
3. *The rate* is not chosen where the data leave it open: probabilities are a mean over it.

`noise_check.py` holds the model against a second estimate, and replaces it where that contradicts.
The interval holds the rates of all choices that the labels do not rule out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.parallel import one_thread
from divacli.ridge.labels.class_probability import Calibration
from divacli.ridge.labels.disagreement import Disagreement
from divacli.ridge.labels.mistakes import LEARNED, RANDOM, Mistakes, Shape
from divacli.ridge.labels.noise_check import checked, disagreeing
from divacli.ridge.labels.noise_choice import IN_PAIRS, STRENGTHS, Trials, choose
from divacli.ridge.labels.noise_fit import Labelled, NoiseModel, fit_shape

FIT_VALUES, FIT_ROWS = 400_000, 20_000
"""Predictions (rows x classes) and rows that the model is fitted to, at the most."""

CHOICE_VALUES, CHOICE_ROWS = 120_000, 5_000
"""Predictions and rows by which shape and strength are chosen, at the most."""

_PAIRS_WIDER = 3.0
"""Factor of the standard error where mistakes are in pairs: those are estimated as well. It was chosen on the
cells of `benchmarks.noise_rate`."""

_LEARNED_BY_HEART = 2.0
"""Factor for wrong labels that the network has learned so well that predictions agree with them."""

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
    seen: Disagreement | None = None,
    groups: Tensor | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> NoiseFit:
    """Choose and fit the model.

    Args:
        predictions: (m, k) left-out predictions, k >= 2.
        labels: (m,) int64 given labels.
        seen: What disagreements say of these labels, by which the model is checked.
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
        trials = Trials(samples)
        choice = choose(trials, groups[few], strengths, seed)
        model = choice.fitted.model
        if samples is not everything:
            model = fit_shape(
                everything, choice.shape, choice.strength, sharp=choice.sharp, start=choice.fitted.point
            ).model
        model, doubts = _doubtful(model, everything, groups)
        again = None if seen is None else checked(model, everything, seen, trials, min(strengths))
    wrong = model.wrong(everything)
    rate, spread = float(wrong.mean()), _DEVIATIONS * _standard_error(wrong, groups)
    if choice.strength < IN_PAIRS:
        spread *= _PAIRS_WIDER
    low = min(min(rate, *choice.rates) - spread, doubts[0])
    # Less than one label is none.
    low = low if low * len(wrong) >= 1 else 0.0
    high = max(min(1.0, max(rate, *choice.rates) + spread), doubts[1])
    shape = choice.shape
    if again is not None:
        model, shape, rate = again, LEARNED, float(again.wrong(everything).mean())
        most = max(rate, len(disagreeing(everything)) / len(labels))
        low, high = min(low, rate), min(1.0, max(high, _LEARNED_BY_HEART * most))
    before = model.calibration.logs(everything.predictions)
    return NoiseFit(
        model,
        rate,
        (low, high),
        shape,
        choice.strength,
        choice.held_out,
        float(1 - before.max(dim=1).values.exp().mean()),
    )


def _doubtful(model: NoiseModel, samples: Labelled, groups: Tensor) -> tuple[NoiseModel, tuple[float, float]]:
    """The model as a mean over the rates that the data allow, and the smallest and largest of these.

    Log-odds of mistakes are equally likely beforehand, from half a wrong label in all samples upwards.
    """
    wrong = model.wrong(samples)
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


def _spaced(n: int, most: int) -> Tensor:
    return torch.arange(0, n, max(1, -(-n // max(1, most))))
