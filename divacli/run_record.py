"""The current command's run record: inputs read and safety rules, reachable from anywhere.

The command line opens a run; outside of one, from Python, nothing is recorded and nothing confined.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LOGGER = logging.getLogger(__name__)


@dataclass
class Input:
    """Something that a command read its samples from.

    Attributes:
        given: How it was named: a path, a URL, or "-".
        manifest: All of its samples, a `divacli.manifest.Manifest`.
        features: What their features are known by, where they have been looked for: `fingerprint` and
            `identity`, as of `divacli.features.Samples`.
    """

    given: str
    manifest: Any
    features: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """A command while it runs.

    Attributes:
        command: Its name, such as "score".
        options: The arguments, and the options that differ from their defaults.
        confined: Whether tables may name only files in or below the folder that they lie in.
        cache: Folder of what is kept between commands; None for the default one.
        tell: Told what the user has to know now.
        inputs: What was read, in the order of reading.
        ending: What is to be undone or let go when the run ends, however it ends.
        told: What was told once.
    """

    command: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    confined: bool = False
    cache: Path | None = None
    tell: Callable[[str], None] = _LOGGER.warning
    inputs: list[Input] = field(default_factory=list)
    ending: ExitStack = field(default_factory=ExitStack)
    told: set[str] = field(default_factory=set)

    def tell_once(self, sentence: str) -> None:
        """Tell what may come up several times in one run."""
        if sentence not in self.told:
            self.told.add(sentence)
            self.tell(sentence)

    def read(self, given: str, manifest: Any) -> None:
        """Note what was read."""
        self.inputs.append(Input(given, manifest))
        _LOGGER.info(
            "read %s: a %s of %d samples in %d classes, from %s",
            *(given, manifest.kind, len(manifest.table), len(manifest.classes), manifest.folder),
        )

    def embedded(self, manifest: Any, fingerprint: str, identity: dict[str, str]) -> None:
        """Note what the features of something are known by that was read."""
        for one in self.inputs:
            if one.manifest.name == manifest.name:
                one.features = {"fingerprint": fingerprint, "identity": identity}

    def manifest(self, given: str) -> Any:
        """All samples of something that was read.

        Raises:
            KeyError: It was not.
        """
        found = [one.manifest for one in self.inputs if one.given == given]
        if not found:
            raise KeyError(given)
        return found[-1]


_RUN: ContextVar[Run | None] = ContextVar("run", default=None)


def current() -> Run:
    """The run that is going on; one that nobody looks at where there is none."""
    return _RUN.get() or Run()


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Make a run the current one, and end it."""
    token = _RUN.set(run)
    try:
        with run.ending:
            yield run
    finally:
        _RUN.reset(token)
