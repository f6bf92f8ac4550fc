"""Choosing from a pool the samples by which a fit comes closest to the fit on all that can be trusted.

The fit on core and pool, each sample left out in turn, says best what a sample of this kind is (`t_i`). A
choice is good if the fit `f` on core and choice says the same of all of them:

    L = sum_i v_i |f(z_i) - t_i|^2,   v_i = how far label i is trusted

The sum is over everything that core and pool show, so what is rare in the core is not rare here. `t` and not
the label is what is asked for: a wrong label that was trusted, or a sample like no other, pulls nobody.

With sample j at weight a in the fit, `s = a / (1 + a h_j)` and `u_j = z_j A^-1`, every prediction moves by
`s (z_i u_j') e_j`, and so the loss by exactly

    2 s e_j . (u_j P) + s^2 |e_j|^2 u_j G u_j',   G = Z'VZ,   P = Z'V (F - T)

without the own term of j, which would be of its own label. `G` and `P` are sums over all samples of which `G`
and `Z'VT` never change: a refit costs d^3, and no pass over the pool but the one that judges candidates.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from divacli.parallel import world
from divacli.ridge.fit.moments import Moments, moments
from divacli.ridge.fit.passes import look
from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.leave_out.leave_one_out import leave_one_out, predictable
from divacli.ridge.leave_out.losses import SquaredLoss
from divacli.ridge.leave_out.ridge_path import ridge_path
from divacli.ridge.pool.extension import Candidates, State
from divacli.ridge.pool.reduction import merged
from divacli.ridge.pool.trust import PoolTrust

CHOSEN_AT_MOST = 5000
"""Samples chosen for what they do. A fit on so many leaves little to choose: the rest is drawn at random."""

_SHORTLIST = 4
_SHORTEST = 1000
"""Candidates compared one by one for each that is chosen, and at the least."""

_STATE_ROWS = 4096
"""Pool samples that the state is a mean over, at the most."""


class Coreset:
    """A core, a pool of candidates, and the fit on what was chosen so far. Used as an `Extension` is.

    Args:
        core: The core, with its weights, validation mask and groups.
        pool: The candidates, labelled; each would enter with its weight.
        trust: What core and pool say of the pool's labels.
        order: (n,) row numbers of the core in an order that does not depend on how they are stored.
        pool_order: (m,) likewise of the pool.
        counted: (m,) float64 `v` of the pool: how far a sample counts in the loss. By default its trust.
        ridge: lambda, or None for the leave-one-out optimum of every fit.
        fill: Whether a budget is spent also where no sample brings the fit closer any more.
        seed: Of what is drawn at random.

    Raises:
        SolveError: The core's problem has no answer.
    """

    def __init__(
        self,
        core: RidgeTask,
        pool: RidgeTask,
        trust: PoolTrust,
        order: Tensor,
        pool_order: Tensor,
        *,
        counted: Tensor | None = None,
        ridge: float | None = None,
        fill: bool = True,
        seed: int = 0,
    ) -> None:
        n = len(core)
        self._core, self._pool, self._trust = core, pool, trust
        self._order, self._given_ridge, self._fill = order, ridge, fill
        self._counted = trust.probability if counted is None else counted
        self._weights = torch.zeros(len(pool), dtype=torch.float64)
        self._place = drawn_places(pool_order, seed)
        drawn = self._place.argsort()
        counting = drawn[self._counted[drawn] > 0][:_STATE_ROWS]
        self._sample = counting.sort().values
        self._moments = moments(core)
        shift = self._moments.shift
        self._everything = moments(_aimed(core, core.validation_mask, trust.outputs[:n]), shift) + moments(
            _aimed(pool, self._counted, trust.outputs[n:]), shift
        )
        self._refit()

    @property
    def state(self) -> State:
        """Where the choice stands: core and chosen left out in turn, other pool samples predicted."""
        fit = self._fit.to(self._core.dtype)
        pool = replace(self._pool, weights=self._weights, validation_mask=self._counted)
        loss = error = total = 0.0
        for task in (self._core, pool.select(self._sample)):
            if not len(task):
                continue
            found = leave_one_out(task, fit, SquaredLoss())
            wrong = (found.predicted != task.labels).double()
            loss += float(task.validation_mask @ found.loss)
            error += float(task.validation_mask @ wrong)
            total += float(task.validation_mask.sum())
        return State(fit.ridge, loss / total, error / total)

    def candidates(self) -> Candidates:
        """Look at the whole pool, streamed in batches."""
        m = len(self._pool)
        derivative, change = torch.zeros(2, m, dtype=torch.float64)
        fit = self._fit.to(self._pool.dtype)

        def visit(batch: Batch) -> None:
            first, exact = self._values(batch, fit)
            derivative[batch.rows], change[batch.rows] = first.double().cpu(), exact.double().cpu()

        look(self._pool, visit)
        for vector in (derivative, change):
            world().merged(vector)
        trust = self._trust
        return Candidates(
            derivative, trust.probability, trust.predicted, trust.confidence, trust.noise, change
        )

    def choose(self, candidates: Candidates, eligible: Tensor, size: int) -> Tensor:
        """The next batch, best first: rows of the pool (at most `size`).

        Args:
            candidates: As the present fit sees them.
            eligible: (m,) bool, who may be chosen.
            size: How many.
        """
        if int((self._weights > 0).sum()) >= CHOSEN_AT_MOST:
            return at_random(self._place, eligible, size)
        change = candidates.derivative if candidates.change is None else candidates.change
        value = torch.where(eligible, change, torch.inf)
        order = torch.argsort(value, stable=True)[: max(_SHORTLIST * size, _SHORTEST)]
        possible = eligible[order] if self._fill else value[order] < 0
        shortlist = order[possible].sort().values
        if not len(shortlist):
            return shortlist
        batch = self._pool.batch(shortlist)
        fit = self._fit.to(self._pool.dtype)
        whitened = fit.project(batch.features)
        residuals = batch.targets - whitened @ fit.coef
        away = batch.labels - residuals - self._aims(batch)
        counted = self._counted[shortlist].to(whitened)
        found = closest(
            *(whitened, residuals, batch.weights, self._gram, self._pull),
            *(away, counted, size, self._fill),
        )
        return shortlist[found]

    def add(self, chosen: Tensor) -> None:
        """Refit with these pool samples at their weights."""
        self._weights[chosen] = self._pool.weights[chosen]
        new = replace(self._pool.select(chosen), validation_mask=torch.zeros(len(chosen)).double())
        self._moments = self._moments + moments(new, self._moments.shift)
        self._refit()

    def _refit(self) -> None:
        spectrum = self._moments.decompose()
        ridge = self._given_ridge
        if ridge is None:
            chosen = self._weights.nonzero()[:, 0]
            fitted = merged(self._core, self._pool.select(chosen), self._weights[chosen])
            mask = torch.cat([self._core.validation_mask, self._counted[chosen]])
            # Of a class that is there once, leaving out shows what a fit says that never saw it.
            seen = mask * predictable(fitted)
            mask = seen if float(seen.sum()) > 0 else mask
            order = torch.cat([self._order, len(self._core) + torch.arange(len(chosen))])
            ridge = ridge_path(replace(fitted, validation_mask=mask), spectrum, order=order).ridge
        self._fit = spectrum.fit(ridge)
        self._gram, self._pull = judged_sums(self._everything, self._fit)

    def _aims(self, batch: Batch) -> Tensor:
        """`t` (b, k) of pool samples."""
        return self._trust.outputs[len(self._core) :][batch.rows].to(batch.features)

    def _values(self, batch: Batch, fit: RidgeFit) -> tuple[Tensor, Tensor]:
        """The derivative of the loss in each weight (b,), and what entering at the weight changes (b,)."""
        whitened = fit.project(batch.features)
        residuals = batch.targets - whitened @ fit.coef
        away = batch.labels - residuals - self._aims(batch)
        counted = self._counted[batch.rows].to(whitened)
        gram, pull = self._gram.to(whitened), self._pull.to(whitened)
        leverage = whitened.square().sum(dim=1)
        slope = 2 * (residuals * (whitened @ pull)).sum(dim=1)
        slope -= 2 * counted * leverage * (away * residuals).sum(dim=1)
        bend = ((whitened @ gram) * whitened).sum(dim=1) - counted * leverage.square()
        bend *= residuals.square().sum(dim=1)
        step = batch.weights / (1 + batch.weights * leverage)
        return slope, step * slope + step.square() * bend


def drawn_places(order: Tensor, seed: int) -> Tensor:
    """Place (m,) int64 of every row in a random order that does not depend on how rows are stored.

    Args:
        order: (m,) row numbers in an order of their own.
        seed: Of the draw.
    """
    drawn = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))]
    return torch.empty_like(drawn).index_copy_(0, drawn, torch.arange(len(drawn)))


def at_random(place: Tensor, eligible: Tensor, size: int) -> Tensor:
    """The first rows of a random order.

    Args:
        place: (m,) int64 place of every row in the order.
        eligible: (m,) bool, who may be chosen.
        size: How many at the most.
    """
    rows = eligible.nonzero()[:, 0]
    return rows[place[rows].argsort()][:size]


def judged_sums(everything: Moments, fit: RidgeFit) -> tuple[Tensor, Tensor]:
    """`G` (r, r) and `P` (r, k) of a fit in its whitened coordinates, float64.

    Args:
        everything: Moments of the samples that count, at their `v` and with `t` as targets.
        fit: The fit, float64.
    """
    move = fit.mean - everything.shift
    first = everything.first - everything.total_weight * move
    gram = everything.gram - torch.outer(move, everything.first) - torch.outer(first, move)
    cross = everything.cross - torch.outer(move, everything.target_sum)

    def whiten(rows: Tensor) -> Tensor:
        turned = rows if fit.basis is None else fit.basis.T @ rows
        return fit.scale[:, None] * turned

    gram, cross = whiten(whiten(gram).T), whiten(cross)
    if fit.bias_scale is not None:
        side = fit.bias_scale * whiten(first[:, None])
        corner = side.new_full((1, 1), everything.total_weight * fit.bias_scale**2)
        gram = torch.cat([torch.cat([gram, side], dim=1), torch.cat([side.T, corner], dim=1)])
        cross = torch.cat([cross, fit.bias_scale * everything.target_sum[None]])
    return gram, gram @ fit.coef - cross


def closest(
    whitened: Tensor,
    residuals: Tensor,
    weights: Tensor,
    gram: Tensor,
    pull: Tensor,
    away: Tensor,
    counted: Tensor,
    size: int,
    fill: bool,
) -> Tensor:
    """Choose greedily from a shortlist, best first; every choice moves the fit for those after it, exactly.

    Args:
        whitened: (s, r) `phi`.
        residuals: (s, k) training residuals `e`.
        weights: (s,) `alpha` that each would enter with.
        gram: (r, r) float64 `G`.
        pull: (r, k) float64 `P`.
        away: (s, k) `f - t`.
        counted: (s,) `v`.
        size: How many at the most.
        fill: Whether to go on where nothing lowers the loss any more.

    Returns:
        Positions in the shortlist.
    """
    phi, weights, counted = whitened.double(), weights.double(), counted.double()
    # `moved` is `phi` with the present `A^-1` in place of the first one.
    moved, e, r = phi.clone(), residuals.double().clone(), away.double().clone()
    linear, leverage = phi @ pull, phi.square().sum(dim=1)
    quadratic = ((phi @ gram) * phi).sum(dim=1)
    free = torch.ones(len(phi), dtype=torch.bool, device=phi.device)
    chosen: list[int] = []
    while len(chosen) < min(size, len(phi)):
        step = weights / (1 + weights * leverage)
        slope = (e * linear).sum(dim=1) - counted * leverage * (r * e).sum(dim=1)
        bend = e.square().sum(dim=1) * (quadratic - counted * leverage.square())
        value = 2 * step * slope + step.square() * bend
        value[~free] = torch.inf
        best = int(value.argmin())
        if not fill and not float(value[best]) < 0:
            break
        chosen.append(best)
        free[best] = False
        own, error = moved[best].clone(), e[best].clone()
        products, push = phi @ own, gram @ own
        share = float(step[best])
        back = share * products
        quadratic += back.square() * quadratic[best] - 2 * back * (moved @ push)
        moved -= torch.outer(back, own)
        linear += torch.outer(share * (moved @ push), error) - torch.outer(back, linear[best])
        leverage -= back * products
        e -= torch.outer(back, error)
        r += torch.outer(back, error)
    return torch.tensor(chosen, dtype=torch.int64)


def _aimed(task: RidgeTask, counted: Tensor, aims: Tensor) -> RidgeTask:
    """The samples at the weights that they count with, and with `t` in the place of their labels."""
    labels = torch.nn.functional.one_hot(task.labels, task.n_classes).double()
    offset = labels - aims
    if task.offset is not None:
        offset = offset + task.offset[torch.arange(len(task))].cpu()
    return replace(task, weights=counted, offset=offset, groups=None)
