"""Random ridge problems beside their brute-force answers, which share no code with `divacli.ridge`.

The brute force solves the normal equations of the design `[Z, 1]` from scratch for every question: one
refit for every sample left out, and as many again for every weight that a finite difference moves.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from divacli.ridge import (
    CrossEntropyLoss,
    LinearOutput,
    Loss,
    RidgeTask,
    Scaling,
    SquaredLoss,
    loo_sums,
    validation_derivative,
)

LOSSES: dict[str, Loss] = {"squared": SquaredLoss(), "cross-entropy": CrossEntropyLoss(3.0)}


def sample_loss(name: str, predictions: Tensor, labels: Tensor) -> Tensor:
    """Losses (..., n) of predictions (..., n, k), written without the package's loss classes."""
    if name == "squared":
        return ((predictions - functional.one_hot(labels, predictions.shape[-1])) ** 2).sum(dim=-1)
    logarithms = (3.0 * predictions).log_softmax(dim=-1)
    return -logarithms.gather(-1, labels.expand(predictions.shape[:-1])[..., None])[..., 0]


@dataclass(frozen=True)
class Problem:
    """A task and, apart from it, the plain tensors it was made of.

    Attributes:
        task: What is given to the package.
        z: (n, d) scaled features.
        y: (n, k) one-hot labels.
        base: (n, k) outputs of the linearised head, zeros without one.
        ridge: lambda.
    """

    task: RidgeTask
    z: Tensor
    y: Tensor
    base: Tensor
    ridge: float

    @property
    def design(self) -> Tensor:
        """(n, d) or (n, d + 1): features and the intercept's column of ones."""
        ones = torch.ones(len(self.z), int(self.task.intercept), dtype=torch.float64)
        return torch.cat([self.z, ones], dim=1)

    def refits(self, weights: Tensor) -> Tensor:
        """Coefficients (m, width, k) of a fit for each row of weights (m, n); the bias is not penalised."""
        penalty = torch.zeros(self.design.shape[1], dtype=torch.float64)
        penalty[: self.z.shape[1]] = self.ridge
        normal = torch.einsum("mi,ia,ib->mab", weights, self.design, self.design) + penalty.diag()
        right = torch.einsum("mi,ia,ik->mak", weights, self.design, self.y - self.base)
        return torch.linalg.solve(normal, right)

    def loo_predictions(self, weights: Tensor | None = None) -> Tensor:
        """(n, k): sample i's prediction by a fit from which sample i and its group are absent, n refits."""
        weights = self.task.weights if weights is None else weights
        groups = torch.arange(len(weights)) if self.task.groups is None else self.task.groups
        present = torch.where(groups == groups[:, None], 0.0, weights)
        return self.base + torch.einsum("ia,iak->ik", self.design, self.refits(present))

    def loo_loss(self, name: str, weights: Tensor | None = None) -> float:
        """The masked sum of the losses of `loo_predictions`."""
        losses = sample_loss(name, self.loo_predictions(weights), self.task.labels)
        return float(self.task.validation_mask @ losses)

    def validation_loss(self, other: "Problem", name: str, weights: Tensor | None = None) -> float:
        """The masked sum of another problem's losses under this problem's fit."""
        weights = self.task.weights if weights is None else weights
        predictions = other.base + other.design @ self.refits(weights[None])[0]
        return float(other.task.validation_mask @ sample_loss(name, predictions, other.task.labels))

    def differences(self, function: Callable[[Tensor], float], step: float = 1e-3) -> Tensor:
        """(n,) sixth-order central differences of a function of the weights, at the task's weights."""
        rows = []
        for unit in torch.eye(len(self.task), dtype=torch.float64) * step:
            near, middle, far = (
                function(self.task.weights + m * unit) - function(self.task.weights - m * unit)
                for m in (1, 2, 3)
            )
            rows.append((45 * near - 9 * middle + far) / (60 * step))
        return torch.tensor(rows, dtype=torch.float64)


def _make_problem(
    n: int = 24,
    d: int = 5,
    k: int = 3,
    *,
    seed: int = 0,
    ridge: float = 0.7,
    intercept: bool = True,
    offset: bool = False,
    shift: float = 0.3,
    **options: object,
) -> Problem:
    """A float64 problem: weights with every fourth one zero, a mask of zeros and other weights.

    With `offset` the task has unit-norm features and a head's `LinearOutput` on the raw ones.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    raw = random(n, d) + shift
    labels = torch.randperm(n, generator=generator) % k
    weights = 0.2 + 1.5 * torch.rand(n, generator=generator, dtype=torch.float64)
    weights[1::4] = 0.0
    mask = torch.rand(n, generator=generator, dtype=torch.float64)
    mask[2::5] = 0.0
    head, bias = 0.3 * random(k, d), random(k)
    settings: dict[str, object] = {"weights": weights, "validation_mask": mask, "dtype": torch.float64}
    if offset:
        settings |= {"offset": LinearOutput(raw, head, bias), "scaling": Scaling("unit")}
    task = RidgeTask(raw, labels, k, intercept=intercept, **{**settings, **options})  # type: ignore[arg-type]
    return Problem(
        task=task,
        z=raw / raw.square().sum(dim=1, keepdim=True).sqrt() if offset else raw,
        y=torch.eye(k, dtype=torch.float64)[labels],
        base=raw @ head.T + bias if offset else torch.zeros(n, k, dtype=torch.float64),
        ridge=ridge,
    )


def _make_groups(*sizes: int, seed: int = 0) -> Tensor:
    """Groups of these sizes, their members anywhere among the rows and their numbers anything."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randperm(len(sizes), generator=generator) * 1_000_003 - 2**40
    groups = torch.repeat_interleave(numbers, torch.tensor(sizes))
    return groups[torch.randperm(len(groups), generator=generator)]


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The problems are tiny: threads that wait for each other on a busy machine take 40 times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    """A random problem with its brute force; keyword arguments go to `_make_problem` or the task."""
    return _make_problem


@pytest.fixture
def make_groups() -> Callable[..., Tensor]:
    """Group numbers (n,) int64 of groups of given sizes, in random places."""
    return _make_groups


@pytest.fixture
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """The comparison all equivalences are stated in: the norm of the difference over that of the truth."""
    return _relative_error


@pytest.fixture(params=list(LOSSES))
def loss_name(request: pytest.FixtureRequest) -> str:
    """Each loss by name; `losses` holds the package's object."""
    return str(request.param)


@pytest.fixture
def losses() -> dict[str, Loss]:
    """The package's losses; the cross-entropy has an inverse temperature of 3, as in `sample_loss`."""
    return LOSSES


@pytest.fixture
def pool_derivative():
    """The derivative in the weights of samples that are not trained on, from the sums over the others."""

    def derivative(task, pool, fit, loss, validation=None):
        """What the sums over validation samples say of samples that are not trained on."""
        if validation is not None:
            return validation_derivative(pool, validation, fit, loss)[0]
        fit = fit.to(task.dtype)
        sums = loo_sums(task, fit, loss)[0]
        found = []
        for batch in pool.batches():
            whitened = fit.project(batch.features)
            found.append(sums.through_fit(whitened, batch.targets - whitened @ fit.coef).double())
        return torch.cat(found)

    return derivative
