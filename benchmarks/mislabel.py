"""How well label errors are found: our tool beside its peers, on the same features in the same run.

`python -m benchmarks.mislabel` takes the MobileNetV2 features of `clothing/train` and of cifar10n with its
true labels, and the CLIP features of Caltech-256. It moves labels to a random other class or to the next one,
or takes those of human annotators, three sets of them. Then it runs every tool of `benchmarks.peers`, each in
a process of its own. It prints, and writes as Markdown and JSON, how each tool ranks the wrong labels, what
it decides by itself, what it flags where no label is wrong, its time and memory, and where a rival is better
than our tool. Labels of clothing and Caltech-256 count as right where they were not moved. In
`clothing/finetuned-20` the network itself was fine-tuned on the wrong labels. The cell `clothing/foreign-05`
plants images of cifar10n among the clothes.

Seconds, by the clock and of the processor, do not include imports. Memory does: it is the process's
high-water mark less that of one that only loads the features; processes that a tool starts itself are not
in it.

What has been measured on this machine with the same version of a tool is kept, so that an interrupted run
goes on. Needs the folder `shared` beside the repository; peers come with `pip install -e '.[bench]'`, and
those that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

import divacli
from benchmarks import simifeat, subspaces
from benchmarks.machine import RESULTS, description, peak_memory, require_shared, save
from benchmarks.mislabel_cells import CELLS, Cell, Posed, pose
from benchmarks.mislabel_table import DECISIONS, report
from benchmarks.peers import SELF, TOOLS

SEEDS = (0, 1, 2)
BINS = 10

Row = dict[str, Any]

ORDER = [cell.name for cell in CELLS]


def calibration_error(probability: np.ndarray, wrong: np.ndarray) -> float:
    """Expected calibration error: mean over samples of a bin's distance between stated and true share."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, probability - wrong)).sum() / len(wrong))


def quality(posed: Posed, result: dict[str, np.ndarray]) -> Row:
    """How well the wrong labels are ranked, decided and described."""
    wrong, row = posed.wrong, dict[str, Any]()
    if wrong.any():
        row["auroc"] = float(roc_auc_score(wrong, result["score"]))
        row["ap"] = float(average_precision_score(wrong, result["score"]))
    for suffix in DECISIONS.values():
        if f"flagged{suffix}" in result:
            row |= decided(wrong, result, suffix)
    if "noise_rate" in result:
        row["noise_rate"] = float(result["noise_rate"])
    if "noise_interval" in result:
        low, high = map(float, result["noise_interval"])
        row |= {"noise_low": low, "noise_high": high, "noise_held": bool(low <= wrong.mean() <= high)}
    if "probability" in result:
        row["calibration_error"] = calibration_error(result["probability"], wrong)
        if wrong.any():
            row["suggestion_right"] = float((result["suggested"] == posed.truth)[wrong].mean())
    return row


def decided(wrong: np.ndarray, result: dict[str, np.ndarray], suffix: str) -> Row:
    """How good a decision is, and how good it is expected to be.

    Args:
        wrong: (n,) bool, the truth.
        result: Of a tool.
        suffix: What the names of the decision end in.
    """
    flagged = result[f"flagged{suffix}"]
    row: Row = {f"flagged{suffix}": float(flagged.mean())}
    if wrong.any():
        row[f"f1{suffix}"] = float(f1_score(wrong, flagged))
        row[f"precision{suffix}"] = float(precision_score(wrong, flagged, zero_division=0))
        row[f"recall{suffix}"] = float(recall_score(wrong, flagged))
    for name in (f"expected_precision{suffix}", f"expected_recall{suffix}"):
        if name in result and not np.isnan(result[name]):
            row[name] = float(result[name])
    return row


def outliers(posed: Posed, result: dict[str, np.ndarray], dropped: np.ndarray) -> Row:
    """How planted images are ranked, and which share of them and of the others is dropped."""
    return {
        "outlier_auroc": float(roc_auc_score(posed.wrong, result["outlier"])),
        "planted_dropped": float(dropped[posed.wrong].mean()),
        "others_dropped": float(dropped[~posed.wrong].mean()),
    }


def pruned(file: Path, n: int) -> np.ndarray:
    """Which samples `diva prune --keep auto` drops, (n,) bool."""
    out = str(file.parent / "pruned")
    command = [sys.executable, "-m", "divacli", "prune", str(file), "--keep", "auto", "--force"]
    command += ["--out", out]
    subprocess.run([*command, "--cache-dir", out, "--quiet"], check=True, capture_output=True, text=True)
    dropped = np.zeros(n, bool)
    dropped[pd.read_csv(Path(out) / "dropped.csv")["path"].to_numpy(int)] = True
    return dropped


def measure(cell: Cell, seed: int, names: Iterable[str]) -> list[Row]:
    """Run tools on one cell."""
    posed, rows = pose(cell, seed), []
    with tempfile.TemporaryDirectory() as folder:
        file, target = Path(folder) / "samples.npz", Path(folder) / "result.npz"
        np.savez(file, embedding=posed.features, label=posed.given)
        loading = peak_memory(f"from benchmarks.peers import load\nload({str(file)!r})")
        for name in names:
            row: Row = {"cell": cell.name, "seed": seed, "tool": name, "version": version_of(name)}
            try:
                peak = peak_memory(
                    f"from benchmarks.peers import run\nrun({name!r}, {str(file)!r}, {str(target)!r}, {seed})"
                )
                with np.load(target) as arrays:
                    result = dict(arrays)
                if cell.kind == "foreign":
                    flagged = result["flagged"] | result.get("outlying", False)
                    row |= outliers(posed, result, pruned(file, len(flagged)) if name == "ours" else flagged)
                else:
                    row |= {"noise": float(posed.wrong.mean()), **quality(posed, result)}
                row |= {name: float(result[name]) for name in ("seconds", "cpu_seconds")}
                row |= {"peak": peak - loading, "threads": threads()}
            except subprocess.CalledProcessError as error:
                row["failed"] = error.stderr.strip().splitlines()[-1]
            show(row)
            rows.append(row)
    return rows


def threads() -> int:
    """How many threads a tool may use."""
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


@cache
def version_of(name: str) -> str | None:
    """The installed version of a tool, of what is written here a digest of its sources; None without one."""
    package = TOOLS[name].package
    if package == "divacli":
        return f"{version(package)}+{digest(Path(divacli.__file__).parent.rglob('*.py'))}"
    if package == SELF:
        return digest(Path(str(module.__file__)) for module in (simifeat, subspaces))
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def digest(files: Iterable[Path]) -> str:
    """The first digits of a digest of files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:8]


def kept_rows() -> list[Row]:
    """Rows of an earlier run that hold for this machine and these versions."""
    file = RESULTS / "mislabel.json"
    earlier = json.loads(file.read_text()) if file.exists() else {"machine": None, "rows": []}
    rows: list[Row] = earlier["rows"]
    if earlier["machine"] != description():
        kept = []
    else:
        kept = [row for row in rows if row["version"] == (version_of(row["tool"]) or row["version"])]
    if len(kept) < len(rows):
        print(f"of {len(rows)} rows, {len(rows) - len(kept)} are of another machine or version and dropped")
    return [row for row in kept if "failed" not in row and row["cell"] in ORDER]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mislabel", description=__doc__.split("\n")[0])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--cells", nargs="+", default=["*"], help=f"patterns of: {', '.join(ORDER)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--again", action="store_true", help="measure also what has been measured")
    chosen = parser.parse_args()
    require_shared()
    missing = [name for name in chosen.tools if version_of(name) is None]
    for name in missing:
        print(f"left out, for {TOOLS[name].package} is not installed: {TOOLS[name].title}")
    rows = kept_rows()
    for cell in CELLS:
        if not any(fnmatch(cell.name, pattern) for pattern in chosen.cells):
            continue
        for seed in chosen.seeds if cell.rate else SEEDS[:1]:
            known = {row["tool"] for row in rows if is_of(row, cell, seed) and not chosen.again}
            names = [
                name
                for name in chosen.tools
                if name not in known
                and name not in missing
                and (cell.kind != "foreign" or TOOLS[name].finds_outliers)
            ]
            if names:
                rows = [row for row in rows if not (is_of(row, cell, seed) and row["tool"] in names)]
                rows += measure(cell, seed, names)
                rows.sort(
                    key=lambda row: (ORDER.index(row["cell"]), row["seed"], list(TOOLS).index(row["tool"]))
                )
                save("mislabel", rows)
    text = report(rows)
    (RESULTS / "mislabel.md").write_text(text)
    print(text)


def is_of(row: Row, cell: Cell, seed: int) -> bool:
    """Whether a row was measured on this cell with this seed."""
    return bool(row["cell"] == cell.name and row["seed"] == seed)


def show(row: Row) -> None:
    """Print one line."""
    print(
        {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()},
        flush=True,
    )


if __name__ == "__main__":
    main()
