"""What images a network takes: one channel, the size of its position embeddings, no random transform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from divacli.backbones.load import load_backbone
from divacli.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore::DeprecationWarning")

COLOURED = Image.new("RGB", (90, 80), (200, 100, 50))
GREY = Image.new("RGB", (90, 80), (124, 124, 124))  # as bright as it


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm", reason="timm is not installed")


def one_channel(channels: int) -> nn.Module:
    torch.manual_seed(0)
    network = models.resnet18(num_classes=3).eval()
    network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return network


class Small(nn.Module):
    """A network for grey images."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 5, stride=4)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.stem(x).relu().mean((2, 3)))


def takes_grey_images(backbone: Any, side: int) -> None:
    coloured, grey = (backbone.transform(image) for image in (COLOURED, GREY))
    assert coloured.shape == backbone.image_shape == (1, side, side)
    torch.testing.assert_close(coloured, grey, atol=0.02, rtol=0)
    assert backbone.features(coloured[None]).shape == (1, backbone.n_features)


def test_a_network_of_torchvision_with_one_channel(tmp_path):
    network = one_channel(1)
    torch.save(network.state_dict(), tmp_path / "best.pt")
    backbone = load_backbone("resnet18", tmp_path / "best.pt", image_size=32)
    takes_grey_images(backbone, 32)
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    weight, bias = backbone.head
    torch.testing.assert_close(backbone.features(images) @ weight.T + bias, network(images).detach())


def test_a_network_of_timm_with_one_channel(timm, tmp_path):
    torch.save(timm.create_model("test_resnet", in_chans=1).state_dict(), tmp_path / "best.pt")
    takes_grey_images(load_backbone("timm:test_resnet", tmp_path / "best.pt", image_size=32), 32)


@pytest.mark.parametrize("kind", ["script", "export"])
def test_an_archive_with_one_channel(tmp_path, kind):
    images = torch.zeros(2, 1, 32, 32)
    if kind == "script":
        torch.jit.trace(Small().eval(), images).save(tmp_path / "best.pt")
    else:
        torch.export.save(torch.export.export(Small().eval(), (images,)), tmp_path / "best.pt")
    takes_grey_images(load_backbone(None, tmp_path / "best.pt", image_size=32), 32)


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_four_channels_are_refused(tmp_path, name):
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is not installed")
    torch.save({"state_dict": one_channel(4).state_dict()}, tmp_path / "best.pt")
    with pytest.raises(ModelError, match=r"images of 4 channels \(conv1\.weight \(64, 4, 7, 7\)\)"):
        load_backbone(name, tmp_path / "best.pt")


def test_an_archive_of_four_channels_is_refused(tmp_path):
    torch.jit.trace(Small(4).eval(), torch.zeros(2, 4, 32, 32)).save(tmp_path / "best.pt")
    with pytest.raises(ModelError, match=r"4 channels"):
        load_backbone(None, tmp_path / "best.pt", image_size=32)


RANDOM = {
    "crop": "T.Compose([T.Resize(40), T.RandomCrop(16), T.ToTensor()])",
    "flip": "T.Compose([T.Resize((16, 16)), T.RandomHorizontalFlip(), T.ToTensor()])",
    "seldom": "T.Compose([T.Resize((16, 16)), T.RandomVerticalFlip(0.001), T.ToTensor()])",
    "of Python": "lambda image: T.functional.to_tensor(image.resize((16, 16))) * random.random()",
    "of NumPy": "lambda image: T.functional.to_tensor(image.resize((16, 16))) * numpy.random.rand()",
    "of its own": "lambda image: T.functional.to_tensor(image.resize((16, 16))) * OWN.random()",
    "of torch": "lambda image: T.functional.to_tensor(image.resize((16, 16))) + torch.rand(1, generator=G)",
}

FACTORY = """
import random, numpy
from torchvision import transforms as T
OWN, G = random.Random(0), torch.Generator()
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), {transform}
"""


@pytest.mark.parametrize("transform", RANDOM)
def test_a_transform_that_draws_at_random_is_refused(factory, transform):
    with pytest.raises(ModelError, match=r"the transform draws at random(.|\n)*validation"):
        load_backbone(factory(FACTORY.format(transform=RANDOM[transform])))


def test_the_transform_of_validation_is_taken(factory):
    transform = "T.Compose([T.Resize(20), T.CenterCrop(16), T.ToTensor(), T.Normalize([0.5], [0.5])])"
    assert load_backbone(factory(FACTORY.format(transform=transform))).image_shape == (3, 16, 16)


class TestVisionTransformersAtAnotherSize:
    @pytest.fixture(scope="class")
    def of_timm(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        timm = pytest.importorskip("timm", reason="timm is not installed")
        path = tmp_path_factory.mktemp("vit") / "best.pt"
        network = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=3)
        torch.save({"state_dict": network.state_dict()}, path)
        return path

    NAME = "timm:vit_tiny_patch16_224"

    @pytest.mark.parametrize("size", [None, 64])
    def test_timm(self, of_timm, size):
        backbone = load_backbone(self.NAME, of_timm, image_size=size)
        assert backbone.image_shape == (3, 64, 64)
        assert backbone.transform(COLOURED).shape == (3, 64, 64)
        assert (backbone.layer, backbone.n_features) == ("head", 192)

    def test_timm_refuses_what_the_embeddings_are_not_for(self, of_timm):
        with pytest.raises(ModelError, match=r"--image-size 96 with .*, which was trained at 64 pixels"):
            load_backbone(self.NAME, of_timm, image_size=96)

    def test_torchvision(self, tmp_path):
        small = {"patch_size": 32, "num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
        with torch.device("meta"):
            network = models.VisionTransformer(image_size=64, num_classes=3, **small)
        weights = {k: torch.zeros(()).expand(w.shape) for k, w in network.state_dict().items()}
        torch.save(weights, tmp_path / "best.pt")
        with pytest.raises(ModelError, match=r"trained at 64 pixels(.|\n)*leave --image-size out"):
            load_backbone("vit_b_32", tmp_path / "best.pt", image_size=96)


def test_a_network_that_runs_a_part_of_itself_while_it_is_built(timm, monkeypatch, tmp_path):
    """timm's hybrid networks do, which cannot be built without values."""
    torch.save(timm.create_model("vit_tiny_r_s16_p8_224", num_classes=3).state_dict(), tmp_path / "best.pt")
    backbone = load_backbone("timm:vit_tiny_r_s16_p8_224", tmp_path / "best.pt")
    assert (backbone.layer, backbone.n_features) == ("head", 192)
