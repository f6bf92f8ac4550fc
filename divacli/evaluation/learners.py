"""What an evaluation trains: from training samples to predicted labels, with every choice made inside."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from divacli.features import Samples
from divacli.features.samples import order_by_path
from divacli.ridge import RidgeTask, Span, decompose, ridge_path
from divacli.solve.ridge_problem import SolveOptions, pose

PENALTIES = tuple(float(value) for value in np.logspace(-1, 3, 9))
"""Values of C that logistic regression chooses from, two to a decade: large means little regularisation."""

FOLDS = 3


class Learner(Protocol):
    """Something that can be trained on samples at their weights and then names a class for others.

    Attributes:
        name: As the command line calls it.
        random: Whether the seed changes the result, so that one run does not say it all.
    """

    name: ClassVar[str]
    random: ClassVar[bool]

    def __call__(self, training: Samples, test: Samples, seed: int) -> np.ndarray:
        """Train on `training` and predict `test`, whose labels are not looked at.

        Args:
            training: (n) samples of two classes or more, each with a positive weight.
            test: (m) samples with the same kind of features.
            seed: Of whatever is drawn at random.

        Returns:
            (m,) predicted labels.
        """
        ...


@dataclass(frozen=True)
class RidgeLearner:
    """Weighted ridge regression on one-hot labels, its ridge at the LOO optimum of the training set itself.

    A weight counts alike in the fit and in the LOO loss that the ridge is chosen by.

    Attributes:
        options: Scaling, dtype, device and groups; a ridge in them is taken as it is.
    """

    options: SolveOptions
    name: ClassVar[str] = "ridge"
    random: ClassVar[bool] = False

    def __call__(self, training: Samples, test: Samples, seed: int) -> np.ndarray:
        """See `Learner`."""
        best = ridge_outputs(training, test, self.options).argmax(dim=1).numpy()
        return np.array(training.manifest.classes, dtype=object)[best]


@dataclass(frozen=True)
class LogisticLearner:
    """Multinomial logistic regression with an L2 penalty, by scikit-learn.

    Its C is the one of `PENALTIES` with the smallest weighted log loss over `FOLDS` stratified folds of the
    training set, which keep groups together. They are tried in ascending order until that loss rises. Folds
    are drawn by the seed of the options and are the same in every run, so that equal training sets give equal
    predictions.

    Attributes:
        options: Scaling, dtype, groups, and seed of the folds.
    """

    options: SolveOptions
    name: ClassVar[str] = "logistic"
    random: ClassVar[bool] = False

    def __call__(self, training: Samples, test: Samples, seed: int) -> np.ndarray:
        """See `Learner`."""
        task = _fresh_task(training, self.options)
        features = torch.cat([batch.features for batch in task.batches()]).cpu()
        # The intercept is free, so a shift changes nothing but the speed of convergence.
        shift = features.mean(dim=0)
        rows, labels, weights = (features - shift).numpy(), task.labels.numpy(), task.weights.numpy()
        groups = None if task.groups is None else task.groups.numpy()
        paths = training.manifest.table["path"].to_numpy(str)
        fold = stratified_folds(labels, paths, self.options.seed, groups)
        model = fitted(choose_penalty(rows, labels, weights, fold), rows, labels, weights)
        others = torch.cat([batch.features for batch in _posed_like(task, test).batches()]).cpu()
        return np.array(training.manifest.classes, dtype=object)[model.predict((others - shift).numpy())]


LEARNERS: dict[str, Callable[[SolveOptions], Learner]] = {
    learner.name: learner for learner in (RidgeLearner, LogisticLearner)
}
"""The learners that need features alone, by name."""


def ridge_outputs(training: Samples, others: Samples, options: SolveOptions) -> Tensor:
    """Outputs of a fresh ridge head on other samples.

    Args:
        training: (n) samples, at their weights.
        others: (m) samples; their labels are not looked at.
        options: Scaling, dtype, device, and the ridge or None for the LOO optimum.

    Returns:
        (m, k), a column for each of the training samples' classes, on the CPU.

    Raises:
        SolveError: The training samples determine no fit.
    """
    posed = _fresh_task(training, options)
    task = replace(posed, validation_mask=posed.weights)
    predicted = _posed_like(task, others)
    if len(task) < task.n_features:
        span = Span(task)
        task, predicted = span.task(), span.project(predicted)
    spectrum = decompose(task)
    ridge = options.ridge
    if ridge is None:
        ridge = ridge_path(task, spectrum, order=order_by_path(training)).ridge
    fit = spectrum.fit(ridge).to(task.dtype)
    return torch.cat([(fit.project(batch.features) @ fit.coef).cpu() for batch in predicted.batches()])


def stratified_folds(
    labels: np.ndarray, paths: np.ndarray, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Deal the samples of every class, or its groups of samples, out to `FOLDS` folds at random.

    Args:
        labels: (n,) class numbers.
        paths: (n,) distinct; the draw does not depend on the order of the rows.
        seed: Of the draw.
        groups: (n,) equal for samples that stay together, such as copies of one image; None for no groups.

    Returns:
        (n,) number of the fold in which a sample is held out. -1, never, where that fold has its whole class:
        no model trained without it could know the class.
    """
    by_path = np.argsort(paths, kind="stable")
    unit, _ = pd.factorize(by_path if groups is None else groups[by_path])
    _, first = np.unique(unit, return_index=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    by_class = shuffled[np.argsort(labels[by_path][first][shuffled], kind="stable")]
    # Dealt on from class to class, so that the folds are of one size.
    fold_of_unit = np.empty(len(first), int)
    fold_of_unit[by_class] = np.arange(len(first)) % FOLDS
    fold = np.empty(len(labels), int)
    fold[by_path] = fold_of_unit[unit]
    met = np.zeros((labels.max() + 1, FOLDS), bool)
    met[labels, fold] = True
    fold[met.sum(axis=1)[labels] == 1] = -1
    return fold


def choose_penalty(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, fold: np.ndarray) -> float:
    """The C with the smallest log loss on held-out folds; of equals the smallest.

    Args:
        rows: (n, d) scaled features.
        labels: (n,) class numbers.
        weights: (n,) positive sample weights, in fit and loss.
        fold: (n,) as from `stratified_folds`.
    """
    models: dict[int, Any] = {}
    best, smallest = PENALTIES[0], np.inf
    for penalty in PENALTIES:
        loss = 0.0
        for number in np.unique(fold[fold >= 0]):
            held, rest = fold == number, fold != number
            model = fitted(penalty, rows[rest], labels[rest], weights[rest], models.get(number))
            models[number] = model
            column = np.searchsorted(model.classes_, labels[held])
            with np.errstate(divide="ignore"):  # a probability of 0 is an infinite loss
                log_probability = model.predict_log_proba(rows[held])
            loss -= float(weights[held] @ log_probability[np.arange(held.sum()), column])
        if not loss < smallest:
            break
        best, smallest = penalty, loss
    return best


def fitted(
    penalty: float, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, start: Any = None
) -> Any:
    """A fitted logistic regression, begun from another one's solution where there is one."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000, warm_start=True) if start is None else start
    with warnings.catch_warnings():
        # Only a C far too large needs more steps, and the held-out loss judges what came of it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.set_params(C=penalty).fit(rows, labels, sample_weight=weights)


def _fresh_task(training: Samples, options: SolveOptions) -> RidgeTask:
    """The training samples posed for a head of their own, whatever the scores are linearised around."""
    return pose(training, replace(options, around_head=False))


def _posed_like(task: RidgeTask, others: Samples) -> RidgeTask:
    """Other samples under the scaling, dtype and device of a task, without labels."""
    nothing = torch.zeros(len(others))
    return replace(
        task,
        features=others.features,
        labels=nothing.long(),
        weights=nothing,
        validation_mask=nothing,
        groups=None,
    )
