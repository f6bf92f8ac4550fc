"""Does a decision pay? The error on test images that took no part, beside everything and a random choice.

`python -m benchmarks.pays` takes the clothing photos and CIFAR-10 under MobileNetV2, and CLIP embeddings of
Caltech-256. Of each it draws samples to train on and tests on the others, whose labels are true. It moves
labels to a random other class (uniform) or to the next one (pairwise), or takes those of human annotators.
Then it lets every command decide, and trains ridge regression and logistic regression on what it leaves. Its
forecast is compared with the change that the test images show.

The penalty of logistic regression is chosen once a draw, on everything. Cases that have been measured are
kept, so that an interrupted run goes on. Needs the folder `shared` beside the repository.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from benchmarks.extend import relabelled
from benchmarks.machine import RESULTS, SHARED, description, require_shared, save
from benchmarks.pays_table import report
from benchmarks.reweight import annotated, weighted
from benchmarks.ridge_choice import features, flip
from divacli.curate.extend import extend
from divacli.curate.pool_rule import ExtendOptions
from divacli.curate.prune import Pruning, prune_automatically, prune_by
from divacli.curate.relabel import relabel_scored
from divacli.curate.reweight import ReweightOptions, reweight
from divacli.curate.sample_scores import score
from divacli.curate.score_table import Scores
from divacli.evaluation.evaluate import present
from divacli.evaluation.learners import choose_penalty, fitted, stratified_folds
from divacli.features import BackboneChoice, ExtractOptions, Samples, joined, load_samples
from divacli.files.cache import default_cache
from divacli.ridge import RidgeFit, RidgeTask, loo_predictions, moments
from divacli.ridge.fit import factorisation as factor
from divacli.solve.ridge_problem import SolveOptions

SIZES = {"clothing": (300, 1000, 2500), "caltech256": (1000, 3000), "cifar10": (300, 1000, 3000)}
NOISES = (
    ("clean", 0.0),
    *(("uniform", rate) for rate in (0.1, 0.2, 0.4)),
    *(("pair", rate) for rate in (0.1, 0.2, 0.4)),
)
MIDDLE = 1000
"""The size that every noise and every decision is measured at; the largest has the noises of `LARGE`."""

LARGE = (("clean", 0.0), ("uniform", 0.1), ("uniform", 0.2))
KEEPS = (0.95, 0.9, 0.8, 0.6)
TESTED = 3000
POOL = 1500
CORES = (3, 5, 20)
POOL_NOISES = (("clean", 0.0), ("uniform", 0.1), ("uniform", 0.3), ("uniform", 0.5), ("pair", 0.3))
BUDGETS = (0.05, 0.1, 0.25, 0.5)
RANDOM = 2
"""Random choices that are averaged over, a draw."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One draw of one cell.

    Attributes:
        command: "prune", "relabel", "reweight" or "extend".
        data: A key of `SIZES`.
        kind: Of the noise: "clean", "uniform", "pair" or "human".
        rate: Share of the labels that are moved.
        size: Samples to train on; of "extend" those of a class in the core.
        seed: Of whatever is drawn.
    """

    command: str
    data: str
    kind: str
    rate: float
    size: int
    seed: int

    @property
    def name(self) -> str:
        """As `--cases` has it."""
        noise = self.kind + (f"-{100 * self.rate:02.0f}" if self.rate else "")
        return f"{self.command}/{self.data}/{noise}/{self.size}/{self.seed}"


def cases(seeds: range) -> Iterator[Case]:
    """All cases, draw by draw."""
    for seed in seeds:
        for data, sizes in SIZES.items():
            for size in sizes:
                noises = [*NOISES, *([("human", 0.0)] if data == "cifar10" else [])]
                if size > MIDDLE:
                    noises = list(LARGE)
                yield from (Case("prune", data, kind, rate, size, seed) for kind, rate in noises)
                if size == MIDDLE:
                    for command in ("relabel", "reweight"):
                        yield from (Case(command, data, kind, rate, size, seed) for kind, rate in noises)
            for size in CORES:
                noises = [*POOL_NOISES, *([("human", 0.0)] if data == "cifar10" else [])]
                yield from (Case("extend", data, kind, rate, size, seed) for kind, rate in noises)


@cache
def source(data: str) -> tuple[Samples, np.ndarray, np.ndarray | None]:
    """All samples of a set, their true labels, and those of human annotators where there are some."""
    if data == "clothing":
        parts = [features(name) for name in ("train", "validation", "test")]
        whole = joined(joined(parts[0], parts[1]), parts[2])
        return whole, labels_of(whole), None
    if data == "caltech256":
        file = str(SHARED / "data" / "clip_caltech256" / "images.npz")
        whole = load_samples(file, BackboneChoice(), ExtractOptions(torch.device("cpu")), default_cache())
        return whole, labels_of(whole), None
    whole, truth = annotated()
    return whole, truth, labels_of(whole)


def labels_of(samples: Samples) -> np.ndarray:
    """Labels of the samples, (n,) text."""
    return samples.manifest.table["label"].to_numpy(str)


@dataclass(frozen=True)
class Posed:
    """Samples of one case.

    Attributes:
        training: With labels as they are given.
        right: (n,) bool, whose label is the true one.
        test: With true labels.
    """

    training: Samples
    right: np.ndarray
    test: Samples


def posed(case: Case, n: int) -> Posed:
    """Draw n samples to train on and others to test on, and move labels."""
    whole, truth, human = source(case.data)
    generator = np.random.default_rng((case.seed, zlib.crc32(case.data.encode())))
    order = generator.permutation(len(whole))
    rows, rest = order[:n], order[n:]
    classes, numbers = np.unique(truth, return_inverse=True)
    given = truth.copy()
    if case.kind == "human" and human is not None:
        given = human
    elif case.rate:
        moved, _ = flip(torch.from_numpy(numbers), len(classes), case.kind, case.rate, case.seed)
        given = classes[moved.numpy()]
    # Classes that no training sample has cannot be learned.
    tested = rest[np.isin(truth[rest], given[rows])][:TESTED]
    training, test = relabelled(whole, given).select(rows), relabelled(whole, truth).select(tested)
    return Posed(training, given[rows] == truth[rows], test)


class Trainer:
    """Trains both learners and tests them.

    Args:
        everything: What the penalty of logistic regression is chosen on, and where the search for a ridge
            begins.
        test: What is predicted.
    """

    def __init__(self, everything: Samples, test: Samples) -> None:
        self._truth, self._test_rows = labels_of(test), unit(test)
        rows, numbers = unit(everything), np.unique(labels_of(everything), return_inverse=True)[1]
        fold = stratified_folds(numbers, everything.manifest.table["path"].to_numpy(str), 0)
        self._penalty = choose_penalty(rows, numbers, np.ones(len(rows)), fold)
        self._ridge = 1.0
        self._ridge = ridge_head(rows, numbers, np.ones(len(rows)), self._ridge).ridge

    def __call__(self, samples: Samples) -> dict[str, float]:
        """Test errors in per cent, by learner."""
        samples = present(samples)
        classes, numbers = np.unique(labels_of(samples), return_inverse=True)
        rows, weights = unit(samples), samples.manifest.table["weight"].to_numpy(float)
        head = ridge_head(rows, numbers, weights, self._ridge).to(torch.float32)
        best = (head.project(torch.from_numpy(self._test_rows)) @ head.coef).argmax(dim=1).numpy()
        logistic = fitted(self._penalty, rows, numbers, weights).predict(self._test_rows)
        found = {"ridge": classes[best], "logistic": classes[logistic]}
        return {name: 100 * float((labels != self._truth).mean()) for name, labels in found.items()}


def ridge_head(rows: np.ndarray, numbers: np.ndarray, weights: np.ndarray, start: float) -> RidgeFit:
    """Ridge regression at the optimum of its leave-one-out loss, to a factor of two."""
    labels = torch.from_numpy(numbers)
    task = RidgeTask(torch.from_numpy(rows), labels, int(labels.max()) + 1, torch.from_numpy(weights.copy()))
    sums, everyone = moments(task), torch.arange(len(rows))
    targets = torch.nn.functional.one_hot(labels).double()

    def tried(ridge: float) -> tuple[float, RidgeFit]:
        fit = sums.fit(ridge)
        return float(task.weights @ (loo_predictions(task, fit, everyone) - targets).square().sum(dim=1)), fit

    best = tried(start)
    for step in (2.0, 0.5):
        while (found := tried(step * best[1].ridge))[0] < best[0]:
            best = found
    return best[1]


def unit(samples: Samples) -> np.ndarray:
    """Features with rows of length 1, float32."""
    rows = samples.features[:].numpy().astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def mean(found: list[dict[str, float]]) -> dict[str, float]:
    """Means by learner."""
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def prune_rows(case: Case) -> list[Row]:
    """What `prune` does with every fraction, by itself, and by derivative."""
    here = posed(case, case.size)
    n = len(here.training)
    options = SolveOptions(seed=case.seed)
    scores = Scores.fresh(score(here.training, options), options)
    train = Trainer(here.training, here.test)
    everything = train(here.training)
    oracle = train(here.training.select(here.right))
    generator = np.random.default_rng(case.seed)
    asked: dict[str, Callable[[], Pruning]] = {
        f"keep {keep}": partial(prune_by, scores, keep=keep, force=True) for keep in KEEPS
    }
    asked["keep auto"] = partial(prune_automatically, scores, force=True)
    if case.size == MIDDLE:
        asked["threshold 0"] = partial(prune_by, scores, threshold=0.0, force=True)
        asked["keep 0.9 by derivative"] = partial(prune_by, scores, keep=0.9, by="derivative", force=True)
    found = []
    for name, ask in asked.items():
        pruning = ask()
        kept = pruning.decision.kept
        size = int(kept.sum())
        draws = [generator.permutation(n)[:size] for _ in range(RANDOM)] if size < n else []
        outlook = pruning.outlook
        assert outlook is not None
        found.append(
            {
                "decision": name,
                "rule": pruning.by,
                "n_kept": size,
                "n_wrong_dropped": int((~kept & ~here.right).sum()),
                "n_wrong": int((~here.right).sum()),
                "pays": outlook.pays,
                "forecast": outlook.as_dict(),
                "everything": everything,
                "oracle": oracle,
                "random": mean([train(here.training.select(rows)) for rows in draws])
                if draws
                else everything,
                "chosen": train(here.training.select(kept)) if size < n else everything,
            }
        )
    return found


def relabel_rows(case: Case) -> list[Row]:
    """What `relabel` corrects, beside as many labels corrected at random."""
    here = posed(case, case.size)
    options = SolveOptions(seed=case.seed)
    scores = Scores.fresh(score(here.training, options), options)
    relabelling = relabel_scored(scores, force=True)
    train = Trainer(here.training, here.test)
    everything = train(here.training)
    given = labels_of(here.training)
    corrected = relabelling.table["label"].to_numpy(str)
    changed = given != corrected
    if relabelling.outlook is None:
        return []
    suggested = scores.table["suggested_label"].to_numpy(str)
    generator = np.random.default_rng(case.seed)
    draws = []
    for _ in range(RANDOM):
        drawn = given.copy()
        rows = generator.permutation(len(given))[: int(changed.sum())]
        drawn[rows] = suggested[rows]
        draws.append(train(relabelled(here.training, drawn)))
    return [
        {
            "decision": "correct",
            "rule": "mislabel_probability",
            "n_changed": int(changed.sum()),
            "n_wrong": int((~here.right).sum()),
            "pays": relabelling.outlook.pays,
            "forecast": relabelling.outlook.as_dict(),
            "everything": everything,
            "oracle": train(here.training.select(here.right)),
            "dropped": train(here.training.select(~changed)),
            "random": mean(draws),
            "chosen": train(relabelled(here.training, corrected)),
        }
    ]


def reweight_rows(case: Case) -> list[Row]:
    """What the weights of `reweight` do, beside the same weights dealt out at random."""
    here = posed(case, case.size)
    result = reweight(here.training, SolveOptions(seed=case.seed), ReweightOptions())
    train = Trainer(here.training, here.test)
    everything = train(here.training)
    weights = result.table["weight"].to_numpy(float)
    if result.outlook is None:
        return []
    generator = np.random.default_rng(case.seed)
    draws = [train(weighted(here.training, generator.permutation(weights))) for _ in range(RANDOM)]
    return [
        {
            "decision": "weights",
            "rule": "derivative",
            "n_steps": len(result.history) - 1,
            "pays": result.written,
            "forecast": result.outlook.as_dict(),
            "everything": everything,
            "oracle": train(here.training.select(here.right)),
            "random": mean(draws),
            "chosen": train(weighted(here.training, weights)),
        }
    ]


def extend_rows(case: Case) -> list[Row]:
    """What `extend` chooses from a pool with wrong labels, for a core without."""
    whole, truth, _ = source(case.data)
    classes = len(np.unique(truth))
    core_size = case.size * classes
    here = posed(case, min(core_size + POOL, len(whole) - 1000))
    true_labels = labels_of(here.training).copy()
    known = pd.Series(truth, index=whole.manifest.table["path"]).loc[here.training.manifest.table["path"]]
    drawn = pd.Series(np.arange(len(known)))
    core_rows = np.sort(drawn.groupby(known.to_numpy()).head(case.size).to_numpy())
    pool_rows = np.setdiff1d(np.arange(len(known)), core_rows)
    true_labels[core_rows] = known.to_numpy()[core_rows]
    samples = relabelled(here.training, true_labels)
    core, pool = samples.select(core_rows), samples.select(pool_rows)
    train = Trainer(joined(core, pool), here.test)
    options = SolveOptions(seed=case.seed)
    alone, everything = train(core), train(joined(core, pool))
    generator = np.random.default_rng(case.seed)
    by_path = pd.Series(np.arange(len(pool)), index=pool.manifest.table["path"])
    found = []
    for budget in BUDGETS:
        size = round(budget * len(pool))
        result = extend(core, pool, options, ExtendOptions(budget=size))
        rows = by_path[result.selected["path"]].to_numpy()
        draws = [generator.permutation(len(pool))[:size] for _ in range(RANDOM)]
        found.append(
            {
                "decision": f"budget {budget:.0%}",
                "rule": result.summary["rule"],
                "n_core": len(core),
                "n_chosen": len(rows),
                "n_wrong_chosen": int((~here.right[pool_rows][rows]).sum()),
                "forecast": result.summary.get("forecast"),
                "core": alone,
                "everything": everything,
                "random": mean([train(joined(core, pool.select(rows))) for rows in draws]),
                "chosen": train(joined(core, pool.select(rows))) if len(rows) else alone,
            }
        )
    return found


COMMANDS = {"prune": prune_rows, "relabel": relabel_rows, "reweight": reweight_rows, "extend": extend_rows}


def measure(case: Case) -> list[Row]:
    """All rows of a case, on one core: other cases have the others."""
    torch.set_num_threads(1)
    factor._WORTH_THREADS = sys.maxsize
    with threadpool_limits(1):
        return [{"case": case.name, **asdict(case), **row} for row in COMMANDS[case.command](case)]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pays", description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", default=["*"], help="patterns such as prune/clothing/*")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    require_shared()
    file = RESULTS / "pays.json"
    rows: list[Row] = json.loads(file.read_text())["rows"] if file.exists() else []
    known = {row["case"] for row in rows}
    wanted = [
        case
        for case in cases(range(chosen.draws))
        if case.name not in known and any(fnmatch(case.name, pattern) for pattern in chosen.cases)
    ]
    with ProcessPoolExecutor(chosen.processes) as pool:
        running = {pool.submit(measure, case): case for case in wanted}
        for done in as_completed(running):
            print(running[done].name, flush=True)
            rows = sorted([*rows, *done.result()], key=lambda row: row["case"])
            file.write_text(json.dumps({"machine": description(), "rows": rows}, indent=1) + "\n")
    save("pays", rows, report(rows))


if __name__ == "__main__":
    main()
