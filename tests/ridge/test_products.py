"""Half of a symmetric product, summed in double precision, is the whole product."""

import pytest
import torch

from divacli.ridge.fit.products import RUN_ROWS, add_gram, gram_dtype, mirrored, quadratic


def rows(n, d, dtype=torch.float64, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("d", [1, 5, 319, 320, 501])
def test_blocks_are_the_whole_product(d):
    x, weights = rows(40, d), rows(40, 1, seed=1).square()
    total = torch.zeros(d, d, dtype=torch.float64)
    for part in (slice(0, 15), slice(15, 40)):
        add_gram(total, (weights * x)[part], x[part])
    torch.testing.assert_close(mirrored(total), x.T @ (weights * x), rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(total, total.T, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("n", [100, 20_000])
def test_single_precision_stays_within_the_stated_bound(n):
    """The bound holds for any number of rows; a sum in single precision breaks it where there are many."""
    x = rows(n, 330, torch.float32) + 3
    exact = x.double().T @ x.double()
    bound = 1e-6 * (x.abs().double().T @ x.abs().double())
    total = torch.zeros(330, 330, dtype=torch.float64)
    add_gram(total, x, x)
    assert bool(((mirrored(total) - exact).abs() <= bound).all())
    one_by_one = torch.zeros(330, 330)
    for row in x:
        one_by_one += torch.outer(row, row)
    assert bool(((one_by_one.double() - exact).abs() <= bound).all()) is (n <= RUN_ROWS)


@pytest.mark.parametrize("d", [3, 330, 500])
def test_a_quadratic_form_of_half_a_matrix(d):
    x, half = rows(17, d), rows(d, d, seed=2)
    matrix = half + half.T
    expected = torch.einsum("ia,ab,ib->i", x, matrix, x)
    torch.testing.assert_close(quadratic(x, matrix), expected, rtol=1e-12, atol=1e-10)


def test_a_processor_multiplies_in_double_precision():
    assert gram_dtype(torch.device("cpu")) == torch.float64
