"""What results say, in sentences: the same for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from divacli.results.names import AGGREGATE, EXTEND, PRUNE, RELABEL, REWEIGHT, SUMMARY
from divacli.solve.provenance import left_out

UNTOLD = 0.5
"""Width of the interval of a share beyond which it is no figure to show."""

_WIDE = 0.05
"""Width of the interval from which on its reason is given."""

_PAIRS = 5


@dataclass(frozen=True)
class Sentence:
    """A sentence, without the capital and the full stop that a page gives it.

    Attributes:
        lead: Its beginning, where that matters most.
        rest: What follows.
    """

    lead: str
    rest: str = ""


@dataclass(frozen=True)
class Tile:
    """One figure with its name."""

    name: str
    value: str


def score_sentences(summary: Mapping[str, Any]) -> Iterator[Sentence]:
    """What `summary.json` says.

    Args:
        summary: Its content.
    """
    n, harmful = summary["n_samples"], summary["n_harmful"]
    failed = f", {summary['n_failed']:,} left out (see failed)" if summary["n_failed"] else ""
    yield Sentence(
        "",
        f"{n:,} samples{failed}, {summary['n_classes']:,} classes, {summary['n_features']:,} features each",
    )
    yield from groups_sentences(summary)
    yield Sentence(
        "",
        f"{left_out(summary)} loss {summary['loo_loss']:.4f}, error {summary['loo_error']:.1%} "
        f"(ridge {summary['ridge']:.3g})",
    )
    if "validation_loss" in summary:
        yield Sentence(
            "",
            f"validation loss {summary['validation_loss']:.4f}, error {summary['validation_error']:.1%} "
            f"over {summary['n_validation']:,} samples: derivatives are of their loss",
        )
    yield Sentence(
        f"{harmful:,} samples ({harmful / n:.1%}) are harmful",
        ": their derivative is positive, so more of them raises the loss and less lowers it; "
        f"{summary['n_significant']:,} of them beyond noise",
    )
    yield noise_sentence(summary)
    yield from first_sentence(summary)


def groups_sentences(about: Mapping[str, Any]) -> Iterator[Sentence]:
    """That whole groups are left out, where they are.

    Args:
        about: A summary, or as from `divacli.solve.provenance.grouping`.
    """
    if about.get("group") is not None:
        yield Sentence("", f"leave-group-out: {about['n_groups']:,} groups of {about['group']}")


def noise_sentence(summary: Mapping[str, Any]) -> Sentence:
    """How many labels are wrong, why that is not sure, and which ones to look at first."""
    low, high = summary["noise_interval"]
    found = f"{summary['noise_rate']:.1%} of the labels are wrong"
    if high - low > UNTOLD:
        found = "how many labels are wrong cannot be told"
    why = ""
    if high - low > _WIDE and summary.get("confused") is not None:
        why = f": the features confuse {summary['confused']:.0%} of the samples themselves"
    return Sentence(
        found,
        f" by the label-noise model (between {low:.1%} and {high:.1%}{why}); "
        f"{summary['mislabelled']['n']:,} are more likely wrong than right; "
        f"{summary['n_outliers']:,} samples are outliers",
    )


def first_sentence(summary: Mapping[str, Any]) -> Iterator[Sentence]:
    """The labels to look at first, however improbable an error is."""
    first = [
        f"{found['path']} ({found['label']} → {found['suggested_label']}, "
        f"{found['mislabel_probability']:.0%})"
        for found in summary.get("first", ())
    ]
    if first:
        yield Sentence("", f"look first at {', '.join(first)}")


def most_confused_words(summary: Mapping[str, Any]) -> str:
    """The most frequent confusions, "" where there are none."""
    return ", ".join(
        f"{pair['given']} → {pair['suggested']} ({pair['expected']:.0f})"
        for pair in summary["confusions"][:_PAIRS]
    )


def summary_sentences(summaries: Mapping[str, Mapping[str, Any]]) -> Iterator[Sentence]:
    """What all summaries of a folder say.

    Args:
        summaries: Content of the JSON files by name.
    """
    if SUMMARY in summaries:
        yield from score_sentences(summaries[SUMMARY])
        if summaries[SUMMARY]["confusions"]:
            yield Sentence(
                "", f"most frequent, given → suggested: {most_confused_words(summaries['summary'])}"
            )
    if PRUNE in summaries:
        yield from _prune(summaries[PRUNE])
    if RELABEL in summaries:
        found = summaries[RELABEL]
        yield Sentence(
            f"{found['n_corrected']:,} labels corrected by diva relabel",
            f"; {found['n_unclear']:,} stay because no single class is more probable, and "
            f"{found['n_outliers']:,} as outliers; wrong labels expected: {found['noise_rate']:.1%} before, "
            f"{found['noise_rate_after']:.1%} after",
        )
    if REWEIGHT in summaries:
        yield _reweight(summaries[REWEIGHT])
    for name in (EXTEND, AGGREGATE):
        if name in summaries:
            yield _choice(name, summaries[name])


def tiles(summaries: Mapping[str, Mapping[str, Any]]) -> list[Tile]:
    """The figures to see first."""
    summary = summaries.get(SUMMARY)
    if summary is None:
        return []
    low, high = summary["noise_interval"]
    rate = f"{summary['noise_rate']:.1%}" if high - low <= UNTOLD else "unknown"
    return [
        Tile("samples", f"{summary['n_samples']:,}"),
        Tile("leave-one-out error", f"{summary['loo_error']:.1%}"),
        Tile("labels wrong, estimated", rate),
        Tile("labels called wrong", f"{summary['mislabelled']['n']:,}"),
        Tile("harmful samples", f"{summary['n_harmful']:,}"),
        Tile("outliers", f"{summary['n_outliers']:,}"),
    ]


def _prune(prune: Mapping[str, Any]) -> Iterator[Sentence]:
    n = prune["n_kept"] + prune["n_dropped"]
    found = prune.get("forecast")
    told = ""
    if found is not None:
        before, after = found["error"]["nothing"], found["error"][found["chosen"]]
        told = (
            f": forecast error on new images {before:.1%} with all of them, {after:.1%} without the "
            f"{prune['n_chosen']:,} chosen to go"
        )
    yield Sentence(f"{prune['n_kept']:,} of {n:,} samples kept by diva prune", told)


def _reweight(found: Mapping[str, Any]) -> Sentence:
    history = found["history"]
    return Sentence(
        f"{len(history) - 1:,} steps taken by diva reweight",
        f": mean {found['loss']} loss {history[0]['loss']:.4f} before, {history[-1]['loss']:.4f} after; "
        f"{found['n_zero']:,} weights are 0, and the rest counts like {found['effective_samples']:,.0f} "
        "samples of equal weight",
    )


def _choice(name: str, found: Mapping[str, Any]) -> Sentence:
    loss, error = found["loss"], found["error"]
    return Sentence(
        f"{found['n_selected']:,} of {found['n_pool']:,} samples of the pool chosen by diva {name}",
        f": loss {loss['before']:.4f} before, {loss['after']:.4f} after; error {error['before']:.1%} before, "
        f"{error['after']:.1%} after",
    )
