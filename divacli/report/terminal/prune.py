"""What a person sees in the terminal of samples that were dropped."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from divacli.curate.prune import Pruning
from divacli.curate.prune_rules import Automatic
from divacli.errors import listed
from divacli.report.terminal.outlook import Deed, candidates, outlook_sentence, these
from divacli.report.terminal.plain import plain
from divacli.report.terminal.sentences import groups_line
from divacli.ridge import RANDOM


def automatic_summary(auto: Automatic) -> Iterator[RenderableType]:
    """How many labels are called wrong, how sure that is, and how many outliers go."""
    expected = auto.expectation
    sure = ""
    if expected.precision is not None and expected.recall is not None:
        sure = (
            f": about {expected.precision:.0%} of these should be wrong, and they should be about "
            f"{expected.recall:.0%} of all wrong labels"
        )
    yield Text(f"labels called wrong (probability above {auto.threshold:g}): {expected.n:,}{sure}")
    yield Text(f"outliers, like nothing else in the set: {auto.n_outliers:,}")


def prune_summary(pruning: Pruning) -> Iterator[RenderableType]:
    """What goes, by which rule, and what that should do to the error on new images."""
    n, chosen = len(pruning.decision.kept), pruning.n_chosen
    if pruning.auto is not None:
        yield from automatic_summary(pruning.auto)
    gone = chosen if pruning.written else 0
    yield Text.assemble((f"{n - gone:,} of {n:,} samples kept, {gone:,} dropped ({gone / n:.1%})", "bold"))
    if pruning.written and pruning.decision.rescued:
        yield Text("kept as the last of their class: ").append_text(plain(listed(pruning.decision.rescued)))
    yield from groups_line(pruning.scores.about)
    if pruning.outlook is None or not chosen:
        return
    yield from candidates(pruning.outlook)
    yield Text()
    yield Text(pruning_verdict(pruning), style="bold")


def pruning_verdict(pruning: Pruning) -> str:
    """The sentence that a person acts on; "" without a forecast."""
    if pruning.outlook is None:
        return ""
    n, at_random = pruning.n_chosen, "dropping as many at random"
    if pruning.outlook.chosen == RANDOM:
        at_random = ""
    deed = Deed(f"dropping {these(n)}", at_random, "keep everything", "dropping")
    return outlook_sentence(pruning.outlook, deed, written=pruning.written) + "."
