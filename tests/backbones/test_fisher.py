"""Preconditioned gradients are those of dense Fisher matrices, damped, written out with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from divacli.backbones.linearised import fisher as fisher_module
from divacli.backbones.linearised.fisher import DAMPING, Preconditioner
from divacli.errors import ModelError

SHAPES = {"conv": (4, 3, 2, 2), "weight": (3, 5), "bias": (4,), "scale": ()}


def gradients(n: int = 40, seed: int = 0) -> dict[str, Tensor]:
    """Gradients with correlated entries, of very different sizes."""
    rng = np.random.default_rng(seed)
    found = {}
    for shape in SHAPES.values():
        size = int(np.prod(shape))
        mixing = rng.normal(size=(size, size)) * np.logspace(-2, 1, size)
        found[str(shape)] = torch.from_numpy((rng.normal(size=(n, size)) @ mixing).reshape(n, *shape)).float()
    return dict(zip(SHAPES, found.values(), strict=True))


def damped(matrix: np.ndarray) -> np.ndarray:
    return matrix + 0.1 * np.trace(matrix) / len(matrix) * np.eye(len(matrix))


def inverse_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def by_diagonal(rows: np.ndarray) -> np.ndarray:
    """Rows (n, p), divided by the root of the diagonal of E[g g']."""
    return rows @ inverse_root(damped(np.diag(np.diag(rows.T @ rows / len(rows)))))


def by_kronecker(
    matrices: np.ndarray, diagonals: tuple[bool, bool] = (False, False), reference: np.ndarray | None = None
) -> np.ndarray:
    """Matrices (n, o, i) as vectors times the inverse root of the whole L x R / tr(L)."""
    reference = matrices if reference is None else reference
    n = len(reference)
    left = np.einsum("noi,npi->op", reference, reference) / n
    right = np.einsum("noi,noj->ij", reference, reference) / n
    sides = [
        np.diag(np.diag(side)) if alone else side
        for side, alone in zip((left, right), diagonals, strict=True)
    ]
    whole = np.kron(damped(sides[0]), damped(sides[1])) / np.trace(left)
    return (matrices.reshape(len(matrices), -1) @ inverse_root(whole)).reshape(matrices.shape)


def assert_close(found: Tensor, expected: np.ndarray) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-3, atol=1e-4 * scale)


def test_damping_is_as_documented() -> None:
    assert DAMPING == 0.1


def test_diagonal() -> None:
    given = gradients()
    found = Preconditioner([given], kronecker=False)(given)
    for name, gradient in given.items():
        rows = gradient.reshape(len(gradient), -1).double().numpy()
        assert found[name].shape == gradient.shape
        assert_close(found[name].reshape(rows.shape), by_diagonal(rows))


def test_kronecker() -> None:
    given = gradients()
    found = Preconditioner([given], kronecker=True)(given)
    for name in ("conv", "weight"):
        matrices = given[name].flatten(2).double().numpy()
        assert found[name].shape == given[name].shape
        assert_close(found[name].flatten(2), by_kronecker(matrices))
        assert not np.allclose(
            found[name].flatten(2), by_diagonal(matrices.reshape(40, -1)).reshape(matrices.shape)
        )
    for name in ("bias", "scale"):
        rows = given[name].reshape(40, -1).double().numpy()
        assert_close(found[name].reshape(rows.shape), by_diagonal(rows))


def test_other_gradients_than_those_it_is_of() -> None:
    given, others = gradients(), gradients(7, seed=1)
    found = Preconditioner([given], kronecker=True)(others)
    reference = given["weight"].double().numpy()
    assert_close(found["weight"], by_kronecker(others["weight"].double().numpy(), reference=reference))


@pytest.mark.parametrize("kronecker", [False, True])
@pytest.mark.parametrize("size", [1, 7])
def test_batches_are_no_matter(kronecker: bool, size: int) -> None:
    given = gradients()
    parts = ({name: one[start : start + size] for name, one in given.items()} for start in range(0, 40, size))
    expected = Preconditioner([given], kronecker=kronecker)(given)
    for name, found in Preconditioner(parts, kronecker=kronecker)(given).items():
        assert_close(found, expected[name].double().numpy())


@pytest.mark.parametrize("kronecker", [False, True])
def test_the_size_of_gradients_is_no_matter(kronecker: bool) -> None:
    given = gradients()
    larger = {name: 1000 * gradient for name, gradient in given.items()}
    expected = Preconditioner([given], kronecker=kronecker)(given)
    for name, found in Preconditioner([larger], kronecker=kronecker)(larger).items():
        assert_close(found, expected[name].double().numpy())


def test_of_one_row_the_kronecker_form_is_the_whole_fisher_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher_module, "DAMPING", 0.0)
    given = {"weight": gradients()["weight"][:, :1]}
    found = Preconditioner([given], kronecker=True)(given)["weight"][:, 0]
    torch.testing.assert_close(found.T @ found / 40, torch.eye(5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("most", "diagonals"), [(3, (True, True)), (4, (False, True)), (11, (False, True)), (12, (False, False))]
)
def test_a_side_that_is_too_large_has_a_diagonal(
    most: int, diagonals: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"conv": gradients()["conv"]}
    monkeypatch.setattr(fisher_module, "_LARGEST", most)
    found = Preconditioner([given], kronecker=True)(given)["conv"]
    assert_close(found.flatten(2), by_kronecker(given["conv"].flatten(2).double().numpy(), diagonals))


@pytest.mark.parametrize("kronecker", [False, True])
@pytest.mark.parametrize("most", [8192, 1])
def test_parameters_that_nothing_depends_on_stay_zero(
    kronecker: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher_module, "_LARGEST", most)
    given = gradients()
    dead = {name: torch.zeros_like(one) if name != "weight" else one for name, one in given.items()}
    dead["weight"][:, 1] = 0
    dead["weight"][:, :, 2] = 0
    found = Preconditioner([dead], kronecker=kronecker)(dead)
    assert all(torch.isfinite(one).all() for one in found.values())
    assert all((found[name] == 0).all() for name in ("conv", "bias", "scale"))
    assert found["weight"].abs().sum() > 1
    torch.testing.assert_close(found["weight"][:, 1], torch.zeros(40, 5))
    torch.testing.assert_close(found["weight"][:, :, 2], torch.zeros(40, 3))


@pytest.mark.parametrize("kronecker", [False, True])
def test_images_without_finite_gradients_are_left_out(kronecker: bool) -> None:
    clean = gradients()
    broken = {name: torch.cat([one[:7], one[:1] / 0, one[7:]]) for name, one in clean.items()}
    broken["bias"][7] = 1.0  # one parameter that is not finite is enough
    expected, found = (Preconditioner([one], kronecker=kronecker)(clean) for one in (clean, broken))
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one)
    with pytest.raises(ModelError, match=r"none of the images .* has finite gradients"):
        Preconditioner([{name: one[:2] * torch.nan for name, one in clean.items()}], kronecker=kronecker)


def test_device() -> None:
    given = gradients()
    preconditioner = Preconditioner([given], kronecker=True)
    preconditioner.to(torch.device("meta"))
    found = preconditioner({name: one.to("meta") for name, one in given.items()})
    assert {one.device.type for one in found.values()} == {"meta"}
