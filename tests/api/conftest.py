"""Data in memory and on disk, a network, and the comparison of what Python and the command line write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from divacli.cli.app import app

TIMES = ("seconds", "n_embedded")
"""What differs between two runs, and what only images have."""

NET = """
import torch
from torch import nn
from torchvision.transforms import v2

class Net(nn.Sequential):
    def __init__(self, classes):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU())
        super().__init__(body, nn.Linear(8, classes))

def make():
    scaled = v2.ToDtype(torch.float32, scale=True)
    return Net(2), v2.Compose([v2.Resize((6, 6)), v2.PILToTensor(), scaled])
"""


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Three Gaussian classes in an `.npz` file, a tenth of the labels wrong; some copies, an annotator."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    truth = np.arange(120) % 3
    centres = generator.normal(size=(3, 6)) * 2
    annotators = np.array(["ann", "ben"])

    def write(name: str, n: int) -> None:
        truth = np.arange(n) % 3
        features = (centres[truth] + generator.normal(size=(n, 6))).astype(np.float32)
        features[1], features[4] = features[0], features[3]
        labels = np.where(generator.random(n) < 0.1, (truth + 1) % 3, truth)
        np.savez(name, embedding=features, label=labels, annotator=annotators[np.arange(n) % 2])

    write("data.npz", len(truth))
    write("pool.npz", 60)
    write("test.npz", 90)
    return Path("data.npz")


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """Images in class folders, and a network for them in `net.py`."""
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for number in range(30):
        file = Path("photos", "ab"[number % 2], f"{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 170, (6, 6, 3)) + np.array([60, 0, 0]) * (number % 2)
        image.fromarray(pixels.astype(np.uint8)).save(file)
    Path("net.py").write_text(NET)
    return Path("photos")


@pytest.fixture
def command() -> Callable[..., None]:
    """Run the command line in this process; it must succeed."""

    def run(*arguments: object) -> None:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"

    return run


def recorded(content: bytes) -> list[object]:
    """The runs of a record, without measured times and options that the calls do not share."""
    runs = json.loads(content)["runs"]
    for run in runs:
        run["options"] = {
            name: sorted(map(str, value)) if isinstance(value, list) else str(value)
            for name, value in run["options"].items()
            if name not in ("cache_dir", "format", "workers", "fractions")
        }
        run["outputs"] = {
            name: None if name.endswith((".json", ".pt")) or name == "history.csv" else about
            for name, about in run["outputs"].items()
        }
    return runs


def timeless(content: object) -> object:
    """An object without the times in it."""
    if isinstance(content, dict):
        return {name: timeless(value) for name, value in content.items() if name not in TIMES}
    return content


@pytest.fixture
def same_files() -> Callable[[str, str], None]:
    """Require the same files in two folders, but for the times that were measured."""

    def compare(one: str, other: str) -> None:
        names, others = (
            sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())
            for folder in (one, other)
        )
        # What the command line goes on from if it is interrupted; from Python it lies where one wants.
        assert [name for name in names if name != "checkpoint.pt"] == others
        for name in others:
            contents: list[object] = [Path(folder, name).read_bytes() for folder in (one, other)]
            if name == "run.json":
                contents = [recorded(content) for content in contents]
            elif name.endswith(".json"):
                contents = [timeless(json.loads(content)) for content in contents]
                assert list(contents[0]) == list(contents[1])
            elif name == "history.csv":
                contents = [
                    [row.rpartition(b",")[0] if b"seconds" in rows[0] else row for row in rows]
                    for rows in (content.splitlines() for content in contents)
                ]
            assert contents[0] == contents[1], name

    return compare
