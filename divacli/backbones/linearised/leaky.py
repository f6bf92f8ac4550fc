"""Every ReLU of a network as a LeakyReLU, as linear-quadratic fine-tuning has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_IN_PLACE = {torch.relu_, Tensor.relu_}
_RELU = {functional.relu, torch.relu, Tensor.relu, *_IN_PLACE}


class Leaky(TorchFunctionMode):
    """Within it a ReLU, module or function, has a slope below zero, and a ReLU6 also above six.

    A linearised network cannot switch a unit on that is off at the point it is linearised around: with a
    slope, its gradient is no longer zero (Achille et al. 2020). The network's outputs change,
    too: they are those of another function.

    Args:
        slope: Of the negative part, at least 0 and below 1.

    Attributes:
        replaced: How many calls were replaced.
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.replaced = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Replace the call where it is one of a ReLU."""
        kwargs = kwargs or {}
        activation = self._replacement(func, args, kwargs)
        if activation is None:
            return func(*args, **kwargs)
        self.replaced += 1
        args = args or (kwargs["input"],)
        if func in _IN_PLACE or kwargs.get("inplace"):
            return args[0].copy_(activation(args[0].clone()))
        return activation(args[0])

    def _replacement(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Callable[[Tensor], Tensor] | None:
        """The activation that a call is replaced by; None where it stays."""
        if func in _RELU:
            return partial(functional.leaky_relu, negative_slope=self.slope)
        if func is functional.relu6:
            return partial(self._between, high=6)
        if func is functional.hardtanh:  # which `nn.ReLU6` calls
            call = inspect.signature(functional.hardtanh).bind(*args, **kwargs)
            call.apply_defaults()
            _, low, high, _ = call.args
            if low == 0:
                return partial(self._between, high=high)
        return None

    def _between(self, x: Tensor, high: float) -> Tensor:
        inside = x.clamp(0, high)
        return inside + self.slope * (x - inside)
