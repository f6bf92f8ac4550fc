"""Options of the solution, and the ridge problem that samples pose under them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from divacli.features import Samples
from divacli.features.samples import require_same_features
from divacli.manifest import Manifest
from divacli.ridge import LinearOutput, RidgeTask, fit_scaling
from divacli.solve.groups import DEFAULT_GROUP, group_numbers
from divacli.solve.head_order import ordered_head, require_head


@dataclass(frozen=True)
class SolveOptions:
    """What is solved, and how.

    Attributes:
        ridge: lambda on the features as scaled, or None to choose it.
        loss: Validation loss, "squared" or "cross-entropy"; where weights are sought, "squared" or
            "robust-cross-entropy", which is calibrated and in which a share of the labels may be wrong.
        scaling: "unit", "standard" or "none".
        around_head: Linearise around the network's own head: targets are one-hot labels minus its outputs.
            Which class each output stands for is found as `divacli.solve.head_order` says.
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


def pose(samples: Samples, options: SolveOptions, classes: list[str] | None = None) -> RidgeTask:
    """The ridge problem of some samples at their weights.

    Args:
        samples: The training samples.
        options: How.
        classes: Label of each class number; by default the samples' own.

    Raises:
        DataError: There is no such column of groups, or only one group.
        ModelError: `around_head` without a head of these classes.
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
    offset = None
    if options.around_head:
        weight, bias = ordered_head(samples, labels, classes)
        offset = LinearOutput(samples.features, weight.to(options.device), bias.to(options.device))
    return replace(task, scaling=scaling, offset=offset)


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


def class_numbers(manifest: Manifest, classes: list[str]) -> torch.Tensor:
    """(n,) int64 number of each sample's class.

    Raises:
        DataError: A label is none of the classes, or there are no labels.
    """
    return torch.from_numpy(manifest.class_numbers(classes))


def pose_validation(
    task: RidgeTask,
    samples: Samples,
    validation: Samples,
    options: SolveOptions,
    classes: list[str] | None = None,
) -> RidgeTask:
    """A separate validation set of a task, in its coordinates; its weights are the validation mask.

    Args:
        task: The training samples as `pose` gave them.
        samples: The training samples.
        validation: The validation samples.
        options: How.
        classes: As for `pose`.

    Raises:
        StoreError: Features of another network.
        DataError: Labels or features that do not fit the training samples.
        ModelError: `around_head` with features that feed no head.
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
        offset=carried_offset(task, validation),
        groups=None,
    )


def carried_offset(task: RidgeTask, samples: Samples) -> LinearOutput | None:
    """The outputs of the network's own head on further samples, in the order found for a task; None without.

    Args:
        task: As `pose` gave it, not yet projected.
        samples: Others, of the same network.

    Raises:
        ModelError: Their features feed no head.
    """
    if task.offset is None:
        return None
    require_head(samples)
    assert isinstance(task.offset, LinearOutput)
    return LinearOutput(samples.features, task.offset.weight, task.offset.bias)
