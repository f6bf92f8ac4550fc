"""A walk visits every sample once, and its sums do not depend on how many processes share it."""

from dataclasses import replace

import pytest
import torch

from divacli.parallel import World
from divacli.ridge.fit.passes import LEAVES, _Tree, walk
from divacli.ridge.fit.rows import Staged


class Counted(Staged):
    """Rows that remember what was read and computed, and in which order."""

    def __init__(self, tensor):
        self.tensor, self.events = tensor, []

    @property
    def shape(self):
        return tuple(self.tensor.shape)

    def read(self, rows):
        self.events.append(("read", rows.start))
        return self.tensor[rows]

    def compute(self, rows, read):
        self.events.append(("computed", rows.start))
        return read


def total(task, **options):
    def visit(batch, sums):
        sums[0].add_(batch.features.sum(dim=0))
        seen.append(batch.rows)

    seen = []
    (found,) = walk(task, lambda: [torch.zeros(task.n_features).to(task.dtype)], visit, **options)
    return found, seen


@pytest.mark.parametrize("batch_rows", [1, 7, 50, 1000])
def test_every_sample_is_visited_once_in_order(batch_rows, make_problem):
    task = make_problem(150, batch_rows=batch_rows).task
    found, seen = total(task)
    assert [row for rows in seen for row in range(rows.start, rows.stop)] == list(range(150))
    torch.testing.assert_close(found, task.features.sum(dim=0), rtol=1e-12, atol=1e-12)


def test_groups_stay_together(make_problem, make_groups):
    task = make_problem(60, groups=make_groups(*[4] * 15), batch_rows=10).task
    _, seen = total(task, whole_groups=True)
    assert sorted(torch.cat(seen).tolist()) == list(range(60))
    for rows in seen:
        assert len(rows) in (4, 8)
        assert bool((torch.bincount(torch.unique(task.groups[rows], return_inverse=True)[1]) == 4).all())


def test_the_next_rows_are_read_while_these_are_worked_on(make_problem):
    task = make_problem(50, batch_rows=10).task
    features = Counted(task.features)
    total(replace(task, features=features))
    events = features.events
    assert sorted(events) == sorted(
        (what, start) for what in ("computed", "read") for start in range(0, 50, 10)
    )
    # A read never waits for the visit of the batch before it.
    assert [start for what, start in events if what == "read"] == [0, 10, 20, 30, 40]
    for start in range(0, 50, 10):
        assert events.index(("read", start)) < events.index(("computed", start))


def test_what_fails_while_reading_is_raised(make_problem):
    class Gone(Counted):
        def read(self, rows):
            if rows.start == 20:
                raise OSError("gone")
            return super().read(rows)

    task = make_problem(50, batch_rows=10).task
    with pytest.raises(OSError, match="gone"):
        total(replace(task, features=Gone(task.features)))


@pytest.mark.parametrize("n_leaves", [1, 2, 3, 7, 13, LEAVES])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 70])
def test_the_sum_is_the_same_to_the_last_bit_in_any_world(n_leaves, size):
    """Each process adds up its leaves; then the nodes of all are put together from left to right."""
    values = torch.randn(n_leaves, generator=torch.Generator().manual_seed(n_leaves))

    def tree_of(world):
        tree = _Tree()
        for leaf in world.share_of(n_leaves):
            tree.add(0, leaf, [values[leaf].clone()])
        return tree

    whole = _Tree()
    for rank in range(size):
        for level, index, sums in tree_of(World(rank, size)).nodes():
            whole.add(level, index, [part.clone() for part in sums])
    expected = tree_of(World()).total()[0]
    assert torch.equal(whole.total()[0], expected)


def test_added_up_in_another_order_the_sum_differs():
    """Control of the test above."""
    values = torch.randn(61, generator=torch.Generator().manual_seed(13))
    tree = _Tree()
    for leaf, value in enumerate(values):
        tree.add(0, leaf, [value.clone()])
    one_after_the_other = torch.zeros(())
    for value in values.flip(0):
        one_after_the_other += value
    assert not torch.equal(tree.total()[0], one_after_the_other)


def test_a_tree_keeps_few_sums():
    tree = _Tree()
    for leaf in range(LEAVES - 1):
        tree.add(0, leaf, [torch.ones(1)])
        assert len(tree.nodes()) <= 6
    assert float(tree.total()[0]) == LEAVES - 1


def test_nothing_to_walk_is_a_sum_of_nothing(make_problem):
    task = make_problem().task
    empty = task.select(torch.zeros(0, dtype=torch.int64))
    found, seen = total(empty)
    assert seen == []
    assert torch.equal(found, torch.zeros(5).double())
