"""Pickles that would run code, reach beyond the file or grow without end. Nothing of it happens.

Each stands beside real weights, in a zip archive or bare. An audit hook sees all that Python would do:
imports, files, processes, code. Where the hostile part is inert the weights are read. Where the file is
refused, it is read once that part is repaired.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from divacli.backbones.checkpoint import read_checkpoint
from divacli.errors import ModelError

SEEN: list[tuple[str, tuple[Any, ...]]] = []
WATCHING = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCHING and event != "builtins.id":  # of objects that were walked over
        SEEN.append((event, arguments))


@pytest.fixture(scope="module", autouse=True)
def hook(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An audit hook cannot be removed: this one does nothing unless it is asked to."""
    path = tmp_path_factory.mktemp("first") / "w.pt"
    torch.save({"x": torch.ones(1)}, path)
    read_checkpoint(path)  # what torch itself imports when it is first used
    b"w".decode("cp437")  # by which zipfile reads names
    sys.addaudithook(_watch)


def watched(path: Path) -> dict[str, torch.Tensor] | ModelError:
    """Read weights, and see that only this one file is opened, to be read, and no module is imported."""
    global WATCHING
    before, files = set(sys.modules), sorted(Path.cwd().iterdir())
    SEEN.clear()
    WATCHING = True
    try:
        found: dict[str, torch.Tensor] | ModelError = read_checkpoint(path).weights
    except ModelError as error:
        found = error
    finally:
        WATCHING = False
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    assert {event for event, _ in SEEN} == {"open"}, SEEN
    assert {(os.fspath(file), flags & writing) for _, (file, _, flags) in SEEN} == {(str(path), 0)}
    assert set(sys.modules) == before
    assert sorted(Path.cwd().iterdir()) == files
    return found


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# Opcodes of protocol 2 and later, put together by hand.


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def whole(number: int) -> bytes:
    return pickle.dumps(number, 2)[2:-1]


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + f"{module}\n{attribute}\n".encode()


def several(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def call(name: str, *values: bytes) -> bytes:
    return named(name) + several(*values) + b"R"


def pairs(*values: bytes) -> bytes:
    return b"}(" + b"".join(values) + b"u"


SHELL = text("mkdir created")
CODE = text("__import__('os').mkdir('created')")
MKDIR = named("os.mkdir")
CREATED = text("created")
BUILT = call("os.mkdir", CREATED)
NDARRAY = named("numpy.ndarray")


def nested(content: bytes) -> bytes:
    """A file of its own in a text of bytes."""
    return call("torch.storage._load_from_bytes", b"B" + struct.pack("<I", len(content)) + content)


def legacy(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def pointers() -> bytes:
    """An array of objects whose pointers are bytes of the file."""
    objects = named("numpy.dtype") + several(text("O"), b"\x89", b"\x88") + b"R"
    plain = named("numpy.dtype") + several(text("i8"), b"\x89", b"\x88") + b"R"
    fields = several(
        whole(3), text("<"), objects + whole(1) + b"\x86", b"N", b"N", whole(-1), whole(-1), whole(0)
    )
    return NDARRAY + several(b")", plain + fields + b"b", b"C\x08AAAAAAAA") + b"R"


INERT: dict[str, bytes] = {
    "os.system": call("os.system", SHELL),
    "posix.mkdir": call("posix.mkdir", CREATED),
    "exec": call("builtins.exec", CODE),
    "eval": call("builtins.eval", CODE),
    "eval of Python 2": call("__builtin__.eval", CODE),
    "compile": call("builtins.compile", CODE, text("x"), text("exec")),
    "__import__": call("builtins.__import__", text("antigravity")),
    "import_module": call("importlib.import_module", text("antigravity")),
    "a name in a module that was not there": named("antigravity.webbrowser"),
    "a name below a name": b"\x8c\x02os\x8c\x0cpath.os.nice\x93" + several(whole(0)) + b"R",
    "subprocess.Popen": call(
        "subprocess.Popen", SHELL, whole(-1), b"N", b"N", b"N", b"N", b"N", b"\x88", b"\x88"
    ),
    "subprocess.check_output": call("subprocess.check_output", b"](" + text("id") + b"e"),
    "webbrowser.open": call("webbrowser.open", text("file:///etc/passwd")),
    "pty.spawn": call("pty.spawn", text("/bin/sh")),
    "runpy.run_path": call("runpy.run_path", text("x.py")),
    "ctypes.CDLL": call("ctypes.CDLL", text("libc.so.6")),
    "timeit.timeit": call("timeit.timeit", CODE),
    "open": call("builtins.open", CREATED, text("w")),
    "io.FileIO": call("io.FileIO", CREATED, text("w")),
    "shutil.rmtree": call("shutil.rmtree", text(".")),
    "socket.create_connection": call("socket.create_connection", several(text("127.0.0.1"), whole(9))),
    "urllib.request.urlopen": call("urllib.request.urlopen", text("file:///etc/passwd")),
    "marshal.loads": call("types.FunctionType", call("marshal.loads", b"C\x04\xe3\0\0\0"), b"}"),
    "Path.touch by getattr": call("builtins.getattr", call("pathlib.Path", CREATED), text("touch")) + b")R",
    "attrgetter": call("operator.attrgetter", text("system"))
    + several(call("builtins.__import__", text("os")))
    + b"R",
    "partial": call("functools.partial", MKDIR, CREATED) + b")R",
    "map in a set": call("builtins.set", call("builtins.map", MKDIR, b"](" + CREATED + b"e")),
    "list of map": call("builtins.list", call("builtins.map", MKDIR, b"](" + CREATED + b"e")),
    "defaultdict of a function": named("collections.defaultdict") + several(MKDIR) + b"R(" + CREATED + b"Ku.",
    "encode with a codec": call("_codecs.encode", CODE, text("rot13")),
    "decode with a codec": call("_codecs.decode", b"C\x04x\x9c\x03\0", text("zip")),
    "INST": b"(" + CREATED + b"ios\nmkdir\n",
    "OBJ": b"(" + MKDIR + CREATED + b"o",
    "NEWOBJ": named("subprocess.Popen") + several(SHELL) + b"\x81",
    "NEWOBJ_EX": named("subprocess.Popen") + b")" + pairs(text("args"), SHELL) + b"\x92",
    "EXT1": b"\x82\xf0" + several(CREATED) + b"R",
    "EXT2": b"\x83\xf0\xf0" + several(CREATED) + b"R",
    "EXT4": b"\x84\xf0\xf0\xf0\x00" + several(CREATED) + b"R",
    "__newobj__": call("copyreg.__newobj__", named("subprocess.Popen"), SHELL),
    "__newobj_ex__": call("copyreg.__newobj_ex__", named("subprocess.Popen"), several(SHELL), b"}"),
    "_reconstructor": call(
        "copyreg._reconstructor", named("subprocess.Popen"), named("builtins.object"), b"N"
    ),
    "add_extension": call("copyreg.add_extension", text("os"), text("mkdir"), whole(99)),
    "BUILD of a method": named("a.B") + b")\x81" + pairs(text("__setstate__"), MKDIR) + b"b" + CREATED + b"b",
    "BUILD of a class": named("a.B")
    + b")\x81"
    + pairs(text("__class__"), MKDIR, text("__dict__"), MKDIR)
    + b"b",
    "BUILD of a function": MKDIR + pairs(text("__code__"), CODE) + b"b",
    "BUILD of a dictionary's class": named("collections.OrderedDict") + pairs(text("items"), MKDIR) + b"b",
    "BUILD of slots": named("a.B") + b")\x81" + b"N" + pairs(text("__reduce_ex__"), MKDIR) + b"\x86b",
    "items of os.environ": named("os.environ") + b")R(" + text("PATH") + text(".") + b"u",
    "appended to sys.path": named("sys.path") + b")R(" + text(".") + b"e",
    "a key that is called": pairs(BUILT, whole(1)),
    "a key with a hash of its own": pairs(
        named("a.B") + b")\x81" + pairs(text("__hash__"), MKDIR) + b"b", whole(1)
    ),
    "a set of calls": b"\x8f(" + BUILT + b"\x90",
    "a function in a memo": MKDIR + b"q\xf00h\xf0" + several(CREATED) + b"R",
    "a memo that is replaced": b"Kxq\xf00" + MKDIR + b"q\xf00h\xf0" + several(CREATED) + b"R",
    "a list in a list without end": b"]q\xf0h\xf0ah\xf0a",
    "a dictionary for its own state": b"}q\xf0h\xf0b",
    "an object for its own state": named("a.B") + b")\x81q\xf0h\xf0b",
    "an array of pointers": pointers(),
    "an array of an array of pointers": NDARRAY + several(b")", pointers(), b"C\x08AAAAAAAA") + b"R",
    "_reconstruct of another class": call(
        "numpy.core.multiarray._reconstruct", MKDIR, whole(0) + b"\x85", b"C\x01b"
    )
    + several(whole(1), b")", pointers(), b"\x89", b"C\x08AAAAAAAA")
    + b"b",
    "numpy.load": call("numpy.load", text("x.npy"), b"N", b"\x88"),
    "numpy.memmap": call("numpy.memmap", CREATED, text("u1"), text("w+"), whole(0), whole(9) + b"\x85"),
    "torch.load": call("torch.load", text("x.pt")),
    "torch.jit.load": call("torch.jit.load", text("x.pt")),
    "torch.hub.load": call("torch.hub.load", text("a/b"), text("c")),
    "torch.classes.load_library": call("torch._classes.load_library", text("x.so")),
    "_import_dotted_name": call("torch._utils._import_dotted_name", text("antigravity")),
    "from_file": call("torch.UntypedStorage.from_file", CREATED, b"\x88", whole(9)),
    "storage of shared memory": call(
        "torch.multiprocessing.reductions.rebuild_storage_filename", b"N", b"N", b"N", b"N"
    ),
    "rebuilding by a function": call(
        "torch._tensor._rebuild_from_type_v2", MKDIR, b"N", several(CREATED), b"N"
    ),
    "rebuilding by its own": call(
        "torch._tensor._rebuild_from_type_v2", named("torch._tensor._rebuild_from_type_v2"), b"N", b")", b"N"
    ),
    "rebuilding of what is no tensor": call("torch._utils._rebuild_parameter", MKDIR, b"\x88", b"}"),
    "a parameter with hooks": call("torch._utils._rebuild_parameter_with_state", MKDIR, b"\x88", MKDIR, b"}"),
    "a tensor without a storage": call(
        "torch._utils._rebuild_tensor_v2", BUILT, b"K\0", b")", b")", b"\x89", b"}"
    ),
    "a wrapper": call(
        "torch._utils._rebuild_wrapper_subclass", NDARRAY, named("torch.float32"), b")", b")", b"K\0"
    ),
    "a module with a state of its own": named("torch.nn.modules.module.Module")
    + b")\x81"
    + pairs(text("_parameters"), BUILT, text("__setstate__"), MKDIR, text("_modules"), b"K\x01")
    + b"b",
    "a graph of torch.fx": call(
        "torch.fx.graph_module.reduce_graph_module", pairs(text("_code"), CODE), CODE
    ),
    "a pickle in a pickle": call("pickle.loads", b"C\x20" + pickle.dumps(0, 2).ljust(32, b"\0")),
    "a file in a file": nested(legacy([0])),
    "doubled sixty times": b"Kx" + b"q\xf00h\xf0h\xf0\x86" * 60,
    "a key doubled sixty times": b"}Kx" + b"q\xf00h\xf0h\xf0\x86" * 60 + b"Kxs",
    "30,000 tuples deep": b"N" + b"\x85" * 30_000,
    "30,000 marks": b"(" * 30_000 + b"1" * 29_999 + b"t",
    "a name with a NUL": b"cos\0\nmkdir\n" + several(CREATED) + b"R",
    "a name of one million letters": named("os." + "m" * 1_000_000),
}
INERT["defaultdict of a function"] = call("collections.defaultdict", MKDIR) + b"(" + CREATED + b"Kxu"


def beside(weights: bytes, hostile: bytes) -> bytes:
    """A pickle of weights, and something hostile behind them."""
    return b"\x80\x02}" + text("state_dict") + weights[2:-1] + b"s" + text("x") + hostile + b"s."


@pytest.fixture(scope="module")
def honest() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def in_zip(pickled: bytes, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("w/data.pkl", pickled)
        for name, content in members.items():
            archive.writestr(f"w/{name.replace('__', '/')}", content)
    return stream.getvalue()


@pytest.fixture(scope="module")
def files(honest: dict[str, torch.Tensor]) -> dict[str, Callable[[bytes], bytes]]:
    """The forms of a file, each with a place for a hostile part."""
    stream = io.BytesIO()
    torch.save(honest, stream)
    with zipfile.ZipFile(stream) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    pickled, plain = parts.pop("data.pkl"), pickle.dumps(honest, 2)
    old = legacy(honest)
    pickles = io.BytesIO(old)
    for _ in range(3):
        pickle.load(pickles)
    start = pickles.tell()
    end = old.index(b".", old.index(b"a.bias", start) + 8)
    while not old[end + 1 :].startswith(b"\x80\x02]q"):
        end = old.index(b".", end + 1)
    return {
        "zip": lambda hostile: in_zip(
            beside(pickled, hostile), **{name.replace("/", "__"): part for name, part in parts.items()}
        ),
        "legacy": lambda hostile: old[:start] + beside(old[start : end + 1], hostile) + old[end + 1 :],
        "bare": lambda hostile: beside(plain, hostile),
    }


@pytest.fixture(scope="module", autouse=True)
def extensions() -> Iterator[None]:
    codes = (0xF0, 0xF0F0, 0xF0F0F0)
    for number, code in enumerate(codes):
        copyreg.add_extension("os", ["mkdir", "makedirs", "removedirs"][number], code)
    yield
    for number, code in enumerate(codes):
        copyreg.remove_extension("os", ["mkdir", "makedirs", "removedirs"][number], code)


def test_there_are_forty() -> None:
    assert len(INERT) >= 40


@pytest.mark.parametrize("name", INERT)
def test_what_a_file_names_stays_inert_and_the_weights_are_read(
    name: str, files: dict[str, Callable[[bytes], bytes]], honest: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    for form, made in files.items():
        path = tmp_path / f"{form}.pt"
        path.write_bytes(made(INERT[name]))
        got = watched(path)
        assert not isinstance(got, ModelError), (form, got)
        assert all(torch.equal(got[key], honest[key]) for key in honest), form


@pytest.mark.parametrize("name", INERT)
def test_where_all_weights_are_replaced_by_it_one_message_says_so(name: str, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"\x80\x02" + INERT[name] + b".")
    got = watched(tmp_path / "w.pt")
    assert isinstance(got, ModelError)
    assert len(str(got)) < 5000


@pytest.mark.parametrize("name", ["posix.mkdir", "exec", "INST", "OBJ", "partial", "EXT1", "map in a set"])
def test_the_attacks_are_real(name: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context():
        pickle.loads(b"\x80\x02" + INERT[name] + b".")
    assert (tmp_path / "created").is_dir()


def persistent(kind: bytes, key: bytes, count: bytes) -> bytes:
    return several(text("storage"), kind, key, text("cpu"), count) + b"Q"


def tensor(
    kind: bytes = named("torch.FloatStorage"),
    key: bytes = text("0"),
    count: bytes = whole(6),
    offset: bytes = whole(0),
    size: bytes = several(whole(2), whole(3)),
    stride: bytes = several(whole(3), whole(1)),
    storage: bytes = b"",
    more: bytes = b"",
    **members: bytes,
) -> bytes:
    """An archive of one tensor, which lies about one thing."""
    storage = storage or persistent(kind, key, count)
    rebuilt = call("torch._utils._rebuild_tensor_v2", storage, offset, size, stride, b"\x89", b"}")
    content = b"\x80\x02" + pairs(text("x"), rebuilt) + more + b"."
    return in_zip(content, **{"data__0": struct.pack("<6f", *range(6)), **members})


def array(
    shape: bytes = several(whole(2)), content: bytes = b"C\x08" + bytes(8), kind: bytes = text("f4")
) -> bytes:
    """A bare pickle of one array."""
    start = call("numpy.core.multiarray._reconstruct", NDARRAY, whole(0) + b"\x85", b"C\x01b")
    dtype = call("numpy.dtype", kind, b"\x89", b"\x88")
    return (
        b"\x80\x02"
        + pairs(text("x"), start + several(whole(1), shape, dtype, b"\x89", content) + b"b")
        + b"."
    )


LEGACY = legacy({"x": torch.arange(6.0)})
KEYS = LEGACY.rindex(b"\x80\x02]q")
COUNT = LEGACY.index(struct.pack("<Q", 6), KEYS)
HUGE = whole(1 << 62)

REFUSED: dict[str, tuple[bytes, bytes]] = {
    "a text for a persistent id": (tensor(storage=b"P../../etc/passwd\n"), tensor()),
    "a number for a persistent id": (tensor(storage=b"K\x07Q"), tensor()),
    "nothing for a persistent id": (tensor(storage=b")Q"), tensor()),
    "a module for a persistent id": (
        tensor(storage=several(text("module"), MKDIR, CREATED, CODE) + b"Q"),
        tensor(),
    ),
    "a storage outside": (tensor(key=text("../../../etc/passwd")), tensor()),
    "a storage at the root": (tensor(key=text("/etc/passwd")), tensor()),
    "the pickle for a storage": (tensor(key=text("../data.pkl")), tensor()),
    "a storage without a name": (tensor(key=whole(0)), tensor()),
    "a storage that is not there": (tensor(key=text("1")), tensor()),
    "a function for a kind": (tensor(kind=MKDIR), tensor()),
    "a text for a kind": (tensor(kind=text("torch.FloatStorage")), tensor()),
    "an unknown kind": (tensor(kind=named("torch.EvilStorage")), tensor()),
    "a kind of other numbers": (tensor(kind=named("torch.DoubleStorage")), tensor()),
    "more numbers than there are": (tensor(count=whole(7)), tensor()),
    "fewer numbers than there are": (tensor(count=whole(5)), tensor()),
    "numbers below zero": (tensor(count=whole(-6)), tensor()),
    "more numbers than fit a machine": (tensor(count=HUGE), tensor()),
    "a size beyond": (tensor(size=several(whole(3), whole(3))), tensor()),
    "a size of overflow": (tensor(size=several(HUGE, whole(4)), stride=several(b"K\0", b"K\0")), tensor()),
    "a size below zero": (tensor(size=several(whole(-1), whole(3))), tensor()),
    "a size of no numbers that overflows": (tensor(size=several(whole(0), HUGE, HUGE)), tensor()),
    "a size that is a text": (tensor(size=several(text("2"), whole(3))), tensor()),
    "a size that is a float": (tensor(size=several(b"G" + bytes(8), whole(3))), tensor()),
    "a step beyond": (tensor(stride=several(whole(4), whole(1))), tensor()),
    "a step below zero": (tensor(stride=several(whole(-3), whole(1))), tensor()),
    "a huge step": (tensor(stride=several(HUGE, whole(1))), tensor()),
    "too few steps": (tensor(stride=several(whole(1))), tensor()),
    "an offset beyond": (tensor(offset=whole(1)), tensor()),
    "an offset below zero": (tensor(offset=whole(-1)), tensor()),
    "a huge offset": (tensor(offset=whole(1 << 200)), tensor()),
    "an offset that is a text": (tensor(offset=text("0")), tensor()),
    "a size of True": (tensor(size=several(b"\x88", b"\x88"), stride=several(b"\x88", b"\x88")), tensor()),
    "65 dimensions": (tensor(size=several(*[whole(1)] * 65), stride=several(*[whole(1)] * 65)), tensor()),
    "a second kind for one storage": (
        tensor(more=b"0}" + text("x") + persistent(named("torch.IntStorage"), text("0"), whole(6)) + b"s"),
        tensor(),
    ),
    "a tensor of a huge expanded size": (
        tensor(size=several(whole(1 << 40), whole(3)), stride=several(whole(0), whole(1))),
        tensor(),
    ),
    "another order of bytes": (tensor(byteorder=b"middle"), tensor(byteorder=b"little")),
    "a member twice": (tensor(DATA__0=bytes(24)), tensor()),
    "a member with an odd name": (tensor(**{"data__a\\b": b""}), tensor()),
    "two pickles": (
        in_zip(b"\x80\x02}.", **{"data__0": b""}).replace(b"w/data.pkl", b"w/data/pkl"),
        tensor(),
    ),
    "an array of fewer bytes": (array(content=b"C\x07" + bytes(7)), array()),
    "an array of a huge shape": (array(shape=several(HUGE, whole(4))), array()),
    "an array of a shape below zero": (array(shape=several(whole(-2))), array()),
    "an array of text for a shape": (array(shape=text("2")), array()),
    "an array of objects": (array(kind=text("O")), array()),
    "an array of another type than its bytes": (array(kind=text("f8")), array()),
    "legacy: more numbers than the pickle says": (
        LEGACY[:COUNT] + struct.pack("<Q", 7) + LEGACY[COUNT + 8 :] + bytes(4),
        LEGACY,
    ),
    "legacy: huge numbers": (LEGACY[:COUNT] + b"\xff" * 8 + LEGACY[COUNT + 8 :], LEGACY),
    "legacy: cut short": (LEGACY[:-1], LEGACY),
    "legacy: no keys": (LEGACY[:KEYS] + b"\x80\x02]." + LEGACY[COUNT:], LEGACY),
    "legacy: keys of others": (LEGACY[:KEYS] + b"\x80\x02](K\x01e." + LEGACY[COUNT:], LEGACY),
    "legacy: keys that are no list": (LEGACY[:KEYS] + b"\x80\x02" + BUILT + b"." + LEGACY[COUNT:], LEGACY),
    "legacy: another version": (LEGACY.replace(b"M\xe9\x03.", b"M\xe8\x03.", 1), LEGACY),
    "nothing behind the weights": (pickle.dumps({"x": np.ones(2)})[:-1], pickle.dumps({"x": np.ones(2)})),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_claims_more_than_it_holds_is_refused_and_read_once_repaired(name: str, tmp_path: Path) -> None:
    hostile, repaired = REFUSED[name]
    assert hostile != repaired
    (tmp_path / "w.pt").write_bytes(hostile)
    got = watched(tmp_path / "w.pt")
    assert isinstance(got, ModelError)
    assert len(str(got).splitlines()) == 3
    (tmp_path / "w.pt").write_bytes(repaired)
    got = watched(tmp_path / "w.pt")
    assert isinstance(got, dict)
    assert got["x"].numel() in (2, 6)
    assert torch.isfinite(got["x"]).all()


def test_a_file_in_a_file_in_a_file_is_not_opened(tmp_path: Path) -> None:
    inner = pickle.dumps({"x": torch.ones(2)}, 2)
    (tmp_path / "w.pt").write_bytes(inner)
    assert isinstance(watched(tmp_path / "w.pt"), dict), "one file in a file is how pickle writes tensors"
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    second = (
        start + b"\x80\x02" + nested(legacy(torch.ones(2).untyped_storage())) + b"." + pickle.dumps([], 2)
    )
    (tmp_path / "w.pt").write_bytes(b"\x80\x02" + pairs(text("x"), nested(second)) + b".")
    got = watched(tmp_path / "w.pt")
    assert "an object of torch.storage._load_from_bytes" not in str(got)
    assert isinstance(got, ModelError)


def test_a_file_that_is_named_a_million_times_is_refused(tmp_path: Path) -> None:
    content = legacy(torch.zeros(1 << 18).untyped_storage())
    many = (
        b"]("
        + nested(content)[: -len(b"tR")]
        + b"q\xf0tR"
        + (named("torch.storage._load_from_bytes") + b"h\xf0\x85R") * 1000
    )
    (tmp_path / "w.pt").write_bytes(b"\x80\x02" + many + b"e.")
    assert "far more than it holds" in str(watched(tmp_path / "w.pt"))
