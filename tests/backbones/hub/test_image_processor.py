"""The transform of an image processor: the pixels are those that the processor makes itself."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from divacli.backbones.hub.image_processor import CentreCrop, processor_transform
from divacli.errors import ModelError

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

# Among them odd margins and an image smaller than its crop.
IMAGES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
    for seed, size in enumerate([(40, 51), (70, 33), (20, 47)])
]
PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("ViT", {"size": {"height": 32, "width": 24}}),
    ("ViT", {"size": {"height": 32, "width": 32}, "do_normalize": False, "resample": 1}),
    ("Bit", {"size": {"shortest_edge": 37}, "crop_size": 32}),
    ("Bit", {"do_resize": False, "crop_size": 32}),
    ("ConvNext", {"size": {"shortest_edge": 32}}),
    ("ConvNext", {"size": {"shortest_edge": 32}, "crop_pct": 0.95, "resample": 2}),
    ("ConvNext", {"size": {"shortest_edge": 384}}),
    ("DeiT", {"size": {"height": 37, "width": 37}, "crop_size": 32}),
    ("Beit", {"size": {"height": 37, "width": 37}, "crop_size": 32}),
    ("Siglip", {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3]}),
    ("CLIP", {"size": {"shortest_edge": 37}, "crop_size": 32}),
    ("EfficientNet", {"size": {"height": 33, "width": 32}}),
    ("EfficientNet", {"size": {"height": 32, "width": 32}, "include_top": False}),
    ("MobileNetV1", {"size": {"shortest_edge": 37}, "crop_size": 32}),
    ("MobileNetV2", {"size": {"shortest_edge": 37}, "crop_size": 32}),
    ("MobileViT", {"size": {"shortest_edge": 37}, "crop_size": 32}),
    ("Levit", {"size": {"shortest_edge": 32}, "crop_size": 32}),
    ("PoolFormer", {"size": {"shortest_edge": 32}, "crop_size": 32}),
    ("Pvt", {"size": {"height": 32, "width": 32}}),
    ("Segformer", {"size": {"height": 32, "width": 32}}),
    ("DINOv3ViT", {"size": {"height": 32, "width": 24}}),
]


def processor(kind: str, **settings: Any) -> Any:
    """The processor that resizes PIL images, called ...Pil in releases from 5 on; else the one there is."""
    names = (f"{kind}ImageProcessorPil", f"{kind}ImageProcessor", f"{kind}ImageProcessorFast")
    made = next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)
    if made is None:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}ImageProcessor")
    return made(**settings)


def pixels(processor: Any, image: Image.Image) -> torch.Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]


@pytest.mark.parametrize(("kind", "settings"), PROCESSORS, ids=str)
def test_pixels_are_those_of_the_processor(kind: str, settings: dict[str, Any]) -> None:
    own = processor(kind, **settings)
    transform = processor_transform(own, "hf:x")
    for image in IMAGES:
        torch.testing.assert_close(transform(image), pixels(own, image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["ViT", "Bit", "ConvNext", "Siglip", "DINOv3ViT"])
def test_real_photos_as_the_default_processor_prepares_them(
    kind: str, photographs: list[Image.Image]
) -> None:
    """In releases from 5 on it resizes tensors, which rounds a pixel by 2 of 255 otherwise."""
    name = f"{kind}ImageProcessor"
    own = getattr(transformers, name if hasattr(transformers, name) else f"{name}Fast")()
    transform = processor_transform(own, "hf:x")
    for image in photographs:
        difference = (transform(image) - pixels(own, image)).abs()
        assert difference.max() < 0.04
        assert difference.mean() < 0.002


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    folder = Path(__file__).parents[3].parent / "shared/data/clothing/validation"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the photos are not here")
    return [Image.open(file).convert("RGB") for file in sorted(folder.rglob("*.jpg"))[::200]]


def test_the_transform_goes_to_worker_processes_and_prints_its_settings() -> None:
    transform = processor_transform(processor("Bit", size={"shortest_edge": 37}, crop_size=32), "hf:x")
    again = pickle.loads(pickle.dumps(transform))
    assert repr(again) == repr(transform)
    assert "size=[37]" in repr(transform)
    assert "CentreCrop(32, 32)" in repr(transform)
    assert torch.equal(again(IMAGES[0]), transform(IMAGES[0]))


def test_a_crop_larger_than_the_image_has_black_margins() -> None:
    cropped = CentreCrop(6, 2)(torch.ones((3, 3, 3)))
    assert cropped[0].tolist() == [[0, 0], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        ("ViT", {"size": {"longest_edge": 32, "shortest_edge": 32}}, "has size .*longest_edge"),
        ("ViT", {"do_rescale": False}, "has rescale_factor"),
        ("ViT", {"rescale_factor": 0.5}, "has rescale_factor 0.5"),
        ("EfficientNet", {"rescale_offset": True}, "has rescale_offset"),
        ("Perceiver", {}, "is a PerceiverImageProcessor"),
    ],
)
def test_an_unknown_preparation_is_refused(kind: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=f"hf:x: its image processor {says}") as raised:
        processor_transform(processor(kind, **settings), "hf:x")
    assert "FILE.py:FACTORY" in raised.value.hint
