"""Find the weights in what a checkpoint file holds, wherever they lie in it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from divacli.backbones.pickles.inert import Inert
from divacli.backbones.pickles.tensors import module_tensors

USUAL = ("state_dict", "model_state_dict", "model")
"""Entries that most training scripts write the weights into."""

WRAPPERS = ("module", "model", "_orig_mod")
"""Parts of names that wrappers of a network put before its own."""

_WRAPPED = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
"""Parts of names that wrappers of a network's own modules put between them."""

_AVERAGED = re.compile(r"(^|[._])(ema|swa|shadow|averaged?)(?=$|[._\d])", re.IGNORECASE)
_NO_WEIGHTS = re.compile(r"(^|\.)(\w*optim\w*|lr_\w+|scheduler\w*|scaler|loops|callbacks)(\.|$)")
_NETWORK_NAMES = ("arch", "architecture", "model_name", "model", "backbone", "net", "network")
_SETTINGS = ("", "args", "hyper_parameters", "hparams", "config", "cfg", "opt", "train_args")
_MOST = 100_000
"""Containers of a file that are looked at."""

_DEEPEST = 16
"""Containers within each other that are looked into."""

_PLAIN = (str, int, float, bool)
_SHORT, _TEXT = 50, 200
"""Entries of a list, and letters of a text, that are still settings."""

_LONGEST = 1_000
"""Longer lists hold numbers of a training, and no weights."""


@dataclass(frozen=True)
class Entry:
    """A set of named tensors in a file.

    Attributes:
        name: The keys that lead to it, with dots between them; "" for the file itself.
        weights: Tensor by name, as the file has them.
        numbered: Whether the file has numbers in place of the names of the outermost modules.
    """

    name: str
    weights: dict[str, Tensor]
    numbered: bool = False


def entries_of(content: Any) -> list[Entry]:
    """Return all sets of named tensors, in the order of the file; those of optimizers are left out.

    Args:
        content: As `read_torch_file` returns it: containers, tensors, and stand-ins of objects.
    """
    found: list[Entry] = []
    for name, value in _walk(content):
        if _NO_WEIGHTS.search(name):
            continue
        tensors = {key: one for key, one in value.items() if isinstance(one, Tensor) and isinstance(key, str)}
        if tensors:
            found.append(Entry(name, _unwrapped(tensors)))
    return found


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the parts of their names that wrapped modules bring, where they stay apart."""
    plain = {_WRAPPED.sub("", key).lstrip("."): tensor for key, tensor in weights.items()}
    return plain if len(plain) == len(weights) else weights


def is_averaged(name: str) -> bool:
    """Whether the name of an entry says that its weights are an average over steps of the training."""
    return _AVERAGED.search(name) is not None


def settings_of(content: Any) -> dict[str, Any]:
    """Plain values that a file states beside the weights: names, numbers and short lists, by name.

    Args:
        content: As for `entries_of`.
    """
    values = _items(content)
    found: dict[str, Any] = {}
    for place in _SETTINGS:
        settings = values if not place else _items(values.get(place))
        found |= {
            key: value
            for key, value in settings.items()
            if isinstance(key, str) and key not in found and _is_plain(value)
        }
    return found


def network_named(settings: Mapping[str, Any]) -> str:
    """The name of the network among the settings that a file states; "" where there is none."""
    names = (settings.get(key) for key in _NETWORK_NAMES)
    return next((name for name in names if isinstance(name, str) and name), "")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= _SHORT and all(type(one) in _PLAIN for one in value)
    return type(value) in _PLAIN and not (isinstance(value, str) and len(value) > _TEXT)


def _walk(content: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every mapping in a file with the keys that lead there; each once, outer ones first."""
    seen: set[int] = set()
    waiting = deque([("", content, 0)])
    for _ in range(_MOST):
        if not waiting:
            return
        name, value, depth = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        items = _items(value)
        if items:
            yield name, items
        prefix = f"{name}." if name else ""
        if depth < _DEEPEST:
            inner = ((f"{prefix}{key}", one, depth + 1) for key, one in items.items() if _may_hold(one))
            waiting.extend(inner)


def _may_hold(value: Any) -> bool:
    return isinstance(value, dict | Inert) or (isinstance(value, list | tuple) and len(value) <= _LONGEST)


def _items(value: Any) -> Mapping[Any, Any]:
    """What a container holds by key, or an object by attribute; of a module its state dict."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if not isinstance(value, Inert):
        return {}
    weights = module_tensors(value)
    if weights is not None:
        return weights
    attributes = value.state if isinstance(value.state, dict) else {}
    return {**value.entries, **attributes}


def is_named(key: str, name: str) -> bool:
    """Whether a tensor has a name, by itself or behind the names of modules around it."""
    return key == name or key.endswith(f".{name}")


def common_prefix(names: list[str]) -> str:
    """Return the modules, with dots, that all names begin with."""
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "".join(f"{part}." for part in shared)


def shared_prefix(names: list[str]) -> str:
    """Return the wrappers' parts, with dots, that all names begin with."""
    shared = common_prefix(names).split(".")[:-1]
    wrapping = next((i for i, part in enumerate(shared) if part not in WRAPPERS), len(shared))
    return "".join(f"{part}." for part in shared[:wrapping])
