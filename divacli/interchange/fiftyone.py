"""FiftyOne: a table of fields, and a script that takes it there and brings decisions back.

The script runs where FiftyOne is installed; here nothing imports it.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from divacli.curate.wrong_labels import mislabelled
from divacli.interchange.read_scores import require_images
from divacli.manifest import Manifest
from divacli.manifest.columns import (
    DERIVATIVE,
    LOO_LOSS,
    MISLABEL_PROBABILITY,
    OUTLIER_SCORE,
    PREDICTED_LABEL,
    SUGGESTED_LABEL,
    SUGGESTED_PROBABILITY,
)
from divacli.results.write import ResultFiles

TABLE, SCRIPT = "fiftyone", "import_fiftyone.py"
FILES = (f"{TABLE}.jsonl", SCRIPT)
"""What is written for FiftyOne."""

_FIELDS = (
    SUGGESTED_LABEL,
    SUGGESTED_PROBABILITY,
    PREDICTED_LABEL,
    DERIVATIVE,
    LOO_LOSS,
    MISLABEL_PROBABILITY,
    OUTLIER_SCORE,
)


def fields_of(scores: Manifest) -> pd.DataFrame:
    """A row of fields for each sample, in the order of the table.

    Args:
        scores: The samples with scores.

    Raises:
        DataError: A sample is no image file.
    """
    require_images(scores, at_urls=False)
    table = scores.table
    fields = pd.DataFrame({"path": table["path"], "given_label": table["label"]})
    for name in _FIELDS:
        if name in table:
            fields[name] = table[name]
    if MISLABEL_PROBABILITY in table:
        fields["mislabelled"] = mislabelled(table)
    return fields


def write_fields(target: ResultFiles, scores: Manifest) -> None:
    """Write the table of fields and the script; its arguments and errors are those of `fields_of`."""
    target.table(TABLE, fields_of(scores), scores.folder, format="jsonl")
    target.text(SCRIPT, script())


def script() -> str:
    """The text of the script that is written beside the table."""
    return Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
