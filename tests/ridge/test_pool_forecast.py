"""The forecast of a choice from a pool beside refits by normal equations, fold by fold."""

from dataclasses import replace

import pytest
import torch

from divacli.ridge import NOTHING, RANDOM, TRUSTED, PoolProblem, forecast_rules
from divacli.ridge.pool import forecast as module
from divacli.ridge.pool.choice import BALANCED, CORESET, DERIVATIVE
from divacli.ridge.pool.choice import RANDOM as RULE_RANDOM
from tests.ridge.test_extension_coreset import coefficients, design, sets, trust_for

RIDGE, BUDGET, SEED = 0.6, 9, 4


def posed(core, pool, **options):
    everybody = torch.ones(len(pool), dtype=torch.bool)
    orders = torch.arange(len(core)), torch.arange(len(pool))
    return PoolProblem(core, pool, *orders, everybody, **{"ridge": RIDGE, "seed": SEED, **options})


def some(task, rows):
    chosen = task.select(rows)
    return replace(chosen, features=chosen.features[:], numbers=None)


def by_hand(problem, trust, monkeypatch, rules):
    """Wrong predictions of each head in each fold; what is chosen and drawn is asked of the module."""
    core, pool = problem.core, problem.pool
    names = [TRUSTED if rule == RULE_RANDOM else rule for rule in rules]
    chosen = []
    trained = module._trained

    def seen(rest, weights, rows):
        chosen.append((rest.inside, rows))
        return trained(rest, weights, rows)

    monkeypatch.setattr(module, "_trained", seen)
    found = forecast_rules(problem, trust, rules, BUDGET, fill=True)
    # The first rule, the random rival, the other rules; and so in each fold.
    names.insert(1, RANDOM)
    judging = pool if problem.validation is None else problem.validation
    wrong = {name: torch.full((len(judging),), -1.0).double() for name in (NOTHING, *names)}
    for number, (inside, rows) in enumerate(chosen):
        held = inside[len(core) :] if problem.validation is None else inside
        if problem.validation is None:
            assert not bool(held[rows].any())  # the fold is not chosen from
        assert len(rows.unique()) == len(rows) == BUDGET
        for name, present in ((names[number % len(names)], rows), (NOTHING, rows[:0])):
            weights = torch.zeros_like(pool.weights)
            weights[present] = pool.weights[present]
            outputs = design(judging) @ coefficients(core, pool, weights, RIDGE)
            wrong[name][held] = (outputs.argmax(dim=1) != judging.labels).double()[held]
    return found, wrong


def test_heads_are_refits_on_core_and_choice(monkeypatch):
    core, pool, _ = sets(m=45, flips=0.2)
    trust = replace(trust_for(core, pool), probability=torch.linspace(0.5, 1, 45).double())
    found, wrong = by_hand(posed(core, pool), trust, monkeypatch, (CORESET, BALANCED, RULE_RANDOM))
    assert list(found.wrong) == [NOTHING, CORESET, RANDOM, BALANCED, TRUSTED]
    for name, missed in wrong.items():
        assert torch.equal(found.wrong[name], missed), name
    # The pool stands for the core as well, class by class.
    in_core = torch.bincount(core.labels).double()
    in_pool = torch.bincount(pool.labels, trust.probability)
    share = trust.probability * ((in_core + in_pool) / in_pool)[pool.labels]
    assert torch.allclose(found.share, share / share.sum())


def test_of_a_class_that_the_pool_lacks_the_core_judges_left_out_in_turn():
    core, whole_pool, _ = sets(n=24, m=60)
    pool = some(whole_pool, (whole_pool.labels != 2).nonzero()[:, 0])
    trust = replace(trust_for(core, pool), probability=torch.ones(len(pool)).double())
    chosen = []
    trained = module._trained

    def seen(rest, weights, rows):
        chosen.append(rows)
        return trained(rest, weights, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_trained", seen)
        found = forecast_rules(posed(core, pool), trust, (CORESET,), BUDGET, fill=True)
    rare = (core.labels == 2).nonzero()[:, 0]
    assert len(found.share) == len(pool) + len(rare)
    for name, picks in ((NOTHING, [chosen[0][:0]] * 3), (CORESET, chosen[::2]), (RANDOM, chosen[1::2])):
        missed = torch.zeros(len(rare)).double()
        for rows in picks:
            weights = torch.zeros_like(pool.weights)
            weights[rows] = pool.weights[rows]
            for place, row in enumerate(rare.tolist()):
                without = replace(core, weights=core.weights.clone().index_fill(0, rare[place], 0.0))
                outputs = design(core)[row] @ coefficients(without, pool, weights, RIDGE)
                missed[place] += float(outputs.argmax() != 2) / len(picks)
        assert torch.allclose(found.wrong[name][len(pool) :], missed), name
    # A third of the core is of that class, and counts as often as it is there.
    assert float(found.share[len(pool) :].sum()) == pytest.approx(len(rare) / (len(core) + len(pool)))


def test_core_samples_of_a_group_are_left_out_together():
    core, whole_pool, _ = sets(n=24, m=60, groups=True)
    pool = some(whole_pool, (whole_pool.labels != 2).nonzero()[:, 0])
    trust = replace(trust_for(core, pool), probability=torch.ones(len(pool)).double())
    found = forecast_rules(posed(core, pool), trust, (CORESET,), BUDGET, fill=True)
    rare = (core.labels == 2).nonzero()[:, 0]
    nobody = torch.zeros_like(pool.weights)
    for place, row in enumerate(rare.tolist()):
        there = core.groups != core.groups[row]
        without = replace(core, weights=torch.where(there, core.weights, 0.0))
        outputs = design(core)[row] @ coefficients(without, pool, nobody, RIDGE)
        assert found.wrong[NOTHING][len(pool) + place] == float(outputs.argmax() != 2)


@pytest.mark.parametrize("n", [2, 4])
def test_a_core_of_a_few_samples_is_in_no_fold(n):
    core, pool, _ = sets(n=n, m=60)
    trust = replace(trust_for(core, pool), probability=torch.ones(60).double())
    found = forecast_rules(posed(core, pool), trust, (CORESET, BALANCED), BUDGET, fill=True)
    assert found.error(CORESET) < found.error(NOTHING)


def test_a_core_sample_of_weight_0_is_not_there():
    core, whole_pool, _ = sets(n=24, m=60)
    pool = some(whole_pool, (whole_pool.labels != 2).nonzero()[:, 0])
    weights = torch.where((core.labels == 2) & (torch.arange(24) < 12), 0.0, core.weights)
    trust = replace(trust_for(core, pool), probability=torch.ones(len(pool)).double())
    problem = posed(replace(core, weights=weights), pool)
    found = forecast_rules(problem, trust, (CORESET,), BUDGET, fill=True)
    rare = int(((core.labels == 2) & (weights > 0)).sum())
    assert float(found.share[len(pool) :].sum()) == pytest.approx(
        rare / (int((weights > 0).sum()) + len(pool))
    )


def test_a_validation_set_judges_in_its_place(monkeypatch):
    core, pool, _ = sets(m=45)
    judge, _, _ = sets(n=30, m=1, seed=8)
    judge = replace(judge, validation_mask=judge.weights, weights=torch.zeros(30).double())
    problem = posed(core, pool, validation=judge, validation_order=torch.arange(30))
    trust = replace(trust_for(core, pool), probability=torch.ones(45).double())
    found, wrong = by_hand(problem, trust, monkeypatch, (DERIVATIVE,))
    for name, missed in wrong.items():
        assert torch.equal(found.wrong[name], missed), name


def test_classes_count_alike_where_they_are_to_and_those_that_are_barred_judge_nothing():
    core, pool, _ = sets(m=45)
    pool = some(pool, torch.cat([(pool.labels == c).nonzero()[: 15 - 2 * c, 0] for c in range(3)]))
    trust = replace(trust_for(core, pool), probability=torch.ones(len(pool)).double())
    possible = torch.arange(len(pool)) >= 2
    balance = torch.ones(len(pool)).double()
    problem = replace(posed(core, pool), possible=possible, balance=balance)
    told = []
    found = forecast_rules(problem, trust, (CORESET,), 6, fill=True, judged=lambda: told.append(1))
    assert len(found.share) == int(possible.sum())
    for label in range(3):
        assert float(found.share[pool.labels[possible] == label].sum()) == pytest.approx(1 / 3)
    assert len(told) == 3


def test_the_core_has_a_say_in_the_ridge():
    """A choice of one sample trains nearly the head of the core, and not one whose ridge suits one sample."""
    core, pool, _ = sets(n=60, m=60, scale=2.5)
    trust = replace(trust_for(core, pool), probability=torch.ones(60).double())
    found = forecast_rules(posed(core, pool, ridge=None), trust, (CORESET,), 1, fill=True)
    assert abs(found.error(CORESET) - found.error(NOTHING)) < 0.05
    assert abs(found.error(RANDOM) - found.error(NOTHING)) < 0.05


def test_an_order_among_some():
    order = torch.tensor([4, 0, 3, 1, 2])
    rows = torch.tensor([0, 2, 4])
    assert torch.equal(rows[module._among(order, rows)], torch.tensor([4, 0, 2]))
