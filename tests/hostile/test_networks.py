"""Whole networks in a file that would do more than compute: refused before torch reads them."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from divacli.backbones.backbone import load_backbone
from divacli.backbones.checkpoint import read_checkpoint
from divacli.backbones.rezip import copied, member_names
from divacli.backbones.untrusted import refuse_exported, refuse_torchscript
from divacli.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore::DeprecationWarning")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.mean((2, 3)))


class Saving(Net):
    """Writes a file when it runs."""

    target = ""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.target)
        return self.fc(x.mean((2, 3)))


class Mapping(Net):
    """Makes a file when it runs, and maps it."""

    target = ""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = torch.from_file(self.target, True, 4)
        return self.fc(x.mean((2, 3))) + made.sum()


@pytest.mark.parametrize("kind", [Saving, Mapping])
@pytest.mark.parametrize("spaced", [False, True])
def test_torchscript_that_writes_files(kind: type, spaced: bool, tmp_path: Path, created: Path) -> None:
    network = kind()
    network.__constants__ = ["target"]
    network.target = str(created)
    file = tmp_path / "m.pt"
    torch.jit.script(network).save(file)
    if spaced:
        rewritten(file, r".py", lambda code: code.replace(b"torch.", b"torch  . "))
    with pytest.raises(ModelError, match=r"names torch.(save|from_file), which is more(.|\n)*refused"):
        load_backbone(None, file)
    assert not created.exists()
    torch.jit.load(file)(torch.zeros(2, 3, 8, 8))
    assert created.exists(), "the archive itself works: the refusal is what stopped it"


@pytest.mark.parametrize(
    "disguise",
    [
        lambda code: code.replace(b"torch.save(", b'getattr(torch, "save")('),
        lambda code: code.replace(b"torch.save(", b"ops.aten.save("),
        lambda code: code.replace(b"torch.save(", b"torch. # (\n save("),
        # A comment that begins a text, or a text that begins a comment, hides nothing from a parser.
        lambda code: code.replace(b"  _0 = torch.save(", b'  # "\n  _0 = torch.save(') + b'# "\n',
        lambda code: code.replace(b"torch.save(", b'torch.save ("#" + '),
        lambda code: (
            code.replace(b"  _0 = torch.save(", b'  _9 = """ " """\n  _0 = torch.save(') + b'# """ "\n'
        ),
        lambda code: code.replace(b"  _0 = torch.save(", b"  _9 = torch\n  _0 = _9.save("),
        # An attribute or a variable that is called ops changes nothing of what the name means elsewhere.
        lambda code: code.replace(b"torch.save(", b"ops.aten.save(").replace(
            b"  def ", b"  ops : __torch__.Ops\n  def other(self) -> int:\n    ops = self.ops\n  def "
        ),
        lambda code: code.replace(b"  _0 = torch.save(", b"  ops : __torch__.Ops = ops\n  _0 = _9("),
        lambda code: code.replace(b"torch.save(", b'getattr(ops, "aten").save('),
    ],
    ids=[
        *("getattr", "ops", "comment", "quoted comment", "text", "long text", "alias"),
        *("ops of another function", "ops declared", "getattr of ops"),
    ],
)
def test_torchscript_in_disguise(disguise: Callable[[bytes], bytes], tmp_path: Path, created: Path) -> None:
    network = Saving()
    network.__constants__ = ["target"]
    network.target = str(created)
    file = tmp_path / "m.pt"
    torch.jit.script(network).save(file)
    before = file.read_bytes()
    rewritten(file, r".py", disguise)
    assert file.read_bytes() != before
    with pytest.raises(ModelError, match=r"more than a network needs to compute: refused"):
        load_backbone(None, file)
    assert not created.exists()


class Printing(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("error: forged")
        return self.fc(x.mean((2, 3)))


def test_torchscript_that_prints(tmp_path: Path) -> None:
    """It would print into a table that is written to standard output."""
    torch.jit.script(Printing()).save(tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"prints, where a table may be written to"):
        load_backbone(None, tmp_path / "m.pt")


def test_an_exported_network_with_a_structure_for_output(tmp_path: Path) -> None:
    class Structured(Net):
        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            return {"logits": self.fc(x.mean((2, 3))), "more": [x.sum(), (x.mean(),)]}

    program = torch.export.export(Structured().eval(), (torch.zeros(2, 3, 8, 8),))
    torch.export.save(program, tmp_path / "m.pt2")
    refuse_exported(content_of(tmp_path / "m.pt2"), tmp_path / "m.pt2")


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mnasnet0_5"])
def test_networks_of_torchvision_are_no_more_than_that(name: str, tmp_path: Path) -> None:
    """Their layers have numbers for names, which TorchScript asks for by getattr."""
    network = getattr(torchvision.models, name)(weights=None).eval()
    example = torch.zeros(1, 3, 64, 64)
    for made in (torch.jit.script(network), torch.jit.trace(network, example)):
        made.save(tmp_path / "m.pt")
        refuse_torchscript(content_of(tmp_path / "m.pt"), tmp_path / "m.pt")
    torch.export.save(torch.export.export(network, (example,)), tmp_path / "m.pt2")
    refuse_exported(content_of(tmp_path / "m.pt2"), tmp_path / "m.pt2")


class Named(nn.Module):
    """Has layers whose names begin like those of torch, or are."""

    def __init__(self) -> None:
        super().__init__()
        self.torch_backbone = nn.Conv2d(3, 4, 3)
        self.torchvision_model = nn.Conv2d(4, 4, 3)
        self.opset = nn.Conv2d(4, 4, 1)
        self.ops = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.opset(self.torchvision_model(self.torch_backbone(x)))
        for op in self.ops:
            x = x + op(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("traced", [False, True])
def test_layers_may_be_called_like_parts_of_torch(traced: bool, tmp_path: Path) -> None:
    network, example = Named().eval(), torch.zeros(2, 3, 8, 8)
    made = torch.jit.trace(network, example) if traced else torch.jit.script(network)
    made.save(tmp_path / "m.pt")
    assert load_backbone(None, tmp_path / "m.pt").n_features == 4


def exported(file: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            Net().eval(),
            (torch.zeros(2, 3, 8, 8),),
            dynamic_shapes=(dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),),
        )
        torch.export.save(program, file, **options)
    return file


def rewritten(file: Path, member: str, change: Callable[[bytes], bytes], more: str | None = None) -> None:
    """Change the members whose names end so, and add one."""
    stream = io.BytesIO()
    changed = 0
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(member):
                content = change(content)
                changed += 1
            new.writestr(entry.filename, content)
        if more is not None:
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{more}", b"\x7fELF")
    assert changed
    file.write_bytes(stream.getvalue())


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return edit


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def test_an_honest_one_is_read(tmp_path: Path) -> None:
    assert load_backbone(None, exported(tmp_path / "m.pt2")).n_features == 3


def test_exported_with_a_pickle_for_its_example(tmp_path: Path, exploit: Any, created: Path) -> None:
    file = exported(tmp_path / "m.pt2")
    rewritten(file, "sample_inputs/model.pt", lambda content: saved(((exploit,), {})))
    with pytest.raises(ModelError, match=r"refers to the code posix.mkdir(.|\n)*refused"):
        load_backbone(None, file)
    assert not created.exists()
    with contextlib.suppress(TypeError):  # torch's own logging fails under pytest
        torch.export.load(file)
    assert created.exists(), "the archive itself works: the refusal is what stopped it"


@pytest.mark.parametrize("pickled", [saved, pickle.dumps])
def test_exported_with_a_pickle_for_a_weight(
    pickled: Callable[[object], bytes], tmp_path: Path, exploit: Any, created: Path
) -> None:
    file = exported(tmp_path / "m.pt2")

    def use_pickle(config: dict[str, Any]) -> None:
        for one in config["config"].values():
            one["use_pickle"] = True

    rewritten(file, "model_weights_config.json", edited(use_pickle))
    rewritten(file, "weight_0", lambda content: pickled(exploit))
    with pytest.raises(ModelError, match=r"refused|cannot read"):
        load_backbone(None, file)
    assert not created.exists()


def test_exported_with_a_pickled_constant(tmp_path: Path, exploit: Any, created: Path) -> None:
    file = exported(tmp_path / "m.pt2")

    def add(config: dict[str, Any]) -> None:
        meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        config["config"]["evil"] = meta

    rewritten(file, "model_constants_config.json", edited(add))
    with zipfile.ZipFile(file, "a") as archive:
        top = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{top}/data/constants/opaque_obj_0", pickle.dumps(exploit))
    with pytest.raises(ModelError):
        load_backbone(None, file)
    assert not created.exists()


def each(found: Any, key: str, value: Any) -> None:
    """Set every entry of a key."""
    if isinstance(found, dict):
        for name, one in found.items():
            if name == key:
                found[name] = value
            else:
                each(one, key, value)
    elif isinstance(found, list):
        for one in found:
            each(one, key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "torch.os.mkdir"),
        ("target", "torch.serialization.os.system"),
        ("target", "torch.ops.aten.from_file.default"),
        ("target", "_operator.call"),
        ("expr_str", "__import__('os').mkdir('TARGET')"),
        ("expr_str", "Symbol.__class__"),
        ("expr_str", "open(1)"),
        ("guards_code", ["__import__('os').mkdir('TARGET')"]),
        ("guards_code", ['1 == 1, "" + __import__("os").mkdir("TARGET") + ""']),
        ("name", "x=__import__('os').mkdir('TARGET')"),
        ("forward_arg_names", ["x", "y=__import__('os').mkdir('TARGET')"]),
        ("out_spec", '[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'),
        ("in_spec", '[1, {"type": "antigravity.x", "context": null, "children_spec": []}]'),
    ],
)
def test_exported_with_code_for_a_name(key: str, value: Any, tmp_path: Path, created: Path) -> None:
    file = exported(tmp_path / "m.pt2")
    evil = json.loads(json.dumps(value).replace("TARGET", str(created)))
    rewritten(file, "models/model.json", edited(lambda document: each(document, key, evil)))
    with pytest.raises(ModelError, match=f"has the {key} (.|\n)*refused"):
        load_backbone(None, file)
    assert not created.exists()


def test_files_of_the_user_in_an_archive_are_left_alone(tmp_path: Path) -> None:
    """They are not read as anything but text, and whatever may stand in them."""
    files = {"labels.json": json.dumps({"target": "a cat", "name": "a b"}), "broken.json": "{"}
    assert load_backbone(None, exported(tmp_path / "m.pt2", extra_files=files)).n_features == 3


@pytest.mark.parametrize(
    "place", ["extra/models/model.json", "m/models/model.data", "m/models/extra/model.json"]
)
def test_a_program_in_another_place_is_looked_into(place: str, tmp_path: Path) -> None:
    """The name of the outermost folder is free, and so is the suffix of a program."""
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr(place, json.dumps({"target": "torch.os.mkdir"}))
    with pytest.raises(ModelError, match=r"has the target 'torch\.os\.mkdir'"):
        refuse_exported(content_of(tmp_path / "m.pt2"), tmp_path / "m.pt2")


@pytest.mark.parametrize("second", ["m/models/model.json", "m/MODELS/model.json"])
def test_two_programs_of_one_name_are_refused(second: str, tmp_path: Path) -> None:
    """Which of them torch takes is for its own reader to say; case does not count there."""
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("m/archive_format", "pt2")
        for name in ("m/models/model.json", second):
            archive.writestr(name, json.dumps({"target": "torch.ops.aten.mean.dim"}))
    with pytest.raises(ModelError, match=r"has a member 'm/(models|MODELS)/model.json' a second time"):
        load_backbone(None, tmp_path / "m.pt2")


def content_of(file: Path) -> io.BytesIO:
    with file.open("rb") as stream:
        return copied(stream, file)


def renamed(file: Path, old: str, new: str) -> None:
    """Rename members of an archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(stream, "w") as after:
        for entry in before.infolist():
            after.writestr(entry.filename.replace(old, new), before.read(entry))
    file.write_bytes(stream.getvalue())


@pytest.mark.parametrize(
    ("old", "new"), [("/code/", "/CODE/"), ("/code/", "/Code/"), (".py", ".PY"), ("__torch__", "__TORCH__")]
)
def test_code_under_a_name_in_other_letters(old: str, new: str, tmp_path: Path, created: Path) -> None:
    """torch finds it all the same."""
    network = Saving()
    network.__constants__ = ["target"]
    network.target = str(created)
    file = tmp_path / "m.pt"
    torch.jit.script(network).save(file)
    renamed(file, old, new)
    with pytest.raises(ModelError, match=r"names torch.save, which is more(.|\n)*refused"):
        load_backbone(None, file)
    assert not created.exists()
    torch.jit.load(file)(torch.zeros(2, 3, 8, 8))
    assert created.exists(), "the archive itself works: the refusal is what stopped it"


def two_faced(seen_by_torch: bytes, seen_by_python: bytes) -> bytes:
    """An archive with two directories.

    Python takes the ZIP64 record right before the locator, torch the one that the locator points to.
    """

    def record(directory: int, size: int, count: int) -> bytes:
        return struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, directory)

    def parts(archive: bytes) -> tuple[bytes, bytes, int]:
        end = archive.rindex(b"PK\5\6")
        count, size, start = struct.unpack("<HLL", archive[end + 10 : end + 20])
        return archive[:start], archive[start : start + size], count

    def moved(directory: bytes, by: int) -> bytes:
        entries, position = bytearray(directory), 0
        while position < len(entries):
            name, extra, comment = struct.unpack_from("<3H", entries, position + 28)
            [offset] = struct.unpack_from("<L", entries, position + 42)
            struct.pack_into("<L", entries, position + 42, offset + by)
            position += 46 + name + extra + comment
        return bytes(entries)

    members, directory, count = parts(seen_by_torch)
    first = members + directory + record(len(members), len(directory), count)
    where = len(members) + len(directory)
    members, directory, count = parts(seen_by_python)
    start = len(first) + len(members)
    second = members + moved(directory, len(first)) + record(start, len(directory), count)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, where, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return first + second + locator + end


def test_torch_is_given_the_program_that_was_looked_at(tmp_path: Path, exploit: Any, created: Path) -> None:
    """And not another one, of another directory in the same file."""
    harmless = content_of(exported(tmp_path / "harmless.pt2")).getvalue()
    evil = exported(tmp_path / "evil.pt2")
    rewritten(evil, "sample_inputs/model.pt", lambda content: saved(((exploit,), {})))
    file = tmp_path / "m.pt2"
    file.write_bytes(two_faced(content_of(evil).getvalue(), harmless))
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
    assert load_backbone(None, file).n_features == 3
    assert not created.exists()
    with contextlib.suppress(TypeError):  # torch's own logging fails under pytest
        torch.export.load(file)
    assert created.exists(), "torch itself reads the other one"


def test_torch_is_given_the_weights_that_were_looked_at(tmp_path: Path) -> None:
    both = []
    for value in (1.0, 2.0):
        torch.save({"x": torch.full((3,), value)}, tmp_path / "w.pt")
        both.append(content_of(tmp_path / "w.pt").getvalue())
    file = tmp_path / "two.pt"
    file.write_bytes(two_faced(*both))
    assert torch.load(file)["x"].tolist() == [1.0] * 3, "torch itself reads the other ones"
    assert read_checkpoint(file).weights["x"].tolist() == [2.0] * 3


def test_a_file_that_is_swapped_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import divacli.backbones.checkpoint as module

    file = tmp_path / "w.pt"
    torch.save({"x": torch.ones(3)}, file)

    def looked_at(stream: Any, path: Path) -> list[str]:
        names = member_names(stream, path)
        (tmp_path / "other.pt").write_bytes(saved({"x": torch.zeros(3)}))
        (tmp_path / "other.pt").replace(file)
        return names

    monkeypatch.setattr(module, "member_names", looked_at)
    assert read_checkpoint(file).weights["x"].tolist() == [1.0] * 3


def test_an_archive_for_the_weights_of_a_network_is_never_run(tmp_path: Path, created: Path) -> None:
    """Under any name that hides from Python what it is."""
    network = Saving()
    network.__constants__ = ["target"]
    network.target = str(created)
    torch.jit.script(network).save(tmp_path / "m.pt")
    torch.save(network.state_dict(), tmp_path / "w.pt")
    (tmp_path / "two.pt").write_bytes(
        two_faced(*(content_of(tmp_path / name).getvalue() for name in ("m.pt", "w.pt")))
    )
    assert set(read_checkpoint(tmp_path / "two.pt").weights) == {"fc.weight", "fc.bias"}
    renamed(tmp_path / "m.pt", "constants.pkl", "CONSTANTS.PKL")
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "m.pt")
    assert not created.exists()


def test_an_expression_of_a_size_is_run_by_torch(tmp_path: Path, created: Path) -> None:
    file = exported(tmp_path / "m.pt2")
    evil = f"__import__('os').mkdir('{created}')"
    rewritten(file, "models/model.json", edited(lambda document: each(document, "expr_str", evil)))
    with contextlib.suppress(Exception):
        torch.export.load(file)
    assert created.exists(), "this is why expressions are looked at"


def test_exported_with_compiled_code(tmp_path: Path) -> None:
    file = exported(tmp_path / "m.pt2")
    rewritten(file, "models/model.json", bytes, more="data/aotinductor/model/evil.so")
    with pytest.raises(ModelError, match=r"evil.so is compiled code"):
        load_backbone(None, file)


def test_it_is_said_before_that_an_archive_is_code(
    tmp_path: Path, photos: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import divacli.backbones.backbone as module

    file = tmp_path / "m.pt"
    torch.jit.script(Net()).save(file)

    def stop(path: Path) -> None:
        raise ModelError("not loaded")

    monkeypatch.setattr(module, "read_torchscript", stop)
    said = run("score", photos, "--checkpoint", file).stderr
    assert said.index("m.pt is a whole network, which is run as code") < said.index("not loaded")


@pytest.mark.parametrize("kind", ["inside itself", "expanded", "sparse", "meta"])
def test_a_state_dict_that_is_no_plain_one(kind: str, tmp_path: Path) -> None:
    content: dict[str, Any] = {"x": torch.ones(1)}
    if kind == "inside itself":
        content["state_dict"] = content
    else:
        content["x"] = {
            "expanded": lambda: torch.ones(1).expand(1 << 40),
            "sparse": lambda: torch.eye(3).to_sparse(),
            "meta": lambda: torch.empty(1 << 50, device="meta"),
        }[kind]()
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError):
        load_backbone("resnet18", tmp_path / "w.pt")
