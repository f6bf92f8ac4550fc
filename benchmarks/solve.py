"""The solve against a bare Gram product of the same size, scikit-learn's RidgeCV and cleanlab's route.

`python -m benchmarks.solve` prints seconds and ratios, all measured in one run on the same features. The
whole of `solve` is Gram matrix, eigenbasis, a path of 21 ridges, leave-one-out losses and the
derivative of every sample. RidgeCV is given the same ridges and does no more than choose one. cleanlab's
route is out-of-sample probabilities from five-fold cross-validated logistic regression and
`find_label_issues`; where cleanlab is not installed the cross-validation alone is timed, nearly all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import cross_val_predict

from benchmarks.machine import save
from divacli.ridge import (
    RidgePath,
    RidgeTask,
    Scaling,
    SquaredLoss,
    decompose,
    in_eigenbasis,
    loo_derivative,
    ridge_path,
)

SIZES = [
    (2_000, 128, 2),
    (2_000, 512, 10),
    (8_677, 1281, 101),
    (20_000, 512, 100),
    (20_000, 2048, 1000),
    (100_000, 512, 100),
]
"""(n, d, k); up to a million samples: `benchmarks.scaling`."""

PEERS = ((2_000, 128, 2), (2_000, 512, 10), (8_677, 1281, 101))
"""Sizes at which peers are run: beyond them they take minutes."""


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Best of some runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def problem(n: int, d: int, k: int) -> RidgeTask:
    """A mixture of k Gaussians in which a tenth of the labels is wrong."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, k, (n,), generator=generator)
    features = torch.randn(n, d, generator=generator)
    features += (5 / d**0.5) * torch.randn(k, d, generator=generator)[truth]
    wrong = torch.rand(n, generator=generator) < 0.1
    labels = torch.where(wrong, torch.randint(0, k, (n,), generator=generator), truth)
    return RidgeTask(features, labels, k, torch.ones(n, dtype=torch.float64), scaling=Scaling("unit"))


def solve(task: RidgeTask) -> tuple[RidgePath, dict[str, float]]:
    """The whole solve: its path, and the seconds of each part."""
    parts: dict[str, float] = {}
    last = time.perf_counter()

    def took(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        parts[name], last = now - last, now

    spectrum = decompose(task)
    took("moments and eigenbasis")
    spectrum, task, _ = in_eigenbasis(task, spectrum)
    path = ridge_path(task, spectrum)
    took("rotation and path")
    best = path.ridge
    loo_derivative(task, spectrum.fit(best), SquaredLoss())
    took("leave-one-out and derivative")
    return path, parts


def peers(task: RidgeTask, path: RidgePath) -> dict[str, float]:
    """Seconds of RidgeCV on the same path, and of cleanlab's route."""
    unit = torch.nn.functional.normalize(torch.as_tensor(task.features[:]))
    features, labels = unit.double().numpy(), task.labels.numpy()
    targets = torch.nn.functional.one_hot(task.labels, task.n_classes).double().numpy()
    found = {"ridgecv": seconds(lambda: RidgeCV(alphas=path.ridges.numpy()).fit(features, targets), 1)}

    def cross_validated() -> None:
        # At unit length the default strength of the penalty learns next to nothing.
        model = LogisticRegression(C=100, max_iter=1000)
        probabilities = cross_val_predict(model, unit.numpy(), labels, cv=5, method="predict_proba")
        _issues(labels, probabilities)

    return found | {"cleanlab": seconds(cross_validated, 1)}


def _issues(labels: np.ndarray, probabilities: np.ndarray) -> None:
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return
    find_label_issues(labels, probabilities)


def main() -> None:
    """Measure and print."""
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        task = problem(*size)
        n, d, k = size
        features = torch.as_tensor(task.features[:])
        bare = seconds(lambda: features.T @ features, 5)  # noqa: B023
        runs = [
            (time.perf_counter(), *solve(task), time.perf_counter()) for _ in range(3 if n < 50_000 else 1)
        ]
        start, path, parts, end = min(runs, key=lambda run: run[3] - run[0])
        bare = min(bare, seconds(lambda: features.T @ features, 5))  # noqa: B023
        row: dict[str, Any] = {
            "n": n,
            "d": d,
            "k": k,
            "ridges": len(path.ridges),
            "gram": bare,
            "solve": end - start,
        }
        row |= {"parts": parts, "ratio": row["solve"] / bare}
        if size in PEERS:
            row |= peers(task, path)
        rows.append(row)
        print(
            f"n {n:>7,}  d {d:>5}  k {k:>4}  solve {row['solve']:7.2f} s = {row['ratio']:5.1f} x bare Z'Z"
            f" ({bare:.3f} s), {len(path.ridges)} ridges"
            + "".join(
                f"; {name} {row[name]:.2f} s = {row[name] / row['solve']:.1f} x the solve"
                for name in ("ridgecv", "cleanlab")
                if name in row
            )
        )
        print("    " + ", ".join(f"{name} {value / bare:.1f}" for name, value in parts.items()) + "  (x Z'Z)")
    save("solve", rows)


if __name__ == "__main__":
    main()
