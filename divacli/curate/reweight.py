"""Choose sample weights that lower the validation loss, and how far to go, without a validation set."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from divacli.curate.outlook import Outlook, informed
from divacli.curate.sample_scores import label_noise
from divacli.curate.suspects import MORE_LIKELY_WRONG
from divacli.embed import Samples
from divacli.embed.samples import order_by_path
from divacli.errors import DataError, SolveError
from divacli.manifest.columns import without_scores
from divacli.progress import Progress, silent
from divacli.results.result import Target
from divacli.ridge import (
    RANDOM,
    SIZES,
    Decide,
    Problem,
    Rest,
    RidgeTask,
    Span,
    StepChoice,
    Training,
    choose_steps,
    decompose,
    differentiate,
    forecast,
    left_out,
    loo_predictions,
    moments,
    predictable,
    ridge_path,
    stepped,
)
from divacli.ridge.weights.kfold import drawn
from divacli.solve.groups import group_numbers
from divacli.solve.loader import Given, Loader
from divacli.solve.pose import SolveOptions, balanced, pose, pose_validation
from divacli.solve.provenance import provenance

FILES = ("reweighted", "reweight.json")
"""What is always written."""

Sharing = Literal["sample", "class", "group"]
"""Whether every sample has a weight of its own or shares one with its class or group."""

REWEIGHTING = "reweighting"
"""What the new weights are called in a forecast."""

_MOST_JUDGED = 1000
"""Classes beyond which every label is trusted: a noise model of more would take longer than all the rest."""

MOST_STEPS = {"sample": 3, "class": 10, "group": 10}
"""Steps tried at the most: the leave-one-out loss stays honest for longer where few weights are fitted."""


@dataclass(frozen=True)
class ReweightOptions:
    """How weights are moved.

    Attributes:
        size: Of every step, in units of the mean absolute derivative; None: chosen by K-fold.
        steps: How many; where the size is chosen, how many at the most. None: 1, or by `MOST_STEPS`.
        per: Which samples share a weight.
        n_folds: K.
    """

    size: float | None = None
    steps: int | None = None
    per: Sharing = "sample"
    n_folds: int = 5


@dataclass(frozen=True)
class ReweightResult:
    """New weights.

    Attributes:
        table: The samples in their own order with their new weights; scores of an earlier run are left out.
        samples: What was weighted.
        choice: What K-fold decided; None where the step size was given.
        history: One row for each state from the first weights on: step, size of the step that led there, loss
            (the one that is differentiated, calibrated at these weights; mean over validation samples),
            error, zero (share of weights that are 0).
        summary: For JSON.
        outlook: What the new weights should do to the error on new images; None where none is new, or that
            is not known.
        unknown: Why it is not known.
        written: Whether the new weights are the table's; else the given ones stay, for the forecast is that
            the steps raise the error by more than a standard error.
    """

    table: pd.DataFrame
    samples: Samples
    choice: StepChoice | None
    history: pd.DataFrame
    summary: dict[str, Any]
    outlook: Outlook | None = None
    unknown: str = ""
    written: bool = True

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        if self.choice is not None and not self.choice.sizes:
            balanced = self.summary["validation"] == "balanced"
            start = "those that balance the classes" if balanced else "as they were"
            yield (
                "no step lowers the loss of left-out samples by more than two of its standard errors: "
                f"the weights are {start}"
            )
        if not self.written:
            yield "the steps should raise the error on new images: the weights are as they were"
        if self.unknown:
            yield f"no forecast was made: {self.unknown}"

    def write(self, target: Target) -> None:
        """Write all tables and the summary."""
        origin = self.samples.manifest.folder
        target.table("failed", self.samples.failed, origin, part=True)
        target.json("reweight.json", self.summary)
        target.table("reweighted", self.table, origin, main=True, part=True)


def reweight_data(
    loader: Loader,
    data: Given,
    options: SolveOptions,
    how: ReweightOptions,
    validation: Given | None = None,
) -> ReweightResult:
    """Embed samples and weigh them as `reweight` does.

    Args:
        loader: Of this run.
        data: What is weighted.
        options: As for `reweight`.
        how: As for `reweight`.
        validation: DATA whose loss is lowered in place of the leave-one-out loss.

    Raises:
        DivaError: The samples cannot be used, or the problem has no answer.
    """
    samples, judged = loader.load_both(data, validation)
    return reweight(samples, options, how, judged, loader.progress)


def reweight(
    samples: Samples,
    options: SolveOptions,
    how: ReweightOptions,
    validation: Samples | None = None,
    progress: Progress = silent,
) -> ReweightResult:
    """Move sample weights against the derivative of the leave-one-out or a validation set's loss.

    With `options.balanced` the walk starts where the training loss counts classes as the validation loss
    does: at the given weights divided by the classes' sizes.

    Args:
        samples: What is weighted; their weights are where the walk starts.
        options: How the problem is posed; its loss is "squared" or "robust-cross-entropy".
        how: Steps, and which samples share a weight.
        validation: A separate validation set.
        progress: Told of every step size that was tried.

    Raises:
        DataError: No groups to share weights, or a validation set that does not fit.
        SolveError: The problem has no answer.
    """
    start = time.monotonic()
    with progress("choosing the ridge", 0):
        problem = pose_problem(samples, options, validation, how.per)
    steps = how.steps or (MOST_STEPS[how.per] if how.size is None else 1)
    choice = None
    if how.size is not None:
        sizes = (how.size,) * steps
    else:
        with progress("trying steps", steps * len(SIZES)) as advance:
            choice = choose_steps(
                problem, most=steps, n_folds=how.n_folds, seed=options.seed, tried=lambda: advance(1)
            )
        sizes = choice.sizes
    with progress("weighing the samples", 0):
        weights, history = walk(problem, sizes)
    outlook, unknown = None, ""
    # Balanced weights are new ones without a step, too.
    if sizes or options.balanced:
        try:
            outlook = _outlook(samples, problem, options, how, sizes, progress)
        except SolveError as error:
            unknown = error.got
    # Steps lower a loss; where they raise the error by more than noise, they are not what was wanted.
    written = choice is None or options.balanced or outlook is None or outlook.pays
    if not written:
        weights = problem.task.weights
    table = without_scores(samples.manifest.table).assign(weight=weights.numpy())
    seconds = time.monotonic() - start
    summary = {
        "n_samples": len(table),
        "n_classes": len(samples.manifest.classes),
        "per": how.per,
        "loss": options.loss,
        "validation": "balanced" if options.balanced else "natural",
        "ridge": problem.ridge,
        "step_size": how.size,
        "sizes": list(sizes),
        "n_zero": int((weights == 0).sum()),
        "effective_samples": float(weights.sum().square() / weights.square().sum()),
        "history": history.to_dict(orient="records"),
        "trials": None if choice is None else [vars(trial) for trial in choice.trials],
        "seconds": {"embed": round(samples.seconds, 3), "solve": round(seconds, 3)},
        **provenance(samples, options, validation),
        "written": "new weights" if written and (sizes or options.balanced) else "given weights",
        "forecast": None if outlook is None else outlook.as_dict(),
    }
    return ReweightResult(table, samples, choice, history, summary, outlook, unknown, written)


def pose_problem(
    samples: Samples, options: SolveOptions, validation: Samples | None = None, per: Sharing = "sample"
) -> Problem:
    """What `divacli.ridge.weights` improves, its ridge at the leave-one-out optimum of the first weights.

    Raises:
        DataError: No groups to share weights, or a validation set that does not fit.
    """
    task = pose(samples, options)
    held_out = None if validation is None else pose_validation(task, samples, validation, options)
    if options.balanced:
        task = replace(task, weights=balanced(task.weights, task.labels))
    order = order_by_path(samples if validation is None else validation)
    return problem_of(task, options, order, _shared(samples, task, options, per), held_out)


def problem_of(
    task: RidgeTask,
    options: SolveOptions,
    order: torch.Tensor,
    shared: torch.Tensor | None = None,
    validation: RidgeTask | None = None,
) -> Problem:
    """A posed task as a problem of weights, in the span of its samples where these are few.

    Args:
        task: The samples at the weights to begin with.
        options: Its ridge (where there is none, the leave-one-out optimum of the task), loss and balance.
        order: As in `Problem`.
        shared: As in `Problem`.
        validation: As in `Problem`.
    """
    if len(task) < task.n_features:
        span = Span(task)
        task, validation = span.task(), None if validation is None else span.project(validation)
    return Problem(
        task,
        leave_one_out_ridge(task, options, order if validation is None else None),
        order,
        robust=options.loss == "robust-cross-entropy",
        # Biases would take over what balancing is to do with weights.
        bias=not options.balanced,
        shared=shared,
        validation=validation,
    )


def walk(problem: Problem, sizes: tuple[float, ...]) -> tuple[torch.Tensor, pd.DataFrame]:
    """Take steps of the given sizes with the exact derivative before each.

    Returns:
        (n,) float64 weights, and the history as in `ReweightResult`.
    """
    weights = problem.task.weights
    rows = []
    for step in range(len(sizes) + 1):
        found = differentiate(problem, weights)
        rows.append(
            {
                "step": step,
                "size": sizes[step - 1] if step else 0.0,
                "loss": found.mean_loss,
                "error": found.error,
                "zero": float((weights == 0).double().mean()),
            }
        )
        if step < len(sizes):
            weights = stepped(weights, found.derivative, sizes[step])
    return weights, pd.DataFrame(rows)


def label_trust(task: RidgeTask, ridge: float, order: torch.Tensor, seed: int) -> torch.Tensor:
    """Probability (n,) float64 that each label is right, by a noise model of the samples left out.

    Args:
        task: The samples.
        ridge: lambda.
        order: (n,) row numbers sorted by path.
        seed: Of what is drawn at random.

    Returns:
        1 for all where there are more than `_MOST_JUDGED` classes.
    """
    if task.n_classes > _MOST_JUDGED:
        return torch.ones(len(task), dtype=torch.float64)
    fit = moments(task).fit(ridge)
    noise = label_noise(task, fit, order, seed)
    left_out_alone = loo_predictions(task, fit, torch.arange(len(task)))
    right = noise.model.posterior(left_out_alone, task.labels).gather(1, task.labels[:, None])[:, 0]
    # No verdict: an average label.
    return torch.where(predictable(task), right, 1 - min(noise.rate, MORE_LIKELY_WRONG))


def _outlook(
    samples: Samples,
    problem: Problem,
    options: SolveOptions,
    how: ReweightOptions,
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
        parts, _ = drawn(problem, how.n_folds, options.seed)
        without = left_out(problem, sizes, n_folds=how.n_folds, seed=options.seed).without
    decide = _without_fold(problem, parts, without, order, balanced=options.balanced)
    with progress("judging the weights by folds", len(parts)) as advance:
        found = forecast(
            before,
            decide,
            trust,
            order=order,
            fixed_ridge=options.ridge is not None,
            n_folds=how.n_folds,
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

    def decide(rest: Rest) -> Mapping[str, Training]:
        (fold,) = (number for number, inside in enumerate(parts) if torch.equal(inside, rest.inside))
        weights = without[fold]
        there = order if problem.validation is not None else order[~rest.inside[order]]
        generator = torch.Generator().manual_seed(rest.seed)
        if problem.shared is None:
            dealt = _dealt(weights, there, problem.task.labels if balanced else None, generator)
        else:
            dealt = _dealt_among(weights, there, problem.shared, generator)
        return {REWEIGHTING: Training(weights), RANDOM: Training(dealt)}

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


def leave_one_out_ridge(task: RidgeTask, options: SolveOptions, order: torch.Tensor | None = None) -> float:
    """The ridge that was given, or the one with the smallest leave-one-out loss.

    Args:
        task: The samples.
        options: What was given.
        order: (n,) row numbers in the order that samples are drawn in; by default the rows' own.
    """
    if options.ridge is not None:
        return options.ridge
    path = ridge_path(task, decompose(task), order=order)
    return float(path.ridges[path.best])


def _shared(samples: Samples, task: RidgeTask, options: SolveOptions, per: Sharing) -> torch.Tensor | None:
    if per == "sample":
        return None
    if per == "class":
        return task.labels
    groups = group_numbers(samples.manifest, options.group)
    if groups is None:
        raise DataError(
            f"{samples.manifest.name} has no groups that could share a weight",
            expected="a column group, or another one named with --group, with repeated values",
            hint="name the column with --group",
        )
    return torch.from_numpy(np.unique(groups.numpy(), return_inverse=True)[1])
