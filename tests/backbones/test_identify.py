"""What a set of weights looks like, in words."""

from __future__ import annotations

import pytest
from torchvision import models

from divacli.backbones.identify import describe_weights


def shapes(name, **options):
    return {k: tuple(v.shape) for k, v in models.get_model(name, **options).state_dict().items()}


def test_torchvision_networks_are_recognised():
    assert describe_weights(shapes("resnet18")) == (
        "torchvision resnet18 (all 122 tensors match): --model resnet18"
    )


def test_fine_tuned_and_old_ones_too():
    old = {k: v for k, v in shapes("shufflenet_v2_x0_5", num_classes=7).items() if "batches" not in k}
    assert describe_weights(old).startswith("torchvision shufflenet_v2_x0_5 with 7 classes")


def test_networks_with_the_same_names_are_told_apart_by_shape():
    assert describe_weights(shapes("shufflenet_v2_x1_0")).startswith("torchvision shufflenet_v2_x1_0 (")
    other = shapes("resnet18") | {"layer1.0.conv1.weight": (64, 64, 5, 5)}
    assert describe_weights(other).startswith("an unknown network")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["cls_token", "blocks.0.attn.qkv.weight"], "timm Vision Transformer"),
        (["vit.embeddings.cls_token"], "Hugging Face"),
        (["backbone.body.conv1.weight", "rpn.head.weight"], "detection"),
        (["backbone.conv1.weight"], "wrapped as 'backbone'"),
        (["visual.proj"], "CLIP"),
        (["model.0.conv.weight"], "YOLO"),
        (["class_token", "encoder.layers.encoder_layer_0.ln_1.weight"], "torchvision Vision Transformer"),
        (["stem.0.weight"], "timm convolutional"),
        (["what.weight"], "an unknown network whose first tensors are what.weight"),
    ],
)
def test_families_are_guessed_from_names(names, says):
    assert says in describe_weights(dict.fromkeys(names, (1, 1)))
