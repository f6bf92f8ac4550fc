"""What a sample is compared with: its nearest neighbours of its own and of the suggested class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from divacli.curate.score_table import Scores
from divacli.features import Samples
from divacli.manifest import Manifest
from divacli.manifest.columns import SUGGESTED_LABEL
from divacli.progress import Progress
from divacli.ridge.similar.nearest import nearest_of_classes
from divacli.solve.ridge_problem import SolveOptions

COUNT = 3
"""Neighbours of each class."""


@dataclass(frozen=True)
class Neighbours:
    """Finds neighbours among the samples of a table of scores.

    Attributes:
        samples: Their features.
        labels: (n,) int64 class numbers.
        suggested: (n,) int64 numbers of the suggested classes, -1 where there is none.
    """

    samples: Samples
    labels: torch.Tensor
    suggested: torch.Tensor

    def of(self, rows: np.ndarray) -> list[list[list[tuple[int, float]]]]:
        """For each row the neighbours of its own class, then of the suggested one: (row, cosine), best first.

        Args:
            rows: (m,) int rows of the table.
        """
        asked = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        wanted = torch.stack([self.labels[asked], self.suggested[asked]], dim=1)
        numbers, cosines = nearest_of_classes(self.samples.features, self.labels, asked, wanted, COUNT)
        return [
            [
                [(number, round(cosine, 3)) for number, cosine in zip(*pair, strict=True) if number >= 0]
                for pair in zip(*both, strict=True)
            ]
            for both in zip(numbers.tolist(), cosines.tolist(), strict=True)
        ]


def find_neighbours(
    scores: Manifest, cache: Path, classes: list[str], progress: Progress
) -> tuple[Neighbours | None, str]:
    """The neighbours of a table of scores, by the features of the run that made it, where the cache has them.

    Args:
        scores: The table.
        cache: Where features and notes of runs are.
        classes: The label of each class number.
        progress: Of finding the features, which the images are read for.

    Returns:
        The neighbours, or None and why there are none.
    """
    options = SolveOptions(device=torch.device("cpu"))
    found = Scores.recorded(scores, cache, options, progress)
    if found.samples is None or len(found.samples) != len(scores.table):
        return None, found.missing or "some of the images have changed since"
    numbers = torch.from_numpy(scores.class_numbers(classes))
    places = {label: number for number, label in enumerate(classes)}
    wanted = scores.table.get(SUGGESTED_LABEL, scores.table["label"])
    suggested = torch.tensor([places.get(label, -1) for label in wanted])
    return Neighbours(found.samples, numbers, suggested), ""
