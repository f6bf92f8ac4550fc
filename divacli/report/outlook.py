"""What a decision should do to the error on new images, in one sentence that a person acts on."""

from __future__ import annotations

from dataclasses import dataclass

from divacli.curate.outlook import Outlook
from divacli.ridge import NOTHING, RANDOM


@dataclass(frozen=True)
class Deed:
    """How a decision is called.

    Attributes:
        decision: A gerund with its object, such as "dropping these 784".
        at_random: The same of a random choice, such as "dropping as many at random"; "" where there is none.
        nothing: What to do in its place, such as "keep everything".
        kind: The gerund alone, such as "dropping".
        rival: Another decision and its error, such as "dropping them: 17.1"; "" where there is none.
    """

    decision: str
    at_random: str
    nothing: str
    kind: str
    rival: str = ""


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
    rival = f"; {deed.rival}" if deed.rival else ""
    if not outlook.pays and not written:
        return (
            f"Nothing to gain by {deed.kind}: {deed.nothing} (--force writes the choice all the same). "
            f"{_capital(deed.decision)} should raise the error on new images from {errors}{rival}"
        )
    verb = "should change"
    if change.high < 0:
        verb = "should lower"
    elif change.low > 0:
        verb = "should raise"
    said = f"{_capital(deed.decision)} {verb} the error on new images from {errors}"
    if verb == "should change":
        said += ", no more than chance may do"
    said += rival
    if deed.at_random:
        said += f"; {deed.at_random} {_random(outlook)}"
    return said


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
