"""The way over a device gives the features of the way over worker processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from divacli.backbones.backbone import Backbone
from divacli.backbones.load import load_backbone
from divacli.features import ExtractOptions
from divacli.features.batchsize import BatchSize
from divacli.features.extract import extract, feature_identity
from divacli.features.forward import FeatureBatch, on_device
from divacli.features.image_loader import LoadedBatch, process_batches
from divacli.features.jpeg import TensorCrops
from divacli.features.keys import content_keys
from divacli.features.store import FeatureStore
from divacli.progress import silent

CPU = torch.device("cpu")

NETWORK = """
import torch
from torch import nn


def make():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        return nn.Sequential(body, nn.Flatten(), nn.Linear(8, 3))
"""


def unchanged(batch: LoadedBatch) -> LoadedBatch:
    return batch


@pytest.fixture
def preset_backbone(tmp_path: Path) -> Backbone:
    """A network whose images torchvision's preset prepares, resized to 37 and cropped to 32."""
    (tmp_path / "net.py").write_text(NETWORK)
    return load_backbone(f"{tmp_path / 'net.py'}:make", image_size=32)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Photos as JPEG, plain and progressive, some large enough to be reduced, one as PNG, one cut off."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(11):
        small = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        size = (60 + number, 50) if number < 6 else (400, 300 + number)
        path = tmp_path / f"{number:02d}.{'png' if number == 3 else 'jpg'}"
        options = {} if number == 3 else {"quality": 95, "subsampling": 0, "progressive": number == 5}
        small.resize(size, Image.Resampling.BICUBIC).save(path, **options)
        made.append(str(path))
    Path(made[4]).write_bytes(Path(made[4]).read_bytes()[:-200])
    return made


@pytest.fixture
def by_workers(preset_backbone: Backbone, files: list[str], tmp_path: Path) -> np.ndarray:
    """Features (11, 8), NaN where there are none."""
    store = FeatureStore.create(tmp_path / "store", {}, 8)
    keys = content_keys(files, silent)[0]
    failed = extract(preset_backbone, files, keys, store, ExtractOptions(CPU, workers=0), silent)
    assert failed == {4: "truncated file"}
    good = [position for position in range(len(files)) if position not in failed]
    features = np.full((len(files), 8), np.nan, np.float32)
    features[good] = store.rows(keys[good])[:].numpy()
    return features


def by_device(
    backbone: Backbone, files: list[str], crops: TensorCrops | None, batch_size: int
) -> list[FeatureBatch]:
    keys = content_keys(files, silent)[0]
    batches = process_batches(
        files,
        keys,
        backbone.transform,
        backbone.image_shape,
        unchanged,
        batch_size=batch_size,
        workers=0,
        leave_jpeg=crops is not None,
    )
    with torch.inference_mode():
        return list(on_device(batches, backbone, BatchSize(3, CPU), crops, CPU))


@pytest.mark.parametrize("batch_size", [1, 4, 20])
def test_pillow_in_the_workers_gives_the_same_features(
    preset_backbone: Backbone, files: list[str], by_workers: np.ndarray, batch_size: int
) -> None:
    batches = by_device(preset_backbone.for_inference(), files, None, batch_size)
    assert [position for batch in batches for position in batch.positions] == list(range(11))
    assert {p: reason for batch in batches for p, reason in batch.reasons.items()} == {4: "truncated file"}
    features = np.concatenate([batch.features for batch in batches])
    good = np.arange(11) != 4
    np.testing.assert_allclose(features[good], by_workers[good], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [4, 20])
def test_decoding_on_the_device_gives_nearly_the_same(
    preset_backbone: Backbone, files: list[str], by_workers: np.ndarray, batch_size: int
) -> None:
    decoded: list[int] = []
    crops = TensorCrops(preset_backbone.transform, CPU)

    def counting(data: list[torch.Tensor]) -> list[torch.Tensor | str]:
        decoded.append(len(data))
        return crops(data)

    batches = by_device(preset_backbone.for_inference(), files, counting, batch_size)  # type: ignore[arg-type]
    assert sum(decoded) == 8  # neither the PNG, nor the progressive one, nor the one cut off
    features = np.concatenate([batch.features for batch in batches])
    good = np.arange(11) != 4
    np.testing.assert_allclose(features[good], by_workers[good], rtol=0, atol=0.05 * by_workers[good].std())
    assert by_workers[good].std(axis=0).min() > 1e-3


def test_large_jpeg_files_are_reduced_and_others_are_not(
    preset_backbone: Backbone, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    crop = type(preset_backbone.transform).crop

    def noting(preset: object, image: Image.Image) -> torch.Tensor:
        seen.append(image.size)
        return crop(preset, image)

    monkeypatch.setattr(type(preset_backbone.transform), "crop", noting)
    by_device(preset_backbone, files, None, 20)
    assert preset_backbone.transform.least_side == 74
    assert seen == [
        *((60 + number, 50) for number in (0, 1, 2, 3, 5)),
        *((100, 77 if number < 9 else 78) for number in range(6, 11)),
    ]


def test_identity_tells_what_features_depend_on(preset_backbone: Backbone) -> None:
    cuda = torch.device("cuda")
    plain = feature_identity(preset_backbone, ExtractOptions(CPU))
    assert plain["precision"] == "float32, batch norms folded"
    assert "draft_margin=2" in plain["transform"]
    assert feature_identity(preset_backbone, ExtractOptions(CPU, 7, 3, compile=True)) == plain
    assert feature_identity(preset_backbone, ExtractOptions(cuda, amp=False)) == plain
    compiled = feature_identity(preset_backbone, ExtractOptions(cuda, compile=True))
    assert compiled["precision"] == "float16 autocast, batch norms folded, compiled"
