"""One label for each image from several votes and its features, and how good each annotator is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from divacli.curate.ballots import RESULT_COLUMNS, Ballots, numbered, read_ballots
from divacli.curate.wrong_labels import most_confused
from divacli.errors import listed
from divacli.features import Samples
from divacli.features.read import check_images
from divacli.features.samples import order_by_path
from divacli.images.failures import failed_counts
from divacli.manifest import Manifest
from divacli.progress import Progress, silent
from divacli.reading import NamedData
from divacli.results.names import FAILED
from divacli.results.result import Target
from divacli.ridge import (
    RidgeTask,
    Span,
    Votes,
    VotesFit,
    decompose,
    fit_noise,
    fit_votes,
    gain_of_a_vote,
    in_eigenbasis,
    loo_predictions,
    noise_rows,
    predictable,
    ridge_path,
    right_shares,
)
from divacli.solve.loader import Loader
from divacli.solve.provenance import provenance
from divacli.solve.ridge_problem import SolveOptions, pose

FILES = ("consensus", "again", "votes.json")
"""What is always written; `annotators` beside them where a column names annotators."""

ANNOTATOR_COLUMNS = (
    "annotator",
    "n_votes",
    "agreement",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "confused_label",
    "confused_vote",
    "confused_votes",
)
"""Columns of the table of annotators, in order."""

_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Consensus:
    """One label for each image, and how good the annotators are.

    Attributes:
        table: One row an image in the order of `ballots.images`. `label` is the most probable class,
            `consensus_probability` that it is the true one, `second_label` the next one with its probability.
            `majority_label` has most votes; where several have, it is the first class of them and
            `tied_labels` names all. `agreement` is the share of votes for `label`, and `gain` how much more
            probable the label is expected to be after one more vote.
        again: Rows of `table` that one more vote may change, the largest gain first.
        annotators: `ANNOTATOR_COLUMNS`, the least accurate first.
        ballots: The votes.
        samples: The images.
        fit: The fitted model.
        about: What else `votes.json` holds.
    """

    table: pd.DataFrame
    again: pd.DataFrame
    annotators: pd.DataFrame
    ballots: Ballots
    samples: Samples
    fit: VotesFit
    about: dict[str, Any]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        found = {"consensus": self.table, "again": self.again}
        return found | ({} if self.ballots.column is None else {"annotators": self.annotators})

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What `votes.json` holds."""
        table = self.table
        tied = table["tied_labels"] != ""
        posterior = self.fit.posterior.numpy()
        counts = self.ballots.counts()
        most = counts == counts.max(axis=1, keepdims=True)
        return {
            "n_images": len(table),
            "n_votes": len(self.ballots.image),
            "n_classes": len(self.ballots.classes),
            "annotator": self.ballots.column,
            "n_annotators": None if self.ballots.column is None else len(self.annotators),
            "n_ties": int(tied.sum()),
            "n_changed": int(((table["label"] != table["majority_label"]) & ~tied).sum()),
            "expected_wrong": float((1 - table["consensus_probability"]).sum()),
            "expected_wrong_majority": float((1 - (posterior * most).sum(axis=1) / most.sum(axis=1)).sum()),
            "n_again": len(self.again),
            "expected_gain": float(self.again["gain"].sum()),
            "feature_exponent": self.fit.exponent,
            "vote_exponent": self.fit.vote_exponent,
            **self.about,
        }

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        unseen = sorted(set(self.ballots.classes) - set(self.table["label"]))
        if unseen:
            yield f"there are votes for labels that no image gets: {listed(unseen)}"

    def write(self, target: Target) -> None:
        """Write all tables and the summary."""
        origin = self.samples.manifest.folder
        target.table(FAILED, self.samples.failed, origin, part=True)
        if self.ballots.column is not None:
            target.records("annotators", self.annotators)
        target.table("again", self.again, origin)
        target.json("votes.json", self.summary)
        target.table("consensus", self.table, origin, main=True, part=True, relabelled=True)


def votes_data(
    loader: Loader,
    votes: str | NamedData | Manifest,
    options: SolveOptions,
    annotator: str | None = None,
    budget: int | None = None,
) -> Consensus:
    """Read votes, embed their images, and find the consensus.

    Args:
        loader: Of this run.
        votes: As for `read_ballots`.
        options: As for `find_consensus`.
        annotator: As for `read_ballots`.
        budget: As for `find_consensus`.

    Raises:
        DivaError: The votes or their images cannot be used, or the problem has no answer.
    """
    ballots = read_ballots(votes, annotator)
    check_images(ballots.images)
    samples, _ = loader.load_both(ballots.images, None)
    return find_consensus(samples, ballots, options, budget, loader.progress)


def find_consensus(
    samples: Samples,
    ballots: Ballots,
    options: SolveOptions,
    budget: int | None = None,
    progress: Progress = silent,
) -> Consensus:
    """Find the most probable class of each image from its votes and its features.

    Features are asked by leave-one-out predictions of a ridge fit to what the votes alone say. The prediction
    of an image so knows nothing of its own votes.

    Args:
        samples: The images with their features, labelled by the majority.
        ballots: Votes for them, and perhaps for images that have no features.
        options: How the ridge problem is posed.
        budget: Images to have looked at once more, at the most.
        progress: Told of every step.

    Raises:
        DataError: Groups that do not fit.
        SolveError: The problem has no answer, or there are too many annotators and classes.
    """
    start = time.monotonic()
    ballots = ballots.of(samples.manifest)
    votes, names = _numbered(ballots)
    with progress("counting votes", 0):
        alone = fit_votes(votes, torch.zeros(votes.n_images, votes.n_classes, dtype=torch.float64))
    with progress("asking the features", 0):
        logs, ridge = _asked(samples, alone.posterior, options, ballots.classes)
    with progress("finding the consensus", 0):
        fit = fit_votes(votes, logs)
        average = torch.bincount(votes.annotators, minlength=votes.n_annotators).double()
        average /= average.sum()
        gain = gain_of_a_vote(fit.posterior, torch.einsum("a,ajk->jk", average, fit.matrices))
    table = _table(ballots, fit.posterior, gain.numpy())
    about = {
        "vote_accuracy": float(fit.posterior[votes.images, votes.labels].mean()),
        "confusions": _confusions(votes, fit.posterior, ballots.classes),
        "ridge": ridge,
        "n_failed": len(samples.failed),
        **failed_counts(samples.failed),
        "n_embedded": samples.embedded,
        "seconds": {"embed": round(samples.seconds, 3), "solve": round(time.monotonic() - start, 3)},
        **provenance(samples, options),
    }
    annotators = _annotators(votes, fit, ballots.classes, names)
    return Consensus(table, _again(table, budget), annotators, ballots, samples, fit, about)


def _numbered(ballots: Ballots) -> tuple[Votes, list[str]]:
    """Votes as numbers, and the name of each annotator."""
    names = sorted(set(ballots.annotators))
    return Votes(
        torch.from_numpy(ballots.image.astype(np.int64)),
        torch.from_numpy(numbered(ballots.labels, ballots.classes)),
        torch.from_numpy(numbered(ballots.annotators, names)),
        len(ballots.images.table),
        len(ballots.classes),
        len(names),
    ), names


def _asked(
    samples: Samples, targets: Tensor, options: SolveOptions, classes: list[str]
) -> tuple[Tensor, float]:
    """Calibrated log-probabilities (m, k) float64 of the classes by the features, and the ridge.

    Args:
        samples: (m) images.
        targets: (m, k) what the votes alone say.
        options: How the problem is posed.
        classes: (k,).
    """
    task = pose(samples, options, classes)
    labels = targets.argmax(dim=1)
    offset = torch.nn.functional.one_hot(labels, len(classes)).double() - targets
    # Targets are one-hot labels minus the offset: the soft ones.
    task = replace(task, labels=labels, offset=offset)
    solved = Span(task).task() if len(task) < task.n_features else task
    spectrum, solved, _ = in_eigenbasis(solved, decompose(solved), None)
    order = order_by_path(samples)
    ridge = options.ridge
    if ridge is None:
        ridge = ridge_path(solved, spectrum, order=order).ridge
    predictions = loo_predictions(solved, spectrum.fit(ridge), torch.arange(len(solved))) - offset
    return _calibrated(solved, predictions, order, options.seed), ridge


def _calibrated(task: RidgeTask, predictions: Tensor, order: Tensor, seed: int) -> Tensor:
    rows = noise_rows(order[predictable(task)[order]], task.n_classes)
    groups = None if task.groups is None else task.groups[rows]
    noise = fit_noise(predictions[rows], task.labels[rows], groups=groups, seed=seed)
    return noise.model.calibration.logs(predictions)


def _table(ballots: Ballots, posterior: Tensor, gain: np.ndarray) -> pd.DataFrame:
    classes = np.array(ballots.classes, dtype=object)
    counts = ballots.counts()
    best = posterior.argmax(dim=1)
    others = posterior.scatter(1, best[:, None], -1.0).max(dim=1)
    most = counts == counts.max(axis=1, keepdims=True)
    n_votes = counts.sum(axis=1)
    rows = np.arange(len(counts))
    given = ballots.images.table
    table = given.assign(
        label=classes[best.numpy()],
        consensus_probability=posterior.amax(dim=1).numpy(),
        second_label=classes[others.indices.numpy()],
        second_probability=others.values.numpy(),
        majority_label=classes[most.argmax(axis=1)],
        tied_labels=[" / ".join(classes[row]) if row.sum() > 1 else "" for row in most],
        n_votes=n_votes,
        agreement=counts[rows, best.numpy()] / n_votes,
        gain=gain,
    )
    first = ("path", "label", "weight", *RESULT_COLUMNS)
    return table[[*first, *(name for name in table if name not in first)]]


def _again(table: pd.DataFrame, budget: int | None) -> pd.DataFrame:
    """The rows that one more vote may change, the largest gain first, ties by path."""
    order = np.lexsort((table["path"].to_numpy(str), -table["gain"].to_numpy()))
    worth = order[table["gain"].to_numpy()[order] > 0]
    return table.iloc[worth[:budget]].reset_index(drop=True)


def _confusions(votes: Votes, posterior: Tensor, classes: list[str]) -> list[dict[str, Any]]:
    pairs = most_confused(votes.together().counted(posterior)[0], classes)
    return [{"label": one["suggested"], "vote": one["given"], "expected": one["expected"]} for one in pairs]


def _annotators(votes: Votes, fit: VotesFit, classes: list[str], names: list[str]) -> pd.DataFrame:
    from scipy.stats import beta  # type: ignore[import-untyped]

    share, variance = (values.numpy() for values in right_shares(votes, fit.posterior))
    # A beta distribution of this mean and variance; of one vote or two these may be those of none.
    size = np.maximum(share * (1 - share) / variance - 1, 1)
    low, high = (beta.ppf(tail, share * size, (1 - share) * size) for tail in _TAILS)
    n_votes = torch.bincount(votes.annotators, minlength=votes.n_annotators).numpy()
    agrees = (fit.posterior.argmax(dim=1)[votes.images] == votes.labels).double()
    agreement = torch.bincount(votes.annotators, agrees, votes.n_annotators).numpy() / n_votes
    mistakes = votes.counted(fit.posterior)
    mistakes.diagonal(dim1=1, dim2=2).zero_()
    worst, place = mistakes.flatten(1).max(dim=1)
    named = np.array(classes, dtype=object)
    true, vote = divmod(place.numpy(), len(classes))
    table = pd.DataFrame(
        dict(
            zip(
                ANNOTATOR_COLUMNS,
                (names, n_votes, agreement, share, low, high, named[true], named[vote], worst.numpy()),
                strict=True,
            )
        )
    )
    return table.sort_values(["accuracy", "annotator"], kind="stable", ignore_index=True)
