"""Does the 95 % interval of the share of wrong labels hold the truth?

`python -m benchmarks.noise_rate` moves labels of four sets of features (clothing photos at 224 and at 64
pixels, CIFAR-10, Caltech-256 under CLIP), takes those that people gave for CIFAR-10N, and estimates the share
of wrong labels of 300 to 10,000 samples. It prints each cell and how many intervals hold the truth, and
writes `noise_rate.json` and `.md`. Needs the folder `shared` beside the repository. Names of sets after the
command restrict it. The labels of the photos count as right where they were not moved.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import SHARED, require_shared, save
from benchmarks.mislabel_cells import ANNOTATED, labels_by_annotators, moved, rows_of, source, unit
from divacli.curate.sample_scores import label_noise
from divacli.features import BackboneChoice, ExtractOptions, load_samples
from divacli.features.samples import order_by_path
from divacli.files.cache import default_cache
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.solution import solve

KINDS = (
    ("none", 0.0),
    ("uniform", 0.05),
    ("uniform", 0.2),
    ("uniform", 0.4),
    ("pair", 0.2),
    ("pair", 0.3),
    ("one-sided", 0.4),
)
SIZES = (300, 1000, 3000)
MOST = 10_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """Samples, some of whose labels are wrong.

    Attributes:
        data: Which features.
        kind: How labels go wrong; one of `ANNOTATED` for people's.
        rate: Share of the labels that are moved; of one-sided noise, of one class.
        n: Samples.
        seed: Of what is drawn.
    """

    data: str
    kind: str
    rate: float
    n: int
    seed: int


def cells() -> Iterator[Cell]:
    """All cells."""
    for data in ("clothing", "clothing64", "cifar10n", "caltech256"):
        for kind, rate in KINDS:
            for seed, n in enumerate(SIZES):
                yield Cell(data, kind, rate, n, seed)
    for kind in ANNOTATED:
        for seed in (0, 1):
            for n in (*SIZES, MOST):
                if n < MOST or seed == 0:
                    yield Cell("cifar10n", kind, 0.0, n, seed)


@cache
def features(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) and true labels (n,) of a set."""
    if data != "clothing64":
        return source(data)
    checkpoint = SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth"
    choice = BackboneChoice("mobilenet_v2", checkpoint, image_size=64)
    extract = ExtractOptions(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    folder = SHARED / "data" / "clothing" / "train"
    samples = load_samples(str(folder), choice, extract, default_cache())
    return unit(rows_of(samples)), samples.manifest.table["label"].to_numpy(str)


def drawn(cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, given labels and true labels of a cell."""
    rows, truth = features(cell.data)
    generator = np.random.default_rng(cell.seed)
    if cell.data == "caltech256":  # 30 classes, so that 300 samples have ten of each
        few = generator.permutation(np.unique(truth))[:30]
        kept = np.isin(truth, few)
        rows, truth = rows[kept], truth[kept]
    given = truth
    if cell.kind in ANNOTATED:
        given = labels_by_annotators(ANNOTATED[cell.kind])
    which = generator.permutation(len(rows))[: cell.n]
    rows, truth, given = rows[which], truth[which], given[which]
    if cell.rate:
        given = moved(truth, cell.kind, cell.rate, generator)
    return rows, given, truth


def measure(cell: Cell) -> Row:
    """Estimate the share of wrong labels of a cell."""
    rows, given, truth = drawn(cell)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.npz"
        np.savez(file, embedding=rows, label=given)
        options = SolveOptions(seed=cell.seed)
        samples = load_samples(
            str(file), BackboneChoice("none"), ExtractOptions(options.device), Path(folder)
        )
        solution = solve(samples, options)
        fit = solution.spectrum.fit(solution.ridge)
        noise = label_noise(solution.solved, fit, order_by_path(samples), cell.seed)
    wrong = float((given != truth).mean())
    low, high = noise.interval
    return {
        "data": cell.data,
        "kind": cell.kind,
        "rate": cell.rate,
        "n": len(given),
        "seed": cell.seed,
        "wrong": wrong,
        "estimate": noise.rate,
        "low": low,
        "high": high,
        "holds": low <= wrong <= high,
        "shape": noise.shape.name,
        "confused": noise.confused,
    }


def table(rows: list[Row]) -> str:
    """How many intervals hold the truth, and how wide they are, as Markdown."""
    groups: dict[str, list[Row]] = {"all": rows}
    for row in rows:
        groups.setdefault("people" if row["kind"] in ANNOTATED else row["kind"], []).append(row)
    lines = [
        "| labels | cells | hold the truth | mean width | mean distance of the estimate |",
        "|---|---|---|---|---|",
    ]
    for name, group in groups.items():
        held = np.mean([row["holds"] for row in group])
        width = np.mean([row["high"] - row["low"] for row in group])
        distance = np.mean([abs(row["estimate"] - row["wrong"]) for row in group])
        lines.append(f"| {name} | {len(group)} | {held:.0%} | {100 * width:.1f} | {100 * distance:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    require_shared()
    chosen, rows = sys.argv[1:], []
    for cell in cells():
        if chosen and cell.data not in chosen:
            continue
        row = measure(cell)
        rows.append(row)
        print(
            f"{cell.data} {cell.kind} {cell.rate:.0%} n {row['n']}: {row['wrong']:.1%} wrong, estimate "
            f"{row['estimate']:.1%} [{row['low']:.1%}, {row['high']:.1%}] {row['shape']}"
            f"{'' if row['holds'] else ' MISSED'}",
            flush=True,
        )
    text = table(rows)
    print(text)
    if not chosen:
        save("noise_rate", rows, text)


if __name__ == "__main__":
    main()
