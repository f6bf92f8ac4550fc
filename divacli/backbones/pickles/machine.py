"""Read a pickle without running a line of the code that it names: a small stack machine of our own.

A pickle is a program of about 70 opcodes. Python's reader runs it: it imports names and calls them. This one
looks up no name and calls nothing that the file chooses. A name stays a `Name`, which is text. What would be
an object of a class, or the result of a call, becomes an `Inert`, which keeps what the file says of it. A
fixed table gives meaning to a handful of names; its functions are ours and never lie on the stack.
"""

from __future__ import annotations

import io
import pickle  # its names of opcodes, nothing else
import struct
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, BinaryIO

from divacli.backbones.pickles.inert import Inert, Meaning, Name, Unreadable, as_key
from divacli.backbones.pickles.literals import (
    latin1,
    quoted,
    raw_unicode,
    utf8,
    whole,
    whole_in_line,
    whole_or_bool,
)

_CHUNK = 1 << 16
_COPIED = 1 << 28


def read_pickle(
    stream: BinaryIO,
    meanings: Mapping[str, Meaning],
    persistent: Callable[[Any], Any],
    finished: Callable[[Inert], Any] = lambda inert: inert,
) -> Any:
    """Read one pickle of any protocol.

    Args:
        stream: A file that can be sought; it is left behind the pickle.
        meanings: What calls of a name mean, by "module.name". See `PLAIN`.
        persistent: Gives the value for a persistent id.
        finished: Gets each `Inert` when its state is known; returns it, or the value to take its place.

    Returns:
        Plain values and containers, `Name`, `Inert`, and whatever the three functions return.

    Raises:
        Unreadable: The pickle is cut short, malformed, or one of the functions raises it.
    """
    machine = _Machine(stream, meanings, persistent, finished)
    try:
        return machine.run()
    except IndexError as error:
        raise Unreadable("it takes a value where there is none") from error
    except (ValueError, OverflowError) as error:
        raise Unreadable("a number or a text in it is malformed") from error


class _Machine:
    """One run over one pickle.

    `stack` holds the values since the last mark, `below` the stacks beneath earlier marks.
    """

    def __init__(
        self,
        stream: BinaryIO,
        meanings: Mapping[str, Meaning],
        persistent: Callable[[Any], Any],
        finished: Callable[[Inert], Any],
    ) -> None:
        start = stream.tell()
        self.end = stream.seek(0, io.SEEK_END)
        stream.seek(start)
        self.stream = stream
        self.meanings = meanings
        self.persistent = persistent
        self.finished = finished
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 2 * (self.end - start) + _COPIED

    def run(self) -> Any:
        """Follow the opcodes until STOP."""
        read, steps = self.stream.read, _STEPS
        while (code := read(1)) != pickle.STOP:
            step = steps.get(code)
            if step is None:
                raise Unreadable(f"it has the unknown opcode {code.hex()}" if code else "it ends too early")
            step(self)
        return self.stack.pop()

    def take(self, length: int) -> bytes:
        """Read so many bytes, and not one less."""
        if length > _CHUNK and length > self.end - self.stream.tell():
            raise Unreadable("it ends too early")
        content = self.stream.read(length)
        if len(content) < length:
            raise Unreadable("it ends too early")
        return content

    def line(self) -> bytes:
        """Read up to the end of a line, and leave that out."""
        content = self.stream.readline()
        if content[-1:] != b"\n":
            raise Unreadable("it ends too early")
        return content[:-1]

    def since_mark(self) -> list[Any]:
        """Take the values since the last mark."""
        values = self.stack
        self.stack = self.below.pop()
        return values

    def call(self, called: Any, arguments: Any, keywords: Any = None) -> Any:
        """Give the value that stands for a call, or for a new object."""
        if type(arguments) is not tuple or type(keywords) not in (dict, NoneType):
            raise Unreadable("it calls something with arguments that are none")
        name = _name_of(called)
        if name.text == "copyreg._reconstructor" and len(arguments) == 3:
            name, arguments = _name_of(arguments[0]), arguments[2:]
        elif name.text == "copyreg.__newobj__" and arguments:
            name, arguments = _name_of(arguments[0]), arguments[1:]
        meaning = None if keywords else self.meanings.get(name.text)
        if meaning is not None:
            self.charge(arguments)
            value = meaning(arguments)
            if value is not NotImplemented:
                return value
        return Inert(name, arguments, keywords)

    def charge(self, arguments: tuple[Any, ...]) -> None:
        """Count what is copied: one text of the file may be named a million times."""
        self.copied -= sum(len(one) for one in arguments if isinstance(one, _SIZED))
        if self.copied < 0:
            raise Unreadable("it unpacks to far more than it holds")

    def remember(self, place: int) -> None:
        """Put the topmost value into the memo."""
        if place < 0:
            raise Unreadable("it has a memo below zero")
        self.memo[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        """Push a value of the memo."""
        if place not in self.memo:
            raise Unreadable("it recalls a value that it never had")
        value = self.memo[place]
        self.stack.append(value.became if type(value) is Inert else value)

    def build(self) -> None:
        """Give the topmost object its state. Nothing else than an `Inert` has one."""
        state = self.stack.pop()
        top = self.stack[-1]
        if type(top) is Inert:
            top.state = state
            top.became = self.finished(top)
            if top.became is not top:
                self.charge(state if type(state) is tuple else (state,))
                self.stack[-1] = top.became

    def set_items(self, items: list[Any]) -> None:
        """Set keys and values, one after the other, in the topmost object."""
        top = self.stack[-1]
        target = top.entries if type(top) is Inert else top
        if type(target) is not dict or len(items) % 2:
            raise Unreadable("it sets items of what has none")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[as_key(key)] = value

    def append(self, values: list[Any]) -> None:
        """Append values to the topmost object."""
        top = self.stack[-1]
        target = top.elements if type(top) is Inert else top
        if type(target) is not list:
            raise Unreadable("it appends to what is no list")
        target.extend(values)

    def add(self, values: list[Any]) -> None:
        """Add values to the topmost set."""
        top = self.stack[-1]
        if type(top) is set:
            top.update(map(as_key, values))
        else:
            self.append(values)


_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)


def _name_of(called: Any) -> Name:
    """Name of what is called, which may be the result of another call."""
    if type(called) is Name:
        return called
    return called.name if type(called) is Inert else Name("builtins", type(called).__name__)


# Opcodes. Each is a function of the machine.

_Step = Callable[[_Machine], object]


def _constant(value: object) -> _Step:
    return lambda machine: machine.stack.append(value)


def _number(format: str) -> _Step:
    packed = struct.Struct(format)
    return lambda machine: machine.stack.append(packed.unpack(machine.take(packed.size))[0])


def _unsigned(machine: _Machine, width: int) -> int:
    return int.from_bytes(machine.take(width), "little")


def _sized(width: int, made: Callable[[bytes], Any]) -> _Step:
    """Content behind its length."""
    return lambda machine: machine.stack.append(made(machine.take(_unsigned(machine, width))))


def _in_line(made: Callable[[bytes], Any]) -> _Step:
    """Content up to the end of the line."""
    return lambda machine: machine.stack.append(made(machine.line()))


def _name_in_lines(machine: _Machine) -> Name:
    module = machine.line().decode()
    return Name(module, machine.line().decode())


def _name_of_texts(machine: _Machine) -> None:
    attribute, module = machine.stack.pop(), machine.stack.pop()
    if type(module) is not str or type(attribute) is not str:
        raise Unreadable("it has a name that is no text")
    machine.stack.append(Name(module, attribute))


def _extension(width: int) -> _Step:
    """A name by its number in Python's registry of extensions, which is not looked at."""
    return lambda machine: machine.stack.append(Name("copyreg", f"extension {_unsigned(machine, width)}"))


def _protocol(machine: _Machine) -> None:
    if _unsigned(machine, 1) > pickle.HIGHEST_PROTOCOL:
        raise Unreadable("it is of a protocol that Python does not have")


def _frame(machine: _Machine) -> None:
    if _unsigned(machine, 8) > machine.end - machine.stream.tell():
        raise Unreadable("it ends too early")


def _buffer(machine: _Machine) -> None:
    raise Unreadable("a part of it was stored elsewhere")


def _mark(machine: _Machine) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.since_mark()


def _tuple(length: int) -> _Step:
    def step(machine: _Machine) -> None:
        values = [machine.stack.pop() for _ in range(length)]
        machine.stack.append(tuple(reversed(values)))

    return step


def _gathered(made: Callable[[list[Any]], Any]) -> _Step:
    """A value of all values since the mark."""

    def step(machine: _Machine) -> None:
        values = machine.since_mark()
        machine.stack.append(made(values))

    return step


def _dictionary(machine: _Machine) -> None:
    items = machine.since_mark()
    machine.stack.append({})
    machine.set_items(items)


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items([key, value])


def _reduce(machine: _Machine) -> None:
    arguments, called = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(called, arguments))


def _new_object_with_names(machine: _Machine) -> None:
    keywords, arguments, called = (machine.stack.pop() for _ in range(3))
    machine.stack.append(machine.call(called, arguments, keywords))


def _object(machine: _Machine) -> None:
    called, *arguments = machine.since_mark() or [None]
    machine.stack.append(machine.call(called, tuple(arguments)))


def _instance(machine: _Machine) -> None:
    name, arguments = _name_in_lines(machine), machine.since_mark()
    machine.stack.append(machine.call(name, tuple(arguments)))


_STEPS: dict[bytes, _Step] = {
    pickle.MARK: _mark,
    pickle.POP: _pop,
    pickle.POP_MARK: _Machine.since_mark,
    pickle.DUP: lambda machine: machine.stack.append(machine.stack[-1]),
    pickle.FLOAT: _in_line(float),
    pickle.INT: _in_line(whole_or_bool),
    pickle.BININT: _number("<i"),
    pickle.BININT1: _number("<B"),
    pickle.BININT2: _number("<H"),
    pickle.LONG: _in_line(whole_in_line),
    pickle.LONG1: _sized(1, whole),
    pickle.LONG4: _sized(4, whole),
    pickle.NONE: _constant(None),
    pickle.NEWTRUE: _constant(True),
    pickle.NEWFALSE: _constant(False),
    pickle.BINFLOAT: _number(">d"),
    pickle.PERSID: lambda machine: machine.stack.append(machine.persistent(machine.line().decode("ascii"))),
    pickle.BINPERSID: lambda machine: machine.stack.append(machine.persistent(machine.stack.pop())),
    pickle.STRING: _in_line(quoted),
    pickle.BINSTRING: _sized(4, latin1),
    pickle.SHORT_BINSTRING: _sized(1, latin1),
    pickle.UNICODE: _in_line(raw_unicode),
    pickle.BINUNICODE: _sized(4, utf8),
    pickle.SHORT_BINUNICODE: _sized(1, utf8),
    pickle.BINUNICODE8: _sized(8, utf8),
    pickle.BINBYTES: _sized(4, bytes),
    pickle.SHORT_BINBYTES: _sized(1, bytes),
    pickle.BINBYTES8: _sized(8, bytes),
    pickle.BYTEARRAY8: _sized(8, bytearray),
    pickle.NEXT_BUFFER: _buffer,
    pickle.READONLY_BUFFER: lambda machine: machine.stack[-1],
    pickle.EMPTY_LIST: lambda machine: machine.stack.append([]),
    pickle.EMPTY_DICT: lambda machine: machine.stack.append({}),
    pickle.EMPTY_SET: lambda machine: machine.stack.append(set()),
    pickle.EMPTY_TUPLE: _constant(()),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.TUPLE: _gathered(tuple),
    pickle.LIST: _gathered(lambda values: values),
    pickle.FROZENSET: _gathered(lambda values: frozenset(map(as_key, values))),
    pickle.DICT: _dictionary,
    pickle.APPEND: lambda machine: machine.append([machine.stack.pop()]),
    pickle.APPENDS: lambda machine: machine.append(machine.since_mark()),
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: lambda machine: machine.set_items(machine.since_mark()),
    pickle.ADDITEMS: lambda machine: machine.add(machine.since_mark()),
    pickle.GET: lambda machine: machine.recall(int(machine.line())),
    pickle.BINGET: lambda machine: machine.recall(_unsigned(machine, 1)),
    pickle.LONG_BINGET: lambda machine: machine.recall(_unsigned(machine, 4)),
    pickle.PUT: lambda machine: machine.remember(int(machine.line())),
    pickle.BINPUT: lambda machine: machine.remember(_unsigned(machine, 1)),
    pickle.LONG_BINPUT: lambda machine: machine.remember(_unsigned(machine, 4)),
    pickle.MEMOIZE: lambda machine: machine.remember(len(machine.memo)),
    pickle.GLOBAL: lambda machine: machine.stack.append(_name_in_lines(machine)),
    pickle.STACK_GLOBAL: _name_of_texts,
    pickle.EXT1: _extension(1),
    pickle.EXT2: _extension(2),
    pickle.EXT4: _extension(4),
    pickle.REDUCE: _reduce,
    pickle.NEWOBJ: _reduce,
    pickle.NEWOBJ_EX: _new_object_with_names,
    pickle.OBJ: _object,
    pickle.INST: _instance,
    pickle.BUILD: _Machine.build,
    pickle.PROTO: _protocol,
    pickle.FRAME: _frame,
}
