"""How often each transform of images should be used: probabilities that lower the loss of untouched images.

Images and their transformed copies are trained on together, every copy by the k-th transform with a weight
`a_k`, the images themselves with `a_0`. With `p_k = a_k / sum a` that is the training loss expected where
each image is transformed by a random draw from `p`. The copies do not count in the validation loss, and leave
the training set together with their image, so that none is predicted from another guise of it. Then

    dL/da_k = sum over the copies of kind k of alpha_0 dL/d alpha

says whether a transform is harmful (> 0), and steps against it lead from equal probabilities to better ones:
`divacli.ridge.weights.shares`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from divacli.curate.augment_forecast import augment_outlook
from divacli.curate.augmentation_file import UNTOUCHED, as_yaml, document_of
from divacli.curate.outlook import Outlook
from divacli.errors import SolveError
from divacli.features import Samples
from divacli.features.augmentation import NamedTransform
from divacli.features.read import require_images
from divacli.images.failures import failed_counts
from divacli.progress import Progress, silent
from divacli.results.names import AUGMENT, FAILED
from divacli.results.result import Target
from divacli.ridge import (
    Problem,
    StepChoice,
    choose_shares,
    differentiate_shares,
    left_out,
    share_weights,
    stepped,
)
from divacli.ridge.weights.shares import equal_shares
from divacli.solve.loader import Given, Loader, manifest_in, opened
from divacli.solve.provenance import provenance
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.transformed_copies import merge, pose_merged, untouched_shares

FILES = ("augmentation.yaml", f"{AUGMENT}.json")
"""What is always written."""

SIZES = (0.1, 0.2, 0.4)
"""Step sizes tried, in units of the mean absolute derivative: finer ones are lost in the probabilities."""

MOST_STEPS = 10
"""Steps tried at the most: so few numbers are fitted that the leave-one-out loss stays honest."""

_MARGIN = 1e-3
"""Share of the loss that untouched images alone must be better by: less is no difference."""


@dataclass(frozen=True)
class AugmentOptions:
    """How probabilities are moved.

    Attributes:
        size: Of every step, in units of the mean absolute derivative; None: chosen by K-fold.
        steps: How many; where the size is chosen, how many at the most. None: 1, or `MOST_STEPS`.
        n_folds: K.
    """

    size: float | None = None
    steps: int | None = None
    n_folds: int = 5


@dataclass(frozen=True)
class HeldOut:
    """Mean loss of left-out images as the judge of `choose_shares` has it, in nats.

    Attributes:
        equal: All probabilities equal.
        stepped: After the steps, which the left-out images had no part in.
        untouched: Without any transform.
    """

    equal: float
    stepped: float
    untouched: float


@dataclass(frozen=True)
class AugmentResult:
    """Probabilities of transforms.

    Attributes:
        table: One row for the untouched images (`UNTOUCHED`) and for each transform: transform, probability,
            derivative (`dL/da` of the summed validation loss at equal probabilities, positive = harmful),
            copies (how many images have one).
        transforms: Those of the table from its second row on.
        choice: What K-fold decided; None where the step size was given.
        held_out: What it was decided by; None likewise.
        failed: path, label and reason of images without features, and of those without a copy.
        summary: For JSON.
        origin: Folder that relative paths in `failed` start from.
        outlook: What the probabilities should do to the error on new images; None where that is not known.
        unknown: Why not.
    """

    table: pd.DataFrame
    transforms: tuple[NamedTransform, ...]
    choice: StepChoice | None
    held_out: HeldOut | None
    failed: pd.DataFrame
    summary: dict[str, Any]
    origin: Path
    outlook: Outlook | None = None
    unknown: str = ""

    @property
    def probabilities_are_equal(self) -> bool:
        """Whether they are as they were at the start."""
        return self.table["probability"].nunique() == 1

    @property
    def document(self) -> dict[str, Any]:
        """What `augmentation.yaml` holds."""
        return document_of(self.transforms, self.table["probability"].to_numpy())

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        if self.choice is not None and self.probabilities_are_equal:
            yield (
                "no step from equal probabilities lowers the loss of left-out images by more than two "
                "standard errors of that gain: they stay equal"
            )
        if self.unknown:
            yield f"no forecast was made: {self.unknown}"

    def write(self, target: Target) -> None:
        """Write the probabilities, the failed images and the summary."""
        target.table(FAILED, self.failed, self.origin)
        target.json(f"{AUGMENT}.json", self.summary)
        target.text("augmentation.yaml", as_yaml(self.document))


def augment_data(
    loader: Loader,
    data: Given,
    transforms: Sequence[NamedTransform],
    options: SolveOptions,
    how: AugmentOptions,
    validation: Given | None = None,
) -> AugmentResult:
    """Embed images and their transformed copies, and weigh these as `augment` does.

    Args:
        loader: Of this run.
        data: The images.
        transforms: What the copies are made by, all different.
        options: As for `augment`; its seed is that of random transforms, too.
        how: As for `augment`.
        validation: DATA whose loss is lowered in place of the leave-one-out loss.

    Raises:
        DivaError: There are no images, they cannot be used, or the problem has no answer.
    """
    images = opened(data)
    require_images(manifest_in(images))
    samples, judged = loader.load_both(images, validation)
    copies = [(one, loader.copies(samples, one, options.seed)) for one in transforms]
    return augment(samples, copies, options, how, judged, loader.progress)


def augment(
    samples: Samples,
    copies: Sequence[tuple[NamedTransform, Samples]],
    options: SolveOptions,
    how: AugmentOptions,
    validation: Samples | None = None,
    progress: Progress = silent,
) -> AugmentResult:
    """Find how often each transform should be used.

    The walk starts at equal probabilities and ends where left-out folds gain no more by it. Should the
    untouched images alone do better on them, no transform is used.

    Args:
        samples: (n) images, at their weights.
        copies: Each transform with its copies of them, as from `divacli.features.copies_of`.
        options: How the problem is posed; its loss is "squared" or "robust-cross-entropy".
        how: Steps.
        validation: A separate validation set, whose loss is lowered in place of the leave-one-out loss.
        progress: Told of every step size that was tried.

    Raises:
        DataError: A validation set that does not fit, or groups that do not.
        SolveError: The problem has no answer.
    """
    start = time.monotonic()
    transforms = tuple(named for named, _ in copies)
    made = [part for _, part in copies]
    with progress("choosing the ridge", 0):
        merged = merge(samples, made)
        problem = pose_merged(samples, merged, options, validation)
    choice = held_out = None
    steps = how.steps or (1 if how.size is not None else MOST_STEPS)
    if how.size is not None:
        sizes = (how.size,) * steps
    else:
        with progress("trying steps", steps * len(SIZES)) as advance:
            choice = choose_shares(
                problem,
                most=steps,
                sizes=SIZES,
                n_folds=how.n_folds,
                seed=options.seed,
                tried=lambda: advance(1),
            )
        sizes = choice.sizes
        with progress("testing the choice", 0):
            held_out = _held_out(problem, choice, how, options)
    with progress("weighing the copies", 0):
        shares, derivative, history = walk(problem, sizes)
    if held_out is not None and held_out.untouched < (1 - _MARGIN) * held_out.stepped:
        shares = untouched_shares(shares)
    outlook, unknown = None, ""
    try:
        chosen = None if shares[1:].any() else shares
        outlook = augment_outlook(samples, problem, options, how.n_folds, sizes, chosen, progress)
    except SolveError as error:
        unknown = error.got
    table = pd.DataFrame(
        {
            "transform": [UNTOUCHED, *(named.name for named in transforms)],
            "probability": (shares / shares.sum()).numpy(),
            "derivative": derivative.numpy(),
            "copies": torch.bincount(merged.kind).numpy(),
        }
    )
    after = differentiate_shares(problem, shares)
    summary = {
        "n_samples": len(samples),
        "n_classes": len(samples.manifest.classes),
        "n_failed": len(samples.failed),
        **failed_counts(samples.failed),
        "n_embedded": sum(part.embedded for part in (samples, *made)),
        "transforms": table.to_dict(orient="records"),
        "judged_by": "untouched images, left out" if validation is None else "validation set",
        "loss": options.loss,
        "validation": "balanced" if options.balanced else "natural",
        "ridge": problem.ridge,
        "step_size": how.size,
        "sizes": list(sizes),
        "before": {name: float(history[name].iloc[0]) for name in ("loss", "error")},
        "after": {"loss": after.mean_loss, "error": after.error},
        "held_out": None if held_out is None else vars(held_out),
        "history": history.to_dict(orient="records"),
        "trials": None if choice is None else [vars(trial) for trial in choice.trials],
        "seconds": {
            "embed": round(sum(part.seconds for part in (samples, *made)), 3),
            "solve": round(time.monotonic() - start, 3),
        },
        **provenance(samples, options, *made, validation),
        "forecast": None if outlook is None else outlook.as_dict(),
    }
    failed = pd.concat([part.failed for part in (samples, *made)], ignore_index=True)
    origin = samples.manifest.folder
    return AugmentResult(table, transforms, choice, held_out, failed, summary, origin, outlook, unknown)


def walk(problem: Problem, sizes: Sequence[float]) -> tuple[Tensor, Tensor, pd.DataFrame]:
    """Take steps from equal shares, with the exact derivative before each.

    An image without a copy says nothing of how often that would be worth it.

    Args:
        problem: As from `pose_merged`.
        sizes: In units of the mean absolute derivative.

    Returns:
        `a` (K,) float64 with mean 1, `dL/da` (K,) float64 at the start, and the history: step, size of
        the step that led there, and loss and error as of `divacli.ridge.Derivative`.
    """
    shares = equal_shares(problem)
    found = differentiate_shares(problem, shares)
    first = found.derivative
    rows = [{"step": 0, "size": 0.0, "loss": found.mean_loss, "error": found.error}]
    for step, size in enumerate(sizes, start=1):
        shares = stepped(shares, found.mean, size)
        found = differentiate_shares(problem, shares)
        rows.append({"step": step, "size": size, "loss": found.mean_loss, "error": found.error})
    return shares, first, pd.DataFrame(rows)


def _held_out(problem: Problem, choice: StepChoice, how: AugmentOptions, options: SolveOptions) -> HeldOut:
    first = choice.trials[0]
    equal = first.loss + first.gain
    last = (len(choice.sizes), choice.sizes[-1] if choice.sizes else 0.0)
    moved = next((trial.loss for trial in choice.trials if (trial.step, trial.size) == last), equal)
    weights = share_weights(problem, untouched_shares(equal_shares(problem)))
    alone = replace(problem, task=replace(problem.task, weights=weights))
    return HeldOut(equal, moved, left_out(alone, n_folds=how.n_folds, seed=options.seed).loss)
