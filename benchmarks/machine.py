"""What a measurement was made on, and where its numbers are kept."""

from __future__ import annotations

import json
import os
import platform
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


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Write rows beside the machine's description."""
    RESULTS.mkdir(exist_ok=True)
    content = {
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "rows": rows,
    }
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")
