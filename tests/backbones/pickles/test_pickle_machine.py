"""The stack machine: it gives what Python's own reader gives, for all that is data, in all protocols."""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import random
from typing import Any

import pytest

from divacli.backbones.pickles.inert import PLAIN, Inert, Name, Unreadable
from divacli.backbones.pickles.machine import read_pickle


def outside(saved: Any) -> Any:
    return ("outside", saved)


def read(content: bytes) -> Any:
    return read_pickle(io.BytesIO(content), PLAIN, outside)


def scalar(rng: random.Random) -> Any:
    kinds = [
        lambda: rng.choice([None, True, False, 0.0, -0.0, 1e300, float("inf"), "", b""]),
        lambda: rng.randrange(-300, 300),
        lambda: rng.randrange(-(1 << 70), 1 << 70),
        lambda: rng.getrandbits(3000),
        lambda: rng.random(),
        lambda: complex(rng.random(), 1),
        lambda: "".join(
            chr(rng.choice([10, 34, 39, 65, 92, 233, 0x20AC, 0x1F600, 0xD800])) for _ in range(5)
        ),
        lambda: rng.randbytes(rng.choice([1, 9, 300])),
        lambda: "x" * rng.choice([1, 300, 70_000]),
    ]
    return rng.choice(kinds)()


def value(rng: random.Random, depth: int) -> Any:
    if not depth:
        return scalar(rng)
    parts = [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    keys = [scalar(rng) for _ in parts]
    pairs = list(zip(keys, parts, strict=True))
    return rng.choice(
        [
            lambda: parts,
            lambda: tuple(parts),
            lambda: dict(pairs),
            lambda: {(key, 1): part for key, part in pairs},
            lambda: set(keys),
            lambda: frozenset(keys),
            lambda: bytearray(rng.randbytes(5)),
            lambda: collections.OrderedDict(pairs),
            lambda: collections.defaultdict(list, pairs),
            lambda: collections.deque(parts, 9),
            lambda: [parts, parts],
        ]
    )()


def as_plain(one: Any) -> Any:
    """What the machine has in place of subclasses of containers."""
    if isinstance(one, collections.deque | list):
        return [as_plain(part) for part in one]
    if isinstance(one, dict):
        return {key: as_plain(part) for key, part in one.items()}
    return tuple(as_plain(part) for part in one) if isinstance(one, tuple) else one


@pytest.mark.parametrize("protocol", range(6))
def test_data_is_read_as_python_reads_it(protocol: int) -> None:
    rng = random.Random(protocol)
    for _ in range(60):
        content = pickle.dumps(value(rng, 3), protocol)
        expected = as_plain(pickle.loads(content))
        got = read(content)
        assert type(got) is type(expected)
        assert got == expected


OPCODES = {
    "FLOAT": b"F1.5\n.",
    "INT": b"I-12\n.",
    "true": b"I01\n.",
    "LONG": b"L12345678901234567890L\n.",
    "LONG4": b"\x8b\x02\0\0\0\x01\xff.",
    "STRING": b"S'a\\n\"\\''\n.",
    "BINSTRING": b"T\x02\0\0\0\xe9b.",
    "SHORT_BINSTRING": b"U\x02\xe9b.",
    "UNICODE": b"Va\\u20ac\n.",
    "BINUNICODE8": b"\x8d\x01" + bytes(7) + b"a.",
    "BINBYTES8": b"\x8e\x01" + bytes(7) + b"a.",
    "BINBYTES": b"B\x01\0\0\0a.",
    "BYTEARRAY8": b"\x96\x01" + bytes(7) + b"a.",
    "DUP": b"K\x012\x86.",
    "POP": b"K\x01K\x020.",
    "POP at a mark": b"K\x01(0.",
    "POP_MARK": b"K\x01(K\x02K\x031.",
    "LIST": b"(K\x01K\x02l.",
    "DICT": b"(K\x01K\x02d.",
    "SETITEM": b"}K\x01K\x02s.",
    "PUT and GET": b"]p7\n0g7\n.",
    "LONG_BINPUT and LONG_BINGET": b"]r\xff\xff\0\0000j\xff\xff\0\0.",
    "FRAME": b"\x95\x02" + bytes(7) + b"K\x01.",
    "FROZENSET": b"(K\x01K\x02\x91.",
    "a list in itself": b"]q\x00h\x00a0]h\x00a0K\x01.",
}


@pytest.mark.parametrize("name", OPCODES)
def test_opcodes_that_are_rare_are_read_as_python_reads_them(name: str) -> None:
    got, expected = read(OPCODES[name]), pickle.loads(OPCODES[name], encoding="latin1")
    assert type(got) is type(expected)
    assert got == expected


CALLS = {
    "GLOBAL": (b"cos\nsystem\n.", None),
    "STACK_GLOBAL": (b"\x8c\x02os\x8c\x06system\x93.", None),
    "EXT1": (b"\x82\x05.", None),
    "EXT2": (b"\x83\x05\x00.", None),
    "EXT4": (b"\x84\x05\0\0\0.", None),
    "REDUCE": (b"cos\nsystem\nK\x01\x85R.", (1,)),
    "REDUCE of what a call gave": (b"cos\nsystem\nK\x01\x85RK\x02\x85R.", (2,)),
    "INST": (b"(K\x01ios\nsystem\n.", (1,)),
    "OBJ": (b"(cos\nsystem\nK\x01o.", (1,)),
    "NEWOBJ": (b"cos\nsystem\nK\x01\x85\x81.", (1,)),
    "NEWOBJ_EX": (b"cos\nsystem\nK\x01\x85}K\x05K\x06s\x92.", (1,)),
    "__newobj__": (b"ccopyreg\n__newobj__\ncos\nsystem\nK\x01\x86R.", (1,)),
    "_reconstructor": (b"ccopy_reg\n_reconstructor\ncos\nsystem\nc__builtin__\ndict\nK\x01\x87R.", (1,)),
}


@pytest.mark.parametrize("name", CALLS)
def test_names_and_calls_stay_what_they_are(name: str) -> None:
    content, arguments = CALLS[name]
    got = read(content)
    if arguments is None:
        assert isinstance(got, Name)
        assert got.text in ("os.system", "copyreg.extension 5")
    else:
        assert (got.name.text, got.arguments) == ("os.system", arguments)
        assert got.keywords == ({5: 6} if name == "NEWOBJ_EX" else {})
        assert got.describe() == "an object of os.system"


def test_an_object_keeps_what_the_file_says_of_it() -> None:
    start = b"ca\nB\n)\x81"
    got = read(start + b"}K\x01K\x02sbK\x03K\x04s(K\x05K\x06u(K\x07K\x08e(K\x09\x90K\x0aa.")
    assert isinstance(got, Inert)
    assert (got.state, got.entries, got.elements) == ({1: 2}, {3: 4, 5: 6}, [7, 8, 9, 10])


def test_ids_of_things_outside_go_to_the_caller() -> None:
    assert read(b"Pkey\n.") == ("outside", "key")
    assert read(b"K\x01Q.") == ("outside", 1)


def test_state_changes_nothing_that_is_no_object() -> None:
    assert read(b"}}\x8c\x05itemsK\x01sb.") == {}
    assert read(b"cos\nsystem\n}\x8c\x08__call__K\x01sb.").text == "os.system"


def test_what_takes_the_place_of_an_object_is_recalled_by_the_memo() -> None:
    content = b"ca\nB\n)\x81q\x00K\x01bh\x00\x86."
    both = read_pickle(io.BytesIO(content), PLAIN, outside, lambda inert: ("done", inert.state))
    assert both == (("done", 1), ("done", 1))


BROKEN = {
    "empty": (b"", "too early"),
    "no STOP": (b"K\x01", "too early"),
    "STOP on nothing": (b".", "there is none"),
    "unknown opcode": (b"\xff.", "unknown opcode ff"),
    "no stack": (b"a.", "there is none"),
    "no mark": (b"t.", "there is none"),
    "no pair": (b"}(K\x01u.", "items"),
    "no dictionary": (b"]K\x01K\x01s.", "items"),
    "no list": (b"}K\x01a.", "appends"),
    "no set": (b"}(K\x01\x90.", "appends"),
    "no arguments": (b"cos\nsystem\nK\x01R.", "arguments"),
    "no memo": (b"h\x01.", "recalls"),
    "memo below zero": (b"]p-1\n.", "below zero"),
    "memo without number": (b"gx\n.", "malformed"),
    "name without text": (b"K\x01K\x02\x93.", "no text"),
    "name cut off": (b"cos\nsys", "too early"),
    "text without quotes": (b"Sa\n.", "malformed"),
    "text that is no UTF-8": (b"\x8c\x01\xff.", "malformed"),
    "huge bytes": (b"\x8e" + b"\xff" * 8 + b"a.", "too early"),
    "bytes beyond the end": (b"B\xff\xff\0\0a.", "too early"),
    "huge frame": (b"\x95" + b"\xff" * 8 + b"N.", "too early"),
    "huge number": (b"\x8b\x01\x08\0\0" + bytes(2049) + b".", "malformed"),
    "huge number in a line": (b"I" + b"9" * 5000 + b"\n.", "malformed"),
    "hexadecimal number in a line": (b"I0x" + b"f" * 5000 + b"\n.", "malformed"),
    "protocol 6": (b"\x80\x06N.", "protocol"),
    "buffer elsewhere": (b"\x97.", "elsewhere"),
    "read-only nothing": (b"\x98.", "there is none"),
    "a text copied a million times": (
        b"X\x00\x00\x10\x00"
        + b"a" * (1 << 20)
        + b"q\x000"
        + b"c_codecs\nencode\nh\x00U\x06latin1\x86R" * 300
        + b".",
        "far more than it holds",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_has_a_reason(name: str) -> None:
    content, reason = BROKEN[name]
    with pytest.raises(Unreadable, match=reason):
        read(content)


def test_all_opcodes_are_met() -> None:
    met = {opcode.name for content in _all() for opcode, _, _ in pickletools.genops(content)}
    assert {one.name for one in pickletools.opcodes} - met == set()


def _all() -> list[bytes]:
    given = [
        *OPCODES.values(),
        *(one for one, _ in CALLS.values()),
        b"K\x01Q.",
        b"Pkey\n.",
        b"\x97.",
        b"\x98.",
    ]
    given.append(b"ca\nB\n)\x81}K\x01K\x02sb.")
    data = [
        None,
        True,
        False,
        300,
        70_000,
        1 << 40,
        1.5,
        "a",
        b"a",
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
    ]
    content = [*data, {1: 2, 3: 4}, [1], [1, 2], {1, 2}, "x" * 300, data[4:6]]
    return given + [pickle.dumps(content, protocol) for protocol in range(6)]


def test_depth_and_doubling_take_no_time() -> None:
    n = 100_000
    assert isinstance(read(b"N" + b"\x85" * n + b"."), tuple)
    doubled = b"Kx" + b"q\x00h\x00\x86" * 60
    key = read(b"}" + doubled + b"K\x01s.")
    assert [repr(one) for one in key] == ["<an object of builtins.tuple>"]
    assert len(read(b"(" + doubled + b"h\x00\x91.")) == 2


def test_objects_in_objects_take_no_stack() -> None:
    n = 50_000
    got = read(b"ca\nB\nq\x000N" + b"q\x01h\x00h\x01\x85R" * n + b".")
    for _ in range(n - 1):
        got = got.arguments[0]
    assert isinstance(got, Inert)


def test_no_tensor_is_needed_and_no_module_imported() -> None:
    """The machine and what stands beneath it import nothing that could be called by accident."""
    import ast
    from pathlib import Path

    import divacli.backbones.pickles as package

    folder = Path(package.__file__).parent
    for file in ("inert.py", "literals.py", "machine.py"):
        tree = ast.parse((folder / file).read_text())
        imported = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert imported <= {
            *("__future__", "codecs", "collections.abc", "io", "pickle", "struct", "types", "typing"),
            *("divacli.backbones.pickles.inert", "divacli.backbones.pickles.literals"),
        }
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not called & {"loads", "load", "Unpickler", "find_class", "import_module", "modules"}
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not names & {"getattr", "setattr", "eval", "exec", "__import__", "globals", "vars", "open"}
