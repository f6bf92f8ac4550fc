"""From left-out predictions of ridge regression to probabilities of the true class.

    q(. | f) = softmax(log softplus(g f / s) Theta + b)

Ridge predictions of one-hot labels estimate probabilities, with errors that make some of them negative:
`softplus` makes them positive, and the posterior is a power of them, not an exponential.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Calibration:
    """Probabilities of the true class.

    Attributes:
        scale: `s` of predictions: the root of their mean squared distance from each sample's mean.
        sharpness: `g` > 0.
        mixing: (k, k) float64 `Theta`, near a multiple of the identity.
        bias: (k,) float64 `b`.
    """

    scale: float
    sharpness: float
    mixing: Tensor
    bias: Tensor

    @property
    def inverse_temperature(self) -> float:
        """The exponent of the predictions, the mean of the classes."""
        return float(self.mixing.diagonal().mean())

    def to(self, device: torch.device) -> Calibration:
        """The same calibration on another device."""
        return replace(self, mixing=self.mixing.to(device), bias=self.bias.to(device))

    def logs(self, predictions: Tensor) -> Tensor:
        """Log-probability (m, k) of each class being the true one, before the label is looked at."""
        inputs = log_softplus(self.sharpness / self.scale * predictions)
        return torch.log_softmax(inputs @ self.mixing + self.bias, dim=1)


def scale_of(predictions: Tensor) -> float:
    """`s` of predictions (m, k); 1 where they say nothing."""
    spread = float((predictions - predictions.mean(dim=1, keepdim=True)).square().mean().sqrt())
    return spread if spread > 0 else 1.0


def log_softplus(values: Tensor) -> Tensor:
    """`log log(1 + e^u)`, also where the inner logarithm is too small for a float."""
    return torch.where(values < -30, values, torch.nn.functional.softplus(values.clamp_min(-30)).log())
