"""The processes that share one piece of work (torch.distributed); a single process is a world of one.

Every process runs the same program on the same DATA, and each does its share of whatever is walked through
sample by sample. What they learn is put together by the collectives below, so that all of them go on with
the same numbers; the first one writes the results.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

from divacli.errors import DivaError

_T = TypeVar("_T")

_PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: one may be embedding while the rest have no images left."""


@dataclass(frozen=True)
class World:
    """Some processes, and which of them this one is.

    Attributes:
        rank: This process, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and talks."""
        return self.rank == 0

    def share_of(self, count: int, rank: int | None = None) -> range:
        """Which of `count` pieces of work, in order, are a process's own; by default this one's."""
        rank = self.rank if rank is None else rank
        return range(rank * count // self.size, (rank + 1) * count // self.size)

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Give every process the tensor of one of them, in place."""
        if self.size > 1:
            with _reaching():
                distributed.broadcast(tensor, source)
        return tensor

    def merged(self, tensor: Tensor) -> Tensor:
        """Give every process what any of them has found, in place.

        Args:
            tensor: Zero wherever another process has found something: sums with zeros are exact.
        """
        if self.size > 1:
            with _reaching():
                distributed.all_reduce(tensor)
        # As a sum of several does with a negative zero.
        return tensor.add_(0)

    def gathered(self, thing: Any) -> list[Any]:
        """What every process has, in their order; any picklable object."""
        if self.size == 1:
            return [thing]
        things: list[Any] = [None] * self.size
        with _reaching():
            distributed.all_gather_object(things, thing)
        return things

    def agree(self, failure: DivaError | None) -> None:
        """Raise in every process what any of them has failed of, so that all go on from the same place.

        Args:
            failure: This process's own, if it has failed. Of several that of the first process is raised.
        """
        for found in self.gathered(failure):
            if found is not None:
                raise found

    def once(self, compute: Callable[[], _T]) -> _T:
        """What the first process computes, with all cores of its machine, in every process; they wait for it.

        Args:
            compute: Gives a picklable object.
        """
        found = None
        if self.leads:
            with all_threads():
                found = compute()
        return cast(_T, self.gathered(found)[0])


ALONE = World()
"""A single process."""


def world() -> World:
    """The world of this process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return World(distributed.get_rank(), distributed.get_world_size())


def join(device: torch.device) -> World:
    """Join the world that a launcher has made; processes of one device, or of one each.

    They talk over gloo, and about tensors on a CUDA device over NCCL.

    Args:
        device: That this process computes on.

    Raises:
        DivaError: The others cannot be reached.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _reaching():
        store, rank, size = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        store = distributed.PrefixStore(f"divacli-{_attempt()}", store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    return world()


def _attempt() -> str:
    """Which of a launcher's attempts this is.

    `torchrun` restarts processes beside the store of those before them, where they would find the addresses
    of the dead. Several machines do not count attempts alike: there it must be told to make new stores.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else ""


def leave() -> None:
    """Leave the world, where one was joined."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _reaching() -> Iterator[None]:
    """Say in our words that another process is gone."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        # Without the line of PyTorch's source before it and the advice after it.
        reason = re.sub(r"^\[\S+\] ", "", str(error)).partition(". ")[0].partition("\n")[0]
        raise DivaError(
            f"a process of this job has ended or cannot be reached ({reason})",
            expected="all of its processes, to the end",
            hint="look above for what happened to it (memory?), and start the job again: features that were "
            "computed are kept, and it goes on from them",
        ) from error


@contextmanager
def all_threads() -> Iterator[None]:
    """Compute with every core that this process may use, whatever its share of them is.

    For what one process does while the others wait for it. It is also how factorisations, whose last digits
    depend on the number of threads, give the same digits in any world on one machine.
    """
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one core: small products wait longer for other threads than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
