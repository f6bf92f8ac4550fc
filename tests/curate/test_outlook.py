"""Whether a decision pays, which rule is preferred, and who sees what without a fold."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from divacli.curate.outlook import Judge, Outlook, kept_weights, preferred, random_kept
from divacli.curate.sample_scores import score
from divacli.curate.score_table import Scores
from divacli.progress import silent
from divacli.ridge import NOTHING, RANDOM, Forecast, Rest, TrainingWeights, moments
from divacli.ridge.leave_out.ridge_search import RidgeSearch
from divacli.ridge.weights.kfold import without_fold
from divacli.solve.ridge_problem import SolveOptions

N = 400


def forecast_of(**wrong: int) -> Forecast:
    """So many of 400 samples wrong by each name, the first ones; 40 by doing nothing."""
    counts = {NOTHING: 40, **wrong}
    vectors = {name: (torch.arange(N) < count).double() for name, count in counts.items()}
    return Forecast(vectors, torch.full((N,), 1 / N, dtype=torch.float64))


@pytest.mark.parametrize(("wrong", "pays"), [(30, True), (40, True), (41, False), (60, False)])
def test_what_is_no_worse_than_nothing_pays(wrong, pays):
    assert Outlook(forecast_of(chosen=wrong), "chosen").pays is pays


@pytest.mark.parametrize(("wrong", "pays"), [(30, True), (41, True), (43, False), (50, False)])
def test_with_the_benefit_of_the_doubt_a_standard_error_is_forgiven(wrong, pays):
    outlook = Outlook(forecast_of(chosen=wrong), "chosen", benefit_of_doubt=1.0)
    # One sample more is wrong: 1 / 400, its standard error nearly 1.2 sqrt(3) / 400; of three 1.2 sqrt(5).
    assert outlook.pays is pays
    assert outlook.change.mean == pytest.approx((wrong - 40) / N)
    assert outlook.change.se == pytest.approx(1.2 * math.sqrt(abs(wrong - 40) + 2) / N, rel=0.02)


def test_a_later_rule_is_taken_where_it_is_better_by_more_than_a_standard_error():
    found = forecast_of(balanced=60, coverage=59, easy=50, random=49)
    assert preferred(found, ("balanced", "coverage")) == "balanced"
    assert preferred(found, ("balanced", "coverage", "easy", "random")) == "easy"
    assert preferred(found, ("random", "balanced")) == "random"
    assert preferred(found, ("coverage",)) == "coverage"


def test_for_json_changes_are_beside_doing_nothing():
    outlook = Outlook(forecast_of(chosen=30, random=50), "chosen")
    content = json.loads(json.dumps(outlook.as_dict(), allow_nan=False))
    assert (content["chosen"], content["pays"]) == ("chosen", True)
    assert content["error"] == pytest.approx({NOTHING: 0.1, "chosen": 0.075, "random": 0.125})
    assert set(content["change"]) == {"chosen", "random"}
    change = content["change"]["chosen"]
    assert set(change) == {"mean", "se", "low", "high"}
    assert change["mean"] == pytest.approx(-0.025)
    assert change["low"] < change["mean"] < change["high"]
    assert change["high"] - change["low"] == pytest.approx(2 * 1.96 * math.sqrt(2) * change["se"])


# The judge


@pytest.fixture
def judge(gaussian):
    def make(options: SolveOptions | None = None, **samples: object) -> tuple[Judge, Scores]:
        posed = options or SolveOptions(dtype=torch.float64)
        scores = Scores.fresh(score(gaussian(**samples), posed), posed)
        found, reason = scores.judge(silent)
        assert found is not None, reason
        return found, scores

    return make


def test_what_is_seen_without_a_fold_is_not_of_the_fold(judge):
    """Other labels inside the fold change nothing of what the others see."""
    found, _ = judge()
    seen: list[list[torch.Tensor]] = []

    def decide(rest: Rest) -> dict[str, TrainingWeights]:
        seen.append([found.wrong(rest), found.losses(rest), rest.rows])
        assert ((seen[-1][0] >= 0) & (seen[-1][0] <= 1)).all()
        assert not set(rest.rows.tolist()) & set(rest.inside.nonzero()[:, 0].tolist())
        return {}

    found.forecast(decide, silent)
    assert sum(60 - len(rows) for *_, rows in seen) == 60
    inside = torch.ones(60, dtype=torch.bool)
    inside[seen[0][2]] = False
    task = found.problem.task
    labels = torch.where(inside, (task.labels + 1) % 3, task.labels)
    # The folds are drawn by label, so the same ones are asked for again by their rows.
    changed = replace(found.problem, task=replace(task, labels=labels))
    without = without_fold(changed, inside)
    ridges = RidgeSearch(found.order, fixed=False)
    sums = moments(without.task)
    rest = Rest(without, inside, ridges.fit(without.task, sums, changed.ridge), 0, sums, ridges)
    again = [found.wrong(rest), found.losses(rest), rest.rows]
    for one, other in zip(seen[0], again, strict=True):
        assert other.numpy() == pytest.approx(one.numpy(), abs=1e-9)


def test_the_loss_is_that_of_the_table_where_nothing_is_left_out(judge):
    found, scores = judge(SolveOptions(dtype=torch.float64, loss="cross-entropy", ridge=0.4))
    everyone = torch.zeros(60, dtype=torch.bool)
    ridges, sums = RidgeSearch(found.order, fixed=True), moments(found.problem.task)
    rest = Rest(found.problem, everyone, sums.fit(0.4), 0, sums, ridges)
    assert found.losses(rest).numpy() == pytest.approx(scores.table["loo_loss"].to_numpy(), abs=1e-6)
    assert found.wrong(rest).numpy() == pytest.approx(
        scores.table["mislabel_probability"].to_numpy(), abs=1e-5
    )
    assert found.trust.numpy() == pytest.approx(1 - scores.table["mislabel_probability"].to_numpy())
    assert found.fixed_ridge


def test_places_are_those_of_the_paths(judge):
    found, scores = judge()
    paths = scores.table["path"].to_numpy(str)
    assert paths[np.argsort(found.place.numpy())].tolist() == sorted(paths)


def test_kept_weights_are_those_there_were(judge):
    found, _ = judge(weights=np.arange(60) % 3 * 0.5)

    def decide(rest: Rest) -> dict[str, TrainingWeights]:
        kept = torch.arange(len(rest.rows)) % 2 == 0
        weights = kept_weights(rest, kept)
        assert set(weights.nonzero()[:, 0].tolist()) == set(rest.rows[kept].tolist())
        assert torch.equal(weights[rest.rows[kept]], rest.task.weights[rest.rows[kept]])
        stays = random_kept(rest, found.place, 7)
        assert int((~stays).sum()) == 7
        assert torch.equal(stays, random_kept(rest, found.place, 7))
        # By place alone: the same numbers multiplied.
        assert torch.equal(stays, random_kept(rest, found.place * 5 + 2, 7))
        return {RANDOM: TrainingWeights(weights)}

    found.forecast(decide, silent)
