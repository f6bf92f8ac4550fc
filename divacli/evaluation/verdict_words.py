"""Who won, in a sentence."""

from __future__ import annotations

from collections.abc import Callable

from divacli.evaluation.evaluate import Evaluation
from divacli.evaluation.verdicts import Verdict


def verdict_sentences(evaluation: Evaluation) -> dict[str, str]:
    """Who won, by learner: the best manifest, and what is known of its lead over each rival."""
    return {
        learner: " ".join(parts(evaluation, learner, str))
        for learner in dict.fromkeys(verdict.learner for verdict in evaluation.verdicts)
    }


def parts(evaluation: Evaluation, learner: str, called: Callable[[str], str]) -> list[str]:
    """The beginning of a learner's sentence in one or two parts, then a part for each rival.

    Args:
        evaluation: What is told.
        learner: Name of one.
        called: From the name of a training set to the name that is shown.
    """
    summary = evaluation.summary
    rows = summary[summary["learner"] == learner]
    error = dict(zip(rows["training_set"], rows["test_error"], strict=True))
    verdicts = [verdict for verdict in evaluation.verdicts if verdict.learner == learner]
    manifests = list(dict.fromkeys(verdict.training_set for verdict in verdicts))
    best = min(manifests, key=lambda name: error[name])
    verdicts = [verdict for verdict in verdicts if verdict.training_set == best]
    name = called(best) + (f" (best of {len(manifests)})" if len(manifests) > 1 else "")
    if not any(verdict.more_than_chance for verdict in verdicts):
        unsure = any(verdict.low is None for verdict in verdicts)
        none = "no difference is known to be" if unsure else "no difference that is"
        start = [f"{learner}: {none} more than chance:", f"{name} {_percent(error[best])},"]
        ends = [
            f"{called(verdict.rival)} {_percent(error[verdict.rival])} "
            f"({_difference(verdict, verdict is verdicts[0])})"
            for verdict in verdicts
        ]
    else:
        start = [f"{learner}: {name} has the lowest error, {_percent(error[best])}:"]
        lowest = min((best, *(verdict.rival for verdict in verdicts)), key=lambda name: error[name])
        if lowest != best:
            start = [
                f"{learner}: {called(lowest)} has the lowest error, {_percent(error[lowest])};",
                f"{name} has {_percent(error[best])}:",
            ]
        ends = [
            f"{_lead(verdict)} {called(verdict.rival)} ({_chance(verdict, verdict is verdicts[0])})"
            for verdict in verdicts
        ]
    return [*start, *(f"{end}," for end in ends[:-1]), f"{ends[-1]}."]


def _lead(verdict: Verdict) -> str:
    side = "below" if verdict.difference <= 0 else "above"
    return f"{100 * abs(verdict.difference):.1f} points {side}"


def _chance(verdict: Verdict, first: bool) -> str:
    """The interval of a lead, and whether it is more than chance."""
    if verdict.low is None or verdict.high is None:
        return "one run: no interval"
    known = _interval_name(verdict) if first else ""
    if not verdict.more_than_chance:
        return f"{known}{_signed(verdict.low)} to {_signed(verdict.high)}: may be chance"
    ends = sorted((abs(verdict.low), abs(verdict.high)))
    return f"{known}{100 * ends[0]:.1f} to {100 * ends[1]:.1f}: more than chance"


def _difference(verdict: Verdict, first: bool) -> str:
    """A difference that may be chance, and its interval."""
    name = "difference " if first else ""
    if verdict.low is None or verdict.high is None:
        return f"{name}{_signed(verdict.difference)}, one run: no interval"
    known = _interval_name(verdict) if first else ""
    return f"{name}{_signed(verdict.difference)}, {known}{_signed(verdict.low)} to {_signed(verdict.high)}"


def _interval_name(verdict: Verdict) -> str:
    return f"{100 * verdict.confidence:.3g} % interval "


def _signed(share: float) -> str:
    """Percentage points; what rounds to nothing has no sign."""
    points = round(100 * share, 1)
    return f"{points:+.1f}" if points else "0.0"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
