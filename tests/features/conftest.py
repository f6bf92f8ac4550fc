"""A tiny network in a factory file, and small images made on the spot."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from divacli.backbones.backbone import Backbone
from divacli.backbones.load import load_backbone
from divacli.features import BackboneChoice, ExtractOptions
from divacli.features.store import FeatureStore

NETWORK_FILE = """
import os
import time

import torch
from torch import nn
from torchvision.transforms import functional


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 16, 5)
            self.hidden = nn.Linear(16, 12)
            self.fc = nn.Linear(12, 3)

    def embed(self, x):
        return self.hidden(self.conv(x).tanh().mean((2, 3))).tanh()

    def forward(self, x):
        time.sleep(float(os.environ.get("TEST_SECONDS_A_FORWARD", 0)))
        return self.fc(self.embed(x))


def to_tensor(image):
    return functional.to_tensor(image.resize((16, 16)))


def make():
    return Net(), to_tensor
"""

SaveImage = Callable[..., Path]


@pytest.fixture(scope="session")
def save_noise() -> SaveImage:
    """Write an image of seeded noise, its format told by the suffix."""

    def save(path: Path, seed: int, size: tuple[int, int] = (20, 24)) -> Path:
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return save


@pytest.fixture(scope="session")
def save_red() -> SaveImage:
    """Write an all red image: what the special networks and transforms of these tests stumble over."""

    def save(path: Path) -> Path:
        Image.new("RGB", (20, 24), (255, 0, 0)).save(path)
        return path

    return save


@pytest.fixture(scope="session")
def noise_keys() -> Callable[..., np.ndarray]:
    """Keys (n, 32) as if of n images."""
    return lambda n, seed=0: np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8)


@pytest.fixture(scope="session")
def by_plain_loop() -> Callable[[str, list[str]], Tensor]:
    """Features (n, 12), one image at a time, sharing no code with the package."""

    def features(model: str, files: list[str]) -> Tensor:
        network, transform = runpy.run_path(model.rpartition(":")[0])["make"]()
        with torch.no_grad():
            images = [transform(Image.open(file).convert("RGB")) for file in files]
            return torch.cat([network.eval().embed(image[None]) for image in images])

    return features


@pytest.fixture
def write_network(tmp_path: Path) -> Callable[[str], str]:
    """Write the network's file with more code at its end; the result is what `--model` takes."""

    def write(more: str = "") -> str:
        path = tmp_path / "net.py"
        path.write_text(NETWORK_FILE + more)
        return f"{path}:make"

    return write


@pytest.fixture
def model(write_network: Callable[[str], str]) -> str:
    return write_network("")


@pytest.fixture
def choice(model: str) -> BackboneChoice:
    return BackboneChoice(model)


@pytest.fixture
def backbone(model: str) -> Backbone:
    return load_backbone(model)


@pytest.fixture
def photos(tmp_path: Path, save_noise: SaveImage) -> Path:
    """Three classes of ten PNG and JPEG images of different sizes."""
    folder = tmp_path / "photos"
    for number in range(30):
        suffix = "jpg" if number % 3 else "png"
        name = f"{('cat', 'dog', 'owl')[number % 3]}/{number:02d}.{suffix}"
        save_noise(folder / name, number, (16 + number, 40 - number))
    return folder


@pytest.fixture
def many(tmp_path: Path, save_noise: SaveImage) -> list[str]:
    """Paths of so many images that worker processes decode them."""
    return [str(save_noise(tmp_path / f"many/{number:02d}.png", number)) for number in range(80)]


@pytest.fixture
def options() -> ExtractOptions:
    return ExtractOptions(torch.device("cpu"), workers=0)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "features-cache"


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """An empty store for 12 features."""
    return FeatureStore.create(tmp_path / "store", {"model": "net", "weights": "abc"}, 12)
