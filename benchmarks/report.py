"""The page of 100,000 samples: its size, the time to write it, and the time until a browser shows it.

    python -m benchmarks.report

Images are 32 x 32 pixels of noise with a tint of their class, a twentieth of them mislabelled, seen by an
untrained linear layer: the page does the same work whatever they show. Chromium is driven by Playwright.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.machine import save

_CLASSES = 10
_NETWORK = """
import torch
from torch import nn
from torchvision.transforms import v2

SCALED = (v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True))

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 1024, 64), nn.Linear(64, 10))
    return net, v2.Compose([v2.Resize((32, 32)), *SCALED])
"""


def main() -> None:
    """Print and save the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100_000)
    n = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), n)
    for name, value in result.items():
        print(f"{name:<28} {value:,.2f}")
    save("report", [{"n_samples": n, **result}])


def measured(folder: Path, n: int) -> dict[str, float]:
    """Seconds, and megabytes of the page."""
    write_images(folder, n)
    (folder / "net.py").write_text(_NETWORK)
    network = ("--model", f"{folder / 'net.py'}:make")
    diva("score", folder / "labels.csv", *network, "--out", folder / "out", "--cache-dir", folder / "cache")
    found = {}
    # The second time, images and features are in memory, as after diva score --report.
    for name in ("report, first time", "report"):
        found[f"{name} in s"] = diva("report", folder / "out", "--cache-dir", folder / "cache")
    page = folder / "out" / "report.html"
    return {**found, "page in MB": page.stat().st_size / 1e6, "opened in s": opened(page)}


def write_images(folder: Path, n: int) -> None:
    """Write n images and their labels."""
    generator = np.random.default_rng(0)
    tints = generator.integers(0, 120, (_CLASSES, 3))
    truth = np.arange(n) % _CLASSES
    labels = np.where(generator.random(n) < 0.05, (truth + 1) % _CLASSES, truth)
    paths = [f"images/{row // 1000:03d}/{row:06d}.jpg" for row in range(n)]
    for row, path in enumerate(paths):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = tints[truth[row]] + generator.integers(0, 136, (32, 32, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(target, quality=90)
    pd.DataFrame({"path": paths, "label": [f"class {one}" for one in labels]}).to_csv(
        folder / "labels.csv", index=False
    )


def diva(*arguments: object) -> float:
    """Seconds that a command takes, its start included."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "divacli", *map(str, arguments), "--quiet"], check=True)
    return time.monotonic() - start


def opened(page: Path) -> float:
    """Seconds from asking for the page until its first images are there."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab: Any = browser.new_page()
        start = time.monotonic()
        tab.goto(page.as_uri())
        tab.wait_for_selector("#cards article img")
        seconds = time.monotonic() - start
        browser.close()
    return seconds


if __name__ == "__main__":
    main()
