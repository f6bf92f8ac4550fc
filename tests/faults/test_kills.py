"""Kills in all phases of six commands: nothing half is seen, and the same command then ends as ever.

`make test` makes 52 of the 200 kills, spread over the same phases, at other moments each time. `make faults`
makes all. `DIVA_KILLS_SEED` repeats the moments of a run.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

import pytest

from tests.faults.conftest import Job, Outcome, Server, results, tree

_OPTIONS = ("--model", "../net.py:make", "--cache-dir", "cache", "--out", "out")

COMMANDS = {
    "embed": (("embed", "../photos", *_OPTIONS, "--workers", "0"), 50),
    "embed in processes": (("embed", "../photos", *_OPTIONS, "--workers", "2"), 14),
    "score": (("score", "../photos", *_OPTIONS, "--workers", "0"), 34),
    "prune": (("prune", "../photos", "--keep", "0.9", *_OPTIONS, "--workers", "0"), 28),
    "reweight": (("reweight", "../photos", *_OPTIONS, "--workers", "0"), 24),
    "apply": (("apply", "../photos", "--materialize", "copy", "--out", "out"), 50),
}
"""Command lines, and how often each is killed: half of them at a change on disk, half at a moment."""

SHARE = 1 if os.environ.get("DIVA_KILLS") == "all" else 5
SEED = os.environ.get("DIVA_KILLS_SEED") or str(random.SystemRandom().randrange(10**6))
LEAST = 8
"""Kills of a command, at the least: four moments are one of each phase."""

SIGNALS = {SIGKILL: (-9, ""), SIGTERM: (143, "terminated; "), SIGINT: (130, "interrupted; ")}
"""The status that a command ends with, and what it then says."""

landed: Counter[tuple[str, str]] = Counter()
"""How many kills came in which phase, by which signal."""


def test_there_are_200_kills() -> None:
    assert sum(count for _, count in COMMANDS.values()) == 200


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_commands_end_as_if_they_had_not_been_killed(
    command: str, server: Server, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, every = COMMANDS[command]
    count = max(LEAST, every // SHARE)
    folder = place / command
    server.run(replace(fresh(arguments, folder / "first"), modules=True))
    whole = server.run(fresh(arguments, folder / "whole"))
    assert whole.status == 0, whole.messages
    expected = results(folder / "whole/out")
    moments = drawn(whole, count, random.Random(SEED + command))
    phases: Counter[str] = Counter()
    number, late, halfway = 0, 0, 0
    while number < count:
        job = fresh(arguments, folder / f"{number}-{late}")
        signal = list(SIGNALS)[number % 3]
        killed = server.run(replace(job, signal=signal, **next(moments)))
        if killed.status == 0:  # it was faster than the first time
            late += 1
            assert late < 5 * count
            continue
        status, says = SIGNALS[signal]
        if killed.phase != "start" or killed.status == status:  # else Python itself answers, before diva runs
            assert killed.status == status, killed.messages
            assert killed.messages.splitlines()[-1:] == [] or says in killed.messages.splitlines()[-1]
            assert "Traceback" not in killed.messages
        seen = results(Path(job.folder) / "out")
        assert seen.items() <= expected.items(), set(seen) - set(expected)

        resumed = server.run(job)
        if resumed.status and "of two runs" in resumed.messages:  # it was killed between two renames
            assert signal == SIGKILL
            halfway += 1
            shutil.rmtree(Path(job.folder) / "out/.diva-staged")  # as the message says
            resumed = server.run(replace(job, arguments=(*job.arguments, "--overwrite")))
            assert resumed.status == 0, resumed.messages
        elif resumed.status:  # it was killed when all was done
            assert killed.phase == "write"
            assert "already" in resumed.messages
        assert results(Path(job.folder) / "out") == expected
        # Of a process that had no time to clean up: its temporary file among the parts of a store; or,
        # where all was done and the second run refused at once, its lock and the empty stage.
        hidden = set(tree(Path(job.folder) / "out", hidden=True)) - set(tree(Path(job.folder) / "out"))
        own = {name for name in hidden if name.startswith(".diva-") and name.endswith(".tmp")}
        assert len(own) <= (signal == SIGKILL)
        assert hidden == own or (resumed.status and signal == SIGKILL), hidden
        phases[killed.phase] += 1
        landed[killed.phase, signal.name] += 1
        number += 1
    with capsys.disabled():
        print(f"\n{command}, seed {SEED}: {dict(phases)}, {late} too late, {halfway} half in place")
        print(f"all: {dict(landed)}")
    assert all(phases[phase] for phase, entered in whole.entered.items() if entered and phase != "solve")


def fresh(arguments: tuple[str, ...], folder: Path) -> Job:
    folder.mkdir(parents=True)
    (folder.parent / "photos").exists() or (folder.parent / "photos").symlink_to("../photos")
    (folder.parent / "net.py").exists() or (folder.parent / "net.py").symlink_to("../net.py")
    return Job(arguments, str(folder))


def drawn(whole: Outcome, count: int, generator: random.Random) -> Iterator[dict[str, Any]]:
    """When to kill: at changes on disk spread over all, then at random moments of each phase in turn."""
    changes = [round((number + 0.5) * whole.changes / (count // 2)) for number in range(count // 2)]
    yield from ({"change": max(1, change)} for change in changes)
    starts = sorted(seconds for phase, seconds in whole.entered.items() if seconds or phase == "start")
    while True:
        for start, end in zip(starts, [*starts[1:], whole.seconds], strict=True):
            yield {"seconds": generator.uniform(start, end)}
