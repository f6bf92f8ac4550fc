"""All that `diva evaluate` does with DATA: rivals, trainings, a curve, and what is written of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from divacli.curate.sample_scores import score
from divacli.evaluation.curve import Curve, additions, by_derivative, by_loss, measure_curve, removals
from divacli.evaluation.evaluate import Evaluation, evaluate
from divacli.evaluation.inputs import Loaded, Names, load_given
from divacli.evaluation.learners import LEARNERS, Learner
from divacli.evaluation.rivals import rivals
from divacli.evaluation.verdict_words import verdict_sentences
from divacli.results.names import CURVE, EVALUATION
from divacli.results.result import Target
from divacli.solve.loader import Loader
from divacli.solve.provenance import grouping
from divacli.solve.ridge_problem import SolveOptions

FINETUNE = "finetune"
"""The learner that is the network itself."""

CurveName = Literal["remove", "add"]
"""Whether samples are removed from everything, or added from a pool."""

FRACTIONS = {
    "remove": [step / 20 for step in range(1, 11)],
    "add": [step / 10 for step in range(1, 11)],
}
"""Of a curve, unless others are asked for."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What is trained, how often, and over what a curve is drawn.

    Attributes:
        learners: Names in `LEARNERS`, and `FINETUNE`.
        seeds: Random choices to average over.
        curve: What it is drawn over; None for no curve.
        fractions: Of the curve, ascending, beside 0; None: `FRACTIONS`.
        trainable: What `FINETUNE` trains; None: its default, and so of the others.
        epochs: Of `FINETUNE`.
        batch_size: Images in a step of `FINETUNE`.
        workers: Processes that decode images for `FINETUNE`.
        amp: Mixed precision of `FINETUNE` on CUDA.
    """

    learners: Sequence[str] = ("ridge", "logistic")
    seeds: int = 5
    curve: CurveName | None = None
    fractions: Sequence[float] | None = None
    trainable: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    workers: int | None = None
    amp: bool = True


@dataclass(frozen=True)
class EvaluateResult:
    """What became of the training sets.

    Attributes:
        evaluation: Manifests and their rivals; None where none is judged.
        curve: Errors by fraction; None where it was not asked for.
        about: Test set, learners, seeds and groups, for JSON.
    """

    evaluation: Evaluation | None
    curve: Curve | None
    about: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        """What `evaluation.json` holds."""
        content = dict(self.about)
        if self.evaluation is not None:
            content["evaluation"] = _records(self.evaluation.summary)
            content["verdicts"] = [
                {**asdict(verdict), "more_than_chance": verdict.more_than_chance}
                for verdict in self.evaluation.verdicts
            ]
            content["sentence"] = verdict_sentences(self.evaluation)
        if self.curve is not None:
            content["curve"] = {"of": self.curve.verb, "results": _records(self.curve.summary)}
        return content

    def warnings(self) -> Iterator[str]:
        """Nothing: what there is to know is said before any work."""
        yield from ()

    def write(self, target: Target) -> None:
        """Write the summary, then the tables, of which that of the manifests is the main one."""
        target.json(f"{EVALUATION}.json", self.summary)
        # The tables name no files, so nothing in them depends on where they lie.
        if self.curve is not None:
            target.table(CURVE, self.curve.table, target.base, main=self.evaluation is None)
        if self.evaluation is not None:
            target.table(EVALUATION, self.evaluation.table, target.base, main=True)


def files_of(names: Names, how: EvaluateOptions) -> list[str]:
    """What is always written, beside the plots."""
    tables = [*([EVALUATION] if names.manifests else []), *([] if how.curve is None else [CURVE])]
    return [*tables, f"{EVALUATION}.json"]


def evaluate_data(
    loader: Loader, names: Names, options: SolveOptions, how: EvaluateOptions
) -> EvaluateResult:
    """Read and embed everything, train on manifests and their rivals, and measure a curve.

    Args:
        loader: Of this run, with the network.
        names: What is read.
        options: How ridge problems are posed; their seed is the first one of random choices.
        how: What is trained.

    Raises:
        DivaError: Something that was given does not fit or cannot be used, or a set determines no fit.
    """
    given = load_given(loader, names, loader.warn, images_required=FINETUNE in how.learners)
    learners = _learners(loader, options, how)
    seeds = range(options.seed, options.seed + how.seeds)
    evaluation = curve = None
    if names.manifests:
        sets = rivals(given.data, given.manifests, seeds, given.right, given.addable(), loader.warn)
        evaluation = evaluate(sets, given.test, learners, seeds, loader.progress)
    if how.curve is not None:
        curve = _curve(loader, given, options, how, learners, seeds)
    about = {
        "n_test": len(given.test),
        "n_test_classes": len(given.test.manifest.classes),
        "n_test_shared": given.shared,
        "learners": [one.name for one in learners],
        "seeds": list(seeds),
        "features": given.data.network or None,
        **grouping(given.data.manifest, options),
    }
    return EvaluateResult(evaluation, curve, about)


def _learners(loader: Loader, options: SolveOptions, how: EvaluateOptions) -> list[Learner]:
    """What is trained, the network last.

    Raises:
        ModelError: The network cannot be trained.
    """
    learners: list[Learner] = [LEARNERS[name](options) for name in how.learners if name in LEARNERS]
    if FINETUNE in how.learners:
        # Only here: it needs torchvision, which is slow to import.
        from divacli.evaluation.finetune_learner import FinetuneLearner
        from divacli.training.trainee import StepOptions

        finetune = FinetuneLearner(
            loader.choice,
            options,
            how.trainable or FinetuneLearner.trainable,
            how.epochs or FinetuneLearner.epochs,
            how.batch_size or FinetuneLearner.batch_size,
            how.workers,
            StepOptions(amp=how.amp),
        )
        finetune.check()
        learners.append(finetune)
    return learners


def _curve(
    loader: Loader,
    given: Loaded,
    options: SolveOptions,
    how: EvaluateOptions,
    learners: list[Learner],
    seeds: range,
) -> Curve:
    """Remove from everything, or add from the pool, and test."""
    progress = loader.progress
    assert how.curve is not None
    fractions = FRACTIONS[how.curve] if how.fractions is None else how.fractions
    if how.curve == "remove" or given.pool is None:
        points = removals(score(given.data, options, given.validation, progress), fractions, seeds)
        verb = "removed"
    else:
        orders = {"derivative": by_derivative(options, given.validation, progress), "loss": by_loss(options)}
        points = additions(given.data, given.pool, orders, fractions, seeds)
        verb = "added"
    return measure_curve(verb, given.data, points, given.test, learners, seeds, progress)


def _records(summary: pd.DataFrame) -> list[dict[str, object]]:
    """Rows for JSON, which has no NaN."""
    return [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in summary.to_dict("records")
    ]
