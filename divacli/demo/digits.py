"""Real images and a checkpoint for the demonstration, made offline from scikit-learn's handwritten digits."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.datasets import load_digits

from divacli.demo import network
from divacli.errors import OutputError
from divacli.files.write import write_bytes
from divacli.manifest import write_table
from divacli.manifest.columns import TRUE_LABEL
from divacli.progress import Progress, silent

FLIPPED = 0.1
"""Share of labels that are moved to a random other class."""

_EPOCHS = 30


@dataclass(frozen=True)
class DigitSet:
    """What the demonstration works on.

    Attributes:
        labels: Table with path and label, a tenth of them wrong.
        factory: The network's file.
        checkpoint: Its weights.
        flipped: (n,) which rows of the table are wrong.
    """

    labels: Path
    factory: Path
    checkpoint: Path
    flipped: np.ndarray


_FACTORY = "network.py"


def make_digits(folder: Path, seed: int = 0, progress: Progress = silent) -> DigitSet:
    """Train a network on one half of the digits and write the other half as PNG files with wrong labels.

    The handwritten digits of the UCI repository, 8 x 8 pixels each, come with scikit-learn.

    Args:
        folder: Where to.
        seed: Of the split, the training and the flips.
        progress: Told of every epoch.

    Raises:
        OutputError: The folder cannot be written.
    """
    digits = load_digits()
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(digits.target))
    training, shown = np.array_split(order, 2)
    factory = folder / _FACTORY
    write_bytes(factory, Path(network.__file__).read_bytes())
    checkpoint = folder / "checkpoint.pt"
    content = io.BytesIO()
    torch.save(_trained(digits.images[training], digits.target[training], seed, progress), content)
    write_bytes(checkpoint, content.getvalue())

    truth = digits.target[shown]
    flipped = generator.permutation(len(shown)) < round(FLIPPED * len(shown))
    given = np.where(flipped, (truth + generator.integers(1, 10, len(shown))) % 10, truth)
    paths = [f"images/{number:04d}.png" for number in range(len(shown))]
    for path, image in zip(paths, digits.images[shown], strict=True):
        encoded = io.BytesIO()
        _png(image).save(encoded, format="png")
        write_bytes(folder / path, encoded.getvalue())
    labels = folder / "labels.csv"
    write_table(pd.DataFrame({"path": paths, "label": given.astype(str)}), labels, "csv")
    write_table(pd.DataFrame({"path": paths, TRUE_LABEL: truth.astype(str)}), folder / "truth.csv", "csv")
    return DigitSet(labels, factory, checkpoint, flipped)


def is_demo(folder: Path) -> bool:
    """Whether a folder was made by `make_digits`: the network's file in it is ours."""
    factory = folder / _FACTORY
    return factory.is_file() and factory.read_bytes() == Path(network.__file__).read_bytes()


def require_empty(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write over what is there.

    Args:
        folder: Where the demonstration would be made.
        overwrite: Whether one of an earlier run may be replaced.

    Raises:
        OutputError: The folder has something in it that may not.
    """
    if overwrite and is_demo(folder):
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(
            f"{folder} is not empty" + (", and was not made by diva demo" if overwrite else ""),
            expected="a folder for the demonstration alone",
            hint="choose another one with --out"
            if overwrite
            else "make it anew with --overwrite, or choose another folder with --out",
        )


def _png(image: np.ndarray) -> Image.Image:
    """An 8-bit grey image of a digit's 17 shades."""
    return Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))


def _trained(
    images: np.ndarray, labels: np.ndarray, seed: int, progress: Progress
) -> dict[str, torch.Tensor]:
    """Weights of the demonstration's network after a few seconds of training."""
    with torch.random.fork_rng(devices=[]), progress("training", _EPOCHS) as advance:
        torch.manual_seed(seed)
        net, transform = network.digit_net()
        inputs = torch.stack([transform(_png(image).convert("RGB")) for image in images])
        targets = torch.from_numpy(labels).long()
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
        for _ in range(_EPOCHS):
            for batch in torch.randperm(len(inputs)).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(inputs[batch]), targets[batch]).backward()
                optimizer.step()
            advance(1)
    return net.state_dict()
