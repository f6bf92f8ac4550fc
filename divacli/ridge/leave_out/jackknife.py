"""Standard errors of derivatives of the leave-one-out loss, by the jackknife.

Another draw of the samples changes the fit and the validation samples together. The jackknife deletes sample
i from both; sample j, the ridge and the loss are held:

    I_ij = D_j - D_j without sample i,   se_j = sqrt(n) * standard deviation of I_ij over i

(Efron and Stein 1981). With `phi` the whitened features, `K_ij = phi_i . phi_j`, `u = g / s`,
`w = alpha c / s`, `P = Phi' U` and `M = Phi' diag(w) Phi` as in `leave_out.derivative`, deletion changes

    e_j by K_ij rho_i,  phi_j by kappa_i K_ij phi_i        rho = alpha r = alpha e / s,  kappa = alpha / s

exactly. The gradients of the others change by their Hessians `H`. So

    I_ij = - K_ij u_i . e_j - w_i K_ij^2                            the loss of sample i itself
           + K_ij rho_i . P_j + kappa_i K_ij e'_j . P_i             the fit, with P_j = phi_j P
           + kappa_i K_ij (2 phi_i M phi_j' + kappa_i K_ij phi_i M phi_i')
           + e'_j . x_ij                                            the gradients of the others
    e'_j = e_j + K_ij rho_i,   x_ij = sum_l (K_lj + kappa_i K_ij K_li) K_li v_l / s_l^2 H_l rho_i

where `P_j`, `P_i`, `M` and `x_ij` are sums over all samples but i and j. Left out are terms with
`sum_l K_li^2 K_lj`, which are smaller by the square root of n. Terms of second order in `K_ij` are kept:
where the normal equations cancel those of first order, they are of the size of what remains. The derivatives
by weights alone, the infinitesimal jackknife, are off by a factor of two there.

The sum over l is taken as a mean Hessian times `sum_l alpha_l K_li K_lj`. That sum is `phi_i G phi_j'` with
`G = Phi'D Phi`, the identity less the ridge's part. In the mean, a Hessian has the weight `K_li^2`. Samples
of i's own class c are the exception: their `K_li` have one sign, so that they add up. Their part of the sum
is `f_ic f_jc / N_c`, with `f` the fits and `N_c` the weight of the class, for the sum of `phi_l` over a class
is a column of `coef`. It has a mean Hessian of its own. For the squared loss the Hessian is 2 for all, and
only differences in `v / (alpha s^2)` are averaged over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.ridge.fit.spectrum import RidgeFit
from divacli.ridge.fit.task import Batch, RidgeTask
from divacli.ridge.leave_out.derivative import LooSums, training
from divacli.ridge.leave_out.left_out import Alone
from divacli.ridge.leave_out.losses import Loss
from divacli.ridge.leave_out.subsample import draw, standard_errors

MOST_DELETED = 256
"""Samples that are deleted in turn, at the most, evenly spaced."""


@dataclass(frozen=True)
class Side:
    """Samples as the jackknife needs them, a row a sample.

    Attributes:
        whitened: (b, r) `phi`.
        leverage: (b,) `h`.
        weights: (b,) `alpha`.
        residuals: (b, k) `e`.
        fits: (b, k) `phi coef`.
        labels: (b, k) one-hot labels.
        loo_residuals: (b, k) `r`.
        pulled: (b, k) `u`.
        coupling: (b,) `w`.
    """

    whitened: Tensor
    leverage: Tensor
    weights: Tensor
    residuals: Tensor
    fits: Tensor
    labels: Tensor
    loo_residuals: Tensor
    pulled: Tensor
    coupling: Tensor

    @classmethod
    def of(cls, batch: Batch, whitened: Tensor, residuals: Tensor, loss: Loss) -> Side:
        """What is known of a batch whose samples are left out alone, and no leverage of which is one.

        Args:
            batch: The samples.
            whitened: (b, r) their `phi`.
            residuals: (b, k) their training residuals.
            loss: The validation loss.
        """
        leverage = torch.linalg.vector_norm(whitened, dim=1).square()
        alone = Alone(whitened, leverage, batch.weights)
        left_out = alone.residuals(residuals)
        gradient = -batch.mask[:, None] * loss.gradient(batch.labels - left_out, batch.labels)
        influence = alone.influence(gradient, left_out)
        assert influence.coupling is not None
        fits = batch.targets - residuals
        of_loss = left_out, influence.pulled, influence.coupling
        return cls(whitened, leverage, batch.weights, residuals, fits, batch.labels, *of_loss)


@dataclass(frozen=True)
class Jackknife:
    """Samples that are deleted in turn, on the computing device.

    Attributes:
        loss: The validation loss.
        deleted: The m samples.
        rows: (m,) int64 their row numbers.
        total: Number of samples that could be deleted.
        kappa: (m, 1) `alpha / s`.
        rho: (m, k) `alpha r`.
        stacked: (3 m, r) `phi`, `rho P' + 2 kappa phi M` and `phi G`.
        pull: (m, k) `P_i` without i's own part.
        quadratic: (m,) `phi_i M phi_i'` without i's own part.
        extent: (m,) `phi_i G phi_i'` without i's own part.
        curved: (m, k) the mean Hessian of others, times `rho`.
        excess: (m, k) the same of others of i's own class, less `curved`.
        coherence: (m,) `f_ic / N_c` without i's own part.
    """

    loss: Loss
    deleted: Side
    rows: Tensor
    total: int
    kappa: Tensor
    rho: Tensor
    stacked: Tensor
    pull: Tensor
    quadratic: Tensor
    extent: Tensor
    curved: Tensor
    excess: Tensor
    coherence: Tensor

    @classmethod
    def of(cls, task: RidgeTask, fit: RidgeFit, loss: Loss, order: Tensor, sums: LooSums) -> Jackknife:
        """Draw the samples that are deleted, of those that are trained on or validated on.

        Args:
            task: The samples, without groups.
            fit: Their ridge solution, in the task's dtype.
            loss: The validation loss.
            order: Row numbers of the samples in an order that does not depend on how they are stored.
            sums: Of the derivative, over all samples.
        """
        counted = replace(task, validation_mask=task.validation_mask + task.weights)
        drawn = draw(counted, order, MOST_DELETED)
        batch = task.batch(drawn.rows)
        some = Side.of(batch, *training(fit, batch), loss)
        present = some.weights * some.leverage
        kappa = (some.weights / (1 - present))[:, None]
        rho = kappa * some.residuals
        coupled, gram = sums.coupled(some.whitened), _gram(fit, some.whitened)
        fits = ((some.fits - present[:, None]) * some.labels).sum(dim=1)
        of_class = torch.bincount(task.labels, task.weights, task.n_classes).to(some.labels)
        weight = some.labels @ of_class
        # Where a head is linearised around, the fit's columns are no sums over classes.
        known = (weight > 0) & (task.offset is None)
        return cls(
            loss=loss,
            deleted=some,
            rows=drawn.rows.to(task.device),
            total=drawn.total,
            kappa=kappa,
            rho=rho,
            stacked=torch.cat([some.whitened, sums.pulled(rho) + 2 * kappa * coupled, gram]),
            pull=-sums.linear(some.whitened) - some.leverage[:, None] * some.pulled,
            quadratic=(coupled * some.whitened).sum(dim=1) - some.leverage.square() * some.coupling,
            extent=(gram * some.whitened).sum(dim=1) - present * some.leverage,
            **_curved(some, batch.mask, loss, rho),
            coherence=torch.where(known, fits / weight, 0),
        )

    def errors(self, batch: Batch, whitened: Tensor, residuals: Tensor) -> Tensor:
        """Standard errors (b,) of the derivatives of training samples.

        Args:
            batch: The samples, in order.
            whitened: (b, r) their `phi`.
            residuals: (b, k) their training residuals.
        """
        assert isinstance(batch.rows, slice)
        mine = self.rows[:, None] == torch.arange(batch.rows.start, batch.rows.stop, device=self.rows.device)
        parts = self.influences(batch, whitened, residuals).masked_fill_(mine, 0)
        return standard_errors(parts, len(self.rows) - mine.sum(dim=0), self.total)

    def influences(self, batch: Batch, whitened: Tensor, residuals: Tensor) -> Tensor:
        """`I_ij` (m, b) of the derivatives of training samples j, as of `errors`; no number where i is j."""
        some, kappa, rho, e = self.deleted, self.kappa, self.rho, residuals.T
        here = Side.of(batch, whitened, residuals, self.loss)
        products, linear, gram = (self.stacked @ whitened.T).chunk(3)
        scaled, pulled = kappa * products, rho @ here.pulled.T
        # What multiplies K_ij once, and what multiplies it again; without the parts of i and j in all sums.
        once = linear + (kappa * self.pull - some.pulled) @ e
        once -= here.leverage * pulled
        twice = scaled.square() * -here.coupling
        twice -= scaled * pulled
        twice -= kappa * ((here.residuals * here.pulled).sum(dim=1) + 2 * here.leverage * here.coupling)
        twice += self._twice()[:, None]
        found = once.addcmul_(products, twice).mul_(products)
        # e'_j . x_ij, by the mean Hessian of all others, and by how that of a class differs.
        present = (some.weights * some.leverage)[:, None]
        extent = self.extent[:, None] - here.weights * products.square()
        sums = gram - products * (present + here.weights * here.leverage)
        sums.addcmul_(scaled, extent)
        found.addcmul_(sums, (self.curved @ e).addcmul_(products, _dots(self.curved, rho)))
        fits = here.fits - here.labels * (here.weights * here.leverage)[:, None]
        coherent = fits.T[some.labels.argmax(dim=1)].sub_(some.weights[:, None] * products)
        coherent *= self.coherence[:, None]
        return found.addcmul_(coherent, (self.excess @ e).addcmul_(products, _dots(self.excess, rho)))

    def _twice(self) -> Tensor:
        """(m,) what `K_ij^2` is multiplied by whatever j is."""
        some, kappa = self.deleted, self.kappa[:, 0]
        through_fit = kappa * (self.rho * self.pull).sum(dim=1) - (self.rho * some.pulled).sum(dim=1)
        own = some.coupling * (1 + 2 * kappa * some.leverage)
        return through_fit - own + kappa.square() * self.quadratic


def _dots(left: Tensor, right: Tensor) -> Tensor:
    """Products of rows, (m, 1)."""
    return (left * right).sum(dim=1, keepdim=True)


def _gram(fit: RidgeFit, whitened: Tensor) -> Tensor:
    """`phi G` (m, r) with `G = Phi'D Phi = I - ridge B'B`, `B` the whitening matrix without the intercept."""
    penalised = whitened[:, : len(fit.scale)] * fit.scale
    if fit.basis is not None:
        penalised = (penalised @ fit.basis.T) @ fit.basis
    found = whitened.clone()
    found[:, : len(fit.scale)] -= fit.ridge * penalised * fit.scale
    return found


def _curved(some: Side, mask: Tensor, loss: Loss, rho: Tensor) -> dict[str, Tensor]:
    """Mean Hessians of the losses of other samples times `rho`: `curved` and `excess` of `Jackknife`.

    Args:
        some: The m samples, which stand for all.
        mask: (m,) their validation weights `v`.
        loss: The validation loss.
        rho: (m, k).
    """
    hessian = loss.hessian(some.labels - some.loo_residuals, some.labels)
    factors = mask / (1 - some.weights * some.leverage).square()

    def mean(near: Tensor) -> tuple[Tensor, Tensor]:
        near = near.fill_diagonal_(0)
        weight = (near @ some.weights)[:, None]
        return hessian.weighted(near * factors / weight.clamp_min(1e-30), rho), weight > 0

    curved, _ = mean((some.whitened @ some.whitened.T).square())
    of_class, known = mean(some.labels @ some.labels.T)
    return {"curved": curved, "excess": torch.where(known, of_class - curved, 0)}
