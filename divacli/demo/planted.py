"""How many of the planted label errors scores and pruning have found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from divacli.demo.digits import DigitSet
from divacli.manifest import read_manifest
from divacli.manifest.columns import MISLABEL_PROBABILITY


@dataclass(frozen=True)
class Found:
    """What a rule marks, and what of it has a wrong label.

    Attributes:
        n_marked: Samples that the rule marks.
        n_hits: Those of them whose label is wrong.
        n_wrong: Wrong labels there are.
    """

    n_marked: int
    n_hits: int
    n_wrong: int

    @property
    def precision(self) -> float:
        """Share of marked samples whose label is wrong; 0 where none is marked."""
        return self.n_hits / max(self.n_marked, 1)

    @property
    def recall(self) -> float:
        """Share of wrong labels that are marked."""
        return self.n_hits / self.n_wrong


def found_errors(digits: DigitSet, scores: Path, dropped: Path) -> tuple[Found, Found]:
    """What a probability above one half marks, and what pruning has dropped.

    Args:
        digits: The demonstration's images.
        scores: Table of their scores.
        dropped: Table of the samples that were dropped.
    """
    files = read_manifest(str(digits.labels)).files()
    wrong = {file for file, flipped in zip(files, digits.flipped, strict=True) if flipped}
    scored = read_manifest(str(scores))
    called = scored.select((scored.table[MISLABEL_PROBABILITY] > 0.5).to_numpy())
    marked = [_resolved(called.files()), _resolved(read_manifest(str(dropped)).files())]
    by_score, by_pruning = (Found(len(files), len(files & wrong), len(wrong)) for files in marked)
    return by_score, by_pruning


def _resolved(files: Iterable[str]) -> set[str]:
    return {str(Path(file).resolve()) for file in files}
