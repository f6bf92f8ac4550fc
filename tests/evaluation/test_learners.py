"""Learners: against explicit solutions, and what must change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from divacli.evaluation.learners import (
    FOLDS,
    LEARNERS,
    PENALTIES,
    LogisticLearner,
    RidgeLearner,
    choose_penalty,
    ridge_outputs,
    stratified_folds,
)
from divacli.features import Samples
from divacli.solve.ridge_problem import SolveOptions

EXACT = SolveOptions(dtype=torch.float64)


@pytest.fixture
def split(tmp_path: Path, load: Callable[[Path], Samples]) -> Callable[..., tuple[Samples, Samples]]:
    """Training and test samples of the same three Gaussian classes, some training labels wrong."""

    def make(
        n: int = 60, m: int = 30, d: int = 6, noise: float = 0.2, weights: np.ndarray | None = None
    ) -> tuple[Samples, Samples]:
        generator = np.random.default_rng(5)
        centres = generator.normal(size=(3, d)) * 1.2
        parts = []
        for name, size in (("train", n), ("test", m)):
            truth = np.arange(size) % 3
            features = centres[truth] + generator.normal(size=(size, d))
            wrong = generator.random(size) < (noise if name == "train" else 0)
            more = {"weight": weights} if name == "train" and weights is not None else {}
            np.savez(
                tmp_path / f"{name}.npz",
                embedding=features,
                label=np.where(wrong, (truth + 1) % 3, truth),
                path=generator.permutation([f"s{number:03d}" for number in range(size)]),
                **more,
            )
            parts.append(load(tmp_path / f"{name}.npz"))
        return parts[0], parts[1]

    return make


def unit(samples: Samples) -> np.ndarray:
    rows = samples.features[:].double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def one_hot(samples: Samples) -> np.ndarray:
    return np.eye(3)[samples.manifest.table["label"].astype(int)]


@pytest.mark.parametrize("d", [6, 80], ids=["more samples than features", "fewer"])
def test_ridge_is_the_weighted_normal_equations_with_a_free_intercept(d, split):
    weights = np.random.default_rng(1).uniform(0.2, 3, 60)
    training, test = split(d=d, weights=weights)
    rows = np.c_[unit(training), np.ones(60)]
    penalty = np.diag([*np.full(d, 0.7), 0])
    solved = np.linalg.solve(
        rows.T @ (weights[:, None] * rows) + penalty, rows.T @ (weights[:, None] * one_hot(training))
    )
    expected = np.c_[unit(test), np.ones(30)] @ solved
    found = ridge_outputs(training, test, replace(EXACT, ridge=0.7))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


def test_the_ridge_is_the_optimum_of_the_weighted_leave_one_out_loss(split):
    weights = np.where(np.arange(60) % 4, 1.0, 6.0)
    training, test = split(weights=weights)

    rows, targets = np.c_[unit(training), np.ones(60)], one_hot(training)

    def loo_loss(ridge: float) -> float:
        penalty = np.diag([*np.full(6, ridge), 0])
        total = 0.0
        for row in range(60):
            kept = (weights * (np.arange(60) != row))[:, None]
            solved = np.linalg.solve(rows.T @ (kept * rows) + penalty, rows.T @ (kept * targets))
            total += weights[row] * ((rows[row] @ solved - targets[row]) ** 2).sum()
        return total

    grid = np.logspace(-3, 2, 11)
    best = grid[np.argmin([loo_loss(ridge) for ridge in grid])]
    chosen = ridge_outputs(training, test, EXACT)
    distance = [float((chosen - ridge_outputs(training, test, replace(EXACT, ridge=r))).norm()) for r in grid]
    assert best not in (grid[0], grid[-1])
    assert grid[np.argmin(distance)] == best


@pytest.mark.parametrize("name", LEARNERS)
def test_the_order_of_rows_changes_nothing(name, split):
    training, test = split()
    learner = LEARNERS[name](EXACT)
    order = np.random.default_rng(2).permutation(60)
    shuffled = replace(
        training, manifest=training.manifest.select(order), features=training.features.select(order)
    )
    assert learner(shuffled, test, 0).tolist() == learner(training, test, 0).tolist()


@pytest.mark.parametrize("name", LEARNERS)
def test_labels_of_the_test_set_are_not_looked_at(name, split):
    training, test = split()
    learner = LEARNERS[name](EXACT)
    unseen = test.manifest.table.assign(label="unseen")
    blind = replace(test, manifest=replace(test.manifest, table=unseen))
    assert learner(training, blind, 0).tolist() == learner(training, test, 0).tolist()


@pytest.mark.parametrize("name", LEARNERS)
def test_weights_are_honoured(name, split):
    training, test = split(noise=0.4)
    labels = training.manifest.table["label"].astype(int).to_numpy()
    right = labels == np.arange(60) % 3
    light = training.manifest.table.assign(weight=np.where(right, 1.0, 1e-9))
    weighted = replace(training, manifest=replace(training.manifest, table=light))
    learner = LEARNERS[name](replace(EXACT, ridge=1.0))
    without = learner(training.select(right), test, 0)
    truth = test.manifest.table["label"].to_numpy()
    found = learner(weighted, test, 0)
    assert (found == truth).mean() > (learner(training, test, 0) == truth).mean()
    if name == "ridge":
        assert found.tolist() == without.tolist()


def test_logistic_is_scikit_learns_at_the_penalty_that_was_chosen(split):
    weights = np.random.default_rng(1).uniform(0.2, 3, 60)
    training, test = split(weights=weights)
    labels = training.manifest.table["label"].astype(int).to_numpy()
    rows = unit(training)
    fold = stratified_folds(labels, training.manifest.table["path"].to_numpy(str), EXACT.seed)
    penalty = choose_penalty(rows, labels, weights, fold)
    model = LogisticRegression(C=penalty, max_iter=5000, tol=1e-8).fit(rows, labels, sample_weight=weights)
    assert (
        LogisticLearner(EXACT)(training, test, 0).tolist() == model.predict(unit(test)).astype(str).tolist()
    )


def test_the_penalty_is_the_best_on_held_out_folds_with_weights_in_fit_and_loss(split):
    training, _ = split(n=120, noise=0.4)
    labels = training.manifest.table["label"].astype(int).to_numpy()
    rows = unit(training)
    fold = stratified_folds(labels, training.manifest.table["path"].to_numpy(str), 0)

    def losses(penalty: float, fitted: np.ndarray) -> np.ndarray:
        """Of each sample, by a model without its fold."""
        found = np.empty(120)
        for number in range(FOLDS):
            held, rest = fold == number, fold != number
            model = LogisticRegression(C=penalty, max_iter=5000)
            model.fit(rows[rest], labels[rest], sample_weight=fitted[rest])
            found[held] = -model.predict_log_proba(rows[held])[np.arange(held.sum()), labels[held]]
        return found

    ones = np.ones(120)
    weights = np.where(labels == np.arange(120) % 3, 3.0, 0.1)
    held_out = {id(fitted): [losses(penalty, fitted) for penalty in PENALTIES] for fitted in (ones, weights)}

    def best(fitted: np.ndarray, judged: np.ndarray) -> float:
        return PENALTIES[int(np.argmin([judged @ found for found in held_out[id(fitted)]]))]

    assert choose_penalty(rows, labels, weights, fold) == best(weights, weights)
    assert choose_penalty(rows, labels, ones, fold) == best(ones, ones)
    # Weights that were left out of either would be seen.
    assert best(weights, weights) not in (best(ones, weights), best(weights, ones), best(ones, ones))
    assert best(ones, ones) not in (PENALTIES[0], PENALTIES[-1])


def test_folds_share_out_every_class():
    generator = np.random.default_rng(0)
    labels = np.r_[np.zeros(31, int), np.ones(2, int), [2], np.full(10, 3)]
    paths = np.array([f"{number:02d}" for number in generator.permutation(len(labels))])
    fold = stratified_folds(labels, paths, seed=4)
    counts = np.array(
        [np.bincount(fold[(labels == label) & (fold >= 0)], minlength=FOLDS) for label in range(4)]
    )
    assert np.ptp(counts[0]) <= 1
    assert np.ptp(counts[3]) <= 1
    assert sorted(counts[1]) == [0, 1, 1]
    assert fold[labels == 2] == [-1]
    assert np.ptp(counts.sum(axis=0)) <= 1 + 1

    order = generator.permutation(len(labels))
    assert stratified_folds(labels[order], paths[order], seed=4).tolist() == fold[order].tolist()
    assert stratified_folds(labels, paths, seed=5).tolist() != fold.tolist()


def test_folds_keep_groups_together():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 3)
    labels = np.repeat(np.r_[np.zeros(12, int), np.ones(7, int), [2]], 3)
    labels[0] = 1  # a group of two classes is dealt by one of them
    paths = np.array([f"{number:02d}" for number in generator.permutation(60)])
    fold = stratified_folds(labels, paths, 0, groups)
    assert all(len(set(fold[groups == group])) == 1 for group in range(20))
    assert (fold[labels == 2] == -1).all(), "a class of one group is always trained on"
    assert np.ptp(np.bincount(fold[fold >= 0])) <= 2 * 3
    order = generator.permutation(60)
    renamed = (100 - groups)[order]
    assert stratified_folds(labels[order], paths[order], 0, renamed).tolist() == fold[order].tolist()


def test_copies_in_one_group_do_not_vouch_for_each_other(split):
    training, test = split(n=30, noise=0.3)
    rows = np.repeat(np.arange(30), 4)
    table = training.manifest.table.iloc[rows].reset_index(drop=True)
    table = table.assign(path=[f"c{number:03d}" for number in range(120)], group=rows.astype(str))
    copies = replace(
        training, manifest=replace(training.manifest, table=table), features=training.features.select(rows)
    )
    heavy = training.manifest.table.assign(weight=4.0)
    once = replace(training, manifest=replace(training.manifest, table=heavy))
    expected = ridge_outputs(once, test, EXACT)
    torch.testing.assert_close(ridge_outputs(copies, test, EXACT), expected)
    ungrouped = ridge_outputs(copies, test, replace(EXACT, group=None))
    assert float((ungrouped - expected).abs().max()) > 0.1, (
        "a copy is known from the others: the ridge is small"
    )


def test_logistic_regression_deals_its_folds_by_group(split, monkeypatch):
    training, test = split(n=30)
    table = training.manifest.table.assign(group=(np.arange(30) // 6).astype(str))
    grouped = replace(training, manifest=replace(training.manifest, table=table))
    seen = []
    monkeypatch.setattr(
        "divacli.evaluation.learners.choose_penalty", lambda *given: seen.append(given[-1]) or PENALTIES[4]
    )
    LogisticLearner(EXACT)(grouped, test, 0)
    LogisticLearner(replace(EXACT, group=None))(grouped, test, 0)
    assert [max(len(set(part)) for part in np.split(fold, 5)) for fold in seen] == [1, FOLDS]


def test_a_class_of_one_sample_does_not_stop_logistic_regression(split):
    training, test = split(n=12)
    table = training.manifest.table
    table = table.assign(label=["lonely", *table["label"][1:]])
    lonely = replace(training, manifest=replace(training.manifest, table=table))
    assert set(LogisticLearner(EXACT)(lonely, test, 0)) <= {"0", "1", "2", "lonely"}


def test_one_sample_a_class_is_enough(split):
    training, test = split(n=3, noise=0)
    for name in LEARNERS:
        found = LEARNERS[name](EXACT)(training, test, 0)
        assert (found == test.manifest.table["label"]).mean() > 0.5


def test_the_network_a_head_is_linearised_around_is_no_learner(split):
    training, test = split()
    around = replace(EXACT, around_head=True)
    assert RidgeLearner(around)(training, test, 0).tolist() == RidgeLearner(EXACT)(training, test, 0).tolist()
