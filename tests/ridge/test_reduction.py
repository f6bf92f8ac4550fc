"""The whole pool in, the harmful out: a merged task says the same as one that was made in one piece."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from divacli.ridge import (
    LinearOutput,
    RidgeTask,
    Scaling,
    decompose,
    leave_one_out,
    loo_derivative,
    ridge_path,
)
from divacli.ridge.leave_out.losses import SquaredLoss
from divacli.ridge.pool.extension import CHOICE_FACTOR
from divacli.ridge.pool.reduction import Reduction, merged


@pytest.fixture
def tasks():
    """A core and a pool with weights of its own, in the coordinates of one another."""

    def make(n=14, m=10, d=4, k=3, *, offset=False, groups=False):
        generator = torch.Generator().manual_seed(3)
        raw = torch.randn(n + m, d, generator=generator, dtype=torch.float64) + 0.4
        labels = torch.arange(n + m) % k
        raw[torch.arange(n + m), labels] += 1
        # Members with the label of another class.
        labels[n : n + 3] = (labels[n : n + 3] + 1) % k
        weights = 0.5 + torch.rand(n + m, generator=generator, dtype=torch.float64)
        mask = torch.rand(n, generator=generator, dtype=torch.float64)
        head = torch.randn(k, d, generator=generator, dtype=torch.float64) * 0.2, torch.zeros(k).double()
        more = {"dtype": torch.float64}
        if offset:
            more["scaling"] = Scaling("unit")
        core = RidgeTask(
            raw[:n],
            labels[:n],
            k,
            weights[:n],
            validation_mask=mask,
            offset=LinearOutput(raw[:n], *head) if offset else None,
            groups=torch.arange(n) // 2 * 7 if groups else None,
            **more,
        )
        pool = RidgeTask(
            raw[n:],
            labels[n:],
            k,
            weights[n:],
            validation_mask=torch.zeros(m).double(),
            offset=LinearOutput(raw[n:], *head) if offset else None,
            **more,
        )
        whole = replace(
            core,
            features=raw,
            labels=labels,
            weights=weights,
            validation_mask=torch.cat([mask, torch.zeros(m).double()]),
            offset=LinearOutput(raw, *head) if offset else None,
            groups=torch.cat([torch.arange(n) // 2 * 7, 1000 + torch.arange(m)]) if groups else None,
        )
        return core, pool, whole

    return make


VARIANTS = pytest.mark.parametrize(
    "variant", [{}, {"offset": True}, {"groups": True}, {"offset": True, "groups": True}], ids=str
)


@VARIANTS
def test_a_merged_task_is_the_task_in_one_piece(variant, tasks, relative_error):
    core, pool, whole = tasks(**variant)
    both = merged(core, pool, pool.weights)
    found, expected = (
        loo_derivative(task, decompose(task).fit(0.6), SquaredLoss()) for task in (both, whole)
    )
    assert relative_error(found.derivative, expected.derivative) < 1e-10
    assert len(both) == 24
    if "groups" in variant:
        assert torch.equal(both.groups[:14], core.groups)
        assert len(set(both.groups[14:].tolist()) | set(core.groups.tolist())) == 10 + 7


def test_a_pool_of_weight_zero_leaves_the_core_as_it_is(tasks, relative_error):
    core, pool, _ = tasks()
    both = merged(core, pool, torch.zeros(10).double())
    alone = leave_one_out(core, decompose(core).fit(0.6), SquaredLoss())
    found = leave_one_out(both, decompose(both).fit(0.6), SquaredLoss())
    assert relative_error(found.loss[:14], alone.loss) < 1e-10


@VARIANTS
@pytest.mark.parametrize("ridge", [None, 0.6])
def test_candidates_have_the_derivative_of_the_merged_task(ridge, variant, tasks, relative_error):
    core, pool, whole = tasks(**variant)
    walk = Reduction(core, pool, torch.arange(14), ridge=ridge, robust=False)
    candidates = walk.candidates()
    spectrum = decompose(whole)
    path = ridge_path(whole, spectrum)
    optimum = float(path.ridges[path.best])
    at = CHOICE_FACTOR * optimum if ridge is None else ridge
    expected = loo_derivative(whole, spectrum.fit(at), SquaredLoss()).derivative[14:]
    assert relative_error(candidates.derivative, expected) < 1e-10
    if ridge is None:
        elsewhere = loo_derivative(whole, spectrum.fit(optimum), SquaredLoss()).derivative[14:]
        assert relative_error(candidates.derivative, elsewhere) > 0.01
    assert ((candidates.trust >= 0) & (candidates.trust <= 1)).all()
    assert ((candidates.confidence > 1 / 3) & (candidates.confidence <= 1)).all()
    assert 0 <= candidates.noise <= 1


def test_state_is_the_masked_mean_over_the_core(tasks):
    core, pool, whole = tasks()
    walk = Reduction(core, pool, torch.arange(14), ridge=0.6, robust=False)
    found = leave_one_out(whole, decompose(whole).fit(0.6), SquaredLoss())
    share = core.validation_mask / core.validation_mask.sum()
    assert walk.state.ridge == 0.6
    assert walk.state.loss == pytest.approx(float(share @ found.loss[:14]), rel=1e-10)
    wrong = (found.predicted != whole.labels)[:14].double()
    assert walk.state.error == pytest.approx(float(share @ wrong))


def test_those_of_negative_derivative_stay_and_the_others_go(tasks):
    core, pool, _ = tasks()
    walk = Reduction(core, pool, torch.arange(14), ridge=0.6, robust=False)
    candidates = walk.candidates()
    everyone = torch.ones(10, dtype=torch.bool)
    useful = [row for row in candidates.derivative.argsort().tolist() if candidates.derivative[row] < 0]
    assert 2 < len(useful) < 10
    assert walk.choose(candidates, everyone, 10).tolist() == useful
    assert walk.choose(candidates, everyone, 2).tolist() == useful[:2]
    without = everyone.clone()
    without[useful[0]] = False
    chosen = walk.choose(candidates, without, 10)
    assert chosen.tolist() == useful[1:]
    walk.add(chosen)
    kept = torch.zeros(10).double()
    kept[chosen] = pool.weights[chosen]
    reduced = merged(core, pool, kept)
    found = leave_one_out(reduced, decompose(reduced).fit(0.6), SquaredLoss())
    share = core.validation_mask / core.validation_mask.sum()
    assert walk.state.loss == pytest.approx(float(share @ found.loss[:14]), rel=1e-10)
    # All over again: a second choice starts from the weights that the pool came with.
    walk.add(torch.arange(10))
    assert walk.state.loss == pytest.approx(
        Reduction(core, pool, torch.arange(14), ridge=0.6, robust=False).state.loss, rel=1e-12
    )


def test_the_robust_loss_is_another_one(tasks, relative_error):
    core, pool, _ = tasks()
    found = [
        Reduction(core, pool, torch.arange(14), ridge=0.6, robust=robust).candidates().derivative
        for robust in (False, True)
    ]
    assert relative_error(*found) > 0.1
