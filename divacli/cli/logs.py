"""`--log-file`: what a command did and where it failed, for whoever is asked why.

The log holds names, numbers and tracebacks, and neither contents of images nor variables of the environment.
URLs lose what stands beside the address, and what the options' URLs hold there is masked wherever it appears.
A label or a path cannot forge a record: a record is one line, what else belongs to it is indented, and
control characters are escaped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import typer

from divacli.cli.processes import rank
from divacli.errors import OutputError, shown
from divacli.files.urls import is_url, without_secrets
from divacli.run_record import Run

_LOGGER = logging.getLogger(__name__)

_BYTES = re.compile(r"""\bb(?:'(?:[^'\\]|\\.){16,}'|"(?:[^"\\]|\\.){16,}")""")
"""Bytes as Python shows them, more than the mark of a format: they may be of an image."""

_BEGINNING = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
_MASK = "***"
_LONGEST = 1000
"""Characters of a line."""


def open_log(file: Path | None, run: Run, tell: Callable[[str], None]) -> AbstractContextManager[None]:
    """Open the log of a command, which is written from when it is entered until it is left.

    Of several processes each has a file of its own: that of rank 2 is called FILE.rank2.

    Args:
        file: Where to, appended; None for nowhere.
        run: The command.
        tell: Told if writing fails later, which does not end the command.

    Raises:
        OutputError: The file cannot be written, or is no log.
    """
    if file is None:
        return nullcontext()
    if rank():
        file = file.with_name(f"{file.name}.rank{rank()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _require_log(file)
        handler = _Handler(file, tell)
    except OSError as error:
        raise OutputError(
            f"--log-file {file} cannot be written to: {error.strerror}",
            expected="a file that can be made or appended to",
            hint="choose another one with --log-file",
        ) from error
    handler.setFormatter(_Formatter(_secrets(run)))
    return _logging(handler, run)


def _require_log(file: Path) -> None:
    """Refuse to append to what is no log: it may be the user's table.

    Raises:
        OutputError: It holds something else.
    """
    if not file.is_file():
        return
    with file.open("rb") as stream:
        beginning = stream.read(25)
    if beginning and not _BEGINNING.match(beginning):
        raise OutputError(
            f"--log-file {file} holds something else than a log of diva",
            expected="a file that is not there, or a log, which is appended to",
            hint="choose another one with --log-file",
        )


@contextmanager
def _logging(handler: logging.Handler, run: Run) -> Iterator[None]:
    logger = logging.getLogger("divacli")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    start = time.monotonic()
    status = 0
    try:
        _log_beginning(run)
        yield
    except BaseException as error:
        status = getattr(error, "exit_code", 1)
        _log_failure(error)
        raise
    finally:
        _LOGGER.info("ended with status %d after %.3f s; %s", status, time.monotonic() - start, _peak())
        logger.removeHandler(handler)
        logger.setLevel(level)
        with contextlib.suppress(OSError):  # a full disk, which was told of
            handler.close()


def _log_beginning(run: Run) -> None:
    from divacli.machine.versions import versions

    _LOGGER.info(
        "diva %s",
        "\n".join([run.command, *(f"{name}={_option(value)}" for name, value in run.options.items())]),
    )
    for what, found in (("versions", versions()), ("machine", _machine())):
        _LOGGER.info("%s: %s", what, ", ".join(f"{name}={value}" for name, value in found))


def _option(value: Any) -> str:
    return f"[{', '.join(map(_option, value))}]" if isinstance(value, list | tuple) else str(value)


def _log_failure(error: BaseException) -> None:
    """With the traceback of what the command line has made a message and a status of."""
    cause = error.__cause__ if isinstance(error, typer.Exit) else error
    if cause is not None:
        _LOGGER.error("%s", type(cause).__name__, exc_info=cause)


def _machine() -> Iterator[tuple[str, Any]]:
    yield "cores", os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        yield "cores of this process", len(os.sched_getaffinity(0))
    yield "memory", _megabytes(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    unlimited = address_space == resource.RLIM_INFINITY
    yield "limit of the process", "none" if unlimited else _megabytes(address_space)


def _peak() -> str:
    """The largest memory of this process, and of the largest of its workers."""
    unit = 1 if sys.platform == "darwin" else 1024
    own, workers = (
        _megabytes(resource.getrusage(who).ru_maxrss * unit)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return f"peak memory {own}, of the largest worker process that has ended {workers}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


@contextmanager
def logged_step(
    what: str, total: int, shown: AbstractContextManager[Callable[[int], None]]
) -> Iterator[Callable[[int], None]]:
    """A step of work that is shown, with its beginning and end in the log.

    Args:
        what: Its name.
        total: Its parts; 0 where they cannot be counted.
        shown: Where else it is told of.
    """
    _LOGGER.info("%s: begins%s", what, f", {total:,} to do" if total else "")
    start = time.monotonic()
    n_done, end = 0, "fails"
    try:
        with shown as advance:

            def count(done: int) -> None:
                nonlocal n_done
                n_done += done
                advance(done)

            yield count
        end = "ends"
    finally:
        done = f", {n_done:,} of {total:,} done" if total else ""
        _LOGGER.info("%s: %s after %.3f s%s; %s", what, end, time.monotonic() - start, done, _peak())


class _Handler(logging.FileHandler):
    """Appends to a file; a disk that is full ends the log and not the command."""

    def __init__(self, file: Path, tell: Callable[[str], None]) -> None:
        super().__init__(file, mode="a", encoding="utf-8", errors="backslashreplace")
        self._file = file
        self._tell = tell
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._failed:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        self._failed = True
        error = sys.exc_info()[1]
        reason = error.strerror if isinstance(error, OSError) else repr(error)
        self._tell(f"--log-file {self._file}: {reason}; the command goes on without a log")


class _Formatter(logging.Formatter):
    """One line a record, in UTC; its other lines are indented.

    Args:
        secrets: Texts that must not appear.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s")
        # The longest first: one may be a part of another.
        self._secrets = sorted(secrets, key=len, reverse=True)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        return f"{when.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(map(self._line, super().format(record).split("\n")))

    def _line(self, line: str) -> str:
        # Cut before it is searched, which takes long in a long line, and again: half a secret is not found.
        text = line[: 4 * _LONGEST]
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        text = _BYTES.sub("b'...'", without_secrets(text))
        return shown(text[:_LONGEST]) + (" ..." if max(len(line), len(text)) > _LONGEST else "")


def _secrets(run: Run) -> set[str]:
    """What is secret in the options' URLs."""
    values = run.options.values()
    given = (str(one) for value in values for one in (value if isinstance(value, list | tuple) else [value]))
    return {secret for one in given if is_url(one) for secret in _secrets_of(one)}


def _secrets_of(url: str) -> Iterator[str]:
    with contextlib.suppress(ValueError):  # not a URL that can be read
        parts = urlsplit(url.rpartition("::")[2])
        user = parts.netloc.rpartition("@")[0]
        password = parts.password or ""
        # Shorter ones are found in words that are none; in the URL itself they are left out all the same.
        yield from (text for text in (user, password, unquote(password)) if len(text) >= 4)
        for query in (parts.query, parts.fragment):
            yield from (text for _, text in parse_qsl(query) if len(text) >= 8)
            yield from (text for text in (query, unquote(query)) if len(text) >= 8)
