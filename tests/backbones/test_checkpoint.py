"""Checkpoint files: what is read, what is refused, and what the messages say."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import fractions
import pathlib
import pickle
import types
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from divacli.backbones import fitting
from divacli.backbones.checkpoint import archive_kind, read_checkpoint
from divacli.errors import ModelError


def load_weights(module, checkpoint, name):
    """Load a file that must fit all of a network."""
    return fitting.load_weights(module, checkpoint, name, lambda: None)[0]


def same_weights(got, expected):
    return got.keys() == expected.keys() and all(torch.equal(got[k], expected[k]) for k in got)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy pickle"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".tar", ".ckpt", ".bin", ".safetensors"])
def test_state_dict_is_read_whatever_the_suffix(tiny, tmp_path, suffix, legacy):
    path = tmp_path / f"weights{suffix}"
    torch.save(tiny.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    assert same_weights(read_checkpoint(path).weights, tiny.state_dict())


def test_safetensors_are_read_whatever_the_suffix(tiny, tmp_path):
    path = tmp_path / "weights.pt"
    safetensors.torch.save_file(tiny.state_dict(), path)
    assert same_weights(read_checkpoint(path).weights, tiny.state_dict())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"state": {}, "param_groups": []}},
        lambda s: {"model_state_dict": s, "loss": 0.1},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"state_dict": {"model": {"model_state_dict": s}}},
    ],
)
def test_state_dict_is_found_under_its_usual_names(tiny, tmp_path, wrap):
    torch.save(wrap(tiny.state_dict()), tmp_path / "w.pt")
    assert same_weights(read_checkpoint(tmp_path / "w.pt").weights, tiny.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.model.module."])
def test_prefixes_on_all_names_are_removed(tiny, tmp_path, prefix):
    torch.save({prefix + k: v for k, v in tiny.state_dict().items()}, tmp_path / "w.pt")
    assert same_weights(read_checkpoint(tmp_path / "w.pt").weights, tiny.state_dict())


def test_a_prefix_on_some_names_stays(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pt")
    assert set(read_checkpoint(tmp_path / "w.pt").weights) == {"module.a", "b"}


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_a_network_that_is_itself_a_wrapper_is_loaded(tiny, tmp_path, prefix):
    wrapper = torch.nn.Module()
    wrapper.model = type(tiny)()
    torch.save({prefix + k: v for k, v in tiny.state_dict().items()}, tmp_path / "w.pt")
    load_weights(wrapper, read_checkpoint(tmp_path / "w.pt"), "wrapper")
    assert same_weights(wrapper.model.state_dict(), tiny.state_dict())


@pytest.mark.parametrize(
    ("dtype", "word"), [(torch.float16, "half"), (torch.bfloat16, "bfloat16"), (torch.float64, "double")]
)
def test_other_precisions_become_float32_with_a_note(tiny, tmp_path, dtype, word):
    torch.save(tiny.to(dtype).state_dict(), tmp_path / "w.pt")
    read = read_checkpoint(tmp_path / "w.pt")
    assert load_weights(tiny.float(), read, "tiny").notes == (
        f"{word}-precision weights converted to float32",
    )
    assert read.weights["fc.weight"].dtype == torch.float32
    assert read.weights["bn.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu])
def test_weights_of_eight_bits(tmp_path, dtype):
    torch.save({"x": torch.ones(4).to(dtype)}, tmp_path / "w.pt")
    assert read_checkpoint(tmp_path / "w.pt").weights["x"].tolist() == [1.0] * 4


def test_a_type_that_torch_does_not_convert_is_named(tmp_path):
    torch.save({"x": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"x is of the type torch\.float4_e2m1fn_x2"):
        _ = read_checkpoint(tmp_path / "w.pt").weights


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_whole_numbers_do_not_become_weights(tiny, tmp_path, dtype):
    weights = tiny.state_dict()
    weights["fc.weight"] = torch.ones_like(weights["fc.weight"]).to(dtype)
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"1 of another kind of numbers: fc\.weight torch\."):
        load_weights(tiny, read_checkpoint(tmp_path / "w.pt"), "tiny")


def test_bits_are_refused(tmp_path):
    torch.save({"x": torch.zeros(4, dtype=torch.uint8).view(torch.bits8)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"x is of the type torch\.bits8"):
        _ = read_checkpoint(tmp_path / "w.pt").weights


@pytest.mark.parametrize(
    "odd", [torch.eye(3).to_sparse(), torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)]
)
def test_what_is_refused_is_refused_without_warnings_of_torch(tmp_path, odd, recwarn):
    torch.save({"x": odd}, tmp_path / "w.pt")
    recwarn.clear()
    with pytest.raises(ModelError):
        _ = read_checkpoint(tmp_path / "w.pt").weights
    assert not recwarn.list


def test_nested_tensors_are_refused(tmp_path):
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
        torch.save({"x": nested}, tmp_path / "w.pt")
        with pytest.raises(ModelError) as caught:
            _ = read_checkpoint(tmp_path / "w.pt").weights
        assert len(str(caught.value).splitlines()) == 3


def test_complex_weights_do_not_become_real_ones(tiny, tmp_path, recwarn):
    """torch would drop the imaginary parts, with a warning of its own."""
    weights = tiny.state_dict()
    weights["fc.weight"] = torch.complex(weights["fc.weight"], torch.ones_like(weights["fc.weight"]))
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"1 of another kind of numbers: fc\.weight torch\.complex64"):
        load_weights(tiny, read_checkpoint(tmp_path / "w.pt"), "tiny")
    weights["fc.weight"].imag[0, 0] = float("nan")
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"NaN or infinite values in fc\.weight"):
        _ = read_checkpoint(tmp_path / "w.pt").weights
    assert not recwarn.list


@pytest.mark.parametrize("checked", [True, False])
def test_a_flipped_bit_is_seen_where_the_file_has_checksums(tiny, tmp_path, checked):
    """torch itself compares none, and is asked by some to write none."""
    torch.serialization.set_crc32_options(checked)
    try:
        torch.save(tiny.state_dict(), tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same_weights(read_checkpoint(tmp_path / "w.pt").weights, tiny.state_dict())
    content = bytearray((tmp_path / "w.pt").read_bytes())
    place = content.index(tiny.fc.weight.detach().numpy().tobytes())
    content[place] ^= 1
    (tmp_path / "w.pt").write_bytes(content)
    assert torch.load(tmp_path / "w.pt").keys() == tiny.state_dict().keys()
    if checked:
        with pytest.raises(ModelError, match=r"is a damaged zip archive: Bad CRC-32"):
            _ = read_checkpoint(tmp_path / "w.pt").weights
    else:
        _ = read_checkpoint(tmp_path / "w.pt").weights


class Hiding:
    """Pickled as a dictionary or a tensor with attributes that hide its methods."""

    def __init__(self, kind, hidden):
        self.kind, self.hidden = kind, hidden

    def __reduce__(self):
        if self.kind == "dictionary":
            return collections.OrderedDict, (), {"items": self.hidden, "get": self.hidden}
        weight = torch.ones(3)
        state = {"float": self.hidden, "is_floating_point": self.hidden}
        return torch._utils._rebuild_parameter_with_state, (weight, False, collections.OrderedDict(), state)


@pytest.mark.parametrize("hidden", [None, 3, "text"])
def test_attributes_that_hide_methods_hide_nothing(tmp_path, hidden):
    torch.save({"x": Hiding("tensor", hidden)}, tmp_path / "w.pt")
    assert read_checkpoint(tmp_path / "w.pt").weights["x"].tolist() == [1.0] * 3
    torch.save(Hiding("dictionary", hidden), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="a dictionary with the entries"):
        _ = read_checkpoint(tmp_path / "w.pt").weights


def test_several_checkpoints_in_one_archive_are_refused(tmp_path):
    for name in ("a", "b"):
        torch.save({name: torch.ones(1)}, tmp_path / f"{name}.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as both, zipfile.ZipFile(tmp_path / "b.pt") as other:
        for entry in other.infolist():
            both.writestr(entry.filename, other.read(entry))
    with pytest.raises(ModelError, match="holds several checkpoints: a, b"):
        _ = read_checkpoint(tmp_path / "a.pt").weights


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy pickle"])
@pytest.mark.parametrize(
    "extra",
    [
        argparse.Namespace(lr=0.1, out=pathlib.Path("runs/1")),
        np.float64(0.5),
        np.int64(3),
        np.bool_(True),
        np.arange(3.0),
        np.array(["a", "b"]),
        collections.defaultdict(list, {"a": [1]}),
        collections.OrderedDict(a=1),
        pathlib.PurePosixPath("a/b"),
        pathlib.PureWindowsPath("a/b"),
        {1, 2},
        collections.defaultdict(dict, {"a": {}}),
        collections.Counter("aab"),
        collections.deque([1, 2], maxlen=3),
        datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
        datetime.date(2024, 1, 2),
        datetime.time(1, 2),
        datetime.timedelta(1),
        decimal.Decimal("0.1"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=1 << 100),
        types.SimpleNamespace(lr=0.1, sizes=[np.int64(1)]),
        frozenset({1, 2}),
        range(3),
        slice(1, 2, 3),
        np.zeros(2, dtype=[("a", "f4"), ("b", "M8[s]")]),
        np.array([None, "a"], dtype=object),
    ],
    ids=lambda extra: type(extra).__name__,
)
def test_harmless_data_beside_the_weights_is_read(tiny, tmp_path, extra, legacy):
    path = tmp_path / "w.pt"
    torch.save({"state_dict": tiny.state_dict(), "x": extra}, path, _use_new_zipfile_serialization=not legacy)
    assert same_weights(read_checkpoint(path).weights, tiny.state_dict())


class Exploit:
    """Would create a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class SystemExploit(Exploit):
    def __reduce__(self):
        import os

        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("kind", [Exploit, SystemExploit])
@pytest.mark.parametrize("how", ["torch.save", "legacy", "pickle"])
def test_a_checkpoint_with_code_gives_its_weights_and_runs_nothing(tmp_path, kind, how):
    target, path = tmp_path / "created", tmp_path / "w.pt"
    content = {"state_dict": {"a": torch.ones(1)}, "x": kind(target)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch.save")
    assert read_checkpoint(path).weights["a"].tolist() == [1.0]
    assert not target.exists()
    pickle.loads(pickle.dumps(kind(target)))
    assert target.exists(), "the exploit itself works"


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": None, "ema": m, "epoch": 3}])
def test_a_pickled_module_gives_its_state_dict(tiny, tmp_path, wrap):
    torch.save(wrap(tiny), tmp_path / "w.pt")
    assert same_weights(read_checkpoint(tmp_path / "w.pt").weights, tiny.state_dict())


def saved(tiny, path):
    torch.save(tiny.state_dict(), path)
    return path.read_bytes()


def jpeg(path):
    Image.new("RGB", (8, 8)).save(path, "JPEG")
    return path.read_bytes()


def legacy_start(path):
    torch.save({"a": torch.ones(100)}, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()[:200]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda tiny, path: b"", "an empty file"),
        (lambda tiny, path: jpeg(path), "a JPEG image"),
        (lambda tiny, path: b"\n<!DOCTYPE html><html>404</html>", "a web page"),
        (
            lambda tiny, path: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "a Git LFS pointer",
        ),
        (lambda tiny, path: saved(tiny, path)[:3000], "cut short"),
        (lambda tiny, path: legacy_start(path), "damaged or incomplete"),
        (lambda tiny, path: b"hello there", "text that begins 'hello there'"),
        (lambda tiny, path: b"\x00\x01\x02\x03", "bytes that begin 00 01 02 03"),
        (lambda tiny, path: (50).to_bytes(8, "little") + b"{broken header", "broken safetensors"),
        (lambda tiny, path: safetensors.torch.save({"a": torch.ones(50)})[:-20], "broken safetensors"),
        (lambda tiny, path: safetensors.torch.save({}), "holds no tensors"),
    ],
)
def test_files_that_are_no_checkpoint_are_named(tiny, tmp_path, content, says):
    path = tmp_path / "w.pt"
    path.write_bytes(content(tiny, path))
    with pytest.raises(ModelError, match=says):
        read_checkpoint(path)


def test_a_zip_of_other_things_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"a zip archive of other things \(readme.txt\)"):
        _ = read_checkpoint(tmp_path / "w.pt").weights


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no file .*absent\.pt"):
        _ = read_checkpoint(tmp_path / "absent.pt").weights


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "holds a list"),
        (np.array(["a"]), "holds an object of numpy.ndarray"),
        ({}, "a dictionary with the entries"),
        ({"epoch": 1, "best": 2}, "entries epoch, best"),
        ({"state": {}, "param_groups": []}, "an optimizer's state"),
    ],
)
def test_content_without_a_state_dict_is_named(tmp_path, content, says):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=says):
        _ = read_checkpoint(tmp_path / "w.pt").weights


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tiny, tmp_path, value):
    tiny.hidden.bias.data[1] = value
    torch.save(tiny.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"NaN or infinite values in hidden\.bias"):
        _ = read_checkpoint(tmp_path / "w.pt").weights


def test_what_does_not_fit_is_told_in_one_message(tiny, tmp_path):
    weights = dict(tiny.state_dict())
    del weights["conv.weight"], weights["conv.bias"], weights["hidden.bias"], weights["fc.bias"]
    weights |= {"extra.weight": torch.ones(1), "fc.weight": torch.ones(7, 6)}
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        load_weights(tiny, read_checkpoint(tmp_path / "w.pt"), "tiny")
    message = str(caught.value)
    assert "4 missing: conv.weight, conv.bias, hidden.bias and 1 more" in message
    assert "1 unexpected: extra.weight" in message
    assert "1 of another shape: fc.weight (7, 6) in place of (4, 6)" in message
    assert "an unknown network whose first tensors are" in message


def test_batch_counters_may_be_missing(tiny, tmp_path):
    weights = {k: v for k, v in tiny.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "w.pt")
    load_weights(tiny, read_checkpoint(tmp_path / "w.pt"), "tiny")


def test_a_state_dict_is_no_archive(tiny, tmp_path):
    torch.save(tiny.state_dict(), tmp_path / "w.pt")
    assert archive_kind(tmp_path / "w.pt") is None
