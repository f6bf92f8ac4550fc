"""Fine-tune a network and weigh its samples together, without a validation split.

What a network was trained on it predicts too well: by features that have seen its label, a wrong label looks
useful as soon as the network has learned it. So two twins of the network are trained beside it, each on one
half of the samples, and every sample is weighed by features of the twin that has not seen its label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from divacli.backbones.backbone import Backbone
from divacli.backbones.parts import active_names
from divacli.backbones.transform import probe_images
from divacli.errors import ModelError, listed
from divacli.features import Samples
from divacli.features.feature_rows import whole
from divacli.features.keys import digest_of
from divacli.features.options import CPU_BLOCK
from divacli.features.samples import failures_of, undecodable
from divacli.images.failures import left_out
from divacli.machine.allocator import keep_freed_memory
from divacli.manifest import Manifest
from divacli.manifest.columns import without_scores
from divacli.progress import Progress, silent
from divacli.results.names import FAILED, HISTORY, REWEIGHTED, TRAIN
from divacli.results.result import Target
from divacli.solve.groups import group_numbers
from divacli.solve.overlap import shared_samples
from divacli.solve.provenance import provenance
from divacli.solve.ridge_problem import SolveOptions, class_numbers
from divacli.training.held_out import TestSet
from divacli.training.image_batches import ImageBatches
from divacli.training.joint import HISTORY_COLUMNS, JointTraining, TrainOptions
from divacli.training.resume import (
    SafeStop,
    discard_checkpoint,
    load_checkpoint,
    packed,
    save_checkpoint,
    stopping_between_steps,
)
from divacli.training.trainable import head_of, trained_names
from divacli.training.trainee import Trainee, set_outputs

FILES = ("model.pt", "model.json", REWEIGHTED, HISTORY, f"{TRAIN}.json")
"""What is always written."""

CHECKPOINT = "checkpoint.pt"
"""What an interrupted training goes on from, in the folder of its results."""


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
        origin: Folder that relative paths in the tables start from.
    """

    table: pd.DataFrame
    state_dict: dict[str, Tensor]
    classes: list[str]
    history: pd.DataFrame
    failed: pd.DataFrame
    summary: dict[str, Any]
    origin: Path = Path()

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        if len(self.failed):
            yield f"{len(self.failed):,} images cannot be used and were left out: see failed"

    def write(self, target: Target) -> None:
        """Write the network, all tables and the summary."""
        target.table(FAILED, self.failed, self.origin, part=True)
        target.records(HISTORY, self.history)
        target.bytes("model.pt", packed(self.state_dict))
        target.json("model.json", {"model": self.summary["model"], "classes": self.classes})
        target.json(f"{TRAIN}.json", self.summary)
        target.table(REWEIGHTED, self.table, self.origin, main=True, part=True)


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
    replaced: bool = False,
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
            Its loss is "squared" or "robust-cross-entropy". `around_head` is not looked at.
        test: Held-out samples whose error is reported, and never used.
        known_classes: The label of each output of the network's present head, where they are known. A head
            for other classes, or for another number of them, gives way to a closed-form one. So does one of
            unknown classes if it is wrong about more of the samples than leave-one-out predictions are. The
            order of its outputs is the one that the labels agree with most: see `divacli.solve.head_order`.
        checkpoint: A file that keeps the progress, and is gone on from where it exists.
        restart: Begin anew in any case, and delete the progress that there is.
        replaced: Begin anew where it is that of another training.
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
    active = active_names(backbone.network, backbone.layer, probe_images(backbone.transform, 2))
    names = trained_names(backbone, options.trainable, active)
    if all(name.startswith(f"{backbone.layer}.") for name in names):
        raise ModelError(
            f"--trainable {options.trainable}: that is the head alone, whose closed form is as good",
            expected="last, all, or the name of a part before the head",
            hint="weigh the samples with diva reweight, which needs no training",
        )
    backbone.to(solve.device)
    if solve.device.type == "cpu":
        keep_freed_memory()

    def batches(part: Manifest) -> ImageBatches:
        return ImageBatches(part, backbone, solve.device, options.batch_size, options.workers, progress)

    images, tested = batches(manifest), None if test is None else batches(test)
    if tested is not None:
        shared = shared_samples(images, tested)
        if shared:
            told(f"{shared:,} of the {len(tested.keys):,} test images are trained on, too: the test flatters")
    about = _about(images, tested, backbone, known_classes, options, solve)
    if restart and checkpoint is not None:
        discard_checkpoint(checkpoint)
    state = None if checkpoint is None else load_checkpoint(checkpoint, about, replaced=replaced)
    with stopping_between_steps() as check:
        features = None
        if state is None:
            features = _first_features(images, backbone, progress, check)
        else:
            images.failed |= state["failed"]
        samples = replace(_samples(images, strict=strict), network=backbone.sentence)
        if images.failed:
            told(left_out(samples.failed, "images"))
        classes = samples.manifest.classes
        fresh_head = None if known_classes is None else sorted(known_classes) != sorted(classes)
        if head_of(backbone).out_features != len(classes):
            set_outputs(backbone, len(classes), active)
            fresh_head = True
        told(_trained_part(backbone, names))
        lonely = samples.manifest.table["label"].value_counts().loc[lambda count: count == 1].index
        if len(lonely):
            told(f"classes of a single image, which cannot be judged: {listed(sorted(lonely), limit=5)}")
        everyone = torch.ones(len(samples), dtype=torch.bool)
        main = Trainee(backbone.network, backbone.layer, names, everyone, options.steps, solve.device)
        held_out = None if tested is None else TestSet(tested, classes, strict=strict, told=told)
        run = JointTraining(images, held_out, samples, main, options, solve, progress, check)

        def save() -> None:
            if checkpoint is not None:
                save_checkpoint(checkpoint, about, run.state())

        if features is not None:
            order = run.begin(features, fresh_head=fresh_head, known_classes=known_classes)
            if order is not None and order.moved:
                told(f"{order.note}. They are put into that order")
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
        pd.DataFrame(run.history, columns=list(HISTORY_COLUMNS)),
        samples.failed,
        {**run.summary(table["weight"].to_numpy()), **about_model, **provenance(samples, solve)},
        manifest.folder,
    )


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
