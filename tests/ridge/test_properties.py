"""Any ridge problem: answered as refits from scratch answer it, or refused where these have no answer either.

Shapes, weights, ridges, groups and degenerate features are drawn at random. The truth shares no code with
`divacli.ridge` but `Oracle`: least squares on the design `[sqrt(alpha) Z; sqrt(lambda) I]`, solved anew for
every sample that is left out.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from divacli.errors import SolveError
from divacli.ridge import (
    CrossEntropyLoss,
    LooResult,
    Loss,
    Oracle,
    RidgeFit,
    RidgeTask,
    Span,
    SquaredLoss,
    decompose,
    fit_scaling,
    in_eigenbasis,
    leave_one_out,
    loo_derivative,
    loo_loss,
    loo_predictions,
    ridge_path,
    validation_derivative,
)

EXAMPLES = int(os.environ.get("DIVA_EXAMPLES", "60"))
"""Problems drawn by each test."""

anything = settings(
    max_examples=EXAMPLES,
    derandomize="DIVA_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

KINDS = (
    "normal",
    "integers",
    "constant column",
    "equal columns",
    "zero rows",
    "rank one",
    "equal rows",
    "far away",
)
WEIGHTS = ("ones", "some zero", "integers", "wide", "few")
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Posed:
    """A problem by the numbers that it was drawn from.

    Attributes:
        n: Samples, and so are the others.
        d: Features.
        k: Classes.
        kind: What the features are like.
        weighing: What the weights are like.
        n_groups: 0 for none.
        exponent: The ridge is a power of ten; None for zero.
        scaling: Of the features.
        intercept: Whether one is fitted.
        robust: Whether the loss is the cross-entropy.
        seed: Of all numbers.
    """

    n: int = 12
    d: int = 4
    k: int = 3
    kind: str = "normal"
    weighing: str = "ones"
    n_groups: int = 0
    exponent: float | None = 0
    scaling: str = "none"
    intercept: bool = True
    robust: bool = False
    seed: int = 0

    @property
    def ridge(self) -> float:
        return 0.0 if self.exponent is None else 10.0**self.exponent

    @property
    def loss(self) -> Loss:
        return CrossEntropyLoss(3.0) if self.robust else SquaredLoss()

    @cached_property
    def task(self) -> RidgeTask:
        """The problem in float64, in batches of 7."""
        draw = torch.Generator().manual_seed(self.seed)

        def random(*size: int) -> Tensor:
            return torch.randn(*size, generator=draw, dtype=torch.float64)

        raw = random(self.n, self.d)
        match self.kind:
            case "integers":
                raw = raw.round()
            case "constant column":
                raw[:, -1] = 3.0
            case "equal columns":
                raw[:, -1] = raw[:, 0]
            case "zero rows":
                raw[::3] = 0.0
            case "rank one":
                raw = random(self.n, 1) @ random(1, self.d)
            case "equal rows":
                raw = raw[torch.arange(self.n) // 2]
            case "far away":
                raw = raw + 1000.0
        weights = torch.ones(self.n, dtype=torch.float64)
        match self.weighing:
            case "some zero":
                weights = torch.rand(self.n, generator=draw, dtype=torch.float64) + 0.1
                weights[1::3] = 0.0
            case "integers":
                weights = torch.arange(self.n, dtype=torch.float64) % 4
                weights[0] = 1.0
            case "wide":
                weights = 10.0 ** (2 * random(self.n))
            case "few":
                weights[2:] = 0.0
        mask = torch.rand(self.n, generator=draw, dtype=torch.float64)
        mask[::5] = 0.0
        mask[-1] = 1.0
        groups = None
        if self.n_groups:
            groups = torch.randint(self.n_groups, (self.n,), generator=draw) * 10**12 - 3
        return RidgeTask(
            raw,
            torch.randint(self.k, (self.n,), generator=draw),
            self.k,
            weights,
            mask,
            scaling=fit_scaling(self.scaling, [raw]),
            intercept=self.intercept,
            dtype=torch.float64,
            batch_rows=7,
            groups=groups,
        )

    @cached_property
    def z(self) -> Tensor:
        """(n, d) scaled features."""
        return self.task.scaling(torch.as_tensor(self.task.features))

    @cached_property
    def y(self) -> Tensor:
        """(n, k) one-hot labels."""
        return torch.eye(self.k, dtype=torch.float64)[self.task.labels]

    @cached_property
    def groups(self) -> Tensor:
        """(n,) group of each sample."""
        return torch.arange(self.n) if self.task.groups is None else self.task.groups

    def centre(self, rows: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean of rows, which an unpenalised intercept takes off; zeros without one."""
        return self.intercept * (weights @ rows) / weights.sum()

    def system(self, weights: Tensor) -> Tensor:
        """(n + d, d) rows of a least-squares problem, around the mean."""
        around = self.z - self.centre(self.z, weights)
        return torch.cat([weights.sqrt()[:, None] * around, self.ridge**0.5 * torch.eye(self.d).double()])

    def refitted(self, weights: Tensor) -> Tensor:
        """(n, k) predictions of all samples by a fit to these weights, not all zero."""
        mean, target = self.centre(self.z, weights), self.centre(self.y, weights)
        right = torch.cat([weights.sqrt()[:, None] * (self.y - target), torch.zeros(self.d, self.k).double()])
        coef = torch.linalg.lstsq(self.system(weights), right, driver="gelsd").solution
        return (self.z - mean) @ coef + target

    def left_out(self, row: int) -> Tensor:
        """(k,) prediction of a sample by a fit without it and its group."""
        weights = torch.where(self.groups == self.groups[row], 0.0, self.task.weights)
        if not self.intercept and not bool(weights.any()):
            return torch.zeros(self.k).double()  # as the penalty says
        return self.refitted(weights)[row]

    @cached_property
    def singular(self) -> float:
        """How near to singular the weighted normal equations are: 0 is singular, 1 the best conditioned."""
        if not bool(self.task.weights.any()):
            return 0.0
        values = torch.linalg.svdvals(self.system(self.task.weights))
        # Where nothing varies, rounding does.
        none = values[0] <= 1e-14 * float(self.z.abs().max()) * float(self.task.weights.sum()) ** 0.5
        return 0.0 if none else float((values[-1] / values[0]) ** 2)

    @cached_property
    def conditioned(self) -> float:
        """As `singular`, also for samples that are absent, and for digits that the mean takes."""
        smallest = float(torch.linalg.svdvals(self.system(self.task.weights))[-1]) ** 2
        length = float(self.z.square().sum(dim=1).max())
        return min(self.singular, smallest / length) if length else self.singular

    @cached_property
    def determined(self) -> float:
        """The smallest eigenvalue over all groups of `I - D^1/2 H D^1/2`: 0 where one is not predictable."""
        weights = self.task.weights
        left = torch.linalg.svd(self.system(weights), full_matrices=False)
        rows = left.U[: self.n, left.S / left.S[0] > 1e-13]
        if self.intercept:
            rows = torch.cat([rows, (weights / weights.sum()).sqrt()[:, None]], dim=1)
        return 1 - max(
            float(torch.linalg.matrix_norm(rows[self.groups == group], 2)) ** 2
            for group in self.groups.unique()
        )


posed = st.builds(
    Posed,
    n=st.integers(2, 40),
    d=st.integers(1, 60),
    k=st.integers(2, 4),
    kind=st.sampled_from(KINDS),
    weighing=st.sampled_from(WEIGHTS),
    n_groups=st.sampled_from([0, 0, 2, 3, 8]),
    exponent=st.none() | st.integers(-12, 6),
    scaling=st.sampled_from(["none", "unit", "standard"]),
    intercept=st.booleans(),
    robust=st.booleans(),
    seed=st.integers(0, 2**31),
)


def solved(problem: Posed) -> RidgeFit | None:
    """The fit of a problem that has one; None where it is refused, which it must be only for a reason."""
    try:
        fit = decompose(problem.task).fit(problem.ridge)
    except SolveError:
        assert problem.singular < 1e-11 or not bool((problem.task.weights > 0).any())
        return None
    assert problem.singular > 1e-15
    try:
        leave_one_out(problem.task, fit, problem.loss)
    except SolveError:
        assert problem.determined < 1e-8 / problem.singular
        return None
    return fit


def tolerance(problem: Posed) -> float:
    """What rounding may do, relative to the size of predictions: more where others hardly determine one."""
    return 1e-9 + 1e3 * EPS / max(problem.conditioned, EPS) / max(problem.determined, EPS) ** 2


@anything
@given(problem=posed)
def test_left_out_predictions_are_those_of_refits_or_refused(problem: Posed) -> None:
    fit = solved(problem)
    assume(fit is not None and tolerance(problem) < 1e-2)
    everyone = torch.arange(problem.n)
    found = loo_predictions(problem.task, fit, everyone)
    expected = torch.stack([problem.left_out(row) for row in range(problem.n)])
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance(problem) * scale)
    losses = leave_one_out(problem.task, fit, problem.loss).loss
    truth = problem.loss.value(expected, problem.y)
    torch.testing.assert_close(losses, truth, rtol=0, atol=10 * tolerance(problem) * scale * max(1, scale))


def size_of(found: LooResult) -> float:
    """Of what derivatives are sums of: they may cancel."""
    return max(1.0, float(found.loss.max())) * max(1.0, float(found.leverage.max()))


@anything
@given(problem=posed)
def test_derivatives_are_those_of_autograd_and_of_finite_differences(problem: Posed) -> None:
    fit = solved(problem)
    # Next to a pole finite differences have no digits left, and neither have other ways to compute.
    assume(fit is not None and tolerance(problem) < 1e-4 and problem.determined > 1e-6)
    found = loo_derivative(problem.task, fit, problem.loss).derivative
    weights = problem.task.weights.clone().requires_grad_()
    summed = loo_loss(
        problem.z,
        problem.y,
        weights,
        problem.ridge,
        loss=problem.loss,
        validation_mask=problem.task.validation_mask,
        intercept=problem.intercept,
        groups=problem.task.groups,
    )
    (expected,) = torch.autograd.grad(summed, weights)
    scale = max(size_of(leave_one_out(problem.task, fit, problem.loss)), float(expected.abs().max()))
    rounding = tolerance(problem) / max(problem.determined, EPS)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=100 * rounding * scale)
    row = problem.seed % problem.n
    oracle = Oracle(problem.task, problem.ridge)
    wide, narrow = (oracle.loo_derivative(problem.loss, row, fraction) for fraction in (1.0, 0.5))
    doubt = 10 * abs(wide - narrow) + (1e-5 + 100 * rounding) * scale
    assert abs(float(found[row]) - narrow) <= doubt


NOTHING = Posed(n=2, d=1, k=2, kind="constant column", scaling="standard", intercept=False)
"""All features zero, and no intercept: no sample has a leverage, and the dual form not a column."""


@anything
@example(problem=NOTHING, m=1)
@given(problem=posed, m=st.integers(1, 12))
def test_the_derivative_of_a_validation_loss_is_that_of_refits(problem: Posed, m: int) -> None:
    fit = solved(problem)
    assume(fit is not None and tolerance(problem) < 1e-4)
    other = replace(problem, n=m, seed=problem.seed + 1, n_groups=0, weighing="ones").task
    validation = replace(other, scaling=problem.task.scaling, weights=torch.zeros_like(other.weights))
    found, result = validation_derivative(problem.task, validation, fit, problem.loss)
    z = problem.task.scaling(torch.as_tensor(validation.features))
    y = torch.eye(problem.k, dtype=torch.float64)[validation.labels]

    weights = problem.task.weights
    mean, target = problem.centre(problem.z, weights), problem.centre(problem.y, weights)
    around = problem.z - mean
    normal = around.T @ (weights[:, None] * around) + problem.ridge * torch.eye(problem.d).double()
    coef = torch.linalg.solve(normal, around.T @ (weights[:, None] * (problem.y - target)))
    predictions = (z - mean) @ coef + target
    scale = max(1.0, float(predictions.abs().max()))
    losses = problem.loss.value(predictions, y)
    bound = 10 * tolerance(problem) * scale**2
    torch.testing.assert_close(result.loss, losses, rtol=1e-7, atol=bound)
    row = problem.seed % problem.n
    oracle = Oracle(problem.task, problem.ridge)
    wide, narrow = (
        oracle.validation_derivative(validation, problem.loss, row, fraction) for fraction in (1.0, 0.5)
    )
    size = float(found.abs().max()) + scale**2
    doubt = 10 * abs(wide - narrow) + (1e-5 + 1e3 * tolerance(problem)) * size
    assert abs(float(found[row]) - narrow) <= doubt


def answers(problem: Posed, task: RidgeTask, ridge: float) -> dict[str, Tensor]:
    """What is said of every sample of a task, at the loss of a problem."""
    fit = decompose(task).fit(ridge)
    result = loo_derivative(task, fit, problem.loss)
    everyone = torch.arange(len(task))
    return {
        "predictions": loo_predictions(task, fit, everyone),
        "losses": result.loo.loss,
        "size": torch.tensor(size_of(result.loo)),
        "derivative": result.derivative,
    }


def of(found: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """What is said of some of the samples."""
    return {name: answer if name == "size" else answer[rows] for name, answer in found.items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor], relative: float) -> None:
    """Compare, relative to the size of what the numbers are differences of."""
    for name in ("predictions", "losses", "derivative"):
        if name not in found:
            continue
        truth = expected[name]
        scale = max(float(expected["size"]), float(truth.abs().max()))
        torch.testing.assert_close(
            found[name], truth, rtol=0, atol=relative * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


@anything
@example(problem=NOTHING)
@given(problem=posed)
def test_what_changes_nothing(problem: Posed) -> None:
    assume(solved(problem) is not None)
    rounding = 1000 * tolerance(problem) / max(problem.determined, EPS)
    assume(rounding < 1e-3 and problem.determined > 1e-6)
    task, ridge, n = problem.task, problem.ridge, problem.n
    expected = answers(problem, task, ridge)
    draw = torch.Generator().manual_seed(problem.seed)
    order = torch.randperm(n, generator=draw)

    # The order of samples, and how many are looked at together.
    permuted = answers(problem, replace(task.select(order), batch_rows=3, numbers=None), ridge)
    same(permuted, of(expected, order), rounding)

    # The coordinates: of the eigenbasis, and of the span of the samples (the dual form).
    spectrum, rotated, _ = in_eigenbasis(task, decompose(task))
    result = loo_derivative(rotated, spectrum.fit(ridge), problem.loss)
    same({"derivative": result.derivative, "losses": result.loo.loss}, expected, rounding)
    if ridge > 0:
        same(answers(problem, Span(task).task(), ridge), expected, rounding)

    # Units: of the features, with the ridge in their squares, and of the weights, with the ridge in theirs.
    bare = replace(task, features=problem.z * 2.0**20, scaling=type(task.scaling)())
    same(answers(problem, bare, ridge * 2.0**40), expected, rounding)
    heavy = answers(problem, replace(task, weights=task.weights * 1024), ridge * 1024)
    heavy["derivative"] *= 1024
    same(heavy, expected, rounding)

    # A sample of weight zero that does not count is absent; one of weight two is there twice.
    if bool((task.weights > 0).sum() > 2) and task.groups is None:
        mask = torch.where(task.weights > 0, task.validation_mask, 0.0)
        there = (task.weights > 0).nonzero()[:, 0]
        if bool(mask.any()):
            with_absent = answers(problem, replace(task, validation_mask=mask), ridge)
            without = answers(problem, replace(task, validation_mask=mask).select(there), ridge)
            same(without, of(with_absent, there), rounding)
    row = problem.seed % n
    mask, weights = task.validation_mask.clone(), task.weights.clone()
    mask[row], weights[row] = 0.0, 2 * weights[row]
    twice = torch.cat([torch.arange(n), torch.tensor([row])])
    repeated = replace(task, validation_mask=mask).select(twice)
    doubled = replace(task, validation_mask=mask, weights=weights)
    others = torch.arange(n) != row
    if bool(mask.any()):
        try:
            found, wanted = answers(problem, repeated, ridge), answers(problem, doubled, ridge)
        except SolveError:
            return
        rows = others.nonzero()[:, 0]
        same(of(found, rows), of(wanted, rows), 100 * rounding)


@anything
@given(problem=posed)
def test_single_precision_agrees_to_a_thousandth_where_the_problem_is_well_posed(problem: Posed) -> None:
    assume(solved(problem) is not None)
    assume(problem.singular > 1e-3 and problem.determined > 1e-2)
    features = torch.as_tensor(problem.task.features).float()
    exact = replace(problem.task, features=features.double())
    expected = answers(problem, exact, problem.ridge)
    found = answers(problem, replace(exact, features=features, dtype=torch.float32), problem.ridge)
    # Far from the origin the features themselves have fewer digits.
    size = 1 + float(problem.z.abs().max()) / max(float(problem.z.std(dim=0).max()), 1e-3)
    same(found, expected, 1e-3 * size)


@anything
@example(problem=Posed(n=2, d=2, k=2, weighing="wide", exponent=None, seed=390))
@given(problem=posed)
def test_the_ridge_that_is_chosen_has_the_smallest_mean_loss(problem: Posed) -> None:
    present = problem.z[problem.task.weights > 0]
    around = present - present[0] if problem.intercept else present
    if float(around.abs().max()) <= 1e-13 * float(present.abs().max()):
        with pytest.raises(SolveError, match="have the same features"):
            ridge_path(problem.task, decompose(problem.task))
        return
    spectrum = decompose(problem.task)
    path = ridge_path(problem.task, spectrum)
    assert bool(torch.isfinite(path.loss).all())
    mask = problem.task.validation_mask
    for index in (path.best, 0, len(path.ridges) - 1):
        ridge = float(path.ridges[index])
        if replace(problem, exponent=math.log10(ridge)).determined < 1e-6:
            continue  # the path goes on where next to nothing determines a prediction
        losses = leave_one_out(problem.task, spectrum.fit(ridge), SquaredLoss()).loss
        assert float(path.loss[index]) == pytest.approx(float(mask @ losses / mask.sum()), rel=1e-3)
    assert float(path.loss[path.best]) == float(path.loss.min())
