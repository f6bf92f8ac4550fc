"""The honest check of a manifest: train on it and on its rivals, and compare on a held-out test set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from divacli.errors import DataError, listed
from divacli.evaluation.learners import Learner
from divacli.evaluation.verdicts import Verdict, confidence_of, difference_interval
from divacli.features import Samples
from divacli.manifest import Manifest
from divacli.progress import Progress, silent
from divacli.solve.overlap import sample_places
from divacli.training.held_out import mean_over_groups

EVERYTHING, WHOLE_POOL, ORACLE = "everything", "whole pool", "oracle"

_ERRORS = ("test_error", "class_error")
_MEASURED = (
    *("test_error", "test_error_se", "difference", "difference_se"),
    *("class_error", "class_error_se", "class_difference", "class_difference_se"),
)
COLUMNS = ("training_set", "learner", "seed", "n_train", *_MEASURED)
"""Columns of an evaluation, in order; `measure` says what they hold."""


@dataclass(frozen=True)
class TrainingSet:
    """One of the training sets that are compared.

    Attributes:
        name: As the results call it; random draws of one kind share theirs.
        samples: Two classes or more, but for a random draw; all weights positive.
        seed: Of the draw that made it; None where nothing was drawn.
        rivals: Names of the sets that it has to beat; empty for those that are not judged.
    """

    name: str
    samples: Samples
    seed: int | None = None
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """One training and the mistakes it led to.

    Attributes:
        part: What was trained on.
        learner: Name of the learner.
        seed: Of the draw or of the learner; None where nothing was random.
        wrong: (m,) bool, test samples that are predicted wrongly.
    """

    part: TrainingSet
    learner: str
    seed: int | None
    wrong: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """What became of the training sets.

    Attributes:
        table: One row a training, as from `measure`.
        summary: Means and spread over seeds, as from `summarise`, with `recovered` as from `with_recovered`.
        n_test: Samples of the test set.
        verdicts: Every manifest against its rivals, as from `judge`.
    """

    table: pd.DataFrame
    summary: pd.DataFrame
    n_test: int
    verdicts: tuple[Verdict, ...] = ()


def evaluate(
    sets: Sequence[TrainingSet],
    test: Samples,
    learners: Iterable[Learner],
    seeds: Sequence[int],
    progress: Progress = silent,
) -> Evaluation:
    """Train on manifests and on their rivals, and compare test errors.

    Args:
        sets: As from `divacli.evaluation.rivals.rivals`: the first one is everything.
        test: (m) held-out samples, with positive weights.
        learners: What is trained.
        seeds: Of random choices, and of learners that are random.
        progress: Told of every training that is done.

    Raises:
        SolveError: A training set determines no fit.
    """
    trainings = train_all(sets, test, learners, seeds, progress)
    table = tabulate(trainings, test)
    weights = test.manifest.table["weight"].to_numpy(float)
    return Evaluation(table, with_recovered(summarise(table)), len(test), tuple(judge(trainings, weights)))


def measure(
    sets: Sequence[TrainingSet],
    test: Samples,
    learners: Iterable[Learner],
    seeds: Sequence[int],
    progress: Progress = silent,
) -> pd.DataFrame:
    """Train every learner on every set and compare their errors on a test set.

    A learner without randomness is trained once on a set, another one once a seed; on a set that was drawn
    at random it is trained by the seed of the draw.

    Args:
        sets: The first one is what the others are compared with.
        test: (m) held-out samples, with positive weights, which weigh the error.
        learners: What is trained.
        seeds: Of learners that are random, and those of the sets.
        progress: Told of every training that is done.

    Returns:
        One row a training, with `COLUMNS`: `seed` is empty where nothing was random; `test_error` is the
        share of wrong predictions and `class_error` its mean over the test set's classes; `difference` and
        `class_difference` are these minus those of the first set (negative = better). Names in `_se` are
        standard errors from the finite test set, of differences from the paired ones sample by sample.

    Raises:
        SolveError: A training set determines no fit.
    """
    return tabulate(train_all(sets, test, learners, seeds, progress), test)


def train_all(
    sets: Sequence[TrainingSet],
    test: Samples,
    learners: Iterable[Learner],
    seeds: Sequence[int],
    progress: Progress = silent,
) -> list[Training]:
    """Train every learner on every set, and note which test samples it predicts wrongly.

    Args:
        sets: As for `measure`, and so are the others.
        test: (m) held-out samples.
        learners: What is trained.
        seeds: Of learners that are random, and those of the sets.
        progress: Told of every training that is done.

    Returns:
        By learner, set and seed.

    Raises:
        SolveError: A training set determines no fit.
    """
    truth = test.manifest.table["label"].to_numpy(object)
    runs = [
        (learner, part, seed)
        for learner in learners
        for part in sets
        for seed in (seeds if learner.random and part.seed is None else [part.seed])
    ]
    trainings = []
    with progress("training", len(runs)) as advance:
        for learner, part, seed in runs:
            predicted = _predicted(learner, part.samples, test, seeds[0] if seed is None else seed)
            trainings.append(Training(part, learner.name, seed, predicted != truth))
            advance(1)
    return trainings


def tabulate(trainings: Sequence[Training], test: Samples) -> pd.DataFrame:
    """The errors of trainings, as `measure` returns them.

    Args:
        trainings: As from `train_all`.
        test: (m) the test set that they were measured on.
    """
    weights = test.manifest.table["weight"].to_numpy(float)
    classes = test.manifest.class_numbers(test.manifest.classes)
    one_group = np.zeros_like(classes)
    everything = trainings[0].part
    first: dict[tuple[str, int | None], np.ndarray] = {}
    rows = []
    for training in trainings:
        if training.part is everything:
            first[training.learner, training.seed] = training.wrong
        # A learner that is not random was trained once on everything.
        start = first.get((training.learner, training.seed), first.get((training.learner, None)))
        assert start is not None, "everything is the first set of each learner"
        wrong = training.wrong.astype(float)
        measured = [
            number
            for groups in (one_group, classes)
            for values in (wrong, wrong - start)
            for number in mean_over_groups(values, weights, groups)
        ]
        rows.append(
            (training.part.name, training.learner, training.seed, len(training.part.samples), *measured)
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64"})


def judge(trainings: Sequence[Training], weights: np.ndarray) -> list[Verdict]:
    """Compare every manifest with its rivals.

    Args:
        trainings: As from `train_all`. Sets with `rivals` are manifests.
        weights: (m,) weights of the test samples.

    Returns:
        By learner, manifest and rival. The confidence allows for the number of manifests.
    """
    runs: dict[tuple[str, str], list[Training]] = {}
    for training in trainings:
        runs.setdefault((training.learner, training.part.name), []).append(training)
    confidence = confidence_of(len({training.part.name for training in trainings if training.part.rivals}))
    found = []
    for (learner, name), own in runs.items():
        for rival in own[0].part.rivals:
            other = runs[learner, rival]
            random = any(training.seed is not None for training in (*own, *other))
            wrong, theirs = (np.stack([training.wrong for training in part]) for part in (own, other))
            interval = difference_interval(wrong, theirs, weights, confidence, random=random)
            found.append(Verdict(learner, name, rival, *interval, confidence))
    return found


def summarise(table: pd.DataFrame, by: Sequence[str] = ("learner", "training_set")) -> pd.DataFrame:
    """Mean and spread over seeds of what `measure` gave, in its order.

    Args:
        table: As from `measure`.
        by: Columns that name what is averaged together.

    Returns:
        One row a group: `by`, n_train, runs, then the means of the other columns; `test_error_sd` and
        `class_error_sd` are standard deviations over seeds, NaN of a single run.
    """
    means = {name: (name, "mean") for name in _MEASURED}
    spread = {f"{name}_sd": (name, "std") for name in _ERRORS}
    counts = {"n_train": ("n_train", "first"), "runs": ("n_train", "size")}
    return table.groupby(list(by), sort=False).agg(**counts, **means, **spread).reset_index()


def with_recovered(summary: pd.DataFrame) -> pd.DataFrame:
    """Add `recovered`: the share of the way from everything's test error to the oracle's.

    1 is as good as the oracle, 0 no better than everything, negative worse. NaN where there is no oracle, or
    where it is no better than everything.

    Args:
        summary: As from `summarise`.
    """
    error = summary.pivot(index="learner", columns="training_set", values="test_error")
    if ORACLE not in error:
        return summary.assign(recovered=np.nan)
    gap = (error[EVERYTHING] - error[ORACLE]).where(lambda gap: gap > 0)
    everything, gap = (summary["learner"].map(part) for part in (error[EVERYTHING], gap))
    return summary.assign(recovered=(everything - summary["test_error"]) / gap)


def random_values(samples: Samples, seed: int) -> np.ndarray:
    """A number in [0, 1) for each sample, which does not depend on the order of the rows.

    Args:
        samples: (n).
        seed: Of the draw.
    """
    values = np.empty(len(samples))
    paths = samples.manifest.table["path"]
    # Rows of two .npz files may have one name.
    places = sample_places(samples.manifest) if paths.duplicated().any() else [""] * len(paths)
    by_path = np.lexsort((np.array(places, dtype=str), paths.to_numpy(str)))
    values[by_path] = np.random.default_rng(seed).random(len(samples))
    return values


def present(samples: Samples) -> Samples:
    """The samples with a positive weight: one of weight 0 is absent.

    Raises:
        DataError: Fewer than two classes are left, or of a pool nothing.
    """
    positive = samples.manifest.table["weight"].to_numpy(float) > 0
    if positive.all():
        return samples
    left = samples.select(positive)
    needed = 2 if samples.manifest.labels_required else 1
    if len(left.manifest.classes) < needed:
        raise DataError(
            f"{samples.manifest.name}: weights above 0 in {len(left.manifest.classes)} classes",
            expected=f"in {needed} or more",
            hint="correct the column weight",
        )
    return left


def require_known_labels(test: Manifest, training: Iterable[Manifest]) -> None:
    """Refuse a test set with labels that no training set has.

    Raises:
        DataError: Which labels.
    """
    known = set().union(*(part.table["label"] for part in training))
    if unknown := sorted(set(test.table["label"]) - known):
        raise DataError(
            f"{test.name} has labels that no training set has: {listed(unknown)}",
            expected=f"only labels that can be learned: {listed(sorted(known))}",
            hint="correct these labels, or leave these rows out",
        )


def _predicted(learner: Learner, training: Samples, test: Samples, seed: int) -> np.ndarray:
    """Predicted labels (m,); a draw of a single class leaves nothing to learn."""
    if len(training.manifest.classes) == 1:
        return np.full(len(test), training.manifest.classes[0], dtype=object)
    return learner(training, test, seed)
