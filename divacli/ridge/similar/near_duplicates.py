"""Rows too close to be neighbours by chance: near-duplicates, found without an n x n matrix.

Near any row the others lie as if thrown at random into m dimensions, as many as the data have there: of n of
them `(k - 1) (r / r_k)^m` are expected within r, where r_k is the distance of the k-th. Two rows u_i and u_j,
at unit length, are near-duplicates where

    |u_i - u_j| < rho * min(s_i, s_j)        s_i = r_k(i), but between rho R and R = median r_k
                                             rho = (2 CHANCE / (n (k - 1)))^(1/m)

which `CHANCE` pairs of the whole set are expected to be by chance. The rule has no scale: as the ratio test
of Lowe (2004) does, it compares a distance with those of other neighbours. In few dimensions, where these
are close by nature, rho is small. A place denser than rho R is a crowd of copies. m is the maximum-likelihood
estimate of Levina and Bickel (2004), from ranks beyond those that copies take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.parallel import ALONE, World, world
from divacli.ridge.fit.rows import Rows
from divacli.ridge.fit.scaling import Scaling

CHANCE = 0.01
"""Pairs that a set without copies is expected to have all the same."""

LARGEST_RATIO = 0.6
"""At the most, whatever m: beyond it lie different things in one setting, as seen in photos."""

RANKS = (5, 20)
"""Ranks of the neighbours that give the dimension; k is the last."""

_SAMPLE = 512
"""Rows whose neighbours give the dimension and the median of r_k."""

_REFERENCES = 32_768
"""Rows among which the k nearest are sought; of larger sets a random part, and then k counts these."""

_COARSE, _FINE = 64, 128
"""Principal directions by which the distances of all pairs are bounded, and then those of the pairs left."""

_TILE, _CUDA_TILE = (1024, 4096), (4096, 16_384)
"""Pairs of rows that are bounded at a time, and on a CUDA device, which fewer would not fill."""

_BLOCK = 4096
"""Rows, or pairs, whose exact distances are taken at a time."""


@dataclass(frozen=True)
class NearDuplicates:
    """Sets of rows that near-duplicate pairs connect, over however many, and what pairs were judged by.

    Attributes:
        numbers: (n,) int64, the first row of the set that each is in: its own where it is alone.
        distance: (n,) float64 to the closest near-duplicate, both at unit length: `1 - distance^2 / 2` is the
            cosine. Infinite where there is none.
        dimension: m; infinite where neighbours lie all equally far, NaN where rows are too few to tell.
        ratio: rho; 0 where nothing can be told.
        typical: R.
    """

    numbers: Tensor
    distance: Tensor
    dimension: float
    ratio: float
    typical: float


def near_duplicates(
    features: Rows,
    order: Tensor,
    device: torch.device | None = None,
    done: Callable[[int], None] = lambda rows: None,
) -> NearDuplicates:
    """Find all sets of near-duplicates.

    No pair is missed: all are bounded by their distance in the leading principal directions, which is never
    the larger one, and those that the bound lets pass are measured. O(n^2) times `_COARSE`, in memory `_FINE`
    float32 for each row and otherwise some batches, however many pairs there are.

    Args:
        features: (n, d) raw features, no two rows of which are equal.
        order: (n,) int64 all row numbers in an order that is the samples' own: what is drawn at random is
            drawn by it, and does not depend on the order of rows.
        device: Where the computing is done; the CPU by default.
        done: Told how many rows more have been compared with all others.
    """
    n = features.shape[0]
    first, last = RANKS[0], min(RANKS[1], n // 3)
    numbers, distance = torch.arange(n), torch.full((n,), math.inf, dtype=torch.float64)
    if last < first + 3:
        return NearDuplicates(numbers, distance, math.nan, 0.0, math.nan)
    unit = _UnitRows(features, device or torch.device("cpu"))
    drawn = order[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    references, sample = drawn[:_REFERENCES].sort().values, drawn[:_SAMPLE].sort().values
    nearest = neighbour_distances(unit, sample, references, last)
    dimension, typical = local_dimension(nearest, first), float(nearest[:, -1].median())
    # Of all n rows so many lie within the k-th of the references.
    within = (last - 1) * n / len(references)
    ratio = min(LARGEST_RATIO, (2 * CHANCE / (n * within)) ** (1 / dimension))
    if ratio * typical == 0:
        return NearDuplicates(numbers, distance, dimension, 0.0, typical)

    points, everyone = _projected(unit, sample), torch.arange(n)
    close = torch.zeros(n, dtype=torch.bool)
    radii = torch.full((n,), ratio * typical)
    for pairs, _ in _pairs_within(unit, points, radii, everyone, done, world()):
        close[pairs] = True
    rows = everyone[world().merged(close.byte()) > 0]
    local = neighbour_distances(unit, rows, references, last)[:, -1].clamp(ratio * typical, typical)
    for pairs, distances in _pairs_within(unit, points[rows.to(points.device)], ratio * local, rows):
        _connect(numbers, pairs)
        distance.scatter_reduce_(0, pairs.flatten(), distances.repeat_interleave(2), "amin")
    return NearDuplicates(numbers, distance, dimension, ratio, typical)


def neighbour_distances(rows: Rows, queries: Tensor, references: Tensor, k: int) -> Tensor:
    """Distances (q, k) float64 from some rows to the nearest of others, ascending, on the CPU.

    Args:
        rows: (n, d) float64.
        queries: (q,) ascending row numbers.
        references: (m,) ascending row numbers, m > k. A row is no neighbour of itself.
        k: How many.
    """
    nearest = torch.empty(len(queries), k, dtype=torch.float64)
    for start in range(0, len(queries), _BLOCK):
        own = queries[start : start + _BLOCK]
        values = rows[own]
        found = values.new_full((len(own), k), math.inf)
        for others in _blocks(references):
            distances = _distances(values, rows[others])
            distances[(own[:, None] == others).to(distances.device)] = math.inf
            found = torch.cat([found, distances], dim=1).topk(k, largest=False).values
        nearest[start : start + _BLOCK] = found
    return nearest


def local_dimension(distances: Tensor, first: int) -> float:
    """In how many dimensions neighbours lie: the median over rows.

    Of points thrown at random into m dimensions `j log(r_{j+1} / r_j)` is exponential with mean 1/m.

    Args:
        distances: (q, k) to the nearest neighbours, ascending.
        first: The smallest j, from 1; the largest is k - 1.
    """
    known = distances.clamp_min(torch.finfo(distances.dtype).tiny)
    ranks = torch.arange(first, distances.shape[1], dtype=known.dtype)
    spacings = ranks * (known[:, first:] / known[:, first - 1 : -1]).log()
    mean = float(spacings.mean(dim=1).median())
    return math.inf if mean == 0 else 1 / mean


class _UnitRows:
    """The rows of a matrix at unit length, float64, on the computing device."""

    def __init__(self, features: Rows, device: torch.device) -> None:
        self._features, self.device = features, device
        self.shape = features.shape

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        return Scaling("unit")(self._features[rows].to(device=self.device, dtype=torch.float64))


def _projected(unit: _UnitRows, sample: Tensor) -> Tensor:
    """Coordinates (n, q) float32 of all rows in the principal directions of some, the leading one first."""
    some = unit[sample]
    centred = some - some.mean(dim=0)
    # By way of the inner products, which are few; the factorisation leaves no doubt that lengths only shrink.
    leading = torch.linalg.eigh(centred @ centred.T).eigenvectors[:, -_FINE:].flip(1)
    directions = torch.linalg.qr(centred.T @ leading).Q
    return torch.cat([(unit[block] @ directions).float() for block in _blocks(torch.arange(unit.shape[0]))])


def _pairs_within(
    unit: _UnitRows,
    points: Tensor,
    radii: Tensor,
    numbers: Tensor,
    done: Callable[[int], None] = lambda rows: None,
    here: World = ALONE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of rows that are closer than the radii of both, with their distances, some at a time.

    Args:
        unit: All rows.
        points: (m, q) some of them, projected.
        radii: (m,).
        numbers: (m,) their ascending row numbers.
        done: Told how many rows more have been compared with all others.
        here: The processes that share the rows: each finds the pairs of its own.
    """
    radii = radii.to(device=points.device, dtype=torch.float64)
    # What rounding may take from a squared distance of points of length 1 at the most.
    slack = 2 * (points.shape[1] + 4) * torch.finfo(points.dtype).eps
    reach = (radii.square() + slack).to(points.dtype)
    # A row of `left` times one of `right` is their squared distance but for the square of the first.
    coarse = points[:, :_COARSE]
    squares = coarse.square().sum(dim=1, keepdim=True)
    left = torch.cat([-2 * coarse, torch.ones_like(squares)], dim=1)
    right = torch.cat([coarse, squares], dim=1)
    height, width = _CUDA_TILE if points.is_cuda else _TILE
    for top in range(here.rank * height, len(points), here.size * height):
        for start in range(top, len(points), width):
            rows, columns = slice(top, top + height), slice(start, start + width)
            bound = left[rows] @ right[columns].T
            # Most rows of most tiles have nobody near.
            some = (bound.amin(dim=1, keepdim=True) + squares[rows] <= reach[rows, None]).nonzero()[:, 0]
            limits = torch.minimum(reach[rows][some, None], reach[columns])
            first, second = (bound[some] + squares[rows][some] <= limits).nonzero().unbind(dim=1)
            first, second = top + some[first], start + second
            first, second = first[first < second], second[first < second]
            if len(first) > bound.numel() // 100:
                # In a crowd one matrix product is less work than so many differences.
                distances = _distances(unit[numbers[rows]], unit[numbers[columns]])[
                    first - top, second - start
                ]
            else:
                bounds = (points[first] - points[second]).square().sum(dim=1)
                left_over = bounds <= torch.minimum(reach[first], reach[second])
                first, second = first[left_over], second[left_over]
                distances = _differences(unit, numbers[first.cpu()], numbers[second.cpu()])
            near = distances < torch.minimum(radii[first], radii[second])
            pairs = torch.stack([first[near], second[near]], dim=1)
            yield numbers[pairs.cpu()], distances[near].cpu()
        done(len(points[top : top + here.size * height]))


def _connect(numbers: Tensor, pairs: Tensor) -> None:
    """Give the rows (n,) that pairs (p, 2) connect one number, the smallest, in place."""
    while len(pairs):
        low, high = numbers[pairs].sort(dim=1).values.unbind(dim=1)
        pairs = pairs[low < high]
        numbers.scatter_reduce_(0, high, low, "amin")
        while bool((numbers[numbers] != numbers).any()):
            numbers.copy_(numbers[numbers])


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distances (a, b) of the rows (a, d) and (b, d)."""
    squares = one.square().sum(dim=1)[:, None] + other.square().sum(dim=1)
    return torch.addmm(squares, one, other.T, alpha=-2).clamp_min_(0).sqrt_()


def _differences(unit: _UnitRows, first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances (p,) of the rows of each pair."""
    parts = [torch.zeros(0, dtype=torch.float64, device=unit.device)]
    for pairs in _blocks(torch.stack([first, second], dim=1)):
        rows, place = torch.unique(pairs, return_inverse=True)
        values = unit[rows][place.to(unit.device)]
        parts.append(torch.linalg.vector_norm(values[:, 0] - values[:, 1], dim=1))
    return torch.cat(parts)


def _blocks(rows: Tensor) -> list[Tensor]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
