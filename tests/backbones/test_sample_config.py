"""The sample factory loads a real CIFAR checkpoint and sees what is in real images."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from PIL import Image

from divacli.backbones.load import load_backbone

SAMPLE = Path(__file__).parents[2] / "sample_configs" / "cifar_resnet20.py"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_it_resizes_to_32():
    backbone = load_backbone(f"{SAMPLE}:resnet20")
    assert backbone.transform(Image.new("RGB", (100, 80))).shape == (3, 32, 32)
    assert (backbone.layer, backbone.n_features) == ("linear", 64)


def test_the_real_checkpoint_names_the_classes_of_real_images(shared):
    folder = shared / "data" / "cifar10n"
    backbone = load_backbone(f"{SAMPLE}:resnet20", shared / "weights" / "cifar_resnet20.th")
    with (folder / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))[:500]
    images = torch.stack(
        [backbone.transform(Image.open(folder / row["path"]).convert("RGB")) for row in rows]
    )
    weight, bias = backbone.head
    predicted = (backbone.features(images) @ weight.T + bias).argmax(1)
    truth = torch.tensor([CLASSES.index(row["true_label"]) for row in rows])
    # 92 % on the original test images; these are JPEG copies, which costs a network of this size some points.
    assert (predicted == truth).float().mean() > 0.82
