"""A second estimate of wrong labels, from samples whose left-out prediction is another class.

The model of `noise.py` compares labels with predictions. Where the network was trained on these labels,
predictions lean towards wrong ones. The model takes them for samples that look like two classes. This
estimate does not use how probable a label was. It compares classes:

*Distance.* Features confuse classes that are close to each other. A label that is wrong at random is as
often one of a distant class. With `c` the predicted class, `y` the label, `s` the second most probable class
and `r(c, .)` the rank of a class by its distance from `c`, from 0 to 1, the share of wrong labels among the
disagreements is

    mean (r(c, y) - r(c, s)) / mean (r(c, any other label) - r(c, s))

On clean labels it is 0 or below. Mistakes of people are near, so it finds only a part of them.

*Direction.* Features confuse two classes both ways. How often either is predicted may differ, so
`N[c, y] = S[c, y] a_c / (a_c + a_y)` with a symmetric `S` (Bradley and Terry 1952). Labels that were moved
from one class to another do not fit.
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
from divacli.ridge.leave_out.leave_one_out import batch_residuals

_MOST_ROWS = 20_000
"""Samples that are looked at, at the most."""

_FEWEST = 20
"""Disagreements below which nothing is estimated."""

_FEWEST_CLASSES = 4

_SURE = 1.9
"""Standard errors by which the share must be above 0."""

_LEAST = 0.1
"""Share below which it may be no more than the inaccuracy of the ranks. With clean labels it was 0.13 on one
of 33 sets of features, and below 0.08 on the others."""

_ONE_WAY, _ONE_WAY_SURE = 0.07, 3.0
"""Share of one-way disagreements, and its standard errors, from which labels were moved one way. Without such
moves it was 0.06 at the most, with 20 % of them 0.10 to 0.29."""

_MORE_FREQUENT = 1.5
"""Factor by which one way must be more frequent than the other."""

_AGREEING = 2
"""Samples that a class must have for its mean."""

_ROUNDS = 100


@dataclass(frozen=True)
class Disagreement:
    """Wrong labels among the samples whose left-out prediction is another class.

    Attributes:
        share: Share of wrong labels, by the distance of the classes; 0 where that is not sure.
        one_way: Share of labels that go one way between two classes; 0 where that is not sure.
        ways: (k, k) bool, from the predicted class (row) to the label: the clearly more frequent of two ways.
    """

    share: float
    one_way: float
    ways: Tensor


def examine_disagreement(task: RidgeTask, fit: RidgeFit, rows: Tensor) -> Disagreement:
    """Estimate how many disagreements are wrong labels: O(m d (r + k)), in batches.

    Args:
        task: The problem.
        fit: The ridge solution.
        rows: (m,) int64 samples to look at, in an order that does not depend on how they are stored; of very
            many evenly spaced ones.

    Raises:
        SolveError: A sample's weighted leverage is one.
    """
    k = task.n_classes
    nothing = Disagreement(0.0, 0.0, torch.zeros(k, k, dtype=torch.bool))
    if k < _FEWEST_CLASSES:
        return nothing
    rows = rows[:: max(1, -(-len(rows) // _MOST_ROWS))]
    if task.groups is None:
        # Samples that are left out alone need no others.
        task, rows = task.select(rows), torch.arange(len(rows))
    predicted, distances = _looked_at(task, fit, rows)
    first, second = predicted[:, rows]
    labels = task.labels[rows]
    other = first != labels
    if int(other.sum()) < _FEWEST:
        return nothing
    frequency = torch.bincount(labels, minlength=k).double()
    counts = torch.bincount(first[other] * k + labels[other], minlength=k * k).double().view(k, k)
    return Disagreement(
        distant(first[other], labels[other], second[other], frequency, distances),
        one_way(counts),
        counts > _MORE_FREQUENT * counts.T,
    )


def _looked_at(task: RidgeTask, fit: RidgeFit, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The two most probable classes (2, n) of the samples, and distances (k, k) of the classes.

    The place of a class is the mean of its samples whose prediction agrees. Without two of these its
    distances are infinite.
    """
    fit = fit.to(task.dtype)
    wanted = torch.zeros(len(task), dtype=torch.bool)
    wanted[rows] = True
    found = torch.zeros(2, len(task), dtype=torch.int64)
    d = task.features.shape[1]

    def zeros() -> Sums:
        return [torch.zeros(task.n_classes, size, dtype=torch.float64, device=task.device) for size in (d, 1)]

    def visit(batch: Batch, sums: Sums) -> None:
        best = batch_residuals(fit, batch).loo_predictions.topk(2, dim=1).indices
        found[:, batch.rows] = best.T.cpu()
        classes = batch.labels.argmax(dim=1)
        kept = (best[:, 0] == classes) & wanted[batch.rows].to(task.device)
        features = batch.features[kept].double()
        sums[0].index_add_(0, classes[kept], features)
        sums[1].index_add_(0, classes[kept], features.new_ones(len(features), 1))

    total, count = (part.cpu() for part in walk(task, zeros, visit, whole_groups=True))
    distances = torch.cdist(total / count, total / count)
    unknown = count[:, 0] < _AGREEING
    distances[unknown, :], distances[:, unknown] = math.inf, math.inf
    return world().merged(found), distances.fill_diagonal_(0)


def distant(first: Tensor, given: Tensor, second: Tensor, frequency: Tensor, distances: Tensor) -> float:
    """Share of wrong labels among disagreements, by the distance of the classes.

    Args:
        first: (m,) int64 predicted classes.
        given: (m,) int64 labels.
        second: (m,) int64 second most probable classes.
        frequency: (k,) float64 of the labels among all samples.
        distances: (k, k) float64 between the classes; infinite where one is unknown.
    """
    known = distances.isfinite().sum(dim=1) > 1
    kept = known[first] & known[given] & known[second]
    first, given, second = first[kept], given[kept], second[kept]
    if len(first) < _FEWEST:
        return 0.0
    ranks = distances.clone().fill_diagonal_(-1).argsort(dim=1).argsort(dim=1) - 1
    ranks = ranks.double() / max(int(known.sum()) - 2, 1)
    others = (frequency * known).expand_as(ranks).clone().fill_diagonal_(0)
    usual = (ranks * others).sum(dim=1) / others.sum(dim=1).clamp_min(1)
    near = ranks[first, second]
    gain, most = ranks[first, given] - near, float((usual[first] - near).mean())
    error = float(gain.std()) / math.sqrt(len(gain))
    if most <= 0 or float(gain.mean()) <= _SURE * error:
        return 0.0
    share = float(gain.mean()) / most
    return min(share, 1.0) if share > _LEAST else 0.0


def one_way(counts: Tensor) -> float:
    """Share of disagreements that go one way between two classes.

    Args:
        counts: (k, k) float64 number by predicted class (row) and label (column).
    """
    k = len(counts)
    both = counts + counts.T
    # Half a win and half a defeat against a class of strength 1 keep all strengths finite.
    wins, strength = counts.sum(dim=1) + 0.5, torch.ones(k, dtype=torch.float64)
    for _ in range(_ROUNDS):
        strength = wins / ((both / (strength[:, None] + strength)).sum(dim=1) + 1 / (strength + 1))
        strength = strength / strength.log().mean().exp()
    expected = strength[:, None] / (strength[:, None] + strength)
    variance = both * expected * (1 - expected)
    # Each pair stands twice. Of a normal deviation the mean is sqrt(2 / pi) times its standard deviation.
    excess = float(((counts - both * expected).abs() - (variance * 2 / math.pi).sqrt()).sum())
    error = math.sqrt(2 * float(variance.sum()) * (1 - 2 / math.pi))
    share = excess / float(counts.sum())
    return share if share > _ONE_WAY and excess > _ONE_WAY_SURE * error else 0.0
