"""One walk over the samples: read ahead, shared among processes, summed in an order that never changes.

Sums of floating-point numbers depend on the order of additions. Here it depends on the number of samples
alone: batches form at most `LEAVES` runs, each is summed by itself, and the sums of runs are added in pairs,
pairs of pairs, and so on. However many processes share the runs, the result is the same to the last bit. A
process keeps at most one sum a level of that tree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import torch
from torch import Tensor

from divacli.errors import DivaError
from divacli.parallel import World, world
from divacli.ridge.fit.rows import Staged
from divacli.ridge.fit.task import Batch, RidgeTask

LEAVES = 64
"""Runs of batches that are summed by themselves, at the most: more processes than that are of no use."""

Sums = Sequence[Tensor]
Part = slice | Tensor


def walk(
    task: RidgeTask,
    zeros: Callable[[], Sums],
    visit: Callable[[Batch, Sums], None],
    *,
    whole_groups: bool = False,
    dtype: torch.dtype | None = None,
) -> Sums:
    """Visit every batch of a task once, in one of the processes, and add up what the visits find.

    What a visit finds of single samples it writes down itself; `World.merged` shares it afterwards.

    Args:
        task: The samples.
        zeros: Makes sums of nothing, on the task's device.
        visit: Adds a batch to sums in place.
        whole_groups: Whether groups stay in one batch, not in order; else batches are in order.
        dtype: Of the batches; by default the task's.

    Returns:
        The sums over all samples, the same in every process.

    Raises:
        DivaError: What a visit, or reading, has raised in any process; in all of them.
    """
    here = world()
    parts: list[Part] = list(task.parts() if whole_groups else task.slices())
    leaves = _runs(parts, LEAVES)
    tree = _Tree()
    mine = here.share_of(len(leaves))
    failure = None
    # Closed also where a visit fails: nothing is read any more then.
    with closing(ahead(task, [part for leaf in mine for part in leaves[leaf]], dtype)) as batches:
        try:
            for leaf in mine:
                sums = zeros()
                for _ in leaves[leaf]:
                    visit(next(batches), sums)
                tree.add(0, leaf, sums)
        except DivaError as error:
            failure = error
    here.agree(failure)
    if here.size > 1:
        tree = _gathered(here, tree, len(leaves), zeros)
    return tree.total() if leaves else zeros()


def look(
    task: RidgeTask,
    visit: Callable[[Batch], None],
    *,
    whole_groups: bool = False,
    dtype: torch.dtype | None = None,
) -> None:
    """As `walk`, where there is nothing to add up."""
    walk(task, list, lambda batch, _: visit(batch), whole_groups=whole_groups, dtype=dtype)


def ahead(
    task: RidgeTask, parts: Sequence[Part], dtype: torch.dtype | None = None
) -> Generator[Batch, None, None]:
    """Batches of a task, the features of the next one read while this one is worked on."""
    features = task.features
    if isinstance(features, Tensor) or len(parts) < 2:  # a thread would have nothing to read ahead
        yield from (task.batch(part, dtype) for part in parts)
    else:
        read = features.read if isinstance(features, Staged) else task.raw
        with ThreadPoolExecutor(1) as reader:
            pending = [reader.submit(read, part) for part in parts[:1]]
            for number, part in enumerate(parts):  # pragma: no branch  # closed after the last one
                found = pending.pop().result()
                pending = [reader.submit(read, following) for following in parts[number + 1 : number + 2]]
                raw = features.compute(part, found) if isinstance(features, Staged) else found
                yield task.batch(part, dtype, raw)


class _Tree:
    """Sums of runs of leaves, where two neighbours of one level become one of the next."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, int, Sums]] = []

    def add(self, level: int, index: int, sums: Sums) -> None:
        """Put the next node to the right of those that are here."""
        while index % 2 and self._nodes and self._nodes[-1][:2] == (level, index - 1):
            left = self._nodes.pop()[2]
            for one, other in zip(left, sums, strict=True):
                one += other
            level, index, sums = level + 1, index // 2, left
        self._nodes.append((level, index, sums))

    def nodes(self) -> list[tuple[int, int, Sums]]:
        """Level, index within the level, and sums of what has not met its neighbour, from left to right."""
        return self._nodes

    def total(self) -> Sums:
        """All of it, the smaller nodes on the right first."""
        total = self._nodes[-1][2]
        for _, _, left in reversed(self._nodes[:-1]):
            for one, other in zip(left, total, strict=True):
                one += other
            total = left
        return total


def _gathered(here: World, own: _Tree, n_leaves: int, zeros: Callable[[], Sums]) -> _Tree:
    """The tree of all processes, in every one of them."""
    mine = {(level, index): sums for level, index, sums in own.nodes()}
    tree = _Tree()
    for rank in range(here.size):
        shape = _Tree()
        for leaf in here.share_of(n_leaves, rank):
            shape.add(0, leaf, ())
        for level, index, _ in shape.nodes():
            sums = mine[level, index] if rank == here.rank else zeros()
            for tensor in sums:
                here.broadcast(tensor, rank)
            tree.add(level, index, sums)
    return tree


def _runs(parts: list[Part], most: int) -> list[list[Part]]:
    """At most so many runs of parts, as even as they can be."""
    count = min(len(parts), most)
    bounds = [index * len(parts) // count for index in range(count + 1)] if count else [0]
    return [parts[start:stop] for start, stop in itertools.pairwise(bounds)]
