"""All that `diva score` finds out of DATA: scores, copies, sums over groups, and what to warn of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from divacli.backbones.linearised.expression import UNCHANGED
from divacli.curate import sample_scores as score
from divacli.curate.harm import HarmResult, harm_by, require_columns
from divacli.curate.score_note import save_record
from divacli.curate.score_table import Scores
from divacli.curate.verify import Verification, verify
from divacli.errors import OutputError
from divacli.features import Samples, is_store, read_data
from divacli.features.read import check_images
from divacli.manifest import Manifest, read_manifest
from divacli.manifest.columns import DERIVATIVE
from divacli.reading import AS_IT_IS, NamedData, Reading
from divacli.results.names import DUPLICATES, FAILED, HARM, SCORES, SUMMARY
from divacli.results.result import Target
from divacli.solve.duplicates import Duplicates
from divacli.solve.loader import Given, Loader, manifest_in, opened
from divacli.solve.options import Problem
from divacli.solve.provenance import left_out
from divacli.solve.ridge_problem import SolveOptions

FILES = (SCORES, DUPLICATES, f"{SUMMARY}.json")
"""What is always written."""


@dataclass(frozen=True)
class Scoring:
    """Scored samples, and what goes with them.

    Attributes:
        result: Scores and summary.
        options: How the problem was solved.
        copies: Samples that are copies of others.
        harm: Sums of derivatives, where they were asked for.
        verification: How far refits of some samples are from the result, where they were asked for.
    """

    result: score.ScoreResult
    options: SolveOptions
    copies: Duplicates
    harm: HarmResult | None
    verification: Verification | None = None

    @property
    def summary(self) -> dict[str, object]:
        """What `summary.json` holds."""
        return {**self.result.summary, **self.copies.counts}

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        result = self.result
        yield from of_known_labels(result.summary)
        copies = self.copies.warning(result.solution.task.groups)
        if copies is not None:
            yield copies
        if result.summary["n_unjudged"]:
            yield (
                f"the labels of {result.summary['n_unjudged']:,} samples cannot be judged: no other sample "
                "(or group) has their class"
            )
        if result.solution.path is not None and result.solution.path.at_edge:
            yield (
                f"the {left_out(result.summary)} loss is smallest at the last ridge that was tried, "
                f"{result.solution.ridge:.3g}: copies among the samples pull it down, features that say "
                "nothing of the labels push it up. Look for them, or choose --ridge NUMBER yourself"
            )

    def write(self, target: Target) -> None:
        """Write all tables and the summary."""
        origin = self.result.samples.manifest.folder
        if self.harm is not None:
            target.records(HARM, self.harm.table)
        target.table(FAILED, self.result.samples.failed, origin, part=True)
        target.table(DUPLICATES, self.copies.table, origin)
        target.json(f"{SUMMARY}.json", self.summary)
        target.table(SCORES, self.result.table, origin, main=True, part=True)


def of_known_labels(summary: Mapping[str, Any]) -> Iterator[str]:
    """Warnings that the network has seen the labels that it is to judge.

    Args:
        summary: Of a result of `score`.
    """
    low, high = summary["noise_interval"]
    advice = (
        "For a second opinion, score the images with a network that was not trained on these labels, such as "
        "the one before fine-tuning (--weights DEFAULT)"
    )
    if summary["labels_known"] == score.LEARNED:
        yield (
            "the network seems to have been trained on these labels, the wrong ones included. If so, "
            f"{summary['noise_rate']:.1%} of the labels are wrong; if not, {low:.1%}. {advice}"
        )
    elif summary["labels_known"] == score.SUSPECTED:
        yield (
            "the network may have been trained on these labels: its own outputs agree with them more "
            "often than the other samples do, or its features tell the classes apart as if it was. If so, "
            "it may have learned wrong ones by heart, "
            f"and {high:.1%} may be wrong, or more. {advice}"
        )


def score_data(
    loader: Loader,
    data: Given,
    options: SolveOptions,
    validation: Given | None = None,
    by: Sequence[str] = (),
    verified: int = 0,
) -> Scoring:
    """Embed and score samples.

    Args:
        loader: Of this run.
        data: What is scored.
        options: How the problem is solved.
        validation: DATA whose loss is differentiated in place of the leave-one-out loss.
        by: What derivatives are summed over, as for `harm_by`.
        verified: How many random samples are compared with true refits.

    Raises:
        DivaError: The samples cannot be used, or the problem has no answer.
    """
    training = opened(data)
    require_columns(manifest_in(training), by)
    loader.use(by)
    samples, judged = loader.load_both(training, validation)
    result = score.score(samples, options, judged, loader.progress)
    harm = harm_by(result, by, loader.progress) if by else None
    copies = loader.duplicates_of(samples)
    verification = verify(result, verified, options.seed) if verified else None
    return Scoring(result, options, copies, harm, verification)


def read_scored(data: str, reading: Reading = AS_IT_IS) -> Manifest | Samples:
    """Read samples or a table of scores; images that have scores already need not be there any more.

    Args:
        data: As on the command line.
        reading: What it is to be taken for.

    Raises:
        DivaError: DATA is not usable.
    """
    if is_store(data):
        return read_data(data, reading=reading)
    return read_manifest(data, reading=reading)


def load_scores(loader: Loader, data: Given, problem: Problem) -> Scores:
    """The scores that DATA holds, or else scores computed now.

    Args:
        loader: Of this run.
        data: Samples, or a table of scores.
        problem: How scores are computed.

    Raises:
        DivaError: DATA cannot be used, or the problem has no answer.
    """
    options = problem.solve_options(loader)
    if isinstance(data, str):
        data = NamedData(data)
    if isinstance(data, NamedData):
        data = read_scored(data.name, data.reading)
    if isinstance(data, Manifest) and DERIVATIVE in data.table:
        loader.warned(data)
        used = f"{data.name} holds scores, which are used as they are"
        if problem.changes_scores:
            loader.warn(
                f"{used}: options of the problem (--ridge, --loss, --val ...) change nothing. Give the "
                "images to score them anew"
            )
        if loader.choice.linearize != UNCHANGED:
            loader.warn(
                f"{used}: --linearize and what goes with it change nothing. Give the images to score them "
                "anew"
            )
        return Scores.recorded(data, loader.cache, options, loader.progress)
    if isinstance(data, Manifest):
        check_images(data)
    samples, validation = loader.load_both(data, problem.val)
    result = score.score(samples, options, validation, loader.progress)
    for warning in of_known_labels(result.summary):
        loader.warn(warning)
    return Scores.fresh(result, options)


def remember(scoring: Scoring, loader: Loader) -> str | None:
    """Note in the cache what the scores were made from; the warning where that cannot be."""
    try:
        save_record(scoring.result, scoring.options, loader.cache)
    except OutputError as error:
        return f"{error.got}: diva prune on these scores will make no refit"
    return None
