"""How far each label can be trusted when a decision is judged by folds."""

from __future__ import annotations

import torch

from divacli.curate.sample_scores import label_noise
from divacli.curate.wrong_labels import MORE_LIKELY_WRONG
from divacli.ridge import RidgeTask, loo_predictions, moments, predictable

_MOST_JUDGED = 1000
"""Classes beyond which every label is trusted: a noise model of more would take longer than all the rest."""


def label_trust(task: RidgeTask, ridge: float, order: torch.Tensor, seed: int) -> torch.Tensor:
    """Probability (n,) float64 that each label is right, by a noise model of the samples left out.

    Args:
        task: The samples.
        ridge: lambda.
        order: (n,) row numbers sorted by path.
        seed: Of what is drawn at random.

    Returns:
        1 for all where there are more than `_MOST_JUDGED` classes.
    """
    if task.n_classes > _MOST_JUDGED:
        return torch.ones(len(task), dtype=torch.float64)
    fit = moments(task).fit(ridge)
    noise = label_noise(task, fit, order, seed)
    left_out_alone = loo_predictions(task, fit, torch.arange(len(task)))
    right = noise.model.posterior(left_out_alone, task.labels).gather(1, task.labels[:, None])[:, 0]
    # No verdict: an average label.
    return torch.where(predictable(task), right, 1 - min(noise.rate, MORE_LIKELY_WRONG))
