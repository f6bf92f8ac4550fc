"""Score every sample: its derivative, its leave-one-out loss and prediction, most harmful first."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from divacli.curate.wrong_labels import (
    MORE_LIKELY_WRONG,
    Expectation,
    errors_first,
    mislabelled,
    most_confused,
    outliers,
)
from divacli.features import Samples
from divacli.features.samples import order_by_path
from divacli.images.failures import failed_counts
from divacli.manifest.columns import (
    DERIVATIVE,
    DERIVATIVE_SE,
    JUDGED_COLUMNS,
    LOO_LOSS,
    MISLABEL_PROBABILITY,
    OUTLIER_SCORE,
    PREDICTED_LABEL,
    RANK,
    RESULTS,
    SCORE_COLUMNS,
    SIGNIFICANT,
    SUGGESTED_LABEL,
    SUGGESTED_PROBABILITY,
)
from divacli.parallel import world
from divacli.progress import Progress, silent
from divacli.ridge import (
    Diagnosis,
    LinearOutput,
    LooResult,
    NoiseFit,
    NoiseModel,
    RidgeFit,
    RidgeTask,
    ValidationResult,
    examine_disagreement,
    fit_noise,
    loo_predictions,
    noise_rows,
    predictable,
    scores,
    significant,
)
from divacli.solve.head_order import best_order, predicted_outputs
from divacli.solve.provenance import provenance
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.solution import Solution, solve

LEARNED, SUSPECTED = "learned", "suspected"
"""Whether the network knows these labels: the labels show it, or the features look like it."""

_COLLAPSED = 0.42
"""Share of the variance in the leading directions, one less than classes, above which features have
collapsed. It was 0.44 to 0.68 after fine-tuning of all layers, and 0.28 to 0.39 otherwise (10 classes)."""

_COMPARED, _AGREES_MORE = 5000, 0.02
"""Samples whose outputs are looked at, at the most, and the share by which these must be right more often."""

_FIRST = 3
"""Labels that are named, the most probable errors first."""


@dataclass(frozen=True)
class ScoreResult:
    """Scores of all samples.

    Attributes:
        table: One row a sample, most harmful first; `SCORE_COLUMNS`, `JUDGED_COLUMNS`, then the user's own.
            `derivative` is dL/d(weight) of the summed validation loss: positive = harmful.
        summary: What `summary.json` holds.
        solution: The solved problem.
        samples: What was scored, in its own order.
        order: (n,) row of `samples` for each row of `table`.
        derivative: (n,) in the order of `samples`.
        noise: How the labels come about.
    """

    table: pd.DataFrame
    summary: dict[str, Any]
    solution: Solution
    samples: Samples
    order: np.ndarray
    derivative: np.ndarray
    noise: NoiseModel


def score(
    samples: Samples,
    options: SolveOptions,
    validation: Samples | None = None,
    progress: Progress = silent,
) -> ScoreResult:
    """Score samples by the derivative of their leave-one-out loss, or of a validation set's loss.

    Args:
        samples: What is scored.
        options: How the problem is solved.
        validation: A separate validation set.
        progress: Told of every step.

    Raises:
        DivaError: The problem cannot be posed or solved.
    """
    start = time.monotonic()
    solution = solve(samples, options, validation, progress)
    fit = solution.spectrum.fit(solution.ridge)
    order = order_by_path(samples)
    judged = predictable(solution.solved)
    with progress("estimating label noise", 0):
        noise = label_noise(solution.solved, fit, order, options.seed)
    judges = order if validation is None else order_by_path(validation)
    with progress("differentiating the loss", 0):
        found = scores(solution.solved, fit, solution.loss, noise.model, judges, solution.solved_validation)
    derivative, errors, loo, diagnosis = found.derivative, found.errors, found.loo, found.diagnosis
    # No verdict: an average label.
    diagnosis.mislabel_probability[~judged] = min(noise.rate, MORE_LIKELY_WRONG)
    extra: dict[str, Any] = {}
    if solution.solved_validation is not None and found.validation is not None:
        extra = _validation_summary(solution.solved_validation, found.validation)
    table, order_of_table = _ranked(samples, solution, derivative, errors, loo, diagnosis)
    wrong = loo.predicted != solution.task.labels
    loo_error = float(wrong.double().mean())
    known = LEARNED if noise.learned else SUSPECTED if _may_know(samples, solution, loo) else None
    n, d = samples.features.shape
    solve_seconds = time.monotonic() - start
    summary = {
        "n_samples": n,
        "n_classes": len(solution.classes),
        "n_features": d,
        "n_failed": len(samples.failed),
        **failed_counts(samples.failed),
        "n_embedded": samples.embedded,
        "n_harmful": int((derivative > 0).sum()),
        "n_significant": int((table[SIGNIFICANT] & (table[DERIVATIVE] > 0)).sum()),
        "ridge": solution.ridge,
        "ridge_path": _path(solution),
        "scaling": options.scaling,
        "loss": options.loss,
        "inverse_temperature": getattr(solution.loss, "inverse_temperature", None),
        "loo_loss": float(loo.loss.mean()),
        "loo_error": loo_error,
        **extra,
        **_label_summary(table, noise, diagnosis, solution.classes, int((~judged).sum()), loo_error, known),
        "seconds": {
            "embed": round(samples.seconds, 3),
            "solve": round(solve_seconds, 3),
            "total": round(samples.seconds + solve_seconds, 3),
        },
        **provenance(samples, options, validation),
    }
    return ScoreResult(table, summary, solution, samples, order_of_table, derivative.numpy(), noise.model)


def label_noise(task: RidgeTask, fit: RidgeFit, order: torch.Tensor, seed: int) -> NoiseFit:
    """Fit how labels come about to the samples that others of their class predict.

    Args:
        task: The samples.
        fit: Their ridge solution.
        order: (n,) row numbers sorted by path.
        seed: Of what is drawn at random.
    """
    judged = predictable(task)
    rows = noise_rows(order[judged[order]], task.n_classes)
    predictions = loo_predictions(task, fit, rows)
    seen = examine_disagreement(task, fit, order[judged[order]])
    groups = None if task.groups is None else task.groups[rows]
    return world().once(
        lambda: fit_noise(predictions, task.labels[rows], seen=seen, groups=groups, seed=seed)
    )


def _validation_summary(validation: RidgeTask, result: ValidationResult) -> dict[str, Any]:
    wrong = result.predicted != validation.labels
    share = validation.validation_mask / validation.validation_mask.sum()
    return {
        "n_validation": len(result.loss),
        "validation_loss": float(share @ result.loss),
        "validation_error": float(share @ wrong.double()),
    }


def _path(solution: Solution) -> dict[str, list[float]] | None:
    if solution.path is None:
        return None
    return {"ridge": solution.path.ridges.tolist(), "loss": solution.path.loss.tolist()}


def _may_know(samples: Samples, solution: Solution, loo: LooResult) -> bool:
    """Whether the network may have been trained on these labels.

    Its own outputs then agree with them more often than the other samples do, or most of the features'
    variance lies in as many directions as tell the classes apart (Papyan et al. 2020, neural collapse).
    """
    if _agrees_more(samples, solution, loo):
        return True
    directions = len(solution.classes) - 1
    few = 2 <= directions <= len(solution.spectrum.eigenvalues) / 20
    return few and solution.spectrum.leading_share(directions) > _COLLAPSED


def _agrees_more(samples: Samples, solution: Solution, loo: LooResult) -> bool:
    """Whether the network's outputs, one for each class, are right more often than left-out predictions."""
    classes = solution.classes
    if samples.head is None or len(samples.head[0]) != len(classes):
        return False
    n = len(loo.predicted)
    rows = torch.arange(0, n, -(-n // _COMPARED))
    outputs = predicted_outputs(LinearOutput(samples.features, *samples.head), rows)
    labels = solution.task.labels[rows]
    agreeing = best_order(outputs, labels, classes).agreeing
    gain = agreeing.double() - (loo.predicted[rows] == labels).double()
    error = float(gain.std(correction=0)) / math.sqrt(len(gain))
    return float(gain.mean()) > max(_AGREES_MORE, 2 * error)


def _label_summary(
    table: pd.DataFrame,
    noise: NoiseFit,
    diagnosis: Diagnosis,
    classes: list[str],
    n_unjudged: int,
    loo_error: float,
    known: str | None,
) -> dict[str, Any]:
    rate = float(diagnosis.mislabel_probability.mean())
    # The interval is of the samples that the model was fitted to; of many, these are a part.
    low, high = (min(max(edge + rate - noise.rate, 0.0), 1.0) for edge in noise.interval)
    # Less than one label is none.
    low = low if low * len(table) >= 1 else 0.0
    called = mislabelled(table)
    first = table.iloc[errors_first(table)[:_FIRST]]
    return {
        "noise_rate": rate,
        # Of labels that the network knows, every one that the others contradict may be wrong.
        "noise_interval": [low, high if known is None else max(high, loo_error)],
        "noise_shape": noise.shape.name,
        "noise_prior": noise.strength if math.isfinite(noise.strength) else None,
        "labels_known": known,
        "confused": noise.confused,
        "mislabelled": Expectation.of(table[MISLABEL_PROBABILITY].to_numpy(float), called).as_dict(),
        "first": first[["path", "label", SUGGESTED_LABEL, MISLABEL_PROBABILITY]].to_dict("records"),
        "confusions": most_confused(diagnosis.confusions, classes),
        "n_outliers": int(outliers(table).sum()),
        "n_unjudged": n_unjudged,
    }


def _ranked(
    samples: Samples,
    solution: Solution,
    derivative: torch.Tensor,
    errors: torch.Tensor,
    loo: LooResult,
    diagnosis: Diagnosis,
) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of scores, most harmful first, ties by path; and the samples' rows in that order."""
    given = samples.manifest.table
    classes = np.array(solution.classes, dtype=object)
    columns = {
        DERIVATIVE: derivative.numpy(),
        LOO_LOSS: loo.loss.numpy(),
        PREDICTED_LABEL: classes[loo.predicted.numpy()],
        MISLABEL_PROBABILITY: diagnosis.mislabel_probability.numpy(),
        SUGGESTED_LABEL: classes[diagnosis.suggested.numpy()],
        SUGGESTED_PROBABILITY: diagnosis.suggested_probability.numpy(),
        OUTLIER_SCORE: diagnosis.outlier_score.numpy(),
        DERIVATIVE_SE: errors.numpy(),
        SIGNIFICANT: significant(derivative, errors).numpy(),
    }
    table = given.drop(columns=[name for name in given if name in RESULTS]).assign(**columns)
    order = np.lexsort((table["path"].to_numpy(str), -derivative.numpy()))
    table = table.iloc[order].reset_index(drop=True)
    table.insert(0, RANK, np.arange(1, len(table) + 1))
    first = (*SCORE_COLUMNS, *JUDGED_COLUMNS)
    others = [name for name in table if name not in first]
    return table[[*first, *others]], order
