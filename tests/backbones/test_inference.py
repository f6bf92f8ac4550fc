"""A backbone made fast gives the same features, or stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from divacli.backbones.backbone import Backbone
from divacli.backbones.load import load_backbone

FILE = """
import torch
from torch import nn
from torchvision.transforms import functional


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.second, self.after = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
            self.fc = nn.Linear(8, 3)
            for norm in (self.norm, self.after):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)

    def forward(self, x):
        return self.fc(self.embed(x).mean((2, 3)))

    def embed(self, x):
        return self.after(self.second(self.norm(self.conv(x)).relu())).relu()


class Twice(Net):  # what a convolution gives is used beside the norm, too
    def embed(self, x):
        x = self.conv(x)
        return (self.norm(x) + x).relu()


class Shared(Net):  # one norm after two convolutions
    def embed(self, x):
        return self.after(self.second(self.after(self.conv(x)).relu())).relu()


class Odd(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) ** 2


class Subclass(Net):
    def __init__(self):
        super().__init__()
        odd = Odd(3, 8, 3)
        odd.load_state_dict(self.conv.state_dict())
        self.conv = odd


class Named(Net):  # its code asks for what a batch norm has
    def embed(self, x):
        return super().embed(x) * self.norm.weight.abs().sum()


def to_tensor(image):
    return functional.to_tensor(image.resize((16, 16)))
"""
FILE += "".join(
    f"\n\ndef {name.lower()}():\n    return {name}(), to_tensor\n"
    for name in ("Net", "Twice", "Shared", "Subclass", "Named")
)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Backbone]:
    (tmp_path / "nets.py").write_text(FILE)
    return lambda name: load_backbone(f"{tmp_path / 'nets.py'}:{name}")


@pytest.fixture
def images() -> Tensor:
    return torch.rand((5, 3, 16, 16), generator=torch.Generator().manual_seed(3))


def norms(backbone: Backbone) -> list[str]:
    return [name for name, part in backbone.network.named_modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("net", []),
        ("twice", ["norm", "after"]),
        ("shared", ["norm", "after"]),
        ("subclass", ["norm"]),
        ("named", ["norm", "after"]),
    ],
)
def test_batch_norms_are_folded_where_nothing_else_changes(
    load: Callable, images: Tensor, name: str, left: list[str]
) -> None:
    backbone = load(name)
    expected = backbone.features(images)
    fast = backbone.for_inference()
    assert norms(fast) == left
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(fast.features(last), expected, rtol=1e-5, atol=1e-6)
    assert expected.std(0).max() > 1e-3  # else any images would do
    assert norms(backbone) == ["norm", "after"]
    assert torch.equal(backbone.features(images), expected)
    assert fast.identity == backbone.identity


def test_a_layer_between_convolution_and_norm_is_left_as_it_is(
    load: Callable, images: Tensor, tmp_path: Path
) -> None:
    load("net")
    backbone = load_backbone(f"{tmp_path / 'nets.py'}:net", layer="norm")
    fast = backbone.for_inference()
    assert norms(fast) == ["norm", "after"]
    assert torch.equal(fast.features(images), backbone.features(images))


def test_compiled_features_are_the_same(load: Callable, images: Tensor, monkeypatch) -> None:
    """Whatever compiles the network sees its hook: here the compiler that changes nothing."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **options: compiled(module, backend="eager"))
    backbone = load("net")
    fast = backbone.for_inference(compiled=True)
    for batch in (images, images.flip(0) + 1):
        torch.testing.assert_close(fast.features(batch), backbone.features(batch), rtol=1e-5, atol=1e-6)
