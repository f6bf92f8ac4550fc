"""What really happens to the test loss when a network is fine-tuned without some of its training samples.

There are three settings: `clothing/train` with a fifth of its labels moved, under MobileNetV2 of which the
last block or, on small images, everything is trained; and cifar10n with its annotators' labels, under a CIFAR
ResNet-20, all of it trained. A run sees no dropped sample: not in its steps, which are divided by the size of
the whole batch, in the same order of batches for all subsets of a seed, and not in the head that it begins
with, which is zero or, where the checkpoint's own head has the classes of the data, that one. Batch norms
stay as they are. Every run is kept as soon as it ends, so that an interrupted measurement goes on.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.extend import flipped
from benchmarks.machine import RESULTS, SHARED, description
from divacli.backbones.linearised.expression import Linearize
from divacli.backbones.parts import active_names
from divacli.backbones.transform import probe_images
from divacli.curate.sample_scores import score
from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples
from divacli.features.samples import order_by_path
from divacli.files.write import write_text
from divacli.manifest import write_table
from divacli.progress import silent
from divacli.solve.ridge_problem import SolveOptions
from divacli.training.image_batches import ImageBatches
from divacli.training.trainable import trained_names
from divacli.training.trainee import StepOptions, Trainee, epoch_order, learning_rate_share, set_outputs

TRUTHS = RESULTS / "datamodel-truths.json"

BATCH = 32
FLIPS = 0.2
CIFAR_TEST = 1000
HALVES, TENTHS = 20, 6
SEED, AGAIN = 0, 1
"""Of the order of the batches, and another one, with which the runs of `REPEATED` are made again."""

REPEATED = ("all", "random half")
"""Kinds of subsets whose runs tell how much of the truth is noise."""

GROUPS = {
    "all": ("chosen", "random half", "random tenth"),
    "random": ("random half", "random tenth"),
    "halves": ("random half",),
}
"""Kinds of subsets that a correlation is over."""

CPU = torch.device("cpu")

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What is fine-tuned, and how.

    Attributes:
        name: As in the results.
        data: A folder of `shared/data`.
        trainable: As for `divacli.training.trainable.trained_names`.
        epochs: Passes over the training set.
        lr: The largest learning rate.
        image_size: Side of the crop; None: the network's own.
        n_train: Training images; None: all.
        own_head: Whether the network begins with its checkpoint's head, not with one of zeros.
    """

    name: str
    data: Literal["clothing", "cifar10n"]
    trainable: str
    epochs: int
    lr: float
    image_size: int | None = None
    n_train: int | None = None
    own_head: bool = False


SETTINGS = (
    Setting("clothing, last block", "clothing", "last", epochs=3, lr=0.01),
    Setting("cifar10n, all", "cifar10n", "all", epochs=3, lr=0.005, n_train=2000, own_head=True),
    Setting("clothing, all", "clothing", "all", epochs=3, lr=0.005, image_size=96, n_train=1500),
)


@dataclass(frozen=True)
class Posed:
    """The images of a setting, with the features that a network has for them.

    Attributes:
        setting: The setting.
        choice: The network.
        tables: Training and test images: path, label, and `truth`, the right label.
        training: The training samples.
        test: The test samples.
    """

    setting: Setting
    choice: BackboneChoice
    tables: tuple[pd.DataFrame, pd.DataFrame]
    training: Samples
    test: Samples

    @property
    def wrong(self) -> np.ndarray:
        """(n,) bool, which training labels are wrong."""
        train, _ = self.tables
        return (train["label"] != train["truth"]).to_numpy()

    @cached_property
    def digest(self) -> str:
        """Of all that a run depends on but its subset and seed."""
        train, test = self.tables
        names = [[Path(path).name for path in table["path"]] for table in self.tables]
        content = [repr(self.setting), BATCH, *names, train["label"].tolist(), test["label"].tolist()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def network(setting: Setting, expression: str) -> BackboneChoice:
    """The network of a setting, linearised in the parts that an expression names."""
    weights, linearize = SHARED / "weights", Linearize(expression)
    if setting.data == "cifar10n":
        factory = Path(__file__).parents[1] / "sample_configs" / "cifar_resnet20.py"
        return BackboneChoice(f"{factory}:resnet20", weights / "cifar_resnet20.th", linearize=linearize)
    checkpoint, size = weights / "mobilenet_v2_imagenet_fp16.pth", setting.image_size
    return BackboneChoice("mobilenet_v2", checkpoint, image_size=size, linearize=linearize)


def images(setting: Setting) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test images of a setting, as for `Posed`."""
    folder = SHARED / "data" / setting.data
    generator = np.random.default_rng(0)
    if setting.data == "cifar10n":
        told = pd.read_csv(folder / "labels.csv")
        told["truth"] = told["path"].map(pd.read_csv(folder / "truth.csv").set_index("path")["true_label"])
        told["path"] = [str(folder / path) for path in told["path"]]
        drawn = told.iloc[generator.permutation(len(told))].reset_index(drop=True)
        train, rest = drawn[: setting.n_train], drawn[setting.n_train :]
        return train, rest[:CIFAR_TEST].assign(label=rest["truth"]).reset_index(drop=True)
    parts = []
    for split in ("train", "test"):
        files = sorted((folder / split).glob("*/*.jpg"))
        truth = [file.parent.name for file in files]
        parts.append(pd.DataFrame({"path": [str(file) for file in files], "truth": truth, "label": truth}))
    train, test = parts
    train["label"] = flipped(train["truth"].to_numpy(str), FLIPS, 0)[0]
    rows = np.sort(generator.permutation(len(train))[: setting.n_train])
    return train.iloc[rows].reset_index(drop=True), test


def pose(
    setting: Setting, choice: BackboneChoice, tables: tuple[pd.DataFrame, pd.DataFrame], cache: Path
) -> Posed:
    """Find or compute the features of a setting's images in this process.

    Args:
        setting: The setting.
        choice: The network.
        tables: As for `Posed`.
        cache: Folder of the features.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for table in tables:
            file = Path(folder) / "samples.csv"
            write_table(table[["path", "label"]], file, "csv")
            found.append(load_samples(str(file), choice, ExtractOptions(CPU, workers=0), cache))
    return Posed(setting, choice, tables, *found)


@dataclass(frozen=True)
class Subset:
    """Training samples that a run is made without.

    Attributes:
        name: Of its own within a setting.
        kind: "all", "random half", "random tenth" or "chosen".
        dropped: (n,) bool.
    """

    name: str
    kind: str
    dropped: np.ndarray


def subsets(posed: Posed) -> list[Subset]:
    """The empty subset first, then chosen and random ones.

    Args:
        posed: With the features that choose.
    """
    n, wrong = len(posed.training), posed.wrong
    found = score(posed.training, SolveOptions())
    harm = found.derivative
    loss = np.empty(n)
    loss[found.order] = found.table["loo_loss"]
    harm_to_test = score(posed.training, SolveOptions(), posed.test).derivative
    labels = posed.tables[0]["label"].to_numpy(str)
    largest = pd.Series(labels).value_counts().index

    def first(values: np.ndarray, share: float, among: np.ndarray | None = None) -> np.ndarray:
        """The share of samples (among some) with the largest values."""
        among = np.ones(n, bool) if among is None else among
        order = np.argsort(-np.where(among, values, -np.inf), kind="stable")
        dropped = np.zeros(n, bool)
        dropped[order[: round(share * among.sum())]] = True
        return dropped

    def drawn(seed: int, share: float, among: np.ndarray | None = None) -> np.ndarray:
        return first(np.random.default_rng([0, seed]).random(n), share, among)

    chosen = {
        **{f"most harmful {share:.0%}": first(harm, share) for share in (0.05, 0.1, 0.2, 0.3, 0.5)},
        **{f"most useful {share:.0%}": first(-harm, share) for share in (0.05, 0.1, 0.2)},
        "highest loss 10%": first(loss, 0.1),
        "highest loss 20%": first(loss, 0.2),
        "lowest loss 20%": first(-loss, 0.2),
        "most harmful to the test set 10%": first(harm_to_test, 0.1),
        "most useful to the test set 10%": first(-harm_to_test, 0.1),
        "most harmful half of the largest class": first(harm, 0.5, labels == largest[0]),
        "most harmful half of the second class": first(harm, 0.5, labels == largest[1]),
        "half of the third class": drawn(1000, 0.5, labels == largest[2]),
        "wrong labels": wrong,
        "half of the wrong labels": drawn(1001, 0.5, wrong),
        "20% of the right labels": drawn(1002, 0.2, ~wrong),
    }
    return [
        Subset("none", "all", np.zeros(n, bool)),
        *(Subset(name, "chosen", dropped) for name, dropped in chosen.items()),
        *(Subset(f"random half {i}", "random half", drawn(i, 0.5)) for i in range(HALVES)),
        *(Subset(f"random tenth {i}", "random tenth", drawn(500 + i, 0.1)) for i in range(TENTHS)),
    ]


class FineTuning:
    """The network of a setting, ready to be fine-tuned again and again on images that are in memory.

    Args:
        posed: The setting.
    """

    def __init__(self, posed: Posed) -> None:
        self._setting, backbone = posed.setting, copy.deepcopy(posed.choice.backbone)
        active = active_names(backbone.network, backbone.layer, probe_images(backbone.transform, 2))
        self._names = trained_names(backbone, self._setting.trainable, active)
        classes = posed.training.manifest.classes
        if not self._setting.own_head:
            set_outputs(backbone, len(classes), active)
        self._network, self._layer = backbone.network.to(memory_format=torch.channels_last), backbone.layer
        frozen = nn.Identity() if self._setting.trainable == "all" else self._split()
        self._labels, self._test_labels = (
            torch.from_numpy(samples.manifest.class_numbers(classes))
            for samples in (posed.training, posed.test)
        )
        self._order = order_by_path(posed.training)

        def inputs(samples: Samples) -> Tensor:
            loaded = ImageBatches(samples.manifest, backbone, CPU, BATCH, 0, silent)
            with torch.no_grad():
                found = torch.cat([frozen(batch) for _, batch in loaded.batches(np.arange(len(samples)))])
            return found.contiguous(memory_format=torch.channels_last)

        self._inputs, self._test_inputs = inputs(posed.training), inputs(posed.test)

    def _split(self) -> nn.Module:
        """Take the frozen layers of MobileNetV2 out of the network, so that they run once for all."""
        features: Any = self._network.get_submodule("features")
        first = min(int(name.split(".")[1]) for name in self._names if name.startswith("features."))
        frozen: nn.Module = features[:first]
        for number in range(first):
            features[number] = nn.Identity()
        return frozen

    def __call__(self, dropped: np.ndarray, seed: int) -> Tensor:
        """Logits (m, k) float64 of the test images after a fine-tuning without some samples.

        Args:
            dropped: (n,) bool.
            seed: Of the order of the batches.
        """
        setting, kept = self._setting, torch.from_numpy(~dropped)
        options = StepOptions(lr=setting.lr)
        trainee = Trainee(copy.deepcopy(self._network), self._layer, self._names, kept, options, CPU)
        step, n_steps = 0, setting.epochs * -(-len(kept) // BATCH)
        for epoch in range(setting.epochs):
            for rows in epoch_order(self._order, seed, epoch).split(BATCH):
                here = rows[kept[rows]]
                rate = learning_rate_share(step, n_steps)
                trainee.step(self._inputs[here], self._labels[here], torch.ones(len(here)), rate, len(rows))
                step += 1
        with torch.no_grad():
            return trainee.logits(trainee.features(self._test_inputs)).double()

    def judge(self, logits: Tensor) -> Row:
        """Mean test losses and error, and every test image's cross-entropy.

        Args:
            logits: (m, k) of the test images.
        """
        losses = functional.cross_entropy(logits, self._test_labels, reduction="none")
        targets = functional.one_hot(self._test_labels, logits.shape[1])
        return {
            "cross_entropy": losses.mean().item(),
            "brier": (logits.softmax(dim=1) - targets).square().sum(dim=1).mean().item(),
            "error": (logits.argmax(dim=1) != self._test_labels).double().mean().item(),
            "losses": packed(losses.numpy().astype(np.float16)),
        }


def packed(array: np.ndarray) -> str:
    """An array's bytes as text."""
    return base64.b64encode(array.tobytes()).decode()


def bits(dropped: np.ndarray) -> str:
    """Flags (n,) as text."""
    return packed(np.packbits(dropped))


def dropped_of(row: Row) -> np.ndarray:
    """(n,) bool, what a run was made without."""
    return np.unpackbits(np.frombuffer(base64.b64decode(row["dropped"]), np.uint8))[: row["n"]].astype(bool)


def losses_of(row: Row) -> np.ndarray:
    """(m,) float64 cross-entropy of every test image after a run, with the three digits of float16."""
    return np.frombuffer(base64.b64decode(row["losses"]), np.float16).astype(float)


def read_truths() -> list[Row]:
    """The runs that were made."""
    rows: list[Row] = json.loads(TRUTHS.read_text())["rows"] if TRUTHS.exists() else []
    return rows


def write_truths(rows: list[Row]) -> None:
    """Keep the runs, one a line."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_text(TRUTHS, f'{{"machine": {json.dumps(description())},\n"rows": [\n{lines}\n]}}\n')


def truths_of(posed: Posed) -> list[Row]:
    """The runs of a setting as it is now."""
    mine = (posed.setting.name, posed.digest)
    return [row for row in read_truths() if (row["setting"], row["digest"]) == mine]


def measure_truths(posed: Posed, seed: int) -> None:
    """Make the runs of a seed that have not been made.

    Args:
        posed: With the features of the head, which choose the subsets.
        seed: The seed.
    """
    made = {(row["dropped"], row["seed"]) for row in truths_of(posed)}
    missing = [
        subset
        for subset in subsets(posed)
        if (bits(subset.dropped), seed) not in made and (seed == SEED or subset.kind in REPEATED)
    ]
    if not missing:
        return
    tuning = FineTuning(posed)
    for subset in missing:
        start = time.monotonic()
        judged = tuning.judge(tuning(subset.dropped, seed))
        row = {
            "setting": posed.setting.name,
            "digest": posed.digest,
            "subset": subset.name,
            "kind": subset.kind,
            "n": len(subset.dropped),
            "n_dropped": int(subset.dropped.sum()),
            "seed": seed,
            "seconds": round(time.monotonic() - start, 1),
            **judged,
            "dropped": bits(subset.dropped),
        }
        write_truths([*read_truths(), row])
        print(
            f"{posed.setting.name}, seed {seed}, without {subset.name} ({row['n_dropped']}): cross-entropy "
            f"{row['cross_entropy']:.4f}, error {row['error']:.1%}, {row['seconds']} s",
            flush=True,
        )
