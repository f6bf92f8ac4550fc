"""Choose sample weights that lower the validation loss, and how far to go, without a validation set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from divacli.curate.outlook import Outlook
from divacli.curate.reweight_forecast import reweight_outlook
from divacli.errors import SolveError
from divacli.features import Samples
from divacli.manifest.columns import without_scores
from divacli.progress import Progress, silent
from divacli.results.names import FAILED, REWEIGHT, REWEIGHTED
from divacli.results.result import Target
from divacli.ridge import SIZES, Problem, StepChoice, choose_steps, differentiate, stepped
from divacli.solve.loader import Given, Loader
from divacli.solve.provenance import provenance
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.weight_problem import Sharing, pose_problem

FILES = (REWEIGHTED, f"{REWEIGHT}.json")
"""What is always written."""


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
        target.table(FAILED, self.samples.failed, origin, part=True)
        target.json(f"{REWEIGHT}.json", self.summary)
        target.table(REWEIGHTED, self.table, origin, main=True, part=True)


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
            outlook = reweight_outlook(samples, problem, options, how.n_folds, sizes, progress)
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
