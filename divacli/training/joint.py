"""The training loop behind `diva train`: network, cross-fitted copies, sample weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from divacli.features import Samples
from divacli.features.samples import failures_of, order_by_path
from divacli.images.failures import failed_counts
from divacli.progress import Progress
from divacli.ridge import SIZES
from divacli.solve.head_order import HeadOrder, best_order
from divacli.solve.ridge_problem import SolveOptions, balanced, class_numbers, pose
from divacli.training.crossfit import Halves, Moved, with_features
from divacli.training.held_out import TestSet
from divacli.training.image_batches import ImageBatches
from divacli.training.trainee import (
    StepOptions,
    Trainee,
    closed_form_head,
    diverged,
    epoch_order,
    learning_rate_share,
)

HISTORY_COLUMNS = (
    *("step", "epoch", "lr", "train_loss", "kfold_loss", "loo_error"),
    *("step_size", "zero", "test_error", "test_class_error", "seconds"),
)
"""Columns of the history, in order; `TrainResult` says what they hold."""


@dataclass(frozen=True)
class TrainOptions:
    """How a network and the weights of its samples are trained.

    Attributes:
        trainable: "last" (the last block and the head), "all", or the name of a part (and the head).
        epochs: Passes over the samples.
        batch_size: Samples in a step of the optimiser.
        workers: Processes that decode images; None: one a core.
        reweight_every: Optimiser steps from one step of the weights to the next; None: once an epoch. The
            first comes before any training.
        size: Of a step of the weights, in units of the mean absolute derivative; 0 for constant weights;
            None: chosen by K-fold each time.
        patience: Steps of the weights in a row without a lower K-fold loss after which training stops.
        steps: How the network is moved.
    """

    trainable: str = "last"
    epochs: int = 5
    batch_size: int = 32
    workers: int | None = None
    reweight_every: int | None = None
    size: float | None = None
    patience: int = 3
    steps: StepOptions = field(default_factory=StepOptions)


class JointTraining:
    """A training as it stands.

    Args:
        images: All images; those that have failed are left out.
        tested: Held-out images, or None.
        samples: The samples that are left, without features.
        main: The network that the result is taken from.
        options: How it is trained.
        solve: How the ridge problem is posed.
        progress: Told how far it is.
        check: Called where the work can be stopped.

    Attributes:
        step: Optimiser steps made.
        n_steps: Optimiser steps in all.
        finished: Whether all is done.
        fresh_head: Whether the head was made for the classes.
        history: A dictionary for each row of the history.
        best: Number of the row with the smallest K-fold loss, the network's trained parameters and the (n,)
            float64 weights there.
    """

    def __init__(
        self,
        images: ImageBatches,
        tested: TestSet | None,
        samples: Samples,
        main: Trainee,
        options: TrainOptions,
        solve: SolveOptions,
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        self._images, self._tested, self._samples, self._main = images, tested, samples, main
        self._options, self._solve = options, solve
        self._progress, self._check = progress, check
        kept = samples.manifest
        self._rows = images.usable
        self._place = torch.full((len(images.keys),), -1)
        self._place[self._rows] = torch.arange(len(self._rows))
        self._labels = class_numbers(kept, kept.classes)
        self._order = order_by_path(samples)
        self._halves = Halves(samples, solve)
        self._twins = [main.twin(self._halves.number == half) for half in (0, 1)]
        self._per_epoch = -(-len(self._rows) // options.batch_size)
        self._every = options.reweight_every or self._per_epoch
        self.n_steps = options.epochs * self._per_epoch
        self.step = 0
        self.finished = self.fresh_head = False
        weights = torch.from_numpy(kept.table["weight"].to_numpy(float, copy=True))
        self._weights = balanced(weights, self._labels) if solve.balanced else weights
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self._without: tuple[Tensor, ...] | None = None
        # Of the training losses since the last row: their sum over samples, and how many these are.
        self._loss, self._seen = 0.0, 0
        self._seconds, self._since = 0.0, time.monotonic()

    def begin(
        self, features: Tensor, *, fresh_head: bool | None, known_classes: list[str] | None = None
    ) -> HeadOrder | None:
        """Weigh the samples before any training, and make heads for their classes.

        A head of its own that stays has its rows put into the order of the classes.

        Args:
            features: (N, d) of all images.
            fresh_head: Whether the network's own head gives way; None: if it is not good enough.
            known_classes: The label of each output of the network's own head, where they are known.

        Returns:
            The order that the outputs of a head that stays had; None of a fresh one.
        """
        features = features[torch.from_numpy(self._rows)]
        moved = self._reweighted(features)
        order = None if fresh_head else self._own_order(features, known_classes)
        if order is not None and fresh_head is None and 1 - order.agreement > moved.loo_error:
            order = None
        self.fresh_head = order is None
        for trainee in (self._main, *self._twins):
            if order is None:
                self._make_head(trainee, features, moved.weights)
            elif order.moved:
                trainee.reorder_head(order.rows)
        self._record(moved)
        return order

    def finish(self, save: Callable[[], None]) -> None:
        """Train to the end.

        Args:
            save: Called whenever much work has been done.
        """
        while not self.finished:
            due = self.step % self._every == 0 or self.step == self.n_steps
            if due and self.history[-1]["step"] != self.step:
                self._record(self._reweighted(self._twins_features()))
            else:
                self._train()
            save()

    def summary(self, weights: np.ndarray) -> dict[str, Any]:
        """What became of it, for JSON.

        Args:
            weights: (n,) of the result.
        """
        return {
            "n_samples": len(self._samples),
            "n_classes": len(self._samples.manifest.classes),
            "n_failed": len(self._images.failed),
            **failed_counts(failures_of(self._images.manifest, self._images.failed)),
            "n_test": None if self._tested is None else len(self._tested.images.usable),
            "head": "fresh" if self.fresh_head else "kept",
            "loss": self._solve.loss,
            "validation": "balanced" if self._solve.balanced else "natural",
            "stopped_early": self.step < self.n_steps,
            "first": self.history[0],
            "best": self.history[self.best["row"]],
            "last": self.history[-1],
            "n_zero": int((weights == 0).sum()),
            "effective_samples": float(weights.sum() ** 2 / (weights**2).sum()),
        }

    def state(self) -> dict[str, Any]:
        """All that a continuation needs; of a finished training, what its result needs."""
        trainees = [] if self.finished else [trainee.state() for trainee in (self._main, *self._twins)]
        return {
            "failed": self._images.failed,
            "test_failed": {} if self._tested is None else self._tested.images.failed,
            "step": self.step,
            "finished": self.finished,
            "fresh_head": self.fresh_head,
            "weights": self._weights,
            "history": self.history,
            "best": self.best,
            "without": self._without,
            "losses": (self._loss, self._seen),
            "seconds": self._elapsed(),
            "trainees": trainees,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken."""
        if self._tested is not None:
            self._tested.images.failed |= state["test_failed"]
        self.step, self.finished, self.fresh_head = (
            state[name] for name in ("step", "finished", "fresh_head")
        )
        self._weights, self.history, self.best = state["weights"], state["history"], state["best"]
        self._without, self._seconds = state["without"], state["seconds"]
        self._loss, self._seen = state["losses"]
        if not self.finished:
            for trainee, saved in zip((self._main, *self._twins), state["trainees"], strict=True):
                trainee.load_state(saved)

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._since

    def _train(self) -> None:
        """Make steps up to the next point where weights are moved, or the end of the epoch."""
        epoch, done = divmod(self.step, self._per_epoch)
        end = min((self.step // self._every + 1) * self._every, (epoch + 1) * self._per_epoch)
        order = epoch_order(self._order, self._solve.seed, epoch)
        size = self._options.batch_size
        chosen = order[done * size : (end - epoch * self._per_epoch) * size]
        weights = self._weights / self._weights.mean()
        with self._progress(f"epoch {epoch + 1} of {self._options.epochs}", len(chosen)) as advance:
            for rows, batch in self._images.batches(self._rows[chosen.numpy()]):
                here = self._place[rows]
                for trainee in (self._main, *self._twins):
                    mine = trainee.member[here]
                    loss = trainee.step(
                        batch[mine],
                        self._labels[here][mine],
                        weights[here][mine],
                        learning_rate_share(self.step, self.n_steps),
                        len(here) * float(trainee.member.double().mean()),
                    )
                    if trainee is self._main:
                        self._loss += loss * len(here)
                        self._seen += len(here)
                self.step += 1
                advance(len(here))
                self._check()

    def _twins_features(self) -> Tensor:
        """Features (n, d) of every sample by the twin that was not trained on it."""
        found = torch.empty(len(self._rows), self._main.head.in_features)
        with self._progress("embedding", len(self._rows)) as advance, torch.no_grad():
            for rows, batch in self._images.batches(self._rows):
                here = self._place[rows]
                for twin in self._twins:
                    unseen = ~twin.member[here]
                    if unseen.any():
                        found[here[unseen]] = twin.features(batch[unseen]).cpu()
                advance(len(here))
                self._check()
        return found

    def _reweighted(self, features: Tensor) -> Moved:
        """One step of the weights, if any, of both halves by their features (n, d)."""
        if not features.isfinite().all():
            raise diverged("a feature is not finite", self._options.steps)
        size = 0.0 if self.step == self.n_steps else self._options.size
        with self._progress("weighing the samples", 2 * (len(SIZES) if size is None else 1)) as advance:

            def tried() -> None:
                advance(1)
                self._check()

            return self._halves.moved(features, self._weights, self._without, size, tried)

    def _record(self, moved: Moved) -> None:
        """Take weights over, and enter a row into the history."""
        test_error = class_error = None
        if self._tested is not None:
            test_error, class_error = self._tested.errors(self._main, self._progress, self._check)
        self._weights, self._without = moved.weights, moved.without
        row = {
            "step": self.step,
            "epoch": self.step / self._per_epoch,
            "lr": learning_rate_share(self.step, self.n_steps) * self._options.steps.lr,
            "train_loss": self._loss / self._seen if self._seen else None,
            "kfold_loss": moved.kfold_loss,
            "loo_error": moved.loo_error,
            "step_size": moved.step_size,
            "zero": float((moved.weights == 0).double().mean()),
            "test_error": test_error,
            "test_class_error": class_error,
            "seconds": self._elapsed(),
        }
        self._loss, self._seen = 0.0, 0
        self.history.append(row)
        number = len(self.history) - 1
        if not self.best or moved.kfold_loss < self.history[self.best["row"]]["kfold_loss"]:
            self.best = {"row": number, "parameters": self._main.parameters(), "weights": moved.weights}
        without_gain = number - self.best["row"]
        self.finished = self.step == self.n_steps or without_gain >= self._options.patience

    def _own_order(self, features: Tensor, known_classes: list[str] | None) -> HeadOrder:
        """The order of the outputs of the network's head that the labels agree with most."""
        with torch.no_grad():
            outputs = self._main.logits(features.to(self._solve.device)).argmax(dim=1).cpu()
        return best_order(outputs, self._labels, self._samples.manifest.classes, known_classes)

    def _make_head(self, trainee: Trainee, features: Tensor, weights: Tensor) -> None:
        """The closed-form head of a trainee's own samples."""
        samples = with_features(self._samples, trainee.member.nonzero()[:, 0], features, weights)
        options = replace(self._solve, scaling="none", balanced=False)
        task = pose(samples, options, self._samples.manifest.classes)
        bias = trainee.head.bias is not None
        trainee.set_head(*closed_form_head(task, order_by_path(samples), bias=bias))
