"""`--checkpoint best.pt` alone: its network is recognised by the tensors, or it is said what to type."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from divacli.backbones.checkpoint import read_checkpoint
from divacli.backbones.load import load_backbone
from divacli.backbones.recognise import recognised
from divacli.errors import ModelError


@pytest.fixture
def name_of(tmp_path: Path) -> Callable[..., str]:
    """Write something into a file, and name the network that it is recognised as."""

    def write(content: Any, entry: str | None = None) -> str:
        torch.save(content, tmp_path / "best.pt")
        return recognised(read_checkpoint(tmp_path / "best.pt", entry))

    return write


@pytest.fixture(scope="module")
def mobilenet() -> dict[str, Tensor]:
    return models.mobilenet_v2(num_classes=12).state_dict()


def test_a_network_of_torchvision_is_loaded_and_said(tmp_path, mobilenet):
    torch.save(mobilenet, tmp_path / "best.pt")
    alone = load_backbone(None, tmp_path / "best.pt", image_size=32)
    named = load_backbone("mobilenet_v2", tmp_path / "best.pt", image_size=32)
    assert alone.sentence == (
        "features: 1,280 numbers that enter classifier.1 of torchvision mobilenet_v2; weights: best.pt"
    )
    assert alone.identity == named.identity
    assert len(alone.head[0]) == 12


WRAPPED: list[Callable[[dict[str, Tensor]], Any]] = [
    lambda w: {"state_dict": {f"net.{name}": tensor for name, tensor in w.items()}, "epoch": 3},
    lambda w: {"model_state": {f"module.{name}": tensor for name, tensor in w.items()}},
    lambda w: {name: tensor for name, tensor in w.items() if not name.startswith("classifier.")},
    lambda w: {**w, "criterion.weight": torch.ones(12)},
    lambda w: {"ema": {name: 2 * tensor for name, tensor in w.items()}, "weights": w},
    lambda w: {"arch": "resnet18", "state_dict": w},
]


@pytest.mark.parametrize("wrap", WRAPPED)
def test_it_is_recognised_in_wrappers(name_of, mobilenet, wrap):
    assert name_of(wrap(mobilenet)) == "mobilenet_v2"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shufflenet_v2_x0_5", {}),
        ("googlenet", {"init_weights": False, "aux_logits": True}),
        ("googlenet", {"init_weights": False, "aux_logits": False}),
    ],
)
def test_networks_of_torchvision(name_of, name, options):
    assert name_of(models.get_model(name, num_classes=5, **options).state_dict()) == name


def test_a_network_for_grey_images(name_of, without_timm):
    network = models.resnet18(num_classes=4)
    network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    assert name_of(network.state_dict()) == "resnet18"
    network.conv1 = nn.Conv2d(4, 64, 7, stride=2, padding=3, bias=False)
    with pytest.raises(ModelError, match="without a network"):
        name_of(network.state_dict())


def test_a_vision_transformer_at_another_size(name_of):
    """Its tensors are broadcast from one number each, and only a few bytes are written."""
    with torch.device("meta"):
        network = models.vit_b_32(image_size=64, num_classes=3)
    weights = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in network.state_dict().items()}
    assert name_of(weights) == "vit_b_32"


class TestTimm:
    @pytest.fixture(autouse=True)
    def timm(self) -> Any:
        return pytest.importorskip("timm", reason="timm is not installed")

    @pytest.mark.parametrize("stated", [{"arch": "test_vit"}, {"args": {"model": "timm:test_vit.r160_in1k"}}])
    def test_the_name_in_the_file_counts_where_it_fits(self, timm, name_of, stated):
        weights = timm.create_model("test_vit", num_classes=3).state_dict()
        name = name_of({"state_dict": weights, **stated})
        assert name.partition(".")[0] == "timm:test_vit"

    def test_the_name_in_the_file_counts_at_another_size(self, timm, name_of):
        weights = timm.create_model("test_vit", num_classes=3, img_size=64, in_chans=1).state_dict()
        assert name_of({"state_dict": weights, "arch": "test_vit"}) == "timm:test_vit"

    def test_a_network_that_only_timm_has(self, timm, name_of, search):
        search("test_convnext", "test_convnext2", "test_convnext3")
        weights = timm.create_model("test_convnext2", num_classes=3).state_dict()
        assert name_of(weights) == "timm:test_convnext2"

    def test_several_networks_with_the_same_tensors_are_asked_about(self, timm, name_of, search):
        alike = ("mobilenetv3_small_075", "tf_mobilenetv3_small_075")
        search("mobilenetv3_small_050", *alike, "mobilenetv3_small_100")
        with pytest.raises(ModelError, match="fit several networks") as caught:
            name_of(timm.create_model(alike[0], num_classes=3).state_dict())
        assert caught.value.got.endswith("fit several networks: timm:{}, timm:{}".format(*alike))
        _, model, _, file = shlex.split(caught.value.hint)
        assert load_backbone(model, Path(file), image_size=32).sentence.endswith("weights: best.pt")


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let timm have a few networks only: all of them are searched for many seconds."""

    def narrow(*names: str) -> None:
        monkeypatch.setattr("timm.list_modules", lambda: ["one"])
        monkeypatch.setattr("timm.list_models", lambda module: list(names))

    return narrow


@pytest.fixture
def without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("divacli.backbones.recognise.find_spec", lambda name: None)


def test_what_is_not_known_is_answered_as_before(name_of, without_timm):
    with pytest.raises(ModelError) as caught:
        name_of({"stem.weight": torch.ones(3, 3), "stem.bias": torch.ones(3)})
    assert "holds weights without a network; it looks like a timm convolutional network" in caught.value.got
    assert caught.value.hint.startswith("--model NAME --checkpoint ")


def test_an_entry_that_is_asked_for_is_looked_at(name_of, mobilenet):
    content = {"teacher": mobilenet, "student": models.shufflenet_v2_x0_5(num_classes=2).state_dict()}
    assert name_of(content, entry="student") == "shufflenet_v2_x0_5"
    assert name_of(content, entry="teacher") == "mobilenet_v2"


def test_real_weights_alone(shared):
    path = shared / "weights" / "mobilenet_v2_imagenet_fp16.pth"
    backbone = load_backbone(None, path, image_size=32)
    assert backbone.name == "mobilenet_v2"
    assert backbone.notes == ("half-precision weights converted to float32",)


def test_real_weights_of_no_librarys_network_say_what_to_do(shared, without_timm):
    path = shared / "weights" / "cifar_resnet20.th"
    with pytest.raises(ModelError, match=r"without a network(.|\n)*to do: --model NAME --checkpoint"):
        load_backbone(None, path)
