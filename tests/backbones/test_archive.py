"""Whole networks in one file: TorchScript and torch.export."""

from __future__ import annotations

import shutil

import pytest
import torch
from PIL import Image
from torch import nn

from divacli.backbones.checkpoint import archive_kind
from divacli.backbones.load import load_backbone
from divacli.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore::DeprecationWarning")

SIZE = 16


class Followed(nn.Module):
    """A network with something after it."""

    def __init__(self, network: nn.Module, then: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.then = then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.then(self.network(x))


class Named(nn.Module):
    """Gives a dictionary, as many exported networks do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.network(x)
        return {"probabilities": logits.softmax(1), "logits": logits}


def script(network, path):
    torch.jit.script(network).save(path)
    return path


def trace(network, path):
    torch.jit.trace(network, torch.zeros(2, 3, SIZE, SIZE)).save(path)
    return path


def export(network, path, batch=4, dynamic=(), decompose=False):
    images = torch.zeros(batch, 3, SIZE, SIZE)
    shapes = (dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC),) if dynamic else None
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    torch.export.save(program.run_decompositions() if decompose else program, path)
    return path


def check(backbone, tiny, images):
    """Features and head agree with the network that was exported."""
    torch.testing.assert_close(backbone.features(images), tiny.embed(images).detach())
    weight, bias = backbone.head
    torch.testing.assert_close(backbone.features(images) @ weight.T + bias, tiny(images).detach())
    assert (backbone.layer, backbone.n_features) == ("fc", 6)


@pytest.mark.parametrize("save", [script, trace])
def test_torchscript(tiny, images, tmp_path, save):
    path = save(tiny, tmp_path / "model.bin")
    assert archive_kind(path) == "torchscript"
    backbone = load_backbone(None, path, image_size=SIZE)
    check(backbone, tiny, images)
    assert backbone.name == "model.bin (TorchScript)"
    assert backbone.batch_size is None
    assert backbone.transform(Image.new("RGB", (40, 30))).shape == (3, SIZE, SIZE)
    assert load_backbone(None, path).transform.crop_size == [224, 224]
    assert backbone.to("cpu").layer == load_backbone(None, path, layer="fc").layer


def test_torchscript_without_bias(tiny, images, tmp_path):
    tiny.fc = nn.Linear(6, 4, bias=False)
    check(load_backbone(None, script(tiny, tmp_path / "m.pt"), image_size=SIZE), tiny, images)


def test_half_precision_torchscript(tiny, images, tmp_path):
    path = script(tiny.half(), tmp_path / "m.pt")
    backbone = load_backbone(None, path, image_size=SIZE)
    assert backbone.notes == ("half-precision weights converted to float32",)
    check(backbone, tiny.float(), images)


@pytest.mark.parametrize(
    ("change", "layer", "says"),
    [
        (lambda n: Followed(n, nn.Softmax(1)), None, r"not what its layer 'network\.fc' gives"),
        (lambda n: n, "hidden", "not what its layer 'hidden' gives"),
        (lambda n: n, "fcc", r"no layer 'fcc'(.|\n)*fc"),
        (lambda n: n.train(), None, None),
    ],
)
def test_torchscript_layers_that_do_not_do(tiny, tmp_path, change, layer, says):
    path = script(change(tiny), tmp_path / "m.pt")
    if says is None:  # scripted code still heeds the mode that loading sets
        assert load_backbone(None, path, image_size=SIZE).n_features == 6
        return
    with pytest.raises(ModelError, match=says):
        load_backbone(None, path, layer=layer, image_size=SIZE)


def test_a_square_torchscript_layer_in_the_middle_is_no_head(tiny, tmp_path):
    tiny.hidden, tiny.fc = nn.Linear(8, 8), nn.Linear(8, 4)
    with pytest.raises(ModelError, match="not what its layer 'hidden' gives"):
        load_backbone(None, script(tiny, tmp_path / "m.pt"), layer="hidden", image_size=SIZE)


def test_frozen_torchscript_is_refused(tiny, tmp_path):
    torch.jit.freeze(torch.jit.script(tiny)).save(tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"no linear layer left(.|\n)*without torch\.jit\.freeze"):
        load_backbone(None, tmp_path / "m.pt")


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_network_traced_in_training_mode_is_refused(tiny, tmp_path):
    torch.jit.trace(tiny.train(), torch.randn(2, 3, SIZE, SIZE), check_trace=False).save(tmp_path / "m.pt")
    with pytest.raises(ModelError, match="change with the others in its batch"):
        load_backbone(None, tmp_path / "m.pt", image_size=SIZE)


@pytest.mark.parametrize("decompose", [False, True], ids=["linear", "addmm"])
def test_export_with_a_dynamic_batch(tiny, images, tmp_path, decompose):
    path = export(tiny, tmp_path / "model.any", dynamic=[0], decompose=decompose)
    assert archive_kind(path) == "export"
    backbone = load_backbone(None, path)
    check(backbone, tiny, images)
    assert backbone.batch_size is None
    assert backbone.transform.crop_size == [SIZE, SIZE]
    check(backbone.to("cpu"), tiny, images)


def test_export_with_a_fixed_batch_takes_smaller_ones(tiny, images, tmp_path):
    backbone = load_backbone(None, export(tiny, tmp_path / "m.pt2", batch=4))
    assert backbone.batch_size == 4
    check(backbone, tiny, images[:4])
    check(backbone, tiny, images[:3])
    with pytest.raises(ModelError, match="5 images for a network exported for batches of 4"):
        backbone.features(images)


def test_export_without_bias(tiny, images, tmp_path):
    tiny.fc = nn.Linear(6, 4, bias=False)
    path = export(tiny, tmp_path / "m.pt2", dynamic=[0], decompose=True)
    check(load_backbone(None, path), tiny, images)


def test_export_with_a_dictionary_for_output(tiny, images, tmp_path):
    backbone = load_backbone(None, export(Named(tiny), tmp_path / "m.pt2", dynamic=[0]))
    torch.testing.assert_close(backbone.features(images), tiny.embed(images).detach())
    assert backbone.head is not None


def test_export_layer_by_name_and_head_that_is_none(tiny, images, tmp_path):
    path = export(Followed(tiny, nn.Softmax(1)), tmp_path / "m.pt2", dynamic=[0])
    last = load_backbone(None, path)
    assert (last.layer, last.head) == ("network.fc", None)
    torch.testing.assert_close(last.features(images), tiny.embed(images).detach())
    assert load_backbone(None, path, layer="network.hidden").n_features == 8
    with pytest.raises(ModelError, match=r"no layer 'network\.f'(.|\n)*network\.fc"):
        load_backbone(None, path, layer="network.f")


def test_export_with_a_dynamic_size_takes_the_asked_one(tiny, tmp_path):
    path = export(tiny, tmp_path / "m.pt2", dynamic=[0, 2, 3])
    assert load_backbone(None, path, image_size=24).transform.crop_size == [24, 24]


def test_export_moves_the_devices_in_its_graph(tmp_path):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(x.mean((2, 3)) + torch.ones(3, device=x.device))

    backbone = load_backbone(None, export(Shifted(), tmp_path / "m.pt2", batch=2)).to("meta")
    assert backbone.features(torch.empty(2, 3, SIZE, SIZE, device="meta")).device.type == "meta"


def test_export_with_a_size_of_its_own_refuses_another(tiny, tmp_path):
    path = export(tiny, tmp_path / "m.pt2")
    assert load_backbone(None, path, image_size=SIZE).n_features == 6
    with pytest.raises(ModelError, match=r"--image-size 32 (.|\n)*exported for \(16, 16\)"):
        load_backbone(None, path, image_size=32)


def test_export_of_a_network_without_linear_layer_is_refused(tmp_path):
    path = export(nn.Conv2d(3, 2, 3), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="no linear layer with a weight"):
        load_backbone(None, path)


def test_export_of_a_network_for_something_else_is_refused(tmp_path):
    program = torch.export.export(nn.Linear(3, 2), (torch.zeros(4, 3),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"takes inputs of shape \(4, 3\)"):
        load_backbone(None, tmp_path / "m.pt2")


def test_a_damaged_archive_is_told(tiny, tmp_path):
    import zipfile

    path = script(tiny, tmp_path / "m.pt")
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "d.pt", "w") as part:
        for name in whole.namelist():
            if "/code/" not in name:
                part.writestr(name, whole.read(name))
    with pytest.raises(ModelError, match="cannot read"):
        load_backbone(None, tmp_path / "d.pt")


def test_weights_that_are_not_finite_are_named(tiny, tmp_path):
    tiny.fc.bias.data[0] = float("nan")
    for path in (script(tiny, tmp_path / "m.pt"), export(tiny, tmp_path / "m.pt2")):
        with pytest.raises(ModelError, match=r"NaN or infinite values in fc\.bias"):
            load_backbone(None, path)


def test_a_name_and_an_archive_are_refused(tiny, tmp_path):
    path = script(tiny, tmp_path / "m.pt")
    with pytest.raises(ModelError, match="leave --model out"):
        load_backbone("resnet18", path)


def test_weights_alone_need_a_name(tiny, tmp_path):
    torch.save(tiny.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="weights without a network; it looks like an unknown network"):
        load_backbone(None, tmp_path / "w.pt")


def test_identity_follows_the_file(tiny, tmp_path):
    path = script(tiny, tmp_path / "m.pt")
    first = load_backbone(None, path, image_size=SIZE).identity
    shutil.copy(path, tmp_path / "copy.pt")
    assert load_backbone(None, tmp_path / "copy.pt", image_size=SIZE).identity == first
    tiny.conv.weight.data[0, 0, 0, 0] += 1
    assert load_backbone(None, script(tiny, path), image_size=SIZE).identity["weights"] != first["weights"]
