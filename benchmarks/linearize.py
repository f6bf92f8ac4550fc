"""What features that are gradients buy: the head, the last block and the whole network, beside one another.

`python -m benchmarks.linearize` embeds `clothing` under MobileNetV2, and images of cifar10n under MobileNetV2
and under a CIFAR ResNet-20 that has seen them with their right labels, once for each network that is
linearised; parts and mixes of a sum are then columns of what is stored. For each kind of features it prints,
and writes as Markdown and JSON, the leave-one-out loss and error, the error on the test images, how well
wrong labels are found, and what dropping them gains: the errors after `--keep auto` and after the rule
`derivative > 0`, between those with all labels and without any wrong one. Labels are as given (on cifar10n
those of annotators), or a fifth of the right ones is moved to a random other class.

Labels have no part in the features: their Gram matrix is decomposed once, and every draw of labels is solved
in its eigenbasis (`Basis`). What is in `results/linearize.json` is not measured again; `--again` does.
Costs are seconds of one core, which do not depend on what else runs. Features are kept where `DIVA_CACHE_DIR`
says. Needs the folder `shared` beside the repository.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from benchmarks.extend import flipped, relabelled
from benchmarks.linearize_outputs import measure_outputs
from benchmarks.linearize_table import report
from benchmarks.machine import RESULTS, SHARED, require_shared, save
from divacli.backbones.linearised.expression import Linearize
from divacli.curate.prune_rules import choose_automatically, choose_kept
from divacli.curate.wrong_labels import mislabelled
from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples
from divacli.features.feature_rows import whole
from divacli.features.samples import order_by_path
from divacli.files.cache import default_cache
from divacli.ridge import (
    RidgeFit,
    RidgeTask,
    Spectrum,
    SquaredLoss,
    decompose,
    fit_noise,
    loo_predictions,
    noise_rows,
    ridge_path,
    scores,
    validation_sums,
)
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.solution import solve

SEEDS = (0, 1, 2)
FLIPS = 0.2
CIFAR_TRAIN, CIFAR_TEST = 3000, 2000
TIMED = 48
"""Images that are embedded to see what one of them takes."""

CPU = torch.device("cpu")

Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """Features that are compared.

    Attributes:
        name: As in the results.
        stored: What is embedded.
        factor: Norm of the columns after the head's, in units of the head's; 0: the head's alone, infinity:
            the others alone; None: all as they are stored.
        noisy: Whether labels are moved as well.
    """

    name: str
    stored: Linearize
    factor: float | None = None
    noisy: bool = True

    def of(self, samples: Samples, n_head: int) -> Samples:
        """The samples with these features instead of the stored ones, whose first columns are the head's."""
        if self.factor is None:
            return samples
        rows = samples.features[:]
        columns = mixed(rows[:, :n_head], rows[:, n_head:], self.factor)
        head = None
        if samples.head is not None and self.factor < np.inf:
            weight, bias = samples.head
            # Outputs are a linear map of the first columns alone.
            missing = columns.shape[1] - n_head
            head = torch.nn.functional.pad(weight[:, :n_head], (0, missing)), bias
        return replace(samples, features=whole(columns.numpy()), head=head)


def mixed(head: Tensor, others: Tensor, factor: float) -> Tensor:
    """Columns side by side, the second ones' rows scaled to the norm of the first ones', times a factor."""
    if factor == 0:
        return head
    if factor == np.inf:
        return others
    norms = [torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in (head, others)]
    scale = factor * norms[0] / norms[1].clamp_min(torch.finfo(others.dtype).tiny)
    return torch.cat([head, others * scale], dim=1)


SUM = "head+block:last"
LAST, FULL, WIDE = Linearize(SUM), Linearize("full"), Linearize(SUM, projection=65536)
KINDS = (
    Kind("head", LAST, 0),
    Kind("block:last", LAST, np.inf),
    Kind(SUM, LAST),
    Kind("full", FULL),
    Kind("head+block:features", FULL, 1),
)
FACTORS = tuple(Kind(f"head+{factor:g}*block:last", LAST, factor, noisy=False) for factor in (0.3, 0.5, 2, 4))
LONG = (Kind("block:last at 65,536", WIDE, np.inf), Kind(f"{SUM} at 65,536", WIDE))


@dataclass(frozen=True)
class Setting:
    """A data set under a network.

    Attributes:
        data: A folder of `shared/data`.
        network: "mobilenet_v2" or "cifar_resnet20".
        kinds: Features that are compared.
        around_head: Linearise around the network's own head.
    """

    data: str
    network: str
    kinds: tuple[Kind, ...]
    around_head: bool = False

    @property
    def name(self) -> str:
        """As in the results."""
        return f"{self.data}, {self.network}" + (", around the head" if self.around_head else "")

    @property
    def n_head(self) -> int:
        """Features before the network's last layer."""
        return {"mobilenet_v2": 1280, "cifar_resnet20": 64}[self.network]

    def choice(self, linearize: Linearize) -> BackboneChoice:
        """The network."""
        weights = SHARED / "weights"
        if self.network == "mobilenet_v2":
            checkpoint = weights / "mobilenet_v2_imagenet_fp16.pth"
            return BackboneChoice("mobilenet_v2", checkpoint, linearize=linearize)
        factory = Path(__file__).parents[1] / "sample_configs" / "cifar_resnet20.py"
        return BackboneChoice(f"{factory}:resnet20", weights / "cifar_resnet20.th", linearize=linearize)


SETTINGS = (
    Setting("clothing", "mobilenet_v2", KINDS + FACTORS + LONG),
    Setting("cifar10n", "mobilenet_v2", KINDS[:3]),
    Setting("cifar10n", "cifar_resnet20", KINDS),
    Setting("cifar10n", "cifar_resnet20", (KINDS[0], KINDS[2], *KINDS[3:]), around_head=True),
)


def samples_of(setting: Setting, linearize: Linearize) -> tuple[Samples, Samples, np.ndarray]:
    """Training and test samples, and the true labels (n,) of the former."""
    choice, options, folder = setting.choice(linearize), ExtractOptions(CPU), SHARED / "data" / setting.data
    if setting.data == "clothing":
        train, test = (
            load_samples(str(folder / part), choice, options, default_cache()) for part in ("train", "test")
        )
        return train, test, train.manifest.table["label"].to_numpy(str)
    told, right = (pd.read_csv(folder / name).set_index("path") for name in ("labels.csv", "truth.csv"))
    told["truth"] = right["true_label"]
    order = np.random.default_rng(0).permutation(len(told))
    drawn = told.iloc[order[: CIFAR_TRAIN + CIFAR_TEST]].reset_index()
    drawn["path"] = [str(folder / path) for path in drawn["path"]]
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "labels.csv"
        drawn.to_csv(table, index=False)
        both = load_samples(str(table), choice, options, default_cache())
    truth, split = drawn["truth"].to_numpy(str), np.arange(len(drawn)) < CIFAR_TRAIN
    return both.select(split), relabelled(both, truth).select(~split), truth[split]


@dataclass(frozen=True)
class Basis:
    """A ridge problem in coordinates in which its Gram matrix is diagonal, whatever the labels.

    Attributes:
        order: (n,) rows by path.
        task: The training samples.
        test: The test samples.
        spectrum: Decomposition of the task.
        seconds: Of one core, for the decomposition.
    """

    order: Tensor
    task: RidgeTask
    test: RidgeTask
    spectrum: Spectrum
    seconds: float

    @classmethod
    def of(cls, training: Samples, test: Samples, around_head: bool) -> Basis:
        """Decompose the features of training samples."""
        start = time.process_time()
        # Rows of one length have no linear map to the head's outputs, which are then all left to be fitted.
        scaling = "none" if around_head else "unit"
        options = SolveOptions(ridge=1.0, around_head=around_head, scaling=scaling)
        solution = solve(training, options, test)
        assert solution.solved_validation is not None
        task, held_out = (
            replace(part, features=part.batch(slice(0, len(part))).features)
            for part in (solution.solved, solution.solved_validation)
        )
        seconds = time.process_time() - start
        return cls(order_by_path(training), task, held_out, solution.spectrum, seconds)

    def labelled(self, labels: Tensor) -> tuple[RidgeTask, Spectrum]:
        """The problem with other labels (n,), and its decomposition."""
        task = replace(self.task, labels=labels)
        batch = task.batch(slice(0, len(task)))
        targets = batch.targets.double()
        mean = targets.mean(dim=0)
        cross = batch.features.double().T @ (targets - mean)
        return task, replace(self.spectrum, cross=cross, target_mean=mean)

    def wrong(self, fit: RidgeFit) -> np.ndarray:
        """Which test samples a fit gets wrong, (m,) bool."""
        _, found = validation_sums(self.test, fit.to(self.test.dtype), SquaredLoss())
        return (found.predicted != self.test.labels).numpy()

    def without(self, task: RidgeTask, dropped: np.ndarray) -> np.ndarray:
        """As `wrong`, of a fit without some samples, at their own leave-one-out optimum."""
        weights = torch.from_numpy(~dropped).double()
        posed = replace(task, weights=weights, validation_mask=weights)
        spectrum = decompose(posed)
        path = ridge_path(posed, spectrum, order=self.order)
        return self.wrong(spectrum.fit(path.ridge))


def scored(basis: Basis, training: Samples, labels: Tensor) -> tuple[pd.DataFrame, RidgeTask, RidgeFit]:
    """Scores in the order of the samples, as from `divacli.curate.sample_scores`; the problem; and its fit.

    Args:
        basis: Of the samples.
        training: (n).
        labels: (n,) class numbers.
    """
    loss, order = SquaredLoss(), basis.order
    task, spectrum = basis.labelled(labels)
    path = ridge_path(task, spectrum, order=order)
    fit = spectrum.fit(path.ridge)
    rows = noise_rows(order, task.n_classes)
    noise = fit_noise(loo_predictions(task, fit, rows), labels[rows])
    found = scores(task, fit, loss, noise.model, order)
    table = pd.DataFrame(
        {
            "path": training.manifest.table["path"],
            "label": np.array(training.manifest.classes, dtype=object)[labels.numpy()],
            "derivative": found.derivative.numpy(),
            "loo_loss": found.loo.loss.numpy(),
            "loo_wrong": (found.loo.predicted != labels).numpy(),
            "mislabel_probability": found.diagnosis.mislabel_probability.numpy(),
            "outlier_score": found.diagnosis.outlier_score.numpy(),
        }
    )
    return table, task, fit


def measure(basis: Basis, training: Samples, given: np.ndarray, truth: np.ndarray) -> Row:
    """The figures of one draw of labels.

    Args:
        basis: Of the training samples.
        training: (n).
        given: (n,) labels.
        truth: (n,) true labels.
    """
    labels = torch.from_numpy(np.searchsorted(training.manifest.classes, given))
    wrong = given != truth
    start = time.process_time()
    table, task, fit = scored(basis, training, labels)
    seconds = basis.seconds + time.process_time() - start
    on_test = {"everything": basis.wrong(fit)}
    row: Row = {
        "ridge": fit.ridge,
        "loo_loss": float(table["loo_loss"].mean()),
        "loo_error": float(table["loo_wrong"].mean()),
        "noise": float(wrong.mean()),
        "n_test": len(basis.test),
        "called_wrong": float(mislabelled(table).mean()),
        "seconds_solving": round(seconds, 1),
    }
    if wrong.any():
        for column in ("derivative", "loo_loss", "mislabel_probability"):
            row[f"auroc_{column}"] = float(roc_auc_score(wrong, table[column]))
        row["f1"] = float(f1_score(wrong, mislabelled(table)))
        row["f1_derivative"] = float(f1_score(wrong, table["derivative"] > 0))
        dropped = {
            "auto": ~choose_automatically(table).choice.kept,
            "derivative": ~choose_kept(table, threshold=0).kept,
            "oracle": wrong,
        }
        on_test |= {name: basis.without(task, rows) for name, rows in dropped.items()}
    truth_of_test = pd.Series(basis.test.labels.numpy())
    for name, missed in on_test.items():
        row[f"error_{name}"] = float(missed.mean())
        row[f"class_error_{name}"] = float(pd.Series(missed).groupby(truth_of_test).mean().mean())
        row[f"missed_{name}"] = np.packbits(missed).tobytes().hex()
    return row


def cost(setting: Setting, linearize: Linearize) -> Row:
    """Seconds of one core that an image takes, decoding included, and its bytes."""
    choice, options = setting.choice(linearize), ExtractOptions(CPU, workers=0)
    files = sorted((SHARED / "data" / setting.data).rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "images.csv"
        # The first ones warm up.
        for some in (files[:TIMED], files[TIMED : 2 * TIMED]):
            labels = np.arange(len(some)) % 2  # of no importance
            pd.DataFrame({"path": list(map(str, some)), "label": labels}).to_csv(table, index=False)
            start = time.process_time()
            samples = load_samples(str(table), choice, options, Path(scratch))
            seconds = time.process_time() - start
    d = samples.features.shape[1]
    return {"n_features": d, "bytes": 4 * d, "seconds_an_image": round(seconds / TIMED, 4)}


def draws(
    given: np.ndarray, truth: np.ndarray, seeds: Iterable[int]
) -> Iterator[tuple[str, int | None, np.ndarray]]:
    """Names and seeds of the labels to solve with, and they themselves (n,)."""
    yield "given", None, given
    for seed in seeds:
        yield f"{FLIPS:.0%} moved", seed, flipped(truth, FLIPS, seed)[0]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.linearize", description=__doc__.split("\n")[0]
    )
    names = ", ".join(setting.name for setting in SETTINGS)
    parser.add_argument("--settings", nargs="+", default=["*"], help=f"patterns of: {names}")
    parser.add_argument("--kinds", nargs="+", default=["*"], help="patterns of features, such as 'head*'")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS, help="of labels that are moved")
    parser.add_argument("--outputs", action="store_true", help="measure what one gradient vector loses")
    parser.add_argument("--again", action="store_true", help="measure also what has been measured")
    chosen = parser.parse_args()
    require_shared()
    for setting in SETTINGS:
        if any(fnmatch(setting.name, pattern) for pattern in chosen.settings):
            compare(setting, chosen.kinds, chosen.seeds, again=chosen.again)
    if chosen.outputs:
        seen = SETTINGS[2]
        training, test, _ = samples_of(seen, LAST)
        backbone = seen.choice(Linearize()).backbone
        for found in measure_outputs(backbone, training, test, ("layer3.2", "linear")):
            write({"setting": seen.name, "part": "outputs", "features": found["features"]}, found)
    text = report(known_rows())
    save("linearize", known_rows(), text)
    print(text)


def compare(setting: Setting, patterns: Iterable[str], seeds: Iterable[int], *, again: bool) -> None:
    """Measure the features of a setting; each figure is written as soon as it is there."""

    @cache
    def stored(linearize: Linearize) -> tuple[Samples, Samples, np.ndarray]:
        return samples_of(setting, linearize)

    for kind in setting.kinds:
        if not any(fnmatch(kind.name, pattern) for pattern in patterns):
            continue
        posed: tuple[Basis, Samples] | None = None
        named: Row = {"setting": setting.name, "features": kind.name}
        if again or not is_known({**named, "part": "cost"}):
            training, _, _ = stored(kind.stored)
            known = cost(setting, Linearize() if kind.factor == 0 else kind.stored)
            d = kind.of(training.select(np.arange(1)), setting.n_head).features.shape[1]
            write({**named, "part": "cost"}, {**known, "n_features": d, "bytes": 4 * d})
        training, test, truth = stored(kind.stored)
        given = training.manifest.table["label"].to_numpy(str)
        for labels, seed, drawn in draws(given, truth, seeds if kind.noisy else ()):
            key: Row = {**named, "part": "figures", "labels": labels, "seed": seed}
            if not again and is_known(key):
                continue
            if posed is None:
                own, held_out = (kind.of(part, setting.n_head) for part in (training, test))
                posed = Basis.of(own, held_out, setting.around_head), own
            write(key, measure(*posed, drawn, truth))


FILE = "linearize"


def known_rows() -> list[Row]:
    """What has been measured."""
    file = RESULTS / f"{FILE}.json"
    rows: list[Row] = json.loads(file.read_text())["rows"] if file.exists() else []
    return rows


def is_known(key: Row) -> bool:
    """Whether a row has been measured."""
    return any(key.items() <= row.items() for row in known_rows())


def place(row: Row) -> tuple[int, int]:
    """Where a row stands among the others: by setting, then by features."""
    for number, setting in enumerate(SETTINGS):
        names = [kind.name for kind in setting.kinds]
        if setting.name == row["setting"] and row["features"] in names:
            return number, names.index(row["features"])
    return len(SETTINGS), 0


def write(key: Row, figures: Row) -> None:
    """Keep a row, in place of an older one, and print it."""
    rows = [row for row in known_rows() if not key.items() <= row.items()]
    save(FILE, sorted([*rows, {**key, **figures}], key=place))
    shown = {name: value for name, value in figures.items() if not name.startswith("missed_")}
    print(key, shown, flush=True)


if __name__ == "__main__":
    main()
