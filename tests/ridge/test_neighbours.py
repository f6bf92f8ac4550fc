"""Near-duplicates: against all n x n distances, and what chance makes of data without copies."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from divacli.ridge import NearDuplicates, near_duplicates
from divacli.ridge.similar import near_duplicates as neighbours
from divacli.ridge.similar.near_duplicates import local_dimension, neighbour_distances


def random_rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_copies(
    rows: torch.Tensor, n_copies: int, noise: float | torch.Tensor, seed: int = 1
) -> torch.Tensor:
    """The rows, then noisy copies of the first ones, longer by a factor that should not matter."""
    change = random_rows(n_copies, rows.shape[1], seed)
    lengths = noise * rows[:n_copies].norm(dim=1, keepdim=True) / change.norm(dim=1, keepdim=True)
    return torch.cat([rows, 3 * (rows[:n_copies] + lengths * change)])


def found_in(rows: torch.Tensor, order: torch.Tensor | None = None) -> NearDuplicates:
    return near_duplicates(rows, torch.arange(len(rows)) if order is None else order)


def sets_of(found: NearDuplicates) -> list[list[int]]:
    """Members of every set of two or more."""
    members: dict[int, list[int]] = {}
    for row, number in enumerate(found.numbers.tolist()):
        members.setdefault(number, []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


def brute_force(rows: torch.Tensor, first: int = 5, last: int = 20) -> tuple[list[int], np.ndarray]:
    """The rule written out with the whole matrix of distances: numbers of sets, distance to the closest."""
    values = rows.numpy()
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(norms > 0, norms, 1)
    n, last = len(unit), min(last, len(unit) // 3)
    distances = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.sort(distances, axis=1)[:, :last]
    slopes = [np.mean([j * np.log(row[j] / row[j - 1]) for j in range(first, last)]) for row in nearest]
    dimension = 1 / np.sort(slopes)[(n - 1) // 2]
    typical = np.sort(nearest[:, -1])[(n - 1) // 2]
    ratio = min(0.6, (2 * 0.01 / (n * (last - 1))) ** (1 / dimension))
    scale = np.clip(nearest[:, -1], ratio * typical, typical)
    near = distances < ratio * np.minimum(scale, scale[:, None])
    numbers = list(range(n))
    for row in range(n):
        reached = {row}
        while more := {other for one in reached for other in np.flatnonzero(near[one])} - reached:
            reached |= more
        numbers[row] = min(reached)
    return numbers, np.where(near, distances, np.inf).min(axis=1)


CASES = {
    "few dimensions": lambda: with_copies(random_rows(150, 4), 20, 1e-3),
    "many": lambda: with_copies(random_rows(300, 80), 60, 0.3),
    "copies at every distance": lambda: with_copies(
        random_rows(250, 60) + torch.linspace(0, 3, 250)[:, None],
        200,
        torch.linspace(0.05, 0.9, 200)[:, None],
    ),
    "more columns than rows": lambda: with_copies(random_rows(60, 200), 8, 0.2),
    "every row has three copies": lambda: torch.cat(
        [
            random_rows(100, 40),
            *(with_copies(random_rows(100, 40), 100, 0.1, seed)[100:] for seed in (1, 2, 3)),
        ]
    ),
    "a chain": lambda: torch.cat([random_rows(200, 30), 5 * torch.ones(1, 30) + torch.eye(30)[:8].cumsum(0)]),
    "a crowd": lambda: torch.cat([random_rows(200, 30), 1 + 1e-2 * random_rows(150, 30, 1)]),
    "uneven density": lambda: with_copies(
        random_rows(200, 30) * torch.logspace(-2, 0, 200)[:, None] + torch.ones(30), 30, 2e-4
    ),
}


@pytest.mark.parametrize("tile", [(1024, 4096), (16, 40)], ids=["one-tile", "tiles"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_they_are_those_of_all_distances(case, tile, monkeypatch):
    monkeypatch.setattr(neighbours, "_TILE", tile)
    monkeypatch.setattr(neighbours, "_BLOCK", 7 * tile[0])
    monkeypatch.setattr(neighbours, "_COARSE", 3)
    monkeypatch.setattr(neighbours, "_FINE", 6)
    rows = CASES[case]()
    numbers, closest = brute_force(rows)
    found = found_in(rows)
    assert found.numbers.tolist() == numbers
    np.testing.assert_allclose(found.distance.numpy(), closest, atol=1e-7)
    assert len(rows) - len(set(numbers)) >= 7


def test_planted_copies_are_found_and_nothing_else():
    rows = with_copies(random_rows(1500, 60), 300, 0.2)
    found = found_in(rows)
    assert sets_of(found) == [[row, 1500 + row] for row in range(300)]
    cosine = torch.nn.functional.cosine_similarity(rows[:300], rows[1500:])
    torch.testing.assert_close(1 - found.distance[1500:].square() / 2, cosine, atol=1e-12, rtol=0)
    assert bool(found.distance[300:1500].isinf().all())


def test_more_copies_than_neighbours_that_are_looked_at():
    rows = torch.cat([with_copies(random_rows(600, 30), 5, 0.1), 1 + 1e-2 * random_rows(250, 30, 1)])
    assert sets_of(found_in(rows)) == [*([row, 600 + row] for row in range(5)), [*range(605, 855)]]


@pytest.mark.parametrize("references", [32_768, 300])
def test_the_order_of_rows_changes_nothing(references, monkeypatch):
    monkeypatch.setattr(neighbours, "_REFERENCES", references)
    monkeypatch.setattr(neighbours, "_SAMPLE", 100)
    rows = with_copies(random_rows(700, 40), 50, 0.2)
    expected = found_in(rows)
    assert len(sets_of(expected)) == 50
    shuffled = torch.randperm(750, generator=torch.Generator().manual_seed(5))
    # The same samples in the same order of their own, which is where in the shuffled rows each stands now.
    found = found_in(rows[shuffled], shuffled.argsort())
    assert sorted(sorted(shuffled[rows].tolist()) for rows in sets_of(found)) == sets_of(expected)
    torch.testing.assert_close(found.distance, expected.distance[shuffled])
    assert (found.dimension, found.ratio) == pytest.approx((expected.dimension, expected.ratio))


@pytest.mark.parametrize(("d", "references"), [(4, 32_768), (7, 32_768), (20, 32_768), (4, 200), (7, 200)])
def test_chance_makes_about_as_many_pairs_as_it_says(d, references, monkeypatch):
    """On a sphere, which has no edge; that three distances must be the larger makes it somewhat fewer."""
    monkeypatch.setattr(neighbours, "_REFERENCES", references)
    monkeypatch.setattr(neighbours, "_SAMPLE", 200)
    monkeypatch.setattr(neighbours, "CHANCE", 30)
    monkeypatch.setattr(neighbours, "LARGEST_RATIO", 1.0)
    counts = [len(sets_of(found_in(random_rows(1000, d, seed)))) for seed in range(4)]
    assert 12 <= np.mean(counts) <= 40


@pytest.mark.parametrize("d", [2, 3, 8, 40])
def test_random_rows_have_none(d):
    assert sum(len(sets_of(found_in(random_rows(200, d, seed)))) for seed in range(25)) <= 2


def test_digits_have_none_and_their_copies_are_found():
    digits = torch.from_numpy(load_digits().data)
    assert sets_of(found_in(digits)) == []
    found = found_in(with_copies(digits, 100, 0.02))
    assert sets_of(found) == [[row, len(digits) + row] for row in range(100)]
    assert found.dimension < 9


@pytest.mark.parametrize("d", [3, 9])
def test_the_dimension_of_a_sphere(d):
    unit = torch.nn.functional.normalize(random_rows(1500, d + 1))
    everyone = torch.arange(1500)
    distances = neighbour_distances(unit, everyone[:200], everyone, 20)
    assert local_dimension(distances, 5) == pytest.approx(d, rel=0.2)


def test_neighbours_that_lie_equally_far_have_no_dimension():
    assert local_dimension(torch.ones(4, 20, dtype=torch.float64), 5) == math.inf
    assert sets_of(found_in(torch.eye(60))) == []


def test_distances_to_neighbours(monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 11)
    rows = random_rows(50, 6)
    queries, references = torch.arange(3, 40), torch.arange(0, 50, 2)
    whole = torch.cdist(rows, rows)
    whole.fill_diagonal_(math.inf)
    expected = whole[queries][:, references].sort(dim=1).values[:, :4]
    torch.testing.assert_close(neighbour_distances(rows, queries, references, 4), expected)


def test_too_few_rows_to_tell():
    found = found_in(with_copies(random_rows(20, 30), 3, 0.01))
    assert (sets_of(found), found.ratio) == ([], 0.0)
    assert math.isnan(found.dimension)
    assert len(found_in(torch.zeros(0, 5)).numbers) == 0


@pytest.mark.parametrize("kind", ["rows of zeros", "one direction"])
def test_rows_that_all_lie_in_one_place_are_none(kind):
    rows = torch.zeros(80, 5) if kind == "rows of zeros" else torch.arange(1, 81)[:, None] * torch.ones(5)
    found = found_in(rows.double())
    assert (sets_of(found), found.typical) == ([], pytest.approx(0, abs=1e-7))


def test_every_row_is_told_of_once():
    told: list[int] = []
    near_duplicates(random_rows(3000, 8), torch.arange(3000), done=told.append)
    assert sum(told) == 3000
    assert len(told) > 1
