"""What the tests of doors are made of: small images wherever they are wanted, and what messages advise."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.made import tinted

Size = tuple[int, int]
"""Samples and classes."""

KINDS = ("cat", "dog", "owl")


def put(folder: Path, labels: Mapping[str, str], seed: int = 0) -> Path:
    """Write an image of its class at each path; the suffix tells its format, PNG for an unknown one.

    Args:
        folder: Where they lie.
        labels: By path, below `folder`.
        seed: Of their noise.
    """
    generator = np.random.default_rng(seed)
    classes = sorted(set(labels.values()))
    for path, label in labels.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        known = file.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp")
        tinted(classes.index(label) % 3, generator).save(file, None if known else "PNG")
    return folder


def classes_in(*splits: str, n: int = 4, kinds: Sequence[str] = KINDS) -> dict[str, str]:
    """Paths `SPLIT/CLASS/NUMBER.png`, n images of each class, with their classes."""
    return {
        f"{split}/{kind}/{split.replace('/', '-')}-{number}.png".lstrip("/"): kind
        for split in splits
        for kind in kinds
        for number in range(n)
    }


def ids(n: int, kinds: Sequence[str] = KINDS, start: int = 0) -> dict[str, str]:
    """n names without a suffix, with their classes."""
    return {f"img_{start + number:04d}": kinds[number % len(kinds)] for number in range(n)}


def write_table(
    file: Path,
    header: Iterable[str],
    rows: Iterable[Iterable[object]],
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> Path:
    """Write a table as spreadsheets do."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding=encoding) as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([list(header), *(list(row) for row in rows)])
    return file


def advised(message: str) -> list[str]:
    """The words of the command that a message gives, without `diva`."""
    [line] = [line for line in message.splitlines() if line.startswith("to do: ")]
    words = shlex.split(line.removeprefix("to do: "))
    assert words[0] == "diva", message
    return words[1:]


def size_of(folder: str) -> Size:
    """Samples and classes of the scores in a folder."""
    summary = json.loads(Path(folder, "summary.json").read_text())
    return summary["n_samples"], summary["n_classes"]
