"""Slopes of what the fit of the label-noise model adds up (`divacli.ridge.labels.noise_fit`), by hand.

Each function returns a value, and a function that carries the slope of the loss in this value back to what
the value was made of. Formulas and order of additions are those of automatic differentiation: the slopes are
the same to the last bit (torch 2.14). Without its records of operations a fit takes a third of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from divacli.ridge.labels import mistakes as limits
from divacli.ridge.labels.mistakes import Mistakes

_OPS = torch.ops.aten


def logs_back(
    scaled: Tensor, heat: Tensor, bias: Tensor, mixing: Tensor | None
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]]:
    """Log-probabilities (m, k) of the classes before the label is looked at.

    Args:
        scaled: (m, k) float64 predictions in units of their spread.
        heat: (2,) `log t` and `log g`, and so on as in `noise_fit`.
        bias: (k,) `b`.
        mixing: (k, k) `D`; None where it stays 0.

    Returns:
        Log-probabilities, and what carries their slope back to heat, bias and mixing.
    """
    exponent, sharpness = heat[0].exp(), heat[1].exp()
    inputs = sharpness * scaled
    small, kept = inputs < -30, inputs.clamp_min(-30)
    positive = softplus(kept)
    inner = torch.where(small, inputs, positive.log())
    mixed = inner if mixing is None else inner + inner @ mixing
    logs = torch.log_softmax(exponent * mixed + bias, dim=1)

    def back(slope: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        outer = _OPS._log_softmax_backward_data(slope, logs, 1, logs.dtype)
        hot = (outer * mixed).sum() * exponent
        into = outer * exponent
        of_mixing = None if mixing is None else inner.T @ into
        into = into if mixing is None else into + into @ mixing.T
        bent = _OPS.softplus_backward(torch.where(small, 0.0, into) / positive, kept, 1, 20)
        into = torch.where(small, into, 0.0) + torch.where(inputs >= -30, bent, 0.0)
        sharp = (into * scaled).sum() * sharpness
        return torch.stack([hot, sharp]), outer.sum(dim=0), of_mixing

    return logs, back


def joint_back(
    mistakes: Mistakes, logs: Tensor, labels: Tensor
) -> tuple[Tensor, Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]]:
    """`Mistakes.joint` (m, k).

    Args:
        mistakes: From the true class to the given label.
        logs: (m, k) log-probabilities before the label is looked at.
        labels: (m,) int64 given labels.

    Returns:
        It, and what carries its slope back: from that and a slope of `logs` by another way to the slopes of
        `logs`, of rates (k,) and of pairs (k, k).
    """
    own = labels[:, None]
    odds, odds_back = _odds_back(mistakes, logs)
    chosen, chosen_back = _chosen_back(mistakes, logs, labels)
    rare = chosen.clamp_min(limits.LEAST)
    gone, gone_buffer = _OPS.log_sigmoid_forward(odds)
    wrong = gone + rare.log()
    stays = -odds.gather(1, own)
    right, right_buffer = _OPS.log_sigmoid_forward(stays)
    joint = logs + wrong.clamp_min(limits.LEAST_LOG).scatter(1, own, right)

    def back(slope: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_logs = other + slope
        of_right = _OPS.log_sigmoid_backward(slope.gather(1, own), stays, right_buffer)
        of_wrong = torch.where(wrong >= limits.LEAST_LOG, slope.scatter(1, own, 0.0), 0.0)
        of_chosen = torch.where(chosen >= limits.LEAST, of_wrong / rare, 0.0)
        of_logs, of_pairs = chosen_back(of_chosen, of_logs)
        of_odds = torch.zeros_like(odds).scatter_add_(1, own, -of_right)
        of_odds = of_odds + _OPS.log_sigmoid_backward(of_wrong, odds, gone_buffer)
        return odds_back(of_odds, of_logs), of_odds.sum(dim=0), of_pairs

    return joint, back


def _odds_back(mistakes: Mistakes, logs: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """Log-odds (m, k) of a mistake in each class; the slope is added to that of `logs` by another way."""
    growth = mistakes.shape.growth
    if not growth:
        return mistakes.rates.expand(logs.shape).contiguous(), lambda slope, of_logs: of_logs
    most, place = logs.max(dim=1, keepdim=True)
    sure = most.exp()
    kept = sure.clamp(max=limits.MOST_SURE)
    logit = most - torch.log1p(-kept) - limits.USUAL
    odds = mistakes.rates - growth * logit.clamp(-limits.REACH, limits.REACH)

    def back(slope: Tensor, of_logs: Tensor) -> Tensor:
        surer = (-slope).sum(dim=1, keepdim=True) * growth
        surer = torch.where(logit.abs() <= limits.REACH, surer, 0.0)
        rest = torch.where(sure <= limits.MOST_SURE, surer / (1 - kept), 0.0) * sure
        return of_logs + torch.zeros_like(logs).scatter_(1, place, surer + rest)

    return odds, back


def _chosen_back(
    mistakes: Mistakes, logs: Tensor, labels: Tensor
) -> tuple[Tensor, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Probability (m, k) of the label in the place of each class; slopes of `logs`, added, and of pairs."""
    likeness, columns = mistakes.shape.likeness, mistakes.pairs.T
    by_class = columns[labels]

    def indexed(slope: Tensor) -> Tensor:
        return torch.zeros_like(columns).index_put_((labels,), slope, accumulate=True).T

    if not likeness:
        return by_class, lambda slope, of_logs: (of_logs, indexed(slope))
    own = labels[:, None]
    like = (likeness * logs).exp()
    itself, others = like.gather(1, own), like @ columns
    kept = others.clamp_min(limits.LEAST)
    above = by_class * itself

    def back(slope: Tensor, of_logs: Tensor) -> tuple[Tensor, Tensor]:
        of_above = slope / kept
        of_others = torch.where(others >= limits.LEAST, -slope * ((above / kept) / kept), 0.0)
        of_like = of_others @ mistakes.pairs
        of_itself = (of_above * by_class).sum(dim=1, keepdim=True)
        of_like = of_like + torch.zeros_like(like).scatter_add_(1, own, of_itself)
        of_pairs = of_others.T @ like + indexed(of_above * itself)
        return of_logs + (of_like * like) * likeness, of_pairs

    return above / kept, back


def right_slope(rates: Tensor) -> tuple[float, Tensor]:
    """`-logsigmoid(-mean of the rates)`, one sample more whose label is right, and its slope in the rates."""
    fewer = -rates.mean()
    value, buffer = _OPS.log_sigmoid_forward(fewer)
    of_mean = _OPS.log_sigmoid_backward(torch.ones_like(fewer), fewer, buffer)
    return -float(value), of_mean.expand_as(rates) / len(rates)


def dirichlet_slope(
    rates: Tensor, open_pairs: Tensor, strength: float, diagonal: Tensor
) -> tuple[float, Tensor, Tensor]:
    """The prior of pairs and rates, and its slopes in the rates (k,) and the unnormalised log pairs (k, k).

    Args:
        rates: (k,) log-odds of mistakes.
        open_pairs: (k, k) unnormalised log pairs, hardly possible on the diagonal.
        strength: Pseudo-counts of each class.
        diagonal: (k, k) bool.
    """
    mean = torch.sigmoid(rates.mean())
    rate, k = float(mean), len(rates)
    per_pair = rate / (k - 1)
    logs = torch.log_softmax(open_pairs, dim=1)
    right, right_buffer = _OPS.log_sigmoid_forward(-rates)
    wrong, wrong_buffer = _OPS.log_sigmoid_forward(rates)
    of_class = logs.masked_fill(diagonal, 0).sum(dim=1)
    density = (1 - rate) * right + rate * wrong + per_pair * of_class
    kept, pair = float(torch.log1p(-mean)), float((mean / (k - 1)).log())
    most = (1 - rate) * kept + rate * pair
    value = strength * float((most - density).sum())

    slope = torch.full_like(rates, -strength)
    total = float(-slope.sum())
    # Of tensors, for a rate may be 0 or 1: then no step is taken there.
    of_pair, of_kept = total * mean / (mean / (k - 1)), total * (1 - mean) / (1 - mean)
    of_rate = total * pair + float(of_pair) / (k - 1) - float(of_kept)
    of_rate = of_rate - total * kept + float((slope * of_class).sum()) / (k - 1)
    of_rate = of_rate + float((slope * wrong).sum()) - float((slope * right).sum())
    of_rates = _OPS.log_sigmoid_backward(slope * rate, rates, wrong_buffer)
    of_rates = of_rates - _OPS.log_sigmoid_backward(slope * (1 - rate), -rates, right_buffer)
    of_rates = of_rates + of_rate * (1 - rate) * rate / k
    of_logs = (slope * per_pair)[:, None].expand_as(logs).masked_fill(diagonal, 0)
    of_pairs = _OPS._log_softmax_backward_data(of_logs, logs, 1, logs.dtype)
    return value, of_rates, of_pairs.masked_fill(diagonal, 0)


def sharp_slope(
    heat: Tensor, n: int, k: int, floor: float, floor_strength: float
) -> tuple[float, float, float]:
    """The bound of what remains for all other labels together, and its slopes in `log t` and `log g`.

    Args:
        heat: (2,) `log t` and `log g`.
        n: Samples.
        k: Classes.
        floor: The bound.
        floor_strength: In nats a sample.
    """
    exponent, sharpness = heat[0].exp(), heat[1].exp()
    most = k / math.sqrt(k - 1)
    inputs = sharpness * most
    positive = softplus(inputs)
    fall = math.log(math.log(2)) - positive.log()
    above = float(torch.relu(exponent * fall + math.log(k - 1) - math.log(floor)))
    slope = n * floor_strength * (2 * above)
    sharp = _OPS.softplus_backward(-(slope * exponent) / positive, inputs, 1, 20) * most * sharpness
    return n * floor_strength * (above * above), float(slope * fall * exponent), float(sharp)
