"""Weights of samples, half by half: each half by features of a network that has not seen its labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from divacli.errors import DataError
from divacli.features import Samples
from divacli.features.feature_rows import whole
from divacli.features.samples import order_by_path
from divacli.ridge import Problem, choose_steps, differentiate, left_out, stepped
from divacli.ridge.fit.folds import split_in_folds
from divacli.solve.groups import group_numbers
from divacli.solve.ridge_problem import SolveOptions, class_numbers, pose
from divacli.solve.weight_problem import problem_of


@dataclass(frozen=True)
class Moved:
    """Weights after one step, if any.

    Attributes:
        weights: (n,) float64.
        without: For each half (K, m) float64, what its weights would be if the samples of one fold had had no
            part in them.
        kfold_loss: Of left-out samples, by fits at the weights without them.
        loo_error: Share of samples with a wrong leave-one-out prediction, at these weights.
        step_size: Of the step, the mean over the halves; 0 for none.
    """

    weights: Tensor
    without: tuple[Tensor, ...]
    kfold_loss: float
    loo_error: float
    step_size: float


class Halves:
    """Two random halves of some samples, balanced by class, groups kept whole.

    Args:
        samples: All samples; their features are not looked at.
        solve: How the ridge problem of each half is posed, and the seed of halves and folds.

    Attributes:
        number: (n,) int64, the half of each sample: 0 or 1.

    Raises:
        DataError: A half has a single class.
    """

    def __init__(self, samples: Samples, solve: SolveOptions) -> None:
        kept = samples.manifest
        labels = class_numbers(kept, kept.classes)
        self._samples, self._solve = samples, solve
        groups = group_numbers(kept, solve.group)
        self.number = split_in_folds(labels, order_by_path(samples), solve.seed, 2, groups)
        if any(len(labels[self.number == half].unique()) < 2 for half in (0, 1)):
            raise DataError(
                f"{kept.name}: one half of its {len(kept.table):,} images has a single class",
                expected="images of two classes or more in each half: samples are weighed by a network "
                "trained on the other half",
                hint="use more images",
            )

    def moved(
        self,
        features: Tensor,
        weights: Tensor,
        without: tuple[Tensor, ...] | None,
        size: float | None,
        tried: Callable[[], None],
    ) -> Moved:
        """The weights after one step of each half, if any.

        Args:
            features: (n, d), each sample's by a network that has not seen it.
            weights: (n,) float64.
            without: Of the moves that led to these weights; None: no label has moved them.
            size: Of the step, in units of the mean absolute derivative; 0 for none; None: chosen by K-fold.
            tried: Called after every size that was tried.

        Raises:
            SolveError: The ridge problem has no answer.
        """
        after = weights.clone()
        parts: list[tuple[Tensor, Moved]] = []
        for half in (0, 1):
            rows = (self.number == half).nonzero()[:, 0]
            problem = _problem(with_features(self._samples, rows, features, weights), self._solve)
            before = None if without is None else without[half]
            parts.append((rows, _improved(problem, before, size, self._solve.seed, tried)))
            after[rows] = parts[-1][1].weights
        means = (
            sum(float(getattr(part, name)) * len(rows) / len(weights) for rows, part in parts)
            for name in ("kfold_loss", "loo_error", "step_size")
        )
        return Moved(after, tuple(one for _, part in parts for one in part.without), *means)


def with_features(samples: Samples, rows: Tensor, features: Tensor, weights: Tensor) -> Samples:
    """Some samples, by their row numbers (m,), with features and weights.

    Args:
        samples: All n samples.
        rows: (m,) int64.
        features: (n, d) float32 of all.
        weights: (n,) float64 of all.
    """
    manifest = samples.manifest.select(rows.numpy())
    manifest = replace(manifest, table=manifest.table.assign(weight=weights[rows].numpy()))
    return replace(samples, manifest=manifest, features=whole(features[rows].numpy()), keys=None)


def _problem(samples: Samples, solve: SolveOptions) -> Problem:
    """The ridge problem of some samples at their weights."""
    return problem_of(pose(samples, solve), solve, order_by_path(samples))


def _improved(
    problem: Problem, without: Tensor | None, size: float | None, seed: int, tried: Callable[[], None]
) -> Moved:
    """Take one step from the problem's weights, if any.

    Args:
        problem: At the weights before.
        without: (K, m) of this half, as in `Halves.moved`, and so are the others.
        size: Of the step.
        seed: Of the folds.
        tried: Called after every size that was tried.
    """
    if size is None:
        choice = choose_steps(problem, most=1, seed=seed, without=without, tried=tried)
        sizes = choice.sizes
    else:
        sizes = (size,) if size else ()
        tried()
    judged = left_out(problem, sizes, seed=seed, without=without)
    weights = problem.task.weights
    for taken in sizes:
        weights = stepped(weights, differentiate(problem, weights).derivative, taken)
    error = differentiate(replace(problem, robust=False), weights).error
    return Moved(weights, (judged.without,), judged.loss, error, sum(sizes))
