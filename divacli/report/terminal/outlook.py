"""What a decision should do to the error on new images, in one sentence that a person acts on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table

from divacli.curate.outlook import Outlook
from divacli.report.terminal.tables import add_words, cell, listing
from divacli.ridge import NOTHING, RANDOM

_FEW_RIVALS = 3
"""Training sets of a forecast where there was one rule: nothing, the decision and a random choice."""


@dataclass(frozen=True)
class Deed:
    """How a decision is called.

    Attributes:
        decision: A gerund with its object, such as "dropping these 784".
        at_random: The same of a random choice, such as "dropping as many at random"; "" where there is none.
        nothing: What to do in its place, such as "keep everything".
        kind: The gerund alone, such as "dropping".
        rival: Another decision and its error, such as "dropping them: 17.1"; "" where there is none.
        advise: Whether a decision that is written is advised against where it does not pay.
    """

    decision: str
    at_random: str
    nothing: str
    kind: str
    rival: str = ""
    advise: bool = False


def these(n: int) -> str:
    """A number of samples that were just spoken of."""
    return "this one" if n == 1 else f"these {n:,}"


def outlook_sentence(outlook: Outlook, deed: Deed, *, written: bool) -> str:
    """The verdict.

    Args:
        outlook: The forecast.
        deed: How the decision is called.
        written: Whether the decision was carried out.
    """
    change, found = outlook.change, outlook.forecast
    before, after = found.error(NOTHING), found.error(outlook.chosen)
    errors = (
        f"{_percent(before)} to {_percent(after)} % (between {_percent(max(0.0, before + change.low))} and "
        f"{_percent(min(1.0, before + change.high))})"
    )
    advice = ""
    if not outlook.pays and (not written or deed.advise):
        force = "" if written else " (--force writes the choice all the same)"
        advice = f"Nothing to gain by {deed.kind}: {deed.nothing}{force}. "
    said = _capital(deed.decision)
    if _percent(before) == _percent(after):
        said += f" should leave the error on new images at {errors.split(' to ', 1)[1]}"
    elif change.high < 0:
        said += f" should lower the error on new images from {errors}"
    elif change.low > 0 or advice:
        said += f" should raise the error on new images from {errors}"
    else:
        said += f" should change the error on new images from {errors}, no more than chance may do"
    said = advice + said + (f"; {deed.rival}" if deed.rival else "")
    if deed.at_random and (written or deed.advise):
        said += f"; {deed.at_random} {_random(outlook)}"
    return said


def candidates(outlook: Outlook) -> Iterator[Table]:
    """Forecast error of each rule that was tried, where there are several."""
    found = outlook.forecast
    if len(found.wrong) <= _FEW_RIVALS:
        return
    shown = listing("error on new images", "change", "± error", "")
    add_words(shown, "rule")
    for name in found.wrong:
        change = found.change(name)
        moved = ("", "") if name == NOTHING else (f"{100 * change.mean:+.1f}", f"{100 * change.se:.1f}")
        chosen = name == outlook.chosen
        shown.add_row(
            f"{found.error(name):.1%}",
            *moved,
            "chosen" if chosen else "",
            cell(name),
            style="bold" if chosen else None,
        )
    yield shown


def _random(outlook: Outlook) -> str:
    found = outlook.forecast
    error, before = found.error(RANDOM), found.error(NOTHING)
    verb = "raise" if error > before else "lower"
    if _percent(error) == _percent(before):
        return f"would leave it at {_percent(error)}"
    return f"would {verb} it to {_percent(error)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
