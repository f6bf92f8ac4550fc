"""Networks that a user's own file makes."""

from __future__ import annotations

import sys

import pytest
import torch
from PIL import Image

from divacli.backbones.load import load_backbone
from divacli.errors import ModelError


def test_a_module_gets_the_imagenet_transform(net_file):
    backbone = load_backbone(f"{net_file}:make")
    assert (backbone.name, backbone.layer, backbone.n_features) == ("net.py:make", "fc", 6)
    assert backbone.transform(Image.new("RGB", (300, 260))).shape == (3, 224, 224)
    assert backbone.transform.resize_size == [256]
    assert load_backbone(f"{net_file}:make", image_size=32).transform.crop_size == [32, 32]
    assert "only files you trust" in backbone.notes[0]


def test_a_transform_of_its_own_is_kept(net_file):
    backbone = load_backbone(f"{net_file}:make_with_transform")
    assert backbone.transform(Image.new("RGB", (300, 260))).shape == (3, 16, 16)
    assert backbone.identity["transform"] == "<function to_tensor>"
    with pytest.raises(ModelError, match=r"--image-size 32 with net\.py:make_with_transform"):
        load_backbone(f"{net_file}:make_with_transform", image_size=32)


def test_a_checkpoint_is_loaded_into_it(net_file, tiny, images, tmp_path):
    torch.save({"module." + k: v for k, v in tiny.state_dict().items()}, tmp_path / "w.pt")
    backbone = load_backbone(f"{net_file}:make", tmp_path / "w.pt")
    torch.testing.assert_close(backbone.features(images), tiny.embed(images).detach())
    torch.save({"fc.wrong": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"does not fit net\.py:make: 8 missing"):
        load_backbone(f"{net_file}:make", tmp_path / "w.pt")


def test_the_folder_is_importable_only_meanwhile(net_file, tmp_path):
    (tmp_path / "outer.py").write_text("def make():\n    import net\n    return net.make()\n")
    before = list(sys.path)
    try:
        assert load_backbone(f"{tmp_path / 'outer.py'}:make").n_features == 6
    finally:
        sys.modules.pop("net", None)
    assert sys.path == before


def test_a_file_named_like_a_package_hides_nothing(net_file, tmp_path):
    net_file.rename(tmp_path / "timm.py")
    load_backbone(f"{tmp_path / 'timm.py'}:make")
    assert "divacli_factory_timm" in sys.modules
    assert getattr(sys.modules.get("timm"), "__file__", None) != str(tmp_path / "timm.py")


@pytest.mark.parametrize("spec", ["absent.py:make", "absent.py"])
def test_an_absent_file_is_named(tmp_path, spec):
    with pytest.raises(ModelError, match=r"no file .*absent\.py\nexpected: FILE\.py:FACTORY"):
        load_backbone(str(tmp_path / spec))


@pytest.mark.parametrize(
    ("suffix", "says"),
    [(":wrong", "defines no callable 'wrong'"), ("", "a file without a factory")],
)
def test_a_wrong_name_lists_those_that_are_there(net_file, suffix, says):
    with pytest.raises(
        ModelError, match=rf"{says}(.|\n)*it defines Tiny, to_tensor, make, make_with_transform"
    ):
        load_backbone(f"{net_file}{suffix}")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def make(:\n", r"made\.py:4: SyntaxError"),
        ("x = 1 / 0\n", r"made\.py:4: ZeroDivisionError: division by zero"),
        ("import absent_package\n", r"made\.py:4: ModuleNotFoundError"),
        ("raise SystemExit('bye')\n", r"made\.py:4: SystemExit: bye"),
        ("def make():\n    return nn.Linear('a', 2)\n", r"made\.py:5: TypeError"),
        ("def make(size):\n    return nn.Linear(size, 2)\n", r"made\.py: TypeError.*missing 1 required"),
        ("def make():\n    return 3\n", "made.py:make returned int"),
        ("def make():\n    return nn.Identity(), 3\n", "made.py:make returned Identity, int"),
        ("def other(): pass\nmake = 3\n", r"no callable 'make'(.|\n)*it defines other"),
        ("", r"no callable 'make'(.|\n)*define one there"),
    ],
)
def test_errors_in_the_file_are_told_with_their_line(factory, body, says):
    with pytest.raises(ModelError, match=says):
        load_backbone(factory(body))


def test_a_relative_path_does_too(factory, tmp_path, monkeypatch):
    factory("def make():\n    return 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"^made\.py:5: ZeroDivisionError"):
        load_backbone("made.py:make")


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        ("lambda image: 1 / 0", "fails on an image: ZeroDivisionError"),
        ("lambda image: image", "gives a Image"),
        ("lambda image: torch.zeros(1, 8, 8)", r"float tensor \(3, height, width\)"),
        ("lambda image: torch.zeros(3, 8, 8, dtype=torch.uint8)", "of torch.uint8"),
    ],
)
def test_a_transform_that_gives_no_image_is_told(factory, transform, says):
    with pytest.raises(ModelError, match=says):
        load_backbone(factory(f"def make():\n    return nn.Conv2d(3, 1, 1), {transform}\n"))


GREY = """
import torch
from torch import nn
from torchvision import transforms

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 5, stride=4)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.stem(x).relu().mean((2, 3)))

def make():
    return Net()

def with_transform():
    steps = [transforms.Grayscale(), transforms.Resize((40, 40)), transforms.ToTensor()]
    return Net(), transforms.Compose(steps)

def in_colour():
    return Net(), transforms.Compose([transforms.Resize((40, 40)), transforms.ToTensor()])
"""


def test_a_network_of_one_channel_gets_grey_images(tmp_path):
    (tmp_path / "grey.py").write_text(GREY)
    image = Image.new("RGB", (300, 260), (200, 100, 50))
    backbone = load_backbone(f"{tmp_path / 'grey.py'}:make")
    made = backbone.transform(image)
    assert made.shape == backbone.image_shape == (1, 224, 224)
    assert "channels=1" in backbone.identity["transform"]
    grey = (image.convert("L").getpixel((0, 0)) / 255 - 0.449) / 0.226
    torch.testing.assert_close(made, torch.full((1, 224, 224), grey), atol=0.01, rtol=0)
    large = backbone.transform(image.resize((900, 800)))
    torch.testing.assert_close(made, large, atol=0.02, rtol=0)
    assert load_backbone(f"{tmp_path / 'grey.py'}:with_transform").image_shape == (1, 40, 40)


def test_a_transform_with_other_channels_than_the_network_is_told_how_to_begin(tmp_path):
    (tmp_path / "grey.py").write_text(GREY)
    with pytest.raises(ModelError, match=r"begin the transform with torchvision\.transforms\.Grayscale\(\)"):
        load_backbone(f"{tmp_path / 'grey.py'}:in_colour")
