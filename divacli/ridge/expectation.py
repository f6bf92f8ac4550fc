"""Expectation maximisation of the label-noise model: no step lowers the penalised likelihood.

The model is that of `divacli.ridge.noise`. The expectation step finds the probability of every class being
the true one; the maximisation step has a closed form for the transition matrix, and for the calibration one
step that does not lower the expected likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_TOLERANCE = 1e-6
"""Gain of a step, in nats a sample, below which a search ends."""

_MOST_STEPS = 300
_CALIBRATION_STRENGTH = 100.0
"""Samples' worth of the prior of `Theta` around a multiple of the identity."""

_HEAT, _HEAT_SPREAD = 4.0, 0.5
"""Median of the prior of the inverse temperature, and the standard deviation of its logarithm.

Where predictions hardly vary within a class, unsure predictions of right labels are as likely as sure ones
of labels that are partly wrong. The prior prefers the latter; it is about what was found on photos.
"""

_LEAST_PROBABILITY = 1e-300


@dataclass(frozen=True)
class Labelled:
    """Samples that the model is fitted to.

    Attributes:
        predictions: (m, k) float64 left-out predictions.
        labels: (m,) int64 given labels.
        weights: (m,) float64 > 0 that sum up to the number of samples.
    """

    predictions: Tensor
    labels: Tensor
    weights: Tensor

    @classmethod
    def of(cls, predictions: Tensor, labels: Tensor) -> Labelled:
        """Samples that all count the same."""
        return cls(predictions.double(), labels, torch.ones(len(labels), dtype=torch.float64))

    def part(self, rows: Tensor) -> Labelled:
        """Some of them, by their numbers (b,) int64."""
        return Labelled(self.predictions[rows], self.labels[rows], self.weights[rows])

    @property
    def k(self) -> int:
        """The number of classes."""
        return self.predictions.shape[1]

    def counted(self, responsibilities: Tensor) -> Tensor:
        """(k, k) expected number of samples by true class (row) and label.

        Args:
            responsibilities: (m, k) probability of each class being the true one.
        """
        counts = torch.zeros(self.k, self.k, dtype=torch.float64)
        return counts.index_add_(0, self.labels, self.weights[:, None] * responsibilities).T


@dataclass(frozen=True)
class Calibration:
    """Probabilities of the true class: `softmax(log softplus(g f / scale) Theta + b)`.

    Attributes:
        scale: Of predictions: the root of their mean squared distance from each sample's mean.
        sharpness: `g` > 0.
        mixing: (k, k) float64 `Theta`; a multiple of the identity before it is calibrated.
        bias: (k,) float64 `b`.
    """

    scale: float
    sharpness: float
    mixing: Tensor
    bias: Tensor

    @classmethod
    def of(cls, samples: Labelled) -> Calibration:
        """Where a search begins."""
        f = samples.predictions
        scale = float((f - f.mean(dim=1, keepdim=True)).square().mean().sqrt())
        eye = torch.eye(samples.k, dtype=torch.float64)
        return cls(scale if scale > 0 else 1.0, 1.0, _HEAT * eye, torch.zeros(samples.k, dtype=torch.float64))

    @property
    def inverse_temperature(self) -> float:
        """The exponent of the predictions, the mean of the classes."""
        return float(self.mixing.diagonal().mean())

    def to(self, device: torch.device) -> Calibration:
        """The same calibration on another device."""
        return replace(self, mixing=self.mixing.to(device), bias=self.bias.to(device))

    def logs(self, predictions: Tensor) -> Tensor:
        """Log-probability (m, k) of each class being the true one, before the label is looked at."""
        return torch.log_softmax(self.inputs(predictions) @ self.mixing + self.bias, dim=1)

    def inputs(self, predictions: Tensor) -> Tensor:
        """`log softplus(g f / scale)`, (m, k)."""
        return log_softplus(self.sharpness / self.scale * predictions)


def log_softplus(values: Tensor) -> Tensor:
    """`log log(1 + e^u)`, also where the inner logarithm is too small for a float."""
    return torch.where(values < -30, values, torch.nn.functional.softplus(values.clamp_min(-30)).log())


def joint_logs(logs: Tensor, transition: Tensor, labels: Tensor) -> Tensor:
    """`log q(c | f) + log M[c, y]`, (m, k).

    Args:
        logs: (m, k) `log q`.
        transition: (k, k) `M`.
        labels: (m,) int64 `y`.
    """
    return logs + transition.clamp_min(_LEAST_PROBABILITY).log().T[labels]


def one_rate(wrong: float, k: int) -> Tensor:
    """The (k, k) matrix in which every label is wrong at one rate, all others being equally likely."""
    # Not quite 0: of what is impossible nothing can be learned.
    wrong = min(max(wrong, 1e-12), 1 - 1e-12)
    return torch.full((k, k), wrong / (k - 1), dtype=torch.float64).fill_diagonal_(1 - wrong)


def fit_transition(
    samples: Labelled,
    calibration: Calibration,
    transition: Tensor,
    *,
    base: Tensor,
    strength: float,
) -> tuple[Calibration, Tensor, tuple[float, ...]]:
    """Fit the transition matrix, one inverse temperature, the sharpness and the biases.

    Priors beside that of `M`: the biases and the logarithm of the sharpness are standard normal, that of the
    inverse temperature is normal around `_HEAT`, and there is one sample more whose label is drawn at random,
    so that predictions without a mistake do not ask for certainty; with one rate for all, also one whose
    label is right.

    Args:
        samples: What is fitted.
        calibration: Where to begin.
        transition: (k, k) likewise.
        base: (k, k) what the prior of the rows of `M` is around.
        strength: Its pseudo-counts a row; infinite: `M` has one rate, which is fitted, whatever `base` is.

    Returns:
        The calibration, the matrix, and the penalised log-likelihood at the start of each step and the end.
    """
    shared = strength == math.inf
    total = float(samples.weights.sum())
    likelihoods: list[float] = []
    for _ in range(_MOST_STEPS):
        logs = calibration.logs(samples.predictions)
        responsibilities, likelihood = _expected(samples, logs, transition)
        likelihood += _prior(calibration) + float(samples.weights @ logs.mean(dim=1)) / total
        if shared:
            likelihood += math.log(float(transition[0, 0]))
        else:
            likelihood += strength * float((base * transition.clamp_min(_LEAST_PROBABILITY).log()).sum())
        likelihoods.append(likelihood)
        if _ended(likelihoods, total):
            break
        counts = samples.counted(responsibilities)
        if shared:
            transition = one_rate(float(counts.sum() - counts.diagonal().sum()) / (total + 1), samples.k)
        else:
            transition = (counts + strength * base) / (counts.sum(dim=1, keepdim=True) + strength)
        calibration = _scored(samples, calibration, _with_one_more(samples, responsibilities))
    return calibration, transition, tuple(likelihoods)


def fit_calibration(
    samples: Labelled, start: Calibration, transition: Tensor
) -> tuple[Calibration, tuple[float, ...]]:
    """Fit `Theta` and the biases with the noise held fixed.

    `Theta` has a normal prior around the multiple of the identity that it starts from, the biases one around
    where they start. Steps are those of the bound `diag(q) - q q' <= I / 2` on the curvature of the softmax
    (Böhning 1992, Multinomial logistic regression algorithm), made longer while that raises the likelihood.

    Args:
        samples: What is fitted.
        start: Where to begin, `Theta` a multiple of the identity.
        transition: (k, k) `M`.

    Returns:
        The calibration, and the penalised log-likelihood at the start of each step and the end.
    """
    total = float(samples.weights.sum())
    inputs = torch.nn.functional.pad(start.inputs(samples.predictions), (0, 1), value=1.0)
    begin = torch.cat([start.mixing, start.bias[None]])
    strength = torch.full((len(begin), 1), _CALIBRATION_STRENGTH / start.inverse_temperature**2).double()
    strength[-1] = 1
    counting = samples.weights * (1 + 1 / total)
    bound = (inputs.T * counting) @ inputs / 2 + strength[:, 0].diag()
    inverse = torch.linalg.inv(bound)

    def prior(theta: Tensor) -> float:
        return -float((strength * (theta - begin).square()).sum()) / 2

    theta, length = begin, 1.0
    likelihoods: list[float] = []
    for _ in range(_MOST_STEPS):
        logs = torch.log_softmax(inputs @ theta, dim=1)
        responsibilities, likelihood = _expected(samples, logs, transition)
        likelihoods.append(likelihood + prior(theta) + float(samples.weights @ logs.mean(dim=1)) / total)
        if _ended(likelihoods, total):
            break
        targets = _with_one_more(samples, responsibilities)

        def expected(theta: Tensor, targets: Tensor = targets) -> float:
            return float((targets * torch.log_softmax(inputs @ theta, dim=1)).sum()) + prior(theta)

        slope = inputs.T @ (targets - counting[:, None] * logs.exp()) - strength * (theta - begin)
        theta, length = _climbed(expected, theta, inverse @ slope, length)
    return replace(start, mixing=theta[:-1], bias=theta[-1]), tuple(likelihoods)


def _expected(samples: Labelled, logs: Tensor, transition: Tensor) -> tuple[Tensor, float]:
    """Probability (m, k) of each class being the true one, and the log-likelihood of the labels."""
    joint = joint_logs(logs, transition, samples.labels)
    likelihood = torch.logsumexp(joint, dim=1)
    return (joint - likelihood[:, None]).exp(), float(samples.weights @ likelihood)


def _with_one_more(samples: Labelled, responsibilities: Tensor) -> Tensor:
    """Expected counts (m, k) with one sample more, spread over all, whose class is drawn at random."""
    return samples.weights[:, None] * (responsibilities + 1 / (samples.k * samples.weights.sum()))


def _ended(likelihoods: list[float], total: float) -> bool:
    return len(likelihoods) > 1 and likelihoods[-1] - likelihoods[-2] < _TOLERANCE * total


def _climbed(
    objective: Callable[[Tensor], float], at: Tensor, step: Tensor, length: float
) -> tuple[Tensor, float]:
    """A point that is not lower along a step, and the length to try next; a length of 1 is always good."""
    now = objective(at)
    while length > 1 and objective(at + length * step) < now:
        length = max(1.0, length / 2)
    return at + length * step, 1.5 * length


def _prior(calibration: Calibration) -> float:
    heat = math.log(calibration.inverse_temperature / _HEAT) / _HEAT_SPREAD
    return -(float(calibration.bias.square().sum()) + math.log(calibration.sharpness) ** 2 + heat**2) / 2


def _scored(samples: Labelled, calibration: Calibration, targets: Tensor) -> Calibration:
    """One Fisher scoring step on inverse temperature, sharpness (both as logarithms) and biases.

    Args:
        samples: What is fitted.
        calibration: `Theta` a multiple of the identity.
        targets: (m, k) expected counts.
    """
    k = samples.k
    counting = targets.sum(dim=1)
    heat = calibration.inverse_temperature
    bent = calibration.sharpness / calibration.scale * samples.predictions
    inputs = log_softplus(bent)
    q = torch.softmax(heat * inputs + calibration.bias, dim=1)
    # Derivatives of the logits by the logarithms of inverse temperature and sharpness.
    by_heat = heat * inputs
    by_sharpness = heat * bent * torch.exp(torch.nn.functional.logsigmoid(bent) - inputs)
    surplus, expected = targets - counting[:, None] * q, counting[:, None] * q
    slope = torch.cat(
        [(surplus * by_heat).sum()[None], (surplus * by_sharpness).sum()[None], surplus.sum(dim=0)]
    )
    slope[0] -= math.log(heat / _HEAT) / _HEAT_SPREAD**2
    slope[1] -= math.log(calibration.sharpness)
    slope[2:] -= calibration.bias
    moves = (by_heat, by_sharpness)
    means = [(q * move).sum(dim=1) for move in moves]
    information = torch.zeros(k + 2, k + 2, dtype=torch.float64)
    for row in (0, 1):
        for column in (0, 1):
            information[row, column] = (expected * moves[row] * moves[column]).sum() - (
                counting * means[row] * means[column]
            ).sum()
        information[row, 2:] = (expected * moves[row]).sum(dim=0) - expected.T @ means[row]
        information[2:, row] = information[row, 2:]
    information[2:, 2:] = expected.sum(dim=0).diag() - expected.T @ q
    information += torch.cat([torch.tensor([_HEAT_SPREAD**-2, 1.0]), torch.ones(k)]).double().diag()
    step = torch.linalg.solve(information, slope)
    step = step / max(1.0, float(step[:2].abs().max()))

    def moved(length: float) -> Calibration:
        heated = calibration.mixing * math.exp(length * float(step[0]))
        sharpened = calibration.sharpness * math.exp(length * float(step[1]))
        return Calibration(calibration.scale, sharpened, heated, calibration.bias + length * step[2:])

    def objective(at: Calibration) -> float:
        # A multiple of the identity: no matrix product.
        logits = at.inverse_temperature * at.inputs(samples.predictions) + at.bias
        return float((targets * torch.log_softmax(logits, dim=1)).sum()) + _prior(at)

    now = objective(calibration)
    tried = (moved(0.5**halvings) for halvings in range(12))
    # None is better where rounding hides what is left to gain.
    return next((found for found in tried if objective(found) >= now), calibration)
