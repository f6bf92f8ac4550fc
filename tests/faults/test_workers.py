"""A worker process that dies costs one message; the same command goes on from what was embedded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from signal import SIGBUS, SIGKILL, SIGSEGV

import pytest

from divacli.features.store import FeatureStore
from tests.faults.conftest import SMALL, Server, job_of, results, said_once

# The system takes a process when memory is short by SIGKILL, when shared memory is full by SIGBUS.
DYING = """
import os
import torch
from divacli.features import forward

torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.3
compute = forward.OneCore.__call__

def computed(network, batch):
    if {position} in batch.positions:
        os.kill(os.getpid(), {signal})
    return compute(network, batch)

forward.OneCore.__call__ = computed
"""


@pytest.mark.parametrize("signal", [SIGKILL, SIGBUS, SIGSEGV])
def test_killed_worker(signal: int, server: Server, folder: Path, expected: dict) -> None:
    job = job_of("embed", folder)
    dying = SMALL + DYING.format(position=45, signal=int(signal))
    two = replace(job, arguments=(*job.arguments, "--workers", "2"), before=dying)
    failed = server.run(two)
    assert failed.status == 1, failed.messages
    said_once(failed.messages, "a process that decodes images failed: DataLoader worker")
    assert "fewer --workers" in failed.messages
    assert not results(folder / "out")
    [cached] = (folder / "cache/features").iterdir()
    kept = len(FeatureStore(cached))
    assert 0 < kept < 45
    done = server.run(job)
    assert done.status == 0, done.messages
    assert f"{60 - kept} embedded now" in done.messages
    assert results(folder / "out") == expected["embed"]
