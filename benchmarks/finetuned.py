"""Does pruning pay where the last block of the network is fine-tuned, and not only a head on its features?

`python -m benchmarks.finetuned` draws 1,000 clothing photos, moves labels, and lets `prune` decide on the
features of the network as it was before. Then the last block of MobileNetV2 is fine-tuned on everything, on
the choice, and on a random choice of the same size, for four epochs each, and tested on the other photos,
whose labels are true. Numbers after the command are the seeds to run. Needs the folder `shared` beside the
repository.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from benchmarks.machine import SHARED, require_shared, save
from benchmarks.pays import Case, labels_of, posed
from divacli.backbones.load import load_backbone
from divacli.curate.prune import prune_automatically, prune_by
from divacli.curate.sample_scores import score
from divacli.curate.score_table import Scores
from divacli.features import Samples
from divacli.solve.ridge_problem import SolveOptions
from divacli.training.train import TrainOptions, train

CASES = (("uniform", 0.2), ("clean", 0.0))
SIZE, TESTED = 1000, 1000
KEEP = 0.8
IMAGE_SIZE, EPOCHS = 128, 4
SEEDS = (0, 1)


def error(samples: Samples, test: Samples, seed: int) -> float:
    """Test error in per cent of a network whose last block was fine-tuned on the samples."""
    weights = SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth"
    backbone = load_backbone("mobilenet_v2", weights, image_size=IMAGE_SIZE)
    result = train(
        samples.manifest,
        backbone,
        TrainOptions(epochs=EPOCHS, size=0.0),
        SolveOptions(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"), seed=seed),
        test=test.manifest,
    )
    return 100 * float(result.summary["best"]["test_error"])


def measured(kind: str, rate: float, seed: int) -> list[dict[str, Any]]:
    """A row a decision."""
    here = posed(Case("prune", "clothing", kind, rate, SIZE, seed), SIZE)
    test = here.test.select(np.arange(len(here.test)) < TESTED)
    options = SolveOptions(seed=seed)
    scores = Scores.fresh(score(here.training, options), options)
    everything = error(here.training, test, seed)
    generator = np.random.default_rng(seed)
    found = []
    for name, pruning in (
        (f"keep {KEEP}", prune_by(scores, keep=KEEP, force=True)),
        ("keep auto", prune_automatically(scores, force=True)),
    ):
        kept = pruning.decision.kept
        drawn = np.zeros(len(kept), bool)
        drawn[generator.permutation(len(kept))[: int(kept.sum())]] = True
        assert pruning.outlook is not None
        row = {
            "kind": kind,
            "rate": rate,
            "seed": seed,
            "decision": name,
            "n_classes": len(set(labels_of(here.training))),
            "n_kept": int(kept.sum()),
            "pays": pruning.outlook.pays,
            "forecast": pruning.outlook.as_dict(),
            "everything": everything,
            "random": error(here.training.select(drawn), test, seed),
            "chosen": error(here.training.select(kept), test, seed),
        }
        found.append(row)
        print(
            f"{kind} {rate:.0%} seed {seed} {name}: everything {everything:.1f}, "
            f"random {row['random']:.1f}, chosen {row['chosen']:.1f}",
            flush=True,
        )
    return found


def main() -> None:
    """Measure, print and write."""
    require_shared()
    seeds = [int(seed) for seed in sys.argv[1:]] or list(SEEDS)
    rows = []
    for seed in seeds:
        for kind, rate in CASES:
            rows += measured(kind, rate, seed)
            save("finetuned", rows)


if __name__ == "__main__":
    main()
