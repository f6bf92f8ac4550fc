"""What a command imports: no more than it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

CODE = """
import sys
from divacli.cli.app import main
sys.argv = ["diva", "score", "samples.npz", "--out", "scores", "--cache-dir", "cache", "--quiet"]
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
print([name for name in ("torchvision", "PIL", "matplotlib", "sklearn") if name in sys.modules])
"""


def test_features_that_are_there_need_no_torchvision(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = generator.normal(size=(60, 8)) + 3 * np.eye(3, 8)[labels]
    np.savez(tmp_path / "samples.npz", embedding=features, label=labels)
    found = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path
    )
    assert found.stdout == "[]\n"
    assert (tmp_path / "scores" / "scores.csv").exists()
