"""One call from Python: its record, its warnings, and what opens its arguments."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console, RenderableType

from divacli.api.inputs import Inputs
from divacli.api.report import Report, Saving, warn
from divacli.errors import DivaError
from divacli.machine.device import resolve_device
from divacli.progress import silent
from divacli.reading import Source
from divacli.report.terminal.progress import shown
from divacli.results.collect import Collected
from divacli.run_record import Run, running
from divacli.solve.loader import Loader
from divacli.solve.options import Compute, Network, Problem, open_loader

NetworkLike = Network | str | None
"""A network, the name of one that needs no weights, or None where features are there."""

_COMMAND_LINE = {
    "network": "model",
    "pools": "pool",
    "transforms": "transform",
    "manifests": "manifest",
    "learners": "learner",
}
"""What the command line calls an argument that has another name here."""

_SEVERAL = ("pools", "transforms", "manifests")
"""Arguments that may be one or several; on the command line always several."""


class Call:
    """One call from Python: its run record, its warnings, and what opens its arguments."""

    def __init__(
        self, command: str, given: Mapping[str, Any], network: NetworkLike, problem: Problem, compute: Compute
    ) -> None:
        for name, value, kind in (("problem", problem, Problem), ("compute", compute, Compute)):
            if not isinstance(value, kind):
                raise DivaError(f"{name} is a {type(value).__name__}", expected=f"{kind.__name__}(...)")
        self.warned: list[str] = []
        self.run = Run(command, _recordable(given), cache=compute.cache, tell=self.warn)
        self.problem, self.compute = problem, compute
        data = given.get("data")
        if network is None and isinstance(data, Report):
            network = data.network
        self.network = Network(network) if network is None or isinstance(network, str) else network
        progress = _progress if compute.progress else silent
        self.inputs = Inputs(compute.cache, progress, self.warn)

    @contextmanager
    def loading(self) -> Iterator[Loader]:
        """Within it the run is the current one, and the loader that of the call."""
        if not isinstance(self.network, Network):
            raise DivaError(
                f"network is a {type(self.network).__name__}",
                expected="a name, or divacli.Network(...); of a module Network(module, transform=...)",
            )
        with running(self.run), _plain_arithmetic():
            yield open_loader(
                self.network,
                self.compute,
                resolve_device(self.compute.device),
                self.problem.group,
                progress=self.inputs.progress,
                warn=self.warn,
                note=lambda sentence: None,
            )

    def warn(self, message: str) -> None:
        """Warn, and keep it for the report."""
        self.warned.append(message)
        warn(message)

    def validation(self) -> Any:
        """The validation set, opened."""
        return None if self.problem.val is None else self.inputs.open(self.problem.val, "val")

    def report(
        self,
        result: Any,
        shown: Callable[[Any], Iterable[RenderableType]],
        saving: Saving,
        adjust: Callable[[Collected], None] | None = None,
    ) -> Report:
        """The result, when its warnings are told."""
        for sentence in result.warnings():
            self.warn(sentence)
        return Report(result, self.run, self.network, self.warned, shown, saving, adjust)


@contextmanager
def _plain_arithmetic() -> Iterator[None]:
    """Compute as the command line does, whatever precision or mode the caller has switched on."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        torch.random.fork_rng(devices=[]),
    ):
        yield


def arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that are not as they are by default, those of groups by their own names."""
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        value = values[name]
        if isinstance(value, Source):
            given |= _of_source(name, value)
        elif dataclasses.is_dataclass(value):
            values_of = [
                (field, getattr(value, field.name)) for field in dataclasses.fields(value) if field.init
            ]
            for field, found in values_of:
                if isinstance(found, Source):
                    given |= _of_source(field.name, found)
                elif _differs(found, field.default):
                    given[field.name] = found
        elif _differs(value, parameter.default):
            one = isinstance(value, str | os.PathLike) and name in _SEVERAL
            given[_COMMAND_LINE.get(name, name)] = [os.fspath(value)] if one else value
    return given


def _of_source(name: str, source: Source) -> dict[str, Any]:
    """An argument with its options of reading, by the names of the command line."""
    options = source.given
    if name != "data" and "split" in options:
        options[f"{name}_split"] = options.pop("split")
    return {_COMMAND_LINE.get(name, name): source.data, **options}


def _differs(value: object, default: object) -> bool:
    try:
        return bool(value != default)
    except (TypeError, ValueError, NotImplementedError):  # a table, or an array
        return True


def _recordable(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that a record can hold: text, numbers, and lists of such."""
    found = {name: os.fspath(one) if isinstance(one, os.PathLike) else one for name, one in given.items()}
    plain = (str, int, float)
    return {
        name: list(one) if isinstance(one, tuple) else one
        for name, one in found.items()
        if isinstance(one, plain)
        or (isinstance(one, list | tuple) and one and all(isinstance(part, plain) for part in one))
    }


def _progress(what: str, total: int) -> Any:
    return shown(Console(stderr=True), what, total)
