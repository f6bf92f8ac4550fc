"""`train` and `evaluate` from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from divacli.api.call import Call, NetworkLike, arguments
from divacli.api.checks import require
from divacli.api.inputs import Data
from divacli.api.report import Report, Saving
from divacli.evaluation.command import FINETUNE, CurveName, EvaluateOptions, evaluate_data, files_of
from divacli.evaluation.inputs import Names
from divacli.manifest import Manifest
from divacli.report.terminal.evaluation import evaluate_summary
from divacli.report.terminal.train import train_summary
from divacli.results.write import ResultFiles
from divacli.solve.loader import manifest_in
from divacli.solve.options import Compute, Problem, is_number, require_count
from divacli.training.command import Training, train_data
from divacli.training.train import FILES


def train(
    data: Data,
    network: NetworkLike = None,
    *,
    test: Data | None = None,
    training: Training = Training(),
    checkpoint: str | os.PathLike[str] | None = None,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Fine-tune a network and weigh its samples together, without a validation split.

    Args:
        data: The images.
        network: Where it starts; a module stays as it is.
        test: Held-out DATA whose error is reported after each epoch, and never used.
        training: How it is trained.
        checkpoint: A file that keeps the progress; where it exists, the training goes on from it.
        problem: The fit; there is no `val`, and `around_head` has no effect.
        compute: How it is computed.

    Returns:
        Tables `reweighted`, `history` and `failed`; `result.state_dict` is the trained network.

    Raises:
        DivaError: As `score`, or the network cannot be trained.
    """
    require("problem.val", problem.val, problem.val is None, "no validation set: training needs none")
    call = Call("train", arguments(train, locals()), network, problem, compute)
    with call.loading() as loader:
        opened = call.inputs.open(data, "data")
        weights = call.network.checkpoint
        result = train_data(
            loader,
            opened,
            training.options(compute),
            problem.solve_options(loader, robust=True),
            test=None if test is None else call.inputs.open(test, "test"),
            weights=None if weights is None else Path(weights),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            strict=compute.strict,
        )
    return call.report(result, train_summary, Saving(FILES, [manifest_in(opened)]))


def evaluate(
    data: Data,
    test: Data,
    network: NetworkLike = None,
    *,
    manifests: Data | Sequence[Data] | Mapping[str, Data] = (),
    pool: Data | None = None,
    truth: Data | None = None,
    learners: Sequence[Literal["ridge", "logistic", "finetune"]] = ("ridge", "logistic"),
    seeds: int = 5,
    curve: CurveName | None = None,
    fractions: float | Sequence[float] | None = None,
    trainable: str | None = None,
    epochs: int | None = None,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Train on manifests and on their rivals, and compare their errors on a held-out test set.

    Args:
        data: Everything.
        test: Held-out samples with labels that can be trusted.
        network: For images.
        manifests: What is judged, such as the result of `prune`: one, several, or several by name.
        pool: Labelled samples that a curve adds from, and rivals of an extended manifest are drawn from.
        truth: A table of true labels. None: the column true_label, where there is one.
        learners: What is trained.
        seeds: Random choices to average over.
        curve: "remove" or "add": also the test error against the fraction that is removed, or added.
        fractions: Of the curve, beside 0.
        trainable: What "finetune" trains: "last", "all", or the name of a part.
        epochs: Of "finetune".
        problem: The fit.
        compute: How features are computed.

    Returns:
        Tables `evaluation` and `curve`, where they were asked for.

    Raises:
        DivaError: As `score`, or the options do not go together.
    """
    from divacli.report.figures.curves import draw_evaluation

    known = ("ridge", "logistic", FINETUNE)
    require("learners", learners, bool(learners) and set(learners) <= set(known), ", ".join(known))
    require("curve", curve, curve in (None, "remove", "add"), "remove, add or None")
    require("pool", pool, curve != "add" or pool is not None, "a pool with curve='add'")
    require_count("seeds", seeds, 1)
    shares = None if fractions is None else _several(fractions)
    for share in shares or ():
        right = is_number(share) and (0 < share < 1 or (curve == "add" and share == 1))
        require("fractions", share, right, "numbers between 0 and 1")
    how = EvaluateOptions(
        list(dict.fromkeys(learners)),
        seeds,
        curve,
        None if shares is None else sorted(shares),
        trainable,
        epochs,
        compute.batch_size,
        compute.workers,
        compute.amp,
    )
    call = Call("evaluate", arguments(evaluate, locals()), network, problem, compute)
    with call.loading() as loader:
        everything = call.inputs.open(data, "data")
        held_out = call.inputs.open(test, "test")
        judged = _judged(call, manifests)
        taken = {"data", "test", "pool", manifest_in(everything).name, manifest_in(held_out).name}
        for one in judged:
            name = manifest_in(one).name
            require("manifests", name, name not in taken, "other names than those of data, test and pool")
        require("manifests", manifests, bool(judged) or curve is not None, "a manifest, or a curve")
        names = Names(
            everything,
            held_out,
            judged,
            None if truth is None else call.inputs.truth(truth, "truth"),
            None if pool is None else call.inputs.open(pool, "pool", labels="optional"),
            call.validation(),
        )
        result = evaluate_data(loader, names, problem.solve_options(loader), how)

    def write(target: ResultFiles) -> None:
        result.write(target)
        draw_evaluation(result, target)

    return call.report(result, evaluate_summary, Saving(files_of(names, how), write=write))


def _several(fractions: float | Sequence[float]) -> list[float]:
    return list(fractions) if isinstance(fractions, Sequence) else [fractions]


_SETS = (str, os.PathLike, pd.DataFrame, Report, Manifest, tuple)
"""What tells several sets from a pair of features and labels."""


def _judged(call: Call, manifests: Data | Sequence[Data] | Mapping[str, Data]) -> list[Any]:
    """The manifests of an evaluation, opened, each with a name of its own."""
    if isinstance(manifests, Mapping) and "embedding" not in manifests:
        return [call.inputs.named(one, str(name)) for name, one in manifests.items()]
    several = isinstance(manifests, list) or (
        isinstance(manifests, tuple) and all(isinstance(one, _SETS) for one in manifests)
    )
    parts: Sequence[Any] = manifests if several else [manifests]  # type: ignore[assignment]
    names = ["manifest"] if len(parts) == 1 else [f"manifest {number}" for number in range(1, len(parts) + 1)]
    return [call.inputs.open(one, name) for name, one in zip(names, parts, strict=True)]
