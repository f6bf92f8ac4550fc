"""Random folds: balanced, groups whole, and the same whatever the order in which samples are stored."""

from collections import Counter

import pytest
import torch

from divacli.ridge import split_in_folds


def drawn(n, k, seed=0):
    """Labels of classes of unequal sizes."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.arange(1, k + 1).double()
    return torch.multinomial(shares, n, replacement=True, generator=generator)


def shuffled(n, seed):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def spread(numbers, fold, n_folds, value):
    """The largest minus the smallest number of samples of a value that a fold has."""
    counts = torch.bincount(fold[numbers == value], minlength=n_folds)
    return int(counts.max() - counts.min())


@pytest.mark.parametrize("groups", [None, "alone"])
@pytest.mark.parametrize("n_folds", [2, 3, 5])
@pytest.mark.parametrize("n", [4, 37, 500])
def test_every_class_is_balanced_to_one_sample(n, n_folds, groups):
    labels = drawn(n, 4)
    given = None if groups is None else torch.arange(n) - 5
    fold = split_in_folds(labels, torch.arange(n), 0, n_folds, given)
    assert fold.shape == (n,)
    assert fold.dtype == torch.int64
    assert 0 <= int(fold.min()) <= int(fold.max()) < n_folds
    for label in labels.unique():
        assert spread(labels, fold, n_folds, label) <= 1
    assert spread(torch.zeros(n), fold, n_folds, 0) <= 1


def test_more_folds_than_samples_leave_some_empty():
    fold = split_in_folds(torch.tensor([0, 1, 0]), torch.arange(3), 0, 5)
    assert len(set(fold.tolist())) == 3


@pytest.mark.parametrize("n_folds", [2, 5])
def test_groups_are_whole_and_the_folds_roughly_balanced(n_folds):
    """Groups of 1 to 12 samples, of one class each or of several."""
    generator = torch.Generator().manual_seed(1)
    groups = torch.repeat_interleave(torch.arange(100), torch.randint(1, 13, (100,), generator=generator))
    groups = groups[shuffled(len(groups), 2)]
    for labels in (groups % 4, drawn(len(groups), 4)):
        fold = split_in_folds(labels, torch.arange(len(groups)), 0, n_folds, groups)
        for group in groups.unique():
            assert len(set(fold[groups == group].tolist())) == 1
        # The last group to come is a small one.
        for label in range(4):
            assert spread(labels, fold, n_folds, label) <= 12
        assert spread(torch.zeros(len(groups)), fold, n_folds, 0) <= 30


def test_without_the_groups_they_are_torn():
    """Negative control of the test above."""
    groups = torch.arange(60) // 6
    fold = split_in_folds(groups % 3, torch.arange(60), 0, 5)
    assert all(len(set(fold[groups == group].tolist())) > 1 for group in range(10))


def test_one_large_group_does_not_draw_the_rest_of_its_class_along():
    groups = torch.cat([torch.zeros(50, dtype=torch.int64), torch.arange(1, 51)])
    fold = split_in_folds(torch.zeros(100, dtype=torch.int64), torch.arange(100), 0, 2, groups)
    assert Counter(fold.tolist()) == {0: 50, 1: 50}


@pytest.mark.parametrize("groups", [None, "grouped"])
def test_the_parts_follow_the_order_and_not_the_storage(groups):
    """Stored in another order, with `order` naming the same samples in turn."""
    n = 120
    labels = drawn(n, 3)
    given = None if groups is None else drawn(n, 40, seed=1) * 7
    order = shuffled(n, 3)
    expected = split_in_folds(labels, order, 5, 4, given)
    stored = shuffled(n, 4)
    place = stored.argsort()  # of each sample in the new storage
    found = split_in_folds(labels[stored], place[order], 5, 4, None if given is None else given[stored])
    assert torch.equal(found, expected[stored])
    other = split_in_folds(labels[stored], torch.arange(n), 5, 4, None if given is None else given[stored])
    assert not torch.equal(other, expected[stored])


@pytest.mark.parametrize("groups", [None, "grouped"])
def test_the_seed_alone_draws(groups):
    labels = drawn(100, 3)
    given = None if groups is None else torch.arange(100) // 2
    draws = []
    for seed in (0, 1, 2, 0):
        torch.manual_seed(len(draws))  # not of the global generator
        draws.append(split_in_folds(labels, torch.arange(100), seed, 5, given))
    assert torch.equal(draws[0], draws[3])
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])


def test_every_sample_may_land_in_every_fold():
    labels = drawn(20, 2)
    folds = torch.stack([split_in_folds(labels, torch.arange(20), seed, 4) for seed in range(60)])
    assert all(len(set(column.tolist())) == 4 for column in folds.T)
