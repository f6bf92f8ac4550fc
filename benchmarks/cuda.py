"""The solve on a CUDA device, against what the device can do: its copy bandwidth and its matrix rate.

`python -m benchmarks.cuda` measures in one run the bandwidth of copies, the rate of float32 and float64
products of the solve's own shape, each phase of the solve of features that are on the device, and embedding.
It prints seconds, the operations that `benchmarks.cost` says a phase takes, and the share of the float32 rate
that this makes. Without a CUDA device it says so and measures nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cost import Size, operations
from benchmarks.embedding import Bench, enlarged, network, photos
from benchmarks.machine import save
from divacli.features import ExtractOptions
from divacli.ridge import (
    RidgeTask,
    Scaling,
    SquaredLoss,
    fit_noise,
    in_eigenbasis,
    loo_derivative,
    loo_predictions,
    moments,
    noise_rows,
    ridge_path,
    scores,
)
from divacli.ridge.fit.products import column_blocks

SIZES = ((100_000, 512, 100), (1_281_167, 2048, 1000))
"""(n, d, k)."""

SOLVE = ("moments", "eigenbasis", "path", "derivative")
"""Phases that make up the solve: from features to the derivative of every sample."""

_ROOM = 2.6
"""Memory that a solve takes, in units of its features: these, the rotated ones, and what batches need."""


def seconds(device: torch.device, work: Callable[[], object], repeats: int = 1) -> float:
    """Best of some runs, each until the device has done its work."""
    best = float("inf")
    for _ in range(repeats):
        _finish(device)
        start = time.perf_counter()
        work()
        _finish(device)
        best = min(best, time.perf_counter() - start)
    return best


def bandwidths(device: torch.device, n_bytes: int = 1 << 30) -> dict[str, float]:
    """Bytes a second that are read and written on the device, and that come from pinned memory."""
    here = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    there = torch.empty_like(here)
    pinned = torch.zeros(n_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    return {
        "device_to_device": 2 * n_bytes / seconds(device, lambda: there.copy_(here), 5),
        "host_to_device": n_bytes / seconds(device, lambda: there.copy_(pinned, non_blocking=True), 5),
    }


def matrix_rate(device: torch.device, dtype: torch.dtype, n: int, d: int) -> float:
    """Operations a second of the product of (n, d) and (d, d), the best of some."""
    rows, matrix = (torch.randn(size, d, dtype=dtype, device=device) for size in (n, d))
    return 2 * n * d * d / seconds(device, lambda: rows @ matrix, 5)


def problem(n: int, d: int, k: int, device: torch.device) -> RidgeTask:
    """A mixture of k Gaussians on a device, in which a tenth of the labels is wrong."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, k, (n,), generator=generator)
    centres = (5 / d**0.5) * torch.randn(k, d, generator=generator).to(device)
    torch.manual_seed(0)
    features = torch.randn(n, d, device=device)
    for part in torch.arange(n).split(65_536):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        features[rows] += centres[truth[part].to(device)]
    wrong = torch.rand(n, generator=generator) < 0.1
    labels = torch.where(wrong, torch.randint(0, k, (n,), generator=generator), truth)
    weights = torch.ones(n, dtype=torch.float64)
    return RidgeTask(features, labels, k, weights, scaling=Scaling("unit"), device=device)


def phases(task: RidgeTask) -> tuple[dict[str, float], int]:
    """Seconds of each phase of the solve and of a table of scores, and the number of ridges on the path."""
    found: dict[str, Any] = {}
    took: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        def kept() -> None:
            found[name] = work()

        took[name] = seconds(task.device, kept)

    loss, order = SquaredLoss(), torch.arange(len(task))
    timed("moments", lambda: moments(task))
    timed("eigenbasis", lambda: found["moments"].decompose())
    spectrum, turned, _ = in_eigenbasis(task, found["eigenbasis"])
    timed("path", lambda: ridge_path(turned, spectrum))
    path = found["path"]
    best = path.ridge
    fit = spectrum.fit(best)
    timed("derivative", lambda: loo_derivative(turned, fit, loss))
    rows = noise_rows(order, task.n_classes)
    predictions: list[Tensor] = []
    timed("noise_predictions", lambda: predictions.append(loo_predictions(turned, fit, rows)))
    timed("noise", lambda: fit_noise(predictions[0], task.labels[rows]))
    model = found["noise"].model
    timed("scores", lambda: scores(turned, fit, loss, model, order))
    return took, len(path.ridges)


def solve(n: int, d: int, k: int, device: torch.device, rate: float) -> dict[str, Any]:
    """Measure one size, against a rate of operations a second."""
    task = problem(n, d, k, device)
    took, n_ridges = phases(task)
    predicted = operations(Size(n, d, k, n_ridges, len(column_blocks(d, device))))
    whole = sum(took[name] for name in SOLVE)
    work = sum(predicted[name] for name in SOLVE)
    print(
        f"n {n:,}  d {d}  k {k}, {n_ridges} ridges: {whole:.3f} s, {work:.3g} operations, "
        f"{work / whole / rate:.0%} of the float32 rate"
    )
    for name, value in took.items():
        print(f"  {name:<18}{value:8.3f} s", end="")
        known = predicted.get(name)
        print(f"{known:10.3g} operations, {known / value / rate:4.0%}" if known else "  on the CPU")
    return {
        "n": n,
        "d": d,
        "k": k,
        "ridges": n_ridges,
        "seconds": took,
        "operations": predicted,
        "solve": whole,
        "share_of_float32_rate": work / whole / rate,
    }


def embedding(device: torch.device) -> list[dict[str, object]]:
    """Images a second of `extract` beside the bare network, as `benchmarks.embedding` measures them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(network(device, folder), ExtractOptions(device), repeats=3)
        small = photos(1000, folder)
        large = enlarged(small[:150], folder)
        return [bench.row(name, files * 20) for name, files in (("photos", small), ("large JPEG", large))]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure and print."""
    if not torch.cuda.is_available():
        print("skipped: no CUDA device")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    copies = bandwidths(device)
    print("".join(f"{name} {value / 1e9:,.0f} GB/s  " for name, value in copies.items()))
    solve(5_000, 256, 10, device, 1.0)  # libraries make themselves ready
    rows: list[dict[str, Any]] = []
    for n, d, k in SIZES:
        if _ROOM * 4 * n * d > torch.cuda.mem_get_info(device)[0]:
            print(f"n {n:,}  d {d}: skipped, its features do not fit")
            continue
        shape = min(n, 1 << 18), d
        single, double = (matrix_rate(device, dtype, *shape) for dtype in (torch.float32, torch.float64))
        print(
            f"products ({shape[0]}, {d}) ({d}, {d}): {single / 1e12:.1f} TFLOP/s, float64 {double / 1e12:.1f}"
        )
        rows.append({"float32_rate": single, "float64_rate": double, **solve(n, d, k, device, single)})
        torch.cuda.empty_cache()
    save("cuda", [{"bandwidths": copies}, *rows, *({"embedding": row} for row in embedding(device))])


if __name__ == "__main__":
    main()
