"""Pixels as files have them, and heads whose classes are in another order than those of the folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.doors.kinds import KINDS, classes_in, put
from tests.made import FACTORY

HEADS = (
    FACTORY
    + """
class Classes(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.body = nn.Flatten()
        self.fc = nn.Linear(48, len(order))
        colours = torch.tensor([[n // 4, n // 2 % 2, n % 2] for n in order]).float()
        with torch.no_grad():
            # Each class has a colour: the nearest one has the largest output.
            centres = (colours * 0.8 + 0.1).repeat_interleave(16, 1)
            self.fc.weight.copy_(centres / 20)
            self.fc.bias.copy_(-centres.square().sum(1) / 40)

    def forward(self, x):
        return self.fc(self.body(x))

def by_number():
    return Classes(range(8)), TRANSFORM

def by_text():
    return Classes(sorted(range(8), key=lambda n: str(3 * n))), TRANSFORM

def one_channel():
    made = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return made, v2.Compose([v2.Grayscale(1), TRANSFORM])
"""
)
"""Networks that tell eight colours by their heads, in two orders, and one of grey images."""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A file with networks whose heads know the classes."""
    file = tmp_path / "heads.py"
    file.write_text(HEADS)
    return file


def write_colours(folder: Path, names: list[str], n: int = 3) -> Path:
    """Write images in the colours that the heads know, in folders with these names of the classes 0 to 7."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(names):
        colour = np.array([number // 4, number // 2 % 2, number % 2]) * 204 + 25
        for row in range(n):
            pixels = np.clip(colour + generator.integers(-20, 20, (4, 4, 3)), 0, 255).astype(np.uint8)
            file = folder / name / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return folder


LETTERS, NUMBERS = list("abcdefgh"), [f"{3 * n}" for n in range(8)]


@pytest.mark.parametrize("head", ["by_number", "by_text"])
def test_the_order_of_a_head_is_found(head, nets, tmp_path, run):  # D6
    errors = []
    for data, names, model in (("letters", LETTERS, "by_number"), ("numbers", NUMBERS, head)):
        write_colours(tmp_path / data, names)
        given = ("--model", f"{nets}:{model}", "--around-head", "--workers", "0", "--out", "scored")
        result = run("score", data, *given)
        assert result.exit_code == 0, result.stderr
        errors.append(json.loads(Path("scored/summary.json").read_text())["loo_error"])
    assert errors[0] == errors[1]


def test_a_head_in_an_order_that_nothing_tells_is_refused(nets, tmp_path, run):
    write_colours(tmp_path / "words", ["i", "j", "a", "h", "b", "k", "d", "c"])
    given = ("--model", f"{nets}:by_number", "--around-head", "--workers", "0", "--out", "scored")
    result = run("score", "words", *given)
    assert result.exit_code == 1
    assert "and in another order with 100.0%" in result.stderr
    assert "mostly come with the labels i, j, a, h, b, k, d, c" in result.stderr


def test_a_head_that_knows_nothing_of_the_classes_is_refused(tmp_path, run, model):
    put(tmp_path / "photos", classes_in("", n=12))
    result = run("score", "photos", *model, "--around-head", "--workers", "0", "--out", "scored")
    assert result.exit_code == 1, result.stderr
    assert "chance alone gives" in result.stderr


def deep(folder: Path, bits: int, n: int = 24) -> Path:
    """Write grey images with values of so many bits in PNG of 16."""
    generator = np.random.default_rng(0)
    for row in range(n):
        values = generator.integers(0, 120, (4, 4)) + 60 * (row % 3)
        values[0, 0] = 255
        file = folder / KINDS[row % 3] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(values * ((1 << bits) - 1) / 255).astype(np.uint16)).save(file)
    return folder


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_deep_images_are_scaled_by_the_values_in_use(bits, tmp_path, run, model, looked):  # P1
    deep(tmp_path / "scans", bits)
    found = looked("scans")
    assert f"({bits} bits)" in found["images"]["range"]
    result = run("score", "scans", *model, "--workers", "0", "--out", "scored")
    assert f"{(1 << bits) - 1:,} white" in " ".join(result.stderr.split())
    told = pd.read_csv("scored/scores.csv")["derivative"].sort_values().to_numpy()
    typed = ("--range", f"0,{(1 << bits) - 1}")
    assert run("score", "scans", *model, *typed, "--workers", "0", "--out", "scored").exit_code == 0
    np.testing.assert_array_equal(pd.read_csv("scored/scores.csv")["derivative"].sort_values(), told)


@pytest.mark.parametrize("range", ["4095", "9,1", "a,b", "1,1"])
def test_ranges_that_are_none(range, tmp_path, run, model):
    deep(tmp_path / "scans", 12)
    result = run("score", "scans", *model, "--range", range, "--out", "scored")
    assert result.exit_code == 2
    assert "--range" in result.stderr


def test_a_line_of_pixels_fails_alone(tmp_path, run, model):  # P2
    put(tmp_path / "photos", classes_in("", n=6))
    Image.new("RGB", (1, 60_000)).save(tmp_path / "photos" / "cat" / "line.png")
    result = run("score", "photos", *model, "--workers", "0", "--out", "scored")
    assert result.exit_code == 0, result.stderr
    failed = pd.read_csv("scored/failed.csv")
    assert failed["path"].tolist() == ["../photos/cat/line.png"]
    assert len(pd.read_csv("scored/scores.csv")) == 18


def test_a_large_colour_profile_is_no_damage(tmp_path, scored):  # P3
    put(tmp_path / "photos", classes_in(""))
    for file in (tmp_path / "photos" / "cat").iterdir():
        noise = np.random.default_rng(1).integers(0, 256, 1_500_000, dtype=np.uint8).tobytes()
        Image.open(file).save(file, icc_profile=noise)
    assert scored("photos") == (12, 3)
    assert len(pd.read_csv("scored/failed.csv")) == 0


def test_a_network_of_one_channel(nets, tmp_path, run):  # P4
    put(tmp_path / "photos", classes_in(""))
    result = run("score", "photos", "--model", f"{nets}:one_channel", "--workers", "0", "--out", "scored")
    assert result.exit_code == 0, result.stderr
