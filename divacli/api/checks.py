"""Arguments that are refused before any work."""

from __future__ import annotations

from divacli.curate.pool_rule import ExtendOptions
from divacli.errors import DivaError
from divacli.solve.options import is_number, require_count


def require(name: str, value: object, right: bool, expected: str) -> None:
    """Refuse an argument.

    Raises:
        DivaError: It is not right.
    """
    if not right:
        raise DivaError(f"{name}={value!r}", expected=expected)


def require_decision(
    keep: float | str | None, threshold: float | None, budget: int | None, by: str, stratify: bool
) -> None:
    """Refuse options of `prune` that do not go together.

    Raises:
        DivaError: They do not.
    """
    automatic = isinstance(keep, str) and keep == "auto"
    if keep is not None and not automatic:
        right = is_number(keep) and 0 < float(keep) <= 1
        require("keep", keep, right, "'auto', or a fraction in (0, 1], such as 0.9")
    one = automatic or (keep is None) != (threshold is None)
    require("keep and threshold", (keep, threshold), one, "one of keep=FRACTION, keep='auto' and threshold")
    require("by", by, not automatic or by == "auto", "no rule with keep='auto', which goes by wrong labels")
    require(
        "stratify", stratify, not stratify or (keep is not None and not automatic), "keep=FRACTION with it"
    )
    require("budget", budget, budget is None or automatic, "a budget with keep='auto' only")
    require_count("budget", budget, 0)
    if threshold is not None:
        require("threshold", threshold, is_number(threshold), "a finite number")
    if threshold is not None and automatic:
        require("threshold", threshold, 0 <= threshold < 1, "a probability in [0, 1)")
    elif threshold is not None:
        require("by", by, by in ("auto", "derivative", "loo_loss"), "derivative or loo_loss with a threshold")


def step_size_of(step_size: float | str, steps: int | None, folds: int) -> float | None:
    """The size of a step; None where it is chosen.

    Raises:
        DivaError: A number is out of its range.
    """
    require_count("steps", steps, 1)
    require_count("folds", folds, 2)
    if step_size == "auto":
        return None
    right = is_number(step_size) and float(step_size) > 0
    require("step_size", step_size, right, "'auto' or a number above 0")
    return float(step_size)


def choice_of(budget: int | str | None, refit_every: int | None, min_trust: float) -> ExtendOptions:
    """How much may be chosen.

    Raises:
        DivaError: A number is out of its range.
    """
    require_count("refit_every", refit_every, 1)
    require("min_trust", min_trust, is_number(min_trust) and 0 <= min_trust <= 1, "a probability")
    share = None
    if isinstance(budget, str):
        try:
            share = float(budget.removesuffix("%")) / 100 if budget.endswith("%") else 0.0
        except ValueError:
            share = 0.0
        require("budget", budget, 0 < share <= 1, "a number of samples, or a share such as '25%'")
        budget = None
    require_count("budget", budget, 1)
    whole = None if budget is None else int(budget)
    return ExtendOptions(whole, refit_every, float(min_trust), share=share)
