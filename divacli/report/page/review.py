"""What a review of a folder of results is served from: every sample, and the decisions made so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from divacli.manifest import Manifest
from divacli.progress import Progress
from divacli.report.page.galleries import all_samples, galleries
from divacli.report.page.payload import class_names, columns, common_folder, key_of, lists, places_of
from divacli.report.page.render import page
from divacli.report.page.server import Review
from divacli.report.page.shown_range import shown_range
from divacli.report.page.write import neighbours_of, wrong_labels
from divacli.results.read import Results
from divacli.review.ledger import SET_ASIDE, Ledger


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
    places = places_of(samples)
    ledger = Ledger(results.folder, samples, places)
    neighbours, notes = neighbours_of(results, classes, cache, progress)
    if ledger.set_aside:
        notes.append(
            "decisions that fit no sample of these results, or were made when it had another label, were "
            f"moved to {SET_ASIDE}, which holds {ledger.set_aside:,} now"
        )
    files = [None if named else file for named, file in zip(samples.names_only, samples.files(), strict=True)]
    data = {
        "classes": classes,
        "root": common_folder(places),
        "samples": {
            **columns(samples, places, np.arange(len(places)), classes),
            "image": [file is not None for file in files],
        },
        "galleries": lists(galleries(results, samples, None)),
        "neighbours": neighbours is not None,
    }
    told = {"served": True, "key": key_of(results, places)}
    html = page(results, told, notes, wrong_labels(results, truth))
    return Review(html, data, files, neighbours, ledger, shown_range(results, samples)), notes
