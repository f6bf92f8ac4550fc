"""Shares of work, and what processes tell each other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from divacli.parallel import World, all_threads, world

MEMBER = """
import json, sys, torch
from divacli import parallel

here = parallel.join(torch.device("cpu"))
first = here.broadcast(torch.full((2,), float(here.rank) + 5))
last = here.broadcast(torch.full((2,), float(here.rank) + 5), here.size - 1)
own = torch.zeros(7, dtype=torch.float64)
for index in here.share_of(7):
    own[index] = -0.1 * index
parts = here.gathered({here.rank: list(here.share_of(7))})
found = [parallel.world() == here, first.tolist(), last.tolist(), here.merged(own).tolist(), parts]
print(json.dumps(found))
parallel.leave()
assert parallel.world() == parallel.World()
"""


@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 65, 1000])
def test_shares_cover_everything_once_and_in_order(size, count):
    shares = [World(rank, size).share_of(count) for rank in range(size)]
    assert [piece for share in shares for piece in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares == [World(0, size).share_of(count, rank) for rank in range(size)]


def test_alone_there_is_nobody_to_tell():
    here = world()
    assert here == World(0, 1)
    assert here.leads
    assert here.gathered("thing") == ["thing"]
    tensor = torch.tensor([1.0, -0.0])
    assert here.broadcast(tensor) is tensor
    # As a sum of several would have it, down to the sign of zero.
    assert torch.signbit(here.merged(tensor)).tolist() == [False, False]


def test_two_processes_go_on_with_the_same():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER],
            env={**os.environ, **names, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [json.loads(member.communicate(timeout=60)[0]) for member in members]
    assert [member.returncode for member in members] == [0, 0]
    merged = (-0.1 * torch.arange(7, dtype=torch.float64)).tolist()
    parts = [{"0": [0, 1, 2]}, {"1": [3, 4, 5, 6]}]
    assert told == [[True, [5.0, 5.0], [6.0, 6.0], merged, parts]] * 2


def test_all_threads_are_taken_and_given_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with all_threads():
            assert torch.get_num_threads() == len(os.sched_getaffinity(0))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
