"""Show in the terminal what `diva apply` changed."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from divacli.report.terminal.plain import plain
from divacli.review.apply import ApplyResult

_SHOWN = 5


def apply_summary(result: ApplyResult) -> Iterator[RenderableType]:
    """How many samples stay, go and have another label, and which labels changed most."""
    summary = result.summary
    yield Text(
        f"{summary['n_kept']:,} of {summary['n_samples']:,} samples stay, {summary['n_relabelled']:,} "
        f"of them with another label; {summary['n_dropped']:,} are removed",
        style="bold",
    )
    if summary["n_undecided"]:
        yield Text(f"nothing was decided about {summary['n_undecided']:,}, which stay as they are")
    if summary["relabelled"]:
        pairs = [f"{pair['given']} → {pair['label']} ({pair['n']:,})" for pair in summary["relabelled"]]
        yield Text("most frequent, given → now: ").append_text(plain(", ".join(pairs[:_SHOWN])))
