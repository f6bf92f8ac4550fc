"""Images and their transformed copies -> one problem, whose shared weights are those of the transforms."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from divacli.features import Samples, joined
from divacli.features.samples import order_by_path
from divacli.ridge import Problem
from divacli.solve.groups import group_numbers
from divacli.solve.ridge_problem import SolveOptions, balanced, pose, pose_validation
from divacli.solve.weight_problem import problem_of


@dataclass(frozen=True)
class Merged:
    """Images and their transformed copies as one set.

    Attributes:
        samples: (m) the images, then the copies of one transform after the other.
        image: (m,) int64 row of the image that each shows.
        kind: (m,) int64: 0 for an image as it is, k for a copy by the k-th transform.
    """

    samples: Samples
    image: Tensor
    kind: Tensor


def merge(samples: Samples, copies: Sequence[Samples]) -> Merged:
    """Join images with their transformed copies; features stay where they are.

    Args:
        samples: (n) images.
        copies: For each transform the samples of those that have a copy.
    """
    paths = pd.Index(samples.manifest.table["path"])
    rows = [paths.get_indexer(pd.Index(part.manifest.table["path"])) for part in (samples, *copies)]
    return Merged(
        functools.reduce(joined, copies, samples),
        torch.from_numpy(np.concatenate(rows).astype(np.int64)),
        torch.from_numpy(np.repeat(np.arange(len(rows)), [len(part) for part in rows])),
    )


def pose_merged(
    samples: Samples, merged: Merged, options: SolveOptions, validation: Samples | None = None
) -> Problem:
    """The problem whose shared weights are those of the transforms, at equal weights.

    Every copy has the weight of its image. Unless it is given, the ridge is the optimum of the leave-one-out
    loss of the untouched images at these weights.

    Args:
        samples: (n) the images.
        merged: They and their copies.
        options: How; groups of images are left out together, with all of their copies.
        validation: A separate validation set.

    Raises:
        DataError: A validation set that does not fit, or groups that do not.
    """
    groups = group_numbers(samples.manifest, options.group)
    groups = torch.arange(len(samples)) if groups is None else groups
    mask = (merged.kind == 0).double()
    task = pose(merged.samples, replace(options, group=None, balanced=False))
    if options.balanced:
        mask = balanced(mask, task.labels)
        task = replace(task, weights=balanced(task.weights, task.labels))
    task = replace(task, groups=groups[merged.image], validation_mask=mask)
    held_out = None if validation is None else pose_validation(task, merged.samples, validation, options)
    order = order_by_path(merged.samples if validation is None else validation)
    return problem_of(task, options, order, merged.kind, held_out)


def untouched_shares(shares: Tensor) -> Tensor:
    """Shares (K,) float64 of the same sum that leave all images as they are."""
    return torch.nn.functional.one_hot(torch.tensor(0), len(shares)) * shares.sum()
