"""What new weights should do to the error on new images, beside the given ones and others at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from divacli.curate.label_trust import label_trust
from divacli.curate.outlook import Outlook, informed
from divacli.features import Samples
from divacli.features.samples import order_by_path
from divacli.progress import Progress
from divacli.ridge import RANDOM, Decide, Problem, Rest, TrainingWeights, forecast, left_out
from divacli.ridge.weights.kfold import drawn
from divacli.solve.ridge_problem import SolveOptions, pose

REWEIGHTING = "reweighting"
"""What the new weights are called in a forecast."""


def reweight_outlook(
    samples: Samples,
    problem: Problem,
    options: SolveOptions,
    n_folds: int,
    sizes: tuple[float, ...],
    progress: Progress,
) -> Outlook:
    """Forecast the error at the new weights beside that at the given ones.

    Raises:
        SolveError: Too few samples for folds.
    """
    order = order_by_path(samples)
    given = problem.task.weights
    if options.balanced:
        # Balancing is a part of what is done.
        given = pose(samples, options).weights
    before = replace(problem, task=replace(problem.task, weights=given), shared=None)
    with progress("walking without each fold", 0):
        if problem.validation is None:
            trust = label_trust(before.task, problem.ridge, order, options.seed)
        else:
            trust = torch.ones(len(problem.validation), dtype=torch.float64)
        parts, _ = drawn(problem, n_folds, options.seed)
        without = left_out(problem, sizes, n_folds=n_folds, seed=options.seed).without
    decide = _without_fold(problem, parts, without, order, balanced=options.balanced)
    with progress("judging the weights by folds", len(parts)) as advance:
        found = forecast(
            before,
            decide,
            trust,
            order=order,
            fixed_ridge=options.ridge is not None,
            n_folds=n_folds,
            seed=options.seed,
            judged=lambda: advance(1),
        )
    return Outlook(informed(found), REWEIGHTING, benefit_of_doubt=1.0)


def _without_fold(
    problem: Problem,
    parts: list[torch.Tensor],
    without: torch.Tensor,
    order: torch.Tensor,
    *,
    balanced: bool,
) -> Decide:
    """The weights that each fold's walk ends at, and the same dealt out at random.

    Args:
        problem: What was improved.
        parts: For each fold (n,) bool which of the judged samples are its.
        without: (K, n) the weights that its walk ends at.
        order: (n,) row numbers of the training samples sorted by path.
        balanced: Whether samples pass their weights on within their class only.
    """

    def decide(rest: Rest) -> Mapping[str, TrainingWeights]:
        (fold,) = (number for number, inside in enumerate(parts) if torch.equal(inside, rest.inside))
        weights = without[fold]
        there = order if problem.validation is not None else order[~rest.inside[order]]
        generator = torch.Generator().manual_seed(rest.seed)
        if problem.shared is None:
            dealt = _dealt(weights, there, problem.task.labels if balanced else None, generator)
        else:
            dealt = _dealt_among(weights, there, problem.shared, generator)
        return {REWEIGHTING: TrainingWeights(weights), RANDOM: TrainingWeights(dealt)}

    return decide


def _dealt(
    weights: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor | None, generator: torch.Generator
) -> torch.Tensor:
    """Weights (n,) of some samples dealt out among them at random, within classes where labels are given."""
    dealt = weights.clone()
    shuffled = rows[torch.randperm(len(rows), generator=generator)]
    if labels is not None:
        rows = rows[torch.argsort(labels[rows], stable=True)]
        shuffled = shuffled[torch.argsort(labels[shuffled], stable=True)]
    dealt[rows] = weights[shuffled]
    return dealt


def _dealt_among(
    weights: torch.Tensor, rows: torch.Tensor, shared: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Weights (n,) where those who share one have the mean of others who do, drawn at random."""
    # Numbered as they come in the order of the paths.
    numbers = list(dict.fromkeys(shared[rows].tolist()))
    place = torch.empty(int(shared.max()) + 1, dtype=torch.int64)
    place[torch.tensor(numbers)] = torch.arange(len(numbers))
    mine = place[shared[rows]]
    sums = torch.zeros(len(numbers), dtype=torch.float64).index_add_(0, mine, weights[rows])
    means = sums / torch.bincount(mine, minlength=len(numbers))
    dealt = weights.clone()
    dealt[rows] = means[torch.randperm(len(numbers), generator=generator)][mine]
    # The same sum, so that the same ridge suits.
    return dealt * (weights.sum() / dealt.sum())
