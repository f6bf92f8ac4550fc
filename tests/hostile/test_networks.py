"""Whole networks in a file: code, which is said before it is run; pickles in them name none."""

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

import pandas as pd
import pytest
import torch
import torchvision
from torch import nn

from divacli.backbones.checkpoint import read_checkpoint
from divacli.backbones.load import load_backbone
from divacli.backbones.rezip import copied, member_names
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


class Printing(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("error: forged")
        return self.fc(x.mean((2, 3)))


def saving(file: Path, target: Path) -> Path:
    """TorchScript that writes a file when it runs."""
    network = Saving()
    network.__constants__ = ["target"]
    network.target = str(target)
    torch.jit.script(network).save(file)
    return file


def evaluating(file: Path, target: Path) -> Path:
    """An archive of torch.export that makes a folder when torch reads it."""
    exported(file)
    evil = f"__import__('os').mkdir('{target}')"
    rewritten(file, "models/model.json", edited(lambda document: each(document, "expr_str", evil)))
    return file


# An archive is code


@pytest.mark.parametrize("make", [saving, evaluating])
def test_it_is_said_before_an_archive_is_run(
    make: Callable[[Path, Path], Path],
    tmp_path: Path,
    photos: Path,
    created: Path,
    run: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import divacli.cli.console as module

    file, say = make(tmp_path / "m.pt", created), module.say
    said: dict[str, bool] = {}

    def saying(*lines: str, **options: Any) -> None:
        said.update(dict.fromkeys(lines, created.exists()))
        say(*lines, **options)

    monkeypatch.setattr(module, "say", saying)
    run("score", photos, "--checkpoint", file, "--workers", "0")
    told = f"note: {file} is a whole network, which is run as code: use only files you trust"
    assert said[told] is False, said
    assert created.exists(), "it was run, and did what it does"


@pytest.mark.parametrize("make", [saving, evaluating])
def test_a_table_cannot_name_an_archive(
    make: Callable[[Path, Path], Path],
    tmp_path: Path,
    photos: Path,
    created: Path,
    run: Callable,
) -> None:
    """Neither in a column that is called like an option, nor in the place of an image."""
    file = make(tmp_path / "m.pt", created)
    images = sorted(map(str, photos.rglob("*.png")))
    columns = {"checkpoint": str(file), "model": str(file), "config": str(file)}
    table = pd.DataFrame({"path": images, "label": [Path(image).parent.name for image in images], **columns})
    table.to_csv("named.csv", index=False)
    assert "no network was named" in run("score", "named.csv").stderr
    table.loc[len(table)] = [str(file), table["label"][0], *columns.values()]
    table.to_csv("placed.csv", index=False)
    weights = tmp_path / "w.pt"
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), weights)
    result = run("score", "placed.csv", "--model", "resnet18", "--checkpoint", weights, "--image-size", "32")
    assert result.exit_code == 0, result.stderr
    assert "m.pt" in Path("diva-out/failed.csv").read_text()
    assert not created.exists()


def test_what_an_archive_prints_is_no_part_of_a_table(tmp_path: Path, photos: Path, run: Callable) -> None:
    torch.jit.script(Printing()).save(tmp_path / "m.pt")
    result = run("score", photos, "--checkpoint", tmp_path / "m.pt", "--workers", "0", "--out", "-")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("rank,")
    assert "forged" not in result.stdout
    assert "error: forged" in result.stderr


# What stops an unpickler


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
    saving(tmp_path / "m.pt", created)
    torch.save(Saving().state_dict(), tmp_path / "w.pt")
    (tmp_path / "two.pt").write_bytes(
        two_faced(*(content_of(tmp_path / name).getvalue() for name in ("m.pt", "w.pt")))
    )
    assert set(read_checkpoint(tmp_path / "two.pt").weights) == {"fc.weight", "fc.bias"}
    renamed(tmp_path / "m.pt", "constants.pkl", "CONSTANTS.PKL")
    assert [entry.name for entry in read_checkpoint(tmp_path / "m.pt").entries] == ["fc"]
    assert not created.exists()


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
