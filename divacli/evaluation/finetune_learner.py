"""Fine-tuning as an evaluation's learner: the network itself is trained on each of the sets."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from divacli.backbones.backbone import Backbone
from divacli.backbones.parts import active_names
from divacli.backbones.transform import probe_images
from divacli.features import BackboneChoice, Samples
from divacli.features.samples import order_by_path
from divacli.progress import silent
from divacli.solve.ridge_problem import SolveOptions, pose
from divacli.training.image_batches import ImageBatches
from divacli.training.trainable import head_of, trained_names
from divacli.training.trainee import (
    StepOptions,
    Trainee,
    closed_form_head,
    epoch_order,
    learning_rate_share,
    set_outputs,
)


@dataclass(frozen=True)
class FinetuneLearner:
    """The network, fine-tuned from where it stands by weighted cross-entropy, for a fixed number of epochs.

    The head is the closed-form one of the training set, the network stays in evaluation mode and images get
    its own transform, as in `diva train` with constant weights.

    Attributes:
        choice: The network. It is not changed: every training has a copy.
        options: Device, groups and dtype, for the closed-form head.
        trainable: "last", "all", or the name of a part, as for `divacli.training.trainable.trained_names`.
        epochs: Passes over the training set.
        batch_size: Images in a step.
        workers: Processes that decode images; None: one a core.
        steps: How the network is moved.
    """

    choice: BackboneChoice
    options: SolveOptions
    trainable: str = "last"
    epochs: int = 5
    batch_size: int = 32
    workers: int | None = None
    steps: StepOptions = field(default_factory=StepOptions)
    name: ClassVar[str] = "finetune"
    random: ClassVar[bool] = True

    def check(self) -> None:
        """Find out whether the network can be trained at all.

        Raises:
            ModelError: It cannot, or has no such part.
        """
        backbone = copy.deepcopy(self.choice.backbone)
        head_of(backbone)
        self._trained(backbone)

    def _trained(self, backbone: Backbone) -> tuple[list[str], list[str]]:
        """Names of the parameters that the network's output depends on, and of those that are trained."""
        probe = probe_images(backbone.transform, 2)
        active = active_names(backbone.network, backbone.layer, probe)
        return active, trained_names(backbone, self.trainable, active)

    def __call__(self, training: Samples, test: Samples, seed: int) -> np.ndarray:
        """See `divacli.evaluation.learners.Learner`.

        Raises:
            DataError: An image cannot be used, or there are none.
            ModelError: The network cannot be trained, or out of memory.
            DivaError: The training loss is not finite.
        """
        device = self.options.device
        backbone = copy.deepcopy(self.choice.backbone).to("cpu")
        active, names = self._trained(backbone)
        classes = training.manifest.classes
        set_outputs(backbone, len(classes), active)
        backbone.to(device)
        everyone = torch.ones(len(training), dtype=torch.bool)
        trainee = Trainee(backbone.network, backbone.layer, names, everyone, self.steps, device)

        task = pose(training, replace(self.options, scaling="none", balanced=False, around_head=False))
        order = order_by_path(training)
        trainee.set_head(*closed_form_head(task, order, bias=trainee.head.bias is not None))

        def opened(samples: Samples) -> ImageBatches:
            return ImageBatches(samples.manifest, backbone, device, self.batch_size, self.workers, silent)

        self._train(trainee, opened(training), task.labels, task.weights / task.weights.mean(), order, seed)
        predicted = torch.empty(len(test), dtype=torch.int64)
        with torch.no_grad():
            for rows, images in opened(test).batches(np.arange(len(test))):
                predicted[rows] = trainee.logits(trainee.features(images)).argmax(dim=1).cpu()
        return np.array(classes, dtype=object)[predicted.numpy()]

    def _train(
        self,
        trainee: Trainee,
        images: ImageBatches,
        labels: Tensor,
        weights: Tensor,
        order: Tensor,
        seed: int,
    ) -> None:
        """All epochs.

        Args:
            trainee: With its head set.
            images: (n) of the training set.
            labels: (n,) int64.
            weights: (n,) float64 of mean 1.
            order: (n,) row numbers, as for `epoch_order`.
            seed: Of the epochs' orders.
        """
        step, n_steps = 0, self.epochs * -(-len(labels) // self.batch_size)
        for epoch in range(self.epochs):
            for rows, batch in images.batches(epoch_order(order, seed, epoch).numpy()):
                rate = learning_rate_share(step, n_steps)
                trainee.step(batch, labels[rows], weights[rows], rate, len(rows))
                step += 1
