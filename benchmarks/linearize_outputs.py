"""What is lost where a network's K outputs become one gradient vector.

A linearised network has a gradient for each output, and one change of the weights for all of them: its kernel
is `theta[x, c, x', c'] = <grad f_c(x), grad f_c'(x')>`. Features that are the gradient of `r . f / sqrt(K)`
with random signs r have, as their kernel for every class alike, `r' theta[x, :, x', :] r / K` (*one vector*),
and in expectation `1/K sum_c theta[x, c, x', c]` (*mean*). All are compared by kernel ridge regression
without an intercept on `Y - 1/K`, each at its own leave-one-out optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from divacli.backbones.backbone import Backbone
from divacli.backbones.linearised.sketch import Sketch
from divacli.features import Samples
from divacli.images.decode import decode_image

N_TRAIN, N_TEST = 300, 700
SIGNS = range(5)
WIDTH = 8192
"""Length that every output's gradient is compressed to."""

RIDGES = 10.0 ** torch.arange(-2.5, 1.6, 0.5, dtype=torch.float64)
"""In units of the kernel's mean over outputs for an image with itself."""

Row = dict[str, Any]


def jacobians(backbone: Backbone, images: Tensor, parts: Sequence[str]) -> Tensor:
    """Compressed gradients (b, K, WIDTH) of every output, at a mean square over outputs of 1.

    Args:
        backbone: The network.
        images: (b, 3, h, w).
        parts: Modules whose parameters count.
    """
    network = backbone.network.eval()
    chosen = {
        name: parameter.detach()
        for name, parameter in network.named_parameters()
        if name.startswith(tuple(f"{part}." for part in parts))
    }
    sketch = Sketch(sum(parameter.numel() for parameter in chosen.values()), WIDTH, 1)

    def outputs(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        found: Tensor = functional_call(network, parameters, (image[None],))[0]
        return found

    rows = []
    for some in images.split(20):
        found = vmap(jacrev(outputs), (None, 0))(chosen, some)
        flat = torch.cat([found[name].flatten(2) for name in chosen], dim=2).detach()
        rows.append(sketch(flat.flatten(0, 1)).unflatten(0, flat.shape[:2]))
    gradients = torch.cat(rows)
    return gradients / gradients.square().sum(dim=2).mean(dim=1).sqrt()[:, None, None]


def shared(theta: Tensor, n: int, targets: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Leave-one-out residuals (n, K) and outputs (m, K) with one change of the weights for all outputs.

    Args:
        theta: (n + m, K, n, K) kernel of all images with the training images.
        n: Training images.
        targets: (n, K).
        ridge: lambda.
    """
    k = targets.shape[1]
    eye = torch.eye(n * k, dtype=theta.dtype)
    inverse = torch.linalg.inv(theta[:n].reshape(n * k, n * k) + ridge * eye)
    coefficients = (inverse @ targets.flatten()).view(n, k)
    own = torch.einsum("icid->icd", inverse.view(n, k, n, k))
    left_out = torch.linalg.solve(own, coefficients[:, :, None])[:, :, 0]
    return left_out, (theta[n:].reshape(-1, n * k) @ coefficients.flatten()).view(-1, k)


def alike(kernel: Tensor, n: int, targets: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """As `shared`, with a kernel (n + m, n) that is the same for every class and nothing between two."""
    inverse = torch.linalg.inv(kernel[:n] + ridge * torch.eye(n, dtype=kernel.dtype))
    coefficients = inverse @ targets
    return coefficients / inverse.diagonal()[:, None], kernel[n:] @ coefficients


def compare_outputs(theta: Tensor, labels: Tensor, test_labels: Tensor) -> list[Row]:
    """A row for each kernel.

    Args:
        theta: (n + m, K, n, K).
        labels: (n,) class numbers.
        test_labels: (m,).
    """
    n, k = len(labels), theta.shape[1]
    targets, test_targets = (
        torch.nn.functional.one_hot(part, k).double() - 1 / k for part in (labels, test_labels)
    )
    mean = torch.einsum("icjc->ij", theta) / k
    kernels = {"mean over outputs": mean}
    for seed in SIGNS:
        signs = torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], k))
        kernels[f"one vector, draw {seed}"] = torch.einsum("c,icjd,d->ij", signs, theta, signs) / k
    rows: list[Row] = []
    for name in ("shared weights", *kernels):
        found = []
        for ridge in RIDGES.tolist():
            if name in kernels:
                left_out, outputs = alike(kernels[name], n, targets, ridge)
            else:
                left_out, outputs = shared(theta, n, targets, ridge)
            loss = float(left_out.square().sum(dim=1).mean())
            found.append((loss, ridge, left_out, outputs))
        loss, ridge, left_out, outputs = min(found, key=lambda one: one[0])
        row: Row = {"features": name, "ridge": ridge, "loo_loss": loss}
        row["loo_error"] = float(((targets - left_out).argmax(dim=1) != labels).double().mean())
        row["test_loss"] = float((test_targets - outputs).square().sum(dim=1).mean())
        row["test_error"] = float((outputs.argmax(dim=1) != test_labels).double().mean())
        if name in kernels:
            row["from_mean"] = float((kernels[name] - mean).norm() / mean.norm())
        rows.append(row)
    return rows


def measure_outputs(backbone: Backbone, training: Samples, test: Samples, parts: Sequence[str]) -> list[Row]:
    """Rows for the first images of a setting.

    Args:
        backbone: A network with an output for each class.
        training: At least `N_TRAIN`.
        test: At least `N_TEST`.
        parts: Modules whose parameters count.
    """
    chosen = training.select(np.arange(N_TRAIN)), test.select(np.arange(N_TEST))
    images = [
        backbone.transform(decode_image(Path(file).read_bytes()))
        for part in chosen
        for file in part.manifest.files()
    ]
    gradients = jacobians(backbone, torch.stack(images), parts)
    left, right = gradients.flatten(0, 1), gradients[:N_TRAIN].flatten(0, 1)
    k = gradients.shape[1]
    theta = (left @ right.T).double().view(-1, k, N_TRAIN, k)
    classes = training.manifest.classes
    labels, test_labels = (torch.from_numpy(part.manifest.class_numbers(classes)) for part in chosen)
    return compare_outputs(theta, labels, test_labels)
