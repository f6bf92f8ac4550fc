"""Weights of samples, half by half: each half by features of a network that has not seen its labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from divacli.curate.reweight import problem_of
from divacli.curate.solution import SolveOptions, class_numbers, group_numbers, order_by_path, pose
from divacli.embed import Samples
from divacli.embed.gathered import whole
from divacli.errors import DataError
from divacli.ridge import SIZES, Problem, choose_steps, differentiate, left_out, stepped
from divacli.ridge.folds import split_in_folds


@dataclass(frozen=True)
class Moved:
    """Weights after one step, if any.

    Attributes:
        weights: (n,) float64.
        kfold_loss: Of left-out samples, at these weights.
        loo_error: Share of samples with a wrong leave-one-out prediction, at these weights.
        step_size: Of the step, the mean over the halves; 0 for none.
    """

    weights: Tensor
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
        self, features: Tensor, weights: Tensor, size: float | None, tried: Callable[[], None]
    ) -> Moved:
        """The weights after one step of each half, if any.

        Args:
            features: (n, d), each sample's by a network that has not seen it.
            weights: (n,) float64.
            size: Of the step, in units of the mean absolute derivative; 0 for none; None: chosen by K-fold.
            tried: Called after every size that was tried.

        Raises:
            SolveError: The ridge problem has no answer.
        """
        after = weights.clone()
        parts: list[tuple[int, Moved]] = []
        for half in (0, 1):
            rows = (self.number == half).nonzero()[:, 0]
            problem = _problem(with_features(self._samples, rows, features, weights), self._solve)
            part = _improved(problem, size, self._solve.seed, tried)
            after[rows] = part.weights
            parts.append((len(rows), part))
        means = (
            sum(float(getattr(part, name)) * count / len(weights) for count, part in parts)
            for name in ("kfold_loss", "loo_error", "step_size")
        )
        return Moved(after, *means)


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


def _improved(problem: Problem, size: float | None, seed: int, tried: Callable[[], None]) -> Moved:
    """Take one step from the problem's weights, if any.

    Args:
        problem: At the weights before.
        size: As in `Halves.moved`.
        seed: Of the folds.
        tried: Called after every size that was tried.
    """
    weights, taken = problem.task.weights, 0.0
    if size != 0:
        sizes = SIZES if size is None else (size,)
        choice = choose_steps(problem, most=1, sizes=sizes, seed=seed, tried=tried)
        taken = size or next(iter(choice.sizes), 0.0)
    if taken:
        # The trial's loss, not that of the moved weights: in setting these every fold has had a say.
        loss = next(trial.loss for trial in choice.trials if trial.size == taken)
        weights = stepped(weights, differentiate(problem, weights).derivative, taken)
    else:
        loss = left_out(problem, seed=seed).loss
    error = differentiate(replace(problem, robust=False), weights).error
    return Moved(weights, loss, error, taken)
