"""Derivatives summed by class, column and confusion, and the exact change when such a group is removed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.curate import harm
from divacli.curate.harm import HARM_COLUMNS, far_off, harm_by, require_columns
from divacli.curate.sample_scores import ScoreResult, score
from divacli.errors import DataError
from divacli.features import Samples
from divacli.ridge import decompose, leave_one_out
from divacli.solve.ridge_problem import SolveOptions, pose

DOUBLE = SolveOptions(dtype=torch.float64)
COUNTS = ["n_samples", "weight", "derivative", "harmful"]


def with_columns(samples: Samples, **columns: object) -> Samples:
    """The same samples with other cells."""
    table = samples.manifest.table.assign(**columns)
    return replace(samples, manifest=replace(samples.manifest, table=table))


def part(samples: Samples, rows: np.ndarray) -> Samples:
    """Some samples, by their numbers."""
    return replace(samples, manifest=samples.manifest.select(rows), features=samples.features.select(rows))


def with_scores(result: ScoreResult, **columns: object) -> ScoreResult:
    return replace(result, table=result.table.assign(**columns))


def change_of_refit(result: ScoreResult, options: SolveOptions, gone: np.ndarray) -> float:
    """The change of the summed leave-one-out loss by a refit without some samples, which still count.

    Args:
        gone: (n,) bool in the order of the samples.
    """
    solution = result.solution
    task = pose(result.samples, options)
    without = replace(task, weights=torch.where(torch.from_numpy(gone.copy()), 0.0, task.weights))
    before, after = (
        leave_one_out(each, decompose(each).fit(solution.ridge), solution.loss).loss
        for each in (task, without)
    )
    return float((after - before).sum())


@pytest.fixture
def annotated(gaussian):
    """120 samples of three classes and five annotators of different diligence, some weights not 1."""
    generator = np.random.default_rng(0)
    weights = np.where(np.arange(120) % 7 == 0, 0.0, 0.5 + generator.random(120))
    samples = gaussian(120, 6, weights=weights)
    return with_columns(samples, annotator=generator.choice([*"vwxyz"], 120, p=[0.4, 0.3, 0.15, 0.1, 0.05]))


@pytest.fixture
def planted(gaussian):
    """200 samples of which the one annotator in five called eve shuffled her labels."""
    samples = gaussian(200, 6, seed=3)
    generator = np.random.default_rng(1)
    names = generator.choice(["ann", "bob", "cat", "dan", "eve"], 200)
    labels = samples.manifest.table["label"].to_numpy(object, copy=True)
    hers = names == "eve"
    labels[hers] = generator.permutation(labels[hers])
    return with_columns(samples, annotator=names, label=pd.Series(labels, dtype="str"))


@pytest.mark.parametrize("column", ["class", "label", "annotator"])
def test_sums_are_those_of_the_scores(column, annotated):
    result = score(annotated, DOUBLE)
    found = harm_by(result, [column]).table
    assert list(found) == list(HARM_COLUMNS)
    assert set(found["by"]) == {column}
    assert set(found["label"]) == set(found["suggested_label"]) == {""}
    cells = annotated.manifest.table["label" if column == "class" else column].to_numpy()
    weight = annotated.manifest.table["weight"].to_numpy()
    assert sorted(found["value"]) == sorted(set(cells))
    for row in found.itertuples():
        mine = cells == row.value
        assert row.n_samples == mine.sum()
        assert row.weight == pytest.approx(weight[mine].sum())
        assert row.derivative == pytest.approx((weight * result.derivative)[mine].sum())
        assert row.harmful == (result.derivative[mine] > 0).sum()
        wrong = result.table["mislabel_probability"].to_numpy()[mine[result.order]]
        assert row.mislabelled == pytest.approx(wrong.sum())
    total = found[COUNTS].sum()
    assert total["n_samples"] == 120
    assert total["derivative"] == pytest.approx(float(weight @ result.derivative))
    assert total["harmful"] == result.summary["n_harmful"]
    assert found["loss_change_predicted"].tolist() == (-found["derivative"]).tolist()
    assert found["derivative"].is_monotonic_decreasing


@pytest.mark.parametrize("options", [{}, {"loss": "cross-entropy"}, {"group": "patient"}])
@pytest.mark.parametrize("width", [6, 150], ids=["n>d", "n<d"])
def test_the_exact_change_is_that_of_a_refit(width, options, gaussian, annotated):
    posed = replace(DOUBLE, **options)
    names = annotated.manifest.table["annotator"]
    patients = [str(row // 3) for row in range(120)]
    samples = with_columns(gaussian(120, width, seed=1), annotator=names, patient=patients)
    result = score(samples, posed)
    found = harm_by(result, ["annotator"])
    for row in found.table.itertuples():
        gone = (names == row.value).to_numpy()
        assert row.loss_change_exact == pytest.approx(change_of_refit(result, posed, gone), abs=1e-8)


def test_every_class_keeps_its_share_of_a_balanced_loss(annotated):
    """Those who are removed count as before in the loss, so the balance of classes does not shift."""
    result = score(annotated, replace(DOUBLE, balanced=True))
    task, ridge = result.solution.solved, result.solution.ridge
    assert task.validation_mask.unique().numel() == 3

    def loss(gone: np.ndarray) -> float:
        without = replace(task, weights=torch.where(torch.from_numpy(gone.copy()), 0.0, task.weights))
        losses = leave_one_out(without, decompose(without).fit(ridge), result.solution.loss).loss
        return float(task.validation_mask @ losses)

    found = harm_by(result, ["class"])
    before = loss(np.zeros(120, bool))
    assert found.loss == pytest.approx(before)
    for row in found.table.itertuples():
        gone = (annotated.manifest.table["label"] == row.value).to_numpy()
        assert row.loss_change_exact == pytest.approx(loss(gone) - before, abs=1e-8)


def test_the_exact_change_of_a_validation_set_is_that_of_scoring_the_rest(gaussian, planted):
    """Weights of the validation set count, and its samples of no annotator of ours never leave."""
    weights = np.random.default_rng(2).random(90)
    judged = gaussian(90, 6, seed=3, weights=weights)
    result = score(planted, DOUBLE, judged)
    found = harm_by(result, ["annotator"])
    at_ridge = replace(DOUBLE, ridge=result.solution.ridge)
    mean = score(planted, at_ridge, judged).summary["validation_loss"]
    assert found.loss == pytest.approx(mean * weights.sum())
    for row in found.table.itertuples():
        rows = np.flatnonzero(planted.manifest.table["annotator"] != row.value)
        after = score(part(planted, rows), at_ridge, judged).summary["validation_loss"]
        assert row.loss_change_exact == pytest.approx((after - mean) * weights.sum(), abs=1e-8)


def test_a_bad_annotator_comes_first_and_is_better_removed(gaussian, planted):
    """Her own labels speak for her in the leave-one-out loss; those of a validation set do not."""
    judged = gaussian(90, 6, seed=3)
    found = harm_by(score(planted, DOUBLE, judged), ["annotator"]).table
    assert found["value"][0] == "eve"
    assert found["loss_change_exact"][0] < 0
    assert (found["loss_change_exact"][1:] > 0).all()
    # 0.03 against 1.2 to 2.3 of the others: nothing is lost without her.
    alone = harm_by(score(planted, DOUBLE), ["annotator"]).table
    assert alone["value"][0] == "eve"
    assert alone["loss_change_exact"][0] < 0.1 * alone["loss_change_exact"][1:].min()
    # Negative control: names dealt out anew tell nobody apart.
    names = np.random.default_rng(4).permutation(planted.manifest.table["annotator"].to_numpy(object))
    dealt = harm_by(score(with_columns(planted, annotator=names), DOUBLE, judged), ["annotator"]).table
    assert (dealt["loss_change_exact"] > 0).all()


def test_the_order_of_the_samples_does_not_matter(planted):
    expected = harm_by(score(planted, DOUBLE), ["annotator", "class"]).table
    rows = np.random.default_rng(5).permutation(200)
    found = harm_by(score(part(planted, rows), DOUBLE), ["annotator", "class"]).table
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9)


def test_a_single_sample_moves_the_fit_little_and_a_class_much(planted):
    table = harm_by(score(planted, DOUBLE), ["path", "class"]).table
    singles, classes = table[table["by"] == "path"], table[table["by"] == "class"]
    # 5 of the 50 that were refitted: the first order misses by a little more than half of their change.
    assert far_off(singles).sum() <= 0.2 * harm.EXACT
    assert far_off(classes).all()
    # Where the change is not known it is not called far.
    assert singles["loss_change_exact"].isna().sum() == 200 - harm.EXACT


def test_values_are_refitted_whose_sums_are_largest_of_either_sign(planted, monkeypatch):
    monkeypatch.setattr(harm, "EXACT", 40)
    seen = []

    @contextmanager
    def progress(what, total):
        seen.append(total)
        yield seen.append

    result = score(planted, DOUBLE)
    table = harm_by(result, ["path", "annotator"], progress).table
    assert seen == [45, *[1] * 45]
    paths = table[table["by"] == "path"]
    refitted = paths[paths["loss_change_exact"].notna()]
    assert refitted["derivative"].abs().min() >= paths.drop(refitted.index)["derivative"].abs().max()
    assert len(refitted) == 40
    assert refitted["derivative"].min() < 0 < refitted["derivative"].max()


def test_what_leaves_nothing_to_tell_apart_has_no_exact_change(planted):
    samples = part(planted, np.flatnonzero(planted.manifest.table["label"] != "2"))
    halves = np.where(np.arange(len(samples)) % 2, "a", "b")
    samples = with_columns(samples, annotator="ann", half=halves)
    table = harm_by(score(samples, DOUBLE), ["class", "annotator", "half"]).table
    known = table.set_index(["by", "value"])["loss_change_exact"].notna()
    assert known.to_dict() == {
        ("class", "0"): False,
        ("class", "1"): False,
        ("annotator", "ann"): False,
        ("half", "a"): True,
        ("half", "b"): True,
    }
    assert table["derivative"].notna().all()


def test_groups_that_are_left_out_together(planted):
    """The last group to be left has nobody to predict it."""
    halves = np.where(np.arange(200) % 2, "odd", "even")
    options = replace(DOUBLE, group="half")
    samples = with_columns(planted, half=halves)
    result = score(samples, options)
    table = harm_by(result, ["half", "annotator"]).table
    assert table[table["by"] == "half"]["loss_change_exact"].isna().all()
    for row in table[table["by"] == "annotator"].itertuples():
        gone = (samples.manifest.table["annotator"] == row.value).to_numpy()
        assert row.loss_change_exact == pytest.approx(change_of_refit(result, options, gone), abs=1e-8)


def test_empty_cells_are_one_value_and_weights_of_zero_do_nothing(annotated):
    names = annotated.manifest.table["annotator"].replace({"v": " ", "w": ""})
    absent = annotated.manifest.table["weight"] == 0
    samples = with_columns(annotated, annotator=names.mask(absent, "nobody"))
    table = harm_by(score(samples, DOUBLE), ["annotator"]).table.set_index("value")
    assert sorted(table.index) == ["", "nobody", "x", "y", "z"]
    assert table.loc["", "n_samples"] == ((names.str.strip() == "") & ~absent).sum()
    nobody = table.loc["nobody"]
    assert nobody["n_samples"] == absent.sum()
    for name in ("weight", "derivative", "loss_change_predicted", "loss_change_exact"):
        assert str(float(nobody[name])) == "0.0"
    assert not far_off(table)["nobody"]


def test_numbers_are_values_as_text(annotated):
    samples = with_columns(annotated, batch_of=np.where(np.arange(120) < 70, 1, 2))
    table = harm_by(score(samples, DOUBLE), ["batch_of"]).table
    assert sorted(table["value"]) == ["1", "2"]


def test_ties_are_by_value(annotated):
    result = score(annotated, DOUBLE)
    level = with_scores(result, derivative=0.25, weight=1.0, source=[*"cabb"] * 30)
    table = harm_by(level, ["source"]).table
    assert table["value"].tolist() == ["b", "a", "c"]
    assert table["harmful"].tolist() == [60, 30, 30]


def pairs_of(result: ScoreResult, label: list[str], suggested: list[str], wrong: list[float]) -> pd.DataFrame:
    """The table by pair where the first samples have these labels, suggestions and probabilities."""
    rest = len(result.table) - len(label)
    scores = with_scores(
        result,
        label=[*label, *["other"] * rest],
        suggested_label=[*suggested, *["another"] * rest],
        mislabel_probability=[*wrong, *[0.5] * rest],
    )
    found = harm_by(scores, ["pair"])
    assert found.columns == ("pair",)
    assert found.table["n_samples"].sum() == sum(value > 0.5 for value in wrong)
    return found.table


def test_pairs_are_of_labels_more_likely_wrong_than_right(planted):
    result = score(planted, DOUBLE)
    table = pairs_of(result, [*"aaabb"], [*"bbbaa"], [0.9, 0.6, 0.4, 0.7, 0.51])
    assert table["value"].tolist() == ["a -> b", "b -> a"]
    assert table[["label", "suggested_label"]].to_numpy().tolist() == [["a", "b"], ["b", "a"]]
    assert table["mislabelled"].tolist() == pytest.approx([1.5, 1.21])
    expected = [result.table["derivative"][rows].sum() for rows in ([0, 1], [3, 4])]
    assert table["derivative"].tolist() == pytest.approx(expected)
    gone = np.isin(np.arange(200), result.order[[0, 1]])
    assert table["loss_change_exact"][0] == pytest.approx(change_of_refit(result, DOUBLE, gone), abs=1e-8)


def test_pairs_of_labels_that_hold_an_arrow_are_told_apart(planted):
    table = pairs_of(score(planted, DOUBLE), ["a -> b", "a"], ["c", "b -> c"], [0.9, 0.9])
    assert table["value"].tolist() == ["a -> b -> c"] * 2
    assert sorted(table["label"]) == ["a", "a -> b"]


def test_no_suspect_labels_are_no_pairs(planted):
    result = score(planted, DOUBLE)
    assert pairs_of(result, ["a"], ["b"], [0.5]).empty
    calm = with_scores(result, suggested_label="b", mislabel_probability=0.1)
    found = harm_by(calm, ["pair", "annotator"])
    assert found.columns == ("pair", "annotator")
    assert set(found.table["by"]) == {"annotator"}
    assert found.table["n_samples"].dtype == np.int64
    assert found.table["mislabelled"].tolist() == pytest.approx((0.1 * found.table["n_samples"]).tolist())


def test_a_column_that_is_asked_for_twice_is_summed_once(planted):
    found = harm_by(score(planted, DOUBLE), ["annotator", "annotator"])
    assert found.columns == ("annotator",)
    assert len(found.table) == 5


def test_columns_are_checked(planted):
    require_columns(planted.manifest, ["class", "pair", "annotator", "label"])
    with pytest.raises(
        DataError, match="no column anotator for --by; its columns are: path, label"
    ) as caught:
        require_columns(planted.manifest, ["class", "anotator"])
    assert "class, pair, or a column" in caught.value.expected
    assert caught.value.hint
