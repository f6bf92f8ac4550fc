"""What two defaults rest on: how features are scaled, and one ridge for losses and derivatives.

`python -m benchmarks.ridge_choice` reads the features that `diva score` has cached or computes them (a minute
or two the first time) and flips labels of `clothing/train` in several ways. For each scaling it prints the
smallest LOO loss and the error on `clothing/test`. Then it prints how well the flips are found, as AUROC: by
`mislabel_probability`, by the LOO loss, by the derivative at the LOO optimum, and by the derivative at ten
and thirty times that ridge, each with the share of derivatives that are positive. Needs the folder `shared`
beside the repository.
"""

from __future__ import annotations

import torch
from sklearn.metrics import roc_auc_score

from benchmarks.machine import SHARED, require_shared, save
from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples
from divacli.files.cache import default_cache
from divacli.ridge import (
    SCALINGS,
    RidgeTask,
    SquaredLoss,
    decompose,
    diagnose,
    fit_noise,
    fit_scaling,
    in_eigenbasis,
    loo_derivative,
    loo_predictions,
    noise_rows,
    ridge_path,
    validation_sums,
)

CASES = [("uniform", 0.2), ("uniform", 0.4), ("uniform", 0.05), ("pair", 0.2), ("none", 0.0)]
SEEDS = (0, 1, 2)
FACTORS = {"optimum": 1, "tenfold": 10, "thirtyfold": 30}
"""Ridges that derivatives are taken at, as multiples of the LOO optimum."""


def flip(
    labels: torch.Tensor, k: int, kind: str, rate: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy labels and which of them are wrong: to any other class, or from class c to c + 1."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(labels), generator=generator) < rate
    step = torch.randint(1, k, (len(labels),), generator=generator) if kind == "uniform" else 1
    return torch.where(wrong, (labels + step) % k, labels), wrong


def features(name: str) -> Samples:
    """A part of the clothing images under MobileNetV2."""
    checkpoint = SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    choice = BackboneChoice("mobilenet_v2", checkpoint)
    folder = SHARED / "data" / "clothing" / name
    return load_samples(str(folder), choice, ExtractOptions(device), default_cache())


def measure(task: RidgeTask, test: RidgeTask, wrong: torch.Tensor) -> dict[str, float | None]:
    """The figures of one scaling and one draw of labels.

    Args:
        task: The training samples with their noisy labels.
        test: Samples with true labels, in the same scaling.
        wrong: (n,) bool, whose labels were flipped.
    """
    loss = SquaredLoss()
    spectrum, task, [held_out] = in_eigenbasis(task, decompose(task), test)
    assert held_out is not None
    best = ridge_path(task, spectrum).ridge
    fit = spectrum.fit(best).to(task.dtype)
    rows = noise_rows(torch.arange(len(task)), task.n_classes)
    noise = fit_noise(loo_predictions(task, fit, rows), task.labels[rows])
    loo, diagnosis = diagnose(task, fit, loss, noise.model)
    _, tested = validation_sums(held_out, fit, loss)
    row: dict[str, float | None] = {"ridge": best, "loo_loss": float(loo.loss.mean())}
    row["test_error"] = float((tested.predicted != test.labels).double().mean())
    ranked = {"mislabel_probability": diagnosis.mislabel_probability, "loo_loss": loo.loss}
    for name, factor in FACTORS.items():
        derivative = loo_derivative(task, spectrum.fit(factor * best), loss).derivative
        ranked[name] = derivative
        row[f"harmful_{name}"] = float((derivative > 0).double().mean())
    for name, values in ranked.items():
        row[f"auroc_{name}"] = float(roc_auc_score(wrong, values)) if bool(wrong.any()) else None
    return row


def main() -> None:
    """Measure and print."""
    require_shared()
    train, test = features("train"), features("test")
    classes = train.manifest.classes
    truth, test_truth = (
        torch.tensor([classes.index(label) for label in part.manifest.table["label"]])
        for part in (train, test)
    )
    z, test_z = train.features[:], test.features[:]
    rows: list[dict[str, object]] = []
    for scaling in SCALINGS:
        fitted = fit_scaling(scaling, [z])
        held_out = RidgeTask(test_z, test_truth, len(classes), torch.ones(len(test_z)), scaling=fitted)
        for kind, rate in CASES:
            drawn: list[dict[str, object]] = []
            for seed in SEEDS if rate else SEEDS[:1]:
                labels, wrong = flip(truth, len(classes), kind, rate, seed)
                ones = torch.ones(len(labels), dtype=torch.float64)
                task = RidgeTask(z, labels, len(classes), ones, scaling=fitted)
                row: dict[str, object] = {"scaling": scaling, "noise": kind, "rate": rate, "seed": seed}
                drawn.append(row | measure(task, held_out, wrong))
            mean_over_seeds(drawn)
            rows += drawn
    save("ridge_choice", rows)


def mean_over_seeds(rows: list[dict[str, object]]) -> None:
    """Print one line."""

    def mean(name: str) -> str:
        values = [row[name] for row in rows]
        return "  -  " if None in values else f"{sum(map(float, values)) / len(values):.3f}"  # type: ignore[arg-type]

    first = rows[0]
    found = "  ".join(f"{name} {mean(f'auroc_{name}')}" for name in ("mislabel_probability", "loo_loss"))
    derivatives = "  ".join(
        f"{name} {mean(f'auroc_{name}')} (> 0: {mean(f'harmful_{name}')})" for name in FACTORS
    )
    print(
        f"{first['scaling']:<8} {first['noise']:<7} {first['rate']:.2f}  LOO loss {mean('loo_loss')}  "
        f"test error {mean('test_error')}  AUROC: {found}; derivative, {derivatives}",
        flush=True,
    )


if __name__ == "__main__":
    main()
