"""A clock that jumps changes nothing in what is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import SMALL, Server, job_of, results

JUMPING = """
import random, time

jump = random.Random(0)
now, now_ns = time.time, time.time_ns
# An hour or a year back or ahead at every look.
time.time = lambda: now() + jump.choice((-1, 1)) * jump.choice((3600, 86400 * 365))
time.time_ns = lambda: now_ns() + jump.choice((-1, 1)) * jump.choice((3600, 86400 * 365)) * 10**9
"""

BACKWARDS = """
import time

now, now_ns, looks = time.time, time.time_ns, iter(range(10**9))
time.time = lambda: now() - 60 * next(looks)
time.time_ns = lambda: now_ns() - 60 * 10**9 * next(looks)
"""


@pytest.mark.parametrize("clock", [JUMPING, BACKWARDS])
@pytest.mark.parametrize("command", ["embed", "score"])
def test_clock_that_jumps_during_a_run_and_between_two(
    clock: str, command: str, server: Server, folder: Path, expected: dict
) -> None:
    job = replace(job_of(command, folder), before=SMALL + clock)
    first = server.run(job)
    assert first.status == 0, first.messages
    assert results(folder / "out") == expected[command]
    # With what the former run has left in the cache, by another clock.
    second = server.run(replace(job, before=SMALL, arguments=(*job.arguments, "--overwrite")))
    assert second.status == 0, second.messages
    assert without_record(folder / "out") == {
        name: content for name, content in expected[command].items() if name != "run.json"
    }


def without_record(folder: Path) -> dict[str, object]:
    return {name: content for name, content in results(folder).items() if name != "run.json"}
