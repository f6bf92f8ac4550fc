"""One network in files of ten kinds: the scores are the same, byte for byte."""

from __future__ import annotations

import runpy
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.made import in_turn, write_images

Weights = dict[str, Tensor]


def named(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


FILES: dict[str, Callable[[Weights], Any]] = {
    "state dict": lambda w: w,
    "epochs": lambda w: {"epoch": 3, "state_dict": w, "optimizer": {"state": {}, "param_groups": []}},
    "compiled": lambda w: {"model_state_dict": named("module._orig_mod.", w)},
    "lightning": lambda w: {
        "state_dict": {**named("net.", w), "criterion.weight": torch.ones(3)},
        "hyper_parameters": Namespace(lr=0.1, path=Path("runs")),
        "pytorch-lightning_version": "2.5.0",
    },
    "nested": lambda w: {"run": {"model_state": w}},
    "averaged": lambda w: {"n_averaged": torch.tensor(9), **named("module.", w)},
    "timm with its average": lambda w: {
        "arch": "net",
        "state_dict": w,
        "state_dict_ema": {name: tensor + 1 for name, tensor in w.items()},
    },
    "double precision": lambda w: {name: tensor.double() for name, tensor in w.items()},
}


@pytest.fixture
def few(tmp_path: Path) -> Path:
    write_images(tmp_path / "few", in_turn(24), seed=0)
    return tmp_path / "few"


def network(factory: Path) -> nn.Module:
    """That of the factory file, with other weights than it makes."""
    made, _ = runpy.run_path(str(factory))["make"]()
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def test_ten_files_that_hold_one_network_give_the_same_scores(few, factory, model, done, monkeypatch):
    made = network(factory)
    weights = made.state_dict()
    files = {}
    for name, wrap in FILES.items():
        files[name] = Path(f"{len(files)}.pt")
        torch.save(wrap(weights), files[name])
    files["safetensors"] = Path("weights.safetensors")
    safetensors.torch.save_file(weights, files["safetensors"])
    kind = type(made)
    kind.__module__ = "theirs"
    monkeypatch.setitem(sys.modules, "theirs", SimpleNamespace(Net=kind))
    files["module"] = Path("module.pkl")
    torch.save({"model": made, "ema": None}, files["module"], _use_new_zipfile_serialization=False)
    monkeypatch.delitem(sys.modules, "theirs")
    written = {}
    for name, file in files.items():
        done("score", few, *model, "--checkpoint", file, "--out", "scored")
        written[name] = Path("scored/scores.csv").read_bytes()
    assert len(written) == 10
    assert {name for name, content in written.items() if content != written["state dict"]} == set()
    average = ("--checkpoint", files["timm with its average"], "--entry", "state_dict_ema")
    done("score", few, *model, *average, "--out", "scored")
    assert Path("scored/scores.csv").read_bytes() != written["state dict"]


def test_around_head_names_the_head_that_was_put_aside(few, factory, model, run, done):
    weights = network(factory).state_dict()
    weights |= {"fc.weight": torch.ones(5, 10), "fc.bias": torch.ones(5)}
    torch.save(weights, "five.pt")
    done("score", few, *model, "--checkpoint", "five.pt")
    result = run("score", few, *model, "--checkpoint", "five.pt", "--around-head")
    assert result.exit_code == 1
    told = " ".join(result.stderr.split())
    assert "loaded without its head; head: fc.weight (5, 10), fc.bias (5,) put aside" in told
    assert "leave --around-head out" in told


def test_training_a_network_whose_head_was_put_aside_is_refused_by_name(few, factory, model, run):
    weights = {k: w for k, w in network(factory).state_dict().items() if not k.startswith("fc.")}
    torch.save(weights, "bare.pt")
    result = run("train", few, *model, "--checkpoint", "bare.pt", "--epochs", 1)
    assert result.exit_code == 1
    assert "loaded without its head, which is trained here; head: the file has none" in " ".join(
        result.stderr.split()
    )
