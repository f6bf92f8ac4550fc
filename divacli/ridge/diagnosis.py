"""What leaving every sample out says of its label and of the sample itself, in one pass.

A label is wrong with the probability that the label-noise model (`divacli.ridge.noise`) gives it.

An outlier is no label error: a foreign picture is far from all others, and no class claims it. Its score is
the product of the two,

    outlier_i = |z_i - mean|^2 / (mean of all) * H(q_i) / log k

Leverage in the limit of a strong ridge is proportional to the squared distance from the mean, and the entropy
`H` of the class probabilities before the label is looked at is the expected residual, whatever the label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.ridge.leave_one_out import LooResult, batch_residuals
from divacli.ridge.losses import Loss
from divacli.ridge.noise import NoiseModel
from divacli.ridge.spectrum import RidgeFit
from divacli.ridge.task import RidgeTask


@dataclass(frozen=True)
class Diagnosis:
    """What the left-out predictions say of every sample, on the CPU.

    Attributes:
        mislabel_probability: (n,) float64 probability that the given label is not the true one.
        suggested: (n,) int64 most probable class other than the given one.
        suggested_probability: (n,) float64 its probability.
        outlier_score: (n,) float64 >= 0; 1 is a sample as far from the mean as the average one, and of which
            nothing is known. Large: like nothing else in the set, under any label.
        confusions: (k, k) float64 expected number of samples by true class (row) and given label (column).
    """

    mislabel_probability: Tensor
    suggested: Tensor
    suggested_probability: Tensor
    outlier_score: Tensor
    confusions: Tensor


def diagnose(task: RidgeTask, fit: RidgeFit, loss: Loss, model: NoiseModel) -> tuple[LooResult, Diagnosis]:
    """Leave every sample out and judge it: O(n d^2 + n k^2), in batches.

    Args:
        task: The samples.
        fit: Their ridge solution.
        loss: Of the leave-one-out loss.
        model: How their labels come about.

    Raises:
        SolveError: A sample's weighted leverage is one.
    """
    fit, model = fit.to(task.dtype), model.to(task.device)
    n, k = len(task), task.n_classes
    loo = LooResult.empty(n)
    found = Diagnosis(
        torch.zeros(n, dtype=torch.float64),
        torch.zeros(n, dtype=torch.int64),
        torch.zeros(n, dtype=torch.float64),
        torch.zeros(n, dtype=torch.float64),
        torch.zeros(k, k, dtype=torch.float64),
    )
    confusions = torch.zeros(k, k, dtype=torch.float64, device=task.device)
    total_distance = 0.0
    for batch in task.whole_groups():
        now = batch_residuals(fit, batch)
        loo.record(batch, now, loss)
        labels = task.labels[batch.rows].to(task.device)
        logs = model.calibration.logs(now.loo_predictions.double())
        posterior = model.posterior_of(logs, labels)
        confusions.index_add_(0, labels, posterior)
        others = posterior.scatter(1, labels[:, None], -1.0).max(dim=1)
        entropy = -(logs.exp() * logs).sum(dim=1) / math.log(k)
        distance = (batch.features - fit.mean).double().square().sum(dim=1)
        found.mislabel_probability[batch.rows] = (1 - posterior.gather(1, labels[:, None])[:, 0]).cpu()
        found.suggested[batch.rows] = others.indices.cpu()
        found.suggested_probability[batch.rows] = others.values.cpu()
        found.outlier_score[batch.rows] = (distance * entropy.clamp_min(0)).cpu()
        total_distance += float(distance.sum())
    found.confusions.copy_(confusions.T)
    if total_distance > 0:
        found.outlier_score.mul_(n / total_distance)
    return loo, found
