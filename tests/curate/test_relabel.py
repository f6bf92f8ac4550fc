"""Which labels are corrected, which are not, and what is expected of that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.curate.relabel import (
    ACTIONS,
    CHANGE_COLUMNS,
    CORRECTING,
    DROPPING,
    Relabelling,
    _without_fold,
    relabel,
    relabel_scored,
)
from divacli.curate.sample_scores import score
from divacli.curate.score_table import Scores
from divacli.curate.wrong_labels import (
    BALANCED,
    LIKELY,
    MORE_LIKELY_WRONG,
    balanced_threshold,
    errors_first,
    mislabelled,
)
from divacli.errors import DataError
from divacli.progress import silent
from divacli.report.terminal.relabel import relabel_verdict
from divacli.ridge import NOTHING, RANDOM, Change, Rest, moments
from divacli.ridge.forecast import Forecast
from divacli.ridge.leave_out.ridge_search import RidgeSearch
from divacli.solve.ridge_problem import SolveOptions

CLASSES = np.array(["cat", "dog", "owl"])


def scores_of(wrong: list[float], suggested: list[float] | None = None, **columns: object) -> pd.DataFrame:
    """Scores of cats, of which some look like dogs.

    Args:
        wrong: Probability of each label being wrong.
        suggested: Of each being a dog; by default as probable as all errors together.
        columns: Others, or other cells.
    """
    n = len(wrong)
    table = pd.DataFrame(
        {
            "path": [f"p{number:03d}" for number in range(n)],
            "label": "cat",
            "weight": 1.0,
            "derivative": np.linspace(1, -1, n),
            "loo_loss": wrong,
            "predicted_label": "dog",
            "mislabel_probability": wrong,
            "suggested_label": "dog",
            "suggested_probability": wrong if suggested is None else suggested,
            "outlier_score": 0.1,
        }
    )
    return table.assign(**columns)


def corrected(table: pd.DataFrame, *arguments: object) -> list[str]:
    """Paths whose label changes."""
    result = relabel(table, *arguments)  # type: ignore[arg-type]
    return result.table.loc[result.table["label"] != table["label"], "path"].tolist()


@pytest.fixture
def planted(load, tmp_path):
    """600 samples of three classes far apart, (n,) their true labels and (n,) bool which are given wrong."""
    generator = np.random.default_rng(7)
    classes = np.arange(600) % 3
    wrong = generator.permutation(600) < 90
    given = np.where(wrong, (classes + generator.integers(1, 3, 600)) % 3, classes)
    features = 6 * np.eye(8)[classes] + generator.normal(size=(600, 8))
    paths = np.array([f"s{number:03d}" for number in range(600)])
    np.savez(tmp_path / "planted.npz", embedding=features, label=CLASSES[given], path=paths)
    return load(tmp_path / "planted.npz"), CLASSES[classes], wrong


def test_planted_errors_are_corrected_to_the_truth(planted):
    samples, truth, wrong = planted
    table = score(samples, SolveOptions()).table
    truth_of = dict(zip(samples.manifest.table["path"], truth, strict=True))
    result = relabel(table)
    assert result.table["label"].tolist() == [truth_of[path] for path in table["path"]]
    assert sorted(result.changes["path"]) == sorted(samples.manifest.table["path"][wrong])
    assert set(result.changes["action"]) == {"corrected"}
    assert result.summary["n_corrected"] == 90
    # The model is a little less sure than it could be.
    assert result.summary["mislabelled"]["expected_precision"] > 0.9
    assert result.summary["mislabelled"]["expected_recall"] > 0.9
    assert result.summary["expected_right"] > 0.9
    assert result.summary["noise_rate"] == pytest.approx(90 / 600, abs=0.015)
    assert result.summary["noise_rate_after"] < 0.02


def test_nothing_is_corrected_where_no_label_is_wrong(planted):
    samples, truth, _ = planted
    clean = replace(samples.manifest, table=samples.manifest.table.assign(label=truth))
    table = score(replace(samples, manifest=clean), SolveOptions()).table
    result = relabel(table)
    assert result.table["label"].tolist() == table["label"].tolist()
    assert (len(result.changes), result.summary["mislabelled"]["n"]) == (0, 0)


def test_a_label_is_called_wrong_above_the_threshold():
    table = scores_of([0.5, 0.51, 0.49, 0.9, 0.0])
    assert corrected(table) == ["p001", "p003"]
    assert corrected(table, 0.6) == ["p003"]
    assert corrected(table, 0.9) == []
    assert corrected(table, 0.0) == ["p001", "p003"]


def test_a_lower_threshold_lists_more_and_corrects_no_less_probable_class():
    table = scores_of([0.6, 0.45, 0.3], [0.6, 0.44, 0.3])
    result = relabel(table, 0.2)
    assert result.changes["action"].tolist() == ["corrected", "unclear", "unclear"]
    assert result.table["label"].tolist() == ["dog", "cat", "cat"]


def test_the_balanced_decision_lists_more_and_corrects_the_same_labels():
    generator = np.random.default_rng(3)
    wrong = generator.beta(0.3, 1, 200)
    table = scores_of(wrong.tolist(), (wrong * generator.random(200)).tolist())
    likely, balanced = relabel(table), relabel(table, BALANCED)
    assert relabel(table, LIKELY).summary == likely.summary
    assert (likely.summary["decide"], likely.summary["threshold"]) == ("likely", MORE_LIKELY_WRONG)
    assert balanced.summary["decide"] == "balanced"
    assert balanced.summary["threshold"] == balanced_threshold(wrong) < MORE_LIKELY_WRONG
    assert set(likely.changes["path"]) < set(balanced.changes["path"])
    assert set(balanced.changes["action"][len(likely.changes) :]) == {"unclear"}
    pd.testing.assert_frame_equal(balanced.table, likely.table)
    given = relabel(table, balanced.summary["threshold"])
    pd.testing.assert_frame_equal(given.changes, balanced.changes)
    assert given.summary == {**balanced.summary, "decide": "threshold"}
    expected, before = balanced.summary["mislabelled"], likely.summary["mislabelled"]
    assert expected["expected_precision"] < before["expected_precision"]
    assert expected["expected_recall"] > before["expected_recall"]


def test_the_budget_cuts_the_balanced_decision():
    table = scores_of([0.7, 0.99, 0.45, 0.8, 0.0])
    assert relabel(table, BALANCED).summary["n_above_threshold"] == 4
    assert relabel(table, BALANCED, 2).changes["path"].tolist() == ["p001", "p003"]


def test_a_label_stays_where_no_single_class_is_more_probable():
    # Given with 0.4, and the best of the others with 0.39, 0.4 and 0.41.
    result = relabel(scores_of([0.6, 0.6, 0.6], [0.39, 0.4, 0.41]))
    assert result.table["label"].tolist() == ["cat", "cat", "dog"]
    assert result.changes.set_index("path")["action"].to_dict() == {
        "p000": "unclear",
        "p001": "unclear",
        "p002": "corrected",
    }


def test_the_budget_takes_the_most_probable_errors():
    table = scores_of([0.7, 0.99, 0.6, 0.8, 0.2])
    assert corrected(table, 0.5, 2) == ["p001", "p003"]
    assert corrected(table, 0.5, 0) == []
    assert corrected(table, 0.5, 9) == ["p000", "p001", "p002", "p003"]
    summary = relabel(table, 0.5, 2).summary
    assert (summary["n_above_threshold"], summary["mislabelled"]["n"], summary["budget"]) == (4, 2, 2)


def test_of_equals_the_first_path_is_within_the_budget():
    # All the same as far as a table of text says.
    table = scores_of([1 - 1e-9, 1 - 1e-12, 1.0, 1 - 1e-10], path=["b", "c", "d", "a"])
    assert sorted(corrected(table, 0.5, 2)) == ["a", "b"]
    assert table["path"].iloc[errors_first(table)].tolist() == ["a", "b", "c", "d"]


def test_the_budget_is_not_spent_on_labels_below_the_threshold():
    table = scores_of([0.5 - 1e-8, 0.5 + 1e-8])
    assert mislabelled(table, 0.5, 1).tolist() == [False, True]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_an_outlier_keeps_its_label(threshold):
    odd = np.where(np.arange(20) % 5 == 0, 3.0, 0.1)
    wrong = np.where(np.arange(20) < 10, 0.9, 0.1)
    result = relabel(scores_of(wrong.tolist(), outlier_score=odd), threshold)
    labels = result.table["label"].to_numpy()
    assert labels[odd > 1].tolist() == ["cat"] * 4
    assert labels[(odd < 1) & (wrong > 0.5)].tolist() == ["dog"] * 8
    listed = result.changes.set_index("path")["action"]
    assert listed[["p000", "p005"]].tolist() == ["outlier"] * 2
    # An outlier whose label is not called wrong is no change.
    assert ("p010" in listed) == (threshold == 0)
    assert result.summary["n_outliers"] == int((listed == "outlier").sum())


def test_what_is_expected_is_that_of_the_probabilities():
    table = scores_of([0.9, 0.8, 0.6, 0.1], [0.7, 0.8, 0.3, 0.1])
    summary = relabel(table).summary
    assert summary["mislabelled"] == {
        "n": 3,
        "expected_precision": pytest.approx(2.3 / 3),
        "expected_recall": pytest.approx(2.3 / 2.4),
    }
    assert summary["expected_right"] == pytest.approx(0.75)
    assert summary["noise_rate"] == pytest.approx(0.6)
    # Two corrections that are wrong with 0.3 and 0.2, one label that stays, one that was not called wrong.
    assert summary["noise_rate_after"] == pytest.approx((0.3 + 0.2 + 0.6 + 0.1) / 4)


def test_no_correction_raises_the_expected_number_of_errors():
    generator = np.random.default_rng(0)
    wrong = generator.random(200)
    table = scores_of(wrong.tolist(), (wrong * generator.random(200)).tolist())
    for threshold in (0.0, 0.3, 0.5, 0.9):
        summary = relabel(table, threshold).summary
        assert summary["noise_rate_after"] <= summary["noise_rate"]


def test_changes_are_the_scores_most_probable_error_first():
    table = scores_of([0.6, 0.1, 0.9, 0.7], [0.5, 0.1, 0.9, 0.2], camera=list("wxyz"))
    changes = relabel(table).changes
    assert tuple(changes)[: len(CHANGE_COLUMNS)] == CHANGE_COLUMNS
    assert sorted(changes) == sorted([*table, "action"])
    assert changes["path"].tolist() == ["p002", "p003", "p000"]
    assert changes["label"].tolist() == ["cat"] * 3
    assert changes["action"].tolist() == ["corrected", "unclear", "corrected"]
    pd.testing.assert_frame_equal(changes[list(table)], table.iloc[[2, 3, 0]].reset_index(drop=True))


def test_the_table_is_in_its_order_without_scores_and_with_the_label_before():
    table = scores_of([0.1, 0.9, 0.2], path=["z", "y", "x"], rank=[1, 2, 3], camera=list("abc"))
    found = relabel(table).table
    assert list(found) == ["path", "label", "given_label", "weight", "camera"]
    assert found["path"].tolist() == ["z", "y", "x"]
    assert found["label"].tolist() == ["cat", "dog", "cat"]
    assert found["given_label"].tolist() == ["cat"] * 3


def test_the_label_before_the_first_correction_is_kept():
    table = scores_of([0.9, 0.9, 0.1, 0.1], label=["owl", "dog", "owl", "cat"])
    table["given_label"] = ["cat", "", "cat", ""]
    found = relabel(table.assign(suggested_label="fox")).table
    assert found["label"].tolist() == ["fox", "fox", "owl", "cat"]
    assert found["given_label"].tolist() == ["cat", "dog", "cat", "cat"]


def test_the_order_of_rows_does_not_matter():
    generator = np.random.default_rng(1)
    wrong = generator.random(60).round(1)
    table = scores_of(
        wrong.tolist(),
        (wrong * generator.random(60)).tolist(),
        suggested_label=generator.choice(["dog", "owl"], 60),
        outlier_score=np.where(generator.random(60) < 0.2, 3.0, 0.1),
    )
    one, other = relabel(table, 0.3, 20), relabel(table.sample(frac=1, random_state=2), 0.3, 20)
    pd.testing.assert_frame_equal(one.changes, other.changes)
    pd.testing.assert_frame_equal(one.table, other.table.sort_values("path").reset_index(drop=True))
    assert set(one.changes["action"]) == set(ACTIONS)
    for name, value in one.summary.items():
        assert other.summary[name] == (pytest.approx(value) if isinstance(value, float) else value)


def test_the_table_that_is_given_is_left_alone():
    table = scores_of([0.9, 0.1])
    before = table.copy()
    relabel(table)
    pd.testing.assert_frame_equal(table, before)


def test_the_most_frequent_corrections_come_first():
    table = scores_of(
        [0.9] * 6 + [0.1] * 2,
        label=["a", "a", "b", "a", "b", "c", "a", "a"],
        suggested_label=["c", "c", "c", "b", "c", "a", "z", "z"],
    )
    assert relabel(table).summary["corrections"] == [
        {"given": "a", "suggested": "c", "n": 2},
        {"given": "b", "suggested": "c", "n": 2},
        {"given": "a", "suggested": "b", "n": 1},
        {"given": "c", "suggested": "a", "n": 1},
    ]


def test_a_class_that_loses_its_last_sample_is_named():
    table = scores_of([0.9, 0.9, 0.1], label=["cat", "cat", "dog"])
    assert relabel(table).summary["emptied"] == ["cat"]
    assert relabel(table, 0.5, 1).summary["emptied"] == []


def test_nothing_called_wrong_is_strict_json():
    result = relabel(scores_of([0.1, 0.2]))
    content = json.loads(json.dumps(result.summary, allow_nan=False))
    assert content["expected_right"] is None
    assert content["mislabelled"] == {"n": 0, "expected_precision": None, "expected_recall": 0.0}
    assert content["noise_rate_after"] == content["noise_rate"]
    assert content["corrections"] == content["emptied"] == []
    assert list(result.changes)[:7] == list(CHANGE_COLUMNS)


@pytest.mark.parametrize(
    "column", ["mislabel_probability", "suggested_label", "suggested_probability", "outlier_score"]
)
def test_scores_that_do_not_judge_labels_are_refused(column):
    table = scores_of([0.9, 0.1])
    with pytest.raises(DataError, match=f"no value of {column} in any row") as caught:
        relabel(table.drop(columns=column))
    assert caught.value.expected
    assert caught.value.hint
    blank = ["dog", ""] if column == "suggested_label" else [0.5, np.nan]
    with pytest.raises(DataError, match=f"no value of {column} in some row"):
        relabel(table.assign(**{column: blank}))


# What it does to the error on new images


@pytest.fixture
def overlapping(load, tmp_path):
    """240 samples of three classes in 100 dimensions, three in ten labels wrong, or all drawn at random."""

    def make(order: np.ndarray | None = None, n: int = 240, seed: int = 4, *, at_random: bool = False):
        generator = np.random.default_rng(seed)
        classes = np.arange(n) % 3
        wrong = generator.random(n) < 0.3
        given = np.where(wrong, (classes + generator.integers(1, 3, n)) % 3, classes)
        given = generator.integers(0, 3, n) if at_random else given
        features = 4 * np.eye(100)[classes] + generator.normal(size=(n, 100))
        paths = np.array([f"s{number:03d}" for number in range(n)])
        order = np.arange(n) if order is None else order
        file = tmp_path / f"overlapping{seed}.npz"
        np.savez(file, embedding=features[order], label=CLASSES[given][order], path=paths[order])
        return load(file)

    return make


SMALL_RIDGE = SolveOptions(ridge=0.5, dtype=torch.float64)
"""At which wrong labels do much harm."""


def scored(samples, options: SolveOptions = SMALL_RIDGE, validation=None) -> Scores:
    return Scores.fresh(score(samples, options, validation), options)


def errors(result: Relabelling) -> dict[str, float]:
    assert result.outlook is not None
    return result.outlook.as_dict()["error"]


@pytest.mark.parametrize(
    ("threshold", "budget"),
    [(0.5, None), (0.8, None), (0.5, 7), (LIKELY, None), (BALANCED, None), (BALANCED, 7)],
)
def test_without_a_fold_the_decision_is_that_of_the_table(overlapping, threshold, budget):
    scores = scored(overlapping())
    judge, _ = scores.judge(silent)
    problem = judge.problem
    sums = moments(problem.task)
    nobody = torch.zeros(len(problem.task), dtype=torch.bool)
    rest = Rest(problem, nobody, sums.fit(problem.ridge), 0, sums, RidgeSearch(judge.order, fixed=True))
    share = None if budget is None else budget / len(scores.table)
    found = _without_fold(judge, scores.table, threshold, share)(rest)
    decision = relabel(scores.table, threshold, budget)
    names = scores.samples.manifest.classes
    assert [names[number] for number in found[CORRECTING].labels] == decision.table["label"].tolist()
    changed = found[CORRECTING].labels != problem.task.labels
    assert int(changed.sum()) == decision.summary["n_corrected"] > 0
    # The rivals: the same samples left out, and as many others relabelled.
    assert torch.equal(found[DROPPING].weights == 0, changed)
    assert found[DROPPING].labels is None
    assert int((found[RANDOM].labels != problem.task.labels).sum()) == int(changed.sum())
    assert not torch.equal(found[RANDOM].labels, found[CORRECTING].labels)


def test_the_balanced_threshold_is_found_anew_without_each_fold(overlapping, monkeypatch):
    found = []
    true = balanced_threshold
    monkeypatch.setattr(
        "divacli.curate.wrong_labels.balanced_threshold",
        lambda probability: found.append((len(probability), true(probability))) or found[-1][1],
    )
    scores = scored(overlapping())
    result = relabel_scored(scores, BALANCED)
    assert result.summary["threshold"] == found[0][1] == true(scores.table["mislabel_probability"].to_numpy())
    # Of all samples, then of four fifths, five times.
    assert [n for n, _ in found] == [240, *[192] * 5]
    assert len({threshold for _, threshold in found}) == 6
    # What is corrected is the same.
    assert errors(result) == pytest.approx(errors(relabel_scored(scores)))


@pytest.mark.parametrize(("wrong", "written"), [(0.3, True), (0.6, False)])
def test_where_no_label_stands_out_the_balanced_list_is_no_reason_to_doubt(wrong, written):
    table = scores_of([0.9, *[wrong] * 9])
    result = relabel_scored(Scores(table, Path(), None, None, None), BALANCED)
    assert len(result.changes) == 10
    assert result.written is written
    assert any("are called wrong: more likely the features" in text for text in result.warnings()) != written


def test_correcting_planted_errors_pays_and_random_corrections_harm(overlapping):
    result = relabel_scored(scored(overlapping()))
    found = errors(result)
    assert list(found) == [NOTHING, CORRECTING, DROPPING, RANDOM]
    assert found[CORRECTING] < found[NOTHING] < found[RANDOM]
    assert found[DROPPING] < found[NOTHING]
    assert result.written
    assert result.unknown == ""
    verdict = relabel_verdict(result)
    assert verdict.startswith(
        f"Correcting these {result.n_chosen} labels should lower the error on new images"
    )
    assert (
        f"; dropping them: {100 * found[DROPPING]:.1f}; correcting as many at random would raise" in verdict
    )


@pytest.mark.parametrize("seed", range(4))
def test_random_labels_promise_nothing(overlapping, seed):
    result = relabel_scored(scored(overlapping(seed=seed, at_random=True)))
    if result.outlook is not None:
        assert result.outlook.change.high > 0
        assert "should lower" not in relabel_verdict(result)


def test_the_forecast_is_the_same_again_and_in_any_order_of_rows(overlapping):
    given = errors(relabel_scored(scored(overlapping())))
    assert errors(relabel_scored(scored(overlapping()))) == given
    order = np.random.default_rng(1).permutation(240)
    assert errors(relabel_scored(scored(overlapping(order=order)))) == pytest.approx(given, abs=1e-9)
    other = replace(SMALL_RIDGE, seed=1)
    assert errors(relabel_scored(scored(overlapping(), other)))[RANDOM] != given[RANDOM]


def test_a_validation_set_judges_and_its_labels_are_trusted(overlapping):
    validation = overlapping(n=120, seed=8)
    result = relabel_scored(scored(overlapping(), validation=validation))
    assert result.outlook is not None
    assert len(result.outlook.forecast.share) == 120
    assert result.outlook.forecast.share.unique().numpy() == pytest.approx(1 / 120)
    assert errors(result)[CORRECTING] < errors(result)[NOTHING]


def outlook_of(result: Relabelling, correcting: int, dropping: int) -> Relabelling:
    """With so many of 200 samples wrong by each, and 40 where nothing is done."""
    assert result.outlook is not None
    row = torch.arange(200)
    wrong = {
        NOTHING: (row < 40).double(),
        CORRECTING: (row < correcting).double(),
        DROPPING: (row < dropping).double(),
        RANDOM: (row < 50).double(),
    }
    forecast = Forecast(wrong, torch.full((200,), 1 / 200, dtype=torch.float64))
    outlook = replace(result.outlook, forecast=forecast)
    return replace(result, outlook=outlook, written=outlook.pays)


def test_the_verdict_says_which_of_both_is_better(overlapping):
    result = relabel_scored(scored(overlapping(n=90)))
    better = outlook_of(result, 10, 30)
    assert relabel_verdict(better).endswith(
        "should lower the error on new images from 20.0 to 5.0 % (between 0.0 and 13.7); dropping them: "
        "15.0; correcting as many at random would raise it to 25.0. By this forecast correcting is "
        "better than dropping."
    )
    assert relabel_verdict(outlook_of(result, 30, 10)).endswith(
        "By this forecast dropping is better: diva prune --keep auto."
    )
    assert relabel_verdict(outlook_of(result, 30, 30)).endswith("there is no more than chance.")


def test_a_wrong_label_has_the_benefit_of_the_doubt_of_one_standard_error(overlapping):
    result = relabel_scored(scored(overlapping(n=90)))
    doubtful = outlook_of(result, 41, 40)
    assert 0 < doubtful.outlook.change.mean < doubtful.outlook.change.se
    assert doubtful.written
    worse = outlook_of(result, 60, 40)
    assert not worse.written
    assert relabel_verdict(worse).startswith("Nothing to gain by correcting: the labels stay (--force writes")
    assert worse.table["label"].tolist() == worse.scores.table["label"].tolist()
    assert isinstance(worse.versus_dropping, Change)
    assert worse.summary["written"] == "given labels"
