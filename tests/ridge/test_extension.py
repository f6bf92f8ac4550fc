"""Choosing from a pool, against merged tasks, soft-label normal equations and a greedy choice by refits."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from divacli.errors import SolveError
from divacli.ridge import (
    Extension,
    LinearOutput,
    RidgeTask,
    RobustCrossEntropy,
    Scaling,
    SquaredLoss,
    calibrate,
    decompose,
    leave_one_out,
    loo_derivative,
    loo_predictions,
    ridge_path,
    validation_derivative,
)
from divacli.ridge.leave_out.derivative import ValidationSums
from divacli.ridge.pool import extension as module
from divacli.ridge.pool.extension import CHOICE_FACTOR, one_by_one, trusted

RIDGE = 0.6
K = 3


def sets(offset=False, groups=False, intercept=True, n=30, m=18, d=4, **options):
    """Core, pool and validation set of three classes; a third of the pool's labels is wrong."""
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn(n + m + 20, d, generator=generator, dtype=torch.float64) + 0.4
    labels = torch.arange(len(raw)) % K
    raw[torch.arange(len(raw)), labels] += 1.2
    labels[n : n + m : 3] = (labels[n : n + m : 3] + 1) % K
    weights, mask = (0.5 + torch.rand(len(raw), generator=generator, dtype=torch.float64) for _ in range(2))
    weights[2], mask[4], mask[n + m + 1] = 0.0, 0.0, 0.0
    head = 0.3 * torch.randn(K, d, generator=generator, dtype=torch.float64), torch.tensor([0.1, 0.0, -0.2])
    settings = {"dtype": torch.float64, "intercept": intercept}
    settings |= {"scaling": Scaling("unit")} if offset else {}

    def part(rows, mask=None, **more):
        return RidgeTask(
            raw[rows],
            labels[rows],
            K,
            weights[rows],
            validation_mask=torch.zeros(len(raw[rows])).double() if mask is None else mask[rows],
            offset=LinearOutput(raw[rows], *head) if offset else None,
            **{**settings, **options, **more},
        )

    core_groups = {"groups": torch.arange(n) // 2 * 5} if groups else {}
    return part(slice(n), mask, **core_groups), part(slice(n, n + m)), part(slice(n + m, None), mask)


def extension(core, pool, validation=None, **options):
    judged = core if validation is None else validation
    order = torch.randperm(len(judged), generator=torch.Generator().manual_seed(1))
    return Extension(core, pool, order, validation=validation, **options)


def together(core, pool, weights):
    """Both sets in one task, concatenated here; the pool does not count."""
    offset = None if core.offset is None else torch.cat([core.offset[:], pool.offset[:]])
    groups = None if core.groups is None else torch.cat([core.groups, 10_000 + torch.arange(len(pool))])
    return replace(
        core,
        features=torch.cat([core.features, pool.features]),
        labels=torch.cat([core.labels, pool.labels]),
        weights=torch.cat([core.weights, weights]),
        validation_mask=torch.cat([core.validation_mask, torch.zeros(len(pool)).double()]),
        offset=offset,
        groups=groups,
    )


def rows_of(task, rows):
    """Some rows of a task, in this order."""
    parts = {name: getattr(task, name)[rows] for name in ("features", "labels", "weights", "validation_mask")}
    return replace(task, **parts, offset=None if task.offset is None else task.offset[rows])


def design(task):
    ones = torch.ones(len(task), int(task.intercept), dtype=torch.float64)
    return torch.cat([task.scaling(task.features), ones], dim=1)


def labels_of(task):
    return functional.one_hot(task.labels, K).double()


def base_of(task):
    return torch.zeros(len(task), K).double() if task.offset is None else task.offset[:]


def normal_equations(task, ridge, weights=None, targets=None):
    """The penalised Gram matrix of the design and the coefficients; the bias is not penalised."""
    weights = task.weights if weights is None else weights
    targets = labels_of(task) - base_of(task) if targets is None else targets
    rows = design(task)
    penalty = torch.zeros(rows.shape[1], dtype=torch.float64)
    penalty[: task.n_features] = ridge
    gram = rows.T @ (weights[:, None] * rows) + penalty.diag()
    return gram, torch.linalg.solve(gram, rows.T @ (weights[:, None] * targets))


def refitted(task, ridge, targets=None):
    """Each sample's prediction by a refit without it and its group."""
    groups = torch.arange(len(task)) if task.groups is None else task.groups
    coefs = [
        normal_equations(task, ridge, torch.where(groups == groups[i], 0.0, task.weights), targets)[1]
        for i in range(len(task))
    ]
    return base_of(task) + torch.einsum("ia,iak->ik", design(task), torch.stack(coefs))


def optimum(core, whole=None):
    path = ridge_path(core, decompose(core if whole is None else whole))
    return float(path.ridges[path.best])


def temperature(found, judged):
    """The calibration of predictions, over the rows that count."""
    rows = judged.validation_mask > 0
    mask = judged.validation_mask[rows]
    return calibrate(found[rows], judged.labels[rows], mask, bias=False, noise=False)


VARIANTS = {
    "plain": {},
    "groups": {"groups": True},
    "trained head": {"offset": True},
    "trained head, groups": {"offset": True, "groups": True},
    "no intercept": {"intercept": False},
    "n < d": {"n": 24, "d": 30},
}


@pytest.fixture(params=list(VARIANTS))
def given(request):
    """Core, pool and validation set of every kind of problem."""
    return sets(**VARIANTS[request.param])


@pytest.fixture(params=[RIDGE, None], ids=["ridge", "auto"])
def ridge(request):
    return request.param


@pytest.mark.parametrize("robust", [False, True], ids=["squared", "robust"])
def test_the_derivative_is_that_of_the_merged_task_at_the_choice_ridge(given, ridge, robust, relative_error):
    core, pool, _ = given
    found = extension(core, pool, ridge=ridge, robust=robust).candidates().derivative
    both = together(core, pool, torch.zeros(len(pool)).double())
    at = CHOICE_FACTOR * optimum(core) if ridge is None else ridge
    fit = decompose(both).fit(at)
    loss = temperature(refitted(core, at), core) if robust else SquaredLoss()
    expected = loo_derivative(both, fit, loss).derivative[len(core) :]
    # Where the optimum is the largest ridge, robust derivatives are differences of nearly equal numbers.
    assert relative_error(found, expected) < (1e-4 if robust else 1e-10)
    elsewhere = loo_derivative(both, decompose(both).fit(1.5 * at), loss).derivative[len(core) :]
    assert relative_error(found, elsewhere) > 0.01


@pytest.mark.parametrize("robust", [False, True], ids=["squared", "robust"])
def test_a_validation_set_takes_the_place_of_the_core(given, ridge, robust, relative_error):
    core, pool, held_out = given
    found = extension(core, pool, held_out, ridge=ridge, robust=robust)
    both = together(core, pool, torch.zeros(len(pool)).double())
    at = CHOICE_FACTOR * optimum(core) if ridge is None else ridge
    outputs = base_of(held_out) + design(held_out) @ normal_equations(core, at)[1]
    loss = temperature(outputs, held_out) if robust else SquaredLoss()
    expected = validation_derivative(both, held_out, decompose(both).fit(at), loss)[0][len(core) :]
    assert relative_error(found.candidates().derivative, expected) < (1e-4 if robust else 1e-5)
    own = extension(core, pool, ridge=ridge, robust=robust).candidates().derivative
    assert relative_error(found.candidates().derivative, own) > 0.1


@pytest.mark.parametrize("validated", [False, True], ids=["left out", "validation"])
def test_what_is_said_of_a_sample_is_said_at_the_optimum(given, ridge, validated):
    core, pool, held_out = given
    walk = extension(core, pool, held_out if validated else None, ridge=ridge)
    at = optimum(core) if ridge is None else ridge
    coef = normal_equations(core, at)[1]
    outputs = refitted(core, at)
    if validated:
        outputs = base_of(held_out) + design(held_out) @ coef
    judged = held_out if validated else core
    t = temperature(outputs, judged).inverse_temperature
    probabilities = (t * (base_of(pool) + design(pool) @ coef)).softmax(dim=1)
    found = walk.candidates()
    likelihood = probabilities[torch.arange(len(pool)), pool.labels]
    trust, noise = trusted(likelihood, K)
    assert torch.equal(found.predicted, probabilities.argmax(dim=1))
    torch.testing.assert_close(found.confidence, probabilities.max(dim=1).values, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.trust, trust, rtol=1e-6, atol=1e-6)
    assert found.noise == pytest.approx(noise, abs=1e-6)
    share = judged.validation_mask / judged.validation_mask.sum()
    losses = (outputs - labels_of(judged)).square().sum(dim=1)
    wrong = (outputs.argmax(dim=1) != judged.labels).double()
    assert walk.state.ridge == pytest.approx(at, rel=1e-12)
    assert walk.state.loss == pytest.approx(float(share @ losses), rel=1e-10)
    assert walk.state.error == pytest.approx(float(share @ wrong), rel=1e-12)


@pytest.mark.parametrize("validated", [False, True], ids=["left out", "validation"])
def test_added_samples_are_as_if_they_had_stood_in_the_core(given, ridge, validated, relative_error):
    core, pool, held_out = given
    if not validated:
        held_out = None
    walk = extension(core, pool, held_out, ridge=ridge)
    before = walk.state
    chosen = torch.tensor([7, 2, 11])
    walk.add(chosen[:2])
    walk.add(chosen[2:])
    left = torch.tensor([row for row in range(len(pool)) if row not in chosen])
    added = rows_of(pool, chosen)
    fresh = extension(together(core, added, added.weights), rows_of(pool, left), held_out, ridge=ridge)
    found, expected = walk.candidates(), fresh.candidates()
    assert relative_error(found.derivative[left], expected.derivative) < 1e-9
    torch.testing.assert_close(found.confidence[left], expected.confidence, rtol=1e-7, atol=1e-7)
    assert walk.state.ridge == pytest.approx(fresh.state.ridge, rel=1e-10)
    assert walk.state.loss == pytest.approx(fresh.state.loss, rel=1e-10)
    assert walk.state.error == fresh.state.error
    assert walk.state.loss != pytest.approx(before.loss, rel=1e-4)


def test_an_unlabelled_sample_has_the_expected_derivative(given, ridge, relative_error):
    core, pool, _ = given
    found = extension(core, pool, ridge=ridge, labelled=False).candidates()
    versions, shares = [], []
    for label in range(K):
        labelled = replace(pool, labels=torch.full_like(pool.labels, label))
        walk = extension(core, labelled, ridge=ridge)
        versions.append(walk.candidates().derivative)
        at = optimum(core) if ridge is None else ridge
        t = temperature(loo_predictions(core, decompose(core).fit(at), torch.arange(len(core))), core)
        outputs = base_of(pool) + design(pool) @ normal_equations(core, at)[1]
        shares.append(t.probabilities(outputs)[:, label])
    shares, versions = torch.stack(shares), torch.stack(versions)
    assert relative_error(found.derivative, (shares * versions).sum(dim=0)) < 1e-7
    assert relative_error(found.derivative, versions.mean(dim=0)) > 0.1
    likeliest = versions.gather(0, found.predicted[None])[0]
    assert relative_error(found.derivative, likeliest) > 0.01
    assert torch.equal(found.trust, torch.ones(len(pool)).double())
    assert found.noise == 0
    unseen = extension(core, replace(pool, labels=pool.labels * 0), ridge=ridge, labelled=False).candidates()
    torch.testing.assert_close(unseen.derivative, found.derivative, rtol=0, atol=1e-13)


def test_an_unlabelled_sample_is_trained_on_with_its_expected_label(given):
    core, pool, _ = given
    walk = extension(core, pool, ridge=RIDGE, labelled=False)
    chosen = torch.tensor([9, 3, 4, 16])
    t = temperature(loo_predictions(core, decompose(core).fit(RIDGE), torch.arange(len(core))), core)
    added = rows_of(pool, chosen)
    outputs = base_of(added) + design(added) @ normal_equations(core, RIDGE)[1]
    soft = t.probabilities(outputs)
    walk.add(chosen)
    both = together(core, added, added.weights)
    targets = torch.cat([labels_of(core), soft]) - base_of(both)
    share = core.validation_mask / core.validation_mask.sum()
    results = {}
    for name, given_targets in (("soft", targets), ("hard", None)):
        left_out = refitted(both, RIDGE, given_targets)[: len(core)]
        results[name] = float(share @ (left_out - labels_of(core)).square().sum(dim=1))
    assert walk.state.loss == pytest.approx(results["soft"], rel=1e-8)
    assert walk.state.loss != pytest.approx(results["hard"], rel=1e-4)


def linearised(loss, validation_mask, outputs, labels):
    """`v dl/df` at other predictions, by a curvature that is the same in all directions."""
    gradient, curvature = loss.gradient(outputs, labels), loss.curvature(outputs)[:, None]
    return lambda now: validation_mask[:, None] * (gradient + curvature * (now - outputs))


def greedy(core, pool, size, validation=None, loss=None, turns=True):
    """One choice after the other from the shortlist of the useful, each by normal equations with the former.

    Of a core that is left out, the systems `S` and the sums `M` stay as they are at first.
    """
    loss = loss or SquaredLoss()
    rows = design(core)
    gram, coef = normal_equations(core, RIDGE)
    targets = labels_of(core) - base_of(core)
    if validation is None:
        groups = torch.arange(len(core)) if core.groups is None else core.groups
        inner = (groups == groups[:, None]).double() * (rows @ torch.linalg.solve(gram, rows.T))
        left_out = torch.linalg.inv(torch.eye(len(core)).double() - inner * core.weights)
        judged, outputs = core, labels_of(core) - left_out @ (targets - rows @ coef)
        pull = rows.T @ left_out.T
    else:
        judged, outputs = validation, base_of(validation) + design(validation) @ coef
        pull = design(validation).T
    gradient = linearised(loss, judged.validation_mask, outputs, labels_of(judged))
    m = torch.zeros_like(gram)
    if validation is None:
        coupled = (left_out.T @ -gradient(outputs)) @ (labels_of(core) - outputs).T
        m = rows.T @ ((groups == groups[:, None]).double() * coupled * core.weights) @ rows

    values, chosen = [], []
    while len(chosen) < min(size, len(pool)):
        added = rows_of(pool, torch.tensor(chosen, dtype=torch.int64))
        gram, coef = normal_equations(together(core, added, added.weights), RIDGE)
        now = outputs
        if turns and validation is None:
            now = labels_of(core) - left_out @ (targets - rows @ coef)
        elif turns:
            now = base_of(validation) + design(validation) @ coef
        solved = torch.linalg.solve(gram, design(pool).T).T
        e = labels_of(pool) - base_of(pool) - design(pool) @ coef
        value = (e * (solved @ pull @ gradient(now))).sum(dim=1)
        value -= torch.einsum("ia,ab,ib->i", solved, m, solved)
        values.append(value.clone())
        value[(values[0] >= 0) | torch.isin(torch.arange(len(pool)), torch.tensor(chosen))] = torch.inf
        if not float(value.min()) < 0:
            break
        chosen.append(int(value.argmin()))
    return chosen, values[0]


GREEDY = ["plain", "groups", "trained head", "no intercept", "n < d"]


@pytest.mark.parametrize("variant", GREEDY)
@pytest.mark.parametrize("robust", [False, True], ids=["squared", "robust"])
@pytest.mark.parametrize("validated", [False, True], ids=["left out", "validation"])
def test_a_batch_is_chosen_as_by_refits_in_between(variant, validated, robust):
    core, pool, held_out = sets(**VARIANTS[variant])
    loss = SquaredLoss()
    if robust:
        outputs = base_of(held_out) + design(held_out) @ normal_equations(core, RIDGE)[1]
        loss = temperature(outputs, held_out) if validated else temperature(refitted(core, RIDGE), core)
    held_out = held_out if validated else None
    walk = extension(core, pool, held_out, ridge=RIDGE, robust=robust)
    everyone = torch.ones(len(pool), dtype=torch.bool)
    candidates = walk.candidates()
    expected, first = greedy(core, pool, 100, held_out, loss)
    torch.testing.assert_close(candidates.derivative, first, rtol=1e-7, atol=1e-7)
    assert 2 < len(expected) < len(pool)
    assert walk.choose(candidates, everyone, 100).tolist() == expected
    assert walk.choose(candidates, everyone, 3).tolist() == expected[:3]
    # Negative controls: all at once, and with gradients that stay.
    assert candidates.derivative.argsort()[: len(expected)].tolist() != expected
    assert robust or greedy(core, pool, 100, held_out, loss, turns=False)[0] != expected
    # A choice changes nothing by itself.
    torch.testing.assert_close(walk.candidates().derivative, candidates.derivative, rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["plain", "trained head", "no intercept"])
def test_for_a_validation_set_it_is_what_single_steps_with_refits_choose(variant):
    core, pool, held_out = sets(**VARIANTS[variant])
    everyone = torch.ones(len(pool), dtype=torch.bool)
    walk = extension(core, pool, held_out, ridge=RIDGE)
    candidates = walk.candidates()
    chosen = walk.choose(candidates, everyone, 6).tolist()
    single, free = [], candidates.derivative < 0
    for _ in range(6):
        single += walk.choose(walk.candidates(), free, 1).tolist()
        walk.add(torch.tensor(single[-1:]))
        free[single] = False
    assert chosen == single


@pytest.mark.parametrize("loss", [SquaredLoss(), RobustCrossEntropy(3.0, torch.zeros(K).double(), 0.0)])
def test_the_curvature_is_the_mean_over_directions(loss):
    outputs, labels = torch.randn(5, K, generator=torch.Generator().manual_seed(0)).double(), torch.eye(K)[:1]
    for row, found in zip(outputs, loss.curvature(outputs), strict=True):
        second = torch.autograd.functional.hessian(lambda f: loss.value(f[None], labels.double())[0], row)
        directions = K if isinstance(loss, SquaredLoss) else K - 1  # a softmax knows no common shift
        assert float(found) == pytest.approx(float(second.trace()) / directions, rel=1e-12)


def test_the_weight_that_a_sample_would_enter_with_counts():
    core, pool, _ = sets()
    everyone = torch.ones(len(pool), dtype=torch.bool)
    chosen = []
    for factor in (1, 50):
        heavy = replace(pool, weights=factor * pool.weights)
        walk = extension(core, heavy, ridge=RIDGE)
        chosen.append(walk.choose(walk.candidates(), everyone, 100).tolist())
        assert chosen[-1] == greedy(core, heavy, 100)[0]
    assert chosen[0][0] == chosen[1][0]
    assert len(chosen[0]) > len(chosen[1])


def test_only_eligible_samples_of_negative_derivative_are_chosen():
    core, pool, _ = sets()
    walk = extension(core, pool, ridge=RIDGE)
    candidates = walk.candidates()
    everyone = torch.ones(len(pool), dtype=torch.bool)
    first = walk.choose(candidates, everyone, 100)
    assert bool((candidates.derivative[first] < 0).all())
    without = everyone.clone()
    without[first[0]] = False
    found = walk.choose(candidates, without, 100)
    assert int(first[0]) not in found.tolist()
    assert len(found) > 0
    for eligible in (torch.zeros_like(everyone), candidates.derivative > 0):
        nobody = walk.choose(candidates, eligible, 5)
        assert nobody.shape == (0,)
        assert nobody.dtype == torch.int64


@pytest.mark.parametrize("validated", [False, True], ids=["left out", "validation"])
def test_fifty_copies_of_one_picture_are_not_chosen_fifty_times(validated):
    """The best candidate is there fifty times: a batch holds about as many as single steps with refits."""
    core, pool, held_out = sets(m=60)
    held_out = held_out if validated else None
    pool = replace(pool, weights=torch.ones(60).double())
    best = int(extension(core, pool, held_out, ridge=6.0).candidates().derivative.argmin())
    others = torch.tensor([row for row in range(60) if row != best])
    pool = rows_of(pool, torch.cat([torch.full((50,), best), others]))
    everyone = torch.ones(len(pool), dtype=torch.bool)
    walk = extension(core, pool, held_out, ridge=6.0)
    candidates = walk.candidates()
    assert int((candidates.derivative.argsort()[:40] < 50).sum()) == 40
    chosen = walk.choose(candidates, everyone, 10)
    assert len(chosen) == 10
    assert int(chosen[0]) < 50
    for _ in range(10):
        one = walk.choose(walk.candidates(), everyone, 1)
        walk.add(one)
        everyone[one] = False
    refitted_copies = int((~everyone[:50]).sum())
    assert abs(int((chosen < 50).sum()) - refitted_copies) <= 1
    assert refitted_copies <= 5


def test_a_long_shortlist_is_cut(monkeypatch):
    core, pool, _ = sets()
    walk = extension(core, pool, ridge=RIDGE)
    candidates = walk.candidates()
    everyone = torch.ones(len(pool), dtype=torch.bool)
    monkeypatch.setattr(module, "_SHORTEST", 1)
    monkeypatch.setattr(module, "_SHORTLIST", 2)
    chosen = walk.choose(candidates, everyone, 3)
    assert set(chosen.tolist()) <= set(candidates.derivative.argsort()[:6].tolist())
    assert torch.equal(walk.choose(candidates, everyone, 1), candidates.derivative.argmin()[None])


def test_a_choice_ends_where_nothing_helps():
    """Three orthogonal candidates, of which two help at first and the third would hurt."""
    phi, turning = torch.eye(3).double(), torch.zeros(3, 3).double()
    sums = ValidationSums(torch.tensor([[-1.0], [-2.0], [2.0]]).double())
    residuals, weights = torch.ones(3, 1).double(), torch.ones(3)
    assert one_by_one(phi, residuals, weights, sums, turning, 10).tolist() == [1, 0]
    assert torch.equal(residuals, torch.ones(3, 1).double())
    assert one_by_one(phi, residuals, weights, sums, turning, 1).tolist() == [1]
    assert one_by_one(phi, -residuals, weights, sums, turning, 10).tolist() == [2]
    assert one_by_one(phi, 0 * residuals, weights, sums, turning, 10).tolist() == []
    # Where the gradient turns soon, the second copy of a candidate hurts.
    twice = phi[[0, 0]]
    assert one_by_one(twice, residuals[:2], weights[:2], sums, turning, 10).tolist() == [0, 1]
    assert one_by_one(twice, residuals[:2], weights[:2], sums, 5 * torch.eye(3).double(), 10).tolist() == [0]


def everything(walk, size=6):
    candidates = walk.candidates()
    chosen = walk.choose(candidates, torch.ones(len(candidates.trust), dtype=torch.bool), size)
    walk.add(chosen)
    after = walk.candidates()
    numbers = [candidates.derivative, candidates.trust, candidates.confidence, after.derivative, after.trust]
    return chosen.tolist(), torch.cat(numbers), walk.state


@pytest.mark.parametrize("options", [{}, {"robust": True}, {"labelled": False}, {"validated": True}], ids=str)
@pytest.mark.parametrize("batch_rows", [1, 7])
def test_batches_of_any_size_give_the_same_answers(batch_rows, options, relative_error):
    given = dict(options)
    core, pool, held_out = sets(offset=True, groups=True)
    tasks = [core, pool] + [held_out] * given.pop("validated", False)
    chosen, numbers, state = everything(extension(*tasks, **given))
    small = [replace(task, batch_rows=batch_rows) for task in tasks]
    found_chosen, found, found_state = everything(extension(*small, **given))
    assert found_chosen == chosen
    assert relative_error(found, numbers) < 1e-7
    assert found_state.loss == pytest.approx(state.loss, rel=1e-9)
    single = [replace(task, dtype=torch.float32) for task in tasks]
    found_chosen, found, found_state = everything(extension(*single, **given))
    assert found_chosen == chosen
    assert 1e-12 < relative_error(found, numbers) < 1e-4
    assert found_state.loss == pytest.approx(state.loss, rel=1e-5)


def test_neither_the_cores_storage_nor_the_pools_matters(relative_error):
    core, pool, _ = sets(groups=True)
    order = torch.arange(len(core))
    expected = Extension(core, pool, order).candidates()
    stored = torch.randperm(len(core), generator=torch.Generator().manual_seed(0))
    turned = torch.randperm(len(pool), generator=torch.Generator().manual_seed(1))
    moved = replace(rows_of(core, stored), groups=core.groups[stored])
    found = Extension(moved, rows_of(pool, turned), stored.argsort()).candidates()
    assert relative_error(found.derivative, expected.derivative[turned]) < 1e-10
    torch.testing.assert_close(found.trust, expected.trust[turned], rtol=1e-7, atol=1e-7)


def test_groups_of_the_pool_and_its_mask_are_not_looked_at():
    core, pool, _ = sets()
    chosen, numbers, state = everything(extension(core, pool))
    strange = replace(pool, groups=torch.zeros(len(pool), dtype=torch.int64))
    strange = replace(strange, validation_mask=torch.ones(len(pool)).double())
    found_chosen, found, found_state = everything(extension(core, strange))
    assert found_chosen == chosen
    assert torch.equal(found, numbers)
    assert found_state == state


def test_the_loss_falls_by_about_what_the_derivative_says():
    """In first order: a sample of a small weight changes the summed loss by its derivative times that."""
    core, pool, _ = sets()
    pool = replace(pool, weights=torch.full((len(pool),), 1e-4).double())
    total = float(core.validation_mask.sum())
    for row in (0, 5, 9):
        walk = extension(core, pool, ridge=RIDGE)
        derivative, before = float(walk.candidates().derivative[row]), walk.state.loss
        walk.add(torch.tensor([row]))
        assert total * (walk.state.loss - before) / 1e-4 == pytest.approx(derivative, rel=1e-2)


def test_a_core_in_which_nothing_counts_is_refused(ridge):
    core, pool, held_out = sets()
    nothing = replace(core, validation_mask=torch.zeros(len(core)).double())
    with pytest.raises(SolveError, match="no sample counts"):
        extension(nothing, pool, ridge=ridge)
    with pytest.raises(SolveError, match="every sample weight is zero"):
        extension(replace(core, weights=0 * core.weights), pool, held_out, ridge=ridge)


def likelihoods(noise, m=4000, k=5, seed=0):
    """Probabilities that a calibrated fit gives to labels of which a share is drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (4 * torch.randn(m, k, generator=generator, dtype=torch.float64)).softmax(dim=1)
    labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    wrong = torch.rand(m, generator=generator) < noise
    labels = torch.where(wrong, torch.randint(0, k, (m,), generator=generator), labels)
    return probabilities[torch.arange(m), labels], wrong


def log_likelihood(likelihood, noise, k=5):
    return float(((1 - noise) * likelihood + noise / k).log().sum())


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.5, 0.8])
def test_the_share_of_wrong_labels_is_recovered(noise):
    likelihood, wrong = likelihoods(noise)
    trust, found = trusted(likelihood, 5)
    assert found == pytest.approx(noise, abs=0.03)
    # It is a probability: of the samples above and below a middle trust so many labels are right.
    for here in (trust <= trust.median(), trust > trust.median()):
        assert float((~wrong[here]).double().mean()) == pytest.approx(float(trust[here].mean()), abs=0.03)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_it_is_a_fixed_point_and_the_most_likely_one(noise):
    likelihood, _ = likelihoods(noise, 500)
    trust, found = trusted(likelihood, 5)
    clean = (1 - found) * likelihood
    torch.testing.assert_close(trust, clean / (clean + found / 5), rtol=0, atol=1e-6)
    assert found == pytest.approx(float(1 - trust.mean()), abs=1e-9)
    best = log_likelihood(likelihood, found)
    for other in torch.linspace(0.001, 0.999, 200).tolist():
        assert log_likelihood(likelihood, other) <= best + 1e-3


def test_the_likelihood_never_falls_on_the_way():
    likelihood, _ = likelihoods(0.3, 500)
    noise, values = 0.5, []
    for _ in range(30):
        values.append(log_likelihood(likelihood, noise))
        clean = (1 - noise) * likelihood
        noise = float(1 - (clean / (clean + noise / 5)).mean())
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(values))
    assert log_likelihood(likelihood, trusted(likelihood, 5)[1]) >= values[-1] - 1e-9


@pytest.mark.parametrize(("value", "noise"), [(1.0, 0.0), (0.0, 1.0), (0.2, 0.5)])
def test_labels_that_all_fit_alike(value, noise):
    """Certain, impossible, and no better than chance: nothing to be learnt of the last."""
    trust, found = trusted(torch.full((50,), value, dtype=torch.float64), 5)
    assert found == pytest.approx(noise, abs=1e-2)
    torch.testing.assert_close(trust, torch.full((50,), 1 - noise).double(), rtol=0, atol=1e-2)


def test_leaving_out_stays_over_the_core_when_samples_come():
    """The pool never counts: state is the masked mean over the core, whatever was added."""
    core, pool, _ = sets()
    walk = extension(core, pool, ridge=RIDGE)
    walk.add(torch.arange(len(pool)))
    both = together(core, pool, pool.weights)
    found = leave_one_out(both, decompose(both).fit(RIDGE), SquaredLoss())
    share = both.validation_mask / both.validation_mask.sum()
    assert walk.state.loss == pytest.approx(float(share @ found.loss), rel=1e-10)
