"""Fine-tune a network and weigh its samples together, without a validation split.

What a network was trained on it predicts too well: by features that have seen its label, a wrong label looks
useful as soon as the network has learned it. So two twins of the network are trained beside it, each on one
half of the samples, and every sample is weighed by features of the twin that has not seen its label.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from divacli.backbones import Backbone
from divacli.backbones.transform import probe_images
from divacli.curate.batches import ImageBatches
from divacli.curate.checkpoint import SafeStop, load_checkpoint, save_checkpoint, stopping_between_steps
from divacli.curate.evaluate import mean_over_groups
from divacli.curate.finetune import (
    Learner,
    StepOptions,
    active_names,
    closed_form_head,
    diverged,
    head_of,
    set_outputs,
    trained_names,
)
from divacli.curate.provenance import provenance
from divacli.curate.reweight import leave_one_out_ridge
from divacli.curate.score import without_scores
from divacli.curate.solution import (
    SolveOptions,
    balanced,
    class_numbers,
    group_numbers,
    order_by_path,
    pose,
)
from divacli.embed import Samples
from divacli.embed.allocator import keep_freed_memory
from divacli.embed.extract import CPU_BLOCK
from divacli.embed.gathered import whole
from divacli.embed.keys import digest_of
from divacli.embed.progress import Progress, silent
from divacli.embed.samples import failures_of, undecodable
from divacli.errors import DataError
from divacli.manifest import Manifest
from divacli.ridge import SIZES, Problem, Span, choose_steps, differentiate, held_out_loss, stepped
from divacli.ridge.folds import split_in_folds

HISTORY = (
    *("step", "epoch", "lr", "train_loss", "kfold_loss", "loo_error"),
    *("step_size", "zero", "test_error", "test_class_error", "seconds"),
)
"""Columns of the history, in order; `TrainResult` says what they hold."""

WARM_UP = 0.1
"""Share of all steps in which the learning rate rises to its largest value."""

_EPOCH_SEEDS = 1_000_003
"""How far the seeds of the epochs' orders lie apart."""


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


@dataclass(frozen=True)
class TrainResult:
    """A trained network and the weights of its samples.

    Attributes:
        table: The samples in their own order with their final weights; scores of an earlier run are left out.
        state_dict: Of the whole network, on the CPU.
        classes: The label of each output.
        history: One row for every step of the weights, and one at the end: step (of the optimiser), epoch,
            lr, train_loss (weighted cross-entropy, mean since the row before), kfold_loss (closed form, of
            samples that neither the features nor the fit have seen, in nats), loo_error (share of samples
            whose leave-one-out prediction is another class), step_size (of the weights, mean over the halves;
            0 for none), zero (share of weights that are 0), test_error and test_class_error (of the network;
            empty without a test set), seconds (since the start).
        failed: path, label and reason of samples that could not be used.
        summary: For JSON.
    """

    table: pd.DataFrame
    state_dict: dict[str, Tensor]
    classes: list[str]
    history: pd.DataFrame
    failed: pd.DataFrame
    summary: dict[str, Any]


def train(
    manifest: Manifest,
    backbone: Backbone,
    options: TrainOptions,
    solve: SolveOptions,
    *,
    test: Manifest | None = None,
    known_classes: list[str] | None = None,
    checkpoint: Path | None = None,
    restart: bool = False,
    strict: bool = False,
    progress: Progress = silent,
    told: Callable[[str], None] = lambda sentence: None,
) -> TrainResult:
    """Fine-tune a network on weighted samples, and move the weights against the dataset derivative.

    Every `reweight_every` steps of the optimiser the features of all samples are computed anew, each by the
    twin that was trained on the other half of the samples. On each half the ridge problem of `diva reweight`
    is posed, and its weights take one projected step. The network and the weights with the smallest K-fold
    loss are the result.

    Args:
        manifest: The samples: images with labels. Their weights are where the walk starts.
        backbone: The network; its parameters are changed in place, and it is moved to `solve.device`.
        options: How it is trained.
        solve: How the ridge problem is posed, where all is computed, and the seed of halves, folds and order.
            Its loss "cross-entropy" is the calibrated, noise-robust one. `around_head` is not looked at.
        test: Held-out samples whose error is reported, and never used.
        known_classes: The label of each output of the network's present head, where they are known. A head
            for other classes, or for another number of them, gives way to a closed-form one. So does one of
            unknown classes if it is wrong about more of the samples than leave-one-out predictions are.
        checkpoint: A file that keeps the progress, and is gone on from where it exists.
        restart: Begin anew in any case.
        strict: Raise where an image cannot be decoded, instead of leaving it out.
        progress: Told how far it is.
        told: Takes sentences for the user.

    Raises:
        DataError: Samples without images, or labels of the test set that the samples lack.
        ModelError: A network that cannot be trained, no such part, or out of memory.
        StoreError: A checkpoint that is damaged or of another training.
        SolveError: The ridge problem has no answer.
        DivaError: The training loss is not finite.
        KeyboardInterrupt: Interrupted; the same call goes on from the checkpoint.
    """
    solve = replace(solve, around_head=False)
    head_of(backbone)
    if test is not None:
        class_numbers(test, manifest.classes)
    active = active_names(backbone, probe_images(backbone.transform, 2))
    names = trained_names(backbone, options.trainable, active)
    told(_trained_part(backbone, names))
    backbone.to(solve.device)
    if solve.device.type == "cpu":
        keep_freed_memory()

    def opened(part: Manifest) -> ImageBatches:
        return ImageBatches(part, backbone, solve.device, options.batch_size, options.workers, progress)

    images, tested = opened(manifest), None if test is None else opened(test)
    about = _about(images, tested, backbone, known_classes, options, solve)
    state = None if checkpoint is None or restart else load_checkpoint(checkpoint, about)
    with stopping_between_steps() as check:
        features = None
        if state is None:
            features = _first_features(images, backbone, progress, check)
        else:
            images.failed |= state["failed"]
        samples = _samples(images, strict=strict)
        if images.failed:
            first = samples.failed.iloc[0]
            told(f"{len(images.failed):,} images cannot be used, the first: {first.path} ({first.reason})")
        classes = samples.manifest.classes
        fresh_head = None if known_classes is None else known_classes != classes
        if head_of(backbone).out_features != len(classes):
            set_outputs(backbone, len(classes), active)
            fresh_head = True
        everyone = torch.ones(len(samples), dtype=torch.bool)
        main = Learner(backbone.network, backbone.layer, names, everyone, options.steps, solve.device)
        run = _Run(images, tested, samples, main, options, solve, progress, check)

        def save() -> None:
            if checkpoint is not None:
                save_checkpoint(checkpoint, about, run.state())

        if features is not None:
            run.begin(features, fresh_head=fresh_head)
            save()
        elif state is not None:
            run.load_state(state)
            told(
                f"this training is finished: {checkpoint} holds its result"
                if run.finished
                else f"going on from {checkpoint} after {run.step:,} of {run.n_steps:,} steps"
            )
        told(f"the head is {'a fresh one' if run.fresh_head else 'its own'} for {len(classes)} classes")
        try:
            run.finish(save)
        except SafeStop:
            save()
            raise
    main.set_parameters(run.best["parameters"])
    table = without_scores(samples.manifest.table).assign(weight=run.best["weights"].numpy())
    about_model = {
        "model": backbone.name,
        "trained_from": names[0],
        "n_trained": sum(tensor.numel() for tensor in run.best["parameters"].values()),
        "options": asdict(options),
    }
    return TrainResult(
        table,
        {name: tensor.cpu().clone() for name, tensor in backbone.network.state_dict().items()},
        classes,
        pd.DataFrame(run.history, columns=list(HISTORY)),
        samples.failed,
        {**run.summary(table["weight"].to_numpy()), **about_model, **provenance(samples, solve)},
    )


def classes_beside(checkpoint: Path | None) -> list[str] | None:
    """The classes of a state dict that `diva train` wrote, from the JSON file beside it; None if unknown.

    Args:
        checkpoint: Such as model.pt, with model.json beside it.
    """
    if checkpoint is None:
        return None
    try:
        classes = json.loads(checkpoint.with_suffix(".json").read_text())["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return classes if isinstance(classes, list) else None


def _first_features(
    images: ImageBatches, backbone: Backbone, progress: Progress, check: Callable[[], None]
) -> Tensor:
    """Features (n, d) before any training; images that cannot be used are found on the way."""
    found = torch.zeros(len(images.keys), backbone.n_features)
    with progress("embedding", len(images.usable)) as advance:
        for rows, batch in images.batches(images.usable, lenient=True):
            block = CPU_BLOCK if batch.device.type == "cpu" else len(batch)
            found[rows] = torch.cat([backbone.features(part).cpu() for part in batch.split(block)])
            advance(len(rows))
            check()
    for row in (~found.isfinite().all(dim=1)).nonzero():
        images.failed[int(row)] = "the network gives NaN or infinite features for it"
    return found


def _samples(images: ImageBatches, *, strict: bool) -> Samples:
    """The samples whose images can be used, without features: those change.

    Raises:
        DataError: Some cannot, where that is not allowed; or fewer than two classes are left.
    """
    manifest = images.manifest
    kept = manifest.select(images.usable)
    failures = failures_of(manifest, images.failed)
    if images.failed and (strict or len(kept.classes) < 2):
        raise undecodable(failures, f"{manifest.name}: {len(failures):,} of its images")
    return Samples(kept, whole(np.empty((len(kept.table), 0), np.float32)), failures, images.fingerprint)


def _about(
    images: ImageBatches,
    tested: ImageBatches | None,
    backbone: Backbone,
    known_classes: list[str] | None,
    options: TrainOptions,
    solve: SolveOptions,
) -> dict[str, str]:
    """Everything that the result depends on, by the name that the command line gives it."""
    groups = group_numbers(images.manifest, solve.group)
    grouped = "" if groups is None else str(groups.tolist())
    steps = options.steps
    return {
        "DATA": digest_of(images.fingerprint.encode(), grouped.encode()),
        "--test": "" if tested is None else tested.fingerprint,
        "the network": digest_of(repr((sorted(backbone.identity.items()), known_classes)).encode()),
        "--trainable": options.trainable,
        "--epochs": str(options.epochs),
        "--batch-size": str(options.batch_size),
        "--reweight-every": str(options.reweight_every or "epoch"),
        "--step-size": "auto" if options.size is None else f"{options.size:g}",
        "--patience": str(options.patience),
        "--optimizer": steps.optimizer,
        "--lr": f"{steps.lr:g}",
        "--weight-decay": f"{steps.weight_decay:g}",
        "--clip-norm": f"{steps.clip_norm:g}",
        "mixed precision": str(steps.amp and solve.device.type == "cuda"),
        "--ridge": "auto" if solve.ridge is None else f"{solve.ridge:g}",
        "--loss": solve.loss,
        "--validation": "balanced" if solve.balanced else "natural",
        "--scaling": solve.scaling,
        "--dtype": str(solve.dtype).removeprefix("torch."),
        "--seed": str(solve.seed),
    }


def _trained_part(backbone: Backbone, names: list[str]) -> str:
    """A sentence on what is trained."""
    sizes = {name: parameter.numel() for name, parameter in backbone.network.named_parameters()}
    return (
        f"training {sum(sizes[name] for name in names):,} of {sum(sizes.values()):,} parameters, "
        f"from {names[0]} on"
    )


class _Run:
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
        tested: ImageBatches | None,
        samples: Samples,
        main: Learner,
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
        groups = group_numbers(kept, solve.group)
        self._halves = split_in_folds(self._labels, self._order, solve.seed, 2, groups)
        if any(len(self._labels[self._halves == half].unique()) < 2 for half in (0, 1)):
            raise DataError(
                f"{kept.name}: one half of its {len(kept.table):,} images has a single class",
                expected="images of two classes or more in each half: samples are weighed by a network "
                "trained on the other half",
                hint="use more images",
            )
        self._twins = [main.twin(self._halves == half) for half in (0, 1)]
        self._per_epoch = -(-len(self._rows) // options.batch_size)
        self._every = options.reweight_every or self._per_epoch
        self.n_steps = options.epochs * self._per_epoch
        self.step = 0
        self.finished = self.fresh_head = False
        weights = torch.from_numpy(kept.table["weight"].to_numpy(float, copy=True))
        self._weights = balanced(weights, self._labels) if solve.balanced else weights
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self._losses: list[float] = []
        self._seconds, self._since = 0.0, time.monotonic()

    def begin(self, features: Tensor, *, fresh_head: bool | None) -> None:
        """Weigh the samples before any training, and make heads for their classes.

        Args:
            features: (N, d) of all images.
            fresh_head: Whether the network's own head gives way; None: if it is not good enough.
        """
        features = features[torch.from_numpy(self._rows)]
        moved = self._reweighted(features)
        if fresh_head is None:
            fresh_head = self._own_error(features) > moved.loo_error
        self.fresh_head = fresh_head
        if fresh_head:
            for learner in (self._main, *self._twins):
                self._make_head(learner, features, moved.weights)
        self._record(moved)

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
            "n_test": None if self._tested is None else len(self._tested.usable),
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
        learners = [] if self.finished else [learner.state() for learner in (self._main, *self._twins)]
        return {
            "failed": self._images.failed,
            "test_failed": {} if self._tested is None else self._tested.failed,
            "step": self.step,
            "finished": self.finished,
            "fresh_head": self.fresh_head,
            "weights": self._weights,
            "history": self.history,
            "best": self.best,
            "losses": self._losses,
            "seconds": self._elapsed(),
            "learners": learners,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken."""
        if self._tested is not None:
            self._tested.failed |= state["test_failed"]
        self.step, self.finished, self.fresh_head = (
            state[name] for name in ("step", "finished", "fresh_head")
        )
        self._weights, self.history, self.best = state["weights"], state["history"], state["best"]
        self._losses, self._seconds = state["losses"], state["seconds"]
        if not self.finished:
            for learner, saved in zip((self._main, *self._twins), state["learners"], strict=True):
                learner.load_state(saved)

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._since

    def _rate(self) -> float:
        """Share of the largest learning rate at this step: a linear rise, then half a cosine."""
        rise = WARM_UP * self.n_steps
        if self.step + 1 < rise:
            return (self.step + 1) / rise
        return (1 + math.cos(math.pi * max(0, self.step - rise) / (self.n_steps - rise))) / 2

    def _train(self) -> None:
        """Make steps up to the next point where weights are moved, or the end of the epoch."""
        epoch, done = divmod(self.step, self._per_epoch)
        end = min((self.step // self._every + 1) * self._every, (epoch + 1) * self._per_epoch)
        # Its own draw for each epoch, so that a continuation needs no generator's state.
        generator = torch.Generator().manual_seed(self._solve.seed + _EPOCH_SEEDS * epoch)
        order = self._order[torch.randperm(len(self._order), generator=generator)]
        size = self._options.batch_size
        chosen = order[done * size : (end - epoch * self._per_epoch) * size]
        weights = self._weights / self._weights.mean()
        with self._progress(f"epoch {epoch + 1} of {self._options.epochs}", len(chosen)) as advance:
            for rows, batch in self._images.batches(self._rows[chosen.numpy()]):
                here = self._place[rows]
                for learner in (self._main, *self._twins):
                    mine = learner.member[here]
                    loss = learner.step(
                        batch[mine],
                        self._labels[here][mine],
                        weights[here][mine],
                        self._rate(),
                        len(here) * float(learner.member.double().mean()),
                    )
                    if learner is self._main:
                        self._losses.append(loss)
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

    def _reweighted(self, features: Tensor) -> _Moved:
        """One step of the weights, if any, of both halves by their features (n, d)."""
        if not features.isfinite().all():
            raise diverged("a feature is not finite", self._options.steps)
        size = 0.0 if self.step == self.n_steps else self._options.size
        parts: list[tuple[Tensor, _Moved]] = []
        with self._progress("weighing the samples", 2 * (len(SIZES) if size is None else 1)) as advance:

            def tried() -> None:
                advance(1)
                self._check()

            for half in (0, 1):
                rows = (self._halves == half).nonzero()[:, 0]
                problem = _problem(self._with(features, rows, self._weights), self._solve)
                parts.append((rows, _improved(problem, size, self._solve.seed, tried)))
        weights = self._weights.clone()
        for rows, part in parts:
            weights[rows] = part.weights
        means = (
            sum(float(getattr(part, name)) * len(rows) / len(weights) for rows, part in parts)
            for name in ("kfold_loss", "loo_error", "step_size")
        )
        return _Moved(weights, *means)

    def _record(self, moved: _Moved) -> None:
        """Take weights over, and enter a row into the history."""
        test_error, class_error = self._test_errors()
        self._weights = moved.weights
        row = {
            "step": self.step,
            "epoch": self.step / self._per_epoch,
            "lr": self._rate() * self._options.steps.lr,
            "train_loss": sum(self._losses) / len(self._losses) if self._losses else None,
            "kfold_loss": moved.kfold_loss,
            "loo_error": moved.loo_error,
            "step_size": moved.step_size,
            "zero": float((moved.weights == 0).double().mean()),
            "test_error": test_error,
            "test_class_error": class_error,
            "seconds": self._elapsed(),
        }
        self._losses = []
        self.history.append(row)
        number = len(self.history) - 1
        if not self.best or moved.kfold_loss < self.history[self.best["row"]]["kfold_loss"]:
            self.best = {"row": number, "parameters": self._main.parameters(), "weights": moved.weights}
        without_gain = number - self.best["row"]
        self.finished = self.step == self.n_steps or without_gain >= self._options.patience

    def _with(self, features: Tensor, rows: Tensor, weights: Tensor) -> Samples:
        """Some of the samples with their features (n, d) and weights (n,)."""
        manifest = self._samples.manifest.select(rows.numpy())
        manifest = replace(manifest, table=manifest.table.assign(weight=weights[rows].numpy()))
        return replace(self._samples, manifest=manifest, features=whole(features[rows].numpy()), keys=None)

    def _own_error(self, features: Tensor) -> float:
        """Share of the samples that the network's head is wrong about."""
        with torch.no_grad():
            predicted = self._main.logits(features.to(self._solve.device)).argmax(dim=1).cpu()
        return float((predicted != self._labels).double().mean())

    def _make_head(self, learner: Learner, features: Tensor, weights: Tensor) -> None:
        """The closed-form head of a learner's own samples."""
        samples = self._with(features, learner.member.nonzero()[:, 0], weights)
        options = replace(self._solve, scaling="none", balanced=False)
        task = pose(samples, options, self._samples.manifest.classes)
        bias = learner.head.bias is not None
        learner.set_head(*closed_form_head(task, order_by_path(samples), bias=bias))

    def _test_errors(self) -> tuple[float | None, float | None]:
        """Share of wrong predictions of the network on held-out samples, and its mean over their classes."""
        if self._tested is None:
            return None, None
        labels = self._tested.manifest.class_numbers(self._samples.manifest.classes)
        weights = self._tested.manifest.table["weight"].to_numpy(float)
        wrong = np.zeros(len(labels))
        with self._progress("testing", len(self._tested.usable)) as advance, torch.no_grad():
            for rows, batch in self._tested.batches(self._tested.usable, lenient=True):
                predicted = self._main.logits(self._main.features(batch)).argmax(dim=1).cpu()
                wrong[rows] = predicted.numpy() != labels[rows]
                advance(len(rows))
                self._check()
        counted = [row for row in self._tested.usable if weights[row] > 0]
        classes = np.unique(labels[counted], return_inverse=True)[1]
        plain, _ = mean_over_groups(wrong[counted], weights[counted], np.zeros_like(classes))
        by_class, _ = mean_over_groups(wrong[counted], weights[counted], classes)
        return plain, by_class


def _problem(samples: Samples, solve: SolveOptions) -> Problem:
    """The ridge problem of some samples at their weights, for `divacli.ridge.reweighting`."""
    task = pose(samples, solve)
    if len(task) < task.n_features:
        task = Span(task).task()
    return Problem(
        task,
        leave_one_out_ridge(task, solve),
        order_by_path(samples),
        robust=solve.loss == "cross-entropy",
        bias=not solve.balanced,
    )


@dataclass(frozen=True)
class _Moved:
    """Weights after one step, if any.

    Attributes:
        weights: (n,) float64.
        kfold_loss: Of left-out samples, at these weights.
        loo_error: Share of samples with a wrong leave-one-out prediction, at these weights.
        step_size: Of the step; 0 for none.
    """

    weights: Tensor
    kfold_loss: float
    loo_error: float
    step_size: float


def _improved(problem: Problem, size: float | None, seed: int, tried: Callable[[], None]) -> _Moved:
    """Take one step from the problem's weights, if any.

    Args:
        problem: At the weights before.
        size: As in `TrainOptions`.
        seed: Of the folds.
        tried: Called after every size that was tried.
    """
    weights, taken = problem.task.weights, 0.0
    if size != 0:
        sizes = SIZES if size is None else (size,)
        choice = choose_steps(problem, most=1, sizes=sizes, seed=seed, tried=tried)
        taken = size or next(iter(choice.sizes), 0.0)
    if taken:
        # The trial's loss, not that of the moved weights: in setting these every fold has had a say.
        loss = next(trial.loss for trial in choice.trials if trial.size == taken)
        weights = stepped(weights, differentiate(problem, weights).derivative, taken)
    else:
        loss = held_out_loss(problem, seed=seed)
    error = differentiate(replace(problem, robust=False), weights).error
    return _Moved(weights, loss, error, taken)
