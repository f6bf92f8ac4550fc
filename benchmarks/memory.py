"""Peak memory of `diva score` on features of 200,000 x 512, as a process of its own.

`python -m benchmarks.memory` writes the features as an `.npz` file and scores it in a child process. It
prints that process's peak resident memory beside the size of the features on disk, and what importing torch
and pandas takes alone. Linux only.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.machine import save

N, D, K = 200_000, 512, 10


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "features.npz"
        generator = np.random.default_rng(0)
        label = generator.integers(0, K, N)
        centres = generator.standard_normal((K, D)).astype(np.float32)
        embedding = generator.standard_normal((N, D), dtype=np.float32) + centres[label]
        np.savez(data, embedding=embedding, label=label)
        size = data.stat().st_size
        imports = peak_memory("import torch, pandas")
        command = ["score", str(data), "--out", folder, "--cache-dir", folder, "--quiet"]
        peak = peak_memory(
            f"from divacli.cli.app import app\napp({command!r}, standalone_mode=False)",
        )
    print(
        f"features on disk {size / 1e6:,.0f} MB; peak resident memory of the whole process "
        f"{peak / 1e6:,.0f} MB, which is features {(peak - size) / 1e6:+,.0f} MB; "
        f"torch and pandas alone {imports / 1e6:,.0f} MB"
    )
    save(
        "memory",
        [{"n": N, "d": D, "k": K, "features": size, "peak_resident": peak, "imports_alone": imports}],
    )


def peak_memory(program: str) -> int:
    """Peak resident bytes of a Python program, from the kernel's own high-water mark."""
    report = "\nprint(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])"
    command = [sys.executable, "-c", program + report]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024


if __name__ == "__main__":
    main()
