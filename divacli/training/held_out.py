"""Held-out images that a network under training is tried on, and by which nothing is decided."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from divacli.features.samples import failures_of, undecodable
from divacli.images.failures import left_out
from divacli.progress import Progress
from divacli.training.image_batches import ImageBatches
from divacli.training.trainee import Trainee


class TestSet:
    """Held-out images with labels.

    Args:
        images: Those that cannot be used are left out as soon as that is known.
        classes: The label of each output.
        strict: Whether there must be none of these.
        told: Takes sentences for the user.

    Raises:
        DataError: A label is none of the classes.
    """

    def __init__(
        self, images: ImageBatches, classes: list[str], *, strict: bool, told: Callable[[str], None]
    ) -> None:
        self.images = images
        self._labels = images.manifest.class_numbers(classes)
        self._weights = images.manifest.table["weight"].to_numpy(float)
        self._strict, self._told = strict, told

    def errors(self, trainee: Trainee, progress: Progress, check: Callable[[], None]) -> tuple[float, float]:
        """Share of wrong predictions, and its mean over the classes of the test set.

        Args:
            trainee: The network.
            progress: Told of every image.
            check: Called where the work can be stopped.

        Raises:
            DataError: An image cannot be used where that is not allowed, or none of positive weight can.
        """
        known = len(self.images.failed)
        wrong = np.zeros(len(self._labels))
        with progress("testing", len(self.images.usable)) as advance, torch.no_grad():
            for rows, batch in self.images.batches(self.images.usable, lenient=True):
                predicted = trainee.logits(trainee.features(batch)).argmax(dim=1).cpu().numpy()
                wrong[rows.numpy()] = predicted != self._labels[rows.numpy()]
                advance(len(rows))
                check()
        counted = self.images.usable[self._weights[self.images.usable] > 0]
        self._look_at_failures(known, n_counted=len(counted))
        weights = self._weights[counted]
        classes = np.unique(self._labels[counted], return_inverse=True)[1]
        plain, _ = mean_over_groups(wrong[counted], weights, np.zeros_like(classes))
        by_class, _ = mean_over_groups(wrong[counted], weights, classes)
        return plain, by_class

    def _look_at_failures(self, known: int, *, n_counted: int) -> None:
        """Say once what is left out, or refuse to go on."""
        failures = failures_of(self.images.manifest, self.images.failed)
        if len(failures) and (self._strict or not n_counted):
            raise undecodable(failures, f"{self.images.manifest.name}: {len(failures):,} of its images")
        if len(failures) > known:
            self._told(left_out(failures, "test images"))


def mean_over_groups(values: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """The mean over groups of their weighted means, and its standard error.

    The samples could have been others, the groups not. In a single group with weights of 1 and values of 0 or
    1 the standard error is the binomial `sqrt(p (1 - p) / n)`.

    Args:
        values: (n,).
        weights: (n,) positive.
        groups: (n,) numbers 0, 1, ..., each of which occurs.
    """
    share = weights / np.bincount(groups, weights)[groups]
    means = np.bincount(groups, share * values)
    deviation = share * (values - means[groups])
    return float(means.mean()), float(np.sqrt(deviation @ deviation)) / len(means)
