"""Time and memory of `diva score` from 10,000 to a million samples on disk, and shared among processes.

`python -m benchmarks.scaling` writes features of 512 columns and 100 classes as `.npz` files into a temporary
folder (2.1 GB for the largest) and scores each in a process of its own. It prints seconds, the growth
exponent of time in n between 10,000 and a million, and the peak of the process's anonymous memory: pages of
its own, which the system cannot take back as it can the page cache. Then 100,000 samples in one and in two
processes of one thread each, whose tables are compared. Linux only.
"""

from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import save

SIZES = (10_000, 31_623, 100_000, 316_228, 1_000_000)
D, K = 512, 100
SHARED = 100_000
"""Samples that two processes share."""


def make_features(file: Path, n: int) -> None:
    """A mixture of K Gaussians, written a block at a time."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, K, n)
    centres = generator.standard_normal((K, D), dtype=np.float32) / 3
    raw = file.with_suffix(".npy")
    embedding = np.lib.format.open_memmap(raw, mode="w+", dtype=np.float32, shape=(n, D))
    for start in range(0, n, 50_000):
        part = slice(start, min(start + 50_000, n))
        embedding[part] = generator.standard_normal((part.stop - start, D), dtype=np.float32)
        embedding[part] += centres[label[part]]
    np.savez(file, embedding=embedding, label=label)
    raw.unlink()


def watched(command: list[str], **environment: str) -> dict[str, float]:
    """Seconds and peak anonymous bytes of a command's process."""
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command, env={**os.environ, **environment}) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if "RssAnon" in line))
            except (OSError, TypeError):  # it has just ended
                pass
            time.sleep(0.02)
        if process.returncode:
            sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    return {"total": time.perf_counter() - start, "peak_anonymous": peak * 1024}


def scored(data: Path, out: Path, launcher: tuple[str, ...] = (), **environment: str) -> dict[str, Any]:
    """`diva score` in a process of its own."""
    command = [sys.executable, "-m", *launcher, "divacli", "score", str(data)]
    options = ["--out", str(out), "--cache-dir", str(out / "cache"), "--quiet"]
    found: dict[str, Any] = dict(watched([*command, *options], **environment))
    found["solve"] = json.loads((out / "summary.json").read_text())["seconds"]["solve"]
    return found


def exponent(rows: list[dict[str, Any]], what: str) -> float:
    """Slope of log time over log n, by least squares."""
    return float(np.polyfit(np.log([row["n"] for row in rows]), np.log([row[what] for row in rows]), 1)[0])


def main() -> None:
    """Measure and print."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for n in SIZES:
            data = Path(folder) / f"{n}.npz"
            make_features(data, n)
            row = {"n": n, "d": D, "k": K, "features": data.stat().st_size}
            row |= scored(data, Path(folder) / f"out-{n}")
            rows.append(row)
            print(
                f"n {n:>9,}  features {row['features'] / 1e9:5.2f} GB  solve {row['solve']:7.1f} s  "
                f"command {row['total']:7.1f} s  peak anonymous memory {row['peak_anonymous'] / 1e9:.2f} GB",
                flush=True,
            )
            if n != SHARED:
                data.unlink()
        slopes = {what: exponent(rows, what) for what in ("solve", "total")}
        print(f"exponent of time in n: solve {slopes['solve']:.2f}, whole command {slopes['total']:.2f}")
        rows.append({"exponents": slopes})
        data = Path(folder) / f"{SHARED}.npz"
        for processes in (1, 2):
            launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m")
            out = Path(folder) / f"shared-{processes}"
            rows.append({"n": SHARED, "d": D, "k": K, "processes": processes})
            rows[-1]["solve"] = scored(data, out, launcher, OMP_NUM_THREADS="1")["solve"]
            print(f"{processes} process(es) of one thread: solve {rows[-1]['solve']:.1f} s", flush=True)
        one, two = (Path(folder) / f"shared-{processes}" / "scores.csv" for processes in (1, 2))
        same = filecmp.cmp(one, two, shallow=False)
        print(f"speed-up {rows[-2]['solve'] / rows[-1]['solve']:.2f}; scores.csv is the same: {same}")
        rows[-1]["same_table"] = same
    save("scaling", rows)


if __name__ == "__main__":
    main()
