"""The feature layer: which one, what form its input has, and whether it is the head."""

from __future__ import annotations

import pytest
import torch

from divacli.backbones.feature_layer import head_layer
from divacli.backbones.layer import LayerExtractor
from divacli.backbones.load import load_backbone
from divacli.errors import ModelError

NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.body = nn.Linear(8, 6)
        self.fc = nn.Linear(6, 4{bias})
        self.unused = nn.Linear(6, 2)

    def forward(self, x):
        conv = self.conv(x)
        h = self.body(conv.mean((2, 3)))
        logits = {logits}
        return {output}

def make():
    return Net(), lambda image: torch.zeros(3, 12, 12)
"""


def net(logits="self.fc(h)", output="logits", bias=""):
    return NET.format(logits=logits, output=output, bias=bias)


@pytest.mark.parametrize(
    "output",
    [
        "logits",
        "{'logits': logits, 'hidden': h}",
        "(h, logits)",
        "[None, (logits,)]",
        "__import__('dataclasses').make_dataclass('Out', ['loss', 'logits'])(None, logits)",
        "__import__('collections').namedtuple('Out', 'logits aux')(logits, None)",
    ],
)
def test_the_head_is_found_in_every_kind_of_output(factory, images, output):
    backbone = load_backbone(factory(net(output=output)))
    assert (backbone.layer, backbone.n_features) == ("fc", 6)
    assert backbone.head[0].shape == (4, 6)
    assert backbone.features(images).shape == (5, 6)


def test_a_head_without_bias_has_a_bias_of_zeros(factory):
    assert torch.equal(load_backbone(factory(net(bias=", bias=False"))).head[1], torch.zeros(4))


@pytest.mark.parametrize(
    "changes",
    [{"output": "logits.softmax(1)"}, {"output": "2 * logits"}, {"output": "logits[:, :2]"}, {"output": "3"}],
)
def test_a_layer_whose_output_is_not_the_networks_is_no_head(factory, changes):
    assert load_backbone(factory(net(**changes))).head is None


def test_a_layer_is_chosen_by_name(factory, images):
    spec = factory(net())
    body = load_backbone(spec, layer="body")
    assert (body.layer, body.n_features, body.head) == ("body", 8, None)
    conv = load_backbone(spec, layer="conv")
    torch.testing.assert_close(conv.features(images), images.mean((2, 3)))


def test_tokens_are_averaged(factory, images):
    tokens = "self.fc(self.body(conv.flatten(2).transpose(1, 2))).mean(1)"
    backbone = load_backbone(factory(net(logits=tokens)))
    assert backbone.n_features == 6
    assert backbone.head is not None, "a mean over tokens and a linear map change places"


def test_a_linear_layer_on_a_map_has_the_channels_last(factory, images):
    on_map = "self.fc(self.body(conv.permute(0, 2, 3, 1))).mean((1, 2))"
    backbone = load_backbone(factory(net(logits=on_map)))
    assert backbone.n_features == 6
    assert backbone.head is not None


def test_a_layer_called_with_keywords_is_captured(factory, images):
    assert load_backbone(factory(net(logits="self.fc(input=h)"))).n_features == 6


@pytest.mark.parametrize(
    ("changes", "layer", "says"),
    [
        ({}, "fx", r"no layer 'fx'(.|\n)*fc"),
        ({}, "????", r"no layer '\?\?\?\?'(.|\n)*conv, body, fc, unused"),
        ({}, "", "no layer ''"),
        ({}, "unused", "'unused' gets no tensor"),
        ({"logits": "self.fc(h[None, None, None])"}, None, r"shape \(1, 1, 1, 2, 6\)"),
        ({"logits": "self.fc(h[0])"}, None, r"shape \(6,\)"),
        ({"logits": "self.fc(h / 0)"}, None, "features of noise are not finite"),
        ({"logits": "1 / 0"}, None, "fails on images of shape .*ZeroDivisionError"),
        ({"logits": "self.fc(h - h.mean(0))"}, None, "change with the others in its batch"),
        ({"logits": "self.fc(F.dropout(h))"}, None, "from run to run"),
    ],
)
def test_what_gives_no_features_is_told(factory, changes, layer, says):
    with pytest.raises(ModelError, match=says):
        load_backbone(factory(net(**changes)), layer=layer)


def test_evaluation_mode_is_set_and_hooks_are_removed(tiny, images):
    tiny.train()
    extractor = LayerExtractor(tiny, images, head_layer(tiny, images))
    assert not tiny.training
    torch.testing.assert_close(extractor(images[:1]), extractor(images)[:1])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in tiny.modules())


def test_autocast_and_channels_last_are_tolerated(factory, images):
    backbone = load_backbone(factory(net()))
    expected = backbone.features(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = backbone.features(images.to(memory_format=torch.channels_last))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, atol=0.02, rtol=0.02)


def test_running_out_of_memory_stays_what_it_is(factory, images, monkeypatch):
    backbone = load_backbone(factory(net()))

    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.functional, "linear", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        backbone.features(images)


def test_to_moves_the_network_and_the_head(factory):
    backbone = load_backbone(factory(net()))
    assert backbone.to("meta") is backbone
    assert {tensor.device.type for tensor in backbone.head} == {"meta"}
    assert backbone.features(torch.empty(2, 3, 12, 12, device="meta")).device.type == "meta"
