"""The identity names everything that the features depend on, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from divacli.backbones.load import load_backbone


@pytest.fixture
def weights(tiny, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(tiny.state_dict(), path)
    return path


def identity(net_file, checkpoint, **options):
    return load_backbone(f"{net_file}:make", checkpoint, **options).identity


def test_it_is_text(net_file, weights):
    found = identity(net_file, weights)
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {"model", "factory", "architecture", "weights", "layer", "transform"}


def test_the_container_of_the_weights_does_not_matter(net_file, weights, tiny, tmp_path):
    safetensors.torch.save_file(tiny.state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": {"module." + k: v for k, v in tiny.state_dict().items()}}, tmp_path / "w.tar")
    first = identity(net_file, weights)
    assert identity(net_file, tmp_path / "w.safetensors") == first
    assert identity(net_file, tmp_path / "w.tar") == first


def test_one_number_in_the_weights_does(net_file, weights, tiny, tmp_path):
    tiny.bn.running_var[0] += 1e-3
    torch.save(tiny.state_dict(), tmp_path / "other.pth")
    first, other = identity(net_file, weights), identity(net_file, tmp_path / "other.pth")
    assert {key for key in first if first[key] != other[key]} == {"weights"}


def test_layer_size_and_file_do(net_file, weights):
    first = identity(net_file, weights)
    assert identity(net_file, weights, layer="hidden")["layer"] != first["layer"]
    assert identity(net_file, weights, image_size=64)["transform"] != first["transform"]
    net_file.write_text(net_file.read_text() + "\n# changed\n")
    assert identity(net_file, weights)["factory"] != first["factory"]


def test_another_process_finds_the_same(net_file, weights):
    spec = f"{net_file}:make_with_transform"
    code = f"""
import json
from pathlib import Path
from divacli.backbones.load import load_backbone
print(json.dumps(load_backbone({spec!r}, Path({str(weights)!r})).identity))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == load_backbone(spec, weights).identity
