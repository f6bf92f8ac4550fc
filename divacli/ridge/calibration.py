"""Cross-entropy on calibrated predictions, in which a share of the labels may be wrong.

Ridge predictions are no log-probabilities, and the labels they are compared with may be wrong. Both are
modelled:

    p(y | f) = (1 - noise) softmax(t f + b)_y + noise / k

With temperature, class biases and noise fitted to left-out predictions, the loss `-log p` neither rewards
mere confidence (`t` has taken that already) nor chases labels that the other samples speak against: its
gradient fades as a label becomes implausible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CALIBRATION_VALUES = 4_000_000
"""Predictions (rows x classes) that calibration looks at, at the most."""

CALIBRATION_ROWS = 20_000
"""Samples that calibration looks at, at the most: it fits k + 2 numbers."""


@dataclass(frozen=True)
class RobustCrossEntropy:
    """`l(f, y) = -log((1 - noise) softmax(t f + b)_y + noise / k)`, in nats.

    Attributes:
        inverse_temperature: `t` > 0.
        bias: (k,) float64 `b`, on the CPU.
        noise: Share of labels drawn at random from all classes, in [0, 1).
    """

    inverse_temperature: float
    bias: Tensor
    noise: float

    def probabilities(self, predictions: Tensor) -> Tensor:
        """Probability (b, k) of each class being the true one: `softmax(t f + b)`."""
        return torch.softmax(self._logits(predictions), dim=1)

    def value(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Each sample's loss, (b,)."""
        truth = (targets * torch.log_softmax(self._logits(predictions), dim=1)).sum(dim=1)
        return -_mixed(truth, torch.tensor(self.noise).to(truth), predictions.shape[1])

    def gradient(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """`t q (softmax(t f + b) - y)`, (b, k), with `q` the probability that the label is not noise."""
        probabilities = self.probabilities(predictions)
        step = self.inverse_temperature * (probabilities - targets)
        if self.noise == 0:
            return step  # of impossible labels too, for which the next line would divide zero by zero
        clean = (1 - self.noise) * (targets * probabilities).sum(dim=1)
        return step * (clean / (clean + self.noise / predictions.shape[1]))[:, None]

    def _logits(self, predictions: Tensor) -> Tensor:
        return self.inverse_temperature * predictions + self.bias.to(predictions)


def calibrate(
    predictions: Tensor, labels: Tensor, mask: Tensor, *, bias: bool = True, noise: bool = True
) -> RobustCrossEntropy:
    """Fit temperature, class biases and noise by maximum likelihood, with weak priors.

    The priors are worth one sample: one whose label is drawn at random (predictions without a mistake would
    otherwise ask for certainty, where every derivative vanishes), and standard normal biases.

    Args:
        predictions: (m, k) left-out predictions.
        labels: (m,) int64 given labels.
        mask: (m,) validation weights `v` >= 0, not all zero.
        bias: Whether classes have biases; without, the predictions' own largest entry decides.
        noise: Whether labels may be wrong.
    """
    n_classes = predictions.shape[1]
    f = predictions.double().cpu()
    share = mask.double().cpu() / float(mask.sum())
    prior = 1 / len(f)
    # log t, logit of the noise, biases.
    theta = torch.zeros(2 + n_classes, dtype=torch.float64)
    theta[0], theta[1] = math.log(10), -3
    free = torch.ones_like(theta)
    free[1], free[2:] = float(noise), float(bias)
    theta.requires_grad_(True)
    nothing = torch.zeros((), dtype=torch.float64)

    def unpacked() -> tuple[Tensor, Tensor, Tensor]:
        scale = theta[0].clamp(math.log(1e-2), math.log(1e3)).exp()
        return scale, theta[2:] * free[2:], torch.sigmoid(theta[1]) if noise else nothing

    optimiser = torch.optim.LBFGS(
        [theta], max_iter=100, tolerance_grad=1e-8, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        scale, biases, wrong = unpacked()
        logs = torch.log_softmax(scale * f + biases, dim=1)
        truth = logs.gather(1, labels.cpu()[:, None])[:, 0]
        likelihood = share @ _mixed(truth, wrong, n_classes)
        objective = -likelihood - prior * (share @ logs.mean(dim=1)) + prior / 2 * biases.square().sum()
        objective.backward()
        return objective

    with torch.enable_grad():
        optimiser.step(closure)
    scale, biases, wrong = (part.detach() for part in unpacked())
    return RobustCrossEntropy(float(scale), biases, float(wrong))


def calibration_rows(order: Tensor, n_classes: int) -> Tensor:
    """Evenly spaced samples to calibrate on, (m,) ascending row numbers.

    Args:
        order: (n,) row numbers of the samples in an order that does not depend on how they are stored.
        n_classes: k.
    """
    most = max(1, min(CALIBRATION_ROWS, CALIBRATION_VALUES // n_classes))
    return order[:: -(-len(order) // most)].sort().values


def _mixed(truth: Tensor, noise: Tensor, n_classes: int) -> Tensor:
    """`log((1 - noise) exp(truth) + noise / k)`."""
    return torch.logaddexp(truth + torch.log1p(-noise), torch.log(noise / n_classes))
