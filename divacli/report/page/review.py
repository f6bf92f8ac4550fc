"""What a review of a folder of results is served from: every sample, and the decisions made so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from divacli.embed.progress import Progress
from divacli.manifest import Manifest
from divacli.report.page.galleries import all_samples, galleries
from divacli.report.page.payload import class_names, columns, key_of, lists, places_of
from divacli.report.page.render import page
from divacli.report.page.server import Decisions, Review
from divacli.report.page.write import neighbours_of, wrong_labels
from divacli.report.results import Results

DECISIONS = "decisions.csv"
"""Name of the file of decisions in the folder of results."""


def prepare(
    results: Results, cache: Path, progress: Progress, truth: Manifest | None = None
) -> tuple[Review, list[str]]:
    """Make all that a review needs but its server.

    Args:
        results: The folder.
        cache: Where features are looked for, of which the page shows neighbours.
        progress: Of finding them.
        truth: True labels, where they are known.

    Returns:
        The review, and sentences on what it lacks.

    Raises:
        DivaError: The tables, or the decisions that are there already, are not usable.
    """
    samples = all_samples(results)
    classes = class_names(samples.table)
    neighbours, notes = neighbours_of(results, classes, cache, progress)
    places = places_of(samples)
    found = columns(samples, np.arange(len(places)), classes, results.folder)
    files = [
        None if link is None else file for link, file in zip(found["link"], samples.files(), strict=True)
    ]
    data = {
        "classes": classes,
        "samples": {**found, "image": [file is not None for file in files]},
        "galleries": lists(galleries(results, samples, None)),
        "neighbours": neighbours is not None,
    }
    told = {"served": True, "key": key_of(results, places)}
    html = page(results, told, notes, wrong_labels(results, truth))
    return Review(html, data, files, neighbours, Decisions(results.folder / DECISIONS, places)), notes
