"""How a label goes wrong: how often, where, and into which other label.

A sample of the true class c is given a wrong label with the probability

    e(c, f) = sigmoid(a_c - growth * v(f)),    v(f) = logit max q(. | f) - 2, between -4 and 4

`q` are the probabilities of the classes by the left-out prediction `f`. With `growth` 0 a class has one rate.
With `growth` above 0 mistakes are more frequent where the prediction is unsure. The wrong label is y with

    R[c, y] q(y | f)^likeness / sum over all other labels

With `likeness` 0 the true class alone decides; above 0 a label is the likelier, the more the sample looks
like it.

The two numbers cannot be learned from the labels: where mistakes and predictions are unsure in the same
places, either may explain the other. So there are three pairs of them. Each is an assumption about who made
the mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

USUAL = 2.0
"""Logit of the largest probability at which a class has its rate `a_c`: 0.88."""

REACH = 4.0
"""Logits to either side of it, beyond which the rate stays."""

LEAST, LEAST_LOG = 1e-300, -690
"""The least probability, and the least logarithm of one."""

MOST_SURE = 1 - 1e-9
"""The largest probability of a class."""


@dataclass(frozen=True)
class Shape:
    """Where mistakes happen and what they look like.

    Attributes:
        name: Who made them.
        growth: Decrease of the log-odds of a mistake for each logit that the prediction is surer.
        likeness: Power of the probability of a label by which it is chosen in the place of the true one.
    """

    name: str
    growth: float
    likeness: float


RANDOM = Shape("random", 0.0, 0.0)
"""Labels were moved whatever the sample looks like."""

PEOPLE = Shape("people", 0.2, 0.13)
"""People err where a sample is ambiguous, and give the label that it looks like. Fitted to the true labels
of CIFAR-10N: growth 0.25, 0.16 and 0.17 on its three sets of labels, likeness 0.18, 0.13 and 0.09."""

LEARNED = Shape("learned", 0.5, 0.35)
"""The network was trained on these labels: it is unsure of the samples whose labels are wrong, and has
learned a part of the wrong label. Fitted to true labels after four epochs of fine-tuning: 0.56 and 0.37."""


@dataclass(frozen=True)
class Mistakes:
    """How labels go wrong.

    Attributes:
        shape: Where, and what they look like.
        rates: (k,) float64 `a`, log-odds of a mistake in each class where a prediction is as sure as usual.
        pairs: (k, k) float64 `R`, rows sum up to 1 with 0 on the diagonal: the label by the true class.
    """

    shape: Shape
    rates: Tensor
    pairs: Tensor

    @classmethod
    def even(cls, shape: Shape, rate: float, k: int) -> Mistakes:
        """One rate for all classes, all other labels alike."""
        # Not quite 0: of what is impossible nothing can be learned.
        odds = torch.tensor(min(max(rate, 1e-12), 1 - 1e-12), dtype=torch.float64).logit()
        pairs = torch.full((k, k), 1 / max(k - 1, 1), dtype=torch.float64).fill_diagonal_(0)
        return cls(shape, odds.expand(k).clone(), pairs)

    def joint(self, logs: Tensor, labels: Tensor) -> Tensor:
        """`log q(c | f) + log p(y | c, f)`, (m, k).

        Args:
            logs: (m, k) `log q`.
            labels: (m,) int64 given labels `y`.
        """
        own = labels[:, None]
        odds = self.rates - self.shape.growth * surer(logs)[:, None]
        wrong = (torch.nn.functional.logsigmoid(odds) + self.into(logs, labels)).clamp_min(LEAST_LOG)
        right = torch.nn.functional.logsigmoid(-odds.gather(1, own))
        return logs + wrong.scatter(1, own, right)

    def into(self, logs: Tensor, labels: Tensor) -> Tensor:
        """Log-probability (m, k) of the label in the place of each true class, given that it is wrong."""
        chosen = self.pairs.T[labels]
        if self.shape.likeness:
            like = (self.shape.likeness * logs).exp()
            # A row is 0 only where a class has no other.
            chosen = chosen * like.gather(1, labels[:, None]) / (like @ self.pairs.T).clamp_min(LEAST)
        return chosen.clamp_min(LEAST).log()

    def moved(self, odds: float) -> Mistakes:
        """The same, with the log-odds of a mistake moved."""
        return replace(self, rates=self.rates + odds)

    def to(self, device: torch.device) -> Mistakes:
        """The same on another device."""
        return replace(self, rates=self.rates.to(device), pairs=self.pairs.to(device))


def surer(logs: Tensor) -> Tensor:
    """`v`, (m,): by how many logits a prediction is surer than usual.

    Args:
        logs: (m, k) log-probabilities of the classes.
    """
    most = logs.max(dim=1).values
    return (most - torch.log1p(-most.exp().clamp(max=MOST_SURE)) - USUAL).clamp(-REACH, REACH)


def one_rate(wrong: float, k: int) -> Tensor:
    """The (k, k) matrix in which every label is wrong at one rate, all others being equally likely."""
    # Not quite 0: of what is impossible nothing can be learned.
    wrong = min(max(wrong, 1e-12), 1 - 1e-12)
    return torch.full((k, k), wrong / (k - 1), dtype=torch.float64).fill_diagonal_(1 - wrong)
