"""Other modalities: shifted to the core's mean, chosen from, weighed, and written with their features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from divacli.curate.aggregate import FEATURES, WEIGHTS, aggregate, aligned, features_file
from divacli.curate.extend import extend
from divacli.curate.pool_rule import ExtendOptions
from divacli.errors import DataError, StoreError
from divacli.evaluation.learners import RidgeLearner
from divacli.features import joined
from divacli.features.feature_rows import whole
from divacli.files.write import write_bytes
from divacli.manifest import write_table
from divacli.ridge import decompose, leave_one_out, ridge_path
from divacli.ridge.leave_out.losses import SquaredLoss
from divacli.solve.ridge_problem import SolveOptions, pose

OPTIONS = SolveOptions(dtype=torch.float64)
EVERYTHING = ExtendOptions()


@pytest.fixture
def draw(tmp_path, load):
    """One modality of Gaussian classes with common means, in a cone of its own; the first labels wrong."""

    def make(name, n, seed, *, cone=0, wrong=0, classes=6, d=12, noise=0.6, **more):
        generator = np.random.default_rng(seed)
        truth = np.arange(n) % classes
        away = np.random.default_rng(98 - cone).normal(size=d) * 3
        features = np.random.default_rng(99).normal(size=(classes, d))[truth] + away
        features = features + noise * generator.normal(size=(n, d))
        labels = np.where(np.arange(n) < wrong, (truth + 1) % classes, truth)
        file = tmp_path / f"{name}.npz"
        np.savez(file, **{"embedding": features.astype(np.float32), "label": labels, **more})
        return load(file)

    return make


def mean(samples, unit=True):
    features = samples.features[:].double()
    return (torch.nn.functional.normalize(features) if unit else features).mean(dim=0).numpy()


def error(training, test) -> float:
    answers = test.manifest.table["label"].to_numpy(str)
    return float((RidgeLearner(OPTIONS)(training, test, 0) != answers).mean())


@pytest.mark.parametrize("scaling", ["none", "unit"])
def test_alignment_moves_the_mean_of_the_pool(scaling, draw):
    core, pool = draw("core", 60, 1), draw("pool", 60, 2, cone=1)
    moved = aligned(pool, core, scaling)
    assert moved.dtype == np.float32
    target, before = mean(core, scaling == "unit"), mean(pool, scaling == "unit")
    if scaling == "none":
        assert moved.mean(axis=0) == pytest.approx(target, abs=1e-5)
        # Nothing else is changed.
        shift = moved - pool.features[:].numpy()
        assert np.ptp(shift, axis=0) == pytest.approx(np.zeros(12), abs=1e-5)
    else:
        assert np.linalg.norm(moved, axis=1) == pytest.approx(np.ones(60), abs=1e-5)
        # Rows scaled anew have nearly that mean.
        assert np.linalg.norm(moved.mean(axis=0) - target) < 0.25 * np.linalg.norm(before - target)


def test_the_core_stays_as_it_is(draw):
    core, pool = draw("core", 60, 1), draw("pool", 60, 2, cone=1)
    result = aggregate(core, [("texts", pool)], OPTIONS, EVERYTHING)
    assert (result.features[:60] == core.features[:].numpy()).all()
    rows = [int(name.removeprefix("texts/")) for name in result.choice.selected["path"]]
    shifted = aligned(pool, core, "unit")
    assert (result.features[60:] == shifted[rows]).all()
    left = [int(name.removeprefix("texts/")) for name in result.choice.remaining["path"]]
    assert (result.remaining == shifted[left]).all()
    assert sorted(rows + left) == list(range(60))


def auc(derivative, n_wrong) -> float:
    """Of the wrong members, which come first, pair by pair."""
    return float((derivative[:n_wrong, None] > derivative[None, n_wrong:]).double().mean())


def test_wrong_members_have_the_larger_derivatives_once_aligned(draw):
    core, pool = draw("core", 36, 0), draw("pool", 60, 20, cone=1, wrong=15)
    result = aggregate(core, [("texts", pool)], OPTIONS, EVERYTHING)
    assert auc(result.choice.first.derivative, 15) > 0.97
    rows = np.array([int(name.removeprefix("texts/")) for name in result.choice.selected["path"]])
    assert (rows < 15).mean() < 0.1
    # Negative control: as they are, they lie where no image does.
    assert auc(extend(core, pool, OPTIONS, EVERYTHING).first.derivative, 15) < 0.85


def test_where_the_pool_lies_does_not_matter(draw):
    """Alignment takes a constant shift of a modality back."""
    core, pool = draw("core", 36, 1), draw("pool", 30, 2)
    moved = replace(pool, features=whole(pool.features[:].numpy() + np.float32(4)))
    options = replace(OPTIONS, scaling="none")
    found = [aggregate(core, [("texts", part)], options, EVERYTHING) for part in (pool, moved)]
    assert found[0].choice.selected["path"].tolist() == found[1].choice.selected["path"].tolist()
    assert found[0].features == pytest.approx(found[1].features, abs=1e-5)
    unaligned = [extend(core, part, options, EVERYTHING).first.derivative for part in (pool, moved)]
    assert not torch.allclose(*unaligned, rtol=0.1)


def test_the_weight_is_the_best_of_those_that_were_tried(draw):
    core = draw("core", 36, 1)
    pools = [("texts", draw("pool", 30, 2, cone=1)), ("sketches", draw("other", 30, 3, cone=2))]
    result = aggregate(core, pools, OPTIONS, EVERYTHING)
    for name, part in result.summary["modalities"].items():
        assert [float(text) for text in part["tried"]] == list(WEIGHTS)
        assert part["weight"] == result.weights[name]
        assert part["tried"][f"{part['weight']:g}"] == min(part["tried"].values())
        chosen = result.choice.selected["modality"] == name
        assert part["n_selected"] == chosen.sum() > 0
        assert set(result.choice.selected["weight"][chosen]) == {part["weight"]}
        in_both = result.choice.extended["modality"] == name
        assert set(result.choice.extended["weight"][in_both]) == {part["weight"]}
    assert set(result.choice.extended["weight"][:36]) == {1}


def test_weights_of_members_are_multiplied(draw):
    core, pool = (
        draw("core", 36, 1),
        draw("pool", 30, 2, cone=1, weight=np.where(np.arange(30) < 15, 0.5, 1)),
    )
    result = aggregate(core, [("texts", pool)], OPTIONS, EVERYTHING)
    rows = np.array([int(name.removeprefix("texts/")) for name in result.choice.selected["path"]])
    expected = np.where(rows < 15, 0.5, 1) * result.weights["texts"]
    assert result.choice.selected["weight"].tolist() == expected.tolist()
    assert result.choice.extended["weight"].tolist()[36:] == expected.tolist()


def test_a_modality_of_which_nothing_is_chosen_keeps_weight_1(draw):
    core = draw("core", 36, 1)
    pools = [("texts", draw("pool", 30, 2, cone=1)), ("wrong", draw("other", 12, 3, wrong=12))]
    result = aggregate(core, pools, OPTIONS, EVERYTHING)
    assert result.summary["modalities"]["wrong"] == {
        "n_pool": 12,
        "n_selected": 0,
        "weight": 1.0,
        "tried": {},
    }
    assert result.weights["texts"] in WEIGHTS


def test_a_single_sample_of_a_class_starts_with_the_pools_in(draw):
    test = draw("test", 600, 7, noise=1)
    core, pool = draw("core", 6, 1, noise=1), draw("pool", 36, 2, cone=1, wrong=8, noise=0.3)
    result = aggregate(core, [("texts", pool)], OPTIONS, EVERYTHING)
    assert result.summary["classes_of_one"] == list("012345")
    assert result.summary["start"] == "pools in, harmful members dropped"
    assert result.choice.history["n_selected"].tolist() == [36, len(result.choice.selected)]
    assert set(result.choice.remaining["reason"]) == {"it would raise the loss"}
    assert (result.choice.remaining["pool_derivative"] >= 0).all()
    both = replace(
        core,
        manifest=replace(core.manifest, kind="table", table=result.choice.extended, embeddings=None),
        features=whole(result.features),
    )
    assert error(both, test) < error(core, test) - 0.05
    rows = np.array([int(name.removeprefix("texts/")) for name in result.choice.selected["path"]])
    assert (rows < 8).mean() < 8 / 36


def test_samples_of_weight_zero_do_not_count_as_company(draw):
    weight = np.ones(12)
    weight[6] = 0
    core = draw("core", 12, 1, weight=weight)
    result = aggregate(core, [("texts", draw("pool", 36, 2, cone=1))], OPTIONS, EVERYTHING)
    assert result.summary["classes_of_one"] == ["0"]


def test_a_validation_set_judges_classes_of_one(draw):
    core, pool, held_out = draw("core", 6, 1), draw("pool", 36, 2, cone=1), draw("val", 60, 4)
    result = aggregate(core, [("texts", pool)], OPTIONS, ExtendOptions(12), held_out)
    assert result.summary["start"] == "pools out"
    assert result.summary["judged_by"] == "validation set"
    assert len(result.choice.selected) == 12
    assert result.choice.history["error"].iloc[-1] <= result.choice.history["error"].iloc[0]


def test_what_was_written_is_what_was_solved(draw, tmp_path, load):
    core, pool = draw("core", 36, 1), draw("pool", 30, 2, cone=1, wrong=8)
    result = aggregate(core, [("texts", pool)], OPTIONS, EVERYTHING)
    folder = tmp_path / "out"
    write_bytes(folder / FEATURES, features_file(result))
    for name, features in (("extended", result.features), ("remaining", result.remaining)):
        table = getattr(result.choice, name)
        write_table(table, folder / f"{name}.csv", "csv")
        read = load(folder / f"{name}.csv")
        assert (read.features[:].numpy() == features).all()
        assert read.manifest.table["label"].tolist() == table["label"].tolist()
        assert read.manifest.table["weight"].tolist() == table["weight"].tolist()
    task = pose(load(folder / "extended.csv"), OPTIONS)
    mask = (torch.arange(len(task)) < 36).double()
    task = replace(task, validation_mask=mask)
    path = ridge_path(task, decompose(task))
    assert float(path.ridges[path.best]) == pytest.approx(result.summary["ridge"], rel=1e-6)
    found = leave_one_out(task, decompose(task).fit(result.summary["ridge"]), SquaredLoss())
    before = pose(core, OPTIONS)
    alone = ridge_path(before, decompose(before))
    reference = leave_one_out(before, decompose(before).fit(float(alone.ridges[alone.best])), SquaredLoss())
    assert float(mask @ found.loss) < float(reference.loss.sum())


def test_rows_of_one_name_are_told_apart(draw, tmp_path, load):
    """Two files of embeddings, in the core as in a pool, may both have a row named 0."""
    parts = [draw(name, 18, seed) for name, seed in (("a", 1), ("b", 2), ("c", 3), ("d", 4))]
    tables = []
    for first in (0, 2):
        pair = joined(parts[first], parts[first + 1])
        write_table(pair.manifest.table, tmp_path / f"{first}.csv", "csv")
        tables.append(load(tmp_path / f"{first}.csv"))
    core, pool = tables
    assert not core.manifest.table["path"].is_unique
    result = aggregate(core, [("texts", pool)], OPTIONS, EVERYTHING)
    names = [*result.choice.extended["path"], *result.choice.remaining["path"]]
    assert len(set(names)) == len(names) == 72
    write_bytes(tmp_path / "out" / FEATURES, features_file(result))
    write_table(result.choice.extended, tmp_path / "out/extended.csv", "csv")
    assert (load(tmp_path / "out/extended.csv").features[:].numpy() == result.features).all()
    chosen = result.choice.selected["path"].tolist()
    rows = [pool_names(36).index(name) for name in chosen]
    assert (result.features[36:] == aligned(pool, core, "unit")[rows]).all()


def pool_names(n: int) -> list[str]:
    return [f"texts/{row}" for row in range(n // 2)] + [f"texts/{row} (2)" for row in range(n // 2)]


def test_what_is_refused(draw):
    core, pool = draw("core", 36, 1), draw("pool", 30, 2)
    bare = replace(pool, manifest=pool.manifest.without_labels())
    with pytest.raises(DataError, match="has no labels"):
        aggregate(core, [("texts", bare)], OPTIONS, EVERYTHING)
    with pytest.raises(DataError, match="has 5 features a sample"):
        aggregate(core, [("texts", draw("narrow", 30, 2, d=5))], OPTIONS, EVERYTHING)
    one, other = (replace(part, identity={"space": name}) for part, name in ((core, "a"), (pool, "b")))
    with pytest.raises(StoreError):
        aggregate(one, [("texts", other)], OPTIONS, EVERYTHING)
