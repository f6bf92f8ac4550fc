"""A check of the label-noise model by disagreements, and the model that takes its place where it fails.

The model fails on features of a network that was trained on these labels: it then finds hardly any of them
wrong, with confidence. `disagreement.py` says how many disagreements are wrong labels. Where the model
explains clearly fewer, a label is judged by its most probable rival instead,

    p(wrong) = sigmoid(log q(rival | f) - log q(label | f) + rivalry)

with the `rivalry` by which the disagreements have this share. Between classes where labels go one way it is
at least 0: where predictions and labels disagree that way, a label is more likely wrong than right.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from divacli.ridge.labels.disagreement import Disagreement
from divacli.ridge.labels.mistakes import LEARNED, RANDOM
from divacli.ridge.labels.noise_choice import Trials
from divacli.ridge.labels.noise_fit import Labelled, NoiseModel, ahead_of_rival

_EXPLAINED = 0.85
"""Part of the second estimate below which the model contradicts it."""

_LIKELIER = 0.004
"""Nats a sample by which mistakes in pairs must be likelier as learned ones."""

_EVERY, _MOST = 0.55, 0.9
"""Share of the disagreements from which every one is called wrong if the model explains less than half of it,
and the largest that is believed."""

_LITTLE, _EVERY_THEN = 0.25, 0.33
"""Part of the share below which the model explains next to nothing. The network has learned much then, labels
of the second classes as well, and the share is too low: from the second number on every disagreement is
called wrong."""

_MOST_RIVALRY, _STEPS = 6.0, 50


def checked(
    model: NoiseModel, samples: Labelled, seen: Disagreement, trials: Trials, weakest: float
) -> NoiseModel | None:
    """Judge labels by their rivals where disagreements contradict the model; None where they do not.

    Args:
        model: The chosen one.
        samples: All that it was fitted to.
        seen: What their disagreements say.
        trials: Fits to the samples of the choice.
        weakest: Strength of the weakest prior of the pairs.
    """
    estimate = max(seen.share, seen.one_way)
    others = disagreeing(samples)
    if estimate == 0 or len(others) == 0:
        return None
    explained = float(model.wrong(samples.part(others)).mean())
    in_pairs = seen.one_way > 0 and explained < 0.5 and _learned_in_pairs(trials, weakest)
    if explained >= _EXPLAINED * estimate and not in_pairs:
        return None
    plain = _plain(trials(RANDOM, math.inf, sharp=True).model)
    base = _rivalry(plain, samples.part(others), min(seen.share, _MOST))
    rivalry = torch.full_like(plain.mistakes.pairs, base)
    little = explained < _LITTLE * seen.share
    if seen.share > (_EVERY_THEN if little else _EVERY) and explained < seen.share / 2:
        rivalry = rivalry.clamp_min(0)
    elif seen.one_way:
        rivalry[seen.ways] = max(0.0, base)
    return replace(plain, rivalry=rivalry)


def disagreeing(samples: Labelled) -> Tensor:
    """Numbers (b,) of the samples whose prediction is another class than the label."""
    return (samples.predictions.argmax(dim=1) != samples.labels).nonzero()[:, 0]


def _plain(model: NoiseModel) -> NoiseModel:
    """The model with the order of the predictions: its matrix and bias may have learned mistakes."""
    found = model.calibration
    heat = found.inverse_temperature * torch.eye(len(found.bias), dtype=torch.float64)
    return replace(model, calibration=replace(found, mixing=heat, bias=torch.zeros_like(found.bias)))


def _learned_in_pairs(trials: Trials, strength: float) -> bool:
    """Whether mistakes in pairs are likelier if the network has learned them."""
    gain = trials(LEARNED, strength).value - trials(RANDOM, strength).value
    return gain > _LIKELIER * trials.n


def _rivalry(model: NoiseModel, samples: Labelled, share: float) -> float:
    """The same rivalry of all classes by which this share of the labels is wrong, by bisection."""
    ahead, _ = ahead_of_rival(model.calibration.logs(samples.predictions), samples.labels[:, None])
    low, high = -_MOST_RIVALRY, _MOST_RIVALRY
    for _ in range(_STEPS):
        middle = (low + high) / 2
        wrong = float((1 - torch.sigmoid(ahead - middle)).mean())
        low, high = (low, middle) if wrong >= share else (middle, high)
    return high
