"""Starts `diva` in processes forked from one that has imported everything, and kills them at chosen moments.

A program of its own. It reads one job a line and answers each with one line: see `Job` and `Outcome` in
`tests/faults/conftest.py`. Forked, a command takes a fraction of a second, and it is a process like any
other, with its own signals, files, limits and worker processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHASES = ("start", "embed", "solve", "write")

_CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink")
_SHARED = struct.Struct("<ii4d")


class Watch:
    """Notes in shared memory what phase a command is in, and how often it has changed something on disk.

    Its worker processes inherit this watch, and note nothing: their phase is that of the moment they began.

    Args:
        shared: The memory.
        out: The folder for the results, relative to the working directory.
        number: The change to be killed at; None for none.
        kill: How.
    """

    def __init__(self, shared: mmap.mmap, out: str, number: int | None, kill: Callable[[], None]) -> None:
        self._shared = shared
        self._out = out
        self._number = number
        self._kill = kill
        self._process = os.getpid()
        self._phase = 0
        self._changes = 0
        self._entered = [0.0] * len(PHASES)
        sys.addaudithook(self._audited)
        os.fsync = self._around(os.fsync, change=True)  # type: ignore[assignment]
        from divacli.features import embedding as load

        load._of_images = self._around(load._of_images)  # type: ignore[assignment]

    def _around(self, function: Callable[..., Any], *, change: bool = False) -> Callable[..., Any]:
        def called(*arguments: Any, **more: Any) -> Any:
            if change:
                self._changed()
                return function(*arguments, **more)
            self._enter(1)
            found = function(*arguments, **more)
            self._enter(2)
            return found

        return called

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if os.getpid() != self._process:
            return
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, (str, os.PathLike)) or os.fspath(path).startswith(("/dev/", "/proc/")):
            return
        inside = os.fspath(path).startswith(f"{self._out}/") and not os.fspath(path).endswith(".lock")
        if inside and event in ("open", "os.mkdir"):
            self._enter(3)
        self._changed()

    def _enter(self, phase: int) -> None:
        if phase > self._phase:
            self._phase = phase
            self._entered[phase] = time.process_time()
            self._note()

    def _changed(self) -> None:
        self._changes += 1
        self._note()
        if self._changes == self._number:
            self._kill()

    def _note(self) -> None:
        _SHARED.pack_into(self._shared, 0, self._phase, self._changes, *self._entered)


def run(job: dict[str, Any], shared: mmap.mmap) -> int:
    """Run a command in this process, and return its status."""
    os.setsid()
    os.chdir(job["folder"])
    os.environ.update(job["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, name in ((1, job["stdout"]), (2, "messages")):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, stream)
    Watch(shared, job["out"], job["change"], lambda: os.kill(os.getpid(), job["signal"]))
    if job["seconds"] is not None:
        kill_after(job["seconds"], job["signal"])
    if job["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    # One thread, also where a command would take all cores: forked after each other, they are not to wait.
    os.sched_getaffinity = lambda process: {0}
    exec(job["before"], {})
    sys.argv = ["diva", *job["arguments"]]
    from divacli.cli.app import main

    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        return 99
    return 0


def kill_after(seconds: float, number: int) -> None:
    """Have the system send this process a signal when it has computed for so long, however busy the machine.

    Whatever it does then: unlike an alarm of Python's own, this one waits for the end of no instruction.
    """
    system = ctypes.CDLL(None, use_errno=True)
    timer = ctypes.c_void_p()
    event = ctypes.create_string_buffer(struct.pack("=Qii", 0, number, 0), 64)  # sigevent
    when = struct.pack("@4l", 0, 0, int(seconds), int(seconds % 1 * 1e9))  # struct itimerspec
    if system.timer_create(time.CLOCK_PROCESS_CPUTIME_ID, event, ctypes.byref(timer)) or system.timer_settime(
        timer, 0, when, None
    ):
        raise OSError(ctypes.get_errno(), "no timer")


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Fork a process for a job, kill it if asked to, and say how it ended."""
    shared = mmap.mmap(-1, _SHARED.size)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 99
        try:
            status = run(job, shared)
            if job["modules"]:
                os.write(writing, json.dumps(sorted(sys.modules)).encode())
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as stream:
        modules = stream.read() if job["modules"] else ""
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    seconds = time.clock_gettime((~child << 3) | 2)  # its own clock: see clock_gettime(2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # worker processes that it has left behind
    _, status = os.waitpid(child, 0)
    phase, changes, *entered = _SHARED.unpack_from(shared, 0)
    for name in json.loads(modules or "[]"):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if modules:
        gc.collect()
        gc.freeze()  # or every child would copy all of the memory that its own collections look at
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "phase": PHASES[phase],
        "entered": {name: entered[number] for number, name in enumerate(PHASES)},
        "changes": changes,
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


if __name__ == "__main__":
    import torch

    from divacli.curate import sample_scores
    from divacli.ridge import fit_noise

    torch.set_num_threads(1)
    # Half of the time of a small command, in which nothing touches the disk.
    sample_scores.fit_noise = lambda predictions, labels, **_: fit_noise(predictions[:0], labels[:0])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
    os._exit(0)  # some of what was imported has much to say of how Python ends
