"""Curves: what is removed and added at each point, and that each begins at fraction 0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.curate.extend import extend
from divacli.curate.pool_rule import ExtendOptions
from divacli.curate.prune_rules import choose_kept
from divacli.curate.sample_scores import score
from divacli.errors import DataError
from divacli.evaluation.curve import additions, by_derivative, by_loss, measure_curve, removals
from divacli.evaluation.evaluate import TrainingSet, measure
from divacli.evaluation.learners import RidgeLearner, ridge_outputs
from divacli.features import joined
from divacli.progress import silent
from divacli.solve.ridge_problem import SolveOptions

OPTIONS = SolveOptions(ridge=0.5, dtype=torch.float64)


@pytest.fixture
def parts(gaussian):
    """Core, pool and test samples of the same classes."""
    whole = gaussian(n=120)
    rows = np.arange(120)
    return whole.select(rows < 45), whole.select((rows >= 45) & (rows < 85)), whole.select(rows >= 85)


def paths(samples) -> list[str]:
    return samples.manifest.table["path"].tolist()


def test_what_is_left_is_what_prune_keeps(parts):
    core, _, _ = parts
    result = score(core, OPTIONS)
    points = removals(result, [0.2, 0.5], [0, 1])
    assert [(point.rule, point.fraction, point.seed) for point in points] == [
        (rule, fraction, seed)
        for fraction in (0.2, 0.5)
        for rule, seed in (("derivative", None), ("loo_loss", None), ("random", 0), ("random", 1))
    ]
    for point in points:
        assert len(point.samples) == round((1 - point.fraction) * 45 + 0.5)
        if point.rule != "random":
            kept = choose_kept(result.table, keep=1 - point.fraction, by=point.rule).kept
            assert set(paths(point.samples)) == set(result.table["path"][kept])
    assert set(paths(points[6].samples)) < set(paths(points[2].samples)), "a random order, cut twice"
    assert paths(points[2].samples) != paths(points[3].samples)


def test_features_stay_with_their_rows(parts):
    core, _, _ = parts
    known = dict(zip(paths(core), core.features[:], strict=True))
    for point in removals(score(core, OPTIONS), [0.3], [0]):
        for path, row in zip(paths(point.samples), point.samples.features[:], strict=True):
            assert (row == known[path]).all()


def test_every_rule_begins_with_everything(parts):
    core, _, test = parts
    learners = [RidgeLearner(OPTIONS)]
    curve = measure_curve(
        "removed", core, removals(score(core, OPTIONS), [0.2, 0.4], [0, 1]), test, learners, [0, 1]
    )
    everything = measure([TrainingSet("everything", core)], test, learners, [0])["test_error"].item()
    table = curve.table
    assert table["rule"].tolist() == ["derivative"] * 3 + ["loo_loss"] * 3 + ["random"] * 5
    assert table["fraction"].tolist() == [0, 0.2, 0.4] * 2 + [0, 0.2, 0.2, 0.4, 0.4]
    assert table.loc[table["fraction"] == 0, "test_error"].tolist() == [everything] * 3
    assert table["difference"].tolist() == pytest.approx((table["test_error"] - everything).tolist())
    means = curve.summary.set_index(["rule", "fraction"])
    assert means.at[("random", 0.4), "runs"] == 2
    assert means.at[("random", 0.4), "test_error"] == pytest.approx(table["test_error"].iloc[-2:].mean())


def test_the_best_of_the_pool_is_added_to_the_core(parts):
    core, pool, _ = parts
    backwards = {
        "backwards": lambda core, pool: np.arange(len(pool))[::-1],
        "few": lambda core, pool: np.array([3, 1, 0]),
    }
    points = additions(core, pool, backwards, [0.05, 0.5, 1], [0])
    assert [(point.rule, point.fraction) for point in points] == [
        *(("backwards", 0.05), ("few", 0.05), ("random", 0.05), ("few", 0.075)),
        *(("backwards", 0.5), ("random", 0.5), ("backwards", 1), ("random", 1)),
    ]
    assert set(paths(points[4].samples)) == set(paths(core)) | set(paths(pool)[20:])
    assert set(paths(points[1].samples)) == set(paths(core)) | {paths(pool)[1], paths(pool)[3]}
    assert set(paths(points[3].samples)) == set(paths(points[1].samples)) | {paths(pool)[0]}
    assert set(paths(points[7].samples)) == set(paths(core)) | set(paths(pool))


def test_the_loss_of_the_pool_is_that_of_the_core_alone(parts):
    core, pool, _ = parts
    outputs = ridge_outputs(core, pool, OPTIONS).numpy()
    labels = pool.manifest.table["label"].astype(int).to_numpy()
    loss = ((outputs - np.eye(3)[labels]) ** 2).sum(axis=1)
    assert by_loss(OPTIONS)(core, pool).tolist() == np.argsort(loss).tolist()


def test_a_label_that_only_the_pool_has_is_a_target_of_its_own(parts):
    core, pool, _ = parts
    table = pool.manifest.table.assign(label="new")
    new = replace(pool, manifest=replace(pool.manifest, table=table))
    outputs = ridge_outputs(core, pool, OPTIONS).numpy()
    assert by_loss(OPTIONS)(core, new).tolist() == np.argsort((outputs**2).sum(axis=1)).tolist()


def test_joined_samples_have_their_own_features_and_files(tmp_path, load):
    parts = []
    for number, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        rows = np.arange(6.0).reshape(3, 2) + 10 * number
        np.savez(tmp_path / folder / "x.npz", embedding=rows, label=[0, 1, 1])
        parts.append(load(tmp_path / folder / "x.npz"))
    both = joined(*parts)
    assert (both.features[:] == torch.cat([part.features[:] for part in parts])).all()
    both.manifest.table.to_csv(tmp_path / "one" / "both.csv", index=False)
    again = load(tmp_path / "one" / "both.csv")
    assert (again.features[:] == both.features[:]).all()


def test_joined_samples_have_keys_where_both_have(parts):
    core, pool, _ = parts
    assert joined(core, pool).keys is None
    core, pool = (
        replace(part, keys=np.full((len(part), 32), n, np.uint8)) for n, part in enumerate((core, pool))
    )
    assert joined(core, pool).keys[:, 0].tolist() == [0] * len(core) + [1] * len(pool)


def test_the_derivative_takes_what_extend_chooses(parts):
    core, pool, _ = parts
    order = by_derivative(OPTIONS, None, silent)(core, pool)
    selected = extend(core, pool, OPTIONS, ExtendOptions(by="derivative")).selected
    assert 0 < len(order) < len(pool)
    assert [paths(pool)[row] for row in order] == selected["path"].tolist()


def test_a_pool_without_labels_or_of_another_width_is_refused(parts, gaussian):
    core, pool, _ = parts
    blank = replace(pool, manifest=pool.manifest.without_labels())
    with pytest.raises(DataError, match="has no labels"):
        additions(core, blank, {}, [0.5], [0])
    with pytest.raises(DataError, match="has 5 features a sample"):
        additions(core, gaussian(d=5), {}, [0.5], [0])


def test_the_table_is_plain(parts):
    core, _, test = parts
    curve = measure_curve(
        "removed", core, removals(score(core, OPTIONS), [0.5], [0]), test, [RidgeLearner(OPTIONS)], [0]
    )
    assert isinstance(curve.table, pd.DataFrame)
    assert list(curve.table)[:5] == ["rule", "fraction", "learner", "seed", "n_train"]
    assert curve.n_test == len(test)
