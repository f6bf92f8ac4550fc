"""Files that torch and pickle write: the reader gives the tensors that torch gives."""

from __future__ import annotations

import argparse
import collections
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from divacli.backbones.pickles.inert import Inert
from divacli.backbones.pickles.tensors import module_tensors
from divacli.backbones.pickles.torch_file import read_torch_file
from divacli.errors import ModelError

CLASSES = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("left_out", torch.ones(2), persistent=False)

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.blocks = nn.ModuleList([Block(), self.block])
        self.fc = nn.Linear(4, 2, bias=False)
        self.fc.hidden = None
        self.activation = nn.ReLU()
        self.hook = Hook()

class Hook:
    pass

class Options(dict):
    pass

class Steps(list):
    pass

class Slots:
    __slots__ = ("a",)
    def __init__(self):
        self.a = 1
"""


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that the reader never finds: `read` deletes it."""
    module = types.ModuleType("gone_when_read")
    exec(CLASSES, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


HOW = ["zip", "legacy", "pickle"]


def write(content: Any, path: Path, how: str) -> None:
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")


def read(path: Path) -> Any:
    sys.modules.pop("gone_when_read", None)
    with path.open("rb") as stream:
        return read_torch_file(stream, path)


def through(content: Any, path: Path, how: str) -> Any:
    write(content, path, how)
    return read(path)


def same(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return (
        type(got) is torch.Tensor
        and (got.dtype, got.shape, got.stride()) == (expected.dtype, expected.shape, expected.stride())
        and got.contiguous()
        .flatten()
        .view(torch.uint8)
        .equal(expected.detach().contiguous().flatten().view(torch.uint8))
    )


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
DTYPES += [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
DTYPES += [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("how", HOW)
def test_tensors_of_all_types_and_forms(tmp_path: Path, how: str) -> None:
    content = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    base = torch.arange(24.0).reshape(4, 6)
    content |= {
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "expanded": torch.ones(1, 1).expand(3, 4),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "empty within": base[4:],
        "parameter": nn.Parameter(torch.ones(2)),
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    }
    got = through(content, tmp_path / "w.pt", how)
    assert list(got) == list(content)
    for name, tensor in content.items():
        assert same(got[name], tensor), name
    assert not got["parameter"].requires_grad


@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_storages_stay_shared_and_are_read_once(tmp_path: Path, how: str) -> None:
    base = torch.zeros(1000, 100)
    content = {"tied": base, "again": base, "row": base[5], **{f"{n}": base[n:] for n in range(50)}}
    got = through(content, tmp_path / "w.pt", how)
    got["row"].fill_(7.0)
    assert got["tied"][5].tolist() == [7.0] * 100
    assert got["tied"] is got["again"]
    assert len({tensor.untyped_storage().data_ptr() for tensor in got.values()}) == 1


def test_the_other_order_of_bytes(tmp_path: Path) -> None:
    content = {"x": torch.tensor([1.5, -2.0]), "y": torch.tensor([1, 2**40]), "z": torch.tensor([1 + 2j])}
    torch.save(content, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
        for name in old.namelist():
            member = old.read(name)
            width = {"w/data/0": 4, "w/data/1": 8, "w/data/2": 4}.get(name)
            if width:
                member = np.frombuffer(member, f"u{width}").byteswap().tobytes()
            new.writestr(name, b"big" if name == "w/byteorder" else member)
    got = read(tmp_path / "big.pt")
    assert all(same(got[name], tensor) for name, tensor in content.items())
    torch.save({"x": torch.tensor([1, 2], dtype=torch.uint16)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name == "w/byteorder" else old.read(name))
    with pytest.raises(ModelError, match="another order than this machine's"):
        read(tmp_path / "big.pt")


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_arrays_of_plain_numbers_are_tensors(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        kind: rng.integers(0, 2, (2, 3)).astype(kind)
        for kind in ("f2", "f4", "<f8", ">f4", ">i8", "u1", "u2", "?", "c8", ">c16")
    }
    arrays |= {"columns": np.asfortranarray(arrays["f4"]), "empty": np.zeros((0, 2)), "scalar": np.array(3.0)}
    arrays |= {"part": arrays["f4"][:, ::2]}
    others = {"text": np.array(["a"]), "objects": np.array([None]), "dates": np.zeros(2, "M8[s]")}
    others |= {"fields": np.zeros(2, [("a", "f4")])}
    numbers = {"f": np.float32(0.5), "i": np.int64(-3), "b": np.bool_(True)}
    content = {**arrays, **others, **numbers}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol))
    got = read(tmp_path / "w.pkl")
    for name, array in arrays.items():
        assert np.array_equal(got[name].numpy(), array), name
        assert got[name].numpy().dtype == array.dtype.newbyteorder("="), name
    assert all(isinstance(got[name], Inert) for name in others)
    assert [got[name] for name in numbers] == [0.5, -3, True]


class Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes as Python 2 writes its texts."""

    def save_text(self, content: bytes) -> None:
        self.write(b"T" + len(content).to_bytes(4, "little") + content)
        self.memoize(content)

    dispatch: ClassVar[dict[Any, Any]] = {**pickle._Pickler.dispatch, bytes: save_text}  # type: ignore[attr-defined]


def test_texts_of_python_2_are_bytes_of_arrays(tmp_path: Path) -> None:
    """As in the models of Detectron, which Python 2 wrote."""
    array = np.array([1.0, 1e-30], "f4")
    with (tmp_path / "w.pkl").open("wb") as stream:
        Python2(stream, 2).dump({"blobs": {"w": array}})
    assert read(tmp_path / "w.pkl")["blobs"]["w"].tolist() == array.tolist()


@pytest.mark.parametrize("how", HOW)
def test_a_whole_module_gives_its_state_dict(tmp_path: Path, how: str, classes: types.ModuleType) -> None:
    network = classes.Network()
    expected = network.state_dict()
    got = module_tensors(through(network, tmp_path / "w.pt", how))
    assert got is not None
    assert list(got) == list(expected)
    assert all(same(got[name], tensor) for name, tensor in expected.items())
    if how != "pickle":
        assert got["block.kept"] is got["blocks.1.kept"]


@pytest.mark.parametrize("how", HOW)
def test_a_module_of_torchvision(tmp_path: Path, how: str) -> None:
    torchvision = pytest.importorskip("torchvision", reason="torchvision makes the network")
    with torch.device("meta"):
        network = torchvision.models.resnet18(num_classes=2)
    network = network.to_empty(device="cpu").half()
    network.layer4 = nn.Identity()
    expected = network.state_dict()
    got = module_tensors(through(nn.DataParallel(network), tmp_path / "w.pt", how))
    assert got is not None
    assert list(got) == [f"module.{name}" for name in expected]
    assert all(same(got[f"module.{name}"], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("how", HOW)
def test_files_of_training_frameworks(tmp_path: Path, how: str, classes: types.ModuleType) -> None:
    network = classes.Network()
    learner = classes.Hook()
    learner.__dict__ = {"model": network, "dls": classes.Hook(), "opt_func": torch.optim.SGD, "cbs": [len]}
    options = classes.Options(lr=0.1, hook=classes.Hook())
    content = {
        "state_dict": network.state_dict(),
        "hyper_parameters": {"namespace": argparse.Namespace(lr=0.1), "loss": nn.CrossEntropyLoss()},
        "callbacks": {classes.Hook: {"best": torch.tensor(0.5), "path": Path("a")}},
        "optimizer": torch.optim.Adam(network.parameters()).state_dict(),
        "learner": learner,
        "model": network,
        "ema": None,
        "train_args": options,
        "steps": classes.Steps([1, 2]),
        "slots": classes.Slots(),
        "counts": collections.Counter("aab"),
        "dtype": torch.float32,
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
    }
    got = through(content, tmp_path / "w.pt", how)
    assert list(got) == list(content)
    assert list(got["state_dict"]) == list(content["state_dict"])
    assert got["hyper_parameters"]["namespace"].state == {"lr": 0.1}
    assert got["hyper_parameters"]["loss"].describe() == "an object of torch.nn.modules.loss.CrossEntropyLoss"
    assert [name.text for name in got["callbacks"]] == ["gone_when_read.Hook"]
    assert got["learner"].state["cbs"][0].text == "builtins.len"
    for module in (got["model"], got["learner"].state["model"]):
        assert list(module_tensors(module) or ()) == list(content["state_dict"])
    assert got["train_args"].entries["lr"] == 0.1
    assert got["steps"].elements == [1, 2]
    assert got["slots"].state == (None, {"a": 1})
    assert got["counts"] == {"a": 2, "b": 1}
    assert got["dtype"].text == "torch.float32"
    assert got["size"] == (1, 2)
    assert module_tensors(got["learner"]) is None


def module(**children: Any) -> Inert:
    """Stand-in of a module with one parameter."""
    from divacli.backbones.pickles.inert import Name

    made = Inert(Name("a", "B"), ())
    made.state = {"_parameters": {"w": torch.ones(1)}, "_buffers": {}, "_modules": children}
    return made


def test_modules_in_themselves_and_without_end() -> None:
    inner = module()
    inner.state["_modules"]["again"] = inner
    assert list(module_tensors(module(a=inner, b=inner)) or ()) == ["w", "a.w", "b.w"]
    for _ in range(60):
        inner = module(a=inner, b=inner)
    assert module_tensors(inner) is None, "a million million parts"
    deep = module()
    for _ in range(5000):
        deep = module(a=deep)
    assert module_tensors(deep) is None


def test_what_is_no_tensor_in_a_module_is_not_left_out() -> None:
    odd = module()
    odd.state["_parameters"] |= {"none": None, "lazy": module()}
    got = module_tensors(odd)
    assert got is not None
    assert list(got) == ["w", "lazy"]
    assert got["lazy"].is_meta


@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_negatives_and_conjugates_have_no_wrong_numbers(tmp_path: Path, how: str) -> None:
    content = {"x": torch.tensor([1 + 2j]).conj(), "y": torch.tensor([1 + 2j]).conj().imag}
    got = through(content, tmp_path / "w.pt", how)
    assert got["x"].is_meta
    assert got["y"].is_meta


def test_no_reader_of_torch_or_pickle_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for how in HOW:
        write({"x": torch.ones(2)}, tmp_path / how, how)
    for owner, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, None)
    monkeypatch.setattr(torch._C, "PyTorchFileReader", None)
    for how in HOW:
        assert read(tmp_path / how)["x"].tolist() == [1.0, 1.0]
