"""Weights that gzip compressed, and archives that a system unpacked into a folder."""

from __future__ import annotations

import gzip
import zipfile

import pytest
import torch

from divacli.backbones.archive import read_torchscript
from divacli.backbones.checkpoint import archive_kind, read_checkpoint
from divacli.errors import ModelError


@pytest.fixture
def saved(tiny, tmp_path):
    torch.save({"state_dict": tiny.state_dict()}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def same(path, tiny):
    weights = read_checkpoint(path).weights
    return all(torch.equal(weights[name], tensor) for name, tensor in tiny.state_dict().items())


def test_gzip(saved, tiny, tmp_path):
    (tmp_path / "w.pt.gz").write_bytes(gzip.compress(saved.read_bytes()))
    assert same(tmp_path / "w.pt.gz", tiny)


@pytest.mark.parametrize("inside", [False, True], ids=["its own folder", "the folder around it"])
def test_an_unpacked_archive(saved, tiny, tmp_path, inside):
    with zipfile.ZipFile(saved) as archive:
        archive.extractall(tmp_path / "unpacked")
    (inner,) = (tmp_path / "unpacked").iterdir()
    assert same(inner if inside else tmp_path / "unpacked", tiny)


def test_an_unpacked_network(tiny, tmp_path):
    torch.jit.script(tiny).save(tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert archive_kind(tmp_path / "unpacked") == "torchscript"
    images = torch.ones(1, 3, 12, 12)
    assert torch.equal(read_torchscript(tmp_path / "unpacked").network(images), tiny.eval()(images))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda whole: whole[:-20], "is damaged"),
        (lambda whole: whole[:10], "is damaged"),
        (lambda whole: gzip.compress(bytes(1 << 29)), "unpacks to more than"),
    ],
    ids=["cut", "empty", "bomb"],
)
def test_gzip_that_is_damaged_or_grows_without_end(saved, tmp_path, content, says):
    (tmp_path / "w.gz").write_bytes(content(gzip.compress(saved.read_bytes())))
    with pytest.raises(ModelError, match=says):
        read_checkpoint(tmp_path / "w.gz")


def test_another_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"is a folder(.|\n)*--checkpoint FOLDER/FILE"):
        read_checkpoint(tmp_path)
