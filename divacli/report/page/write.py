"""Make the report of a folder of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from divacli.manifest import Manifest
from divacli.manifest.truth import known_wrong
from divacli.progress import Progress
from divacli.report.page.galleries import all_samples, galleries
from divacli.report.page.neighbours import Neighbours, find_neighbours
from divacli.report.page.payload import class_names, embedded
from divacli.report.page.render import page
from divacli.results.names import SCORES
from divacli.results.read import Results

REPORT = "report.html"
"""Name of the page in the folder of results."""


def report_page(
    results: Results, base: Path, limit: int, cache: Path, progress: Progress, truth: Manifest | None = None
) -> tuple[str, list[str]]:
    """The page of a folder of results.

    Args:
        results: The folder.
        base: Absolute folder that the page will lie in, which links start from.
        limit: Samples of a list at the most.
        cache: Where features are looked for, of which the page shows neighbours.
        progress: Of reading images.
        truth: True labels, where they are known.

    Returns:
        HTML, and sentences on what the page lacks.

    Raises:
        DivaError: The tables are not usable.
    """
    samples = all_samples(results)
    neighbours, notes = neighbours_of(results, class_names(samples.table), cache, progress)
    payload = embedded(results, samples, galleries(results, samples, limit), neighbours, base, progress)
    return page(results, payload, notes, wrong_labels(results, truth)), notes


def neighbours_of(
    results: Results, classes: list[str], cache: Path, progress: Progress
) -> tuple[Neighbours | None, list[str]]:
    """The neighbours of the samples with scores, or a note on why there are none."""
    if SCORES not in results.samples:
        return None, []
    found, missing = find_neighbours(results.samples[SCORES], cache, classes, progress)
    if found is not None:
        return found, []
    return None, [
        f"neighbours are not shown: {missing}. They need the features that the scores were made from, which "
        "diva score keeps in its cache"
    ]


def wrong_labels(results: Results, truth: Manifest | None) -> np.ndarray | None:
    """Which samples of `scores` are known to have a wrong label, (n,) bool; None where nothing is known.

    Raises:
        DataError: The truth has no label for some of them.
    """
    scores = results.samples.get(SCORES)
    return None if scores is None else known_wrong(scores, truth)
