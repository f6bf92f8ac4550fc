"""All that pruning finds out: what is chosen, whether that is written, why, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.curate.dropping import SeenInTable, SeenWithoutFold, by_column, by_label, by_rule, without_fold
from divacli.curate.outlook import Judge
from divacli.curate.prune import AUTOMATIC, Pruning, prune_automatically, prune_by
from divacli.curate.prune_rules import CRITERIA, choose_automatically, choose_kept
from divacli.curate.sample_scores import score
from divacli.curate.score_table import Scores
from divacli.curate.wrong_labels import outliers
from divacli.errors import DataError
from divacli.progress import silent
from divacli.ridge import NOTHING, RANDOM, Rest, TrainingWeights, moments
from divacli.ridge.dropping import COVERAGE, RULES
from divacli.solve.ridge_problem import SolveOptions

OPTIONS = SolveOptions(dtype=torch.float64)


@pytest.fixture
def scored(gaussian):
    def make(n: int = 90, seed: int = 0, options: SolveOptions = OPTIONS, **more: object) -> Scores:
        return Scores.fresh(score(gaussian(n=n, seed=seed, **more), options), options)

    return make


def without_features(scores: Scores) -> Scores:
    return replace(scores, samples=None, missing="the features are gone")


def dropped_paths(pruning: Pruning) -> list[str]:
    return pruning.scores.table["path"][~pruning.decision.kept].tolist()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_forecast_beside_nothing_and_random(rule, scored):
    pruning = prune_by(scored(), keep=0.8, by=rule, force=True)
    assert pruning.by == rule
    assert set(pruning.outlook.forecast.wrong) == {NOTHING, RANDOM, rule}
    assert pruning.n_chosen == 18
    assert len(pruning.tables[1]) == 18
    # The order is that in which samples go: those that go are its first ones.
    assert set(pruning.order[:18]) == set(np.flatnonzero(~pruning.decision.kept))
    assert (
        pruning.tables[1]["path"].tolist() == pruning.scores.table["path"].iloc[pruning.order[:18]].tolist()
    )


def test_by_forecast_every_rule_is_tried(scored):
    pruning = prune_by(scored(), keep=0.7)
    assert set(pruning.outlook.forecast.wrong) == {NOTHING, *RULES}
    assert pruning.by in RULES
    assert pruning.summary["by"] == pruning.by
    assert pruning.summary["forecast"]["chosen"] == pruning.by


@pytest.mark.parametrize("by", CRITERIA)
@pytest.mark.parametrize("asked", [{"keep": 0.7}, {"keep": 0.7, "stratify": True}, {"threshold": 0.01}])
def test_by_a_column_the_choice_is_that_of_the_table(by, asked, scored):
    scores = scored()
    pruning = prune_by(scores, by=by, force=True, **asked)
    expected = choose_kept(scores.table, by=by, **asked)
    assert pruning.decision.kept.tolist() == expected.kept.tolist()
    assert pruning.decision.rescued == expected.rescued
    assert set(pruning.outlook.forecast.wrong) == {NOTHING, RANDOM, by}
    assert set(pruning.tables[1]["reason"]) == {by}
    assert pruning.tables[1][by].is_monotonic_decreasing


def test_a_threshold_without_a_rule_is_of_the_derivative(scored):
    pruning = prune_by(scored(), threshold=0.0)
    assert (pruning.by, pruning.summary["threshold"], pruning.summary["keep"]) == ("derivative", 0.0, None)


@pytest.mark.parametrize("by", ["auto", "easy", "derivative"])
def test_the_order_of_the_rows_does_not_matter(by, scored):
    scores = scored()
    shuffle = np.random.default_rng(0).permutation(90)
    shuffled = without_features(replace(scores, table=scores.table.iloc[shuffle].reset_index(drop=True)))
    one, other = prune_by(without_features(scores), keep=0.6, by=by), prune_by(shuffled, keep=0.6, by=by)
    assert sorted(dropped_paths(one)) == sorted(dropped_paths(other))
    assert one.tables[1]["path"].tolist() == other.tables[1]["path"].tolist()


# Whether it is written


def harmful_choice(scores: Scores, **options: object) -> Pruning:
    """All but a few samples go, of clean classes."""
    return prune_by(scores, keep=0.06, by="derivative", **options)


def test_what_does_not_pay_is_not_written_unless_forced(scored):
    kept = harmful_choice(scored())
    assert not kept.outlook.pays
    assert not kept.written
    assert (len(kept.tables[0]), len(kept.tables[1])) == (90, 0)
    summary = json.loads(json.dumps(kept.summary, allow_nan=False))
    assert (summary["n_kept"], summary["n_dropped"], summary["n_chosen"]) == (90, 0, 84)
    assert (summary["written"], summary["forecast"]["pays"]) == ("everything", False)
    forced = harmful_choice(scored(), force=True)
    assert forced.written
    assert (len(forced.tables[0]), len(forced.tables[1])) == (6, 84)
    assert forced.summary["written"] == "choice"
    assert forced.summary["forecast"] == kept.summary["forecast"]


def test_without_a_forecast_the_choice_is_written_and_that_is_said(scored):
    pruning = harmful_choice(without_features(scored()))
    assert pruning.outlook is None
    assert pruning.written
    assert pruning.summary["forecast"] is None
    [warning] = pruning.warnings()
    assert warning.startswith("no forecast was made: the features are gone.")


def test_too_few_samples_for_folds_are_a_reason(gaussian):
    samples = gaussian(n=60).select(np.isin(np.arange(60), [0, 1]))
    scores = Scores.fresh(score(samples, replace(OPTIONS, ridge=1.0)), replace(OPTIONS, ridge=1.0))
    pruning = prune_by(scores, keep=0.9)
    assert pruning.outlook is None
    assert pruning.by == "balanced"
    [warning] = pruning.warnings()
    assert warning.startswith("no forecast was made: K-fold: 1 of the samples")


def test_coverage_needs_the_features(scored):
    with pytest.raises(DataError, match="--by coverage: the features are gone") as raised:
        prune_by(without_features(scored()), keep=0.5, by=COVERAGE)
    assert raised.value.expected
    assert raised.value.hint


@pytest.mark.parametrize("by", ["derivative", "loo_loss"])
def test_a_column_needs_no_other_column(by, scored):
    scores = scored()
    bare = without_features(replace(scores, table=scores.table[["path", "label", "derivative", "loo_loss"]]))
    pruning = prune_by(bare, keep=0.5, by=by)
    assert pruning.n_chosen == 45
    assert dropped_paths(pruning) == dropped_paths(prune_by(scores, keep=0.5, by=by))
    with pytest.raises(DataError, match="no value of mislabel_probability in any row"):
        prune_by(bare, keep=0.5, by="balanced")


def test_most_of_what_goes_being_called_wrong_is_the_benefit_of_the_doubt(scored):
    scores = scored()
    table = scores.table.assign(mislabel_probability=np.where(np.arange(90) < 8, 0.9, 0.0))
    doubted = replace(scores, table=table)
    assert prune_by(doubted, keep=0.9, by="balanced").outlook.benefit_of_doubt == 1.0
    assert prune_by(doubted, keep=0.6, by="balanced").outlook.benefit_of_doubt == 0.0
    assert prune_by(doubted, keep=1.0, by="balanced").outlook.benefit_of_doubt == 0.0
    assert prune_automatically(doubted).outlook.benefit_of_doubt == 1.0


def test_reasons_are_labels_outliers_and_the_rule(scored):
    scores = scored()
    table = scores.table.assign(
        mislabel_probability=np.where(np.arange(90) < 3, 0.9, 0.0),
        outlier_score=np.where(np.arange(90) == 5, 3.0, 0.0),
    )
    pruning = prune_by(replace(scores, table=table), keep=0.8, by="balanced", force=True)
    _, dropped = pruning.tables
    assert dropped["reason"].tolist() == ["label"] * 3 + ["outlier"] + ["balanced"] * 14
    assert not pruning.reasons[pruning.decision.kept].any()


# What is called wrong


def test_automatic_is_forecast_under_its_name(scored):
    pruning = prune_automatically(scored())
    assert set(pruning.outlook.forecast.wrong) == {NOTHING, RANDOM, AUTOMATIC}
    assert pruning.outlook.chosen == AUTOMATIC
    assert pruning.summary["keep"] == "auto"
    assert pruning.decision.kept.tolist() == choose_automatically(pruning.scores.table).choice.kept.tolist()


@pytest.mark.parametrize("budget", [None, 0, 2, 1000])
def test_by_label_drops_what_automatic_drops(budget, scored):
    """On all samples the decision of the folds is that of the table, up to which outlier is the oddest."""
    scores = scored()
    table = scores.table.assign(
        mislabel_probability=np.linspace(0, 0.9, 90), outlier_score=np.where(np.arange(90) == 5, 3.0, 0.0)
    )
    share = None if budget is None else budget / 90
    kept = by_label(0.5, share)(SeenInTable(replace(scores, table=table), None, 0))
    assert kept.stays.tolist() == choose_automatically(table, budget=budget).choice.kept.tolist()


def test_equally_probable_errors_go_by_path(scored):
    scores = scored()
    flat = scores.table.assign(mislabel_probability=1.0, outlier_score=0.0)
    for order in (np.arange(90), np.random.default_rng(0).permutation(90)):
        table = flat.iloc[order].reset_index(drop=True)
        kept = by_label(0.5, 10 / 90)(SeenInTable(replace(scores, table=table), None, 0)).stays.numpy()
        assert sorted(table["path"][~kept]) == [f"s{row:03d}" for row in range(10)]


# The same lines on all samples and without a fold


def of_everyone(judge: Judge) -> Rest:
    """A fold of nobody."""
    seen: list[Rest] = []
    judge.forecast(lambda rest: seen.append(rest) or {}, silent)  # type: ignore[func-returns-value]
    problem, sums = judge.problem, seen[0]._moments
    whole = moments(problem.task, sums.shift)
    nobody = torch.zeros(len(problem.task), dtype=torch.bool)
    return Rest(problem, nobody, whole.fit(problem.ridge), 0, whole, seen[0]._ridges)


@pytest.mark.parametrize("by", [*RULES, *CRITERIA])
def test_a_fold_of_nobody_decides_as_the_table_does(by, scored):
    scores = scored(options=replace(OPTIONS, ridge=0.5))
    judge, _ = scores.judge(silent)
    decide = by_column(by, 0.6, None, stratify=False) if by in CRITERIA else by_rule(by, 0.6, stratify=False)
    table = decide(SeenInTable(scores, judge, 0))
    outlying = torch.from_numpy(outliers(scores.table).copy())
    fold = decide(SeenWithoutFold(judge, of_everyone(judge), outlying))
    assert torch.equal(table.stays, fold.stays)
    assert int((~table.stays).sum()) == 36


def test_random_has_the_size_of_the_first_decision(scored):
    judge, _ = scored().judge(silent)
    decisions = {
        "few": by_rule("balanced", 0.9, stratify=False),
        "many": by_rule("easy", 0.5, stratify=False),
    }
    sizes = []

    def decide(rest: Rest) -> dict[str, TrainingWeights]:
        found = without_fold(judge, torch.zeros(90, dtype=torch.bool), decisions)(rest)
        sizes.append({name: int((training.weights > 0).sum()) for name, training in found.items()})
        return dict(found)

    judge.forecast(decide, silent)
    for size in sizes:
        assert list(size) == ["few", "many", RANDOM]
        assert size[RANDOM] == size["few"] > size["many"]


def test_labels_and_places_do_not_hang_on_their_storage(scored):
    scores = scored()
    table = scores.table.iloc[::-1].reset_index(drop=True)
    one, other = (SeenInTable(replace(scores, table=each), None, 0) for each in (scores.table, table))
    assert torch.equal(one.labels.flip(0), other.labels)
    assert torch.equal(one.place.flip(0), other.place)
    assert pd.Series(one.place.numpy()).is_unique
