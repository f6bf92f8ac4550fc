"""The coreset rule against refits by normal equations; trust, and the whole choice."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from divacli.ridge import (
    Coreset,
    LinearOutput,
    PoolProblem,
    PoolTrust,
    RidgeTask,
    Scaling,
    decompose,
    fit_trust,
    loo_predictions,
    moments,
    predictable,
    ridge_path,
)
from divacli.ridge.pool.choice import BALANCED, CORESET, DERIVATIVE, RANDOM, places, walked
from divacli.ridge.pool.coreset import closest, judged_sums
from divacli.ridge.pool.trust import leave_out

K, RIDGE = 3, 0.6

VARIANTS = {
    "plain": {},
    "groups": {"groups": True},
    "trained head": {"offset": True},
    "no intercept": {"intercept": False},
    "n < d": {"n": 12, "m": 14, "d": 30},
}


def sets(offset=False, groups=False, intercept=True, n=21, m=24, d=5, seed=3, scale=1.2, flips=0.0):
    """Core and pool of three classes, every sample at a weight of its own, some labels of the pool wrong."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(n + m, d, generator=generator, dtype=torch.float64) + 0.3
    truth = torch.arange(n + m) % K
    raw[torch.arange(n + m), truth] += scale
    wrong = torch.rand(m, generator=generator) < flips
    labels = truth.clone()
    labels[n:] = torch.where(wrong, (truth[n:] + 1) % K, truth[n:])
    weights = 0.5 + torch.rand(n + m, generator=generator, dtype=torch.float64)
    head = 0.3 * torch.randn(K, d, generator=generator, dtype=torch.float64), torch.zeros(K).double()

    def part(rows, **more):
        return RidgeTask(
            raw[rows],
            labels[rows],
            K,
            weights[rows],
            offset=LinearOutput(raw[rows], *head) if offset else None,
            intercept=intercept,
            scaling=Scaling("unit") if offset else Scaling(),
            dtype=torch.float64,
            **more,
        )

    core_groups = {"groups": torch.arange(n) // 2} if groups else {}
    return part(slice(n), **core_groups), part(slice(n, None)), wrong


def trust_for(core, pool, seed=5):
    """Any numbers do: formulas hold for all."""
    generator = torch.Generator().manual_seed(seed)
    probability = torch.rand(len(pool), generator=generator, dtype=torch.float64)
    outputs = torch.randn(len(core) + len(pool), K, generator=generator, dtype=torch.float64)
    return PoolTrust(probability, 0.1, pool.labels, probability, outputs)


def started(core, pool, trust, **options):
    options = {"ridge": RIDGE, **options}
    return Coreset(core, pool, trust, torch.arange(len(core)), torch.arange(len(pool)), **options)


def design(task):
    return torch.cat([task.scaling(task.features), torch.ones(len(task), int(task.intercept)).double()], 1)


def base_of(task):
    return torch.zeros(len(task), K).double() if task.offset is None else task.offset[:].double()


def coefficients(core, pool, weights, ridge=RIDGE):
    """Of the core and pool samples at these weights, by normal equations; the bias is not penalised."""
    rows = torch.cat([design(core), design(pool)])
    targets = torch.cat([functional.one_hot(task.labels, K) - base_of(task) for task in (core, pool)])
    alpha = torch.cat([core.weights, weights])[:, None]
    penalty = torch.full((rows.shape[1],), ridge, dtype=torch.float64)
    penalty[core.n_features :] = 0
    return torch.linalg.solve(rows.T @ (alpha * rows) + penalty.diag(), rows.T @ (alpha * targets))


def distances(core, pool, trust, weights):
    """`v |f - t|^2` of every sample of core and pool by a refit at these weights of the pool."""
    coef = coefficients(core, pool, weights)
    outputs = torch.cat([base_of(task) + design(task) @ coef for task in (core, pool)])
    counted = torch.cat([core.validation_mask, trust.probability])
    return counted * (outputs - trust.outputs).square().sum(dim=1)


def brute_changes(core, pool, trust, weights, step=None):
    """What each sample does to the distances of all others when it enters, at its weight or at another."""
    before, found = distances(core, pool, trust, weights), []
    for row in range(len(pool)):
        now = weights.clone()
        now[row] += pool.weights[row] if step is None else step
        lower = distances(core, pool, trust, now) - before
        lower[len(core) + row] = 0
        found.append(lower.sum())
    return torch.stack(found)


@pytest.fixture(params=list(VARIANTS))
def given(request):
    """Core, pool and trust of every kind of problem."""
    core, pool, _ = sets(**VARIANTS[request.param])
    return core, pool, trust_for(core, pool)


def test_what_a_sample_changes_is_what_a_refit_says(given, relative_error):
    core, pool, trust = given
    walk = started(core, pool, trust)
    weights = torch.zeros(len(pool)).double()
    found = walk.candidates()
    assert relative_error(found.change, brute_changes(core, pool, trust, weights)) < 1e-9
    slope = (
        brute_changes(core, pool, trust, weights, 1e-5) - brute_changes(core, pool, trust, weights, -1e-5)
    ) / 2e-5
    assert relative_error(found.derivative, slope) < 1e-6
    # And so after others have entered.
    walk.add(torch.tensor([4, 1, 7]))
    weights[[4, 1, 7]] = pool.weights[[4, 1, 7]]
    left = weights == 0
    again = brute_changes(core, pool, trust, weights)
    assert relative_error(walk.candidates().change[left], again[left]) < 1e-9
    assert relative_error(found.change[left], again[left]) > 0.01


def test_a_batch_is_chosen_as_by_refits(given):
    core, pool, trust = given
    walk = started(core, pool, trust)
    eligible = torch.arange(len(pool)) != 5
    found = walk.choose(walk.candidates(), eligible, 6).tolist()
    weights = torch.zeros(len(pool)).double()
    for row in found:
        change = brute_changes(core, pool, trust, weights)
        change[(weights > 0) | ~eligible] = torch.inf
        assert row == int(change.argmin())
        weights[row] = pool.weights[row]
    assert len(set(found)) == 6
    # Negative control: the first look alone would have chosen others.
    first = walk.candidates().change.argsort().tolist()
    assert found != [row for row in first if row != 5][:6]


def test_sums_over_all_are_those_of_the_whitened_samples(given, relative_error):
    core, _, trust = given
    spectrum = decompose(core)
    for fit in (spectrum.fit(RIDGE), moments(core).fit(RIDGE)):
        aims = replace(core, offset=functional.one_hot(core.labels, K) - trust.outputs[: len(core)])
        sums = moments(replace(aims, groups=None, weights=core.validation_mask))
        gram, pull = judged_sums(sums, fit)
        phi = fit.project(core.scaling(core.features))
        assert relative_error(gram, phi.T @ phi) < 1e-9
        assert relative_error(pull, phi.T @ (phi @ fit.coef - trust.outputs[: len(core)])) < 1e-9


def test_without_a_budget_it_ends_where_nothing_comes_closer(given):
    core, pool, trust = given
    everybody = torch.ones(len(pool), dtype=torch.bool)
    for fill in (True, False):
        walk = started(core, pool, trust, fill=fill)
        free = everybody.clone()
        while len(rows := walk.choose(walk.candidates(), free, len(pool))):
            free[rows] = False
            walk.add(rows)
        assert bool(free.any()) is not fill
        assert bool((walk.candidates().change[free] >= 0).all())


def test_the_ridge_is_the_optimum_of_what_is_in_the_fit():
    core, pool, _ = sets()
    trust = trust_for(core, pool)
    walk = started(core, pool, trust, ridge=None)
    rows = torch.tensor([3, 8, 11])
    walk.add(rows)
    both = replace(
        core,
        features=torch.cat([core.features, pool.features[rows]]),
        labels=torch.cat([core.labels, pool.labels[rows]]),
        weights=torch.cat([core.weights, pool.weights[rows]]),
        validation_mask=torch.cat([core.validation_mask, trust.probability[rows]]),
    )
    assert bool(predictable(both).all())
    path = ridge_path(both, decompose(both))
    assert walk.state.ridge == pytest.approx(float(path.ridges[path.best]), rel=1e-9)


def test_the_state_leaves_out_who_is_in_the_fit(given):
    core, pool, trust = given
    if core.groups is not None:
        pytest.skip("groups are left out together: tested where leave_one_out is")
    walk = started(core, pool, trust)
    walk.add(torch.tensor([2, 6]))
    weights = torch.zeros(len(pool)).double()
    weights[[2, 6]] = pool.weights[[2, 6]]
    loss = 0.0
    for row in range(len(core)):
        alpha = core.weights.clone()
        alpha[row] = 0
        coef = coefficients(replace(core, weights=alpha), pool, weights)
        output = base_of(core)[row] + design(core)[row] @ coef
        loss += float((output - functional.one_hot(core.labels[row], K)).square().sum())
    for row in range(len(pool)):
        now = weights.clone()
        now[row] = 0
        output = base_of(pool)[row] + design(pool)[row] @ coefficients(core, pool, now)
        loss += float(
            trust.probability[row] * (output - functional.one_hot(pool.labels[row], K)).square().sum()
        )
    assert walk.state.loss == pytest.approx(loss / (len(core) + float(trust.probability.sum())), rel=1e-9)


def test_a_copy_of_what_was_chosen_has_little_left_to_offer():
    core, pool, _ = sets(n=9, m=30)
    trust = trust_for(core, pool)
    best = int(started(core, pool, trust).candidates().change.argmin())
    alike = torch.tensor([best] * 20)

    def with_copies(tensor):
        return torch.cat([tensor, tensor[alike]])

    more = replace(
        pool,
        features=with_copies(pool.features),
        labels=with_copies(pool.labels),
        weights=with_copies(pool.weights),
        validation_mask=with_copies(pool.validation_mask),
    )
    probability = torch.cat([trust.probability, torch.zeros(20).double()])
    wider = replace(trust, probability=probability, outputs=torch.cat([trust.outputs, trust.outputs[-20:]]))
    walk = started(core, more, wider)
    everybody = torch.ones(50, dtype=torch.bool)
    found = walk.choose(walk.candidates(), everybody, 15)
    copies = torch.cat([torch.tensor([best]), torch.arange(30, 50)])
    assert int(torch.isin(found, copies).sum()) < 8
    assert int(torch.isin(walk.candidates().change.argsort()[:21], copies).sum()) >= 20


def test_few_candidates_and_none():
    core, pool, _ = sets()
    walk = started(core, pool, trust_for(core, pool))
    nobody = torch.zeros(len(pool), dtype=torch.bool)
    assert len(walk.choose(walk.candidates(), nobody, 3)) == 0
    some = nobody.clone()
    some[[2, 9]] = True
    assert sorted(walk.choose(walk.candidates(), some, 5).tolist()) == [2, 9]
    zeros, square = torch.zeros(0, 2).double(), torch.zeros(2, 2).double()
    found = closest(zeros, zeros, zeros[:, 0], square, square, zeros, zeros[:, 0], 3, True)
    assert found.shape == (0,)


def test_a_fit_on_very_many_leaves_the_rest_to_chance(monkeypatch):
    monkeypatch.setattr("divacli.ridge.pool.coreset.CHOSEN_AT_MOST", 4)
    core, pool, _ = sets()
    trust = trust_for(core, pool)
    everybody = torch.ones(len(pool), dtype=torch.bool)
    drawn = []
    for seed in (0, 0, 1):
        walk = started(core, pool, trust, seed=seed)
        walk.add(walk.choose(walk.candidates(), everybody, 4))
        drawn.append(walk.choose(walk.candidates(), everybody, 6).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


# Trust


def noisy(flips, seed=1, n=15, m=300):
    core, pool, wrong = sets(n=n, m=m, d=8, seed=seed, scale=3.0, flips=flips)
    ones = {"weights": torch.ones(n).double()}, {"weights": torch.ones(m).double()}
    return replace(core, **ones[0]), replace(pool, **ones[1]), wrong


def trust_of(core, pool, **options):
    return fit_trust(core, pool, torch.arange(len(core)), torch.arange(len(pool)), **options)


@pytest.mark.parametrize("flips", [0.0, 0.3])
def test_wrong_labels_are_found_by_core_and_pool_together(flips):
    core, pool, wrong = noisy(flips)
    found = trust_of(core, pool)
    right = ~wrong
    assert found.noise == pytest.approx(float(wrong.double().mean()), abs=0.06)
    assert float((found.probability[right] >= 0.5).double().mean()) > 0.95
    if flips:
        assert float((found.probability[wrong] < 0.5).double().mean()) > 0.85
    truth = torch.arange(len(core), len(core) + len(pool)) % K
    assert float((found.predicted == truth).double().mean()) > 0.85
    assert bool(((found.confidence > 0) & (found.confidence <= 1)).all())


def test_labels_that_say_nothing_are_not_trusted():
    core, pool, _ = noisy(0.0)
    drawn = torch.randint(K, (len(pool),), generator=torch.Generator().manual_seed(0))
    found = trust_of(core, replace(pool, labels=drawn))
    assert found.noise > 0.5
    right = drawn == pool.labels
    assert float(found.probability[right].mean()) > float(found.probability[~right].mean()) + 0.5


def test_outputs_leave_each_sample_out(relative_error):
    core, pool, _ = sets(flips=0.2)
    probability = torch.rand(len(pool), generator=torch.Generator().manual_seed(2)).double()
    found, ridge = leave_out(core, pool, probability, RIDGE)
    assert ridge == RIDGE
    weights = probability * pool.weights
    row = 7
    now = weights.clone()
    now[row] = 0
    expected = design(pool)[row] @ coefficients(core, pool, now)
    assert relative_error(found[len(core) + row], expected) < 1e-9


def test_trust_does_not_depend_on_how_rows_are_stored():
    core, pool, _ = noisy(0.3)
    expected = trust_of(core, pool)
    mixed = torch.randperm(len(pool), generator=torch.Generator().manual_seed(4))
    moved = replace(
        pool, features=pool.features[mixed], labels=pool.labels[mixed], weights=pool.weights[mixed]
    )
    found = fit_trust(core, moved, torch.arange(len(core)), mixed.argsort())
    torch.testing.assert_close(found.probability, expected.probability[mixed], rtol=1e-6, atol=1e-6)
    assert found.noise == pytest.approx(expected.noise, abs=1e-6)


def test_samples_that_are_not_usable_teach_nothing():
    core, pool, _ = noisy(0.3)
    usable = torch.arange(len(pool)) < 200
    shuffled = torch.where(usable, pool.labels, (pool.labels + 1) % K)
    found = [
        trust_of(core, replace(pool, labels=labels), usable=usable) for labels in (pool.labels, shuffled)
    ]
    torch.testing.assert_close(found[0].probability[usable], found[1].probability[usable], rtol=0, atol=1e-9)
    assert found[0].noise == pytest.approx(found[1].noise, abs=1e-9)


def test_one_class_and_a_validation_set():
    core, pool, _ = noisy(0.0)
    alone = [replace(task, n_classes=1, labels=task.labels * 0) for task in (core, pool)]
    found = trust_of(*alone, ridge=RIDGE)
    assert found.outputs.shape == (len(core) + len(pool), 1)
    assert bool((found.probability >= 0.5).all())
    # A class that the core lacks is known from the validation set.
    two = core.labels < 2
    lacking = replace(
        core,
        features=core.features[two],
        labels=core.labels[two],
        weights=core.weights[two],
        validation_mask=core.validation_mask[two],
    )
    new = pool.labels == 2
    held_out = replace(core, weights=torch.zeros(len(core)).double())
    with_it = trust_of(lacking, pool, validation=held_out)
    assert with_it.outputs.shape == (len(lacking) + len(pool), K)
    assert float((with_it.probability[new] >= 0.5).double().mean()) > 0.8


# The whole choice


def whole(core, pool, budget, *, rule=CORESET, order=None, possible=None, seed=0):
    """Rows chosen from a labelled pool, and its trust; without a budget as many as bring the fit closer."""
    orders = torch.arange(len(core)), torch.arange(len(pool)) if order is None else order
    possible = torch.ones(len(pool), dtype=torch.bool) if possible is None else possible
    problem = PoolProblem(core, pool, *orders, possible, seed=seed)
    trust = fit_trust(core, pool, *orders, usable=possible, seed=seed)
    size = len(pool) if budget is None else budget
    return torch.cat([rows for rows, _ in walked(problem, trust, rule, size, fill=budget is not None)]), trust


def test_the_choice_is_the_same_again_and_in_any_order():
    core, pool, _ = noisy(0.3)
    expected, _ = whole(core, pool, 40)
    assert torch.equal(whole(core, pool, 40)[0], expected)
    mixed = torch.randperm(len(pool), generator=torch.Generator().manual_seed(4))
    moved = replace(
        pool, features=pool.features[mixed], labels=pool.labels[mixed], weights=pool.weights[mixed]
    )
    found, _ = whole(core, moved, 40, order=mixed.argsort())
    assert torch.equal(mixed[found], expected)


@pytest.mark.parametrize("rule", [CORESET, BALANCED, DERIVATIVE, RANDOM])
def test_a_choice_keeps_to_budget_trust_and_who_may_be_chosen(rule):
    core, pool, wrong = noisy(0.3)
    possible = torch.arange(len(pool)) % 5 > 0
    rows, trust = whole(core, pool, 50, rule=rule, possible=possible, seed=3)
    assert len(rows) <= 50
    assert rule == DERIVATIVE or len(rows) == 50
    assert len(set(rows.tolist())) == len(rows)
    assert bool(possible[rows].all())
    assert bool((trust.probability[rows] >= 0.5).all())
    assert float(wrong[rows].double().mean()) < 0.1


def test_a_random_choice_follows_its_seed():
    core, pool, _ = noisy(0.3)
    drawn = [whole(core, pool, 30, rule=RANDOM, seed=seed)[0].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_a_budget_random_takes_all_that_is_trusted():
    core, pool, _ = noisy(0.3)
    everybody, trust = whole(core, pool, None, rule=RANDOM)
    assert sorted(everybody.tolist()) == (trust.probability >= 0.5).nonzero()[:, 0].tolist()
    chosen, _ = whole(core, pool, None)
    assert 0 < len(chosen) <= len(everybody)


def posed(core, pool, **options):
    everybody = torch.ones(len(pool), dtype=torch.bool)
    return PoolProblem(core, pool, torch.arange(len(core)), torch.arange(len(pool)), everybody, **options)


def test_balanced_takes_from_the_smallest_class_one_at_a_time():
    core, pool, _ = noisy(0.3)
    problem, trust = posed(core, pool, seed=3), trust_for(core, pool)
    eligible = problem.eligible(trust)
    order = places(problem, trust, BALANCED).argsort()[: int(eligible.sum())]
    assert bool(eligible[order].all())
    counts = torch.bincount(core.labels, minlength=K)
    left = torch.bincount(pool.labels[eligible], minlength=K)
    for row in order.tolist():
        label = int(pool.labels[row])
        assert counts[label] == counts[left > 0].min()
        counts[label] += 1
        left[label] -= 1
    drawn = places(problem, trust, RANDOM)
    assert torch.equal(drawn.sort().values, torch.arange(len(pool)))
    within = [row for row in order.tolist() if int(pool.labels[row]) == 0]
    assert within == sorted(within, key=lambda row: int(drawn[row]))


def test_a_pool_that_counts_for_nothing_leaves_the_state_to_the_core():
    core, pool, _ = sets()
    walk = started(core, pool, trust_for(core, pool), counted=torch.zeros(len(pool)).double())
    fit = moments(core).fit(RIDGE)
    left_out = loo_predictions(core, fit, torch.arange(len(core)))
    away = (left_out - functional.one_hot(core.labels, K)).square().sum(dim=1)
    assert walk.state.loss == pytest.approx(float(away.mean()))
