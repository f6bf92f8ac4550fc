"""The forecast of a choice from a pool beside refits by normal equations, fold by fold."""

from dataclasses import replace

import pytest
import torch

from divacli.ridge import CHOICE, NOTHING, RANDOM, PoolProblem, forecast_choice
from divacli.ridge import pool_forecast as module
from divacli.ridge.pool_choice import BALANCED, CORESET, DERIVATIVE
from tests.ridge.test_extension_coreset import coefficients, design, sets, trust_for

RIDGE, BUDGET, SEED = 0.6, 9, 4


def posed(core, pool, **options):
    everybody = torch.ones(len(pool), dtype=torch.bool)
    orders = torch.arange(len(core)), torch.arange(len(pool))
    return PoolProblem(core, pool, *orders, everybody, **{"ridge": RIDGE, "seed": SEED, **options})


def by_hand(problem, trust, monkeypatch, rule):
    """Wrong predictions of each head in each fold; what is chosen and drawn is asked of the module."""
    core, pool = problem.core, problem.pool
    chosen = []
    trained = module._trained

    def seen(rest, weights, rows):
        chosen.append((rest.inside, rows))
        return trained(rest, weights, rows)

    monkeypatch.setattr(module, "_trained", seen)
    found = forecast_choice(problem, trust, rule, BUDGET, RIDGE, fill=True)
    judged = pool if problem.validation is None else problem.validation
    wrong = {name: torch.full((len(judged),), -1.0).double() for name in (NOTHING, CHOICE, RANDOM)}
    for number, (inside, rows) in enumerate(chosen):
        held = inside[len(core) :] if problem.validation is None else inside
        if problem.validation is None:
            assert not bool(held[rows].any())  # the fold is not chosen from
        assert len(rows.unique()) == len(rows) == BUDGET
        for name, present in ((CHOICE if number % 2 == 0 else RANDOM, rows), (NOTHING, rows[:0])):
            weights = torch.zeros_like(pool.weights)
            weights[present] = pool.weights[present]
            outputs = design(judged) @ coefficients(core, pool, weights, RIDGE)
            wrong[name][held] = (outputs.argmax(dim=1) != judged.labels).double()[held]
    return found, wrong


@pytest.mark.parametrize("rule", [CORESET, BALANCED])
def test_heads_are_refits_on_core_and_choice(rule, monkeypatch):
    core, pool, _ = sets(m=45, flips=0.2)
    trust = replace(trust_for(core, pool), probability=torch.linspace(0.5, 1, 45).double())
    found, wrong = by_hand(posed(core, pool), trust, monkeypatch, rule)
    for name, missed in wrong.items():
        assert torch.equal(found.wrong[name], missed), name
    # The pool stands for the core as well, class by class.
    in_pool, in_core = (torch.bincount(part.labels).double() for part in (pool, core))
    share = trust.probability * ((in_core + in_pool) / in_pool)[pool.labels]
    assert torch.allclose(found.share, share / share.sum())


def test_a_validation_set_judges_in_its_place(monkeypatch):
    core, pool, _ = sets(m=45)
    judge, _, _ = sets(n=30, m=1, seed=8)
    judge = replace(judge, validation_mask=judge.weights, weights=torch.zeros(30).double())
    problem = posed(core, pool, validation=judge, validation_order=torch.arange(30))
    trust = replace(trust_for(core, pool), probability=torch.ones(45).double())
    found, wrong = by_hand(problem, trust, monkeypatch, DERIVATIVE)
    for name, missed in wrong.items():
        assert torch.equal(found.wrong[name], missed), name


def test_classes_count_alike_where_they_are_to_and_those_that_are_barred_judge_nothing():
    core, pool, _ = sets(m=45)
    trust = replace(trust_for(core, pool), probability=torch.ones(45).double())
    possible = torch.arange(45) >= 6
    balance = torch.where(pool.labels == 0, 3.0, 1.0).double()
    problem = replace(posed(core, pool), possible=possible, balance=balance)
    told = []
    found = forecast_choice(problem, trust, CORESET, 6, RIDGE, fill=True, judged=lambda: told.append(1))
    share = balance[possible] / balance[possible].sum()
    assert torch.allclose(found.share, share)
    assert len(told) == 3


def test_the_core_has_a_say_in_the_ridge():
    """A choice of one sample trains nearly the head of the core, and not one whose ridge suits one sample."""
    core, pool, _ = sets(n=60, m=60, scale=2.5)
    trust = replace(trust_for(core, pool), probability=torch.ones(60).double())
    found = forecast_choice(posed(core, pool, ridge=None), trust, CORESET, 1, RIDGE, fill=True)
    assert abs(found.error(CHOICE) - found.error(NOTHING)) < 0.05
    assert abs(found.error(RANDOM) - found.error(NOTHING)) < 0.05


def test_an_order_among_some():
    order = torch.tensor([4, 0, 3, 1, 2])
    rows = torch.tensor([0, 2, 4])
    assert torch.equal(rows[module._among(order, rows)], torch.tensor([4, 0, 2]))
