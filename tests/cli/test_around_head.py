"""`--around-head` with a network that was trained with torchvision's `ImageFolder` on folders 0 to 11."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import divacli
from divacli.errors import DivaError

TWELVE = """
# An image of class c is of brightness 20 c.
def make_head(order):
    net = Net(12)
    with torch.no_grad():
        steps = torch.arange(10) / 10
        net.hidden.weight.fill_(1 / 48)
        net.hidden.bias.copy_(-steps)
        brightness = torch.tensor([float(name) for name in order]) * 20 / 255
        features = (brightness[:, None] - steps).relu()
        net.fc.weight.copy_(60 * features)
        net.fc.bias.copy_(-30 * (features**2).sum(1))
    return net, TRANSFORM

def make_image_folder():
    return make_head(sorted(map(str, range(12))))

def make_numbers():
    return make_head(range(12))

def make_backwards():
    return make_head(range(11, -1, -1))
"""

AROUND = ("--around-head", "--scaling", "none")
NOTE = "in the order of torchvision's ImageFolder: 0, 1, 10, 11, 2 and 7 more"


def write_twelve(folder: Path, n: int, seed: int) -> Path:
    """Write images of brightness 20 c into the class folders c = 0 to 11."""
    generator = np.random.default_rng(seed)
    for row in range(n):
        file = folder / str(row % 12) / f"{seed}-{row:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = 20 * (row % 12) + generator.integers(0, 12, (4, 4, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


@pytest.fixture
def twelve(tmp_path, factory):
    """The option that names one of the networks."""
    factory.write_text(factory.read_text() + TWELVE)
    write_twelve(tmp_path / "photos", 120, 0)
    write_twelve(tmp_path / "more", 60, 1)
    return lambda name: ("--model", f"{factory}:{name}")


COMMANDS = {
    "score": ((), "scores.csv"),
    "relabel": ((), "relabelled.csv"),
    "prune": (("--keep", "0.9", "--force"), "kept.csv"),
    "reweight": (("--steps", "3"), "reweighted.csv"),
    "extend": (("--pool", "more", "--budget", "5"), "selected.csv"),
    "augment": (("--transform", "hflip"), "augment.json"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_writes_what_the_same_head_in_the_order_of_the_numbers_gives(twelve, done, command):
    more, written = COMMANDS[command]
    for name in ("make_image_folder", "make_numbers"):
        result = done(command, "photos", *twelve(name), *AROUND, *more, "--out", name)
        assert result.stderr.count(NOTE) == (name == "make_image_folder")
    found, expected = (Path(name, written) for name in ("make_image_folder", "make_numbers"))
    if written.endswith(".csv"):
        pd.testing.assert_frame_equal(pd.read_csv(found), pd.read_csv(expected), check_exact=True)
    else:
        different = {"seconds", "fingerprint", "features"}
        one, other = (json.loads(file.read_text()) for file in (found, expected))
        assert {key: one[key] for key in one if key not in different} == {
            key: other[key] for key in other if key not in different
        }


def test_scores_read_back_have_the_order_too(twelve, done):
    done("score", "photos", *twelve("make_image_folder"), *AROUND, "--out", "scored")
    assert json.loads(Path("scored/summary.json").read_text())["loo_error"] < 0.05
    assert NOTE in done("prune", "scored/scores.csv", "--keep", "0.9", "--force").stderr
    assert json.loads(Path("diva-out/prune.json").read_text())["forecast"] is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_another_order_is_refused_by_every_command(twelve, run, command):
    result = run(command, "photos", *twelve("make_backwards"), *AROUND, *COMMANDS[command][0])
    assert result.exit_code == 1
    assert "mostly come with the labels 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0" in result.stderr
    assert "leave --around-head out" in result.stderr
    assert not Path("diva-out").exists()


def test_from_python(twelve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = divacli.Problem(around_head=True, scaling="none")
    compute = divacli.Compute(workers=0, cache_dir=tmp_path / "cache")
    with pytest.warns(UserWarning, match="ImageFolder"):
        report = divacli.score("photos", twelve("make_image_folder")[1], problem=problem, compute=compute)
    assert report.summary["loo_error"] < 0.05
    assert [NOTE in sentence for sentence in report.warnings].count(True) == 1
    with pytest.raises(DivaError, match="mostly come with") as caught:
        divacli.score("photos", twelve("make_backwards")[1], problem=problem, compute=compute)
    assert "leave around_head out" in str(caught.value)
