"""Does a choice from a pool beat a random one, and the whole pool?

`python -m benchmarks.extend` takes ten images a class of `clothing/train` as the core, the rest as the pool,
flips labels of the pool to a random other class, lets `extend` choose at most half of the pool, and prints
the error on `clothing/test` of ridge regression on the core with the first 10 % ... 50 % of the choice, with
random choices of the same size, with those of its rivals (class-balanced random, k-centre, most uncertain),
with the whole pool, and with its rightly labelled part. Needs the folder `shared` beside the repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.machine import require_shared, save
from benchmarks.ridge_choice import features
from divacli.curate.extend import extend
from divacli.curate.pool_rule import ExtendOptions
from divacli.evaluation.learners import RidgeLearner, ridge_outputs
from divacli.features import Samples
from divacli.solve.ridge_problem import SolveOptions

BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5)
CASES = (*((0.5, seed) for seed in range(9)), *((rate, seed) for rate in (0.2, 0.0) for seed in range(3)))
A_CLASS = 10
RANDOM = 5


def relabelled(samples: Samples, labels: np.ndarray) -> Samples:
    """The samples with other labels."""
    return replace(
        samples, manifest=replace(samples.manifest, table=samples.manifest.table.assign(label=labels))
    )


def flipped(labels: np.ndarray, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is moved to a random other class, and which they are."""
    generator = np.random.default_rng(seed)
    classes = np.unique(labels)
    numbers = np.searchsorted(classes, labels)
    wrong = generator.random(len(labels)) < rate
    moved = (numbers + generator.integers(1, len(classes), len(labels))) % len(classes)
    return np.where(wrong, classes[moved], labels), wrong


def measure(train: Samples, test: Samples, rate: float, seed: int) -> dict[str, object]:
    """Test errors of one core and pool."""
    truth = train.manifest.table["label"].to_numpy(str)
    generator = np.random.default_rng(seed)
    drawn = pd.Series(generator.permutation(len(truth)))
    core_rows = np.sort(drawn.groupby(truth[drawn]).head(A_CLASS).to_numpy())
    pool_rows = np.setdiff1d(np.arange(len(truth)), core_rows)
    labels, wrong = flipped(truth, rate, seed)
    labels[core_rows] = truth[core_rows]
    noisy = relabelled(train, labels)
    options = SolveOptions(seed=seed)
    how = ExtendOptions(budget=len(pool_rows) // 2)
    row, order = curve(noisy, core_rows, test, options, how, BUDGETS, RANDOM, generator)
    orders = rivals(noisy.select(core_rows), noisy.select(pool_rows), options, generator)
    for name, rows in orders.items():
        for budget in BUDGETS:
            chosen = np.concatenate([core_rows, pool_rows[rows[: int(budget * len(pool_rows))]]])
            row[f"{name}_{budget:.0%}"] = test_errors(noisy.select(chosen), test, options)[0]
    right = np.concatenate([core_rows, pool_rows[~wrong[pool_rows]]])
    oracle, _ = test_errors(noisy.select(right), test, options)
    return {"rate": rate, "seed": seed, **row, "right": float((~wrong[order]).mean()), "oracle": oracle}


def rivals(
    core: Samples, pool: Samples, options: SolveOptions, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Orders of a pool by rules that need no model of wrong labels.

    Args:
        core: (n) the core.
        pool: (m) the pool.
        options: How the core's problem is posed.
        generator: Draws within classes.

    Returns:
        (m,) row numbers of the pool, those to be added first coming first: `balanced` takes from each class
        in turn at random, `k_centre` always the one farthest from what is there, `uncertain` the smallest
        difference between the two largest outputs of the core's ridge model.
    """
    labels = pool.manifest.table["label"].to_numpy(str)
    drawn = pd.Series(generator.permutation(len(labels)))
    turn = drawn.groupby(labels[drawn]).cumcount().to_numpy()
    balanced = drawn.to_numpy()[np.argsort(turn, kind="stable")]
    there, new = (_unit(samples.features[:].double().numpy()) for samples in (core, pool))
    nearest = (new @ there.T).max(axis=1)
    k_centre = np.empty(len(labels), np.int64)
    for place in range(len(labels)):
        k_centre[place] = farthest = int(nearest.argmin())
        nearest = np.maximum(nearest, new @ new[farthest])
        nearest[k_centre[: place + 1]] = np.inf
    outputs = np.sort(ridge_outputs(core, pool, options).numpy(), axis=1)
    uncertain = np.argsort(outputs[:, -1] - outputs[:, -2], kind="stable")
    return {"balanced": balanced, "k_centre": k_centre, "uncertain": uncertain}


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def curve(
    samples: Samples,
    core_rows: np.ndarray,
    test: Samples,
    options: SolveOptions,
    how: ExtendOptions,
    budgets: Sequence[float],
    n_random: int,
    generator: np.random.Generator,
) -> tuple[dict[str, object], np.ndarray]:
    """Test errors of a core with the first part of a choice from all other samples, and with random ones.

    Args:
        samples: (n) core and pool.
        core_rows: Which are the core.
        test: What errors are on.
        options: How problems are posed.
        how: The choice. It may end before a budget is spent: then that budget's error is of all of it.
        budgets: Shares of the pool.
        n_random: Random choices that are averaged over.
        generator: Draws them.

    Returns:
        n_selected, n_pool, and errors: core, pool (all of it in), `chosen_10%` and `random_10%` for each
        budget; and the rows that were chosen, in the order of choice.
    """
    pool_rows = np.setdiff1d(np.arange(len(samples)), core_rows)
    pool = samples.select(pool_rows)
    result = extend(samples.select(core_rows), pool, options, how)
    by_path = pd.Series(pool_rows, index=pool.manifest.table["path"])
    order = by_path[result.selected["path"]].to_numpy()

    def error(rows: np.ndarray) -> float:
        return test_errors(samples.select(np.concatenate([core_rows, rows])), test, options)[0]

    row: dict[str, object] = {"n_selected": len(order), "n_pool": len(pool_rows)}
    row["core"], row["pool"] = error(order[:0]), error(pool_rows)
    for budget in budgets:
        size = int(budget * len(pool_rows))
        row[f"chosen_{budget:.0%}"] = error(order[:size])
        draws = [generator.choice(pool_rows, size, replace=False) for _ in range(n_random)]
        row[f"random_{budget:.0%}"] = float(np.mean([error(rows) for rows in draws]))
    return row, order


def test_errors(training: Samples, test: Samples, options: SolveOptions) -> tuple[float, float]:
    """Errors of ridge regression at its leave-one-out optimum: over samples, and averaged over classes."""
    truth = test.manifest.table["label"]
    wrong = RidgeLearner(options)(training, test, options.seed) != truth
    return float(wrong.mean()), float(wrong.groupby(truth).mean().mean())


def main() -> None:
    """Measure and print."""
    require_shared()
    train, test = features("train"), features("test")
    rows = []
    for rate, seed in CASES:
        row = measure(train, test, rate, seed)
        rows.append(row)
        curve = "  ".join(
            f"{b:.0%}: {row[f'chosen_{b:.0%}']:.1%} ({row[f'random_{b:.0%}']:.1%})" for b in BUDGETS
        )
        print(
            f"flips {rate:.0%} seed {seed}: core {row['core']:.1%}, whole pool {row['pool']:.1%}, its right "
            f"part {row['oracle']:.1%}; chosen {row['n_selected']} ({row['right']:.0%} right); "
            f"chosen (random) {curve}",
            flush=True,
        )
    print((pd.DataFrame(rows).groupby("rate", sort=False).mean().drop(columns="seed") * 100).round(1).T)
    save("extend", rows)


if __name__ == "__main__":
    main()
