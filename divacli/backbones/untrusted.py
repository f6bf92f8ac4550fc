"""What the pickles in an archive of a whole network may name: tensors, and no code.

An archive is a program, like a factory file, and its user is told so before it is loaded. The weights in it
need no code of their own. What torch reads them with would run any that a pickle names.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from divacli.errors import ModelError

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
            raise _refused(path, named[0]) from error
        raise
    finally:
        _READING.reset(token)
    if named:  # the refusal was caught on the way
        raise _refused(path, named[0])


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


def _refused(path: Path, name: str) -> ModelError:
    return ModelError(
        f"{path} refers to the code {name}, which no weights need: refused",
        expected="pickles of tensors alone",
        hint="export the network again yourself, or give its weights with --model NAME --checkpoint",
    )
