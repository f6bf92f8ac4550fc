"""Features of timm's networks are what timm itself calls so.

By default a sample of networks is built: small ones of many kinds. With the environment
variable `DIVA_TIMM=all` it is every network with less than 40 million parameters, which takes half an hour.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from divacli.backbones.feature_layer import with_feature_layer
from divacli.backbones.layer import LayerExtractor, same
from divacli.backbones.load import load_backbone
from divacli.backbones.made_to_fit import module_of
from divacli.backbones.shapes import skeleton_network
from divacli.backbones.timm_zoo import _classifier_of

timm = pytest.importorskip("timm", reason="timm is not installed")

SAMPLE = (
    *("test_byobnet", "test_coatnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_nfnet"),
    *("test_resnet", "test_vit", "test_vit_relpos", "convit_tiny", "deit_tiny_patch16_224"),
    *("edgenext_xx_small", "efficientvit_b0", "efficientvit_m1", "eva02_tiny_patch14_224", "gmlp_ti16_224"),
    *("levit_128s", "pit_ti_224", "pit_ti_distilled_224", "pvt_v2_b0", "starnet_s050"),
    "xcit_nano_12_p8_224",
)
"""Networks of many kinds that are built in a fraction of a second."""

TWO_HEADS = "several heads give the output together: features are what enters the last, timm's are of all"
PERCEPTRON = "the head is a perceptron: features are what enters its last layer, timm's what enters its first"
HIDDEN = "without classes the last linear layer is a hidden one, whose input the features are"
TOKENS = "the head is applied to all tokens and one is taken: features are the mean of what enters it"

EXCEPTIONS = {
    r"crossvit_.*|efficientvim_.*|volo_.*|(deit|pit|levit).*_distilled_.*": TWO_HEADS,
    r"(caformer|convformer)_.*": PERCEPTRON,
    r".*mambaout.*|efficientvit_[bl]\d|inception_next_.*|cpubone_.*|lowformer_.*|coatnet_\d_\d+": HIDDEN,
    r"maxvit_tiny_tf_\d+|resnet50_mlp": HIDDEN,
    r"resnet50_clip": TOKENS,
}
"""Networks whose features are not what timm calls so, and why. By the name `timm:...` the last kind has the
output as its features, for there it is known that a network has no classes."""

MOST = 40_000_000
SIZES = (64, 96, 128, 224, None)
"""Sides of images in pixels that are tried in turn; None: that of the network."""

N_CLASSES = 10


def names() -> list[str]:
    if os.environ.get("DIVA_TIMM") != "all":
        return list(SAMPLE)
    return [name for name in timm.list_models() if _parameters(name) < MOST]


def _parameters(name: str) -> int:
    return sum(one.numel() for one in skeleton_network(lambda: timm.create_model(name)).parameters())


@pytest.mark.parametrize("name", names())
def test_features_are_those_of_timm(name: str) -> None:
    with torch.no_grad():
        found = " ".join(differences(name))
    excused = [reason for pattern, reason in EXCEPTIONS.items() if re.fullmatch(pattern, name)]
    assert bool(found) == bool(excused), found or f"no longer an exception: {excused}"


@pytest.mark.parametrize("name", ["test_vit", "test_mambaout", "test_resnet"])
def test_a_published_network_without_classes_gives_its_output(name: str, monkeypatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        return create(name, num_classes=0, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    backbone = load_backbone(f"timm:{name}", weights="DEFAULT")
    images = torch.randn(2, *backbone.image_shape, generator=torch.Generator().manual_seed(1))
    assert (backbone.layer, backbone.head) == ("output", None)
    assert torch.equal(backbone.features(images), backbone.network.network(images))


def differences(name: str) -> Iterator[str]:
    """Say where the features of a network are not what timm calls so, with a head and without one."""
    network, images = built(name)
    features, layer = features_of(network, images)
    wanted = flat(network.forward_head(network.forward_features(images), pre_logits=True))
    if not same(features, wanted):
        yield f"with a head: {layer} gets {tuple(features.shape)}, timm gives {tuple(wanted.shape)}."
    bare, _ = built(name, images, num_classes=0)
    heads = differing(network, bare)
    trunk = {key: weight for key, weight in network.state_dict().items() if key not in heads}
    lost = bare.load_state_dict(trunk, strict=False)
    output = flat(bare(images))
    features, layer = features_of(bare, images)
    if not same(features, output):
        yield f"without a head: {layer} gets {tuple(features.shape)}, timm gives {tuple(output.shape)}."
    if lost.missing_keys:
        yield f"without a head: other weights {lost.missing_keys}."
    head = module_of(heads)
    if head is not None and not same(LayerExtractor(network, images, head)(images), output):
        yield f"a file without head: what enters {head} is not what timm gives."


def built(name: str, images: Tensor | None = None, num_classes: int = N_CLASSES) -> tuple[nn.Module, Tensor]:
    """A network with random weights, and images of the smallest size that it takes."""
    sizes = SIZES if images is None else (images.shape[-1],)
    for size in sizes:
        try:
            network = sized(name, size, num_classes)
            side = size or network.pretrained_cfg["input_size"][-1]
            noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
            network(noise)
        except (RuntimeError, AssertionError, TypeError, ValueError):
            if size == sizes[-1]:
                raise
        else:
            return network, noise
    raise AssertionError("no size")


def sized(name: str, size: int | None, num_classes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options: dict[str, Any] = {} if size is None else {"img_size": size}
        try:
            network = timm.create_model(name, num_classes=num_classes, **options)
        except TypeError:
            network = timm.create_model(name, num_classes=num_classes)
    return network.eval()


def features_of(network: nn.Module, images: Tensor) -> tuple[Tensor, str]:
    made, layer = with_feature_layer(network, images, None, _classifier_of(network))
    return LayerExtractor(made, images, layer)(images), layer


def differing(network: nn.Module, bare: nn.Module) -> list[str]:
    """Names of the tensors of the head: those that the network without head lacks or has in another shape."""
    other = bare.state_dict()
    return [k for k, w in network.state_dict().items() if k not in other or other[k].shape != w.shape]


def flat(output: Any) -> Tensor:
    """An output (b, d) as it is, (b, d, h, w) averaged over space, (b, t, d) over the tokens."""
    output = output[0] if isinstance(output, tuple) else output
    return output.mean((2, 3)) if output.ndim == 4 else output.mean(1) if output.ndim == 3 else output
