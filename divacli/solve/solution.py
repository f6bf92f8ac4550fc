"""From samples to a solved ridge problem: ridge chosen, loss calibrated, one factorisation for all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch

from divacli.embed import Samples
from divacli.embed.store import require_same_space
from divacli.errors import DataError, ModelError, SolveError, listed
from divacli.manifest import Manifest
from divacli.progress import Progress, silent
from divacli.ridge import (
    CrossEntropyLoss,
    LinearOutput,
    Loss,
    RidgePath,
    RidgeTask,
    Span,
    Spectrum,
    SquaredLoss,
    decompose,
    fit_inverse_temperature,
    fit_scaling,
    in_eigenbasis,
    loo_predictions,
    ridge_path,
)

_CALIBRATION_VALUES = 4_000_000
"""LOO predictions (rows x classes) that the temperature is fitted on, evenly spaced."""


DEFAULT_GROUP = "group"
"""The column that names groups where no other is asked for."""

DUPLICATES_GROUP = "duplicates"
"""The column that names the sets of copies, where samples have copies and they were searched for."""


@dataclass(frozen=True)
class SolveOptions:
    """What is solved, and how.

    Attributes:
        ridge: lambda on the features as scaled, or None to choose it.
        loss: Validation loss, "squared" or "cross-entropy".
        scaling: "unit", "standard" or "none".
        around_head: Linearise around the network's own head: targets are one-hot labels minus its outputs.
        group: Column whose equal values are left out together, or None for no groups. The default is used
            where the samples have such a column, and so is that of copies; an empty cell is a group of its
            own.
        balanced: Every class counts equally in the validation loss, whatever its number of samples.
        dtype: Of the per-sample products.
        device: Where.
        seed: Of whatever is drawn at random.
    """

    ridge: float | None = None
    loss: str = "squared"
    scaling: str = "unit"
    around_head: bool = False
    group: str | None = DEFAULT_GROUP
    balanced: bool = False
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0


@dataclass(frozen=True)
class Solution:
    """A solved problem.

    Attributes:
        task: As posed, (n, d).
        validation: A separate validation set as posed, or None for the leave-one-out loss.
        solved: `task`, or its kernel form where n < d, in the coordinates of its eigenbasis.
        solved_validation: The validation set in the same coordinates.
        spectrum: Decomposition of `solved`.
        classes: Label of each class number.
        loss: The validation loss, calibrated.
        ridge: lambda of losses, predictions and derivatives: the LOO optimum, unless it was given.
        path: The path that `ridge` was chosen on; None where it was given.
    """

    task: RidgeTask
    validation: RidgeTask | None
    solved: RidgeTask
    solved_validation: RidgeTask | None
    spectrum: Spectrum
    classes: list[str]
    loss: Loss
    ridge: float
    path: RidgePath | None


def solve(
    samples: Samples,
    options: SolveOptions,
    validation: Samples | None = None,
    progress: Progress = silent,
) -> Solution:
    """Pose the ridge problem of some samples, choose its ridge and factorise it.

    Args:
        samples: Training samples.
        options: How.
        validation: A separate validation set, whose loss is differentiated in place of the LOO loss.
        progress: Told of every step.

    Raises:
        DataError: The validation set has labels or features that do not fit the samples.
        ModelError: `around_head` without a head of as many classes.
        SolveError: The problem has no answer.
    """
    with progress("factorising the features", 0):
        task = pose(samples, options)
        validation_task = None if validation is None else pose_validation(task, samples, validation, options)
        solved, solved_validation = task, validation_task
        if len(task) < task.n_features:
            span = Span(task)
            solved = span.task()
            solved_validation = None if validation_task is None else span.project(validation_task)
        spectrum, solved, [solved_validation] = in_eigenbasis(solved, decompose(solved), solved_validation)
    path = None
    with progress("choosing the ridge", 0):
        if options.ridge is None:
            path = ridge_path(solved, spectrum, order=order_by_path(samples))
            ridge = float(path.ridges[path.best])
        else:
            ridge = options.ridge
        loss = _calibrated(options.loss, solved, spectrum, ridge, order_by_path(samples))
    return Solution(
        task,
        validation_task,
        solved,
        solved_validation,
        spectrum,
        samples.manifest.classes,
        loss,
        ridge,
        path,
    )


def order_by_path(samples: Samples) -> torch.Tensor:
    """Row numbers sorted by path: what is drawn at random must not change with the order of a table."""
    return torch.from_numpy(np.argsort(samples.manifest.table["path"].to_numpy(str), kind="stable"))


def pose(samples: Samples, options: SolveOptions, classes: list[str] | None = None) -> RidgeTask:
    """The ridge problem of some samples at their weights.

    Args:
        samples: The training samples.
        options: How.
        classes: Label of each class number; by default the samples' own.

    Raises:
        DataError: There is no such column of groups, or only one group.
        ModelError: `around_head` without a head of as many classes.
    """
    classes = samples.manifest.classes if classes is None else classes
    labels = class_numbers(samples.manifest, classes)
    ones = torch.ones(len(labels), dtype=torch.float64)
    task = RidgeTask(
        samples.features,
        labels,
        len(classes),
        torch.from_numpy(samples.manifest.table["weight"].to_numpy(float, copy=True)),
        validation_mask=balanced(ones, labels) if options.balanced else ones,
        groups=group_numbers(samples.manifest, options.group),
        device=options.device,
        dtype=options.dtype,
    )
    scaling = fit_scaling(options.scaling, (task.raw(rows) for rows in task.slices()))
    return replace(task, scaling=scaling, offset=offset_of(samples, len(classes), options))


def balanced(mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A validation mask (n,) float64 in which every class has the same sum, and all together the old one.

    A class whose sum is zero keeps it.

    Args:
        mask: (n,) float64 >= 0.
        labels: (n,) int64.
    """
    sums = torch.zeros(int(labels.max()) + 1, dtype=torch.float64).index_add_(0, labels, mask)
    counts = sums > 0
    factors = torch.where(counts, mask.sum() / counts.sum() / sums, 0.0)
    return mask * factors[labels]


def group_numbers(manifest: Manifest, column: str | None) -> torch.Tensor | None:
    """(n,) int64 number of each sample's group, or None where every sample is a group of its own.

    Args:
        manifest: The samples.
        column: That names the groups. The default one is optional, and ignored where it tells nothing apart.

    Raises:
        DataError: As `required_groups`.
    """
    numbers = _numbered(manifest, column)
    return None if numbers is None or len(numbers.unique()) == len(numbers) else numbers


def group_count(manifest: Manifest, column: str | None) -> int | None:
    """How many groups `group_numbers` tells apart, samples of their own among them; None without a column."""
    numbers = _numbered(manifest, column)
    return None if numbers is None else len(numbers.unique())


def required_groups(manifest: Manifest, column: str) -> torch.Tensor:
    """(n,) int64 number of each sample's group, by a column that somebody asked for.

    Raises:
        DataError: There is no such column, or it has one value only.
    """
    require_group_column(manifest, column)
    numbers = _numbers_of(manifest.table[column])
    if len(numbers.unique()) < 2:
        raise DataError(
            f"{manifest.name}: column {column} has the same value in every row",
            expected="at least two groups: each is predicted from the others",
            hint="use --group none",
        )
    return numbers


def require_group_column(manifest: Manifest, column: str) -> None:
    """Refuse samples without a column that names their groups.

    Raises:
        DataError: There is no such column.
    """
    if column not in manifest.table:
        raise DataError(
            f"{manifest.name} has no column {column} for --group; its columns are: "
            + listed(manifest.table.columns.tolist(), limit=12),
            expected="a column whose equal values belong together, such as patient_id; a sample with an "
            "empty cell belongs to nobody",
            hint="name one of these, add the column, or leave --group out"
            if column != DUPLICATES_GROUP
            else "leave that column out of DATA: copies are then searched for in all sets together",
        )


def _numbered(manifest: Manifest, column: str | None) -> torch.Tensor | None:
    if column is None or (column == DUPLICATES_GROUP and column not in manifest.table):  # there are no copies
        return None
    if column == DEFAULT_GROUP:  # nobody may have asked for it
        if column not in manifest.table:
            return None
        numbers = _numbers_of(manifest.table[column])
        return numbers if len(numbers.unique()) > 1 else None
    return required_groups(manifest, column)


def _numbers_of(cells: pd.Series) -> torch.Tensor:
    names = group_names(cells)
    # An empty cell belongs to nobody.
    alone = np.flatnonzero(names == "")
    numbers, found = pd.factorize(names)
    numbers[alone] = len(found) + np.arange(len(alone))
    return torch.from_numpy(numbers.astype(np.int64))


def group_names(cells: pd.Series) -> pd.Series:
    """Cells of any type as text, "" where they are blank or missing."""
    names = cells.astype(object).where(cells.notna(), "").map(str)
    return names.mask(names.str.strip() == "", "")


def class_numbers(manifest: Manifest, classes: list[str]) -> torch.Tensor:
    """(n,) int64 number of each sample's class.

    Raises:
        DataError: A label is none of the classes, or there are no labels.
    """
    return torch.from_numpy(manifest.class_numbers(classes))


def require_same_features(first: Samples, other: Samples) -> None:
    """Refuse samples whose features come from another network, or have another width.

    Raises:
        StoreError: Another network.
        DataError: Another width.
    """
    require_same_space(first.identity, other.identity, other.manifest.name)
    wanted, found = first.features.shape[1], other.features.shape[1]
    if wanted != found:
        raise DataError(
            f"{other.manifest.name} has {found} features a sample",
            expected=f"{wanted}, as {first.manifest.name} has",
            hint="embed both with the same network and layer",
        )


def pose_validation(
    task: RidgeTask,
    samples: Samples,
    validation: Samples,
    options: SolveOptions,
    classes: list[str] | None = None,
) -> RidgeTask:
    """A separate validation set of a task, in its coordinates; its weights are the validation mask.

    Args:
        task: The training samples as posed.
        samples: The training samples.
        validation: The validation samples.
        options: How.
        classes: As for `pose`.

    Raises:
        StoreError: Features of another network.
        DataError: Labels or features that do not fit the training samples.
    """
    require_same_features(samples, validation)
    weights = torch.from_numpy(validation.manifest.table["weight"].to_numpy(float, copy=True))
    labels = class_numbers(validation.manifest, samples.manifest.classes if classes is None else classes)
    return replace(
        task,
        features=validation.features,
        labels=labels,
        weights=torch.zeros_like(weights),
        validation_mask=balanced(weights, labels) if options.balanced else weights,
        offset=offset_of(validation, task.n_classes, options),
        groups=None,
    )


def offset_of(samples: Samples, n_classes: int, options: SolveOptions) -> LinearOutput | None:
    """The outputs of the network's own head that a fit with `around_head` starts from; None without.

    Raises:
        ModelError: There is no such head, or it has another number of classes.
    """
    if not options.around_head:
        return None
    if samples.head is None:
        raise ModelError(
            "--around-head: these features feed no linear layer that is the network's output",
            expected="the input of the network's last linear layer as features, or among them",
            hint="leave --around-head (and --layer) out; with --linearize use head+block:NAME or full",
        )
    weight, bias = samples.head
    if len(weight) != n_classes:
        raise ModelError(
            f"--around-head: the network's head has {len(weight)} classes, the data {n_classes}",
            expected="the same number, in the order of the sorted labels",
            hint="leave --around-head out for a fresh head",
        )
    return LinearOutput(samples.features, weight.to(options.device), bias.to(options.device))


def _calibrated(name: str, task: RidgeTask, spectrum: Spectrum, ridge: float, order: torch.Tensor) -> Loss:
    if name == "squared":
        return SquaredLoss()
    if name != "cross-entropy":
        raise SolveError(f"loss {name!r}", expected="squared or cross-entropy")
    rows = order[:: max(1, -(-len(task) * task.n_classes // _CALIBRATION_VALUES))].sort().values
    predictions = loo_predictions(task, spectrum.fit(ridge), rows)
    targets = torch.nn.functional.one_hot(task.labels[rows], task.n_classes).double()
    # As if one sample more had been seen, with a label drawn at random: predictions without a mistake would
    # otherwise ask for certainty, where the loss is flat and every derivative zero.
    share = 1 / (1 + len(rows))
    targets = (1 - share) * targets + share / task.n_classes
    return CrossEntropyLoss(fit_inverse_temperature(predictions, targets, task.validation_mask[rows]))
