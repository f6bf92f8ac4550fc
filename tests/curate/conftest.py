"""Samples made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from divacli.embed import BackboneChoice, ExtractOptions, Samples, load_samples


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str | Path], Samples]:
    """Samples of DATA that needs no network."""
    options = ExtractOptions(torch.device("cpu"))
    return lambda data: load_samples(str(data), BackboneChoice(), options, tmp_path / "cache")


@pytest.fixture
def gaussian(tmp_path: Path, load: Callable[[str | Path], Samples]) -> Callable[..., Samples]:
    """Samples of three Gaussian classes, some labels wrong."""

    def make(n: int = 60, d: int = 6, seed: int = 0, weights: np.ndarray | None = None) -> Samples:
        generator = np.random.default_rng(seed)
        truth = np.arange(n) % 3
        features = (generator.normal(size=(3, d)) * 1.5)[truth] + generator.normal(size=(n, d))
        labels = np.where(generator.random(n) < 0.1, (truth + 1) % 3, truth)
        more = {} if weights is None else {"weight": weights}
        file = tmp_path / f"gaussian-{n}-{d}-{seed}-{weights is None}.npz"
        paths = np.array([f"s{number:03d}" for number in range(n)])
        np.savez(file, embedding=features.astype(np.float64), label=labels, path=paths, **more)
        return load(file)

    return make
