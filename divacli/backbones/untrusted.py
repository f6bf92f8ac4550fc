"""What a file with a whole network would do beyond computing, found before torch reads it.

torch reads such files as programs: TorchScript has operators that write files, and what `torch.export` wrote
is read with pickle, by `eval` and by names of attributes. These networks need little of that, and known forms
of the rest are refused here. No promise hangs on it: an archive is code, like a factory, and its user is told
first.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from divacli.errors import ModelError

# Operators whose names speak of files, and everything outside of the families that compute.
_FAMILIES = "aten|prim|prims|torchvision|quantized|quantized_decomposed|_quantized|mkldnn|higher_order"
_OUTSIDE = re.compile(r"save|load|file|pickle|write|read|open|system|exec|eval|import", re.IGNORECASE)
_NAMED = re.compile(r"(?<![\w.])(torch|ops)(?!\w)((?:\.\w+)*)", re.ASCII)
# An attribute `ops` in the head of a class. In functions it is `self.ops`, and the variables that torch makes
# of it are `ops0`, `ops1` and so on: it never names one `ops`.
_DECLARED = re.compile(r"^  ops(?= : [\w.\[\], ]+$)", re.ASCII | re.MULTILINE)
# A comment or a text, whichever begins first: each may hold the beginning of the other.
_UNSPOKEN = re.compile(r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")
# torch takes everything in `models` for a program. What a user put into `extra` it gives back as text.
_DOCUMENTS = re.compile(r"^(?![^/]+/extra/).*\.json$|^[^/]+/models/.", re.IGNORECASE | re.DOTALL)
_COMPUTES = re.compile(
    rf"torch\.ops\.(?:{_FAMILIES})\.\w+(?:\.\w+)?|torch\.sym_\w+|math\.\w+|"
    r"_operator\.(?:getitem|(?:floor|true)?div|floordiv|truediv|add|sub|mul|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|"
    r"ge|and_|or_|xor|not_|lshift|rshift)"
)

_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.keyword),
)
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_FUNCTIONS = frozenset({"max", "min", "abs", "int", "float", "floor", "ceiling"})
_METHODS = frozenset({"size", "stride", "storage_offset"})


def refuse_torchscript(content: io.BytesIO, path: Path) -> None:
    """Refuse a TorchScript archive whose code calls what reads or writes files.

    Args:
        content: The archive that torch will read, as of `divacli.backbones.rezip.copied`.
        path: What messages call it.

    Raises:
        ModelError: It does.
    """
    # torch finds its code by names in which case does not count.
    for name, source in _members(content, re.compile(r"(?:^|/)code/.*\.py$", re.IGNORECASE)):
        text = source.decode(errors="replace")
        if re.search("\"{3}|'{3}", text):
            raise _refused(path, f"{name} holds a text that torch does not write")
        # Names may be written with spaces, line ends and comments between their parts.
        code = re.sub(r"\s*\.\s*", ".", _UNSPOKEN.sub(" ", text).replace("\\\n", " "))
        if re.search(r"(?<![\w.])print\s*\(", code):
            raise _refused(path, f"{name} prints, where a table may be written to")
        for found in _NAMED.finditer(_DECLARED.sub("", code)):
            # Wherever it stands: what has a name may be called by another one later. And a part of a name,
            # such as the module torch alone, may become any other (getattr).
            parts = found[2].split(".")[1:]
            family, operator = (
                ("aten", parts) if found[1] == "torch" else (parts[0] if parts else "", parts[1:])
            )
            if not operator or _OUTSIDE.search(operator[-1]) or not re.fullmatch(_FAMILIES, family):
                raise _refused(path, f"{name} names {found[0]}")


def refuse_exported(content: io.BytesIO, path: Path) -> None:
    """Refuse an archive of `torch.export` that holds compiled code, or more than operators and arithmetic.

    Args:
        content: The archive that torch will read, as of `divacli.backbones.rezip.copied`.
        path: What messages call it.

    Raises:
        ModelError: It does.
    """
    for name, _ in _members(content, re.compile("aotinductor", re.IGNORECASE)):
        raise _refused(path, f"{name} is compiled code")
    for name, document in _members(content, _DOCUMENTS):
        try:
            pending = [json.loads(document)]
        except (ValueError, RecursionError) as error:
            raise _refused(path, f"{name} is not valid JSON") from error
        while pending:
            one = pending.pop()
            if isinstance(one, list):
                pending += one
            if isinstance(one, dict):
                for key, value in one.items():
                    texts = value if isinstance(value, list) else [value]
                    for text in texts:
                        if isinstance(text, str) and not _sound(key, text):
                            raise _refused(path, f"{name} has the {key} {text[:80]!r}")
                    pending.append(value)


def _sound(key: str, text: str) -> bool:
    """Whether what torch makes code of is as `torch.export.save` writes it."""
    if key in ("target", "as_operator"):
        return _COMPUTES.fullmatch(text) is not None and not _OUTSIDE.search(text)
    if key in ("expr_str", "guards_code"):
        return _arithmetic(text)
    if key in ("name", "forward_arg_names"):
        return re.fullmatch(r"\w*", text, re.ASCII) is not None
    return key not in ("in_spec", "out_spec") or _structure(text)


def _structure(text: str) -> bool:
    """Whether a text describes tuples, lists and dictionaries, and nothing else.

    torch imports what else it names, and runs it.
    """
    try:
        pending = [json.loads(text)[1]]
        while pending:
            one = pending.pop()
            keys = json.loads(one["context"] or "null") or []
            if one["type"] not in _CONTAINERS or not isinstance(keys, list):
                return False
            pending += one["children_spec"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return True


def _arithmetic(text: str) -> bool:
    """Whether an expression computes with sizes, and does nothing else."""
    if not re.fullmatch(r"[\w\s+\-*/%()\[\].,<>=!&|~'^]*", text, re.ASCII) or "\n" in text:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(map(_is_arithmetic, ast.walk(tree)))


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or node.value.isidentifier()
    if isinstance(node, ast.Name):
        return not node.id.startswith("__")
    if isinstance(node, ast.Attribute):
        of = node.value.id if isinstance(node.value, ast.Name) else ""
        named = re.fullmatch(r"math\.[a-z]\w*|torch\.sym_\w+", f"{of}.{node.attr}")
        return node.attr in _METHODS or named is not None
    if isinstance(node, ast.Call):
        # Of sympy's names those of functions of numbers begin with a capital; Python's own never do.
        function = node.func
        return isinstance(function, ast.Attribute) or (
            isinstance(function, ast.Name) and (function.id in _FUNCTIONS or function.id[0].isupper())
        )
    return isinstance(node, _ARITHMETIC)


# What torch 2.9 writes each weight with: it makes tensors of numbers and of such tensors, and nothing else.
_TENSORS = frozenset(
    {
        "collections.OrderedDict",
        "torch.Tensor",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        "torch.nn.parameter.Parameter",
    }
)

_READING: ContextVar[list[str] | None] = ContextVar("reading", default=None)


@contextmanager
def without_pickled_code(path: Path) -> Iterator[None]:
    """Within it nothing that is unpickled may name a function or a class, but for those of tensors.

    Python tells of each such name before it is looked up. What torch reads with `weights_only=True` does not
    go that way, and is all that an archive of tensors needs.

    Raises:
        ModelError: Something did.
    """
    _watch()
    named: list[str] = []
    token = _READING.set(named)
    try:
        yield
    except Exception as error:
        if named:
            raise _refused(path, f"it refers to the code {named[0]}") from error
        raise
    finally:
        _READING.reset(token)
    if named:  # the refusal was caught on the way
        raise _refused(path, f"it refers to the code {named[0]}")


_WATCHING: list[bool] = []


def _watch() -> None:
    """Be told, for good, of what is unpickled: such a hook cannot be taken away."""
    if not _WATCHING:
        _WATCHING.append(True)
        sys.addaudithook(_refuse_names)


def _refuse_names(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class" and (named := _READING.get()) is not None:
        name = ".".join(map(str, arguments))
        if name not in _TENSORS:
            named.append(name)
            raise pickle.UnpicklingError(f"{name} is refused")


def _members(content: io.BytesIO, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(content) as archive:
        for entry in archive.infolist():
            if wanted.search(entry.filename):
                yield entry.filename, archive.read(entry)
    content.seek(0)


def _refused(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path}: {what}, which is more than a network needs to compute: refused",
        expected="operators on tensors, and their weights",
        hint="export the network again yourself, or give its weights with --model NAME --checkpoint",
    )
