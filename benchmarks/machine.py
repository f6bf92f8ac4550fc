"""What a measurement was made on, and where its numbers are kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def require_shared() -> None:
    """End here, saying so, where the real data are absent."""
    if not SHARED.is_dir():
        sys.exit(f"skipped: no folder {SHARED.name} beside the repository")


def description() -> dict[str, Any]:
    """What this machine is, as far as it bears on speed."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def save(name: str, rows: list[dict[str, Any]], markdown: str | None = None) -> None:
    """Write rows beside the machine's description, and a page for people where there is one."""
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": description(), "rows": rows}
    texts = {"json": json.dumps(content, indent=1) + "\n"}
    if markdown is not None:
        texts["md"] = markdown
    for suffix, text in texts.items():
        target = RESULTS / f"{name}.{suffix}"
        target.write_text(text)
        print(f"wrote {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")


def peak_memory(program: str) -> int:
    """Peak resident bytes of a Python program, from the kernel's own high-water mark. Linux only."""
    report = "\nprint(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])"
    command = [sys.executable, "-c", program + report]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024
