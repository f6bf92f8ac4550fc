"""A network small enough to build, save and run many times, and a file that makes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.backbones.saved import TOKENS, Save

FACTORY_FILE = """
import torch
from torch import nn
from torchvision import transforms

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.hidden = nn.Linear(8, 6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.hidden(self.bn(self.conv(x)).mean((2, 3))).relu())

def to_tensor(image):
    return transforms.functional.to_tensor(image.resize((16, 16)))

def make():
    return Tiny()

def make_with_transform():
    return Tiny(), to_tensor
"""


class Tiny(nn.Module):
    """Convolution, batch normalisation and two linear layers: 6 features, 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.hidden = nn.Linear(8, 6)
        self.fc = nn.Linear(6, 4)

    def embed(self, x: Tensor) -> Tensor:
        return self.hidden(self.bn(self.conv(x)).mean((2, 3))).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x))


@pytest.fixture
def tiny() -> nn.Module:
    torch.manual_seed(0)
    network = Tiny().eval()
    network.bn.running_mean.normal_()
    return network


@pytest.fixture
def images() -> Tensor:
    return torch.randn((5, 3, 16, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def net_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(FACTORY_FILE)
    return path


@pytest.fixture
def factory(tmp_path: Path) -> Callable[[str], str]:
    """Write the body of a module and return the spec of its function `make`."""

    def write(body: str) -> str:
        path = tmp_path / "made.py"
        path.write_text(f"import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n{body}")
        return f"{path}:make"

    return write


@pytest.fixture
def shared() -> Path:
    folder = Path(__file__).parents[2].parent / "shared"
    if not (folder / "weights").is_dir():
        pytest.skip(f"no {folder / 'weights'}: the two real checkpoints are not here")
    return folder


@pytest.fixture(scope="session")
def save_network(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Write a tiny network of random weights and its image processor, once for the same arguments."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    done: dict[str, Path] = {}

    def save(name: str, config: str, settings: dict[str, Any], **more: Any) -> Path:
        key = repr((name, config, settings, more))
        if key not in done:
            folder = done[key] = tmp_path_factory.mktemp(name)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = getattr(transformers, name)(getattr(transformers, config)(**settings, **more))
                # Biases and norms too, which would not be seen at 0 and 1.
                for parameter in network.parameters():
                    parameter.data += 0.1 * torch.randn_like(parameter)
            network.save_pretrained(folder)
            transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
        return done[key]

    return save


@pytest.fixture(scope="session")
def classifier(save_network: Save) -> Path:
    """A ViT with the classes cat, cow and dog; not to be changed."""
    labels = {0: "cat", 1: "cow", 2: "dog"}
    return save_network("ViTForImageClassification", "ViTConfig", TOKENS, id2label=labels)


@pytest.fixture
def folder(classifier: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(classifier, tmp_path / "copy"))
