"""`score`, `prune`, `relabel`, `votes` and `apply` from Python."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from divacli.api.call import Call, NetworkLike, arguments
from divacli.api.checks import require, require_decision
from divacli.api.inputs import Data
from divacli.api.report import Report, Saving, warn
from divacli.curate import prune as _prune
from divacli.curate import relabel as _relabel
from divacli.curate import score as _score
from divacli.curate import votes as _votes
from divacli.curate.score_table import Scores
from divacli.interchange.cleanlab import LabelIssues
from divacli.interchange.read import read_decisions, table_decisions
from divacli.manifest import Manifest
from divacli.report.terminal.apply import apply_summary
from divacli.report.terminal.prune import prune_summary, pruning_verdict
from divacli.report.terminal.relabel import relabel_summary
from divacli.report.terminal.score import scoring_summary
from divacli.report.terminal.votes import votes_summary
from divacli.results.write import ResultFiles
from divacli.review import apply as _apply
from divacli.review.image_files import Way
from divacli.review.materialize import FOLDER, require_apart
from divacli.run_record import running
from divacli.solve.loader import Loader, manifest_in
from divacli.solve.options import Compute, Problem, is_number, require_count


def score(
    data: Data,
    network: NetworkLike = None,
    *,
    by: str | Sequence[str] = (),
    verify: int = 0,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Rank every sample by what it does to the validation loss, most harmful first.

    Args:
        data: The samples.
        network: For images.
        by: What derivatives are summed over: "class", "pair", or columns.
        verify: So many random samples are compared with true refits.
        problem: The loss and the fit.
        compute: How features are computed.

    Returns:
        Tables `scores`, `duplicates`, `failed`, and with `by` also `harm`.

    Raises:
        DivaError: The user can mend it; the text says how.
    """
    require_count("verify", verify, 0)
    call = Call("score", arguments(score, locals()), network, problem, compute)
    with call.loading() as loader:
        opened = call.inputs.open(data, "data")
        columns = [by] if isinstance(by, str) else by
        options = problem.solve_options(loader)
        scoring = _score.score_data(loader, opened, options, call.validation(), columns, verify)

    def remember() -> None:
        if (forgotten := _score.remember(scoring, loader)) is not None:
            warn(forgotten)

    saving = Saving(_score.FILES, [manifest_in(opened)], after=remember)
    return call.report(scoring, scoring_summary, saving)


def prune(
    data: Data,
    network: NetworkLike = None,
    *,
    keep: float | Literal["auto"] | None = None,
    threshold: float | None = None,
    budget: int | None = None,
    by: Literal["auto", "balanced", "coverage", "easy", "random", "derivative", "loo_loss"] = "auto",
    stratify: bool = False,
    force: bool = False,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Drop samples that are least missed, wrong labels first, and forecast the error on new images.

    Args:
        data: The samples, a table of scores, or the result of `score`: then nothing is computed twice.
        network: For images.
        keep: Fraction of the samples to keep, in (0, 1]; "auto": drop labels that are more likely wrong than
            right, and outliers.
        threshold: Drop samples whose value is at least this; with "auto", labels that are wrong with more
            than this probability.
        budget: With "auto", drop so many at the most.
        by: The rule; "auto": the one with the best forecast.
        stratify: Keep the fraction of every class.
        force: Drop also where the forecast is worse than that of keeping everything.
        problem: The loss and the fit of scores that are computed now.
        compute: How features are computed.

    Returns:
        Tables `kept`, `dropped` and `failed`.

    Raises:
        DivaError: The options do not go together, or as `score`.
    """
    automatic = isinstance(keep, str) and keep == "auto"
    require_decision(keep, threshold, budget, by, stratify)
    call = Call("prune", arguments(prune, locals()), network, problem, compute)
    with call.loading() as loader:
        scores, read = _scores(call, loader, data)
        if automatic:
            pruning = _prune.prune_automatically(
                scores, threshold, budget, force=force, progress=loader.progress
            )
        else:
            pruning = _prune.prune_by(
                scores,
                keep=None if keep is None else float(keep),
                threshold=threshold,
                by=by,
                stratify=stratify,
                force=force,
                progress=loader.progress,
            )
    if not pruning.written:
        call.warn(pruning_verdict(pruning))
    return call.report(pruning, prune_summary, Saving(_prune.FILES, read))


def relabel(
    data: Data,
    network: NetworkLike = None,
    *,
    decide: Literal["likely", "balanced"] | float = "likely",
    budget: int | None = None,
    force: bool = False,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Correct labels that are more likely wrong than right, and forecast the error on new images.

    Args:
        data: As for `prune`.
        network: For images.
        decide: "likely": labels that are more likely wrong than right; "balanced": more for a review, at the
            best F1 that the model expects; a number in [0, 1): labels that are wrong with more than this
            probability.
        budget: Call so many labels wrong at the most, the most probable errors first.
        force: Correct labels also where the forecast is worse than leaving them as they are.
        problem: As for `prune`.
        compute: As for `prune`.

    Returns:
        Tables `relabelled`, `changes` and `failed`.

    Raises:
        DivaError: As `prune`.
    """
    if isinstance(decide, str):
        require("decide", decide, decide in ("likely", "balanced"), "likely, balanced or a number in [0, 1)")
    else:
        right = is_number(decide) and 0 <= decide < 1
        require("decide", decide, right, "likely, balanced or a number in [0, 1)")
    require_count("budget", budget, 0)
    call = Call("relabel", arguments(relabel, locals()), network, problem, compute)
    with call.loading() as loader:
        scores, read = _scores(call, loader, data)
        result = _relabel.relabel_scored(scores, decide, budget, force=force, progress=loader.progress)
    return call.report(result, relabel_summary, Saving(_relabel.FILES, read))


def votes(
    data: Data,
    network: NetworkLike = None,
    *,
    annotator: str | None = None,
    budget: int | None = None,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Find one label for each image from several votes and its features, and how good each annotator is.

    Args:
        data: A table with path and label, one row for each vote.
        network: For the images.
        annotator: Column that names who gave each vote; "none" for one annotator. None: annotator, where
            there is such a column.
        budget: List so many images to look at once more at the most.
        problem: The fit; its loss and its validation set are not used.
        compute: How features are computed.

    Returns:
        Tables `consensus`, `again`, `failed`, and with annotators `annotators`.

    Raises:
        DivaError: As `score`.
    """
    require_count("budget", budget, 0)
    call = Call("votes", arguments(votes, locals()), network, problem, compute)
    with call.loading() as loader:
        table = call.inputs.table(data, "data", repeated=True)
        result = _votes.votes_data(loader, table, problem.solve_options(loader), annotator, budget)
        read = result.ballots.images
    return call.report(result, votes_summary, Saving(_votes.FILES, [read]))


def apply(
    data: Data,
    decisions: str | os.PathLike[str] | pd.DataFrame | None = None,
    *,
    materialize: Way | None = None,
    label_issues: LabelIssues = "drop",
    compute: Compute = Compute(),
) -> Report:
    """Carry out decisions: drop samples, change labels, and make a folder of what stays.

    Args:
        data: The samples.
        decisions: A table with path, decision and where relabelled label, or where it lies; issues of
            cleanlab; or a JSON export of Label Studio.
        materialize: "symlink", "hardlink" or "copy": `save` also makes a folder of the images that stay, with
            one sub-folder a class.
        label_issues: "drop" or "relabel": what a label issue of cleanlab means.
        compute: Of it, `cache_dir`: for samples that exist in memory only.

    Returns:
        Tables `applied` and `removed`.

    Raises:
        DivaError: The decisions or the samples cannot be used.
    """
    kinds = "a table with path and decision, or where it lies; None with materialize"
    given = isinstance(decisions, str | os.PathLike | pd.DataFrame)
    require("decisions", decisions, given or (decisions is None and materialize is not None), kinds)
    require("materialize", materialize, materialize in (None, *get_args(Way)), ", ".join(get_args(Way)))
    require("label_issues", label_issues, label_issues in ("drop", "relabel"), "drop or relabel")
    call = Call("apply", arguments(apply, locals()), None, Problem(), compute)
    with running(call.run):
        manifest = manifest_in(call.inputs.scores(data, "data"))
        decided = None
        if isinstance(decisions, pd.DataFrame):
            decided = table_decisions(
                decisions, "decisions", Path.cwd(), manifest.classes, label_issues=label_issues
            )
        elif decisions is not None:
            decided = read_decisions(os.fspath(decisions), manifest.classes, label_issues=label_issues)
        result = _apply.apply(manifest, decided)

    def write(target: ResultFiles) -> None:
        found = result
        if materialize is not None:
            require_apart(manifest, target.base / FOLDER)
            found = _apply.with_images(result, target, materialize, call.inputs.progress)
        found.write(target)

    return call.report(result, apply_summary, Saving(_apply.FILES, write=write))


def _scores(call: Call, loader: Loader, data: Data) -> tuple[Scores, list[Manifest]]:
    """Scores, and all samples that they are of."""
    if isinstance(data, Report) and isinstance(data.result, _score.Scoring):
        scoring = data.result
        call.run.inputs[:] = data.inputs
        data.require_unchanged()
        if call.problem.changes_scores or call.network != data.network:
            call.warn("the scores are used as they are: network and problem change nothing")
        return Scores.fresh(scoring.result, scoring.options), [one.manifest for one in data.inputs[:1]]
    opened = call.inputs.scores(data, "data")
    problem = dataclasses.replace(call.problem, val=call.validation())
    return _score.load_scores(loader, opened, problem), [manifest_in(opened)]
