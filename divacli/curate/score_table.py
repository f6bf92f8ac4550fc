"""A table of scores, and the problem behind it where the cache still has that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from divacli.curate.outlook import Judge
from divacli.curate.sample_scores import ScoreResult, label_noise
from divacli.curate.score_note import ScoreRecord, find_record, recorded_samples
from divacli.curate.wrong_labels import require_judged
from divacli.errors import DataError, DivaError
from divacli.features import Samples
from divacli.features.samples import order_by_path
from divacli.manifest import Manifest
from divacli.manifest.columns import MISLABEL_PROBABILITY
from divacli.parallel import world
from divacli.progress import Progress
from divacli.ridge import Problem, Span, moments
from divacli.solve.provenance import grouping
from divacli.solve.ridge_problem import SolveOptions, pose
from divacli.solve.solution import Solution

_NOTHING_KNOWN = {"features": None, "group": None, "n_groups": None}


@dataclass(frozen=True)
class Scores:
    """A table of scores with what a refit needs, wherever it came from.

    Attributes:
        table: path, label, weight and scores, in the order of DATA.
        origin: Absolute folder that its relative paths start from.
        failed: Samples that could not be scored; None where nothing was scored now.
        samples: The features, or None where they are not to be had.
        record: What the scores were made from; None likewise.
        missing: Why there are no features; empty where there are.
        about: What the features are, in a sentence, and the groups that were left out as wholes, as
            `divacli.solve.provenance.grouping` says; None where nothing is known of that.
        solution: The solved problem, where it was solved now.
    """

    table: pd.DataFrame
    origin: Path
    failed: pd.DataFrame | None
    samples: Samples | None
    record: ScoreRecord | None
    missing: str = ""
    about: Mapping[str, Any] = field(default_factory=lambda: _NOTHING_KNOWN)
    solution: Solution | None = None

    @classmethod
    def fresh(cls, result: ScoreResult, options: SolveOptions) -> Scores:
        """Scores that were just computed."""
        samples = result.samples
        in_order = result.table.iloc[np.argsort(result.order)].reset_index(drop=True)
        solution = result.solution
        record = ScoreRecord(samples.store, solution.ridge, solution.loss, options, result.noise)
        about = {"features": samples.network or None, **grouping(samples.manifest, options)}
        return cls(
            in_order, samples.manifest.folder, samples.failed, samples, record, about=about, solution=solution
        )

    @classmethod
    def recorded(
        cls,
        manifest: Manifest,
        cache: Path,
        options: SolveOptions,
        progress: Progress,
    ) -> Scores:
        """Scores read from a table, with the features of the run that made them where the cache has them.

        Args:
            manifest: The table.
            cache: Where notes are.
            options: As of `find_record`.
            progress: Of reading the images, which features are found by.
        """
        record = find_record(manifest, cache, options)
        if not all(world().gathered(record is not None)):
            record = None  # all processes make a refit, or none
        scores = cls(
            manifest.table, manifest.folder, None, None, record, "the cache knows nothing of these scores"
        )
        if record is None:
            return scores
        samples, failure = None, None
        try:
            scores = replace(scores, about={**scores.about, **grouping(manifest, record.options)})
            samples = recorded_samples(record, manifest, cache, progress)
        except DivaError as error:
            failure = error
        try:
            world().agree(failure)
        except DivaError as error:
            return replace(scores, missing=error.got)
        return replace(scores, samples=samples, missing="")

    @property
    def seed(self) -> int:
        """Of whatever is drawn at random."""
        return 0 if self.record is None else self.record.options.seed

    def judge(self, progress: Progress) -> tuple[Judge | None, str]:
        """What decisions about these samples are judged by, or None and the reason.

        Args:
            progress: Told of every step.
        """
        samples, record = self.samples, self.record
        if samples is None or record is None:
            return None, (
                f"{self.missing}. The decision is complete; to see what it does, give the images and the "
                "network instead"
            )
        try:
            require_judged(self.table, (MISLABEL_PROBABILITY,))
        except DataError as error:
            return None, error.got
        order = order_by_path(samples)
        if self.solution is not None:
            task, held_out = self.solution.solved, self.solution.solved_validation
        else:
            task, held_out = pose(samples, record.options), None
            if len(task) < task.n_features:
                task = Span(task).task()
        noise = record.noise
        if noise is None:
            with progress("estimating label noise", 0):
                noise = label_noise(task, moments(task).fit(record.ridge), order, record.options.seed).model
        if held_out is None:
            trust = 1 - torch.from_numpy(self.table[MISLABEL_PROBABILITY].to_numpy(float, copy=True))
            judges = order
        else:
            trust = torch.ones(len(held_out), dtype=torch.float64)
            # Its rows are dealt out at random; no table says in which order they are stored.
            judges = torch.arange(len(held_out))
        problem = Problem(task, record.ridge, judges, robust=False, validation=held_out)
        fixed = record.options.ridge is not None
        return Judge(problem, order, noise, record.loss, trust, fixed, record.options.seed), ""
