"""Search for a minimum: it is found where it is known, and the search ends where there is none."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from divacli.ridge.fit.descent import _bent, minimiser


def ones(p: int) -> torch.Tensor:
    return torch.ones(p, dtype=torch.float64)


class Counted:
    """A function that counts how often it is called."""

    def __init__(self, function) -> None:
        self.function, self.calls = function, 0

    def __call__(self, point: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        assert bool(torch.isfinite(point).all())
        return self.function(point)


def rosenbrock(x: torch.Tensor) -> torch.Tensor:
    return (100 * (x[1:] - x[:-1].square()).square() + (1 - x[:-1]).square()).sum()


def quadratic(p: int, condition: float, seed: int = 0):
    """A quadratic function, and where its minimum is."""
    generator = torch.Generator().manual_seed(seed)
    turned, _ = torch.linalg.qr(torch.randn(p, p, generator=generator, dtype=torch.float64))
    scales = torch.logspace(0, torch.tensor(condition).log10().item(), p, dtype=torch.float64)
    matrix = turned @ scales.diag() @ turned.T
    target = torch.randn(p, generator=generator, dtype=torch.float64)
    return (lambda x: (x - target) @ matrix @ (x - target) / 2), target


@pytest.mark.parametrize(("p", "condition"), [(1, 1.0), (5, 10.0), (30, 1e4)])
@pytest.mark.parametrize("memory", [3, 20])
def test_the_minimum_of_a_quadratic_function_is_found(p, condition, memory):
    function, target = quadratic(p, condition)
    found = minimiser(function, torch.zeros(p).double(), ones(p), memory=memory, most_steps=2000)
    assert float((found - target).abs().max()) < 1e-5


def test_a_known_curvature_takes_one_step():
    scales = torch.tensor([1e-3, 1.0, 1e6], dtype=torch.float64)
    target = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64)
    counted = Counted(lambda x: (scales * (x - target).square()).sum() / 2)
    found = minimiser(counted, torch.zeros(3).double(), scales)
    torch.testing.assert_close(found, target)
    assert counted.calls <= 4


@pytest.mark.parametrize("p", [2, 3, 10])
def test_the_minimum_in_a_bent_valley_is_found(p):
    start = torch.where(torch.arange(p) % 2 == 0, -1.2, 1.0).double()
    counted = Counted(rosenbrock)
    found = minimiser(counted, start, 100 * ones(p))
    assert float(rosenbrock(found)) < 1e-12
    assert counted.calls < 200


def test_memory_of_the_curvature_saves_steps():
    function, target = quadratic(20, 1e3)

    def calls(memory: int) -> int:
        counted = Counted(function)
        found = minimiser(counted, torch.zeros(20).double(), ones(20), memory=memory, most_steps=5000)
        assert float((found - target).abs().max()) < 1e-4
        return counted.calls

    assert calls(20) < calls(3)


def test_at_the_minimum_the_search_stays():
    function, target = quadratic(4, 10.0)
    counted = Counted(function)
    assert torch.equal(minimiser(counted, target, ones(4)), target)
    assert counted.calls <= 3


def test_a_flat_function_has_its_minimum_where_the_search_begins():
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert torch.equal(minimiser(lambda x: 0 * x.sum() + 5, start, ones(2)), start)


def test_a_kink_ends_the_search_near_the_minimum():
    counted = Counted(lambda x: x[0].abs() + 10 * x[1].square())
    found = minimiser(counted, torch.tensor([1.7, 1.0], dtype=torch.float64), ones(2))
    assert float(found[0].abs() + 10 * found[1].square()) < 0.3
    assert counted.calls < 200 * 20


def test_a_step_that_leads_uphill_is_shortened():
    # The assumed curvature is a thousandth of the real one, so a first step goes far beyond the minimum.
    counted = Counted(lambda x: x.square().sum() / 2)
    found = minimiser(counted, 3 * ones(2), 1e-3 * ones(2))
    assert float(found.abs().max()) < 1e-6
    assert counted.calls > 5


def test_a_value_that_is_no_number_is_stepped_back_from():
    counted = Counted(lambda x: (x - x.log()).sum())  # below 0 there is none
    found = minimiser(counted, 5 * ones(3), 0.04 * ones(3))
    torch.testing.assert_close(found, ones(3), rtol=0, atol=1e-5)


def test_a_function_without_a_minimum_ends_at_the_most_steps():
    for most in (0, 1, 7):
        counted = Counted(lambda x: -x.sum())
        found = minimiser(counted, torch.zeros(2).double(), ones(2), most_steps=most)
        # The curvature is never known better than assumed: a slope that stays says nothing of it.
        torch.testing.assert_close(found, most * ones(2))
        assert counted.calls == most + 1


def test_no_step_raises_the_function():
    start = torch.tensor([-1.2, 1.0, -0.5], dtype=torch.float64)
    values = [float(rosenbrock(minimiser(rosenbrock, start, ones(3), most_steps=most))) for most in range(40)]
    assert values[0] == float(rosenbrock(start))
    assert all(later < value for value, later in pairwise(values[:11]))
    assert all(later <= value for value, later in pairwise(values))


def test_the_tolerance_ends_the_search_early():
    function, _ = quadratic(10, 100.0)
    calls = []
    for tolerance in (1e-14, 1e-2, 1e9):
        counted = Counted(function)
        minimiser(counted, torch.zeros(10).double(), ones(10), tolerance=tolerance)
        calls.append(counted.calls)
    assert calls[0] > calls[1] > calls[2]
    # Two steps in a row, not one.
    counted = Counted(lambda x: x.square().sum() / 2)
    minimiser(counted, 8 * ones(1), 2 * ones(1), tolerance=1e9)
    assert counted.calls == 3


def test_the_direction_is_that_of_bfgs():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    steps = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    slope = torch.randn(5, generator=generator, dtype=torch.float64)
    moves = [(step, (matrix @ matrix.T + torch.eye(5)) @ step) for step in steps]
    inverse = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    assert torch.equal(_bent(slope, [], inverse), inverse * slope)
    # The inverse of the second derivatives, every move put in as by Nocedal and Wright, equation 7.16.
    step, change = moves[-1]
    found = inverse.diag() * (step @ change) / (change @ (inverse * change))
    for step, change in moves:
        project = torch.eye(5, dtype=torch.float64) - torch.outer(change, step) / (step @ change)
        found = project.T @ found @ project + torch.outer(step, step) / (step @ change)
    torch.testing.assert_close(_bent(slope, moves, inverse), found @ slope)


def test_the_search_ends_where_no_step_lowers_the_function():
    start = torch.tensor([0.5, 0.0], dtype=torch.float64)
    counted = Counted(lambda x: (x.detach() != start).double().sum() + 1e-3 * x.sum())
    assert torch.equal(minimiser(counted, start, ones(2)), start)
    assert counted.calls == 21


def test_neither_autograd_nor_the_start_is_touched():
    start = torch.tensor([3.0, 4.0], dtype=torch.float64)
    with torch.no_grad():
        found = minimiser(lambda x: x.square().sum(), start, ones(2))
    assert not found.requires_grad
    assert start.tolist() == [3.0, 4.0]
    assert not start.requires_grad
    assert float(found.abs().max()) < 1e-6
