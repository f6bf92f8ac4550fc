"""One network in training: its closed-form head, its learning rate, and steps on weighted samples."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from divacli.backbones.backbone import Backbone
from divacli.backbones.layer import inputs_of, pooled
from divacli.errors import DivaError, ModelError
from divacli.features.options import CPU_BLOCK
from divacli.ridge import RidgeTask, Span, calibrate, decompose, loo_predictions, ridge_path
from divacli.ridge.leave_out.calibration import calibration_rows
from divacli.ridge.weights.problem import predictions
from divacli.training.trainable import head_of, within

MOMENTUM = 0.9
"""Of stochastic gradient descent."""

WARM_UP = 0.1
"""Share of all steps in which the learning rate rises to its largest value."""

_EPOCH_SEEDS = 1_000_003
"""How far the seeds of the epochs' orders lie apart."""

LEARNING_RATES = {"sgd": 5e-3, "adamw": 1e-4}
"""The usual one of each optimiser, for batches of 32."""


@dataclass(frozen=True)
class StepOptions:
    """How a network is moved.

    Attributes:
        optimizer: "sgd" (with momentum) or "adamw".
        lr: The largest learning rate; it falls to zero along half a cosine.
        weight_decay: L2 penalty of SGD, decoupled decay of AdamW.
        clip_norm: The largest norm of a step's gradient; longer ones are shortened to it.
        amp: Mixed precision, on CUDA only.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = LEARNING_RATES["sgd"]
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    amp: bool = True


def learning_rate_share(step: int, n_steps: int) -> float:
    """Share of the largest learning rate at a step from 0 on: a linear rise, then half a cosine."""
    rise = WARM_UP * n_steps
    if step + 1 < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * max(0, step - rise) / (n_steps - rise))) / 2


def epoch_order(order: Tensor, seed: int, epoch: int) -> Tensor:
    """Samples (n,) in the random order of an epoch.

    Each epoch has a draw of its own, so that a continuation needs no generator's state.

    Args:
        order: (n,) row numbers in an order that does not depend on how the samples are stored.
        seed: Of the training.
        epoch: From 0.
    """
    generator = torch.Generator().manual_seed(seed + _EPOCH_SEEDS * epoch)
    return order[torch.randperm(len(order), generator=generator)]


def set_outputs(backbone: Backbone, n_classes: int, active: list[str]) -> None:
    """Give a network another number of classes, in place; its head's weights are zero until they are set.

    Auxiliary heads, which some networks have for their first training alone, follow suit: the state dict is
    then that of the network built for so many classes.

    Args:
        backbone: The network.
        n_classes: k.
        active: Names of the parameters that its output depends on.
    """
    usual = head_of(backbone).out_features
    for name, module in backbone.network.named_modules():
        unused = not any(within(parameter, name) for parameter in active)
        if not isinstance(module, nn.Linear) or not (name == backbone.layer or unused):
            continue
        if module.out_features == usual:
            module.weight = nn.Parameter(module.weight.new_zeros(n_classes, module.in_features))
            if module.bias is not None:
                module.bias = nn.Parameter(module.bias.new_zeros(n_classes))
            module.out_features = n_classes


def closed_form_head(task: RidgeTask, order: Tensor, *, bias: bool) -> tuple[Tensor, Tensor]:
    """The head that ridge regression gives at once, as logits: `softmax` of its outputs is calibrated.

    The ridge is the leave-one-out optimum; scale and class biases are those under which the leave-one-out
    predictions make the labels most likely. Samples count by their weights throughout.

    Args:
        task: The training samples; their features are not scaled, as a network's own head takes them.
        order: (n,) row numbers, as for `calibration_rows`.
        bias: Whether the head has a bias; without one no intercept is fitted.

    Returns:
        Weight (k, d) and bias (k,), float64 on the CPU.

    Raises:
        SolveError: The features determine no fit.
    """
    d = task.n_features
    task = replace(task, intercept=bias, validation_mask=task.weights)
    # A linear map is known by where it takes the origin and each axis.
    axes = torch.cat([torch.zeros(1, d), torch.eye(d)])
    nothing = torch.zeros(d + 1, dtype=torch.float64)
    probe = replace(
        task, features=axes, labels=nothing.long(), weights=nothing, validation_mask=nothing, groups=None
    )
    if len(task) < d:
        span = Span(task)
        task, probe = span.task(), span.project(probe)
    spectrum = decompose(task)
    path = ridge_path(task, spectrum, order=order)
    fit = spectrum.fit(path.ridge)
    rows = calibration_rows(order, task.validation_mask, task.n_classes)
    left_out = loo_predictions(task, fit, rows)
    found = calibrate(left_out, task.labels[rows], task.validation_mask[rows], bias=bias, noise=False)
    outputs = predictions(probe, fit, torch.arange(d + 1)) * found.inverse_temperature
    return (outputs[1:] - outputs[0]).T, outputs[0] + found.bias


def diverged(what: str, options: StepOptions) -> DivaError:
    """The error of a training in which numbers are no longer finite."""
    return DivaError(
        f"the training has diverged: {what}, with --lr {options.lr:g}",
        expected="finite numbers",
        hint=f"begin anew with a lower learning rate: --restart --lr {options.lr / 10:.3g}",
    )


class Trainee:
    """One network under training, on its own share of the samples.

    The network stays in evaluation mode: running statistics are fixed and nothing is dropped out, so that a
    sample's features are those that the training sees.

    Args:
        network: Its parameters of these names are trained in place, the others are frozen.
        layer: Name of its head.
        names: Of the trained parameters, the head's among them.
        member: (n,) bool, which samples it is trained on.
        options: How it is moved.
        device: Where; the network is there.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        names: list[str],
        member: Tensor,
        options: StepOptions,
        device: torch.device,
    ) -> None:
        self.member = member
        self._network, self._layer = network, layer
        self.head: Any = network.get_submodule(layer)
        self._options, self._device = options, device
        named = dict(network.named_parameters())
        for name, parameter in named.items():
            parameter.requires_grad_(name in names)
        self._parameters = {name: named[name] for name in names}
        kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[options.optimizer]
        more: dict[str, Any] = {"momentum": MOMENTUM} if options.optimizer == "sgd" else {}
        self._optimizer = kind(
            self._parameters.values(), lr=options.lr, weight_decay=options.weight_decay, **more
        )
        self._mixed = options.amp and device.type == "cuda"
        wide = self._mixed and torch.cuda.is_bf16_supported()
        self._precision = torch.bfloat16 if wide else torch.float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._mixed and not wide)

    def twin(self, member: Tensor) -> Trainee:
        """A copy that is trained on its own, on other samples; what is frozen is shared and not copied."""
        tensors = (*self._network.parameters(), *self._network.buffers())
        trained = {id(parameter) for parameter in self._parameters.values()}
        shared = {id(tensor): tensor for tensor in tensors if id(tensor) not in trained}
        network = copy.deepcopy(self._network, shared)
        return Trainee(network, self._layer, list(self._parameters), member, self._options, self._device)

    def features(self, images: Tensor) -> Tensor:
        """Features (b, d) float32 of images (b, 3, h, w) on the device, with gradients where enabled."""
        # On the CPU small blocks stay in the cache: up to twice as fast.
        block = CPU_BLOCK if self._device.type == "cpu" else max(1, len(images))
        with self._memory_explained(len(images)):
            return torch.cat([self._features(part) for part in images.split(block)])

    def _features(self, images: Tensor) -> Tensor:
        with (
            torch.autocast(self._device.type, dtype=self._precision, enabled=self._mixed),
            inputs_of(self.head) as inputs,
        ):
            self._network(images)
        return pooled(inputs[0], self._layer, into_linear=True)

    def logits(self, features: Tensor) -> Tensor:
        """The network's outputs (b, k) for its features (b, d), in float32."""
        return functional.linear(features, self.head.weight, self.head.bias)

    def step(self, images: Tensor, labels: Tensor, weights: Tensor, rate: float, n: float) -> float:
        """Move once against the gradient of the weighted cross-entropy.

        Args:
            images: (b, 3, h, w) on the device; where there are none, nothing moves.
            labels: (b,) int64.
            weights: (b,) of mean 1 over all samples.
            rate: Share of the largest learning rate.
            n: What the sum of the losses is divided by: the samples that such a batch has on average.

        Returns:
            That loss.

        Raises:
            ModelError: Out of memory.
            DivaError: The loss is not finite.
        """
        if not len(images):
            return 0.0
        self._optimizer.param_groups[0]["lr"] = rate * self._options.lr
        self._optimizer.zero_grad(set_to_none=True)
        with self._memory_explained(len(images)):
            logits = self.logits(self.features(images))
            losses = functional.cross_entropy(logits, labels.to(self._device), reduction="none")
            loss = (losses * weights.to(losses)).sum() / n
            value = loss.item()
            if not math.isfinite(value):
                raise diverged(f"the training loss is {value}", self._options)
            self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self._parameters.values(), self._options.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return value

    def parameters(self) -> dict[str, Tensor]:
        """Copies of the trained parameters, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._parameters.items()}

    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Take weight (k, d) and bias (k,), where there is one, for the head."""
        values = {"weight": weight, "bias": bias}
        self.set_parameters(
            {f"{self._layer}.{name}": values[name] for name, _ in self.head.named_parameters()}
        )

    def reorder_head(self, rows: Tensor) -> None:
        """Put the head's outputs, rows (k,) int64 of its weight, into another order."""
        values = {name: value[rows.to(value.device)] for name, value in self.head.named_parameters()}
        self.set_parameters({f"{self._layer}.{name}": value for name, value in values.items()})

    def set_parameters(self, values: dict[str, Tensor]) -> None:
        """Take other values for some of the trained parameters."""
        with torch.no_grad():
            for name, value in values.items():
                self._parameters[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """All that a continuation needs: parameters, optimiser, scaler."""
        return {
            "parameters": self.parameters(),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "scaler": self._scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.set_parameters(state["parameters"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    @contextmanager
    def _memory_explained(self, n: int) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"out of memory on {self._device} with {n} images at a time",
                expected="a batch that fits",
                hint=f"use --batch-size {max(1, n // 2)}, or train less of the network with --trainable",
            ) from error
