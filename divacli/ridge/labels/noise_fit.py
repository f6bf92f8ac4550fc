"""Fit of the label-noise model (`divacli.ridge.labels.noise`): one shape of mistakes, one prior of the pairs.

The penalised likelihood is maximised over the rates `a`, the pairs `R`, the calibration `Theta = t (I + D)`,
`b` and the sharpness `g`. Priors:

- the pairs and rates of a class: a Dirichlet distribution around the same rate for all, of so many
  pseudo-counts; with infinitely many there is one rate, and all pairs are alike,
- `t`: log-normal around 4; `g`: log-normal around 1, and hardly beyond a factor of 2.5,
- `D`: normal, worth so many samples; `b`: standard normal,
- one sample more whose label is drawn at random, and one whose label is right.

Where the network may have learned the labels, the predictions are assumed to be as sharp as those of honest
features are: `t` of 4 at the least, and a label that nothing speaks for has two per cent at the most together
with all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu, softplus

from divacli.ridge.fit.descent import minimiser
from divacli.ridge.labels import noise_slope as slopes
from divacli.ridge.labels.class_probability import Calibration, log_softplus, scale_of
from divacli.ridge.labels.mistakes import Mistakes, Shape

MOST_MIXED = 100
"""Classes beyond which `D`, k x k numbers, stays 0: it would be slow, and samples too few."""

_HEAT, _HEAT_SPREAD = 4.0, 0.5
"""Median of the prior of `t`, and the standard deviation of its logarithm. With true labels it was 3.7 to
10.8, on the features of 20 sets of photos and parts of them."""

_MIXING_STRENGTH = 1000.0
"""Samples' worth of the prior of `D`. Weaker, it would explain mistakes of people away."""

_MOST_SHARP, _SHARP_STRENGTH = math.log(2.5), 0.01
_FLOOR, _FLOOR_STRENGTH = 0.02, 0.02
_LEAST_HEAT, _HEAT_STRENGTH = 4.0, 0.3
"""Bounds of `g`, of what remains for the other labels, and of `t`; strengths in nats a sample."""

_TOLERANCE = 0.01
"""Gain of a step, in nats of the whole likelihood, below which the search ends."""

_MOST_STEPS = 60


@dataclass(frozen=True)
class Labelled:
    """Samples that the model is fitted to.

    Attributes:
        predictions: (m, k) float64 left-out predictions.
        labels: (m,) int64 given labels.
    """

    predictions: Tensor
    labels: Tensor

    def part(self, rows: Tensor) -> Labelled:
        """Some of them, by their numbers (b,) int64."""
        return Labelled(self.predictions[rows], self.labels[rows])

    @property
    def k(self) -> int:
        """The number of classes."""
        return self.predictions.shape[1]


@dataclass(frozen=True)
class NoiseModel:
    """How given labels come about.

    Attributes:
        calibration: From left-out predictions to probabilities of the true class.
        mistakes: From the true class to the given label.
        doubt: What the data leave open of the rate: pairs of a weight and a move of the log-odds of a
            mistake; weights sum up to 1.
        rivalry: (k, k) float64 log-odds of a label (column) being wrong where its most probable rival (row)
            is as probable as itself before the label is looked at. None: by `mistakes`.
    """

    calibration: Calibration
    mistakes: Mistakes
    doubt: tuple[tuple[float, float], ...] = ((1.0, 0.0),)
    rivalry: Tensor | None = None

    def posterior(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Probability (m, k) float64 of each class being the true one, given prediction and label.

        Args:
            predictions: (m, k) left-out predictions.
            labels: (m,) int64 given labels.
        """
        return self.posterior_of(self.calibration.logs(predictions.double()), labels)

    def posterior_of(self, logs: Tensor, labels: Tensor) -> Tensor:
        """As `posterior`, from the log-probabilities (m, k) before the label is looked at."""
        if self.rivalry is not None:
            return _by_rival(logs, labels[:, None], self.rivalry)
        found = torch.zeros_like(logs)
        for weight, move in self.doubt:
            found += weight * torch.softmax(self.mistakes.moved(move).joint(logs, labels), dim=1)
        return found

    def wrong(self, samples: Labelled) -> Tensor:
        """Probability of each label being wrong, (m,) float64."""
        return (
            1 - self.posterior(samples.predictions, samples.labels).gather(1, samples.labels[:, None])[:, 0]
        )

    def log_likelihood(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """`log p(y | f)` of each sample at the likeliest rate, (m,) float64, in nats."""
        logs = self.calibration.logs(predictions.double())
        return torch.logsumexp(self.mistakes.joint(logs, labels), dim=1)

    def to(self, device: torch.device) -> NoiseModel:
        """The same model on another device."""
        rivalry = None if self.rivalry is None else self.rivalry.to(device)
        return NoiseModel(self.calibration.to(device), self.mistakes.to(device), self.doubt, rivalry)


def _by_rival(logs: Tensor, own: Tensor, rivalry: Tensor) -> Tensor:
    """Probabilities (m, k): of the label `own` (m, 1) by its most probable rival, of the others by `logs`."""
    ahead, rival = ahead_of_rival(logs, own)
    right = torch.sigmoid(ahead - rivalry[rival, own])
    others = torch.softmax(logs.scatter(1, own, -math.inf), dim=1)
    return (others * (1 - right)).scatter(1, own, right)


def ahead_of_rival(logs: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Nats by which the label `own` is ahead of its most probable rival, and that rival: (m, 1) each.

    Args:
        logs: (m, k) log-probabilities before the label is looked at.
        own: (m, 1) int64 labels.
    """
    rival = logs.scatter(1, own, -math.inf).max(dim=1, keepdim=True)
    return logs.gather(1, own) - rival.values, rival.indices


@dataclass(frozen=True)
class Fitted:
    """A fit, and where a further search may begin.

    Attributes:
        model: The model.
        value: Penalised log-likelihood in nats.
        point: (p,) float64, all parameters.
    """

    model: NoiseModel
    value: float
    point: Tensor


def fit_shape(
    samples: Labelled,
    shape: Shape,
    strength: float,
    *,
    sharp: bool = False,
    rate: float = 0.1,
    start: Tensor | None = None,
) -> Fitted:
    """Fit the model with one shape of mistakes.

    Args:
        samples: What is fitted.
        shape: Where mistakes happen and what they look like.
        strength: Pseudo-counts of the prior of each class; infinite: one rate, all pairs alike.
        sharp: Whether the predictions are assumed to be as sharp as those of honest features.
        rate: Of mistakes, to begin with.
        start: A point of an earlier fit with as many classes and an infinite strength or not, as this one.
    """
    problem = _Problem(samples, shape, strength, sharp)
    begin = problem.begin(rate) if start is None else start
    point = minimiser(
        problem.loss,
        begin,
        problem.curvature(),
        by_hand=problem.slope,
        tolerance=_TOLERANCE,
        most_steps=_MOST_STEPS,
        memory=12,
    )
    return Fitted(problem.model(point), -float(problem.loss(point)), point)


class _Problem:
    """Parameters in one vector: log t, log g, b (k), log-odds of mistakes (1 or k), log R (k x k), D (k x k).

    Args:
        samples: As of `fit_shape`, and so are the others.
        shape: Of the mistakes.
        strength: Of the prior of a class.
        sharp: Whether predictions are assumed to be sharp.
    """

    def __init__(self, samples: Labelled, shape: Shape, strength: float, sharp: bool) -> None:
        k = samples.k
        self._samples, self._shape, self._strength, self._sharp = samples, shape, strength, sharp
        self._scale = scale_of(samples.predictions)
        self._scaled = samples.predictions / self._scale
        self._even = strength == math.inf
        mixed = k * k if k <= MOST_MIXED else 0
        self._sizes = [2, k, 1, 0, mixed] if self._even else [2, k, k, k * k, mixed]
        self._diagonal = torch.eye(k, dtype=torch.bool)
        self._even_pairs = Mistakes.even(shape, 0.5, k).pairs

    def begin(self, rate: float) -> Tensor:
        """Where a search begins."""
        heat, bias, rates, pairs, mixing = (torch.zeros(size, dtype=torch.float64) for size in self._sizes)
        heat[0] = math.log(_HEAT)
        return torch.cat([heat, bias, rates + math.log(rate / (1 - rate)), pairs, mixing])

    def curvature(self) -> Tensor:
        """Rough second derivatives of the loss."""
        k, n = self._samples.k, len(self._samples.labels)
        counts = torch.bincount(self._samples.labels, minlength=k).double()
        prior = 0.0 if self._even else self._strength
        wrong = (counts + prior) / 10
        rates = wrong.sum()[None] if self._even else wrong
        pairs = wrong.new_zeros(0) if self._even else (wrong / k)[:, None].expand(k, k).reshape(-1)
        mixing = counts.new_full((self._sizes[4],), n / k + _MIXING_STRENGTH)
        return torch.cat([counts.new_full((2,), n / 2), counts / 4 + 1, rates, pairs, mixing]).clamp_min(1e-3)

    def loss(self, point: Tensor) -> Tensor:
        """Penalised log-likelihood, with the sign changed."""
        logs = self._logs(point)
        mistakes = self._mistakes(point)
        likelihood = torch.logsumexp(mistakes.joint(logs, self._samples.labels), dim=1).sum()
        return self._penalty(point, mistakes) - logs.mean() - likelihood

    def slope(self, point: Tensor) -> tuple[float, Tensor]:
        """The loss at a point, and its slope there, (p,)."""
        heat, bias, *_, mixing = self._split(point)
        n, k = self._samples.predictions.shape
        mixed = mixing.view(k, -1) if len(mixing) else None
        logs, logs_back = slopes.logs_back(self._scaled, heat, bias, mixed)
        mistakes = self._mistakes(point)
        joint, joint_back = slopes.joint_back(mistakes, logs, self._samples.labels)
        likelihood = torch.logsumexp(joint, dim=1, keepdim=True)
        penalty, found = self._penalty_slope(point)
        value = penalty - float(logs.mean()) - float(likelihood.sum())
        of_joint, of_mean = -(joint - likelihood).exp(), torch.full_like(logs, -1 / max(n * k, 1))
        of_logs, of_rates, of_pairs = joint_back(of_joint, of_mean)
        of_heat, of_bias, of_mixing = logs_back(of_logs)
        found[0] = found[0] + of_heat
        found[1] = found[1] + of_bias
        if self._even:
            found[2] = found[2] + of_rates.sum()
        else:
            of_open = torch.ops.aten._softmax_backward_data(of_pairs, mistakes.pairs, 1, of_pairs.dtype)
            found[2] = found[2] + of_rates
            found[3] = found[3] + of_open.masked_fill(self._diagonal, 0).view(-1)
        if of_mixing is not None:
            found[4] = found[4] + of_mixing.view(-1)
        return value, torch.cat(found)

    def _penalty_slope(self, point: Tensor) -> tuple[float, list[Tensor]]:
        """The penalty, and its slope in each part of a point."""
        heat, bias, rates, pairs, mixing = self._split(point)
        n, k = self._samples.predictions.shape
        hot, sharp = heat.tolist()
        far, off = max(abs(sharp) - _MOST_SHARP, 0.0), (hot - math.log(_HEAT)) / _HEAT_SPREAD
        right, of_rates = slopes.right_slope(rates)
        value = (float(bias.square().sum()) + sharp * sharp) / 2 + off * off / 2
        value += n * _SHARP_STRENGTH * (far * far)
        value = value + _MIXING_STRENGTH / 2 * float(mixing.square().sum()) + right
        of_hot = of_sharp = 0.0
        if self._sharp:
            bound, of_hot, of_sharp = slopes.sharp_slope(heat, n, k, _FLOOR, _FLOOR_STRENGTH)
            short = max(math.log(_LEAST_HEAT) - hot, 0.0)
            value = value + bound + n * _HEAT_STRENGTH * (short * short)
            of_hot = of_hot - n * _HEAT_STRENGTH * (2 * short)
        of_hot = of_hot + off / _HEAT_SPREAD
        of_sharp = of_sharp + math.copysign(n * _SHARP_STRENGTH * (2 * far), sharp) + sharp
        of_pairs = pairs
        if not self._even:
            prior, before, of_open = slopes.dirichlet_slope(
                rates, self._open(pairs), self._strength, self._diagonal
            )
            value, of_rates, of_pairs = value + prior, before + of_rates, of_open.view(-1)
        of_heat = heat.new_tensor((of_hot, of_sharp))
        return value, [of_heat, bias, of_rates, of_pairs, _MIXING_STRENGTH * mixing]

    def model(self, point: Tensor) -> NoiseModel:
        """The model at a point."""
        heat, bias, *_, mixing = self._split(point)
        k = self._samples.k
        theta = torch.eye(k, dtype=torch.float64)
        if len(mixing):
            theta = theta + mixing.view(k, k)
        calibration = Calibration(self._scale, float(heat[1].exp()), heat[0].exp() * theta, bias)
        return NoiseModel(calibration, self._mistakes(point))

    def _split(self, point: Tensor) -> list[Tensor]:
        return list(torch.split(point, self._sizes))

    def _logs(self, point: Tensor) -> Tensor:
        heat, bias, *_, mixing = self._split(point)
        inputs = log_softplus(heat[1].exp() * self._scaled)
        if len(mixing):
            inputs = inputs + inputs @ mixing.view(self._samples.k, -1)
        return torch.log_softmax(heat[0].exp() * inputs + bias, dim=1)

    def _mistakes(self, point: Tensor) -> Mistakes:
        k = self._samples.k
        _, _, rates, pairs, _ = self._split(point)
        if self._even:
            return Mistakes(self._shape, rates.expand(k), self._even_pairs)
        return Mistakes(self._shape, rates, torch.softmax(self._open(pairs), dim=1))

    def _open(self, pairs: Tensor) -> Tensor:
        """Unnormalised log R (k, k), with no way to the own class."""
        return pairs.view(self._samples.k, -1).masked_fill(self._diagonal, -1e9)

    def _penalty(self, point: Tensor, mistakes: Mistakes) -> Tensor:
        heat, bias, rates, pairs, mixing = self._split(point)
        n, k = self._samples.predictions.shape
        penalty = (bias.square().sum() + heat[1].square()) / 2
        penalty = penalty + ((heat[0] - math.log(_HEAT)) / _HEAT_SPREAD).square() / 2
        penalty = penalty + n * _SHARP_STRENGTH * relu(heat[1].abs() - _MOST_SHARP).square()
        penalty = penalty + _MIXING_STRENGTH / 2 * mixing.square().sum() - logsigmoid(-rates.mean())
        if self._sharp:
            most = k / math.sqrt(k - 1)  # a one-hot prediction, by its own spread
            floor = heat[0].exp() * (math.log(math.log(2)) - softplus(heat[1].exp() * most).log())
            above = relu(floor + math.log(k - 1) - math.log(_FLOOR))
            penalty = penalty + n * _FLOOR_STRENGTH * above.square()
            penalty = penalty + n * _HEAT_STRENGTH * relu(math.log(_LEAST_HEAT) - heat[0]).square()
        if self._even:
            return penalty
        rate = torch.sigmoid(rates.mean())
        open_pairs = torch.log_softmax(self._open(pairs), dim=1).masked_fill(self._diagonal, 0)
        density = (1 - rate) * logsigmoid(-rates) + rate * logsigmoid(rates)
        density = density + rate / (k - 1) * open_pairs.sum(dim=1)
        most_dense = (1 - rate) * torch.log1p(-rate) + rate * (rate / (k - 1)).log()
        return penalty + self._strength * (most_dense - density).sum()
