"""Which tensors of a file are the weights of a network: other heads, wrappers, several entries."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from divacli.backbones.backbone import Backbone
from divacli.backbones.load import load_backbone
from divacli.errors import ModelError
from tests.backbones.conftest import FACTORY_FILE, Tiny

Weights = dict[str, Tensor]


def to_tensor(image: Any) -> Tensor:
    return torch.zeros(3, 16, 16)


@pytest.fixture
def load(tiny: nn.Module, tmp_path: Path) -> Callable[..., Backbone]:
    """Write something into a file and load it into the tiny network."""

    def write(content: Any, entry: str | None = None) -> Backbone:
        torch.save(content, tmp_path / "best.pt")
        return load_backbone(Tiny(), tmp_path / "best.pt", transform=to_tensor, entry=entry)

    return write


@pytest.fixture
def expected(tiny: nn.Module, images: Tensor) -> Tensor:
    """Features of the images by the tiny network as it is."""
    return load_backbone(tiny, transform=to_tensor).features(images)


def changed(weights: Weights, by: float = 1.0) -> Weights:
    """Weights of another network of the same form."""
    return {name: tensor + by if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def named(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def without_head(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}


HEADS = {
    "dropout": nn.Sequential(nn.Dropout(), nn.Linear(6, 5)),
    "mlp": nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)),
    "mlp ending alike": nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4)),
    "without bias": nn.Linear(6, 4, bias=False),
    "other input": nn.Linear(7, 4),
    "cosine": nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)),
    "none": nn.Identity(),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_of_another_form_is_put_aside(load, tiny, images, expected, head):
    tiny.fc = HEADS[head]
    weights = tiny.state_dict()
    backbone = load(weights)
    assert torch.equal(backbone.features(images), expected)
    assert (backbone.head, backbone.layer) == (None, "fc")
    (note,) = backbone.notes
    own = [f"{name} {tuple(tensor.shape)}" for name, tensor in weights.items() if name.startswith("fc.")]
    assert note.startswith("head: " + (own[0] if own else "the file has none"))
    assert note.endswith("features do not need one")


def test_a_linear_head_of_another_size_in_a_fixed_network_is_put_aside(load, tiny, images, expected):
    tiny.fc = nn.Linear(6, 9)
    backbone = load(tiny.state_dict())
    assert torch.equal(backbone.features(images), expected)
    assert backbone.head is None
    assert backbone.notes == ("head: fc.weight (9, 6), fc.bias (9,) put aside; features do not need one",)


@pytest.mark.parametrize("head", ["linear", "sequential", "identity"])
def test_heads_of_torchvision(tmp_path, shufflenet, head):
    network, plain = shufflenet
    made = {"sequential": nn.Sequential(nn.Dropout(), nn.Linear(1024, 5)), "identity": nn.Identity()}
    network.fc = made.get(head, nn.Linear(1024, 7))
    torch.save(network.state_dict(), tmp_path / "best.pt")
    backbone = load_backbone("shufflenet_v2_x0_5", tmp_path / "best.pt", image_size=32)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(backbone.features(images), plain.features(images))
    assert backbone.layer == "fc"
    assert (backbone.head is None) == (head != "linear")


@pytest.fixture(scope="module")
def shufflenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Backbone]:
    """A network, and how it is loaded as it is."""
    path = tmp_path_factory.mktemp("shufflenet") / "plain.pt"
    network = models.shufflenet_v2_x0_5(num_classes=12).eval()
    torch.save(network.state_dict(), path)
    return network, load_backbone("shufflenet_v2_x0_5", path, image_size=32)


def test_a_linear_classifier_in_place_of_mobilenets_own(tmp_path):
    network = models.mobilenet_v2(num_classes=5)
    network.classifier = nn.Linear(1280, 5)
    torch.save(network.state_dict(), tmp_path / "best.pt")
    backbone = load_backbone("mobilenet_v2", tmp_path / "best.pt", image_size=32)
    assert (backbone.layer, backbone.n_features, backbone.head) == ("classifier.1", 1280, None)
    assert "classifier.weight (5, 1280), classifier.bias (5,) put aside" in backbone.notes[0]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_a_network_of_timm_without_head(tmp_path, name):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    network = timm.create_model(name, num_classes=0).eval()
    torch.save(network.state_dict(), tmp_path / "best.pt")
    backbone = load_backbone(f"timm:{name}", tmp_path / "best.pt")
    images = torch.randn(2, *backbone.image_shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbone.features(images), network(images).detach())
    assert backbone.head is None
    assert backbone.notes == ("head: the file has none; features do not need one",)


def test_a_head_of_a_users_factory(tmp_path, tiny, images, expected):
    (tmp_path / "net.py").write_text(FACTORY_FILE)
    torch.save(named("module.", without_head(tiny.state_dict())), tmp_path / "best.pt")
    backbone = load_backbone(f"{tmp_path / 'net.py'}:make_with_transform", tmp_path / "best.pt")
    assert torch.equal(backbone.features(images), expected)
    assert backbone.head is None


WRAPPED: dict[str, Callable[[Weights], Any]] = {
    "lightning": lambda w: {"state_dict": named("net.", w), "epoch": 3, "hyper_parameters": {"lr": 0.1}},
    "compiled and distributed": lambda w: named("module._orig_mod.", w),
    "averaged": lambda w: {"n_averaged": torch.tensor(7), **named("module.", w)},
    "model_state": lambda w: {"model_state": w, "best": 0.9},
    "two levels down": lambda w: {"run": {"snapshot": w, "step": 4}},
    "of a list": lambda w: [w, {"epoch": 3}],
    "beside an optimizer": lambda w: {
        "model_state": w,
        "optimizer": {"state": {0: {"exp_avg": w["conv.weight"]}}, "param_groups": []},
    },
    "under a backbone": lambda w: named("encoder.backbone.", w),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers_change_no_bit(load, tiny, images, expected, wrapper):
    backbone = load(WRAPPED[wrapper](tiny.state_dict()))
    assert torch.equal(backbone.features(images), expected)
    assert torch.equal(backbone.head[0], tiny.fc.weight)


def test_tensors_of_a_loss_and_of_metrics_are_counted(load, tiny, images, expected):
    foreign = {"criterion.weight": torch.ones(4), "train_acc.correct": torch.ones(1), "n": torch.ones(1)}
    backbone = load({"state_dict": {**named("model.", tiny.state_dict()), **foreign}})
    assert torch.equal(backbone.features(images), expected)
    assert backbone.notes == (
        "3 tensors that are no part of the network were left aside: criterion, train_acc, n",
    )


TWINS = {
    "as entries": ("teacher", "student", lambda a, b: {"teacher": a, "student": b}),
    "by prefix": ("teacher", "student", lambda a, b: {**named("teacher.", a), **named("student.", b)}),
    "momentum": (
        "state_dict.encoder_k",
        "state_dict.encoder_q",
        lambda a, b: {"state_dict": {**named("module.encoder_k.", a), **named("module.encoder_q.", b)}},
    ),
}


@pytest.mark.parametrize("twins", TWINS)
def test_two_networks_are_asked_about(load, tiny, images, expected, twins):
    first, second, join = TWINS[twins]
    content = join(tiny.state_dict(), changed(tiny.state_dict()))
    with pytest.raises(ModelError, match="2 times") as caught:
        load(content)
    assert first in caught.value.got
    assert second in caught.value.got
    assert caught.value.hint.typed in {f"name it: --entry {first}", f"name it: --entry {second}"}
    assert torch.equal(load(content, entry=first).features(images), expected)
    assert not torch.equal(load(content, entry=second).features(images), expected)
    short = first.rpartition(".")[2]
    assert torch.equal(load(content, entry=short).features(images), expected)


def test_the_same_numbers_twice_are_not_asked_about(load, tiny, images, expected):
    copied = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    backbone = load({"teacher": tiny.state_dict(), "student": copied})
    assert torch.equal(backbone.features(images), expected)
    assert "--entry" not in backbone.weights


def test_an_average_of_timm_is_said_and_taken_by_name(load, tiny, images, expected):
    raw, average = tiny.state_dict(), changed(tiny.state_dict())
    content = {"epoch": 3, "arch": "tiny", "state_dict": raw, "state_dict_ema": average}
    plain = load(content)
    assert torch.equal(plain.features(images), expected)
    assert plain.weights == "best.pt, entry state_dict (state_dict_ema is there too: --entry)"
    taken = load(content, entry="state_dict_ema")
    assert taken.weights == "best.pt, entry state_dict_ema"
    assert not torch.equal(taken.features(images), expected)


@pytest.mark.parametrize("key", ["model", "ema"])
def test_a_pickled_module_in_an_entry(load, tiny, images, expected, key):
    backbone = load({key: copy.deepcopy(tiny), "epoch": 3, "train_args": Namespace(lr=0.1)})
    assert torch.equal(backbone.features(images), expected)
    assert backbone.weights == f"best.pt, entry {key}"


class Learner:
    """As fastai pickles it: the network is an attribute."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.path, self.lr = model, Path("models"), 0.001


def test_a_learner_of_fastai(load, tiny, images, expected):
    backbone = load(Learner(tiny))
    assert torch.equal(backbone.features(images), expected)
    assert backbone.weights == "best.pt, entry model"


def test_a_file_of_ultralytics_with_its_network_in_half_precision(load, tiny, images, expected):
    backbone = load({"model": copy.deepcopy(tiny).half(), "ema": None, "optimizer": None, "updates": 5})
    torch.testing.assert_close(backbone.features(images), expected, atol=5e-3, rtol=5e-3)
    assert backbone.notes == ("half-precision weights converted to float32",)


def test_blocks_that_the_network_lacks_are_refused(tmp_path):
    torch.save(models.resnet34().state_dict(), tmp_path / "best.pt")  # it has all names of resnet18
    with pytest.raises(ModelError, match=r"does not fit resnet18(.|\n)*looks like torchvision resnet34"):
        load_backbone("resnet18", tmp_path / "best.pt")


@pytest.mark.parametrize("headless", [False, True])
def test_a_trunk_that_is_not_whole_is_refused(load, tiny, headless):
    weights = tiny.state_dict()
    lacking = {name: tensor for name, tensor in weights.items() if name != "bn.running_var"}
    with pytest.raises(ModelError, match=r"1 missing: bn\.running_var"):
        load(without_head(lacking) if headless else lacking)
    wider = {**weights, "hidden.weight": torch.ones(7, 8), "hidden.bias": torch.ones(7)}
    with pytest.raises(ModelError, match=r"2 of another shape: hidden\.weight \(7, 8\) in place of \(6, 8\)"):
        load(without_head(wider) if headless else wider)


def test_an_entry_that_is_not_there_is_answered_with_those_that_are(load, tiny):
    content = {"state_dict": tiny.state_dict(), "state_dict_ema": changed(tiny.state_dict())}
    with pytest.raises(ModelError, match=r"no entry 'swa'(.|\n)*one of state_dict, state_dict_ema"):
        load(content, entry="swa")


@pytest.mark.parametrize(
    "stated",
    [{"arch": "resnet34"}, {"args": Namespace(model="timm/resnet34")}, {"cfg": {"arch": "resnet34"}}],
)
def test_another_network_that_the_file_names_is_said(tmp_path, stated):
    weights = models.shufflenet_v2_x0_5(num_classes=3).state_dict()
    torch.save({"state_dict": weights, **stated}, tmp_path / "best.pt")
    notes = load_backbone("shufflenet_v2_x0_5", tmp_path / "best.pt", image_size=32).notes
    assert any("resnet34, and it is loaded into shufflenet_v2_x0_5" in note for note in notes)


@pytest.mark.parametrize("stated", ["shufflenet_v2_x0_5", "Shufflenet-v2_x0_5"])
def test_the_same_network_is_not_said(tmp_path, stated):
    weights = models.shufflenet_v2_x0_5(num_classes=3).state_dict()
    torch.save({"state_dict": weights, "arch": stated}, tmp_path / "best.pt")
    notes = load_backbone("shufflenet_v2_x0_5", tmp_path / "best.pt", image_size=32).notes
    assert not any("says" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "part", "width"),
    [("mobilenet_v3_small", "classifier", 576), ("convnext_tiny", "classifier", 768)],
)
def test_a_whole_classifier_that_was_replaced_is_put_aside(tmp_path, name, part, width):
    network = models.get_model(name).eval()
    network.classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(width, 12))
    torch.save(network.state_dict(), tmp_path / "w.pt")
    backbone = load_backbone(name, tmp_path / "w.pt", image_size=32)
    assert (backbone.layer, backbone.n_features, backbone.head) == (part, width, None)
    images = torch.randn(2, 3, 32, 32)
    expected = network.avgpool(network.features(images)).flatten(1)
    torch.testing.assert_close(backbone.features(images), expected.detach())
