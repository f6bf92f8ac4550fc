"""The Johnson-Lindenstrauss transform: lossless within a block, unbiased, and of the variance it states."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from divacli.backbones.linearised import sketch as sketch_module
from divacli.backbones.linearised.sketch import Sketch

Draw = Callable[[int], Callable[[Tensor], Tensor]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def matrix(sketch: Sketch, p: int) -> Tensor:
    """The transform as a matrix (n_out, p), float64."""
    return sketch(torch.eye(p)).T.double()


# What it is made of


@pytest.mark.parametrize("p", [1, 7, 8, 16])
def test_what_is_short_enough_stays_bit_for_bit(p: int) -> None:
    rows = normal(3, p)
    sketch = Sketch(p, 16, seed=1)
    assert (sketch.n_out, sketch.shortens) == (p, False)
    assert torch.equal(sketch(rows), rows)


@pytest.mark.parametrize(("p", "q"), [(17, 16), (64, 16), (50, 16), (40, 8), (100, 32), (9, 1), (7, 2)])
def test_every_block_is_a_rotation_of_entries_of_one_size(p: int, q: int) -> None:
    sketch = Sketch(p, q, seed=3)
    dense = matrix(sketch, p)
    assert (sketch.n_out, sketch.shortens, dense.shape) == (q, True, (q, p))
    torch.testing.assert_close(dense.abs(), torch.full_like(dense, q**-0.5), rtol=1e-6, atol=0)
    for start in range(0, p, q):
        block = dense[:, start : start + q]
        torch.testing.assert_close(
            block.T @ block, torch.eye(block.shape[1]).double(), rtol=0, atol=1e-6, msg=f"from {start}"
        )


@pytest.mark.parametrize(("p", "q"), [(24, 16), (100, 32)])
def test_vectors_within_one_block_lose_nothing(p: int, q: int) -> None:
    rows = torch.zeros(4, p)
    rows[:, :q] = normal(4, q)
    short = Sketch(p, q, seed=0)(rows)
    torch.testing.assert_close(short @ short.T, rows @ rows.T, rtol=1e-5, atol=1e-5)


def test_linear_and_row_by_row() -> None:
    sketch, rows = Sketch(50, 16, seed=0), normal(5, 50)
    torch.testing.assert_close(sketch(rows), rows @ matrix(sketch, 50).T.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sketch(rows[2:3])[0], sketch(rows)[2], rtol=1e-6, atol=1e-6)


def test_seed_says_the_signs() -> None:
    rows = normal(2, 50)
    one, same, other = (Sketch(50, 16, seed=seed)(rows) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("at_once", [1, 40, 1 << 20])
def test_how_much_is_transformed_together_is_no_matter(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = normal(3, 109)
    expected = rows @ matrix(Sketch(109, 16, seed=0), 109).T.float()
    monkeypatch.setattr(sketch_module, "_AT_ONCE", at_once)
    torch.testing.assert_close(Sketch(109, 16, seed=0)(rows), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("p", [8, 50])
def test_type_and_device_stay(p: int) -> None:
    sketch = Sketch(p, 16, seed=0)
    assert sketch(normal(2, p)).dtype == torch.float32
    found = sketch.to(torch.device("meta"))(torch.empty(2, p, device="meta"))
    assert (found.device.type, found.shape) == ("meta", (2, min(p, 16)))


# What it keeps

P, Q, SEEDS = 40, 8, 3000


def pair(kind: str) -> tuple[Tensor, Tensor]:
    """Two vectors: dense ones, or such whose blocks are, before or after the mixing, at one place each."""
    x, y = normal(2, P, seed=5)
    y = x + y
    if kind == "flat":
        x, y = (one.view(-1, Q)[:, :1].expand(-1, Q).flatten() for one in (x, y))
    if kind == "spiky":
        spikes = (torch.arange(P) % Q == 3).float()
        x, y = x * spikes, y * spikes
    return x.double(), y.double()


def moments(draw: Draw, kind: str) -> tuple[float, float]:
    """Over many seeds: mean error of <Px, Py> in standard errors, and its variance in the stated one."""
    x, y = pair(kind)
    rows = torch.stack([x, y]).float()
    found = torch.stack([(short := draw(seed)(rows).double())[0] @ short[1] for seed in range(SEEDS)])
    blocks = [part.view(-1, Q) for part in (x, y)]
    cross = (blocks[0] * blocks[1]).sum(1)
    sizes = [part.square().sum(1) for part in blocks]
    within = sizes[0] @ sizes[1] + cross @ cross
    stated = (sizes[0].sum() * sizes[1].sum() + cross.sum().square() - within) / Q
    off = (found.mean() - x @ y) / (found.std() / SEEDS**0.5)
    return float(off), float(found.var() / stated)


def holds(draw: Draw, kind: str) -> bool:
    off, variance = moments(draw, kind)
    return abs(off) < 4 and abs(variance - 1) < 0.15


def plain(*, inner: bool = True, outer: bool = True, scale: float = Q**-0.5, shared: bool = False) -> Draw:
    """The transform as its formula says, or with something left out."""
    hadamard = torch.ones(1, 1)
    while len(hadamard) < Q:
        hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), hadamard)

    def draw(seed: int) -> Callable[[Tensor], Tensor]:
        generator = torch.Generator().manual_seed(seed)
        d, e = torch.randint(0, 2, (2, P // Q, Q), generator=generator) * 2.0 - 1
        d = d if inner else torch.ones_like(d)
        e = e[:1].expand_as(e) if shared else e if outer else torch.ones_like(e)
        return lambda rows: ((rows.view(-1, P // Q, Q) * d) @ (hadamard * scale) * e).sum(1)

    return draw


KINDS = ("dense", "spiky", "flat")


@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_are_unbiased_and_of_the_stated_variance(kind: str) -> None:
    assert holds(lambda seed: Sketch(P, Q, seed), kind)
    assert holds(plain(), kind)


@pytest.mark.parametrize(
    "wrong",
    [
        {"outer": False},
        {"shared": True},
        {"inner": False},
        {"inner": False, "outer": False},
        {"scale": 1.0},
        {"scale": 1.1 * Q**-0.5},
    ],
    ids=str,
)
def test_wrong_transforms_are_told_apart(wrong: dict[str, object]) -> None:
    assert not all(holds(plain(**wrong), kind) for kind in KINDS)


def test_variance_is_within_the_bound_for_all_vectors() -> None:
    for kind in KINDS:
        x, y = pair(kind)
        rows = torch.stack([x, y]).float()
        products = [(short := Sketch(P, Q, seed)(rows).double())[0] @ short[1] for seed in range(500)]
        error = (torch.stack(products) - x @ y).square().mean()
        assert error < (x @ x * (y @ y) + (x @ y) ** 2) / Q
