"""What probabilities of transforms should do to the error on untouched images, beside none and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from divacli.curate.label_trust import label_trust
from divacli.curate.outlook import Outlook, informed
from divacli.features import Samples
from divacli.features.samples import order_by_path
from divacli.progress import Progress
from divacli.ridge import RANDOM, Decide, Problem, Rest, TrainingWeights, forecast, share_weights
from divacli.ridge.weights.shares import equal_shares, walk_shares
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.transformed_copies import untouched_shares

AUGMENTING, EQUAL = "augmenting", "equal"
"""What the probabilities found, and equal ones, are called in a forecast; "nothing" is untouched images."""


def augment_outlook(
    samples: Samples,
    problem: Problem,
    options: SolveOptions,
    n_folds: int,
    sizes: Sequence[float],
    chosen: Tensor | None,
    progress: Progress,
) -> Outlook:
    """Forecast the error on untouched images at the probabilities found, beside untouched images alone.

    Args:
        samples: (n) the images.
        problem: As from `pose_merged`.
        options: How it was posed.
        n_folds: K.
        sizes: Of the steps that were taken.
        chosen: (K,) the shares where no steps lead to them; None: those of each fold's own walk.
        progress: Told of every fold.

    Raises:
        SolveError: Too few samples for folds.
    """
    order = order_by_path(samples)
    # What there is without any transform: all copies weigh nothing.
    alone = replace(problem.task, weights=share_weights(problem, untouched_shares(equal_shares(problem))))
    if problem.validation is None:
        with progress("estimating label noise", 0):
            images = alone.select(torch.arange(len(samples)))
            trust = torch.ones(len(alone), dtype=torch.float64)
            trust[: len(samples)] = label_trust(images, problem.ridge, order, options.seed)
    else:
        trust = torch.ones(len(problem.validation), dtype=torch.float64)
    with progress("judging the probabilities by folds", n_folds) as advance:
        found = forecast(
            replace(problem, task=alone, shared=None),
            _without_fold(problem, sizes, chosen),
            trust,
            order=None if problem.validation is None else torch.arange(len(alone)),
            fixed_ridge=options.ridge is not None,
            n_folds=n_folds,
            seed=options.seed,
            judged=lambda: advance(1),
        )
    return Outlook(informed(found), AUGMENTING)


def _without_fold(problem: Problem, sizes: Sequence[float], chosen: Tensor | None) -> Decide:
    """The probabilities that a walk without the fold ends at, equal ones, and some at random.

    Args:
        problem: As from `pose_merged`.
        sizes: Of the steps to take.
        chosen: As of `augment_outlook`.
    """

    def decide(rest: Rest) -> Mapping[str, TrainingWeights]:
        weights = problem.task.weights
        if problem.validation is None:
            weights = torch.where(rest.inside, 0.0, weights)
        # The features of `rest` are in memory, where there is room.
        posed = replace(rest.problem, task=replace(rest.task, weights=weights), shared=problem.shared)
        equal = equal_shares(problem)
        drawn = torch.rand(
            len(equal), generator=torch.Generator().manual_seed(rest.seed), dtype=torch.float64
        )
        # Exponential numbers over their sum are uniform on the simplex.
        exponential = -torch.log1p(-drawn)
        shares = {
            AUGMENTING: walk_shares(posed, sizes) if chosen is None else chosen,
            EQUAL: equal,
            RANDOM: exponential * (equal.sum() / exponential.sum()),
        }
        return {name: TrainingWeights(share_weights(posed, share)) for name, share in shares.items()}

    return decide
