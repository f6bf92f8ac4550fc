"""Networks by name: torchvision and timm."""

from __future__ import annotations

import pickle
import sys
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from torchvision import models

from divacli.backbones.load import load_backbone
from divacli.errors import ModelError


def test_a_torchvision_network_gives_the_features_before_its_head(tmp_path):
    network = models.resnet18().eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    backbone = load_backbone("resnet18", tmp_path / "w.pt")
    image = backbone.transform(Image.new("RGB", (300, 260), "red"))[None]
    assert image.shape == (1, 3, 224, 224)
    features = backbone.features(image)
    assert features.shape == (1, backbone.n_features) == (1, 512)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    weight, bias = backbone.head
    torch.testing.assert_close(features @ weight.T + bias, network(image).detach())
    assert (backbone.name, backbone.layer, backbone.batch_size, backbone.notes) == (
        "resnet18",
        "fc",
        None,
        (),
    )
    assert repr(pickle.loads(pickle.dumps(backbone.transform))) == backbone.identity["transform"]


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5"])
def test_the_head_has_as_many_classes_as_the_checkpoint(tmp_path, name):
    torch.save({"model": models.get_model(name, num_classes=7).state_dict()}, tmp_path / "w.pt")
    backbone = load_backbone(name, tmp_path / "w.pt", image_size=64)
    assert backbone.head[0].shape[0] == 7
    assert backbone.notes == (f"checkpoint has 7 classes: built {name} with a head of 7",)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_googlenet_is_loaded_with_and_without_its_auxiliary_heads(tmp_path, auxiliary):
    network = models.googlenet(init_weights=False, aux_logits=auxiliary, num_classes=5)
    torch.save(network.state_dict(), tmp_path / "w.pt")
    backbone = load_backbone("googlenet", tmp_path / "w.pt", image_size=64)
    assert (backbone.layer, backbone.n_features, len(backbone.head[0])) == ("fc", 1024, 5)


def test_a_network_whose_last_layer_is_a_convolution(tmp_path):
    torch.save(models.squeezenet1_1(num_classes=3).state_dict(), tmp_path / "w.pt")
    backbone = load_backbone("squeezenet1_1", tmp_path / "w.pt")
    assert (backbone.layer, backbone.n_features) == ("classifier.1", 512)
    assert backbone.head is None


def test_image_size_scales_the_resize_with_the_crop(tmp_path):
    torch.save(models.resnet18(num_classes=2).state_dict(), tmp_path / "w.pt")
    backbone = load_backbone("resnet18", tmp_path / "w.pt", image_size=112)
    assert (backbone.transform.crop_size, backbone.transform.resize_size) == ([112], [128])
    assert backbone.transform(Image.new("RGB", (300, 260))).shape == (3, 112, 112)


def test_a_size_the_network_does_not_take_is_told(tmp_path):
    (tmp_path / "vit.py").write_text(
        "from torchvision.models import VisionTransformer\n"
        "def make(): return VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=2)\n"
    )
    spec = f"{tmp_path / 'vit.py'}:make"
    assert load_backbone(spec, image_size=32).n_features == 8
    with pytest.raises(ModelError, match=r"\(2, 3, 224, 224\): AssertionError(.|\n)*--image-size"):
        load_backbone(spec)


def test_published_weights_are_downloaded(monkeypatch):
    weights = models.ShuffleNet_V2_X0_5_Weights
    fresh = models.shufflenet_v2_x0_5().state_dict()
    asked = []
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **_: asked.append(self) or fresh)
    by_name = load_backbone("shufflenet_v2_x0_5", weights="IMAGENET1K_V1")
    assert load_backbone("shufflenet_v2_x0_5", weights="DEFAULT").identity == by_name.identity
    assert asked == [weights.IMAGENET1K_V1] * 2


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("invalid hash value"), OSError("disk")])
def test_a_failing_download_says_what_to_do(monkeypatch, error):
    def fail(self, **_):
        raise error

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(ModelError, match=r"download\.pytorch\.org/models/resnet18(.|\n)*--checkpoint"):
        load_backbone("resnet18", weights="DEFAULT")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": None}, r"resnet50 cannot be downloaded(.|\n)*--model resnet50 --checkpoint FILE"),
        ({"model": None, "weights": "DEFAULT"}, r"--weights DEFAULT without a network"),
        ({"model": "resnet18", "weights": "DEFAULT", "entry": "ema"}, "--entry ema without a file"),
        ({"model": "resnet18"}, "random ones give meaningless features"),
        ({"model": "timm:resnet18"}, "random ones give meaningless features"),
        ({"model": "resnet19", "weights": "DEFAULT"}, r"'resnet19'(.|\n)*near ones: .*resnet18"),
        ({"model": "????", "weights": "DEFAULT"}, "the first ones: alexnet"),
        ({"model": "resnet18", "weights": "V9"}, "one of DEFAULT, IMAGENET1K_V1"),
        ({"model": "timm:resnet19", "weights": "DEFAULT"}, r"timm network(.|\n)*near ones"),
        ({"model": "timm:resnet18", "weights": "V9"}, r"'V9'(.|\n)*a1_in1k"),
        ({"model": "net.py:make", "weights": "DEFAULT"}, "name of torchvision or timm only"),
    ],
)
def test_wrong_requests(arguments, says):
    with pytest.raises(ModelError, match=says):
        load_backbone(**arguments)


def test_checkpoint_and_weights_together_are_refused(tmp_path):
    with pytest.raises(ModelError, match="expected: one of the two"):
        load_backbone("resnet18", tmp_path / "w.pt", weights="DEFAULT")


def test_the_message_says_which_network_the_file_is_from(tmp_path):
    torch.save(models.shufflenet_v2_x0_5().state_dict(), tmp_path / "w.pt")
    with pytest.raises(
        ModelError, match=r"does not fit resnet18: 100 missing: (.|\n)*shufflenet_v2_x0_5 \(all"
    ):
        load_backbone("resnet18", tmp_path / "w.pt")


class TestTimm:
    NAME = "timm:test_vit"

    @pytest.fixture
    def timm(self):
        return pytest.importorskip("timm", reason="timm is not installed")

    def test_checkpoint(self, timm, tmp_path):
        network = timm.create_model("test_vit", num_classes=7).eval()
        torch.save(network.state_dict(), tmp_path / "w.pt")
        backbone = load_backbone(self.NAME, tmp_path / "w.pt")
        image = backbone.transform(Image.new("RGB", (200, 180), "red"))[None]
        weight, bias = backbone.head
        torch.testing.assert_close(backbone.features(image) @ weight.T + bias, network(image).detach())
        assert backbone.notes == (f"checkpoint has 7 classes: built {self.NAME} with a head of 7",)
        assert backbone.identity["timm"] == timm.__version__
        pickle.dumps(backbone.transform)

    def test_image_size(self, timm, tmp_path):
        torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pt")
        backbone = load_backbone("timm:test_resnet", tmp_path / "w.pt", image_size=96)
        assert backbone.transform(Image.new("RGB", (200, 180))).shape == (3, 96, 96)

    def test_download(self, timm, monkeypatch):
        create, asked = timm.create_model, []

        def offline(name, pretrained=False, **options):
            asked.append((name, pretrained))
            return create(name, **options)

        monkeypatch.setattr(timm, "create_model", offline)
        load_backbone(self.NAME, weights="DEFAULT")
        load_backbone(self.NAME, weights="r160_in1k")
        assert asked == [("test_vit", True), ("test_vit.r160_in1k", True)]

    def test_failing_download(self, timm, monkeypatch):
        def fail(*_, **__):
            raise FileNotFoundError("cannot find the requested files\nmore")

        monkeypatch.setattr(timm, "create_model", fail)
        with pytest.raises(ModelError, match=r"huggingface\.co/timm/test_vit"):
            load_backbone(self.NAME, weights="DEFAULT")

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(ModelError, match=r"pip install 'divacli\[timm\]'"):
            load_backbone(self.NAME, weights="DEFAULT")


def test_real_imagenet_checkpoint(shared):
    path = shared / "weights" / "mobilenet_v2_imagenet_fp16.pth"
    backbone = load_backbone("mobilenet_v2", path)
    assert (backbone.layer, backbone.n_features) == ("classifier.1", 1280)
    assert backbone.head[0].shape == (1000, 1280)
    assert backbone.notes == ("half-precision weights converted to float32",)
