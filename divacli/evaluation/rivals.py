"""What a manifest has to beat: everything, random choices of its size, a whole pool; and the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from divacli.errors import DataError, listed
from divacli.evaluation.evaluate import EVERYTHING, ORACLE, WHOLE_POOL, TrainingSet, random_values
from divacli.features import Samples, joined
from divacli.solve.overlap import which_shared


@dataclass(frozen=True)
class Pool:
    """Samples that could have been added to everything.

    Attributes:
        samples: (p) those that everything lacks, labelled, with positive weights.
        right: (p,) bool, which have their true label; None where it is not known.
        given: The pool with those that everything has, too: a manifest may name these by the pool's files.
    """

    samples: Samples
    right: np.ndarray | None
    given: Samples

    @classmethod
    def beside(cls, data: Samples, given: Samples, right: np.ndarray | None) -> Pool:
        """The part of a pool that everything lacks.

        Args:
            data: Everything.
            given: (g) the pool.
            right: (g,) bool, which have their true label; None where it is not known.

        Raises:
            DataError: Everything has all of them.
        """
        new = ~which_shared(data, given)
        if not new.any():
            raise DataError(
                f"all {len(given):,} samples of {given.manifest.name} are in {data.manifest.name}",
                expected="a pool with samples that could be added",
                hint="give the pool that diva extend chose from",
            )
        return cls(given.select(new), None if right is None else right[new], given)


@dataclass(frozen=True)
class _Size:
    """What a manifest is to be compared with.

    Attributes:
        kept: Samples of everything that a random choice has; None for no random choice among these.
        added: Samples of the pool that a random choice adds; None for no random choice among these.
        extends: True if it has samples of the pool.
    """

    kept: int | None = None
    added: int | None = None
    extends: bool = False

    @property
    def rivals(self) -> tuple[str, ...]:
        """Names of the sets that the manifest has to beat."""
        names = [EVERYTHING]
        if self.kept is not None:
            names.append(_random_name(self.kept))
        if self.added is not None:
            names.append(_pool_name(self.added))
        return (*names, WHOLE_POOL) if self.extends else tuple(names)


def rivals(
    data: Samples,
    manifests: dict[str, Samples],
    seeds: Sequence[int],
    right: np.ndarray | None = None,
    pool: Pool | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> list[TrainingSet]:
    """Everything, the manifests, random choices as large as each, the whole pool, and the oracle.

    A manifest smaller than everything has random choices of everything as rivals. One that extends everything
    by samples of the pool has everything with random samples of the pool, and everything with all of it.

    Args:
        data: (n) everything, with positive weights.
        manifests: What is judged, by name.
        seeds: Each gives one random choice of a size; a smaller choice of one seed is part of a larger one.
        right: (n,) bool, samples whose label is true; None where it is not known.
        pool: What could have been added to everything.
        warn: Told of manifests that have no random choices as rivals, and of an oracle that cannot be.

    Raises:
        DataError: Two sets of one name, or right labels of fewer than two classes.
    """
    sizes = {name: _size(data, name, samples, pool, warn) for name, samples in manifests.items()}
    sets = [
        TrainingSet(EVERYTHING, data),
        *(TrainingSet(name, samples, rivals=sizes[name].rivals) for name, samples in manifests.items()),
    ]
    order = {seed: random_values(data, seed) for seed in seeds}
    for size in sorted({size.kept for size in sizes.values() if size.kept is not None}):
        sets += [TrainingSet(_random_name(size), _smallest(data, order[seed], size), seed) for seed in seeds]
    extends = any(size.extends for size in sizes.values())
    if pool is not None and extends:
        added = {size.added for size in sizes.values() if size.added is not None}
        sets += _additions(data, pool.samples, sorted(added), seeds)
    elif pool is not None:
        warn(f"no manifest has samples that only {pool.given.manifest.name} has: it gives no rivals")
    if right is not None:
        sets += _oracle(data, right, pool if extends else None, warn)
    _require_names(sets)
    return sets


def _size(
    data: Samples, name: str, samples: Samples, pool: Pool | None, warn: Callable[[str], None]
) -> _Size:
    """What one manifest is compared with; a warning says why it has no random choices as rivals."""
    smaller = _Size(kept=len(samples) if len(samples) < len(data) else None)
    if pool is None:
        return smaller
    more = ~which_shared(data, samples)
    added = more & which_shared(pool.given, samples)
    n_more, n_added = int(more.sum()), int(added.sum())
    n_missing = int((~which_shared(samples, data)).sum())
    source, everything = pool.given.manifest.name, data.manifest.name
    if n_more > n_added:
        warn(
            f"{n_more - n_added:,} of the {len(samples):,} samples of {name} are neither in {everything} nor "
            f"in {source}: it is compared with no random choices"
        )
        return _Size(extends=n_added > 0)
    if n_added and n_missing:
        warn(
            f"{name} has {n_added:,} samples of {source} and lacks {n_missing:,} of {everything}: "
            "it is compared with no random choices"
        )
        return _Size(extends=True)
    if not n_added:
        return smaller
    return _Size(added=n_added if n_added < len(pool.samples) else None, extends=True)


def _additions(data: Samples, pool: Samples, sizes: Iterable[int], seeds: Sequence[int]) -> list[TrainingSet]:
    """Everything with random choices of a pool, then with all of it."""
    order = {seed: random_values(pool, seed) for seed in seeds}
    return [
        *(
            TrainingSet(_pool_name(size), joined(data, _smallest(pool, order[seed], size)), seed)
            for size in sizes
            for seed in seeds
        ),
        TrainingSet(WHOLE_POOL, joined(data, pool)),
    ]


def _oracle(
    data: Samples, right: np.ndarray, pool: Pool | None, warn: Callable[[str], None]
) -> list[TrainingSet]:
    """The rightly labelled samples of everything and, where manifests extend it, of the pool.

    Raises:
        DataError: Right labels of fewer than two classes.
    """
    if pool is not None and pool.right is None:
        warn(f"no oracle: the true labels of {pool.given.manifest.name} are not known, or not all of them")
        return []
    classes = data.manifest.table["label"][right].nunique()
    if classes < 2:
        raise DataError(
            f"{data.manifest.name}: {int(right.sum()):,} labels are right, in {classes} classes",
            expected="right labels in two classes or more",
            hint="check that the truth names the classes as the samples do",
        )
    samples = data.select(right)
    if pool is not None and pool.right is not None and pool.right.any():
        samples = joined(samples, pool.samples.select(pool.right))
    return [TrainingSet(ORACLE, samples)]


def _require_names(sets: Sequence[TrainingSet]) -> None:
    """Refuse two sets of one name.

    Raises:
        DataError: Which name.
    """
    names = [part.name for part in sets if part.seed is None]
    names += {part.name for part in sets if part.seed is not None}
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"two training sets are called {listed(twice)}",
            expected="a name of its own for each",
            hint=f"type the path otherwise, such as ./{twice[0]}",
        )


def _smallest(samples: Samples, values: np.ndarray, size: int) -> Samples:
    """The samples with the smallest values, in their own order."""
    return samples.select(np.isin(np.arange(len(samples)), np.argsort(values)[:size]))


def _random_name(size: int) -> str:
    return f"random {size}"


def _pool_name(size: int) -> str:
    return f"random pool {size}"
