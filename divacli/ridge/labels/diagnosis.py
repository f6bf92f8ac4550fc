"""What leaving every sample out says of its label and of the sample itself, in one pass.

A label is wrong with the probability that the label-noise model (`divacli.ridge.labels.noise`) gives it.

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

from divacli.parallel import world
from divacli.ridge.fit.passes import Sums, walk
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.labels.noise_fit import NoiseModel
from divacli.ridge.leave_out.leave_one_out import BatchResiduals, LooResult, batch_residuals
from divacli.ridge.leave_out.losses import Loss


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


class Diagnostician:
    """Enters what is found of batch after batch; `diagnosis` has it all.

    Args:
        task: The samples.
        fit: Their ridge solution, in the task's dtype.
        model: How their labels come about.
    """

    def __init__(self, task: RidgeTask, fit: RidgeFit, model: NoiseModel) -> None:
        self._fit, self._model, self._labels = fit, model.to(task.device), task.labels
        self._k, self._device = task.n_classes, task.device
        self._numbers = torch.zeros(3, len(task), dtype=torch.float64)
        self._suggested = torch.zeros(len(task), dtype=torch.int64)

    def zeros(self) -> Sums:
        """Sums of nothing: expected confusions (k, k), and squared distances from the mean."""
        return [
            torch.zeros(self._k, self._k, dtype=torch.float64, device=self._device),
            torch.zeros(1, dtype=torch.float64, device=self._device),
        ]

    def enter(self, batch: Batch, now: BatchResiduals, sums: Sums) -> None:
        """Judge a batch by its left-out predictions."""
        confusions, total_distance = sums
        labels = self._labels[batch.rows].to(self._device)
        logs = self._model.calibration.logs(now.loo_predictions.double())
        posterior = self._model.posterior_of(logs, labels)
        confusions.index_add_(0, labels, posterior)
        others = posterior.scatter(1, labels[:, None], -1.0).max(dim=1)
        entropy = -(logs.exp() * logs).sum(dim=1) / math.log(self._k)
        distance = (batch.features - self._fit.mean).double().square().sum(dim=1)
        total_distance += distance.sum()
        wrong = 1 - posterior.gather(1, labels[:, None])[:, 0]
        self._numbers[:, batch.rows] = torch.stack(
            [wrong, others.values, distance * entropy.clamp_min(0)]
        ).cpu()
        self._suggested[batch.rows] = others.indices.cpu()

    def diagnosis(self, sums: Sums) -> Diagnosis:
        """What was found, of the batches of all processes."""
        confusions, total_distance = (part.cpu() for part in sums)
        wrong, probability, outlier = world().merged(self._numbers)
        if float(total_distance) > 0:
            outlier *= len(outlier) / total_distance
        return Diagnosis(wrong, world().merged(self._suggested), probability, outlier, confusions.T)


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
    fit = fit.to(task.dtype)
    loo = LooResult.empty(len(task))
    judge = Diagnostician(task, fit, model)

    def visit(batch: Batch, sums: Sums) -> None:
        now = batch_residuals(fit, batch)
        loo.record(batch, now, loss)
        judge.enter(batch, now, sums)

    sums = walk(task, judge.zeros, visit, whole_groups=True)
    return loo.merged(), judge.diagnosis(sums)
