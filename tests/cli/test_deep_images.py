"""Images of more than 8 bits: every command scales all of its sets alike, as their values are used."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from divacli.interchange.torch_dataset import ManifestDataset

SAID = "pixel values of images of more than 8 bits go from"


@pytest.fixture
def grey(tmp_path: Path) -> Callable[..., Path]:
    """Write grey images of 8 bits, or the same with more bits, in a folder that is called data."""

    def write(name: str, bits: int, seed: int = 0, n: int = 24, dimmed: int = 1) -> Path:
        generator = np.random.default_rng(seed)
        folder = tmp_path / name / "data"
        for row in range(n):
            label = row % 3
            values = generator.integers(0, 120, (6, 6)) + 60 * label
            values[0, 0] = 255
            scaled = np.round(values // dimmed * ((1 << bits) - 1) / 255)
            target = folder / "abc"[label] / f"{row:03d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scaled.astype(np.uint8 if bits == 8 else np.uint16)).save(target)
        return folder

    return write


def scores_of(folder: str) -> pd.DataFrame:
    return pd.read_csv(Path(folder) / "scores.csv").drop(columns="path")


def said(result) -> str:
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("workers", ["0", "2"])
def test_scores_are_those_of_the_images_of_eight_bits(grey, done, model, workers) -> None:
    plain, deep = grey("plain", 8), grey("deep", 12)
    result = done("score", plain, *model, "--workers", workers, "--out", "of-plain")
    assert SAID not in said(result)
    result = done("score", deep, *model, "--workers", workers, "--out", "of-deep")
    assert said(result).count(f"{deep}: {SAID} ") == 1
    assert "to 4,095 (12 bits): 0 is black and 4,095 white (--range LOW,HIGH sets them)" in said(result)
    pd.testing.assert_frame_equal(scores_of("of-plain"), scores_of("of-deep"))
    runs = [json.loads(Path(out, "run.json").read_text())["runs"][-1] for out in ("of-plain", "of-deep")]
    identities = [run["inputs"][0]["features"]["identity"] for run in runs]
    assert identities[1].pop("pixels") == "0..4095"
    assert identities[0] == identities[1]


def test_a_held_out_set_is_scaled_as_the_data(grey, done, model) -> None:
    deep, held_out = grey("deep", 12), grey("val", 12, seed=1, dimmed=8)
    result = done("score", deep, *model, "--val", held_out, "--out", "out")
    assert f"scaled in {held_out} as in {deep}, although its own go another way: " in said(result)
    assert said(result).count("note:") == said(done("score", deep, *model, "--val", held_out)).count("note:")
    plain, dark = grey("plain", 8), grey("dark", 8, seed=1, dimmed=8)
    done("score", plain, *model, "--val", dark, "--out", "of-plain")
    pd.testing.assert_frame_equal(scores_of("out"), scores_of("of-plain"))


def test_a_set_of_eight_bits_leaves_the_range_to_the_next(grey, done, model) -> None:
    plain, deep = grey("plain", 8), grey("deep", 12, seed=1)
    result = done("score", plain, *model, "--val", deep, "--out", "out")
    assert f"{deep}: {SAID}" in said(result)
    done("score", plain, *model, "--val", grey("other", 8, seed=1), "--out", "of-plain")
    pd.testing.assert_frame_equal(scores_of("out"), scores_of("of-plain"))


def test_a_feature_store_keeps_its_range(grey, done, model) -> None:
    deep, held_out = grey("deep", 12), grey("val", 12, seed=1, dimmed=8)
    done("embed", deep, *model, "--out", "store")
    done("score", "store", *model, "--val", held_out, "--out", "of-store")
    done("score", deep, *model, "--val", held_out, "--out", "out")
    pd.testing.assert_frame_equal(
        scores_of("of-store").drop(columns="feature_source", errors="ignore"), scores_of("out")
    )


def test_training_and_copies_see_the_same_pixels(grey, done, model) -> None:
    plain, deep = grey("plain", 8), grey("deep", 12)
    for name, folder in {"plain": plain, "deep": deep}.items():
        quick = ("--epochs", "1", "--workers", "0")
        done("train", folder, *model, *quick, "--test", folder, "--out", f"train-{name}")
        done("augment", folder, *model, "--transform", "hflip", "--out", f"augment-{name}")
    one, other = (pd.read_csv(f"train-{name}/reweighted.csv")["weight"] for name in ("plain", "deep"))
    assert one.tolist() == other.tolist()
    one, other = (json.loads(Path(f"augment-{name}/augment.json").read_text()) for name in ("plain", "deep"))
    for summary in (one, other):
        summary.pop("seconds", None)
        summary.pop("fingerprint", None)
    assert one == other


def test_the_page_shows_what_the_network_saw(grey, done, model) -> None:
    pages = []
    for name, bits in {"plain": 8, "deep": 12}.items():
        done("score", grey(name, bits), *model, "--out", f"page-{name}")
        done("report", f"page-{name}", "--out", f"page-{name}/page.html")
        pages.append(Path(f"page-{name}/page.html").read_text().count("data:image/webp;base64,"))
    assert pages[0] == pages[1] > 0


def test_a_torch_data_set(grey) -> None:
    plain, deep, dark = grey("plain", 8), grey("deep", 12), grey("dark", 12, dimmed=8)
    one, other = ManifestDataset(str(plain)), ManifestDataset(str(deep))
    for row in range(len(one)):
        assert one[row][0].tobytes() == other[row][0].tobytes()
    held_out = ManifestDataset(str(dark), classes=one.classes, pixel_range=other.pixel_range)
    assert np.asarray(held_out[0][0]).max() == 255 // 8
    assert np.asarray(ManifestDataset(str(dark))[0][0]).max() > 100
    assert pickle.loads(pickle.dumps(other))[0][0].tobytes() == one[0][0].tobytes()
    given = ManifestDataset(str(deep), pixel_range=(0, 255))
    assert np.median(np.asarray(given[0][0])) == 255


def test_failures_are_counted_by_suffix_and_reason(grey, done, model) -> None:
    folder = grey("data", 8)
    for number in range(3):
        (folder / "a" / f"x{number}.jpg").write_bytes(b"8BPS\0\1")
    (folder / "a" / "y.png").write_bytes(b"")
    result = done("score", folder, *model, "--out", "out")
    reason = "a PSD image, which diva does not read: convert it to PNG or JPEG"
    assert (
        f"4 images cannot be used and are left out: 3 .jpg ({reason}), 1 .png (empty file (0 bytes)); "
        "the first: a/x0.jpg" in said(result)
    )
    assert json.loads(Path("out/summary.json").read_text())["failed"] == [
        {"suffix": ".jpg", "reason": reason, "n": 3},
        {"suffix": ".png", "reason": "empty file (0 bytes)", "n": 1},
    ]
    done("score", grey("whole", 8), *model, "--out", "whole")
    assert "failed" not in json.loads(Path("whole/summary.json").read_text())
