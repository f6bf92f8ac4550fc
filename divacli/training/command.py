"""All that `diva train` does with DATA and a network, and the choices for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from divacli.errors import DivaError
from divacli.features.read import require_images
from divacli.files.regular import DOCUMENT_BYTES, read_regular
from divacli.manifest import Manifest
from divacli.solve.loader import Given, Loader, manifest_in, opened
from divacli.solve.options import Compute
from divacli.solve.ridge_problem import SolveOptions
from divacli.training.joint import TrainOptions
from divacli.training.train import TrainResult, train
from divacli.training.trainee import LEARNING_RATES, StepOptions


@dataclass(frozen=True)
class Training:
    """How a network and the weights of its samples are trained.

    Attributes:
        trainable: "last" (the last block), "all", or the name of a part; the head always.
        epochs: Passes over the samples.
        optimizer: "sgd" (momentum 0.9) or "adamw".
        lr: The largest learning rate. None: 0.005 of sgd, 0.0001 of adamw.
        weight_decay: Of the trained parameters.
        clip_norm: Longer gradients are shortened to this.
        reweight_every: Optimiser steps between steps of the weights. None: once an epoch.
        step_size: "auto", chosen by closed-form K-fold; by how much a weight of 1 changes on average; or 0
            for constant weights.
        patience: Steps of the weights without a lower K-fold loss after which training stops.

    Raises:
        DivaError: A number is out of its range, or there is no such optimiser.
    """

    trainable: str = "last"
    epochs: int = 5
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float | None = None
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    reweight_every: int | None = None
    step_size: float | Literal["auto"] = "auto"
    patience: int = 3

    def __post_init__(self) -> None:
        """Refuse values that nothing can be trained with."""
        size = 0.0 if self.step_size == "auto" else self.step_size
        ranges = {
            "epochs": self.epochs >= 1,
            "optimizer": self.optimizer in LEARNING_RATES,
            "lr": self.lr is None or 0 < self.lr < float("inf"),
            "weight_decay": self.weight_decay >= 0,
            "clip_norm": 0 < self.clip_norm < float("inf"),
            "reweight_every": self.reweight_every is None or self.reweight_every >= 1,
            "step_size": not isinstance(size, str) and 0 <= size < float("inf"),
            "patience": self.patience >= 1,
        }
        for name, right in ranges.items():
            if not right:
                raise DivaError(
                    f"{name}={getattr(self, name)!r}",
                    expected="sgd or adamw" if name == "optimizer" else "a number in its range",
                    hint="leave it out for the default",
                )

    def options(self, compute: Compute) -> TrainOptions:
        """The same with the batch size, workers and precision of the computing."""
        lr = LEARNING_RATES[self.optimizer] if self.lr is None else self.lr
        return TrainOptions(
            self.trainable,
            self.epochs,
            compute.batch_size or TrainOptions.batch_size,
            compute.workers,
            self.reweight_every,
            None if self.step_size == "auto" else self.step_size,
            self.patience,
            StepOptions(self.optimizer, lr, self.weight_decay, self.clip_norm, compute.amp),
        )


def train_data(
    loader: Loader,
    data: Given,
    options: TrainOptions,
    solve: SolveOptions,
    *,
    test: Given | None = None,
    weights: Path | None = None,
    checkpoint: Path | None = None,
    restart: bool = False,
    replaced: bool = False,
    strict: bool = False,
    told: Callable[[str], None] = lambda sentence: None,
) -> TrainResult:
    """Read samples, and train the network of a loader on them as `train` does.

    Args:
        loader: Of this run, with the network.
        data: What is trained on.
        options: As for `train`.
        solve: As for `train`.
        test: Held-out samples whose error is reported, and never used.
        weights: The network's checkpoint; where `diva train` wrote it, the classes of its head are known.
        checkpoint: As for `train`, and so are the others.
        restart: Begin anew.
        replaced: Begin anew where the progress is that of another training.
        strict: Raise where an image cannot be decoded.
        told: Takes sentences for the user.

    Raises:
        DivaError: As `train`, or DATA cannot be used.
        KeyboardInterrupt: As `train`.
    """
    manifest, tested = _read(loader, data, test)
    return train(
        manifest,
        loader.choice.backbone,
        options,
        solve,
        test=tested,
        known_classes=classes_beside(weights),
        checkpoint=checkpoint,
        restart=restart,
        replaced=replaced,
        strict=strict,
        progress=loader.progress,
        told=told,
    )


def _read(loader: Loader, data: Given, test: Given | None) -> tuple[Manifest, Manifest | None]:
    """What is trained on and tested on; says what the user should know of the network."""
    read = [opened(part) for part in (data, test) if part is not None]
    for part in read:
        require_images(manifest_in(part))
    manifest, *tested = loader.training_manifests(read)
    for sentence in loader.choice.backbone.said:
        loader.tell(sentence)
    return manifest, tested[0] if tested else None


def classes_beside(checkpoint: Path | None) -> list[str] | None:
    """The classes of a state dict that `diva train` wrote, from the JSON file beside it; None if unknown.

    Args:
        checkpoint: Such as model.pt, with model.json beside it.
    """
    if checkpoint is None:
        return None
    try:
        classes = json.loads(read_regular(checkpoint.with_suffix(".json"), DOCUMENT_BYTES))["classes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return classes if named else None
