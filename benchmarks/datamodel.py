"""How well derivatives predict what fine-tuning without some samples really does to the test loss.

`python -m benchmarks.datamodel` first fine-tunes networks with all training samples and without each of many
subsets, random ones and such as the features of the head choose (`benchmarks.datamodel_truths` says how).
These truths take about an hour and a half of one core; they are kept in `results/datamodel-truths.json`, and
none is made twice. `--truths` ends there.

Then each subset's change of the test loss is predicted in closed form, from features of the head, of the last
block and of the full network, and the rank correlation with the truth (the linear datamodelling score of
Ilyas et al. 2022 and Park et al. 2023) is printed and written as Markdown and JSON, over all subsets and over
random ones, with 95 % intervals of a bootstrap over subsets. Three predictions are compared: minus the sum of
the dropped samples' derivatives of the test loss, minus that of their derivatives of the leave-one-out loss,
for which no test image is seen, and a refit without them. Needs the folder `shared` beside the repository.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata  # type: ignore[import-untyped]
from torch import Tensor

from benchmarks.datamodel_table import report, show
from benchmarks.datamodel_truths import (
    AGAIN,
    GROUPS,
    SEED,
    SETTINGS,
    Posed,
    Row,
    Setting,
    dropped_of,
    images,
    losses_of,
    measure_truths,
    network,
    pose,
    truths_of,
)
from benchmarks.machine import require_shared, save
from divacli.curate.sample_scores import score
from divacli.files.cache import default_cache
from divacli.ridge import loo_derivative, moments, validation_sums
from divacli.ridge.leave_out.derivative import training
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.solution import Solution, solve

FEATURES = ("head", "block:last", "full", "head+block:last")
LOSSES = ("squared", "cross-entropy")
RESAMPLES, RESAMPLES_BY_IMAGE = 10_000, 1_000


def influences(solution: Solution) -> Tensor:
    """(n, m) derivative of every test image's loss with respect to every training sample's weight.

    Its sum over test images is `divacli.ridge.validation_derivative`.

    Args:
        solution: With a validation set.
    """
    assert solution.solved_validation is not None
    fit = solution.spectrum.fit(solution.ridge).to(solution.solved.dtype)
    whitened, residuals = training(fit, solution.solved.batch(slice(0, len(solution.solved))))
    test = solution.solved_validation.batch(slice(0, len(solution.solved_validation)))
    test_whitened, test_residuals = training(fit, test)
    gradients = solution.loss.gradient(test.labels - test_residuals, test.labels)
    return ((whitened @ test_whitened.T) * (residuals @ gradients.T)).double()


def refitted(solution: Solution, dropped: np.ndarray, losses: dict[str, Any]) -> dict[str, np.ndarray]:
    """Losses (s, m) of the test images after refits without samples, less those with all of them.

    Args:
        solution: With a validation set.
        dropped: (s, n) bool.
        losses: By name.
    """
    assert solution.solved_validation is not None
    task, validation = solution.solved, solution.solved_validation
    whole = moments(task)
    found: dict[str, list[np.ndarray]] = {name: [] for name in losses}
    for absent in [np.zeros(len(task), bool), *dropped]:
        leaving = replace(task, weights=torch.where(torch.from_numpy(absent), task.weights, 0.0))
        fit = (whole - moments(leaving, whole.shift)).fit(solution.ridge).to(task.dtype)
        for name, loss in losses.items():
            found[name].append(validation_sums(validation, fit, loss)[1].loss.numpy())
    return {name: np.stack(values[1:]) - values[0] for name, values in found.items()}


def predictions(posed: Posed, dropped: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """Predicted changes of the test images' losses, by loss and method.

    Args:
        posed: With the features to predict from.
        dropped: (s, n) bool.

    Returns:
        (s, m) each; (s, 1) for the leave-one-out loss, which knows no test image.
    """
    found: dict[tuple[str, str], np.ndarray] = {}
    absent = torch.from_numpy(dropped).double()
    losses = {}
    for name in LOSSES:
        solution = solve(posed.training, SolveOptions(loss=name), posed.test)
        losses[name] = solution.loss
        found[name, "derivative"] = -(absent @ influences(solution)).numpy()
        # As without a validation set.
        own = loo_derivative(solution.solved, solution.spectrum.fit(solution.ridge), solution.loss).derivative
        found[name, "leave-one-out derivative"] = -(absent @ own)[:, None].numpy()
    for name, changes in refitted(solution, dropped, losses).items():
        found[name, "refit"] = changes
    return found


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis, ties at their mean rank; NaN where either is constant.

    Args:
        first: (..., s).
        second: (..., s).
    """
    ranks = [rankdata(values, axis=-1) for values in np.broadcast_arrays(first, second)]
    one, other = (values - values.mean(axis=-1, keepdims=True) for values in ranks)
    scale = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    with np.errstate(invalid="ignore"):
        return np.asarray((one * other).sum(axis=-1) / scale)


def draws(n_subsets: int, n: int) -> np.ndarray:
    """(n, s) numbers of subsets, drawn with replacement; the same ones whatever is correlated."""
    return np.random.default_rng(0).integers(0, n_subsets, (n, n_subsets))


def summarised(estimate: float, resampled: np.ndarray) -> list[float | None]:
    """An estimate with its 95 % interval; None three times where there is no estimate."""
    if not np.isfinite(estimate):
        return [None] * 3
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return [round(float(value), 4) for value in (estimate, low, high)]


def correlation(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Rank correlation over subsets, and the resampled ones (b,).

    Args:
        predicted: (s,).
        truth: (s,).
    """
    drawn = draws(len(truth), RESAMPLES)
    return float(spearman(predicted, truth)), spearman(predicted[drawn], truth[drawn])


def correlation_by_image(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over test images of their rank correlation over subsets, and the resampled ones (b,).

    Args:
        predicted: (s, m).
        truth: (s, m).
    """
    drawn = draws(len(truth), RESAMPLES_BY_IMAGE)
    resampled = [np.nanmean(spearman(predicted[rows].T, truth[rows].T)) for rows in drawn]
    return float(np.nanmean(spearman(predicted.T, truth.T))), np.array(resampled)


@dataclass(frozen=True)
class Truth:
    """What a setting's runs say of the subsets.

    The run with all samples is not among them: where all changes are counted from does not bear on ranks.

    Attributes:
        rows: The runs.
        kinds: (s,) of the subsets.
        dropped: (s, n) bool.
        mean: (s,) mean test cross-entropy.
        again: (s,) the same of the runs with another seed, NaN where there is none.
        brier: (s,) mean squared error of the test images' probabilities.
        by_image: (s, m) cross-entropy of every test image.
    """

    rows: Sequence[Row]
    kinds: np.ndarray
    dropped: np.ndarray
    mean: np.ndarray
    again: np.ndarray
    brier: np.ndarray
    by_image: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Truth:
        """Of the runs of a setting."""
        runs = {(row["subset"], row["seed"]): row for row in rows if row["subset"] != "none"}
        names = list(dict.fromkeys(name for name, _ in runs))
        first = [runs[name, SEED] for name in names]
        return cls(
            rows,
            np.array([row["kind"] for row in first]),
            np.array([dropped_of(row) for row in first]),
            np.array([row["cross_entropy"] for row in first]),
            np.array([runs.get((name, AGAIN), {}).get("cross_entropy", np.nan) for name in names]),
            np.array([row["brier"] for row in first]),
            np.array([losses_of(row) for row in first]),
        )

    def members(self, group: str) -> np.ndarray:
        """Numbers of the subsets of a group."""
        return np.flatnonzero(np.isin(self.kinds, GROUPS[group]))


Resampled = dict[str, tuple[float, np.ndarray]]
"""Estimates by name, each with the resampled ones (b,)."""


def judged(predicted: np.ndarray, truth: Truth) -> Resampled:
    """Correlations with the truth for each group, with the cross-entropy and the squared error.

    Args:
        predicted: (s, m), or (s, 1) where nothing is known of single test images.
        truth: The truth.
    """
    total, found = predicted.sum(axis=1), Resampled()
    for group in GROUPS:
        rows = truth.members(group)
        found[group] = correlation(total[rows], truth.mean[rows])
        found[f"{group}, Brier"] = correlation(total[rows], truth.brier[rows])
    if predicted.shape[1] > 1:
        rows = truth.members("halves")
        found["halves, by image"] = correlation_by_image(predicted[rows], truth.by_image[rows])
    return found


def compare(setting: Setting, cache: Path | None) -> list[Row]:
    """Rows of all features, losses and methods of a setting.

    Args:
        setting: With its truths.
        cache: Folder of features; None: they are computed now, and their seconds measured.
    """
    rows: list[Row] = []
    of_head: dict[tuple[str, str], Resampled] = {}
    for expression in FEATURES:
        with tempfile.TemporaryDirectory() as fresh:
            posed = pose(setting, network(setting, expression), images(setting), cache or Path(fresh))
            truth = Truth.of(truths_of(posed))
            if not rows:
                rows = [described(posed, truth), *controls(posed, truth)]
            known: Row = {"part": "prediction", "setting": setting.name, **cost(posed, fresh=cache is None)}
            start = time.monotonic()
            found = predictions(posed, truth.dropped)
            known |= {"features": expression, "seconds_predicting": round(time.monotonic() - start, 1)}
        for (loss, method), predicted in found.items():
            result = judged(predicted, truth)
            head = of_head.setdefault((loss, method), result)
            row = {**known, "loss": loss, "method": method}
            row |= {group: summarised(*values) for group, values in result.items()}
            if head is not result:
                for group, (estimate, resampled) in result.items():
                    reference, others = head[group]
                    row[f"{group}, less head"] = summarised(estimate - reference, resampled - others)
            show(row)
            rows.append(row)
    return rows


def cost(posed: Posed, *, fresh: bool) -> Row:
    """Length and size of the features, and what they took where all were computed now."""
    n, d = posed.training.features.shape
    found: Row = {"n_features": d, "megabytes": round((n + len(posed.test)) * d * 4 / 1e6, 1)}
    if fresh:
        found["seconds"] = round(posed.training.seconds + posed.test.seconds, 1)
    return found


def described(posed: Posed, truth: Truth) -> Row:
    """What the truths of a setting are like.

    Args:
        posed: With the features of the head.
        truth: The truth.
    """
    whole = [row for row in truth.rows if row["subset"] == "none"]
    summary = score(posed.training, SolveOptions(), posed.test).summary
    difference = (truth.again - truth.mean)[np.isfinite(truth.again)]
    return {
        "part": "truth",
        "setting": posed.setting.name,
        "n_train": len(posed.training),
        "n_test": len(posed.test),
        "wrong": float(posed.wrong.mean()),
        "runs": len(truth.rows),
        "minutes": round(sum(row["seconds"] for row in truth.rows) / 60),
        "repeated": len(difference),
        "n_subsets": {group: len(truth.members(group)) for group in GROUPS},
        "cross_entropy": float(np.mean([row["cross_entropy"] for row in whole])),
        "error": float(np.mean([row["error"] for row in whole])),
        "ridge_error": summary["validation_error"],
        "range": {
            group: [float(edge(truth.mean[truth.members(group)])) for edge in (np.min, np.max)]
            for group in GROUPS
        },
        "noise": float(difference.std(ddof=1) / 2**0.5) if len(difference) > 1 else None,
    }


def controls(posed: Posed, truth: Truth) -> list[Row]:
    """What counting alone predicts, and how well the truth predicts itself.

    Args:
        posed: With any features.
        truth: The truth.
    """
    counts = {
        "number of samples dropped": truth.dropped.sum(axis=1),
        "minus the number of wrong labels dropped": -truth.dropped[:, posed.wrong].sum(axis=1),
    }
    found = {name: judged(count[:, None].astype(float), truth) for name, count in counts.items()}
    rows = truth.members("halves")
    if np.isfinite(truth.again[rows]).all():
        estimate, resampled = correlation(truth.mean[rows], truth.again[rows])
        found["one seed of the truth, of another"] = {"halves": (estimate, resampled)}
        found["the expected truth, of one seed"] = {
            "halves": (float(ceiling(np.array(estimate))), ceiling(resampled))
        }
    return [
        {
            "part": "control",
            "setting": posed.setting.name,
            "name": name,
            **{group: summarised(*values) for group, values in result.items()},
        }
        for name, result in found.items()
    ]


def ceiling(between_seeds: np.ndarray) -> np.ndarray:
    """Correlation of the expected truth with that of one seed, from the one between two seeds (...)."""
    return np.asarray(np.sqrt(np.maximum(between_seeds, 0.0)))


def main() -> None:
    """Measure, predict, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.datamodel", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--truths", action="store_true", help="end when the networks have been fine-tuned")
    parser.add_argument(
        "--cache", type=Path, help="folder of features; without it their computation is measured as well"
    )
    chosen = parser.parse_args()
    require_shared()
    for seed in (SEED, AGAIN):
        for setting in SETTINGS:
            measure_truths(pose(setting, network(setting, "head"), images(setting), default_cache()), seed)
    if chosen.truths:
        return
    rows = [row for setting in SETTINGS for row in compare(setting, chosen.cache)]
    text = report(rows)
    save("datamodel", rows, text)
    print(text)


if __name__ == "__main__":
    main()
