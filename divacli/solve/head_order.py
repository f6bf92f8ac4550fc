"""Which class each output of a trained head stands for: found by what the head predicts.

A head has no names. torchvision's `ImageFolder` numbers the folders 0 to 11 as text, 0, 1, 10, 11, 2, where
this program numbers them by value. So the orders that people train in are candidates, and the one is taken
that the head's own predictions agree with. Labels may be wrong, and are under suspicion here: they choose
among the candidates, and no order of their own making is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from divacli.backbones import HEAD_ASIDE
from divacli.errors import Advice, ModelError, listed
from divacli.features import Samples
from divacli.features.samples import order_by_path
from divacli.ridge import LinearOutput
from divacli.run_record import current

_LOOKED_AT = 20_000
"""Samples whose predictions are looked at, at the most, evenly spaced."""

_ROWS = 1024
"""Samples whose features are in memory at a time."""

_CLEAR = 2.0
"""Standard deviations by which an agreement must exceed another one, or chance."""

_ENOUGH = 0.2
"""Share of the way from chance to perfect agreement that is enough, however few the samples."""

_BETTER_ELSEWHERE = 0.05
"""Share of the samples by which another order must agree more for the head to be refused."""

_MOST_MATCHED = 4096
"""Classes that other orders are sought for, at the most: a matching needs a square table of them."""

_NAMED = 30
"""Outputs that a message names."""


@dataclass(frozen=True)
class HeadOrder:
    """What the outputs of a head stand for, and how far the labels agree.

    Attributes:
        names: (k,) the class of each output.
        source: Whose order that is, for people.
        places: (k,) int64 class number of each output.
        agreeing: (n,) bool, the samples whose label is what the head predicts in this order.
        numbered_agreement: Share of the samples that agree in the order of the class numbers.
    """

    names: tuple[str, ...]
    source: str
    places: Tensor
    agreeing: Tensor
    numbered_agreement: float

    @property
    def agreement(self) -> float:
        """Share of the samples that agree."""
        return float(self.agreeing.double().mean())

    @property
    def moved(self) -> bool:
        """Whether the order is another one than that of the class numbers."""
        return bool((self.places != torch.arange(len(self.places))).any())

    @property
    def rows(self) -> Tensor:
        """(k,) int64 output of each class number: the head's rows in the order of the classes."""
        return self.places.argsort()

    @property
    def note(self) -> str:
        """A sentence that says which order was taken."""
        by_number = [self.names[row] for row in self.rows.tolist()]
        return (
            f"the outputs of the network's head are taken in the order of {self.source}: "
            f"{listed(list(self.names))}. They agree with {self.agreement:.1%} of the labels so, and with "
            f"{self.numbered_agreement:.1%} in the order {listed(by_number)}"
        )


def best_order(
    outputs: Tensor, labels: Tensor, classes: Sequence[str], known: Sequence[str] | None = None
) -> HeadOrder:
    """The order of a head's outputs that the labels agree with most; of equals that of the class numbers.

    Args:
        outputs: (n,) int64 the largest output of each sample.
        labels: (n,) int64 class numbers.
        classes: (k,) label of each class number.
        known: (k,) label of each output, the same labels, as it was written down: then it is this order.
    """
    candidates = [("the class numbers", list(classes)), ("torchvision's ImageFolder", sorted(classes))]
    if known is not None:
        candidates = [("the file beside the checkpoint", list(known))]
    number = {name: place for place, name in enumerate(classes)}
    by_number = float((outputs == labels).double().mean())
    found = []
    for source, names in candidates:
        places = torch.tensor([number[name] for name in names])
        found.append(HeadOrder(tuple(names), source, places, places[outputs] == labels, by_number))
    return max(found, key=lambda order: int(order.agreeing.sum()))


def ordered_head(samples: Samples, labels: Tensor, classes: list[str]) -> tuple[Tensor, Tensor]:
    """Weight (k, d) and bias (k,) of the network's own head, its rows in the order of the classes.

    An order that is not that of the class numbers is told to the user.

    Args:
        samples: (n) with a head.
        labels: (n,) int64 class numbers.
        classes: (k,) label of each class number.

    Raises:
        ModelError: There is no head, it has another number of outputs, another order of the outputs agrees
            clearly better, or none better than chance.
    """
    weight, bias = require_head(samples)
    if len(weight) != len(classes):
        raise ModelError(
            f"--around-head: the network's head has {len(weight)} classes, the data {len(classes)}",
            expected="the same number, in the order of the labels sorted as text or by value",
            hint="leave --around-head out for a fresh head",
        )
    rows = _looked_at(samples)
    outputs = predicted_outputs(LinearOutput(samples.features, weight, bias), rows)
    order = best_order(outputs, labels[rows], classes)
    require_fitting(order, outputs, labels[rows], classes)
    if not order.moved:
        return weight, bias
    current().tell_once(order.note)
    return weight[order.rows], bias[order.rows]


def require_head(samples: Samples) -> tuple[Tensor, Tensor]:
    """Weight (k, d) and bias (k,) of the network's own head, as it has them.

    Raises:
        ModelError: The features feed none.
    """
    if samples.head is None:
        if aside := next((note for note in samples.notes if note.startswith(HEAD_ASIDE)), None):
            raise ModelError(
                f"--around-head: the network was loaded without its head; {aside}",
                expected="a checkpoint whose head is the network's own last layer",
                hint="leave --around-head out for a fresh head, or build the network with that head in a "
                "factory: --model FILE.py:FACTORY",
            )
        raise ModelError(
            "--around-head: these features feed no linear layer that is the network's output",
            expected="the input of the network's last linear layer as features, or among them",
            hint="leave --around-head (and --layer) out; with --linearize use head+block:NAME or full",
        )
    return samples.head


def _looked_at(samples: Samples) -> Tensor:
    """Rows (m,) int64 of the samples that count, evenly spaced by path."""
    weights = torch.from_numpy(samples.manifest.table["weight"].to_numpy(float, copy=True))
    order = order_by_path(samples)
    counted = order[weights[order] > 0]
    counted = counted if len(counted) else order
    return counted[:: max(1, -(-len(counted) // _LOOKED_AT))]


def predicted_outputs(head: LinearOutput, rows: Tensor) -> Tensor:
    """Number (m,) int64 of the largest output for each of some rows (m,) int64."""
    return torch.cat([rows[:0], *(head[part].argmax(dim=1).cpu() for part in rows.split(_ROWS))])


def require_fitting(order: HeadOrder, outputs: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    """Refuse a head whose outputs stand for other classes than these, or for none.

    Args:
        order: The best one of the candidates.
        outputs: (n,) int64 the largest output of each sample.
        labels: (n,) int64 class numbers.
        classes: (k,) label of each class number.

    Raises:
        ModelError: It is such a head.
    """
    counts = _counts(outputs, labels, len(classes)) if len(classes) <= _MOST_MATCHED else None
    if counts is not None and _fits_elsewhere(order, outputs, labels, counts):
        matched = _matched(counts)
        # Of an output that is never the largest, nothing is known.
        seen = [name if counts[place].any() else "?" for place, name in enumerate(_named(matched, classes))]
        share = int(counts[torch.arange(len(classes)), matched].sum()) / len(outputs)
        raise ModelError(
            f"--around-head: the network's outputs agree with {order.agreement:.1%} of the labels, and in "
            f"another order with {share:.1%}: the outputs 0, 1, 2, ... mostly come with the labels "
            f"{listed(seen, limit=_NAMED)}",
            expected=f"outputs in the order {listed(list(order.names), limit=_NAMED)}",
            hint=Advice(
                "rename the classes so that sorting puts them in the order of the outputs, reorder the last "
                "layer's rows, or leave {around_head} out for a fresh head"
            ),
        )
    chance, spread = _by_chance(outputs, labels, len(classes))
    n, agreeing = len(labels), int(order.agreeing.sum())
    # Of a few samples, even a good head's agreement is within what chance may do.
    enough = min(_CLEAR * spread, _ENOUGH * (n - chance))
    if agreeing <= chance or agreeing - chance < enough:
        raise ModelError(
            f"--around-head: the network's outputs agree with {order.agreement:.1%} of the labels, and "
            f"chance alone gives {chance / max(n, 1):.1%}",
            expected=f"a head trained for these classes, in the order {listed(list(order.names))}",
            hint=Advice("leave {around_head} out for a fresh head, or name the checkpoint that was trained"),
        )


def _named(places: Tensor, classes: Sequence[str]) -> list[str]:
    return [classes[place] for place in places.tolist()]


def _counts(outputs: Tensor, labels: Tensor, k: int) -> Tensor:
    """Samples of each output (row) and each label (column), (k, k) int64."""
    return torch.bincount(outputs * k + labels, minlength=k * k).view(k, k)


def _matched(counts: Tensor) -> Tensor:
    """The class (k,) int64 of each output, one to one, that together have the most samples."""
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    return torch.from_numpy(linear_sum_assignment(counts.numpy(), maximize=True)[1])


def _fits_elsewhere(order: HeadOrder, outputs: Tensor, labels: Tensor, counts: Tensor) -> bool:
    """Whether the best matching of outputs and classes agrees clearly better than an order does.

    It is found on each half of the samples and judged on the other: on its own it always looks better.
    """
    most = counts.max(dim=1).values.sum()
    if int(most - order.agreeing.sum()) <= _BETTER_ELSEWHERE * len(labels):
        return False
    # At random: of rows in turn, a half may have every other class.
    half = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)) % 2 == 0
    gain = torch.zeros(len(labels), dtype=torch.float64)
    for found, judged in ((half, ~half), (~half, half)):
        matched = _matched(_counts(outputs[found], labels[found], len(order.places)))
        right = matched[outputs[judged]] == labels[judged]
        gain[judged] = right.double() - order.agreeing[judged].double()
    error = float(gain.std(correction=0)) / max(len(gain), 1) ** 0.5
    return float(gain.mean()) > max(_BETTER_ELSEWHERE, _CLEAR * error)


def _by_chance(outputs: Tensor, labels: Tensor, k: int) -> tuple[float, float]:
    """Mean and standard deviation of how many samples agree if the labels are shuffled.

    Both keep how often each output and each label occurs. So a head that was trained on balanced classes is
    not measured against naming the most frequent one.
    """
    n = len(labels)
    if n < 2:
        return float(n), 0.0
    given = torch.bincount(labels, minlength=k).double()
    predicted = torch.bincount(outputs, minlength=k).double()
    both = given * predicted
    # Variance of a trace of a table with given margins: hypergeometric cells and their covariances.
    own = float((both * (n - given) * (n - predicted)).sum())
    shared = float(both.sum() ** 2 - (both**2).sum())
    return float(both.sum()) / n, ((own + shared) / (n**2 * (n - 1))) ** 0.5
