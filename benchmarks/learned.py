"""Are wrong labels found on the features of a network that was fine-tuned on these very labels?

`python -m benchmarks.learned` moves labels of the clothing photos and fine-tunes MobileNetV2 on them for
eight epochs, its last block or all of its layers. After 1, 2, 4 and 8 epochs it embeds the same photos, and
prints F1 of the decision of diva, of cleanlab (five-fold logistic regression, where it is installed) and of
"the left-out prediction is another label", with the interval of the share of wrong labels and what diva says
of the network. `--parts last` leaves out the runs that take minutes each. The second estimate was chosen with
the seeds 0 and 1; others judge it. Writes `learned.json`. Needs the folder `shared` beside the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from benchmarks.machine import SHARED, require_shared, save
from benchmarks.mislabel_cells import moved, unit
from benchmarks.peers import run
from divacli.curate.sample_scores import score
from divacli.curate.wrong_labels import mislabelled
from divacli.features import BackboneChoice, ExtractOptions, load_samples
from divacli.solve.ridge_problem import SolveOptions

NOISE = (("none", 0.0), ("uniform", 0.05), ("uniform", 0.2), ("uniform", 0.4), ("pair", 0.2), ("pair", 0.4))
EPOCHS = (1, 2, 4, 8)
SIZES = {"last": 3068, "all": 1500}
"""Photos by what is trained: the last block, or all layers."""
SIDE, BATCH, RATE = 96, 32, 2e-4
FROZEN = 17
"""Blocks that stay as they are where the last one is trained."""

Row = dict[str, Any]


def photos(seed: int, n: int) -> tuple[Tensor, np.ndarray]:
    """Photos (n, 3, side, side), normalised, and their class names (n,)."""
    files = sorted((SHARED / "data" / "clothing" / "train").glob("*/*.jpg"))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(files))[:n])
    pixels = []
    for number in chosen:
        image = Image.open(files[number]).convert("RGB")
        scale = SIDE / min(image.size)
        image = image.resize([max(SIDE, round(side * scale)) for side in image.size])
        left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
        pixels.append(np.asarray(image.crop((left, top, left + SIDE, top + SIDE))))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (images - mean[:, None, None]) / spread[:, None, None]
    return images, np.array([files[number].parent.name for number in chosen])


@torch.no_grad()
def outputs(network: nn.Module, inputs: Tensor) -> Tensor:
    """What a network makes of inputs, in batches."""
    return torch.cat([network(inputs[start : start + 128]) for start in range(0, len(inputs), 128)])


def finetuned(images: Tensor, labels: np.ndarray, part: str, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Epochs so far and features (n, 1280), after each number of `EPOCHS`."""
    torch.manual_seed(seed)
    network = mobilenet_v2()
    weights = torch.load(SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth")
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    # The weights hold their batch norms already: statistics stay.
    body = network.features.eval()
    inputs = images
    if part == "last":
        inputs, body = outputs(body[:FROZEN], images), body[FROZEN:]
    classes, numbers = np.unique(labels, return_inverse=True)
    targets = torch.from_numpy(numbers)
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, len(classes)))
    steps = len(images) // BATCH
    optimiser = torch.optim.AdamW([*body.parameters(), *head.parameters()], RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS[-1] * steps)
    for epoch in range(1, EPOCHS[-1] + 1):
        for batch in torch.randperm(len(images))[: steps * BATCH].view(steps, BATCH):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(head(body(inputs[batch]).mean((2, 3))), targets[batch])
            loss.backward()
            optimiser.step()
            schedule.step()
        if epoch in EPOCHS:
            yield epoch, outputs(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs).numpy()


def measure(features: np.ndarray, given: np.ndarray, truth: np.ndarray) -> Row:
    """Decisions on some features."""
    wrong = given != truth
    with tempfile.TemporaryDirectory() as folder:
        file, target = Path(folder) / "samples.npz", Path(folder) / "result.npz"
        np.savez(file, embedding=unit(features), label=given)
        options = SolveOptions()
        samples = load_samples(
            str(file), BackboneChoice("none"), ExtractOptions(options.device), Path(folder)
        )
        result = score(samples, options)
        table = result.table.iloc[np.argsort(result.order)]
        probability = table["mislabel_probability"].to_numpy(float)
        decisions = {
            "diva": mislabelled(table),
            "other label": table["predicted_label"].to_numpy(str) != given,
        }
        with contextlib.suppress(ImportError):  # it is not installed
            run("cleanlab", str(file), str(target), 0)
            with np.load(target) as arrays:
                decisions["cleanlab"] = arrays["flagged"]
    row: Row = {"wrong": float(wrong.mean()), "flagged": float(decisions["diva"].mean())}
    if wrong.any():
        row |= {f"f1 {name}": float(f1_score(wrong, decision)) for name, decision in decisions.items()}
        row["auroc"] = float(roc_auc_score(wrong, probability))
    low, high = result.summary["noise_interval"]
    row |= {"estimate": result.summary["noise_rate"], "low": low, "high": high}
    return {**row, "holds": low <= row["wrong"] <= high, "known": result.summary["labels_known"]}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learned", description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seed", type=int, default=2, help="of the photos, the moves and the training")
    chosen = parser.parse_args()
    require_shared()
    rows = []
    for part in chosen.parts:
        images, truth = photos(chosen.seed, SIZES[part])
        for kind, rate in NOISE:
            given = moved(truth, kind, rate, np.random.default_rng(chosen.seed + 1))
            for epochs, features in finetuned(images, given, part, chosen.seed):
                row = {"part": part, "kind": kind, "rate": rate, "epochs": epochs}
                row |= measure(features, given, truth)
                rows.append(row)
                print(
                    {
                        name: round(value, 3) if isinstance(value, float) else value
                        for name, value in row.items()
                    },
                    flush=True,
                )
                save("learned", rows)


if __name__ == "__main__":
    main()
