"""The share of wrong labels among disagreements, by what classes they are of."""

from __future__ import annotations

import math

import pytest
import torch

from divacli.ridge import RidgeTask, decompose, examine_disagreement, loo_predictions
from divacli.ridge.labels.disagreement import distant, one_way

K = 8
CIRCLE = torch.arange(K)
"""Classes on a circle: the distance of two is the number of steps between them."""


def steps() -> torch.Tensor:
    apart = (CIRCLE[:, None] - CIRCLE).abs()
    return torch.minimum(apart, K - apart).double()


def near(classes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of the two neighbours of each class."""
    return (classes + 2 * torch.randint(0, 2, classes.shape, generator=generator) - 1) % K


def anywhere(classes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Any other class."""
    return (classes + torch.randint(1, K, classes.shape, generator=generator)) % K


def mixed(share: float, n: int = 4000, seed: int = 0):
    """Predicted, given and second class of disagreements, so many of them with a label drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(0, K, (n,), generator=generator)
    wrong = torch.rand(n, generator=generator) < share
    given = torch.where(wrong, anywhere(first, generator), near(first, generator))
    return first, given, near(first, generator)


def counted(first: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Number of disagreements by predicted class and label."""
    return torch.bincount(first * K + given, minlength=K * K).double().view(K, K)


def estimate(first, given, second) -> float:
    return distant(first, given, second, torch.ones(K).double(), steps())


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_the_share_of_labels_drawn_at_random_is_found(share):
    assert estimate(*mixed(share)) == pytest.approx(share, abs=0.06)


def test_the_share_is_the_quotient_of_the_two_means():
    first, given, second = mixed(0.5, n=300)
    generator = torch.Generator().manual_seed(2)
    distances = steps() + torch.rand(K, K, generator=generator).double() / 10
    distances.fill_diagonal_(0)
    counts = torch.rand(K, generator=generator).double()
    gain = most = 0.0
    for c, y, s in zip(first.tolist(), given.tolist(), second.tolist(), strict=True):
        others = sorted((other for other in range(K) if other != c), key=distances[c].tolist().__getitem__)
        rank = {other: place / (K - 2) for place, other in enumerate(others)}
        usual = sum(counts[other] * rank[other] for other in others) / (counts.sum() - counts[c])
        gain += rank[y] - rank[s]
        most += float(usual) - rank[s]
    assert distant(first, given, second, counts, distances) == pytest.approx(gain / most)


def test_confusions_of_near_classes_are_no_wrong_labels():
    for seed in range(10):
        assert estimate(*mixed(0.0, seed=seed)) == 0


def test_a_label_that_is_the_second_class_says_nothing():
    first, given, _ = mixed(1.0)
    assert estimate(first, given, given) == 0


def test_few_disagreements_and_unknown_classes_are_left_out():
    first, given, second = mixed(0.7)
    assert estimate(first[:19], given[:19], second[:19]) == 0
    # A class that no prediction agrees with has no place.
    distances = steps()
    distances[3, :] = distances[:, 3] = math.inf
    distances[3, 3] = 0
    counts = torch.ones(K).double()
    kept = (first != 3) & (given != 3) & (second != 3)
    rest = [classes[kept] for classes in (first, given, second)]
    found = distant(first, given, second, counts, distances)
    assert found == pytest.approx(0.7, abs=0.07)
    assert found == pytest.approx(distant(*rest, counts, distances))
    distances[:] = math.inf
    assert distant(first, given, second, counts, distances.fill_diagonal_(0)) == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_labels_that_go_one_way_are_told_from_mutual_confusions(share):
    generator = torch.Generator().manual_seed(1)
    n = 3000
    # Some classes are predicted more often than others.
    first = torch.multinomial(torch.linspace(1, 4, K), n, replacement=True, generator=generator)
    moved = torch.rand(n, generator=generator) < share
    given = torch.where(moved, (first + 1) % K, near(first, generator))
    found = one_way(counted(first, given))
    if share == 0:
        assert found == 0
    else:
        # Of what goes round a circle, half is taken for a difference of the classes' frequency at the most.
        assert share / 2 - 0.05 <= found <= share + 0.05


def gaussians(n: int, rate: float, groups: torch.Tensor | None = None) -> RidgeTask:
    """Features around classes on a circle, and labels that are wrong at a rate."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, K, (n,), generator=generator)
    angle = truth * 2 * math.pi / K
    features = torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], dim=1)
    features = torch.cat([features, torch.zeros(n, 6)], dim=1)
    features = features + 0.35 * torch.randn(n, 10, generator=generator)
    wrong = torch.rand(n, generator=generator) < rate
    labels = torch.where(wrong, anywhere(truth, generator), truth)
    weights = torch.ones(n, dtype=torch.float64)
    return RidgeTask(features.double(), labels, K, weights, groups=groups, dtype=torch.float64)


@pytest.mark.parametrize("grouped", [False, True])
def test_of_a_problem_all_is_found_in_one_pass(grouped):
    n = 2000
    task = gaussians(n, 0.3, torch.arange(n) // 2 if grouped else None)
    fit = decompose(task).fit(1.0)
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(1))[:1500]
    found = examine_disagreement(task, fit, rows)
    predictions = loo_predictions(task, fit, rows)
    first, second = predictions.topk(2, dim=1).indices.T
    labels = task.labels[rows]
    other, agree = first != labels, first == labels
    means = torch.stack([task.features[rows][agree & (labels == c)].mean(dim=0) for c in range(K)])
    frequency = torch.bincount(labels, minlength=K).double()
    expected = distant(first[other], labels[other], second[other], frequency, torch.cdist(means, means))
    assert found.share == pytest.approx(expected, abs=1e-9)
    counts = counted(first[other], labels[other])
    assert found.one_way == one_way(counts) == 0
    assert torch.equal(found.ways, counts > 1.5 * counts.T)
    wrong = float(other.double().mean())
    assert 0.2 / wrong < found.share < 0.4 / wrong


def test_of_many_samples_evenly_spaced_ones_are_looked_at(monkeypatch):
    task = gaussians(900, 0.3)
    fit = decompose(task).fit(1.0)
    rows = torch.randperm(900)
    expected = examine_disagreement(task, fit, rows[::3])
    monkeypatch.setattr("divacli.ridge.labels.disagreement._MOST_ROWS", 300)
    found = examine_disagreement(task, fit, rows)
    assert found.share == expected.share > 0
    assert torch.equal(found.ways, expected.ways)


def test_nothing_is_estimated_from_few_classes_or_disagreements():
    task = gaussians(400, 0.0)
    fit = decompose(task).fit(1.0)
    right = loo_predictions(task, fit, torch.arange(400)).argmax(dim=1) == task.labels
    assert examine_disagreement(task, fit, right.nonzero()[:, 0]).share == 0
    assert examine_disagreement(task, fit, torch.zeros(0, dtype=torch.int64)).share == 0
    few = RidgeTask(task.features, task.labels % 3, 3, task.weights, dtype=torch.float64)
    assert examine_disagreement(few, decompose(few).fit(1.0), torch.arange(400)).share == 0
