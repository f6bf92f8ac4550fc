"""Cross-entropy on calibrated predictions, in which a share of the labels may be wrong.

Ridge predictions are no log-probabilities, and the labels they are compared with may be wrong. Both are
modelled:

    p(y | f) = (1 - noise) softmax(t f + b)_y + noise / k

With temperature, class biases and noise fitted to left-out predictions, the loss `-log p` neither rewards
mere confidence (`t` has taken that already) nor chases labels that the other samples speak against: its
gradient fades as a label becomes implausible.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge.fit.descent import minimiser
from divacli.ridge.leave_out.losses import Hessian

CALIBRATION_VALUES = 4_000_000
"""Predictions (rows x classes) that calibration looks at, at the most."""

CALIBRATION_ROWS = 20_000
"""Samples that calibration looks at, at the most: it fits k + 2 numbers."""


@dataclass(frozen=True)
class RobustCrossEntropy:
    """`l(f, y) = -log((1 - noise) softmax(t f + b)_y + noise / k)`, in nats.

    Attributes:
        inverse_temperature: `t` >= 0.
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
        return -torch.logaddexp(*self._shares(truth, predictions.shape[1]))

    def gradient(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """`t q (softmax(t f + b) - y)`, (b, k), with `q` the probability that the label is not noise."""
        probabilities, genuine = self._genuine(predictions, targets)
        return self.inverse_temperature * genuine[:, None] * (probabilities - targets)

    def hessian(self, predictions: Tensor, targets: Tensor) -> Hessian:
        """`t^2 q (diag(p) - p p' - (1 - q) (p - y) (p - y)')` with `p = softmax(t f + b)`."""
        probabilities, genuine = self._genuine(predictions, targets)
        scale = self.inverse_temperature**2 * genuine
        off = probabilities - targets
        outer = ((-scale, probabilities), (-scale * (1 - genuine), off))
        return Hessian(scale[:, None] * probabilities, outer)

    def curvature(self, predictions: Tensor) -> Tensor:
        """Second derivative of `-log softmax(t f + b)`, the mean over all directions that move it, (b,)."""
        concentration = self.probabilities(predictions).square().sum(dim=1)
        return self.inverse_temperature**2 * (1 - concentration) / (predictions.shape[1] - 1)

    def _genuine(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """`softmax(t f + b)` (b, k), and the probability (b,) that the label is not noise."""
        logs = torch.log_softmax(self._logits(predictions), dim=1)
        clean, wrong = self._shares((targets * logs).sum(dim=1), predictions.shape[1])
        return logs.exp(), torch.sigmoid(clean - wrong)

    def _shares(self, truth: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
        return _logs_of_shares(truth, truth.new_tensor(self.noise), n_classes)

    def _logits(self, predictions: Tensor) -> Tensor:
        return self.inverse_temperature * predictions + self.bias.to(predictions)


def calibrate(
    predictions: Tensor, labels: Tensor, mask: Tensor, *, bias: bool = True, noise: bool = True
) -> RobustCrossEntropy:
    """Fit temperature, class biases and noise by maximum likelihood, with weak priors.

    The priors are worth a sample each: one whose label is drawn at random (predictions without a mistake
    would otherwise ask for certainty, where every derivative vanishes), one whose label is right (where
    predictions say nothing, any noise would do), and standard normal biases.

    Args:
        predictions: (m, k) left-out predictions.
        labels: (m,) int64 given labels.
        mask: (m,) validation weights `v` >= 0, not all zero.
        bias: Whether classes have biases; without, the predictions' own largest entry decides.
        noise: Whether labels may be wrong.
    """
    n_classes = predictions.shape[1]
    f, labels = predictions.double().cpu(), labels.cpu()
    share = mask.double().cpu()
    share = share / share.sum()
    # One over the effective number of samples.
    prior = share.square().sum()
    spread = (share @ (f - f.mean(dim=1, keepdim=True)).square().mean(dim=1)).sqrt()
    unit = 1 / (float(spread) + 1e-6)

    def unpacked(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Functions of unbounded numbers that have a plain minimum where the best scale or noise is zero: of
        # exponentials the slope would fade there, and the search stall.
        wrong = theta[1].sin().square().clamp(1e-300, 1 - 1e-12) if noise else torch.zeros_like(theta[1])
        return unit * theta[0].square(), theta[2:] * float(bias), wrong

    def objective(theta: Tensor) -> Tensor:
        scale, biases, wrong = unpacked(theta)
        logs = torch.log_softmax(scale * f + biases, dim=1)
        truth = logs.gather(1, labels[:, None])[:, 0]
        likelihood = share @ torch.logaddexp(*_logs_of_shares(truth, wrong, n_classes))
        drawn, right, normal = share @ logs.mean(dim=1), torch.log1p(-wrong), -biases.square().sum() / 2
        return -likelihood - prior * (drawn + right + normal)

    start, curvature = torch.zeros(2, 2 + n_classes, dtype=torch.float64)
    # Cautious predictions, from which the search rarely ends in another than the best minimum.
    start[0], start[1] = 0.7, 0.2
    curvature[:2], curvature[2:] = 1, 1 / (3 * n_classes)
    scale, biases, wrong = unpacked(minimiser(objective, start, curvature))
    return RobustCrossEntropy(float(scale), biases, float(wrong))


def calibration_rows(order: Tensor, mask: Tensor, n_classes: int) -> Tensor:
    """Evenly spaced samples to calibrate on, (m,) ascending row numbers, of those that count.

    Args:
        order: (n,) row numbers of the samples in an order that does not depend on how they are stored.
        mask: Validation weights `v` of all rows.
        n_classes: k.

    Raises:
        SolveError: No sample counts.
    """
    counting = order[mask[order] > 0]
    if not len(counting):
        raise SolveError("no sample counts in the validation loss", expected="a positive validation mask")
    most = max(1, min(CALIBRATION_ROWS, CALIBRATION_VALUES // n_classes))
    return counting[:: -(-len(counting) // most)].sort().values


def _logs_of_shares(truth: Tensor, noise: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """`log((1 - noise) p)` and `log(noise / k)` for `truth = log p`: what a label owes to either source."""
    return truth + torch.log1p(-noise), torch.log(noise / n_classes)
