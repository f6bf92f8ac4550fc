"""Jobs of torchrun end well when one of their processes does not, and go on from what was kept."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_processes import COMMANDS, N_IMAGES, content, environment, shards, write_photos

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a network."""
    folder = tmp_path_factory.mktemp("torchrun")
    write_photos(folder)
    return folder


def torchrun(place: Path, *arguments: str, restarts: int = 0, **variables: str) -> tuple[int, str]:
    """Status, and what our processes and torchrun have to say."""
    done = subprocess.run(
        [*TORCHRUN, "--max-restarts", str(restarts), "-m", "divacli", *arguments],
        cwd=place,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stderr


EMBED = COMMANDS["embed"].split()


def test_a_killed_process_ends_the_job_and_what_was_embedded_is_kept(place):
    status, said = torchrun(place, *EMBED, "--out", "killed", "--cache-dir", "kill", TEST_FATAL_IMAGE="100")
    assert status != 0
    ours, _, report = said.partition("ChildFailedError")
    assert "Signal 9 (SIGKILL)" in report
    assert ours.count("error: ") + ours.count("terminated; ") <= 1
    assert ours.count("Traceback") == 1  # of torchrun itself
    assert "divacli/" not in ours
    assert not content(place / "killed")
    # One batch of one process, and of the other's three those that it wrote before the job ended.
    assert 1 + 1 <= len(shards(place / "kill")) <= 1 + 3
    assert not list(place.glob("kill/**/*.tmp"))


@pytest.mark.skipif(os.environ.get("DIVA_KILLS") != "all", reason="of `make faults`: it starts six processes")
def test_a_restarted_job_goes_on_from_what_was_kept(place, forks):
    forks.start(
        *EMBED, "--out", "whole", "--cache-dir", "once", folder=place, stderr=place / "whole.messages"
    )
    assert forks.wait() == 0
    run = (*EMBED, "--out", "restarted", "--cache-dir", "again")
    status, said = torchrun(place, *run, restarts=1, TEST_FATAL_IMAGE="100")
    assert status == 0, said
    now = re.search(r"(\d+) embedded now", said)
    assert now, said
    assert 0 < int(now[1]) <= N_IMAGES - 64
    assert content(place / "restarted") == content(place / "whole")


def test_a_command_that_is_asked_to_end_keeps_what_it_embedded(place, forks):
    run = ("score", *EMBED[1:], "--out", "ended", "--cache-dir", "end")
    messages = place / "ended.messages"
    process = forks.start(*run, folder=place, stderr=messages, TEST_SECONDS_AN_IMAGE="0.02", COLUMNS="200")
    deadline = time.monotonic() + 60
    while not shards(place / "end"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process, signal.SIGTERM)
    assert forks.wait() == 143, messages.read_text()
    *before, last = messages.read_text().splitlines()
    assert last == "terminated; features that were computed are kept, and the same command goes on from them"
    assert all(line.startswith("note: ") for line in before)
    assert 1 <= len(shards(place / "end")) < 300 // 64
    assert not content(place / "ended")
