"""Files as public training scripts write them, and networks as people build them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from divacli.backbones.checkpoint import read_checkpoint
from divacli.backbones.feature_layer import with_feature_layer
from divacli.backbones.fitting import fit, put_into
from divacli.backbones.identify import describe_file, describe_weights
from divacli.backbones.load import load_backbone
from divacli.backbones.made_to_fit import Expected
from divacli.errors import ModelError
from tests.backbones.conftest import Tiny

HEADS = ("fc.weight", "fc.bias")


def found_in(content, network, folder: Path, entry=None):
    path = folder / "best.pth"
    torch.save(content, path)
    return fit(read_checkpoint(path, entry), network.state_dict(), HEADS, "tiny")


def prefixed(prefix, weights):
    return {f"{prefix}{key}": tensor for key, tensor in weights.items()}


def embeds_alike(found, network, images):
    other = Tiny().eval()
    put_into(other, found, HEADS)
    return torch.equal(other.embed(images), network.embed(images))


@pytest.mark.parametrize("name", ["register_tokens", "prompt_embeddings", "lora.conv.lora_A"])
def test_tensors_that_act_on_the_trunk_are_not_left_aside(tiny, tmp_path, name):
    with pytest.raises(ModelError, match=f"1 unexpected: {name}"):
        found_in({**tiny.state_dict(), name: torch.randn(1, 4, 8)}, tiny, tmp_path)


def test_what_only_a_pretraining_needs_is_left_aside_and_named(tiny, tmp_path):
    beside = {"mask_token": torch.zeros(1, 8), "decoder_pos_embed": torch.zeros(1, 9, 8)}
    beside["module.head.mlp.0.weight"] = torch.zeros(3, 3)
    found = found_in({**tiny.state_dict(), **beside}, tiny, tmp_path)
    [note] = found.notes
    assert note.startswith("3 tensors ")
    assert note.endswith("left aside: mask_token, decoder_pos_embed, head")


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_of_parts_are_removed_from_names(tiny, images, tmp_path, wrapper):
    weights = {key.replace("bn.", f"bn.{wrapper}."): one for key, one in tiny.state_dict().items()}
    found = found_in(prefixed(f"{wrapper}.", weights), tiny, tmp_path)
    assert found.notes == ()
    assert embeds_alike(found, tiny, images)


def test_an_entry_is_known_by_the_end_of_its_name(tiny, images, tmp_path):
    weights = tiny.state_dict()
    other = {**weights, "conv.weight": torch.zeros(8, 3, 3, 3)}
    both = {**prefixed("module.encoder_q.", weights), **prefixed("module.encoder_k.", other)}
    twice = {"state_dict": both}
    assert embeds_alike(found_in(twice, tiny, tmp_path, "encoder_q"), tiny, images)
    with pytest.raises(ModelError, match="no entry 'encoder'") as caught:
        found_in(twice, tiny, tmp_path, "encoder")
    assert "state_dict.encoder_q, state_dict.encoder_k" in str(caught.value)


def test_children_in_a_sequential_are_taken_in_order(tiny, images, tmp_path):
    cut = nn.Sequential(tiny.conv, nn.ReLU(), tiny.bn, tiny.hidden)
    beside = {"projection_head.0.weight": torch.zeros(2, 6)}
    found = found_in({"state_dict": {**prefixed("backbone.", cut.state_dict()), **beside}}, tiny, tmp_path)
    assert found.entry == "state_dict.backbone"
    assert "numbers for the names" in found.notes[0]
    assert embeds_alike(found, tiny, images)


def test_the_numbers_of_a_sequential_must_hold_all_parts(tiny, tmp_path):
    with pytest.raises(ModelError, match="missing"):
        found_in(nn.Sequential(tiny.conv, tiny.bn).state_dict(), tiny, tmp_path)


@pytest.mark.parametrize("entry", [None, "rgb", "depth"])
def test_of_two_branches_the_one_for_colours_or_the_named_one_counts(tiny, tmp_path, entry):
    grey = {**tiny.state_dict(), "conv.weight": torch.zeros(8, 1, 3, 3)}
    torch.save({**prefixed("depth.", grey), **prefixed("rgb.", tiny.state_dict())}, tmp_path / "two.pth")
    read = read_checkpoint(tmp_path / "two.pth", entry)
    assert Expected.of(read, tiny.state_dict()).channels == (1 if entry == "depth" else 3)


def test_another_convolution_of_the_same_name_is_no_first_one(tiny, tmp_path):
    torch.save({"layer1.0.conv.weight": torch.zeros(64, 64, 3, 3)}, tmp_path / "spectral.pth")
    assert Expected.of(read_checkpoint(tmp_path / "spectral.pth"), tiny.state_dict()).channels == 3


@pytest.mark.parametrize("made", ["Tiny().half()", "Tiny().double()", "nn.ModuleDict({'_orig_mod': Tiny()})"])
def test_factories_may_wrap_as_torch_compile_or_change_the_precision(net_file, made):
    net_file.write_text(f"{net_file.read_text()}\ndef made():\n    return {made}\n")
    backbone = load_backbone(f"{net_file}:made", image_size=16)
    assert (backbone.layer, backbone.n_features) == ("fc", 6)


def test_a_quantised_network_is_refused(factory):
    layer = "torch.ao.nn.quantized.dynamic.Linear(8, 2)"
    spec = factory(f"def make():\n    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), {layer})\n")
    with pytest.raises(ModelError, match=r"no tensors, or not there yet: 2\._packed_params"):
        load_backbone(spec, image_size=16)


LAZY = """
def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(4))
"""


def test_lazy_layers_take_their_shapes_from_images_where_a_file_has_the_weights(factory, tmp_path):
    spec = factory(LAZY)
    with pytest.raises(ModelError, match=r"not there yet: 3\.weight, 3\.bias"):
        load_backbone(spec, image_size=16)
    whole = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    torch.save(whole.state_dict(), tmp_path / "lazy.pth")
    backbone = load_backbone(spec, tmp_path / "lazy.pth", image_size=16)
    assert backbone.head is not None
    assert torch.equal(backbone.head[0], whole[3].weight)


class Several(nn.Module):
    """Two heads after one trunk, which take different features where `hidden` is there."""

    def __init__(self, hidden: bool, named: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(8, 3)
        self.project = nn.Sequential(nn.Linear(8, 8), nn.ReLU()) if hidden else nn.Identity()
        self.last = nn.Linear(8, 5)
        self.named = named

    def forward(self, images):
        features = self.trunk(images)
        logits, others = self.fc(features), self.last(self.project(features))
        return {"logits": logits, "embedding": others} if self.named else (logits, others)


def test_several_heads_of_different_features_are_asked_about(images):
    with pytest.raises(ModelError, match="last, fc") as caught:
        with_feature_layer(Several(hidden=True, named=False).eval(), images, None)
    assert caught.value.hint == "name it: layer fc"
    assert with_feature_layer(Several(hidden=True, named=False).eval(), images, "fc")[1] == "fc"


def test_logits_and_heads_of_the_same_features_leave_nothing_to_ask(images):
    assert with_feature_layer(Several(hidden=True, named=True).eval(), images, None)[1] == "fc"
    assert with_feature_layer(Several(hidden=False, named=False).eval(), images, None)[1] == "last"


TWO_IMAGES = """
class Siamese(nn.Module):
    def forward(self, one, other):
        return one

def make():
    return Siamese()
"""


def test_a_network_of_two_images_is_told_what_to_return(factory):
    spec = factory(TWO_IMAGES)
    with pytest.raises(ModelError, match="whose forward takes images alone"):
        load_backbone(spec, image_size=16)


@pytest.mark.parametrize(
    ("start", "names", "told"),
    [
        (b"\x1c\0\0\0TFL3\0", [], "TensorFlow Lite"),
        (b'<?xml version="1.0"?>\n<net name="n">', [], "OpenVINO"),
        (b"ftrt\0", [], "TensorRT"),
        (b"\x82\xa6params\x81", [], "Flax"),
        (b'{\n "architectures"', [], "Hugging Face"),
        (b"PK", ["metadata.json", "config.json", "model.weights.h5"], "Keras"),
        (b"PK", ["encoder/kernel.npy"], "JAX"),
    ],
)
def test_files_of_other_frameworks_are_named(start, names, told):
    assert told in describe_file(start, names)


@pytest.mark.parametrize(
    ("name", "told"),
    [("blocks.0.qkv.lora_A.weight", "merge_and_unload"), ("conv1.weight_orig", "remove_spectral_norm")],
)
def test_weights_in_parts_are_named(name, told):
    assert told in describe_weights({name: (4, 8)})


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("checkpoint-500/config.json", "--checkpoint {}/checkpoint-500"),
        ("model.safetensors", "--checkpoint {}/model.safetensors"),
        ("saved_model.pb", "TensorFlow"),
        ("adapter_config.json", "merge_and_unload"),
    ],
)
def test_a_folder_is_told_what_of_it_to_give(tmp_path, file, told):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(ModelError, match="is a folder") as caught:
        load_backbone("resnet18", tmp_path)
    assert told.format(tmp_path) in str(caught.value)


def test_an_entry_of_an_archive_is_refused(tmp_path):
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(48, 2))).save(tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"--entry ema with .*, which holds a whole network"):
        load_backbone(None, tmp_path / "net.pt", entry="ema", image_size=4)
