"""The forecast of a decision beside refits by hand, beside new samples, and beside decisions that cheat."""

import math
import sys
from dataclasses import replace

import pytest
import torch

from divacli.errors import SolveError
from divacli.ridge import (
    NOTHING,
    RANDOM,
    Forecast,
    Problem,
    Rest,
    RidgeTask,
    SquaredLoss,
    TrainingWeights,
    dropping_order,
    forecast,
    kept_fraction,
    leave_one_out,
    loo_derivative,
    loo_predictions,
    moments,
    split_in_folds,
    validation_derivative,
)
from divacli.ridge.dropping import BALANCED, COVERAGE, EASY, RULES, Evidence
from divacli.ridge.leave_out.ridge_search import RidgeSearch, _few
from divacli.ridge.weights.problem import predictions

N, K, FOLDS = 60, 3, 4
MODULE = sys.modules["divacli.ridge.forecast"]
RIDGE_SEARCH = sys.modules["divacli.ridge.leave_out.ridge_search"]
"""The package has the function under this name."""


def drawn(n, seed):
    """(n,) float64 in [0, 1)."""
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(made, weights, labels):
    """Coefficients of the normal equations with a free intercept, written out."""
    design = made.design
    penalty = torch.zeros(design.shape[1], dtype=torch.float64)
    penalty[: made.z.shape[1]] = made.ridge
    targets = torch.eye(K, dtype=torch.float64)[labels] - made.base
    normal = (weights[:, None] * design).T @ design + penalty.diag()
    return torch.linalg.solve(normal, (weights[:, None] * design).T @ targets)


def decisions(task):
    """Few samples gone, most of them, other weights, other labels, and both at once."""
    weights, labels = task.weights, task.labels
    few = torch.where(drawn(N, 1) < 0.1, 0.0, weights)
    changed = torch.where(drawn(N, 4) < 0.2, (labels + 1) % K, labels)
    return {
        "few": TrainingWeights(few),
        "most": TrainingWeights(torch.where(drawn(N, 2) < 0.7, 0.0, weights)),
        "weighted": TrainingWeights(weights * (0.1 + drawn(N, 3))),
        "relabelled": TrainingWeights(weights, changed),
        "both": TrainingWeights(few, changed),
        "same": TrainingWeights(weights.clone(), labels.clone()),
    }


def of_the_rest(training, rest):
    """The same without the fold."""
    return replace(training, weights=torch.where(rest.present, training.weights, 0.0))


@pytest.mark.parametrize("offset", [False, True], ids=["plain", "around a head"])
@pytest.mark.parametrize("kind", ["alone", "groups", "validation"])
def test_every_head_is_a_refit_by_hand_without_the_fold(kind, offset, make_problem, make_groups):
    groups = make_groups(*[1, 2, 3, 4] * 6) if kind == "groups" else None
    made = make_problem(N, offset=offset, groups=groups, batch_rows=17)
    judged = made
    if kind == "validation":
        judged = make_problem(40, seed=1, offset=offset)
    validation = judged.task if kind == "validation" else None
    order = torch.randperm(len(judged.task), generator=torch.Generator().manual_seed(5))
    problem = Problem(made.task, made.ridge, order, robust=False, validation=validation)
    trust = drawn(len(judged.task), 6)
    tried = decisions(made.task)
    counted = judged.task.validation_mask > 0
    number = split_in_folds(judged.task.labels, order, 3, FOLDS, judged.task.groups)
    truth = {name: torch.zeros(len(judged.task), dtype=torch.float64) for name in (NOTHING, *tried)}
    asked = []

    def decide(rest):
        fold = len(asked)
        asked.append(rest.seed)
        assert torch.equal(rest.inside, number == fold)
        inside = rest.inside & counted
        mine = torch.arange(len(rest.inside))[inside]
        here = {name: of_the_rest(training, rest) for name, training in tried.items()}
        for name, training in ({NOTHING: TrainingWeights(rest.task.weights)} | here).items():
            labels = made.task.labels if training.labels is None else training.labels
            coef = by_hand(made, training.weights, labels)
            expected = (judged.base + judged.design @ coef)[mine]
            found = predictions(rest.problem.judged, rest.head(training), mine)
            assert found == pytest.approx(expected, abs=1e-10)
            truth[name][mine] = (expected.argmax(dim=1) != judged.task.labels[mine]).double()
        return here

    found = forecast(problem, decide, trust, order=torch.arange(N), fixed_ridge=True, n_folds=FOLDS, seed=3)
    assert asked == [3, 4, 5, 6]
    share = (judged.task.validation_mask * trust)[counted]
    share /= share.sum()
    assert list(found.wrong) == [NOTHING, *tried]
    assert found.share == pytest.approx(share, rel=1e-12)
    for name, expected in truth.items():
        assert torch.equal(found.wrong[name], expected[counted])
        assert found.error(name) == pytest.approx(float(share @ expected[counted]), rel=1e-12)
    assert torch.equal(found.wrong["same"], found.wrong[NOTHING])
    if kind == "groups":
        for group in groups.unique():
            assert len(number[groups == group].unique()) == 1
        assert torch.equal(found.groups, groups[counted])
    else:
        assert found.groups is None


def test_a_fold_that_stays_is_another_answer(make_problem):
    """Negative control of the refits by hand: with the fold's own samples the heads are other ones."""
    made = make_problem(N)
    problem = Problem(made.task, made.ridge, torch.arange(N), robust=False)

    def decide(rest):
        whole = by_hand(made, made.task.weights, made.task.labels)
        mine = (rest.inside & (made.task.weights > 0)).nonzero()[:, 0]
        found = predictions(made.task, rest.head(TrainingWeights(rest.task.weights)), mine)
        assert float((found - (made.design @ whole)[mine]).abs().max()) > 1e-3
        return {}

    forecast(problem, decide, torch.ones(N), fixed_ridge=True)


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_updated_moments_are_those_summed_anew(share, make_problem):
    """Less than half moved: what changes is taken out and put back in. Else all is summed."""
    made = make_problem(N)
    problem = Problem(made.task, made.ridge, torch.arange(N), robust=False)

    def decide(rest):
        for labels in (None, (made.task.labels + 1) % K):
            gone = drawn(N, 7) < share
            training = TrainingWeights(torch.where(gone, 0.0, rest.task.weights), labels)
            trained = replace(rest.task, weights=training.weights)
            trained = trained if labels is None else replace(trained, labels=labels)
            anew = moments(trained).fit(made.ridge)
            everyone = torch.arange(N)
            assert predictions(made.task, rest.head(training), everyone) == pytest.approx(
                predictions(made.task, anew, everyone), abs=1e-11
            )
        return {}

    forecast(problem, decide, torch.ones(N), fixed_ridge=True)


@pytest.mark.parametrize("kind", ["leave-one-out", "validation"])
def test_what_a_decision_sees_are_the_scores_without_the_fold(kind, make_problem):
    made = make_problem(N)
    validation = None if kind == "leave-one-out" else make_problem(30, seed=1).task
    judged = made.task if validation is None else validation
    problem = Problem(made.task, made.ridge, torch.arange(len(judged)), robust=False, validation=validation)

    def decide(rest):
        weights = made.task.weights.clone()
        mask = torch.where(rest.inside, 0.0, judged.validation_mask)
        if validation is None:
            weights[rest.inside] = 0.0
        assert torch.equal(rest.rows, weights.nonzero()[:, 0])
        assert rest.predictions == pytest.approx(made.loo_predictions(weights)[rest.rows], abs=1e-10)
        penalty = torch.tensor([made.ridge] * 5 + [0.0], dtype=torch.float64).diag()
        inverse = torch.linalg.inv((weights[:, None] * made.design).T @ made.design + penalty)
        leverage = ((made.design @ inverse) * made.design).sum(dim=1)
        fit = moments(replace(made.task, weights=weights)).fit(made.ridge)
        table = leave_one_out(replace(made.task, weights=weights), fit, SquaredLoss()).leverage
        assert rest.leverage == pytest.approx(table[rest.rows], abs=1e-10)
        # Up to the intercept's part, which is the same for every sample.
        apart = leverage[rest.rows] - rest.leverage
        assert apart == pytest.approx(apart.mean().expand_as(apart), abs=1e-10)
        if validation is None:
            alone = replace(made.task, weights=weights, validation_mask=mask)
            expected = loo_derivative(alone, fit, SquaredLoss()).derivative
        else:
            expected = validation_derivative(
                made.task, replace(validation, validation_mask=mask), fit, SquaredLoss()
            )[0]
        assert rest.derivative(SquaredLoss()) == pytest.approx(expected[rest.rows], abs=1e-10)
        return {}

    forecast(problem, decide, torch.ones(len(judged)), fixed_ridge=True)


def test_it_is_told_of_every_fold_and_asks_in_turn(make_problem):
    made, told = make_problem(N), []
    problem = Problem(made.task, made.ridge, torch.arange(N), robust=False)
    forecast(problem, lambda rest: {}, torch.ones(N), judged=lambda: told.append(1), n_folds=3)
    assert len(told) == 3


def test_labels_of_which_none_can_be_trusted_are_refused(make_problem):
    made = make_problem(N)
    problem = Problem(made.task, made.ridge, torch.arange(N), robust=False)
    with pytest.raises(SolveError, match="no sample has a label that can be trusted"):
        forecast(problem, lambda rest: {}, torch.zeros(N))


def test_a_decision_that_leaves_nothing_is_refused(make_problem):
    made = make_problem(N)
    problem = Problem(made.task, made.ridge, torch.arange(N), robust=False)
    with pytest.raises(SolveError, match="every sample weight is zero"):
        forecast(problem, lambda rest: {"none": TrainingWeights(torch.zeros(N).double())}, torch.ones(N))


@pytest.mark.parametrize("groups", [False, True])
def test_the_order_of_the_rows_does_not_matter(groups):
    task = classes(N, 0)
    task = replace(task, groups=torch.arange(N) // 2) if groups else task
    place, wrong = torch.arange(N), drawn(N, 8)

    def found(stored):
        """In the order of the places, whatever the rows' own."""
        here = replace(
            task,
            features=task.features[stored],
            labels=task.labels[stored],
            weights=task.weights[stored],
            validation_mask=task.validation_mask[stored],
            groups=None if task.groups is None else task.groups[stored],
        )
        order = stored.argsort()
        seen = lambda rest: evidence(here, rest, place[stored], wrong[stored])  # noqa: E731

        def decide(rest):
            stays = kept_fraction(
                dropping_order(BALANCED, seen(rest), rest.seed), here.labels[rest.rows], 0.7
            )
            return {BALANCED: trained(rest, stays.stays)}

        result = forecast(Problem(here, 1.0, order, robust=False), decide, torch.ones(N))
        return {name: values[order] for name, values in result.wrong.items()}

    one = found(torch.arange(N))
    for seed in range(3):
        other = found(torch.randperm(N, generator=torch.Generator().manual_seed(seed)))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_features_too_large_for_the_memory_are_read_again(make_problem, monkeypatch):
    made = make_problem(N, batch_rows=17)
    problem = Problem(made.task, made.ridge, torch.arange(N), robust=False)

    def found():
        return forecast(
            problem, lambda rest: {"few": TrainingWeights(rest.task.weights * (drawn(N, 1) < 0.7))}, trust
        )

    trust, held = torch.ones(N), []
    whole = found()
    monkeypatch.setattr(MODULE, "_KEPT_BYTES", 0)
    again = forecast(problem, lambda rest: held.append(rest.task.features is made.task.features) or {}, trust)
    assert all(held)
    assert torch.equal(again.wrong[NOTHING], whole.wrong[NOTHING])
    assert torch.equal(found().wrong["few"], whole.wrong["few"])


# The ridge of each head


def classes(n, seed, *, d=4, spread=1.2, flipped=0.0):
    """Gaussian classes of unequal sizes, around the same means whatever the seed."""
    means = torch.randn(K, d, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    truth = torch.multinomial(shares, n, replacement=True, generator=generator)
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    lost = torch.rand(n, generator=generator, dtype=torch.float64) < flipped
    other = (truth + 1 + torch.randint(0, K - 1, (n,), generator=generator)) % K
    return RidgeTask(
        means[truth] + spread * noise,
        torch.where(lost, other, truth),
        K,
        torch.ones(n, dtype=torch.float64),
        dtype=torch.float64,
    )


@pytest.mark.parametrize("away", [1 / 300, 1 / 10, 1.0, 10.0, 300.0])
@pytest.mark.parametrize("groups", [False, True])
def test_the_nearby_ridge_is_that_of_a_dense_grid(groups, away):
    task = classes(60, 1, d=12, spread=2.0)
    task = replace(task, weights=0.2 + drawn(60, 2), groups=torch.arange(60) // 3 if groups else None)
    design = torch.cat([task.features, torch.ones(60, 1, dtype=torch.float64)], dim=1)
    targets = torch.eye(K, dtype=torch.float64)[task.labels]
    grouped = torch.arange(60) if task.groups is None else task.groups
    share = task.weights / task.weights.sum()
    grid = torch.logspace(-2, 4, 61, dtype=torch.float64)

    def loss(ridge):
        left_out = []
        for row in range(60):
            alpha = torch.where(grouped == grouped[row], 0.0, task.weights)
            penalty = torch.tensor([ridge] * 12 + [0.0], dtype=torch.float64).diag()
            normal = (alpha[:, None] * design).T @ design + penalty
            left_out.append(design[row] @ torch.linalg.solve(normal, (alpha[:, None] * design).T @ targets))
        return float(share @ (torch.stack(left_out) - targets).square().sum(dim=1))

    best = float(grid[torch.tensor([loss(float(ridge)) for ridge in grid]).argmin()])
    assert grid[5] < best < grid[-5]
    found = RidgeSearch(torch.arange(60), fixed=False).fit(task, moments(task), best * away)
    assert 0.5 <= found.ridge / best <= 2.0
    assert (
        RidgeSearch(torch.arange(60), fixed=True).fit(task, moments(task), best * away).ridge == best * away
    )


def test_the_search_for_a_ridge_ends():
    task = classes(60, 1, d=12, spread=2.0)
    ridges = RidgeSearch(torch.arange(60), fixed=False)
    assert ridges.fit(task, moments(task), 1e9).ridge == 1e9 / 4096


def usable(sums, ridge, task=None):
    """Whether there is a head at a ridge, and with a task, whether all its samples can be left out."""
    try:
        fit = sums.fit(ridge)
        if task is not None:
            loo_predictions(task, fit, torch.arange(len(task)))
    except SolveError:
        return False
    return True


def test_a_ridge_below_which_nothing_is_determined_is_not_left():
    """Every column is there twice, and labels are columns: the smaller the ridge the better, down to where
    it is lost in rounding."""
    labels = torch.arange(30) % K
    one_hot = torch.eye(K, dtype=torch.float64)[labels]
    task = RidgeTask(
        torch.cat([one_hot, one_hot], dim=1), labels, K, torch.ones(30).double(), dtype=torch.float64
    )
    sums = moments(task)
    ridge = 1.0
    while usable(sums, ridge / 2):
        ridge /= 2
    found = RidgeSearch(torch.arange(30), fixed=False).fit(task, sums, ridge)
    assert found.ridge == ridge


def lone(n_alone):
    """Samples of which some have a feature of their own: without them nothing determines their prediction."""
    labels = torch.arange(30) % K
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = torch.eye(30, dtype=torch.float64)[:, :n_alone]
    return RidgeTask(
        torch.cat([features, own], dim=1), labels, K, torch.ones(30, dtype=torch.float64), dtype=torch.float64
    )


def test_from_a_ridge_that_leaves_a_leverage_of_one_the_way_is_up():
    task = lone(5)
    sums, everyone = moments(task), torch.arange(30)
    ridge = 1.0
    while usable(sums, ridge, task):
        ridge /= 2
    assert usable(sums, ridge), "only the sample itself is not determined"
    found = RidgeSearch(everyone, fixed=False).fit(task, sums, ridge)
    assert found.ridge > ridge
    loo_predictions(task, found, everyone)
    # From far below no ridge near has a loss; the head is that of the ridge it was given.
    below = ridge / 2**20
    if usable(sums, below):
        assert RidgeSearch(everyone, fixed=False).fit(task, sums, below).ridge == below


@pytest.mark.parametrize("groups", [False, True])
def test_no_sample_at_all_has_no_ridge(groups):
    task = replace(classes(30, 0), weights=torch.zeros(30).double())
    task = replace(task, groups=torch.arange(30) // 2) if groups else task
    with pytest.raises(SolveError, match="every sample weight is zero"):
        RidgeSearch(torch.arange(30), fixed=False).fit(task, moments(task), 1.0)


def test_many_samples_are_judged_by_some(monkeypatch):
    monkeypatch.setattr(RIDGE_SEARCH, "_RIDGE_ROWS", 10)
    task = classes(100, 0)
    weights = torch.where(torch.arange(100) % 3 == 0, 0.0, 1.0).double()
    task, order = (
        replace(task, weights=weights),
        torch.randperm(100, generator=torch.Generator().manual_seed(0)),
    )
    rows = _few(task, order)
    assert len(rows) == 10
    assert bool((weights[rows] > 0).all())
    assert torch.equal(rows, rows.sort().values)
    assert set(rows.tolist()) == set(order[weights[order] > 0][::7].tolist())


def test_many_samples_are_judged_by_whole_groups(monkeypatch, make_groups):
    monkeypatch.setattr(RIDGE_SEARCH, "_RIDGE_ROWS", 30)
    groups = make_groups(*[4] * 50)
    weights = torch.where(drawn(200, 0) < 0.2, 0.0, 1.0).double()
    task = replace(classes(200, 0), groups=groups, weights=weights)
    rows = _few(task, torch.arange(200))
    for group in groups[rows].unique():
        assert set(rows.tolist()) >= set(((groups == group) & (weights > 0)).nonzero()[:, 0].tolist())
    assert bool((weights[rows] > 0).all())
    assert 10 <= len(rows) <= 60


# The change and its interval


def test_a_change_is_a_paired_difference_with_two_disagreements_more():
    wrong = {NOTHING: torch.tensor([1.0, 0, 1, 0]).double(), "a": torch.tensor([0.0, 0, 1, 1]).double()}
    share = torch.tensor([0.4, 0.3, 0.2, 0.1]).double()
    change = Forecast(wrong, share).change("a")
    more = torch.tensor([-1.0, 0, 0, 1]).double()
    mean = -0.4 + 0.1
    parts = share * (more - mean)
    variance = float(parts.square().sum()) + 2 * float(share.square().sum()) ** 2
    assert change.mean == pytest.approx(mean)
    assert change.se == pytest.approx(1.2 * math.sqrt(variance))
    assert (change.low, change.high) == pytest.approx(
        (mean - 1.96 * math.sqrt(2) * change.se, mean + 1.96 * math.sqrt(2) * change.se)
    )


def test_of_groups_that_agree_there_are_as_many_draws_as_groups():
    wrong = {NOTHING: torch.zeros(40).double(), "a": (torch.arange(40) < 20).double()}
    share = torch.full((40,), 1 / 40).double()
    alone = Forecast(wrong, share)
    of_ten = Forecast(wrong, share, torch.arange(40) // 4 * 7 - 3)
    smallest = (1.2 / 40) ** 2 * 2
    assert (of_ten.change("a").se ** 2 - smallest) / (alone.change("a").se ** 2 - smallest) == pytest.approx(
        4
    )


def test_heads_that_agree_may_differ_on_the_next_sample():
    wrong = {NOTHING: torch.ones(50).double(), "a": torch.ones(50).double()}
    change = Forecast(wrong, torch.full((50,), 0.02).double()).change("a")
    assert (change.mean, change.se) == (0, pytest.approx(1.2 * math.sqrt(2) / 50))


# Decisions on drawn data


def evidence(task, rest, place, wrong):
    """Labels are called wrong by a number that is not from them."""
    return Evidence(
        task.labels[rest.rows],
        wrong[rest.rows],
        wrong[rest.rows] > 0.9,
        (rest.predictions - torch.eye(K, dtype=torch.float64)[task.labels[rest.rows]]).square().sum(dim=1),
        rest.leverage,
        place[rest.rows],
    )


def trained(rest, stays):
    weights = torch.zeros_like(rest.task.weights)
    weights[rest.rows[stays]] = rest.task.weights[rest.rows[stays]]
    return TrainingWeights(weights)


def by_rules(task, keep, rules=RULES, doubt=0.9):
    """The rules as `diva prune` has them; a label is called wrong where its prediction is far from it."""

    def decide(rest):
        labels = task.labels[rest.rows]
        loss = (rest.predictions - torch.eye(K, dtype=torch.float64)[labels]).square().sum(dim=1)
        place = torch.arange(len(task))[rest.rows]
        known = Evidence(labels, loss, loss > doubt, loss, rest.leverage, place)
        return {
            rule: trained(rest, kept_fraction(dropping_order(rule, known, rest.seed), labels, keep).stays)
            for rule in rules
        }

    return decide


def head_of_all(problem, decide):
    """The same decision made by all samples, and the heads that it and doing nothing lead to."""
    everyone = torch.zeros(len(problem.task), dtype=torch.bool)
    ridges = RidgeSearch(problem.order, fixed=False)
    sums = moments(problem.task)
    fit = ridges.fit(problem.task, sums, problem.ridge)
    rest = Rest(problem, everyone, fit, 0, sums, ridges)
    return {NOTHING: fit} | {name: rest.head(training) for name, training in decide(rest).items()}


def test_the_interval_holds_the_change_on_as_many_new_samples():
    n, draws = 150, 40
    held, apart = {}, {}
    for seed in range(draws):
        task, new = classes(n, seed), classes(n, 10_000 + seed)
        problem = Problem(task, 10.0, torch.arange(n), robust=False)

        def decide(rest, task=task):
            return {
                f"{rule} {keep}": training
                for keep in (0.9, 0.5)
                for rule, training in by_rules(task, keep, (BALANCED, RANDOM))(rest).items()
            }

        found = forecast(problem, decide, torch.ones(n), seed=seed)
        wrong = {
            name: float((predictions(new, head, torch.arange(n)).argmax(dim=1) != new.labels).double().mean())
            for name, head in head_of_all(problem, decide).items()
        }
        for name in wrong.keys() - {NOTHING}:
            change, measured = found.change(name), wrong[name] - wrong[NOTHING]
            held[name] = held.get(name, 0) + (change.low <= measured <= change.high)
            apart.setdefault(name, []).append(measured - change.mean)
    assert len(held) == 4
    assert all(count >= 0.85 * draws for count in held.values()), held
    # Four folds of five train the heads that are compared: a random loss is larger there, not by much.
    assert all(abs(sum(values) / draws) < 0.02 for values in apart.values()), apart


def promises(draws, decide_of):
    """In how many of so many draws of random labels each name promises a gain of two standard errors."""
    counts = {}
    for seed in range(draws):
        task = classes(120, seed, d=40)
        labels = torch.randint(0, K, (120,), generator=torch.Generator().manual_seed(500 + seed))
        task = replace(task, labels=labels)
        problem = Problem(task, 1.0, torch.arange(120), robust=False)
        found = forecast(problem, decide_of(task), torch.ones(120), fixed_ridge=True)
        for name in found.wrong:
            change = found.change(name)
            counts[name] = counts.get(name, 0) + (change.mean < -2 * change.se)
    return counts


def test_no_rule_promises_a_gain_where_labels_are_random():
    counts = promises(40, lambda task: by_rules(task, 0.7))
    assert set(counts) == {NOTHING, *RULES}
    assert max(counts.values()) <= 4, counts


def test_a_decision_that_looks_at_the_fold_does_promise_one():
    """Negative control: the labels of the fold itself are in what is dropped and what is kept."""

    def cheat(task):
        def decide(rest):
            weights = rest.task.weights.clone()
            fold = rest.inside.nonzero()[:, 0]
            weights[fold] = 1.0
            return {"cheat": TrainingWeights(weights)}

        return decide

    assert promises(20, cheat)["cheat"] >= 10


def test_wrong_labels_that_are_dropped_are_a_gain():
    """Four in ten labels of one class are wrong; what is called wrong goes."""
    gains = 0
    for seed in range(8):
        task = classes(300, seed, spread=0.5)
        lost = (task.labels == 0) & (drawn(300, seed) < 0.42)
        given = torch.where(lost, 1, task.labels)
        noisy = replace(task, labels=given)
        trust = torch.where(lost, 0.05, 1.0).double()

        def decide(rest, lost=lost):
            return {"wrong": TrainingWeights(torch.where(lost, 0.0, rest.task.weights))}

        problem = Problem(noisy, 3.0, torch.arange(300), robust=False)
        found, blind = (forecast(problem, decide, weight) for weight in (trust, torch.ones(300)))
        gains += found.change("wrong").mean < 0
        # Wrong labels that count in full speak against the better head.
        assert found.change("wrong").mean < blind.change("wrong").mean
    assert gains >= 7


@pytest.mark.parametrize("rule", [COVERAGE, EASY])
def test_the_forecast_is_the_same_each_time(rule):
    task = classes(90, 3)
    problem = Problem(task, 3.0, torch.arange(90), robust=False)
    one, other = (forecast(problem, by_rules(task, 0.6, (rule,)), torch.ones(90), seed=2) for _ in range(2))
    assert torch.equal(one.wrong[rule], other.wrong[rule])
