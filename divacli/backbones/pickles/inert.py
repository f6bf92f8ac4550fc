"""What stands for the names and objects of a pickle, and the few calls whose meaning is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

_KEY_LENGTH = 64
_HASHED = frozenset({str, bytes, int, float, complex, bool, type(None)})
_MOVED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # names of Python 2

Meaning = Callable[[tuple[Any, ...]], Any]
"""Makes a value of a call's arguments, or returns NotImplemented where they mean nothing."""


class Unreadable(Exception):
    """A pickle is damaged, or claims what it does not hold. The message is a short reason."""


class Name:
    """Name of a class, a function or anything else in a module. It is text, and is never looked up.

    Attributes:
        text: "module.Class".
    """

    __slots__ = ("text",)

    def __init__(self, module: str, attribute: str) -> None:
        self.text = f"{_MOVED.get(module, module)}.{attribute}"

    def __repr__(self) -> str:
        """Return the name itself."""
        return self.text


class Inert:
    """Stand-in for an object that the file describes. It does nothing.

    Attributes:
        name: Class or function that the file would have called.
        arguments: Arguments of that call.
        keywords: Named arguments of that call.
        state: What the object would have got as its attributes; None if nothing.
        entries: What was set by key, as in a subclass of `dict`.
        elements: What was appended or added, as in a subclass of `list`.
        became: The value that took its place once its state was known; itself if none did.
    """

    __slots__ = ("arguments", "became", "elements", "entries", "keywords", "name", "state")

    def __init__(
        self, name: Name, arguments: tuple[Any, ...], keywords: dict[Any, Any] | None = None
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.keywords = keywords or {}
        self.state: Any = None
        self.entries: dict[Any, Any] = {}
        self.elements: list[Any] = []
        self.became: Any = self

    def describe(self) -> str:
        """Say what the object would have been."""
        first = self.arguments[0] if self.arguments else None
        # A private function that makes objects gets their class first.
        of_class = self.name.text.rpartition(".")[2].startswith("_") and type(first) is Name
        return f"an object of {first if of_class else self.name}"

    def __repr__(self) -> str:
        """Return its description, which is short whatever it holds."""
        return f"<{self.describe()}>"


def as_key(value: Any) -> Any:
    """Return a key for a dictionary or an element of a set, such that hashing it takes little time.

    Args:
        value: Anything. Plain values and short tuples of these are kept.

    Returns:
        The value, or an `Inert` around it.
    """
    kind = type(value)
    if kind in _HASHED or kind is Inert or kind is Name:
        return value
    if kind is tuple and len(value) <= _KEY_LENGTH and all(type(one) in _HASHED for one in value):
        return value
    return Inert(Name("builtins", kind.__name__), (value,))


def _dictionary(arguments: tuple[Any, ...]) -> Any:
    """A dictionary of nothing, of another one or of pairs."""
    match arguments:
        case ():
            return {}
        case (dict() as given,):
            return dict(given)
        case (list() as pairs,) if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            return {as_key(key): value for key, value in pairs}
    return NotImplemented


def _gathered(made: Callable[[Iterable[Any]], Any]) -> Meaning:
    """A container of the elements of a list."""

    def meaning(arguments: tuple[Any, ...]) -> Any:
        match arguments:
            case ():
                return made(())
            case (list() | tuple() | set() | frozenset() as elements, *_):
                return made(elements)
        return NotImplemented

    return meaning


def _encoded(arguments: tuple[Any, ...]) -> Any:
    """Bytes, which protocols 0 to 2 write as text."""
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            return text.encode("latin-1")
        case ():
            return b""
    return NotImplemented


def _byte_array(arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (bytes() as content,):
            return bytearray(content)
        case _:
            content = _encoded(arguments)
            return content if content is NotImplemented else bytearray(content)


def _complex(arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (float() as real, float() as imaginary):
            return complex(real, imaginary)
    return NotImplemented


PLAIN: Mapping[str, Meaning] = {
    "_codecs.encode": _encoded,
    "builtins.bytearray": _byte_array,
    "builtins.bytes": _encoded,
    "builtins.complex": _complex,
    "builtins.dict": _dictionary,
    "builtins.frozenset": _gathered(lambda elements: frozenset(map(as_key, elements))),
    "builtins.list": _gathered(list),
    "builtins.set": _gathered(lambda elements: set(map(as_key, elements))),
    "collections.Counter": _dictionary,
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": lambda arguments: _dictionary(arguments[1:]),
    "collections.deque": _gathered(list),
}
"""Calls that make plain values, as Python itself writes them."""
