"""Are the probabilities that `diva augment` finds better than equal ones, or than no augmentation?

`python -m benchmarks.augment` finds them for the flips of handwritten digits and of `clothing/train`, trains
ridge and logistic regression on the images and their copies with the weights found, with equal ones and on
the untouched images alone, and prints the errors on untouched images held out. Beside them stands the
paper's way: one weight for every copy of an image, added up by transform. The clothing photos need the
folder `shared` beside the repository, and some minutes the first time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.machine import SHARED, save
from divacli.curate.augment import AugmentOptions, augment
from divacli.curate.reweight import walk
from divacli.demo.digits import make_digits
from divacli.evaluation.evaluate import present
from divacli.evaluation.learners import LogisticLearner
from divacli.features import BackboneChoice, ExtractOptions, Samples, copies_of, read_data, samples_of
from divacli.features.augmentation import NamedTransform
from divacli.features.transform_names import parse_transform
from divacli.files.cache import default_cache
from divacli.manifest import Manifest
from divacli.ridge import Problem, RidgeTask, SquaredLoss, choose_steps, decompose, ridge_path, share_weights
from divacli.ridge import validation_derivative as validate
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.transformed_copies import merge, pose_merged

FLIPS = ("hflip", "vflip")
MORE = (*FLIPS, "rotate:15", "benchmarks/transforms.py:shift")
SEEDS = range(3)
HALVES = range(3)
WAYS = ("found", "equal", "untouched", "each")

Copies = list[tuple[NamedTransform, Samples]]


def embedded(
    images: Manifest | Samples, choice: BackboneChoice, names: Sequence[str], cache: Path
) -> tuple[Samples, Copies]:
    """Images and their copies with features."""
    assert isinstance(images, Manifest)
    options = ExtractOptions(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    transforms = [parse_transform(name) for name in names]
    copies = [(named, copies_of(images, choice, named, options, cache, seed=0)) for named in transforms]
    return samples_of(images, choice, options, cache), copies


def ridge_error(problem: Problem, weights: Tensor, test: RidgeTask) -> float:
    """Test error of ridge regression at some weights, its ridge at their own leave-one-out optimum."""
    task = replace(problem.task, weights=weights)
    spectrum = decompose(task)
    path = ridge_path(task, spectrum)
    _, found = validate(task, test, spectrum.fit(path.ridge), SquaredLoss())
    return float((found.predicted != test.labels).double().mean())


def compare(
    training: Samples, copies: Copies, test: Samples, seed: int, *, logistic: bool = True
) -> dict[str, Any]:
    """Probabilities, and test errors of what is trained with them and with others.

    Args:
        training: Images.
        copies: Each transform with its copies of them.
        test: Untouched images.
        seed: Of folds.
        logistic: Whether logistic regression is trained too, which takes long with many classes.
    """
    options = SolveOptions(loss="robust-cross-entropy", seed=seed)
    result = augment(training, copies, options, AugmentOptions())
    merged = merge(training, [part for _, part in copies])
    problem = pose_merged(training, merged, options)
    equal, found = problem.task.weights, torch.from_numpy(result.table["probability"].to_numpy(copy=True))
    own = replace(problem, shared=None)
    each, _ = walk(own, choose_steps(own, seed=seed).sizes)
    ways = {
        "found": share_weights(problem, found * len(found)),
        "equal": equal,
        "untouched": torch.where(merged.kind == 0, equal * len(found), 0.0),
        "each": each,
    }
    # In the coordinates of the problem, which are the span of its samples where these are few.
    posed = pose_merged(training, merged, options, test).validation
    assert posed is not None
    row: dict[str, Any] = {
        "n": len(training),
        "n_test": len(test),
        "seed": seed,
        "transforms": result.table["transform"].tolist(),
        "probability": result.table["probability"].tolist(),
        "probability_each": (torch.bincount(merged.kind, each) / each.sum()).tolist(),
        "derivative": result.table["derivative"].tolist(),
        "sizes": result.summary["sizes"],
        "held_out": result.summary["held_out"],
    }
    table = merged.samples.manifest.table.assign(group=merged.image.numpy().astype(str))
    truth = test.manifest.table["label"].to_numpy(str)
    for way, weights in ways.items():
        row[f"ridge_{way}"] = ridge_error(problem, weights, posed)
        if logistic:
            manifest = replace(merged.samples.manifest, table=table.assign(weight=weights.numpy()))
            weighted = present(replace(merged.samples, manifest=manifest))
            row[f"logistic_{way}"] = float((LogisticLearner(options)(weighted, test, seed) != truth).mean())
    return row


def digits(seed: int) -> list[dict[str, Any]]:
    """The demonstration's digits, half of them held out: with right labels, and with a tenth wrong."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = make_digits(folder, seed)
        choice = BackboneChoice(f"{made.factory}:digit_net", made.checkpoint)
        truth = pd.read_csv(folder / "truth.csv", dtype=str).rename(columns={"true_label": "label"})
        truth.to_csv(folder / "clean.csv", index=False)
        training = np.random.default_rng(seed).permutation(len(truth)) < len(truth) // 2
        right, _ = embedded(read_data(str(folder / "clean.csv")), choice, [], folder / "cache")
        test = right.select(~training)
        for names in (FLIPS, MORE):
            for labels in ("clean.csv", "labels.csv"):
                data = read_data(str(folder / labels))
                images, copies = embedded(data, choice, names, folder / "cache")
                halves = [(named, part.select(training)) for named, part in copies]
                row = compare(images.select(training), halves, test, seed)
                rows.append({"data": f"digits, {labels.removesuffix('.csv')}", **row})
                show(rows[-1])
    return rows


def clothing() -> list[dict[str, Any]]:
    """The clothing photos and their test set, and random halves of them, one of which is held out."""
    choice = BackboneChoice("mobilenet_v2", SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth")
    data = SHARED / "data" / "clothing"
    images, copies = embedded(read_data(str(data / "train")), choice, FLIPS, default_cache())
    test, _ = embedded(read_data(str(data / "test")), choice, [], default_cache())
    rows = [{"data": "clothing", **compare(images, copies, test, 0)}]
    show(rows[-1])
    for seed in HALVES:
        half = np.random.default_rng(seed).permutation(len(images)) < len(images) // 2
        parts = [(named, part.select(half)) for named, part in copies]
        row = compare(images.select(half), parts, images.select(~half), seed)
        rows.append({"data": "clothing, halves", **row})
        show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    """Print one line."""
    shares, each = (
        " ".join(f"{value:.2f}" for value in row[name]) for name in ("probability", "probability_each")
    )
    errors = "  ".join(
        f"{learner}: " + " ".join(f"{way} {100 * row[f'{learner}_{way}']:.1f}" for way in WAYS)
        for learner in ("ridge", "logistic")
    )
    print(
        f"{row['data']:<18} seed {row['seed']}  p {shares} (each {each})  errors in %, {errors}", flush=True
    )


def main() -> None:
    """Measure and print."""
    rows = [row for seed in SEEDS for row in digits(seed)]
    if SHARED.is_dir():
        rows += clothing()
    else:
        print(f"skipped the clothing photos: no folder {SHARED.name} beside the repository")
    save("augment", rows)


if __name__ == "__main__":
    main()
