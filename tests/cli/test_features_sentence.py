"""Every command that runs a network says what the features are, and writes it down."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from tests.made import in_turn, write_images

CURVE = ("--seeds", "1", "--curve", "remove", "--fractions", "0.5")

COMMANDS = {
    "score": ((), "summary.json"),
    "prune": (("--keep", "0.5", "--force"), "prune.json"),
    "embed": ((), None),
    "extend": (("--pool", "POOL"), "extend.json"),
    "augment": (("--transform", "hflip"), "augment.json"),
    "train": (("--epochs", "1"), "train.json"),
    "evaluate": (("--test", "POOL", *CURVE), "evaluation.json"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATA of 18 images, and a pool of as many."""
    folder = tmp_path_factory.mktemp("few")
    write_images(folder / "data", in_turn(18), seed=0)
    write_images(folder / "pool", in_turn(18), seed=1)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_the_features_are(run, factory, model, folder, command):
    options, file = COMMANDS[command]
    given = [str(folder / "pool") if one == "POOL" else one for one in options]
    result = run(command, folder / "data", *given, *model, "--out", "out")
    assert result.exit_code == 0, result.stderr
    sentence = "features: 10 numbers that enter fc of net.py:make; weights: those that the factory gives"
    assert sentence in " ".join(result.stderr.split())
    if file is not None:
        assert json.loads((Path("out") / file).read_text())["features"] == sentence


def test_what_else_is_known_of_the_network_is_said_too(run, factory, model, folder):
    weights = runpy.run_path(str(factory))["make"]()[0].state_dict()
    average = {name: tensor + 1 for name, tensor in weights.items()}
    weights["criterion.weight"] = torch.ones(1)
    torch.save({"epoch": 3, "state_dict": weights, "state_dict_ema": average}, "best.pt")
    said = " ".join(run("embed", folder / "data", *model, "--checkpoint", "best.pt").stderr.split())
    assert "weights: best.pt, entry state_dict (state_dict_ema is there too: --entry)" in said
    assert "1 tensor that is no part of the network was left aside: criterion" in said


def test_without_a_network_one_is_taken_and_said(run, folder):
    result = run("embed", folder / "data")
    said = " ".join(result.stderr.split())
    assert "torchvision's resnet50 with its weights IMAGENET1K_V1 is taken (98 MB, downloaded once)" in said
    assert "resnet50 cannot be downloaded" in said
    assert "--model resnet50 --checkpoint FILE" in said
    assert result.exit_code == 1
