"""In which order samples are dropped: beside the rule carried out one sample at a time."""

import math
from dataclasses import replace

import pytest
import torch

from divacli.ridge import RANDOM, Kept, dropping_order, kept_fraction
from divacli.ridge.dropping import BALANCED, COVERAGE, EASY, RULES, Evidence

SIZES = (40, 13, 7, 1)


def known(seed=0, n_called=6):
    """Four classes of very unequal sizes, some samples called wrong."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(SIZES)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES))
    labels = labels[torch.randperm(n, generator=generator)]
    wrong = torch.rand(n, generator=generator, dtype=torch.float64)
    called = torch.zeros(n, dtype=torch.bool)
    called[torch.randperm(n, generator=generator)[:n_called]] = True
    loss, leverage = torch.rand(2, n, generator=generator, dtype=torch.float64)
    return Evidence(labels, wrong, called, loss, leverage, torch.randperm(n, generator=generator))


def shuffled(place, seed):
    """A number for each sample, all different, by its place: the draw as it is documented."""
    numbers = torch.randperm(len(place), generator=torch.Generator().manual_seed(seed)).tolist()
    by_place = sorted(range(len(place)), key=lambda row: int(place[row]))
    return {row: numbers[turn] for turn, row in enumerate(by_place)}


def one_at_a_time(rule, evidence, seed):
    """The rule in words: of the class with the largest n / sqrt(N) the next one goes."""
    draw = shuffled(evidence.place, seed)
    rows = range(len(evidence.labels))
    if rule == RANDOM:
        return sorted(rows, key=draw.__getitem__)
    called = [row for row in rows if evidence.called[row]]
    gone = sorted(called, key=lambda row: (-round(float(evidence.wrong[row]) * 1e6), draw[row]))
    first = {
        BALANCED: lambda row: -draw[row],
        COVERAGE: lambda row: round(1e4 * float(evidence.leverage[row] / evidence.leverage.max())),
        EASY: lambda row: -round(1e4 * float(evidence.loss[row] / evidence.loss.max())),
    }[rule]
    left = {}
    for row in rows:
        if not evidence.called[row]:
            left.setdefault(int(evidence.labels[row]), []).append(row)
    began = {label: len(members) for label, members in left.items()}
    for members in left.values():
        members.sort(key=lambda row: (first(row), draw[row]))
    while any(left.values()):
        # Of classes that are equally thin the one whose next sample was drawn first.
        label = min(
            (label for label in left if left[label]),
            key=lambda label: (-len(left[label]) / math.sqrt(began[label]), draw[left[label][0]]),
        )
        gone.append(left[label].pop(0))
    return gone


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_called", [0, 6, sum(SIZES)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_is_that_of_one_sample_at_a_time(rule, n_called, seed):
    evidence = known(seed, n_called)
    assert dropping_order(rule, evidence, seed + 5).tolist() == one_at_a_time(rule, evidence, seed + 5)


@pytest.mark.parametrize("rule", [BALANCED, COVERAGE, EASY])
def test_wrong_labels_go_first_the_most_probable_ones_before_others(rule):
    evidence = known(n_called=9)
    first = dropping_order(rule, evidence, 0)[:9]
    assert set(first.tolist()) == set(evidence.called.nonzero()[:, 0].tolist())
    assert evidence.wrong[first].tolist() == sorted(evidence.wrong[first].tolist(), reverse=True)


def test_random_does_not_look():
    evidence = known()
    other = replace(
        evidence, labels=evidence.labels.flip(0), called=~evidence.called, wrong=1 - evidence.wrong
    )
    assert torch.equal(dropping_order(RANDOM, evidence, 3), dropping_order(RANDOM, other, 3))
    assert not torch.equal(dropping_order(RANDOM, evidence, 3), dropping_order(RANDOM, evidence, 4))


def test_a_large_class_gives_more_of_its_samples():
    """Down to equal n / sqrt(N), which is what is left of each class."""
    labels = torch.repeat_interleave(torch.arange(2), torch.tensor([400, 25]))
    zeros = torch.zeros(425, dtype=torch.float64)
    evidence = Evidence(labels, zeros, zeros.bool(), zeros, None, torch.arange(425))
    left = dropping_order(BALANCED, evidence, 0)[275:]
    count = torch.bincount(labels[left]).double()
    # 150 are left of 425; 20 x and 5 x of them, so x = 6.
    assert count.tolist() == [125, 25]
    left = dropping_order(BALANCED, evidence, 0)[350:]
    assert torch.bincount(labels[left]).tolist() == [60, 15]


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_the_rows_does_not_matter(rule):
    evidence = replace(known(), loss=torch.zeros(61).double(), wrong=torch.full((61,), 0.99).double())
    expected = evidence.place[dropping_order(rule, evidence, 1)]
    for seed in range(3):
        stored = torch.randperm(61, generator=torch.Generator().manual_seed(seed))
        other = Evidence(
            *(getattr(evidence, name)[stored] for name in ("labels", "wrong", "called", "loss", "leverage")),
            evidence.place[stored],
        )
        assert torch.equal(other.place[dropping_order(rule, other, 1)], expected)


@pytest.mark.parametrize("rule", RULES)
def test_places_count_by_their_order_alone(rule):
    """Without a fold some places are missing, and nothing else has changed."""
    evidence = known()
    other = replace(evidence, place=evidence.place * 3 + 7)
    assert torch.equal(dropping_order(rule, evidence, 1), dropping_order(rule, other, 1))


def test_probabilities_that_differ_by_rounding_are_ties():
    evidence = known(n_called=sum(SIZES))
    near = replace(evidence, wrong=torch.full((61,), 0.75).double())
    nearer = replace(near, wrong=near.wrong + 1e-9 * evidence.wrong)
    assert torch.equal(dropping_order(BALANCED, near, 0), dropping_order(BALANCED, nearer, 0))


@pytest.mark.parametrize("rule", [COVERAGE, EASY])
def test_copies_that_differ_by_rounding_are_ties(rule):
    evidence = known(n_called=0)
    copied = torch.arange(61) // 2
    near = replace(evidence, loss=evidence.loss[copied], leverage=evidence.leverage[copied])
    nearer = replace(
        near, loss=near.loss + 1e-9 * evidence.wrong, leverage=near.leverage + 1e-9 * evidence.wrong
    )
    assert torch.equal(dropping_order(rule, near, 0), dropping_order(rule, nearer, 0))


@pytest.mark.parametrize("rule", RULES)
def test_of_no_samples_none_go(rule):
    none, nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    assert len(dropping_order(rule, Evidence(none, nothing, none.bool(), nothing, nothing, none), 0)) == 0


@pytest.mark.parametrize("rule", ["derivative", "", COVERAGE])
def test_a_rule_that_is_none_or_lacks_its_leverage_is_refused(rule):
    with pytest.raises(ValueError, match="expected one of balanced, coverage, easy, random"):
        dropping_order(rule, replace(known(), leverage=None), 0)


# Which samples stay


@pytest.mark.parametrize(
    ("n", "keep", "stays"),
    [
        (100, 0.55, 55),
        (70, 0.9, 63),
        (100, 0.29, 29),
        (10, 0.91, 10),
        (7, 0.5, 4),
        (50, 0.58, 29),
        (10, 1.0, 10),
    ],
)
def test_the_fraction_is_rounded_up(n, keep, stays):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    kept = kept_fraction(order, torch.zeros(n, dtype=torch.int64), keep)
    assert int(kept.stays.sum()) == stays
    assert not kept.rescued.any()
    # Those that come last in the order.
    assert set(kept.stays.nonzero()[:, 0].tolist()) == set(order[n - stays :].tolist())


def test_stratified_every_class_keeps_the_fraction():
    evidence = known()
    order = dropping_order(EASY, evidence, 0)
    kept = kept_fraction(order, evidence.labels, 0.5, stratify=True)
    counts = torch.bincount(evidence.labels[kept.stays])
    assert counts.tolist() == [math.ceil(size / 2) for size in SIZES]
    for label in range(4):
        mine = order[evidence.labels[order] == label]
        assert not kept.stays[mine[: len(mine) // 2]].any()
    plain = kept_fraction(order, evidence.labels, 0.5)
    assert torch.bincount(evidence.labels[plain.stays]).tolist() != counts.tolist()


def test_of_every_emptied_class_exactly_the_last_one_is_rescued():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 4])
    order = torch.tensor([5, 1, 4, 0, 3, 2, 6])
    stays = torch.tensor([True, False, False, False, False, False, True])
    kept = Kept.of(stays, labels, order)
    # Class 1 goes in the order 4, 3; class 2 is 5 alone; there is no class 3.
    assert kept.rescued.nonzero()[:, 0].tolist() == [3, 5]
    assert kept.stays.nonzero()[:, 0].tolist() == [0, 3, 5, 6]
    nothing = Kept.of(torch.zeros(7, dtype=torch.bool), labels, order)
    assert torch.equal(nothing.stays, nothing.rescued)
    assert nothing.stays.nonzero()[:, 0].tolist() == [2, 3, 5, 6]
    everything = Kept.of(torch.ones(7, dtype=torch.bool), labels, order)
    assert everything.stays.all()
    assert not everything.rescued.any()


def test_of_no_samples_none_stay():
    empty = torch.zeros(0, dtype=torch.int64)
    assert len(kept_fraction(empty, empty, 0.5).stays) == 0
