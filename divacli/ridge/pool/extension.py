"""Choosing from a pool: samples of weight zero whose derivative says that the loss would fall with them.

The core is trained on and judged by; the pool is neither, until it is chosen from. Chosen samples enter the
fit but never the validation loss: wrong labels among them would confirm each other. Samples are chosen in
batches with an exact refit between them, and one by one within a batch: each choice moves the fit by an exact
rank-one update for the others, and the gradients of the validation samples with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.parallel import world
from divacli.ridge.fit.moments import moments
from divacli.ridge.fit.passes import Sums, look, walk
from divacli.ridge.fit.products import add_gram, mirrored
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.leave_out.calibration import RobustCrossEntropy, calibrate, calibration_rows
from divacli.ridge.leave_out.derivative import (
    LooSums,
    ValidationResult,
    ValidationSums,
    loo_sums,
    validation_sums,
)
from divacli.ridge.leave_out.leave_one_out import LooResult, batch_residuals, loo_predictions
from divacli.ridge.leave_out.losses import Loss, SquaredLoss
from divacli.ridge.leave_out.ridge_path import ridge_path
from divacli.ridge.weights.problem import predictions

CHOICE_FACTOR = 10.0
"""Derivatives are taken at so many times the LOO-optimal ridge: a core is small, and its derivative noisy."""

_SHORTLIST = 4
"""Candidates looked at one by one, for each that is chosen."""

_SHORTEST = 1000
"""Candidates looked at, at the least: copies of the best one must not be all there is."""


@dataclass(frozen=True)
class Candidates:
    """What the present fit says of every pool sample.

    Attributes:
        derivative: (m,) float64 at weight zero; of unlabelled samples its expectation over the predicted
            class probabilities. Negative: worth adding.
        trust: (m,) float64 probability that the given label is the right one; 1 without labels.
        predicted: (m,) int64 most probable class.
        confidence: (m,) float64 its probability.
        noise: Share of wrong labels in the pool, as estimated; 0 without labels.
        change: (m,) float64 what adding a sample at its weight does to the loss, where it is known exactly.
    """

    derivative: Tensor
    trust: Tensor
    predicted: Tensor
    confidence: Tensor
    noise: float
    change: Tensor | None = None


@dataclass(frozen=True)
class State:
    """The fit on the core and what was chosen so far.

    Attributes:
        ridge: The LOO-optimal lambda, or the one that was given.
        loss: Mean squared loss at it, of the core left out or of the validation set, weighted by the mask.
        error: Share of wrong predictions, likewise.
    """

    ridge: float
    loss: float
    error: float


class Extension:
    """A core, a pool of candidates, and the fit on what was chosen so far.

    Args:
        core: The core, with its weights, validation mask and groups.
        pool: The candidates, with the same features, scaling and classes; each would enter with its weight.
        order: (n,) row numbers of the core (of the validation set where there is one) in an order that does
            not depend on how they are stored.
        ridge: lambda, or None for the LOO optimum of the core, found anew for every refit.
        robust: Whether the calibrated cross-entropy is differentiated; else the squared loss.
        validation: A separate validation set that the choice is to serve, in place of the core's LOO loss.
        labelled: Whether the pool has labels.
        trust: (m,) float64 probability of each label being right, and the share of wrong ones; by default
            they are estimated anew by every fit.

    Raises:
        SolveError: The core's problem has no answer.
    """

    def __init__(
        self,
        core: RidgeTask,
        pool: RidgeTask,
        order: Tensor,
        *,
        ridge: float | None = None,
        robust: bool = False,
        validation: RidgeTask | None = None,
        labelled: bool = True,
        trust: tuple[Tensor, float] | None = None,
    ) -> None:
        self._given_trust = trust
        self._core, self._pool, self._validation = core, pool, validation
        self._judged = core if validation is None else validation
        self._rows = calibration_rows(order, self._judged.validation_mask, core.n_classes)
        self._given_ridge, self._robust, self._labelled = ridge, robust, labelled
        self._order = order if validation is None else None  # of the core
        self._moments = moments(core)
        self._refit()

    @property
    def state(self) -> State:
        """Where the choice stands."""
        found = self._sums_over_judged(self._fit.to(self._core.dtype), SquaredLoss())[1]
        share = self._judged.validation_mask / self._judged.validation_mask.sum()
        wrong = (found.predicted != self._judged.labels).double()
        return State(self._fit.ridge, float(share @ found.loss), float(share @ wrong))

    def candidates(self) -> Candidates:
        """Look at the whole pool, streamed in batches."""
        m = len(self._pool)
        derivative, likelihood, confidence = (torch.zeros(m, dtype=torch.float64) for _ in range(3))
        predicted = torch.zeros(m, dtype=torch.int64)

        def visit(batch: Batch) -> None:
            whitened, residuals, probabilities = self._of(batch)
            change = self._sums.through_fit(whitened, residuals)
            derivative[batch.rows] = change.double().cpu()
            likelihood[batch.rows] = (probabilities * batch.labels).sum(dim=1).double().cpu()
            best = probabilities.max(dim=1)
            predicted[batch.rows], confidence[batch.rows] = best.indices.cpu(), best.values.double().cpu()

        look(self._pool, visit)
        for vector in (derivative, likelihood, confidence, predicted):
            world().merged(vector)
        trust, noise = torch.ones_like(likelihood), 0.0
        if self._given_trust is not None:
            trust, noise = self._given_trust
        elif self._labelled:
            trust, noise = trusted(likelihood, self._pool.n_classes)
        return Candidates(derivative, trust, predicted, confidence, noise)

    def choose(self, candidates: Candidates, eligible: Tensor, size: int) -> Tensor:
        """The next batch, best first: rows of the pool (at most `size`), all of negative derivative.

        Args:
            candidates: As the present fit sees them.
            eligible: (m,) bool, who may be chosen.
            size: How many.
        """
        value = torch.where(eligible, candidates.derivative, torch.inf)
        order = torch.argsort(value, stable=True)[: max(_SHORTLIST * size, _SHORTEST)]
        shortlist = order[value[order] < 0].sort().values
        if not len(shortlist):
            return shortlist
        batch = self._pool.batch(shortlist)
        whitened, residuals, _ = self._of(batch)
        turning = self._turning()
        return shortlist[one_by_one(whitened, residuals, batch.weights, self._sums, turning, size)]

    def add(self, chosen: Tensor) -> None:
        """Refit with these pool samples at their weights."""
        task = replace(
            self._pool,
            features=self._pool.features[chosen],
            labels=self._pool.labels[chosen],
            weights=self._pool.weights[chosen],
            validation_mask=torch.zeros(len(chosen), dtype=torch.float64),
            offset=None if self._pool.offset is None else self._pool.offset[chosen],
            groups=None,
        )
        if not self._labelled:
            # The expected label is trained on: offset so that `y - offset` is the probabilities.
            expected = [self._expected(batch).cpu() for batch in task.batches()]
            task = replace(task, offset=torch.cat(expected))
        self._moments = self._moments + moments(task, self._moments.shift)
        self._refit()

    def _refit(self) -> None:
        spectrum = self._moments.decompose()
        ridge, factor = self._given_ridge, 1.0
        if ridge is None:
            path = ridge_path(self._core, spectrum, order=self._order)
            ridge, factor = path.ridge, CHOICE_FACTOR
        self._fit = spectrum.fit(ridge)
        self._choice_fit = spectrum.fit(factor * ridge).to(self._core.dtype)
        self._calibration = self._calibrated(self._fit)
        self._loss = self._calibrated(self._choice_fit) if self._robust else SquaredLoss()
        self._sums = self._sums_over_judged(self._choice_fit, self._loss)[0]

    def _turning(self) -> Tensor:
        """How validation gradients turn as the fit moves: `sum v l'' (S^-1 phi)' (S^-1 phi)`, (r, r) float64.

        Leaving out is by the systems `S` of the last refit; of a validation set they are one.
        """
        fit = self._choice_fit
        rank = len(fit.coef)

        def zeros() -> Sums:
            return [torch.zeros(rank, rank, dtype=torch.float64, device=fit.coef.device)]

        def visit(batch: Batch, sums: Sums) -> None:
            if self._validation is None:
                now = batch_residuals(fit, batch)
                whitened, predictions = now.left_out.residuals(now.whitened), now.loo_predictions
            else:
                whitened = fit.project(batch.features)
                predictions = batch.labels - batch.targets + whitened @ fit.coef
            scale = batch.mask * self._loss.curvature(predictions)
            add_gram(sums[0], scale[:, None] * whitened, whitened)

        return mirrored(*walk(self._judged, zeros, visit, whole_groups=True))

    def _calibrated(self, fit: RidgeFit) -> RobustCrossEntropy:
        """The cross-entropy whose temperature suits a fit's predictions of the judged samples."""
        found = loo_predictions if self._validation is None else predictions
        labels, mask = self._judged.labels[self._rows], self._judged.validation_mask[self._rows]
        return calibrate(found(self._judged, fit, self._rows), labels, mask, bias=False, noise=False)

    def _sums_over_judged(
        self, fit: RidgeFit, loss: Loss
    ) -> tuple[LooSums | ValidationSums, LooResult | ValidationResult]:
        if self._validation is not None:
            return validation_sums(self._validation, fit, loss)
        sums, _, found = loo_sums(self._core, fit, loss)
        return sums, found

    def _of(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Whitened features (b, r), residuals (b, k), and class probabilities (b, k) of pool samples."""
        whitened = self._choice_fit.project(batch.features)
        residuals = batch.targets - whitened @ self._choice_fit.coef
        probabilities = self._probabilities(batch)
        if not self._labelled:
            residuals = residuals - batch.labels + probabilities
        return whitened, residuals, probabilities

    def _probabilities(self, batch: Batch) -> Tensor:
        fit = self._fit.to(batch.features.dtype)
        outputs = batch.labels - batch.targets + fit.project(batch.features) @ fit.coef
        return self._calibration.probabilities(outputs)

    def _expected(self, batch: Batch) -> Tensor:
        """The offset (b, k) with which a sample's target is the expectation of its label."""
        return batch.labels - (batch.targets - batch.labels) - self._probabilities(batch)


def trusted(likelihood: Tensor, n_classes: int) -> tuple[Tensor, float]:
    """Probability of each given label being right, and the share of wrong ones, by expectation-maximisation.

    A label is right with probability `1 - noise` and then has the probability that the fit gives it;
    otherwise it is drawn from all classes alike. `noise` maximises the likelihood of the labels.

    Args:
        likelihood: (m,) probability of the given label under the fit.
        n_classes: k.

    Returns:
        (m,) float64, and `noise`.
    """
    noise = 0.5
    right = likelihood
    for _ in range(1000):
        clean = (1 - noise) * likelihood
        right = clean / (clean + noise / n_classes).clamp_min(torch.finfo(torch.float64).tiny)
        before, noise = noise, float(1 - right.mean())
        if abs(noise - before) < 1e-9:
            break
    return right, noise


def one_by_one(
    whitened: Tensor,
    residuals: Tensor,
    weights: Tensor,
    sums: LooSums | ValidationSums,
    turning: Tensor,
    size: int,
) -> Tensor:
    """Choose greedily from a shortlist, best first; every choice moves the fit for those after it.

    A training sample j of weight a turns `A^-1` into `A^-1 - A^-1 z_j' z_j A^-1 / (1 / a + h_j)`, so all
    products with it change by a rank-one term: residuals, and what a sample does to the loss. Predictions of
    the validation samples move with the fit, and by their curvature the gradients, so that a copy of a chosen
    sample has little left to offer. For the squared loss of a validation set this is a refit after every
    choice; of samples that are left out, their own terms `M` and `S` stay until the next one.

    Args:
        whitened: (s, r) `phi`.
        residuals: (s, k) training residuals `e`.
        weights: (s,) `alpha` that each would enter with.
        sums: Of the validation samples.
        turning: (r, r) float64, how their gradients turn: `P` moves by as much for a unit of `phi' e`.
        size: How many at the most.

    Returns:
        Positions in the shortlist; it ends where no derivative is negative any more.
    """
    phi, weights = whitened.double(), weights.double()
    # `moved` is `phi` with the present `A^-1` in place of the first one.
    moved, e, linear = phi.clone(), residuals.double().clone(), sums.linear(phi)
    quadratic = sums.through_fit(phi, torch.zeros_like(e))
    free = torch.ones(len(phi), dtype=torch.bool, device=phi.device)
    chosen: list[int] = []
    while len(chosen) < min(size, len(phi)):
        value = (e * linear).sum(dim=1) + quadratic
        value[~free] = torch.inf
        best = int(value.argmin())
        if not float(value[best]) < 0:
            break
        chosen.append(best)
        free[best] = False
        own, error = moved[best].clone(), e[best].clone()
        products = phi @ own
        share = 1 / (1 / weights[best] + products[best])
        step = share * products
        quadratic += step.square() * quadratic[best] - step * sums.mixed(moved, own)
        moved -= torch.outer(step, own)
        linear += torch.outer(share * (moved @ (turning @ own)), error) - torch.outer(step, linear[best])
        e -= torch.outer(step, error)
    return torch.tensor(chosen, dtype=torch.int64)
