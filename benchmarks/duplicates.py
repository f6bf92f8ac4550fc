"""How many altered copies of real photos are found, and what is found where there are no copies.

`python -m benchmarks.duplicates` alters 300 photos of `clothing/train` in several ways, embeds them with
MobileNetV2 (some minutes), and looks for copies among all photos with the 300 altered ones, and among the 300
with theirs alone, where everything has a copy. Beside it stands a rule without regard to the surroundings: a
cosine distance below 0.13 times the median of the nearest neighbours'. Then it searches sets as they are.
Needs the folder `shared` beside the repository.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_digits

from benchmarks.machine import SHARED, require_shared, save
from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples
from divacli.files.cache import default_cache
from divacli.ridge import Rows, near_duplicates
from divacli.ridge.similar.near_duplicates import neighbour_distances
from divacli.solve.duplicates import Duplicates, all_together, find_duplicates

N_PHOTOS = 300
PLAIN_RULE = 0.13


def resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    """Both sides, times a factor."""
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def without_border(share: float) -> Callable[[Image.Image], Image.Image]:
    """All but a share of the shorter side, on each of the four."""
    return lambda image: ImageOps.crop(image, round(min(image.size) * share))


WAYS: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "JPEG, quality 90": (lambda image: image, 90),
    "JPEG, quality 60": (lambda image: image, 60),
    "JPEG, quality 30": (lambda image: image, 30),
    "1.5 times as large": (resized(1.5), 90),
    "3/4 as large": (resized(0.75), 90),
    "half as large": (resized(0.5), 90),
    "the middle 98 %": (without_border(0.01), 90),
    "the middle 95 %": (without_border(0.025), 90),
    "10 % brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.1), 90),
    "mirrored": (ImageOps.mirror, 90),
    "grey": (lambda image: ImageOps.grayscale(image).convert("RGB"), 90),
}
TOGETHER = ("mirrored", "JPEG, quality 60", "10 % brighter")
"""Ways whose copies are put beside the photos all at once, as sets that were augmented on disk have them."""


def embedded(data: Path, cache: Path) -> Samples:
    """Samples under MobileNetV2."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    choice = BackboneChoice("mobilenet_v2", SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth")
    return load_samples(str(data), choice, ExtractOptions(device), cache)


def altered(photos: Samples, way: str, folder: Path) -> Samples:
    """The photos, altered and saved as JPEG, in the same order."""
    change, quality = WAYS[way]
    for file, path in zip(photos.manifest.files(), photos.manifest.table["path"], strict=True):
        target = folder / way / path
        target.parent.mkdir(parents=True, exist_ok=True)
        change(Image.open(file).convert("RGB")).save(target, quality=quality)
    copies = embedded(folder / way, folder / "cache")
    assert copies.manifest.table["path"].equals(photos.manifest.table["path"])
    return copies


def recall(sets: list[Samples], rows: np.ndarray) -> tuple[float, Duplicates]:
    """Share of copies that are in one set with their photo, which are rows of the first set."""
    found = find_duplicates(all_together(sets))
    first = found.numbers[rows]
    copies = found.numbers[len(sets[0]) :].reshape(len(sets) - 1, -1)
    return float(((copies == first) & (first > 0)).mean()), found


def mixed(found: Duplicates, photo: np.ndarray) -> int:
    """How many photos too many sets hold.

    Args:
        found: In n samples.
        photo: (n,) which photo each sample shows.
    """
    members = found.numbers > 0
    pairs = set(zip(found.numbers[members].tolist(), photo[members].tolist(), strict=True))
    return len(pairs) - found.counts["n_duplicate_sets"]


def plain_recall(sets: list[Samples]) -> float:
    """The same by the plain rule: copies of whom any other is that close."""
    values = torch.nn.functional.normalize(torch.cat([part.features[:] for part in sets]).double())
    everyone = torch.arange(len(values))
    distance = neighbour_distances(values, everyone, everyone, 1)[:, 0].square() / 2
    near = distance < PLAIN_RULE * distance.median()
    return float(near[len(sets[0]) :].double().mean())


def main() -> None:
    """Measure and print."""
    require_shared()
    rows: list[dict[str, Any]] = []
    whole = embedded(SHARED / "data" / "clothing" / "train", default_cache())
    chosen = np.sort(np.random.default_rng(0).choice(len(whole), N_PHOTOS, replace=False))
    photos, everyone = whole.select(chosen), np.arange(N_PHOTOS)
    with tempfile.TemporaryDirectory() as folder:
        copies = {way: altered(photos, way, Path(folder)) for way in WAYS}
        for way, part in copies.items():
            found, among_all = recall([whole, part], chosen)
            alone, _ = recall([photos, part], everyone)
            row = {"copies": way, "found": found, "found_among_copies": alone}
            row |= {"plain_rule": plain_recall([whole, part])}
            row |= {"plain_rule_among_copies": plain_recall([photos, part])}
            row["sets_of_different_photos"] = mixed(among_all, np.r_[np.arange(len(whole)), chosen])
            rows.append(row)
            print(row, flush=True)
        found, _ = recall([photos, *(copies[way] for way in TOGETHER)], everyone)
        rows.append({"copies": ", ".join(TOGETHER), "found_among_copies": found})
        print(rows[-1], flush=True)
    torch.manual_seed(0)
    sets: dict[str, Rows] = {
        "clothing/train": whole.features,
        "cifar10n": embedded(SHARED / "data" / "cifar10n" / "labels.csv", default_cache()).features,
        "digits": torch.from_numpy(load_digits().data),
        **{f"random, {d} dimensions": torch.randn(20_000, d) for d in (4, 8, 16, 32, 64)},
    }
    for name, features in sets.items():
        start, n = time.monotonic(), features.shape[0]
        near = near_duplicates(features, torch.arange(n))
        row = {"set": name, "n": n, "d": features.shape[1], "seconds": time.monotonic() - start}
        row |= {"n_near": int(near.distance.isfinite().sum()), "dimension": near.dimension}
        rows.append({**row, "ratio": near.ratio, "typical": near.typical})
        print(rows[-1], flush=True)
    save("duplicates", rows)


if __name__ == "__main__":
    main()
