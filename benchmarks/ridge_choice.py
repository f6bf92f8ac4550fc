"""What the defaults rest on: feature scaling, and the ridge that derivatives are taken at.

`python -m benchmarks.ridge_choice` reads the features that `diva score` has cached or computes them (a minute
or two the first time), flips labels of `clothing/train` in several ways and prints, for each scaling and each
rule for the ridge, the AUROC of derivative and LOO loss for the flips, the F1 of the rule `derivative > 0`,
and the error on `clothing/test`. Needs the folder `shared` beside the repository.
"""

from __future__ import annotations

import torch
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks.machine import SHARED, require_shared, save
from divacli.cache import default_cache
from divacli.embed import BackboneChoice, ExtractOptions, Samples, load_samples
from divacli.ridge import (
    SCALINGS,
    RidgeTask,
    SquaredLoss,
    choose_ranking_ridge,
    decompose,
    fit_scaling,
    leave_one_out,
    loo_derivative,
    ridge_path,
    validation_derivative,
)

CASES = [("uniform", 0.2), ("uniform", 0.4), ("uniform", 0.05), ("pair", 0.2), ("none", 0.0)]
SEEDS = (0, 1, 2)


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
    rows = []
    for scaling in SCALINGS:
        fitted = fit_scaling(scaling, [z])
        for kind, rate in CASES:
            for seed in SEEDS:
                labels, wrong = flip(truth, len(classes), kind, rate, seed)
                ones = torch.ones(len(labels), dtype=torch.float64)
                task = RidgeTask(z, labels, len(classes), ones, scaling=fitted)
                held_out = RidgeTask(
                    test_z, test_truth, len(classes), torch.ones(len(test_z)), scaling=fitted
                )
                spectrum = decompose(task)
                path = ridge_path(task, spectrum)
                best = float(path.ridges[path.best])
                ranking = choose_ranking_ridge(task, spectrum, best, SquaredLoss(), seed)
                loo = leave_one_out(task, spectrum.fit(best), SquaredLoss())
                row = {"scaling": scaling, "noise": kind, "rate": rate, "seed": seed, "ridge": best}
                row |= {"ranking_ridge": ranking.ridge, "loo_loss": float(loo.loss.mean())}
                _, tested = validation_derivative(task, held_out, spectrum.fit(best), SquaredLoss())
                row["test_error"] = float((tested.predicted != test_truth).double().mean())
                row["auroc_loo_loss"] = float(roc_auc_score(wrong, loo.loss)) if rate else None
                for rule, ridge in {"optimum": best, "tenfold": 10 * best, "ranking": ranking.ridge}.items():
                    derivative = loo_derivative(task, spectrum.fit(ridge), SquaredLoss()).derivative
                    row[f"auroc_{rule}"] = float(roc_auc_score(wrong, derivative)) if rate else None
                    row[f"f1_{rule}"] = float(f1_score(wrong, derivative > 0)) if rate else None
                    row[f"harmful_{rule}"] = float((derivative > 0).double().mean())
                rows.append(row)
            mean_over_seeds(rows[-len(SEEDS) :])
    save("ridge_choice", rows)


def mean_over_seeds(rows: list[dict[str, object]]) -> None:
    """Print one line."""

    def mean(name: str) -> str:
        values = [row[name] for row in rows]
        return " -   " if None in values else f"{sum(map(float, values)) / len(values):.3f}"  # type: ignore[arg-type]

    first = rows[0]
    rules = "  ".join(
        f"{rule}: AUROC {mean(f'auroc_{rule}')} F1 {mean(f'f1_{rule}')} > 0 {mean(f'harmful_{rule}')}"
        for rule in ("optimum", "tenfold", "ranking")
    )
    print(
        f"{first['scaling']:<8} {first['noise']:<7} {first['rate']:.2f}  test error {mean('test_error')}  "
        f"LOO loss {mean('loo_loss')} (AUROC {mean('auroc_loo_loss')})  derivative at {rules}",
        flush=True,
    )


if __name__ == "__main__":
    main()
