"""`diva inspect --checkpoint`: what a file of weights holds, and the command that uses it."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

import pandas as pd
import pytest
import torch
from torchvision import models
from typer.testing import CliRunner

import divacli
from divacli.cli.app import app
from divacli.errors import DivaError
from tests.made import in_turn, write_images


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    network = models.resnet18(num_classes=12)
    weights = network.state_dict()
    content = {
        "epoch": 90,
        "arch": "resnet18",
        "state_dict": {f"module.{name}": tensor.half() for name, tensor in weights.items()},
        "state_dict_ema": weights,
        "args": argparse.Namespace(img_size=64, mean=[0.1, 0.2, 0.3], lr=0.1, model="resnet18"),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []},
    }
    torch.save(content, "best.pth.tar")
    return Path("best.pth.tar")


def inspected(*arguments: str) -> tuple[dict, str]:
    result = CliRunner().invoke(app, ["inspect", *arguments, "--out", "looked"])
    assert result.exit_code == 0, result.stderr
    return json.loads(Path("looked/inspect.json").read_text()), result.stderr


def test_entries_network_settings_and_a_command_that_works(checkpoint):
    found, shown = inspected("--checkpoint", str(checkpoint))
    assert [(one["entry"], one["prefix"], one["averaged"], one["last"]) for one in found["entries"]] == [
        ("state_dict", "module.", False, "module.fc.weight (12, 512)"),
        ("state_dict_ema", "", True, "fc.weight (12, 512)"),
    ]
    assert found["network"] == "resnet18"
    assert found["settings"] == {
        "arch": "resnet18",
        "model": "resnet18",
        "epoch": 90,
        "img_size": 64,
        "mean": [0.1, 0.2, 0.3],
    }
    assert "state_dict_e" in shown
    assert pd.read_csv("looked/entries.csv")["n_tensors"].tolist() == [122, 122]
    write_images(Path("photos"), in_turn(12), seed=0)
    typed = shlex.split(found["command"].replace("DATA", "photos"))[1:]
    result = CliRunner().invoke(app, [*typed, "--workers", "0", "--cache-dir", "cache", "--image-size", "32"])
    assert result.exit_code == 0, result.stderr
    assert "512 numbers that enter fc of torchvision resnet18" in result.stderr


def test_kinds_that_hold_the_network(checkpoint):
    network = torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2)))
    network.save("m.pt")
    found, _ = inspected("--checkpoint", "m.pt")
    assert found["kind"] == "a whole network as TorchScript, which is run as code"
    assert found["command"] == "diva score DATA --checkpoint m.pt"


def test_a_network_that_is_not_known(checkpoint):
    torch.save({"conv.weight": torch.ones(2, 2, 3, 3)}, "w.pt")
    found, shown = inspected("--checkpoint", "w.pt")
    assert found["network"] is None
    assert "unknown network" in found["unknown"]
    assert "network not known" in shown


def test_from_python(checkpoint):
    report = divacli.inspect(checkpoint="best.pth.tar")
    assert report.summary["network"] == "resnet18"
    assert report.entries["entry"].tolist() == ["state_dict", "state_dict_ema"]
    with pytest.raises(DivaError, match="both or neither"):
        divacli.inspect()


@pytest.mark.parametrize("arguments", [[], ["photos", "--checkpoint", "best.pth.tar"]])
def test_data_or_a_checkpoint(checkpoint, arguments):
    result = CliRunner().invoke(app, ["inspect", *arguments])
    assert result.exit_code == 2
    assert "expected DATA, or --checkpoint FILE" in " ".join(result.output.replace("│", " ").split())
