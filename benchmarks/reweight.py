"""What chosen weights do to the error on images that had no part in choosing them.

`python -m benchmarks.reweight` runs `reweight` with its automatic step on `clothing/train` as it is and with
20 % and 40 % of its labels moved to a random other class (five seeds), and on five draws of 5,000 images of
cifar10n with labels by human annotators, all under MobileNetV2 features, and prints the error on
`clothing/test`, or on the other 5,000 images with their true labels, averaged over classes, of ridge
regression before and after.
Then it balances long-tailed draws of `clothing/train` (400 images of the largest class, 20 of the smallest),
against constant and inverse-frequency weights, and prints the error on `clothing/test`, in which the smallest
classes have 12 images, and on the images of `clothing/train` that were not drawn. Needs the folder `shared`
beside the repository.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from benchmarks.extend import flipped, relabelled, test_errors
from benchmarks.machine import SHARED, require_shared, save
from benchmarks.ridge_choice import features
from divacli.curate.reweight import ReweightOptions, reweight
from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples
from divacli.files.cache import default_cache
from divacli.solve.ridge_problem import SolveOptions

SEEDS = range(5)
RATES = (0.0, 0.2, 0.4)
LARGEST, SMALLEST = 400, 20


def class_error(training: Samples, test: Samples, options: SolveOptions) -> float:
    """Error of ridge regression at its leave-one-out optimum, averaged over the test set's classes."""
    return test_errors(training, test, options)[1]


def weighted(samples: Samples, weights: np.ndarray) -> Samples:
    """The samples at other weights."""
    manifest = replace(samples.manifest, table=samples.manifest.table.assign(weight=weights))
    return replace(samples, manifest=manifest)


def measure(name: str, training: Samples, test: Samples, seed: int) -> dict[str, object]:
    """Errors before and after the automatic steps, with either loss."""
    row: dict[str, object] = {"case": name, "seed": seed}
    plain = SolveOptions(seed=seed)
    row["before"] = class_error(training, test, plain)
    for loss in ("robust-cross-entropy", "squared"):
        result = reweight(training, replace(plain, loss=loss), ReweightOptions())
        after = weighted(training, result.table["weight"].to_numpy())
        row[loss] = class_error(after, test, plain)
        row[f"steps, {loss}"] = result.summary["sizes"]
    return row


def long_tail(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """A draw whose classes shrink geometrically, from the one with the most samples on; and the rest."""
    generator = np.random.default_rng(seed)
    labels = samples.manifest.table["label"]
    order = labels.value_counts().index
    rows = []
    for position, label in enumerate(order):
        wanted = round(LARGEST * (SMALLEST / LARGEST) ** (position / (len(order) - 1)))
        of_class = np.flatnonzero(labels == label)
        rows.append(generator.permutation(of_class)[:wanted])
    drawn = np.sort(np.concatenate(rows))
    return samples.select(drawn), samples.select(np.setdiff1d(np.arange(len(samples)), drawn))


def balance(training: Samples, held_out: dict[str, Samples], seed: int) -> dict[str, object]:
    """Errors with constant, inverse-frequency and chosen weights, the ridge judged by all classes alike."""
    labels = training.manifest.table["label"]
    inverse = (len(labels) / labels.nunique() / labels.map(labels.value_counts())).to_numpy(float)
    options = SolveOptions(seed=seed, balanced=True)
    row: dict[str, object] = {"case": "long tail", "seed": seed}
    by_weights = {"constant": np.ones(len(labels)), "inverse frequency": inverse}
    for per in ("sample", "class"):
        how = ReweightOptions(per=per)
        result = reweight(training, replace(options, loss="robust-cross-entropy"), how)
        by_weights[f"per {per}"] = result.table["weight"].to_numpy()
        row[f"steps per {per}"] = result.summary["sizes"]
    for name, weights in by_weights.items():
        for part, samples in held_out.items():
            row[f"{name}, {part}"] = class_error(weighted(training, weights), samples, options)
    return row


def annotated() -> tuple[Samples, np.ndarray]:
    """The images of cifar10n with the labels of annotators, and their true labels (n,)."""
    folder = SHARED / "data" / "cifar10n"
    checkpoint = SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    choice = BackboneChoice("mobilenet_v2", checkpoint)
    samples = load_samples(str(folder / "labels.csv"), choice, ExtractOptions(device), default_cache())
    truth = pd.read_csv(folder / "truth.csv").set_index("path")["true_label"]
    return samples, truth.loc[samples.manifest.table["path"]].to_numpy(str)


def cifar10n(seed: int) -> tuple[Samples, Samples]:
    """Half of the images with the labels of annotators, and the others with the true ones."""
    samples, true_labels = annotated()
    order = np.random.default_rng(seed).permutation(len(samples))
    half = len(order) // 2
    return samples.select(order[:half]), relabelled(samples, true_labels).select(order[half:])


def main() -> None:
    """Measure and print."""
    require_shared()
    train, test = features("train"), features("test")
    truth = train.manifest.table["label"].to_numpy(str)
    rows = []
    for rate in RATES:
        for seed in SEEDS if rate else [0]:
            noisy = relabelled(train, flipped(truth, rate, seed)[0])
            rows.append(told(measure(f"clothing, {rate:.0%} flips", noisy, test, seed)))
    for seed in SEEDS:
        rows.append(told(measure("cifar10n, human labels", *cifar10n(seed), seed)))
    for seed in SEEDS:
        drawn, rest = long_tail(train, seed)
        rows.append(told(balance(drawn, {"test": test, "not drawn": rest}, seed)))
    means = pd.DataFrame(rows).groupby("case", sort=False).mean(numeric_only=True).drop(columns="seed")
    for case, mean in means.iterrows():
        print(case, ", ".join(f"{name} {value:.1%}" for name, value in mean.dropna().items()))
    save("reweight", rows)


def told(row: dict[str, object]) -> dict[str, object]:
    """Print one row."""
    print({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}, flush=True)
    return row


if __name__ == "__main__":
    main()
