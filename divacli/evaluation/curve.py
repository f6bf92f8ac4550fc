"""Test error against the fraction of samples removed, or of a pool added, by several orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from divacli.curate.extend import extend
from divacli.curate.pool_rule import ExtendOptions
from divacli.curate.prune_rules import CRITERIA, choose_kept
from divacli.curate.sample_scores import ScoreResult
from divacli.errors import DataError
from divacli.evaluation.evaluate import EVERYTHING, TrainingSet, measure, random_values, summarise
from divacli.evaluation.learners import Learner, ridge_outputs
from divacli.features import Samples, joined
from divacli.features.samples import require_same_features
from divacli.manifest import Manifest
from divacli.progress import Progress, silent
from divacli.solve.ridge_problem import SolveOptions

RANDOM = "random"
_ROW = "row of the pool"

OrderOfPool = Callable[[Samples, Samples], np.ndarray]
"""From core (n) and pool (m) to row numbers of the pool (at most m), those to be added first coming first."""


@dataclass(frozen=True)
class Point:
    """One training set of a curve.

    Attributes:
        rule: What its samples were chosen by.
        fraction: How much was removed or added.
        samples: What is trained on.
        seed: Of a random choice; None for another.
    """

    rule: str
    fraction: float
    samples: Samples
    seed: int | None = None


@dataclass(frozen=True)
class Curve:
    """Test error by rule and fraction.

    Attributes:
        verb: What happened to the fraction: "removed" or "added".
        table: One row a training: rule, fraction, and the columns of
            `divacli.evaluation.evaluate.measure` but
            training_set; `difference` is to fraction 0, which every rule has. By learner, rule, fraction and
            seed.
        summary: Means and spread over seeds by learner, rule and fraction.
        n_test: Samples of the test set.
    """

    verb: str
    table: pd.DataFrame
    summary: pd.DataFrame
    n_test: int


def removals(result: ScoreResult, fractions: Sequence[float], seeds: Sequence[int]) -> list[Point]:
    """What is left when the worst samples are removed: by derivative, by LOO loss, and at random.

    Each is what `diva prune` keeps: no class is emptied, by any rule.

    Args:
        result: Scores of the samples.
        fractions: Of the samples to remove, in (0, 1).
        seeds: Each is one random order.
    """
    table = result.table.iloc[np.argsort(result.order)].reset_index(drop=True)
    draws = {seed: random_values(result.samples, seed) for seed in seeds}
    points = []
    for fraction in fractions:
        for rule, seed in [*((rule, None) for rule in CRITERIA), *((RANDOM, seed) for seed in seeds)]:
            values = table if seed is None else table.assign(random=draws[seed])
            kept = choose_kept(values, keep=1 - fraction, by=rule).kept
            points.append(Point(rule, fraction, result.samples.select(kept), seed))
    return points


def additions(
    core: Samples,
    pool: Samples,
    orders: dict[str, OrderOfPool],
    fractions: Sequence[float],
    seeds: Sequence[int],
) -> list[Point]:
    """The core with the best part of a pool: by several orders, and at random.

    Args:
        core: Samples that are always there.
        pool: (m) labelled samples to add.
        orders: By name. One that leaves pool samples out has its last point where it ends.
        fractions: Of the pool to add, in (0, 1].
        seeds: Each is one random order.

    Returns:
        The points, ascending in fraction; none of them adds nothing.

    Raises:
        DataError: The pool's features are of another width or network, or it has no labels.
    """
    require_same_features(core, pool)
    require_labels(pool.manifest)
    ranked: list[tuple[str, int | None, np.ndarray]]
    ranked = [(rule, None, order(core, pool)) for rule, order in orders.items()]
    ranked += [(RANDOM, seed, np.argsort(random_values(pool, seed))) for seed in seeds]
    points = []
    for rule, seed, order in ranked:
        for fraction in {min(fraction, len(order) / len(pool)) for fraction in fractions}:
            if n := round(fraction * len(pool)):
                chosen = np.isin(np.arange(len(pool)), order[:n])
                points.append(Point(rule, fraction, joined(core, pool.select(chosen)), seed))
    return sorted(points, key=lambda point: point.fraction)


def by_derivative(options: SolveOptions, validation: Samples | None, progress: Progress) -> OrderOfPool:
    """Order a pool as `diva extend --by derivative` without a budget does; what it leaves out comes never.

    Args:
        options: How the core's problem is posed.
        validation: A set to serve in the place of the core's leave-one-out loss.
        progress: Told of every sample that is chosen.
    """

    def order(core: Samples, pool: Samples) -> np.ndarray:
        table = pool.manifest.table.assign(**{_ROW: np.arange(len(pool))})
        numbered = replace(pool, manifest=replace(pool.manifest, table=table))
        how = ExtendOptions(by="derivative", forecast=False)
        result = extend(core, numbered, options, how, validation, progress)
        return result.selected[_ROW].to_numpy()

    return order


def by_loss(options: SolveOptions) -> OrderOfPool:
    """Order a pool by the squared loss of its labels under the core's ridge model, smallest first.

    Args:
        options: How the core's ridge problem is posed.
    """

    def order(core: Samples, pool: Samples) -> np.ndarray:
        outputs = ridge_outputs(core, pool, options).numpy()
        number = pd.Index(core.manifest.classes).get_indexer(pd.Index(pool.manifest.table["label"]))
        # The model knows nothing of a class that only the pool has: its output is 0.
        own = np.where(number < 0, 0, outputs[np.arange(len(pool)), number])
        loss = (outputs**2).sum(axis=1) + 1 - 2 * own
        return np.lexsort((pool.manifest.table["path"].to_numpy(str), loss))

    return order


def require_labels(pool: Manifest) -> None:
    """Refuse a pool without labels.

    Raises:
        DataError: It has none.
    """
    if not pool.labelled:
        raise DataError(
            f"{pool.name} has no labels",
            expected="a label in every row: what is added is trained on",
            hint="add the column label",
        )


def measure_curve(
    verb: str,
    start: Samples,
    points: Iterable[Point],
    test: Samples,
    learners: Iterable[Learner],
    seeds: Sequence[int],
    progress: Progress = silent,
) -> Curve:
    """Train on every point of a curve and test.

    Args:
        verb: "removed" or "added".
        start: Fraction 0 of every rule.
        points: The others, ascending in fraction.
        test: (m) held-out samples, with positive weights.
        learners: What is trained.
        seeds: Of learners that are random, and those of the points.
        progress: Told of every training that is done.
    """
    chosen = {str(number): point for number, point in enumerate(points)}
    sets = [TrainingSet(EVERYTHING, start)]
    sets += [TrainingSet(name, point.samples, point.seed) for name, point in chosen.items()]
    table = measure(sets, test, learners, seeds, progress)
    names = table.pop("training_set")
    table.insert(0, "rule", [chosen[name].rule if name in chosen else "" for name in names])
    table.insert(1, "fraction", [chosen[name].fraction if name in chosen else 0.0 for name in names])
    parts = []
    for _, rows in table.groupby("learner", sort=False):
        for rule in dict.fromkeys(point.rule for point in chosen.values()):
            parts += [rows[rows["rule"] == ""].assign(rule=rule), rows[rows["rule"] == rule]]
    table = pd.concat(parts, ignore_index=True)
    return Curve(verb, table, summarise(table, ("learner", "rule", "fraction")), len(test))
