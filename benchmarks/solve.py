"""The solve against a bare Gram product of the same size, and against scikit-learn's RidgeCV on its path.

`python -m benchmarks.solve` prints seconds and ratios. The whole of `solve` is Gram matrix, eigenbasis, a
path of 29 ridges, the ranking ridge, LOO losses and the derivative of every sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from sklearn.linear_model import RidgeCV

from benchmarks.machine import save
from divacli.ridge import (
    RidgeTask,
    Scaling,
    SquaredLoss,
    choose_ranking_ridge,
    decompose,
    leave_one_out,
    loo_derivative,
    ridge_path,
)

SIZES = [(2_000, 512, 10), (4_000, 1280, 10), (20_000, 512, 100), (100_000, 512, 10)]
"""(n, d, k)."""

PEER_LIMIT = 20_000
"""RidgeCV keeps n x n or several n x d float64 arrays; it is run up to this n."""


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Best of some runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Measure and print."""
    rows = []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for n, d, k in SIZES:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, k, (n,), generator=generator)
        features = torch.randn(n, d, generator=generator) + torch.randn(k, d, generator=generator)[labels]
        task = RidgeTask(
            features, labels, k, torch.ones(n, dtype=torch.float64), scaling=Scaling("unit"), device=device
        )

        def solve(task: RidgeTask = task) -> None:
            spectrum = decompose(task)
            path = ridge_path(task, spectrum)
            best = float(path.ridges[path.best])
            ranking = choose_ranking_ridge(task, spectrum, best, SquaredLoss())
            leave_one_out(task, spectrum.fit(best), SquaredLoss())
            loo_derivative(task, spectrum.fit(ranking.ridge), SquaredLoss())

        on_device = features.to(device)

        def gram(on_device: torch.Tensor = on_device) -> None:
            (on_device.T @ on_device).cpu()

        whole, bare, peer = seconds(solve), seconds(gram), None
        if n <= PEER_LIMIT:
            ridges = ridge_path(task, decompose(task)).ridges.numpy()
            unit = torch.nn.functional.normalize(features).double().numpy()
            targets = torch.nn.functional.one_hot(labels, k).double().numpy()
            peer = seconds(lambda: RidgeCV(alphas=ridges).fit(unit, targets), 1)  # noqa: B023
        rows.append({"n": n, "d": d, "k": k, "solve": whole, "gram": bare, "ridgecv": peer})
        print(
            f"n {n:>7,}  d {d:>5}  k {k:>4}  solve {whole:7.2f} s  bare Z'Z {bare:7.3f} s  "
            f"ratio {whole / bare:6.1f}  RidgeCV, path only: " + (f"{peer:.2f} s" if peer else "not run")
        )
    save("solve", rows)


if __name__ == "__main__":
    main()
