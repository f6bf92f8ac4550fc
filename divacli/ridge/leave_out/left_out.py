"""Leave each sample out, alone or with its group: copies of it, or further images of the same patient.

The fit from which a group G is absent predicts its members as `y - R`, with `Phi` the group's whitened rows
(m, r), `D` its weights, `E` its training residuals and

    H = Phi Phi',   S = I - H D,   R = S^-1 E

With `G` the rows `v dl/dr` and `U = S^-T G`, differentiating `R` (`dA^-1 = -A^-1 z_j' z_j A^-1`) gives the
derivative of the leave-group-out loss,

    dL/d alpha_j = [H U]_j . r_j  -  e_j . (phi_j P)  -  phi_j M phi_j'
    P = sum_G Phi' U,   M = sum_G Phi' (U R') D Phi

where the first term is the one of j's own group. A group of one has `S = s = 1 - alpha h`, and this is the
formula of the DIVA paper. `S` is not symmetric and `D` may hold zeros, so systems are solved by the
push-through identity around a symmetric matrix B, with whichever of two is the smaller:

    S^-1 E = E + H D^1/2 B^-1 D^1/2 E,   B = I - D^1/2 H D^1/2   (m, m)
    S^-1 E = E + Phi B^-1 Phi' D E,      B = I - Phi' D Phi      (r, r)

Every eigenvalue of B lies in [0, 1]; zero means that without the group nothing determines a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.ridge.fit.products import add_gram


@dataclass(frozen=True)
class Influence:
    """What validation samples contribute to the derivative of a leave-out loss, a row a sample.

    Attributes:
        whitened: (b, r) `phi`.
        pulled: (b, k) `U`.
        own: (b,) `[H U] . R`: a weight moves the systems of its own group.
        coupling: (b,) the factor by which `phi` becomes `(U R') D Phi`, of samples that are left out alone.
        mixed: (b, r) `(U R') D Phi`, where groups mix their members' `phi`; then there is no `coupling`.
    """

    whitened: Tensor
    pulled: Tensor
    own: Tensor
    coupling: Tensor | None
    mixed: Tensor | None

    def add_to(self, p: Tensor, m: Tensor) -> None:
        """Add to the sums `P` (r, k) and `M` (r, r), float64; of `M` only the symmetric part, upper blocks.

        What is made of `M` are quadratic forms, to which no other part of it contributes.
        """
        p += self.whitened.T @ self.pulled
        if self.coupling is not None:
            add_gram(m, self.whitened * self.coupling[:, None], self.whitened)
        else:
            assert self.mixed is not None
            product = (self.whitened.T @ self.mixed).double()
            m += (product + product.T) / 2

    def coupled(self, products: Tensor, others: Tensor) -> Tensor:
        """`(U R') D Phi psi'`, (b, m), for rows psi.

        Args:
            products: (b, m) `phi psi'`.
            others: (m, r) psi.
        """
        if self.mixed is not None:
            return self.mixed @ others.T
        assert self.coupling is not None
        return self.coupling[:, None] * products


class Alone:
    """Every sample is a group of its own: `S` is one number, the LOO denominator.

    Args:
        whitened: (b, r) `phi`.
        leverage: (b,) `h`.
        weights: (b,) `alpha`.
    """

    def __init__(self, whitened: Tensor, leverage: Tensor, weights: Tensor) -> None:
        self._whitened, self._leverage, self._weights = whitened, leverage, weights
        self._denominator = 1 - weights * leverage

    def undetermined(self) -> int | None:
        """The row whose weighted leverage is largest, where that is one: the others do not determine it."""
        # Rounding leaves a leverage of exactly one a few units either side of it.
        singular = self._denominator <= 16 * torch.finfo(self._denominator.dtype).eps
        return int(self._denominator.argmin()) if bool(singular.any()) else None

    def residuals(self, residuals: Tensor) -> Tensor:
        """LOO residuals `e / s` (b, k) of training residuals `e`."""
        return residuals / self._denominator[:, None]

    def influence(self, gradient: Tensor, loo_residuals: Tensor) -> Influence:
        """Contributions to the derivative.

        Args:
            gradient: (b, k) rows `v dl/dr`.
            loo_residuals: (b, k) `r`.
        """
        scaled = (gradient * loo_residuals).sum(dim=1) / self._denominator
        return Influence(
            self._whitened,
            gradient / self._denominator[:, None],
            scaled * self._leverage,
            self._weights * scaled,
            None,
        )


class Together:
    """Groups of any sizes, solved in float64, all those of one size at once.

    Args:
        whitened: (b, r) `phi`.
        systems: The groups of each size.
    """

    def __init__(self, whitened: Tensor, systems: list[_Few | _Many]) -> None:
        self._whitened, self._systems = whitened, systems

    def undetermined(self) -> int | None:
        """The first row of the first group that the others do not determine, or None."""
        first = [int(s.rows[s.singular][:, 0].min()) for s in self._systems if bool(s.singular.any())]
        return min(first, default=None)

    def residuals(self, residuals: Tensor) -> Tensor:
        """Leave-out residuals `S^-1 E` (b, k) of training residuals; large where they are not determined."""
        found = torch.empty_like(residuals)
        for system in self._systems:
            part = residuals[system.rows].double()
            large = part / torch.finfo(residuals.dtype).eps
            solved = torch.where(system.singular[:, None, None], large, system.inverse(part))
            found[system.rows] = solved.to(found)
        return found

    def influence(self, gradient: Tensor, loo_residuals: Tensor) -> Influence:
        """Contributions to the derivative, as of `Alone`, at leave-out residuals `R` (b, k)."""
        whitened = self._whitened
        pulls, own = torch.empty_like(gradient), whitened.new_empty(len(whitened))
        mixed = torch.empty_like(whitened)
        for system in self._systems:
            rows = system.rows
            residuals = loo_residuals[rows].double()
            pulled = system.inverse_transposed(gradient[rows].double())
            pulls[rows] = pulled.to(gradient)
            mixed[rows] = system.coupled(pulled, residuals).to(whitened)
            own[rows] = (system.inner(pulled) * residuals).sum(dim=2).to(whitened)
        return Influence(whitened, pulls, own, None, mixed)


class GroupedRows:
    """The rows of a batch sorted into groups, whose systems can be set up at many ridges.

    Args:
        coordinates: (b, r) rows from which `phi` differs by a factor for every column.
        weights: (b,) `alpha`.
        blocks: The batch's rows by size of group (see `divacli.ridge.fit.group_rows.blocks_of`).
    """

    def __init__(self, coordinates: Tensor, weights: Tensor, blocks: list[Tensor]) -> None:
        self._coordinates = coordinates
        self._parts = []
        for rows in blocks:
            part, alpha = coordinates[rows].double(), weights[rows].double()[..., None]
            # Of large groups only this product is costly, and it is the same for all factors.
            gram = part.mT @ (alpha * part) if part.shape[1] > part.shape[2] else None
            self._parts.append((rows, part, alpha, gram))

    def together(self, scale: Tensor | None = None) -> Together:
        """The systems where `phi` is the coordinates times `scale` (r,), by default the coordinates."""
        factors = torch.ones_like(self._coordinates[0]) if scale is None else scale
        whitened, factors = self._coordinates * factors.to(self._coordinates), factors.double()
        eps = torch.finfo(self._coordinates.dtype).eps
        systems: list[_Few | _Many] = []
        for rows, part, alpha, gram in self._parts:
            phi = part * factors
            if gram is None:
                systems.append(_Few(rows, phi, alpha, eps))
            else:
                systems.append(_Many(rows, phi, alpha, eps, gram * factors * factors[:, None]))
        return Together(whitened, systems)


class _Few:
    """g groups of m samples, m <= r: systems of order m.

    Args:
        rows: (g, m) rows of the batch.
        phi: (g, m, r) float64.
        weights: (g, m, 1) float64 `alpha`.
        eps: Rounding of `phi`.
    """

    def __init__(self, rows: Tensor, phi: Tensor, weights: Tensor, eps: float) -> None:
        self.rows, self._phi, self._weights = rows, phi, weights
        self._inner = phi @ phi.mT
        self._root = weights.sqrt()
        self._factor, self.singular = _factorised(self._root * self._inner * self._root.mT, eps)

    def inverse(self, e: Tensor) -> Tensor:
        """`S^-1 E`, (g, m, k)."""
        return e + self._inner @ (self._root * torch.cholesky_solve(self._root * e, self._factor))

    def inverse_transposed(self, g: Tensor) -> Tensor:
        """`S^-T G`, (g, m, k)."""
        return g + self._root * torch.cholesky_solve(self._root * (self._inner @ g), self._factor)

    def inner(self, u: Tensor) -> Tensor:
        """`H U`, (g, m, k)."""
        return self._inner @ u

    def coupled(self, u: Tensor, r: Tensor) -> Tensor:
        """`(U R') D Phi`, (g, m, r)."""
        return (u @ r.mT) @ (self._weights * self._phi)


class _Many:
    """g groups of m samples, m > r: systems of order r.

    Args:
        rows: (g, m) rows of the batch.
        phi: (g, m, r) float64.
        weights: (g, m, 1) float64 `alpha`.
        eps: Rounding of `phi`.
        gram: (g, r, r) `Phi' D Phi`.
    """

    def __init__(self, rows: Tensor, phi: Tensor, weights: Tensor, eps: float, gram: Tensor) -> None:
        self.rows, self._phi, self._weights = rows, phi, weights
        self._factor, self.singular = _factorised(gram, eps)

    def inverse(self, e: Tensor) -> Tensor:
        """`S^-1 E`, (g, m, k)."""
        return e + self._phi @ torch.cholesky_solve(self._phi.mT @ (self._weights * e), self._factor)

    def inverse_transposed(self, g: Tensor) -> Tensor:
        """`S^-T G`, (g, m, k)."""
        return g + self._weights * (self._phi @ torch.cholesky_solve(self._phi.mT @ g, self._factor))

    def inner(self, u: Tensor) -> Tensor:
        """`H U`, (g, m, k)."""
        return self._phi @ (self._phi.mT @ u)

    def coupled(self, u: Tensor, r: Tensor) -> Tensor:
        """`U (R' D Phi)`, (g, m, r)."""
        return u @ (r.mT @ (self._weights * self._phi))


def _factorised(products: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Cholesky factors of `I - products` (g, order, order), and which of these are singular, (g,) bool.

    A singular one has the factor of the identity, so that nothing made of it is NaN.
    """
    order = products.shape[-1]
    eye = torch.eye(order, dtype=products.dtype, device=products.device)
    factor, failed = torch.linalg.cholesky_ex(eye - products)
    # `1 / trace B^-1` is close to the smallest eigenvalue where that is near zero. A pivot need not be.
    inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
    smallest = 1 / inverse.square().sum(dim=(-2, -1))
    # What rounding leaves of zero: of `phi`, and of the float64 sums it was made with.
    singular = (failed > 0) | ~(smallest > (8 * eps + 1e-12) * order**0.5)
    return torch.where(singular[:, None, None], eye, factor), singular


def left_out(
    whitened: Tensor, leverage: Tensor, weights: Tensor, blocks: list[Tensor] | None
) -> Alone | Together:
    """The systems `S` of a batch.

    Args:
        whitened: (b, r) `phi`.
        leverage: (b,) `h = |phi|^2`.
        weights: (b,) `alpha`.
        blocks: The batch's rows by size of group, or None where every group has one member.
    """
    if blocks is None:
        return Alone(whitened, leverage, weights)
    return GroupedRows(whitened, weights, blocks).together()
