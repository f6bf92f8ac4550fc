"""Score every sample: its derivative, its leave-one-out loss and prediction, most harmful first."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from divacli.curate.provenance import provenance
from divacli.curate.solution import Solution, SolveOptions, solve
from divacli.embed import Samples
from divacli.manifest.columns import RESULTS
from divacli.ridge import leave_one_out, loo_derivative, validation_derivative

SCORE_COLUMNS = ("rank", "path", "label", "weight", "derivative", "loo_loss", "predicted_label")
"""First columns of a table of scores, in order; the user's own follow."""


@dataclass(frozen=True)
class ScoreResult:
    """Scores of all samples.

    Attributes:
        table: One row a sample, most harmful first; `SCORE_COLUMNS`, then the user's other columns.
            `derivative` is dL/d(weight) of the summed validation loss: positive = harmful.
        summary: What `summary.json` holds.
        solution: The solved problem.
        samples: What was scored, in its own order.
        order: (n,) row of `samples` for each row of `table`.
        derivative: (n,) in the order of `samples`.
    """

    table: pd.DataFrame
    summary: dict[str, Any]
    solution: Solution
    samples: Samples
    order: np.ndarray
    derivative: np.ndarray


def score(samples: Samples, options: SolveOptions, validation: Samples | None = None) -> ScoreResult:
    """Score samples by the derivative of their leave-one-out loss, or of a validation set's loss.

    Args:
        samples: What is scored.
        options: How the problem is solved.
        validation: A separate validation set.

    Raises:
        DivaError: The problem cannot be posed or solved.
    """
    start = time.monotonic()
    solution = solve(samples, options, validation)
    fit = solution.spectrum.fit(solution.ridge)
    ranking_fit = solution.spectrum.fit(solution.ranking_ridge)
    extra: dict[str, Any] = {}
    loo = leave_one_out(solution.solved, fit, solution.loss)
    if solution.solved_validation is None:
        derivative = loo_derivative(solution.solved, ranking_fit, solution.loss).derivative
    else:
        derivative, _ = validation_derivative(
            solution.solved, solution.solved_validation, ranking_fit, solution.loss
        )
        _, result = validation_derivative(solution.solved, solution.solved_validation, fit, solution.loss)
        wrong = result.predicted != solution.solved_validation.labels
        share = solution.solved_validation.validation_mask / solution.solved_validation.validation_mask.sum()
        extra = {
            "n_validation": len(result.loss),
            "validation_loss": float(share @ result.loss),
            "validation_error": float(share @ wrong.double()),
        }
    table, order = _ranked(samples, solution, derivative.numpy(), loo.loss.numpy(), loo.predicted.numpy())
    wrong = loo.predicted != solution.task.labels
    n, d = samples.features.shape
    solve_seconds = time.monotonic() - start
    summary = {
        "n_samples": n,
        "n_classes": len(solution.classes),
        "n_features": d,
        "n_failed": len(samples.failed),
        "n_embedded": samples.embedded,
        "n_harmful": int((derivative > 0).sum()),
        "ridge": solution.ridge,
        "ranking_ridge": solution.ranking_ridge,
        "scaling": options.scaling,
        "loss": options.loss,
        "inverse_temperature": getattr(solution.loss, "inverse_temperature", None),
        "loo_loss": float(loo.loss.mean()),
        "loo_error": float(wrong.double().mean()),
        **extra,
        "noise_rate": None,
        "seconds": {
            "embed": round(samples.seconds, 3),
            "solve": round(solve_seconds, 3),
            "total": round(samples.seconds + solve_seconds, 3),
        },
        **provenance(samples, options, validation),
    }
    return ScoreResult(table, summary, solution, samples, order, derivative.numpy())


def without_scores(table: pd.DataFrame) -> pd.DataFrame:
    """The table without the columns of an earlier result, which hold only for the samples it had."""
    if "derivative" not in table:
        return table
    return table.drop(columns=[name for name in table if name in RESULTS])


def _ranked(
    samples: Samples, solution: Solution, derivative: np.ndarray, loss: np.ndarray, predicted: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of scores, most harmful first, ties by path; and the samples' rows in that order."""
    given = samples.manifest.table
    table = given.drop(columns=[name for name in given if name in RESULTS]).assign(
        derivative=derivative,
        loo_loss=loss,
        predicted_label=np.array(solution.classes, dtype=object)[predicted],
    )
    order = np.lexsort((table["path"].to_numpy(str), -derivative))
    table = table.iloc[order].reset_index(drop=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    others = [name for name in table if name not in SCORE_COLUMNS]
    return table[[*SCORE_COLUMNS, *others]], order
