"""Data and parameters trained together, against the same fine-tuning with constant weights.

`python -m benchmarks.train` moves 30 % of the labels of `clothing/train` to a random other class, fine-tunes
the last block of MobileNetV2 for a few epochs, with constant weights and with weights that follow the
derivative, and prints the error on `clothing/test` of the
network that the K-fold loss chose and of the last one. Numbers after the command (`python -m benchmarks.train
0 1`) are the seeds to run. Takes half an hour on two cores. Needs the folder `shared` beside the
repository.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import SHARED, save
from benchmarks.ridge_choice import flip
from divacli.backbones.load import load_backbone
from divacli.manifest import Manifest, read_manifest
from divacli.solve.ridge_problem import SolveOptions
from divacli.training.train import TrainOptions, train

RATE = 0.3
SEEDS = (0, 1, 2)
IMAGE_SIZE = 128
EPOCHS = 4
ARMS = {"constant": 0.0, "following": None}
"""Size of the steps of the weights; None is chosen by K-fold."""


def flipped(manifest: Manifest, seed: int) -> tuple[Manifest, torch.Tensor]:
    """The samples with wrong labels, and which are wrong."""
    classes = manifest.classes
    truth = torch.from_numpy(manifest.class_numbers(classes))
    labels, wrong = flip(truth, len(classes), "uniform", RATE, seed)
    table = manifest.table.assign(label=[classes[label] for label in labels.tolist()])
    return replace(manifest, table=table), wrong


def measured(arm: str, seed: int) -> dict[str, Any]:
    """One training."""
    data, test = (read_manifest(str(SHARED / "data" / "clothing" / part)) for part in ("train", "test"))
    noisy, wrong = flipped(data, seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = train(
        noisy,
        load_backbone(
            "mobilenet_v2",
            SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth",
            image_size=IMAGE_SIZE,
        ),
        TrainOptions(epochs=EPOCHS, size=ARMS[arm]),
        SolveOptions(device=device, seed=seed),
        test=test,
    )
    weights = torch.tensor(result.table["weight"])
    return {
        "arm": arm,
        "seed": seed,
        "best": result.summary["best"],
        "last": result.summary["last"],
        "history": result.history.drop(columns="seconds").to_dict("records"),
        "wrong_labels": float(wrong.double().mean()),
        "weight_on_wrong_labels": float(weights[wrong].sum() / weights.sum()),
        "seconds": result.history["seconds"].iloc[-1],
    }


def told(row: dict[str, Any]) -> str:
    """One line."""
    kept, last = (
        f"{row[name]['test_error']:.1%} (over classes {row[name]['test_class_error']:.1%})"
        for name in ("best", "last")
    )
    return (
        f"{row['arm']:<14} seed {row['seed']}  kept {kept}  last {last}  "
        f"K-fold loss {row['best']['kfold_loss']:.4f}  "
        f"weight on wrong labels {row['weight_on_wrong_labels']:.1%}  {row['seconds']:.0f} s"
    )


def mean(rows: list[dict[str, Any]], part: str, name: str) -> float:
    """Over seeds."""
    return sum(row[part][name] for row in rows) / len(rows)


def main() -> None:
    """Measure and print."""
    if not SHARED.is_dir():
        sys.exit(f"skipped: no folder {Path(SHARED.name)} beside the repository")
    seeds = [int(seed) for seed in sys.argv[1:]] or list(SEEDS)
    rows = []
    for seed in seeds:
        for arm in ARMS:
            rows.append(measured(arm, seed))
            print(told(rows[-1]), flush=True)
    for arm in ARMS:
        here = [row for row in rows if row["arm"] == arm]
        print(
            f"{arm:<14} mean    "
            + "  ".join(
                f"{part} {mean(here, part, 'test_error'):.1%} "
                f"(over classes {mean(here, part, 'test_class_error'):.1%})"
                for part in ("best", "last")
            )
        )
    save("train", rows)


if __name__ == "__main__":
    main()
