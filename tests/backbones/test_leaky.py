"""Every ReLU, however it is called, is a LeakyReLU while features are taken, and itself before and after."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from divacli.backbones.linearised.leaky import Leaky

SLOPE = 0.2

Call = Callable[[Tensor], Tensor]

RELUS: dict[str, Call] = {
    "nn.ReLU": nn.ReLU(),
    "functional": functional.relu,
    "functional, by its name": lambda x: functional.relu(input=x),
    "torch": torch.relu,
    "method": lambda x: x.relu(),
}
IN_PLACE: dict[str, Call] = {
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "functional in place": lambda x: functional.relu(x, inplace=True),
    "functional in place, by position": lambda x: functional.relu(x, True),
    "relu_": torch.relu_,
    "method relu_": lambda x: x.relu_(),
}
RELU6S: dict[str, Call] = {
    "nn.ReLU6": nn.ReLU6(),
    "functional 6": functional.relu6,
    "hardtanh": lambda x: functional.hardtanh(x, 0, 6),
    "hardtanh by names": lambda x: functional.hardtanh(x, max_val=6.0, min_val=0.0),
    "nn.Hardtanh": nn.Hardtanh(0, 6),
}
RELU6S_IN_PLACE: dict[str, Call] = {
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "functional 6 in place": lambda x: functional.relu6(x, inplace=True),
    "nn.Hardtanh in place": nn.Hardtanh(0, 6, inplace=True),
}
OTHERS: dict[str, Call] = {
    "hardtanh around zero": nn.Hardtanh(),
    "clamp": lambda x: x.clamp(min=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    **{
        kind.__name__: kind()
        for kind in (
            nn.GELU,
            nn.SiLU,
            nn.ELU,
            nn.LeakyReLU,
            nn.Hardswish,
            nn.Hardsigmoid,
            nn.Sigmoid,
            nn.Tanh,
        )
    },
}
BOUNDED = {**RELU6S, **RELU6S_IN_PLACE}
ALL = {**RELUS, **IN_PLACE, **BOUNDED}


def points() -> Tensor:
    return torch.tensor([-5.0, -1.0, -0.1, 0.1, 1.0, 5.0, 7.0, 20.0], dtype=torch.float64)


def expected(name: str) -> Tensor:
    """What the points become under Leaky."""
    x = points()
    leaky = torch.where(x > 0, x, SLOPE * x)
    return torch.where(x > 6, 6 + SLOPE * (x - 6), leaky) if name in BOUNDED else leaky


@pytest.mark.parametrize("name", ALL)
def test_slope_below_zero_and_above_six(name: str) -> None:
    with Leaky(SLOPE):
        found = ALL[name](points())
    torch.testing.assert_close(found, expected(name), rtol=1e-12, atol=0)
    assert torch.equal(ALL[name](points()), points().clamp(0, 6 if name in BOUNDED else None))


@pytest.mark.parametrize("name", ALL)
def test_gradient_has_the_slope(name: str) -> None:
    x = points().requires_grad_()
    with Leaky(SLOPE):
        ALL[name](x * 1).sum().backward()
    outside = (x < 0) | ((x > 6) & (name in BOUNDED))
    torch.testing.assert_close(x.grad, 1 - (1 - SLOPE) * outside.double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [*IN_PLACE, *RELU6S_IN_PLACE])
def test_in_place_is_in_place(name: str) -> None:
    x = points()
    with Leaky(SLOPE):
        found = ALL[name](x)
    assert found is x
    torch.testing.assert_close(x, expected(name), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [*RELUS, *RELU6S])
def test_elsewhere_the_input_stays(name: str) -> None:
    x = points()
    with Leaky(SLOPE):
        ALL[name](x)
    assert torch.equal(x, points())


@pytest.mark.parametrize("name", OTHERS)
def test_other_activations_stay(name: str) -> None:
    with Leaky(SLOPE):
        found = OTHERS[name](points())
    assert torch.equal(found, OTHERS[name](points()))


def test_within_layers_of_torch() -> None:
    """A transformer's layer has its activation as a function, and in evaluation mode a way around it."""
    torch.manual_seed(0)
    layers = [
        nn.TransformerEncoderLayer(8, 2, 16, activation=activation, batch_first=True).eval().double()
        for activation in (functional.relu, lambda x: functional.leaky_relu(x, SLOPE))
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        with Leaky(SLOPE):
            found = layers[0](x)
        torch.testing.assert_close(found, layers[1](x), rtol=1e-9, atol=1e-9)
        assert not torch.allclose(found, layers[0](x))


def test_failure_within_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError), Leaky(SLOPE):
        raise ZeroDivisionError
    assert functional.relu(torch.tensor(-1.0)) == 0
