"""A network small enough to build, save and run many times, and a file that makes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

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
