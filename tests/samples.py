"""Samples made on the spot: fixtures that several rooms of tests import into their `conftest.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from divacli.backbones.backbone import Backbone
from divacli.backbones.load import load_backbone
from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples
from tests import made

NET = """
import torch
from torch import nn
from torchvision.transforms import v2

TRANSFORM = v2.Compose([v2.Resize((6, 6)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])

class Net(nn.Module):
    def __init__(self, classes, width=24, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.hidden = nn.Linear(8 * 16, width)
        self.fc = nn.Linear(width, classes, bias=bias)

    def forward(self, x):
        x = self.bn(self.conv(x)).relu().flatten(1)
        return self.fc(self.dropout(self.hidden(x).relu()))

def make():
    return Net(7), TRANSFORM

def make_three():
    return Net(3), TRANSFORM

def make_plain():
    return Net(7, bias=False), TRANSFORM

class Viewing(Net):
    def forward(self, x):
        x = self.bn(self.conv(x)).relu()
        return self.fc(self.hidden(x.view(x.size(0), -1)).relu())

def make_viewing():
    return Viewing(7), TRANSFORM

def make_deep():
    return nn.Sequential(Net(5), nn.ReLU()), TRANSFORM
"""


@pytest.fixture(scope="session")
def write_images() -> Callable[..., None]:
    """Write images of three tints, which noise makes hard to tell apart, into class folders."""
    return partial(made.write_images, side=6, tint=50, noise=150)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, write_images: Callable[..., None]) -> Path:
    """Sixty of them; not to be changed."""
    folder = tmp_path_factory.mktemp("photos")
    write_images(folder, made.in_turn(60), seed=0)
    return folder


@pytest.fixture
def net(tmp_path: Path) -> Callable[..., Backbone]:
    """Build the network of `NET` anew: training changes it."""
    file = tmp_path / "net.py"
    file.write_text(NET)
    return lambda name="make", checkpoint=None: load_backbone(f"{file}:{name}", checkpoint)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str | Path], Samples]:
    """Samples of DATA that needs no network."""
    options = ExtractOptions(torch.device("cpu"))
    return lambda data: load_samples(str(data), BackboneChoice(), options, tmp_path / "cache")


@pytest.fixture
def gaussian(tmp_path: Path, load: Callable[[str | Path], Samples]) -> Callable[..., Samples]:
    """Samples of three Gaussian classes, some labels wrong."""

    def make(n: int = 60, d: int = 6, seed: int = 0, weights: np.ndarray | None = None) -> Samples:
        generator = np.random.default_rng(seed)
        truth = np.arange(n) % 3
        features = (generator.normal(size=(3, d)) * 1.5)[truth] + generator.normal(size=(n, d))
        labels = np.where(generator.random(n) < 0.1, (truth + 1) % 3, truth)
        more = {} if weights is None else {"weight": weights}
        file = tmp_path / f"gaussian-{n}-{d}-{seed}-{weights is None}.npz"
        paths = np.array([f"s{number:03d}" for number in range(n)])
        np.savez(file, embedding=features.astype(np.float64), label=labels, path=paths, **more)
        return load(file)

    return make
