"""A choice from a pool: its refits are exact, near-copies lose their worth, and a pool is read in pieces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from divacli.curate.extend import extend
from divacli.curate.pool_rule import ExtendOptions
from divacli.errors import DataError, ModelError
from divacli.features.feature_rows import whole
from divacli.solve.pool import shared_classes
from divacli.solve.ridge_problem import SolveOptions

WIDE = SolveOptions(dtype=torch.float64)


@pytest.fixture
def draw(tmp_path, load):
    """Samples of Gaussian classes with common means: the first name's labels are right."""

    def make(name, n, seed, flips=0.0, classes=3, d=6, scale=0.9):
        generator = np.random.default_rng(seed)
        truth = np.arange(n) % classes
        features = np.random.default_rng(99).normal(size=(4, d))[truth] * scale
        features = features + generator.normal(size=(n, d))
        wrong = generator.random(n) < flips
        labels = np.where(wrong, (truth + 1) % classes, truth)
        file = tmp_path / f"{name}.npz"
        np.savez(file, embedding=features, label=labels, path=[f"{name}{i:03d}" for i in range(n)])
        return load(file)

    return make


def names(result) -> list[str]:
    return result.selected["path"].tolist()


def features_of(samples) -> np.ndarray:
    features = samples.features[:].double().numpy()
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def fitted(features, targets, weights, ridge):
    """Coefficients and an unpenalised intercept, from the normal equations."""
    design = np.column_stack([features, np.ones(len(features))])
    penalty = np.diag([ridge] * features.shape[1] + [0.0])
    return np.linalg.solve(
        design.T @ (weights[:, None] * design) + penalty, design.T @ (weights[:, None] * targets)
    )


def predicted(coefficients, features):
    return np.column_stack([features, np.ones(len(features))]) @ coefficients


@pytest.mark.parametrize("by_validation", [False, True])
def test_the_history_is_that_of_real_refits(by_validation, draw):
    core, pool, held_out = draw("core", 24, 1), draw("pool", 40, 2, 0.2), draw("val", 30, 3)
    result = extend(
        core,
        pool,
        replace(WIDE, ridge=0.8),
        ExtendOptions(9, 3, by="derivative"),
        held_out if by_validation else None,
    )
    assert len(result.selected) == 9
    order = [pool.manifest.table["path"].tolist().index(name) for name in names(result)]
    x, chosen = features_of(core), features_of(pool)[order]
    eye = np.eye(3)
    y = eye[core.manifest.class_numbers(core.manifest.classes)]
    more = eye[pool.manifest.class_numbers(core.manifest.classes)][order]
    for row in result.history.itertuples():
        n = row.n_selected
        z, targets = np.concatenate([x, chosen[:n]]), np.concatenate([y, more[:n]])
        weights = np.ones(len(z))
        if by_validation:
            outputs = predicted(fitted(z, targets, weights, 0.8), features_of(held_out))
            answers = eye[held_out.manifest.class_numbers(core.manifest.classes)]
        else:
            rows = []
            for left_out in range(len(x)):
                absent = np.where(np.arange(len(z)) == left_out, 0.0, weights)
                rows.append(predicted(fitted(z, targets, absent, 0.8), x[left_out : left_out + 1])[0])
            outputs, answers = np.array(rows), y
        assert row.loss == pytest.approx(((outputs - answers) ** 2).sum(axis=1).mean(), rel=1e-9)
        assert row.error == pytest.approx((outputs.argmax(axis=1) != answers.argmax(axis=1)).mean())
    assert len(result.history) == 4


def test_the_first_derivative_is_that_of_the_loss(draw):
    """Against central differences of the core's loss in the weight that a pool sample enters with."""
    core, pool = draw("core", 24, 1), draw("pool", 12, 2)
    result = extend(core, pool, replace(WIDE, ridge=0.8), ExtendOptions(1, by="derivative"))
    x, z = features_of(core), features_of(pool)
    y = np.eye(3)[core.manifest.class_numbers(core.manifest.classes)]
    targets = np.eye(3)[pool.manifest.class_numbers(core.manifest.classes)]

    def loss(row, weight):
        total = 0.0
        for left_out in range(len(x)):
            weights = np.append(np.arange(len(x)) != left_out, weight).astype(float)
            both, answers = np.vstack([x, z[row]]), np.vstack([y, targets[row]])
            output = predicted(fitted(both, answers, weights, 0.8), x[left_out : left_out + 1])[0]
            total += ((output - y[left_out]) ** 2).sum()
        return total

    found = [(loss(row, 1e-4) - loss(row, -1e-4)) / 2e-4 for row in range(12)]
    assert result.first.derivative.numpy() == pytest.approx(np.array(found), rel=1e-5, abs=1e-8)


def test_fifty_near_copies_are_not_chosen_fifty_times(draw, tmp_path, load):
    core, pool = draw("core", 30, 1), draw("pool", 60, 2)
    how = ExtendOptions(1, by="derivative")
    best = int(extend(core, pool, WIDE, how).selected["path"].iloc[0].removeprefix("pool"))
    features = pool.features[:].numpy()
    labels = pool.manifest.table["label"].to_numpy(str)
    copies = features[[best] * 50] + 1e-3 * np.random.default_rng(0).normal(size=(50, 6))
    np.savez(
        tmp_path / "copies.npz",
        embedding=np.concatenate([features, copies]),
        label=np.concatenate([labels, labels[[best] * 50]]),
    )
    alike = {str(best), *(str(60 + number) for number in range(50))}
    result = extend(core, load(tmp_path / "copies.npz"), WIDE, replace(how, budget=50))
    # A ranking by the first derivatives alone would take all of them.
    assert {str(row) for row in result.first.derivative.argsort()[:51].tolist()} == alike
    assert len(result.selected) == 50
    assert len(alike & set(names(result))) < 25


def test_wrong_labels_of_the_pool_are_not_trusted(draw):
    core, pool = draw("core", 60, 1, scale=2), draw("pool", 300, 2, 0.5, scale=2)
    result = extend(core, pool, SolveOptions(), ExtendOptions(100))
    assert result.summary["pool_noise"] == pytest.approx(0.5, abs=0.08)
    truth = np.array([int(name.removeprefix("pool")) % 3 for name in names(result)]).astype(str)
    assert (truth == result.selected["label"]).mean() > 0.97
    left = result.remaining[result.remaining["reason"] == "its label is not trusted"]
    truth = (left["path"].str.removeprefix("pool").astype(int) % 3).astype(str)
    assert (truth != left["label"]).mean() > 0.8


def test_a_new_camera_is_served_by_its_own_validation_set(draw, load, tmp_path):
    """Half of the pool is shifted, as the validation set is: the choice with it prefers that half."""
    core, pool, held_out = draw("core", 30, 1), draw("pool", 100, 2), draw("val", 60, 3)

    def turned(samples, rows):
        features = samples.features[:].numpy().copy()
        features[rows] = np.roll(features[rows], 2, axis=1)
        return replace(samples, features=whole(features))

    mixed = turned(pool, slice(50, 100))
    new = turned(held_out, slice(None))
    how = ExtendOptions(20, min_trust=0.0, by="derivative")
    own = extend(core, mixed, SolveOptions(), how)
    served = extend(core, mixed, SolveOptions(), how, new)

    def share(result):
        return np.mean([int(name.removeprefix("pool")) >= 50 for name in names(result)])

    assert share(served) > 0.8 > 0.5 > share(own)
    assert served.history["error"].iloc[-1] < served.history["error"].iloc[0]


class CountedRows:
    """Rows that remember how many were read at once."""

    def __init__(self, rows):
        self.rows = rows
        self.reads: list[int] = []

    @property
    def shape(self):
        return self.rows.shape

    def __getitem__(self, rows):
        found = self.rows[rows]
        self.reads.append(len(found))
        return found

    def select(self, rows):
        return self.rows.select(rows)


def test_a_pool_is_read_in_pieces(draw):
    core, pool = draw("core", 30, 1), draw("pool", 10_000, 2)
    counted = CountedRows(pool.features)
    result = extend(
        core,
        replace(pool, features=counted),
        SolveOptions(),
        ExtendOptions(20, 5, by="derivative", trust_core=True),
    )
    assert len(result.selected) == 20
    assert max(counted.reads) < 10_000
    # Looked at anew for each batch, and not for each sample.
    assert 4 * 10_000 <= sum(counted.reads) < 6 * 10_000


@pytest.mark.parametrize(("start_full", "by_validation"), [(False, False), (False, True), (True, False)])
def test_wide_features_are_chosen_by_their_inner_products(draw, start_full, by_validation):
    """In more dimensions than there are samples the dual form takes over, which must choose the same."""
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 6)))

    def widened(samples):
        return replace(samples, features=samples.features[:].double() @ torch.from_numpy(axes.T))

    core, pool, validation = draw("core", 20, 1), draw("pool", 40, 2, 0.3), draw("val", 30, 3)
    how = ExtendOptions(12, 4, start_full=start_full)
    sets = (core, pool, validation if by_validation else None)
    narrow = extend(*sets[:2], WIDE, how, sets[2])
    wide = extend(*[widened(part) for part in sets[:2]], WIDE, how, sets[2] and widened(sets[2]))
    assert names(wide) == names(narrow)
    assert wide.history["loss"].tolist() == pytest.approx(narrow.history["loss"].tolist(), rel=1e-9)


def test_rows_of_core_and_pool_may_stand_in_any_order(draw):
    core, pool = draw("core", 30, 1), draw("pool", 80, 2, 0.3)
    expected = extend(core, pool, WIDE, ExtendOptions(25))
    generator = np.random.default_rng(0)
    found = extend(
        core.select(generator.permutation(30)),
        pool.select(generator.permutation(80)),
        WIDE,
        ExtendOptions(25),
    )
    assert names(found) == names(expected)
    assert found.history["loss"].tolist() == pytest.approx(expected.history["loss"].tolist(), rel=1e-9)


def test_unlabelled_samples_are_trained_on_at_their_expected_labels(draw):
    core, pool = draw("core", 30, 1), draw("pool", 80, 2)
    bare = replace(pool, manifest=pool.manifest.without_labels())
    result = extend(core, bare, WIDE, ExtendOptions(20))
    assert result.first.noise == 0
    assert set(result.first.trust.tolist()) == {1.0}
    selected = result.selected
    assert (selected["label"] == selected["predicted_label"]).all()
    assert ((selected["label_probability"] > 1 / 3) & (selected["label_probability"] <= 1)).all()
    truth = selected["path"].str.removeprefix("pool").astype(int) % 3
    assert (truth.astype(str) == selected["label"]).mean() > 0.6


def test_nothing_that_helps_is_no_error(draw):
    core, pool = draw("core", 30, 1), draw("pool", 20, 2)
    result = extend(core, pool, WIDE, ExtendOptions(5, min_trust=1.0))
    assert len(result.selected) == 0
    assert len(result.remaining) == 20
    assert result.extended["path"].tolist() == core.manifest.table["path"].tolist()
    assert result.history["n_selected"].tolist() == [0]
    assert result.selected.columns[0] == "batch"


def test_batches_follow_the_budget(draw):
    core, pool = draw("core", 30, 1), draw("pool", 80, 2)
    tried = {budget: extend(core, pool, WIDE, ExtendOptions(budget)) for budget in (1, 41, None)}
    assert {budget: result.summary["refit_every"] for budget, result in tried.items()} == {
        1: 1,
        41: 3,
        None: 4,
    }


def test_progress_is_told_of_every_choice(draw):
    from contextlib import contextmanager

    told = []

    @contextmanager
    def progress(what, total):
        told.append((what, total))
        yield told.append

    extend(draw("core", 30, 1), draw("pool", 80, 2), WIDE, ExtendOptions(10, 4), progress=progress)
    steps = [("fitting the core", 0), ("judging the pool", 0), ("judging rules by folds", 3), 1, 1, 1]
    assert told == [*steps, ("looking at the pool", 0), ("choosing", 10), 4, 4, 2]


def test_pools_that_do_not_fit(draw, tmp_path, load):
    core = draw("core", 30, 1)
    with pytest.raises(DataError, match="has 5 features a sample"):
        extend(core, draw("narrow", 20, 2, d=5), WIDE, ExtendOptions())
    with pytest.raises(ModelError, match="--around-head with a pool whose labels"):
        extend(core, draw("new", 20, 2, classes=4), replace(WIDE, around_head=True), ExtendOptions())


def test_classes_are_those_of_core_and_pool_sorted_by_value(draw, tmp_path, load):
    def labelled(name, labels):
        file = Path(tmp_path / name)
        np.savez(file, embedding=np.eye(len(labels)), label=np.array(labels))
        return load(file)

    assert shared_classes(labelled("a.npz", ["2", "10"]), labelled("b.npz", ["9", "10"])) == ["2", "9", "10"]
    assert shared_classes(labelled("c.npz", ["2", "10"]), labelled("d.npz", ["9", "x"])) == [
        "10",
        "2",
        "9",
        "x",
    ]


@pytest.fixture
def mixed(draw):
    """A core of 15, and a pool of 300 with a fifth of its labels wrong."""
    return draw("core", 15, 1, scale=2), draw("pool", 300, 2, 0.2, scale=2)


def truth_of(table):
    return (table["path"].str.removeprefix("pool").astype(int) % 3).astype(str)


RULE_NAMES = ("coreset", "balanced", "random, trusted")


def test_a_labelled_pool_is_chosen_from_for_what_core_and_pool_show(mixed):
    result = extend(*mixed, SolveOptions(), ExtendOptions(60))
    summary = result.summary
    assert summary["rule"] in ("coreset", "balanced", "random")
    assert set(summary["forecast"]["error"]) == {"nothing", *RULE_NAMES, "random"}
    assert "in the folds" in summary["why"]
    assert summary["pool_noise"] == pytest.approx(0.2, abs=0.06)
    assert len(result.selected) == 60
    assert (truth_of(result.selected) == result.selected["label"]).mean() > 0.95
    assert (result.selected["label_probability"] >= 0.5).all()


@pytest.mark.parametrize("by", ["coreset", "balanced", "derivative", "random"])
def test_a_rule_that_is_asked_for(by, mixed):
    result = extend(*mixed, SolveOptions(), ExtendOptions(40, by=by))
    assert (result.summary["rule"], result.summary["why"]) == (by, "it was asked for")
    chosen = "random, trusted" if by == "random" else by
    assert set(result.summary["forecast"]["error"]) == {"nothing", chosen, "random"}
    assert ("pool" in result.summary["judged_by"]) is (by != "derivative")
    assert 0 < len(result.selected) <= 40
    again = extend(*mixed, SolveOptions(), ExtendOptions(40, by=by))
    assert names(again) == names(result)
    reasons = set(result.remaining["reason"])
    assert "its label is not trusted" in reasons
    assert by != "random" or reasons == {"its label is not trusted", "the budget was spent"}


def test_a_random_choice_follows_the_seed_and_not_the_order_of_rows(mixed):
    core, pool = mixed
    how = ExtendOptions(40, by="random")
    expected = names(extend(core, pool, WIDE, how))
    turned = pool.select(np.random.default_rng(0).permutation(300))
    assert names(extend(core, turned, WIDE, how)) == expected
    assert names(extend(core, pool, replace(WIDE, seed=1), how)) != expected


def test_more_than_is_trusted_is_not_chosen(mixed):
    result = extend(*mixed, SolveOptions(), ExtendOptions(290))
    assert result.summary["stopped"] == "no other label is trusted"
    assert set(result.summary["forecast"]["error"]) == {"nothing", "coreset", "random"}
    assert set(result.remaining["reason"]) == {"its label is not trusted"}
    assert 200 < len(result.selected) < 260


def test_without_a_budget_it_ends_where_nothing_helps(mixed):
    result = extend(*mixed, SolveOptions(), ExtendOptions())
    assert result.summary["rule"] == "coreset"
    assert set(result.remaining["reason"]) <= {"its label is not trusted", "it would raise the loss"}
    assert (result.selected["pool_derivative"] < 0).mean() > 0.95


def test_with_a_validation_set_the_choice_serves_it_or_is_random(mixed, draw):
    result = extend(*mixed, SolveOptions(), ExtendOptions(40), draw("val", 60, 3, scale=2))
    assert result.summary["judged_by"] == "validation set"
    assert result.summary["rule"] in ("derivative", "random")
    assert set(result.summary["forecast"]["error"]) == {"nothing", "derivative", "random, trusted", "random"}


def test_classes_that_count_alike(mixed):
    found = [extend(*mixed, replace(WIDE, balanced=on), ExtendOptions(30, by="coreset")) for on in (0, 1)]
    assert len(found[0].selected) == len(found[1].selected) == 30


def test_rules_that_need_what_is_not_there(mixed, draw):
    core, pool = mixed
    bare = replace(pool, manifest=pool.manifest.without_labels())
    with pytest.raises(DataError, match="--by coreset with a pool without labels"):
        extend(core, bare, WIDE, ExtendOptions(5, by="coreset"))
    with pytest.raises(DataError, match="--by coreset with --val"):
        extend(core, pool, WIDE, ExtendOptions(5, by="coreset"), draw("val", 30, 3))
    with pytest.raises(DataError, match="rule 'best'"):
        extend(core, pool, WIDE, ExtendOptions(5, by="best"))
    drawn = extend(core, bare, WIDE, ExtendOptions(5, by="random"))
    assert (drawn.summary["rule"], len(drawn.selected)) == ("random", 5)


def test_where_nothing_is_chosen_nothing_is_forecast(draw):
    core, wrong = draw("core", 60, 1, scale=4), draw("pool", 20, 2, 1.0, scale=4)
    result = extend(core, wrong, WIDE, ExtendOptions(by="derivative", min_trust=0.0))
    assert not len(result.selected)
    assert (result.outlook, result.unknown, result.summary["forecast"]) == (None, "nothing was chosen", None)


def test_a_budget_of_nearly_all_leaves_no_choice_to_judge(mixed):
    result = extend(*mixed, SolveOptions(), ExtendOptions(210))
    assert result.summary["rule"] == "coreset"
    assert result.summary["why"] == "it comes first: in the folds the budget takes all that is trusted"
