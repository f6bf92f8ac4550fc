"""Real photos under a real network, on the CPU and on CUDA."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision import models
from torchvision.transforms import v2

from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / "weights/mobilenet_v2_imagenet_fp16.pth"


@pytest.fixture(scope="module")
def clothing(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 40 photos, four of each class, shuffled."""
    files = [
        file
        for folder in sorted((shared / "data/clothing/train").iterdir())
        for file in sorted(folder.iterdir())[:4]
    ]
    order = np.random.default_rng(0).permutation(len(files))
    table = pd.DataFrame({"path": map(str, files), "label": [file.parent.name for file in files]})
    target = tmp_path_factory.mktemp("clothing") / "clothing.csv"
    table.iloc[order].to_csv(target, index=False)
    return target


@pytest.fixture
def load(clothing: Path, weights: Path, cache: Path) -> Callable[..., Samples]:
    def run(device: str = "cpu", **options: object) -> Samples:
        extraction = ExtractOptions(torch.device(device), **{"workers": 0, **options})
        return load_samples(str(clothing), BackboneChoice("mobilenet_v2", weights), extraction, cache)

    return run


def test_features_are_those_of_a_plain_torchvision_loop(load: Callable, weights: Path) -> None:
    samples = load()
    network = models.mobilenet_v2()
    network.load_state_dict({name: weight.float() for name, weight in torch.load(weights).items()})
    network.eval()
    prepare = v2.Compose(
        [
            v2.Resize(232),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    assert len(samples) == samples.embedded == 40
    with torch.no_grad():
        for file, features in zip(samples.manifest.files(), samples.features[:], strict=True):
            image = prepare(Image.open(file).convert("RGB"))
            expected = network.features(image[None]).mean((2, 3))[0]
            assert (features - expected).norm() <= 1e-5 * expected.norm(), file


@needs_cuda
def test_cuda_without_mixed_precision_is_close_to_the_cpu(load: Callable) -> None:
    on_cpu, on_cuda = load().features[:], load("cuda", amp=False).features[:]
    assert ((on_cuda - on_cpu).norm(dim=1) <= 1e-3 * on_cpu.norm(dim=1)).all()


@needs_cuda
@pytest.mark.parametrize("batch_size", [None, 7])
def test_mixed_precision_has_a_store_of_its_own(load: Callable, batch_size: int | None) -> None:
    plain, mixed = (load("cuda", amp=amp, batch_size=batch_size) for amp in (False, True))
    assert mixed.store != plain.store
    assert mixed.embedded == plain.embedded == 40
    assert mixed.fingerprint != plain.fingerprint
    difference = (mixed.features[:] - plain.features[:]).norm(dim=1) / plain.features[:].norm(dim=1)
    assert 0 < difference.max() < 0.05


@needs_cuda
def test_store_of_the_cpu_serves_cuda_without_mixed_precision(load: Callable) -> None:
    load()
    assert load("cuda", amp=False).embedded == 0
