"""Embedding end to end against the network alone and against decoding alone, in one run.

`python -m benchmarks.embedding` embeds photos and large JPEG files made of them. It prints images a second of

- `extract`, from files to a feature store; their keys are computed before and timed by themselves;
- `network`, a bare loop of the network as loaded over tensors in memory, on all cores: the best of several
  batch sizes and both memory layouts;
- `decode`, decoding and transform alone by as many processes, with JPEG files reduced as `extract` does;
- `decode_whole`, the same of all pixels with torchvision's own transform.

Each is measured several times in turn, and the best counts: other work on the machine only takes away. Beside
them stands the processor time of `extract` an image, over all processes, which other work hardly changes. On
a CUDA device the network is resnet50 of random weights, and the number to look at is `extract`'s share of the
bare loop's rate.

    python -m benchmarks.embedding --photos 256 --large 64 --repeats 1
"""

from __future__ import annotations

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms._presets import ImageClassification

from benchmarks.machine import SHARED, save
from divacli.backbones.backbone import Backbone
from divacli.backbones.load import load_backbone
from divacli.backbones.transform import Preset, Transform
from divacli.features import ExtractOptions
from divacli.features.extract import extract
from divacli.features.image_loader import cores, load_batches
from divacli.features.keys import content_keys
from divacli.features.store import FeatureStore
from divacli.machine.allocator import keep_freed_memory
from divacli.progress import silent

LARGE_SIDE = 1500
"""Shorter side of the large files, in pixels."""


class _WholeImage:
    """torchvision's own transform of all pixels, as a plain data loader has it."""

    def __init__(self, preset: Preset) -> None:
        self._plain = ImageClassification(crop_size=preset.crop_size[0], resize_size=preset.resize_size[0])

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self._plain(image)


@dataclass(frozen=True)
class Bench:
    """What is measured.

    Attributes:
        backbone: The network, on the device.
        options: How `extract` runs.
        repeats: How often each is measured.
    """

    backbone: Backbone
    options: ExtractOptions
    repeats: int

    @property
    def _preset(self) -> Preset:
        assert isinstance(self.backbone.transform, Preset)
        return self.backbone.transform

    def row(self, name: str, files: list[str]) -> dict[str, object]:
        """Measure one set of files."""
        start = time.perf_counter()
        keys, _ = content_keys(files, silent)
        hashing = time.perf_counter() - start
        works: dict[str, Callable[[], float]] = {
            "extract": lambda: self._extract(files, keys),
            "decode": lambda: self._decode(files, keys, self.backbone.transform),
            "decode_whole": lambda: self._decode(files, keys, _WholeImage(self._preset)),
            "network": self._network,
        }
        best = dict.fromkeys(works, 0.0)
        processor = float("inf")
        for _ in range(self.repeats):
            for work, rate in works.items():
                before = _processor_seconds()
                best[work] = max(best[work], rate())
                if work == "extract":
                    processor = min(processor, (_processor_seconds() - before) / len(files) * 1e3)
        ratio = min(best["network"], best["decode"]) / best["extract"]
        ratio_whole = min(best["network"], best["decode_whole"]) / best["extract"]
        print(
            f"{name:<13}{len(files):>6} images  "
            + "".join(f"{work} {rate:8.1f}/s  " for work, rate in best.items())
            + f"keys {len(files) / hashing:8.0f}/s  "
            f"processor {processor:.1f} ms/image\n{'':<13}time of extract / slower of network and decode "
            f"{ratio:.2f}, of network and decode_whole {ratio_whole:.2f}; share of the network's rate "
            f"{best['extract'] / best['network']:.0%}",
            flush=True,
        )
        kilobytes = sum(Path(file).stat().st_size for file in files) / len(files) / 1e3
        return {
            "images": name,
            "n": len(files),
            "kilobytes": kilobytes,
            **best,
            "processor_ms": processor,
            "time_ratio": ratio,
            "time_ratio_whole": ratio_whole,
        }

    def _extract(self, files: Sequence[str], keys: np.ndarray) -> float:
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore.create(Path(folder) / "store", {}, self.backbone.n_features)
            return _rate(len(files), lambda: extract(self.backbone, files, keys, store, self.options, silent))

    def _decode(self, files: Sequence[str], keys: np.ndarray, transform: Transform) -> float:
        batches = load_batches(
            files,
            keys,
            transform,
            self.backbone.image_shape,
            batch_size=16,
            workers=self.options.workers,
            pinned=False,
        )
        return _rate(len(files), lambda: sum(len(batch.positions) for batch in batches))

    def _network(self) -> float:
        device = self.options.device
        cuda = device.type == "cuda"
        n = 2048 if cuda else 64
        shape = (n, *self.backbone.image_shape)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        best = 0.0
        with self.options.arithmetic():
            for layout in (torch.contiguous_format, torch.channels_last):
                laid = images.contiguous(memory_format=layout)
                for size in (64, 256, 512) if cuda else (4, 8, 32):
                    parts = laid.split(size)

                    def run(parts: Sequence[torch.Tensor] = parts) -> None:
                        for part in parts:
                            self.backbone.features(part)
                        if cuda:
                            torch.cuda.synchronize()

                    self.backbone.features(parts[0])
                    best = max(best, _rate(n, run))
        return best


def _processor_seconds() -> float:
    """What this process and those that it has ended with have computed so far."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _rate(n: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return n / (time.perf_counter() - start)


def network(device: torch.device, folder: Path) -> Backbone:
    """resnet50 of random weights on CUDA; on the CPU mobilenet_v2, with real ones where they are at hand."""
    name = "resnet50" if device.type == "cuda" else "mobilenet_v2"
    weights = SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth"
    if device.type == "cuda" or not weights.exists():
        from torchvision.models import get_model

        torch.manual_seed(0)
        weights = folder / "weights.pt"
        torch.save(get_model(name).state_dict(), weights)
    return load_backbone(name, weights).to(device)


def photos(n: int, folder: Path) -> list[str]:
    """Paths of so many real photos, or of smooth noise of their size where there are none."""
    found = sorted(str(file) for file in (SHARED / "data" / "clothing" / "train").rglob("*.jpg"))
    if found:
        return [found[place] for place in np.linspace(0, len(found) - 1, n).astype(int)]
    generator = np.random.default_rng(0)
    made = []
    for number in range(n):
        image = Image.fromarray(generator.integers(0, 256, (86, 64, 3), dtype=np.uint8))
        image.resize((256, 342), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
        made.append(str(folder / f"{number}.jpg"))
    return made


def enlarged(files: Sequence[str], folder: Path) -> list[str]:
    """Large JPEG files with the grain of a camera, made of small ones."""
    generator = np.random.default_rng(0)
    made = []
    for number, file in enumerate(files):
        image = Image.open(file).convert("RGB")
        scale = LARGE_SIDE / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
        pixels += generator.normal(0, 4, (*pixels.shape[:2], 1)).astype(np.float32)
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=88)
        target = folder / f"large-{number}.jpg"
        target.write_bytes(stream.getvalue())
        made.append(str(target))
    return made


def main() -> None:
    """Measure and print."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--large", type=int, default=150)
    parser.add_argument(
        "--copies", type=int, default=20 if cuda else 1, help="how often each file is embedded"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()  # for the bare loop too: it is to be at its best
    device = torch.device("cuda" if cuda else "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backbone = network(device, folder)
        options = ExtractOptions(device, workers=given.workers, compile=given.compile)
        bench = Bench(backbone, options, given.repeats)
        small = photos(given.photos, folder)
        print(f"{backbone.name} on {device}, {given.workers or cores()} workers, {options.precision}")
        rows = [bench.row("photos", small * given.copies)]
        rows.append(bench.row("large JPEG", enlarged(small[: given.large], folder) * given.copies))
    save("embedding", [{"network": backbone.name, "precision": options.precision, **row} for row in rows])


if __name__ == "__main__":
    main()
