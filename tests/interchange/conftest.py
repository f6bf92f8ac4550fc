"""A table of scores of images with names and labels that others trip over."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from divacli.manifest import write_table

HOSTILE = [
    "plain",
    "two words",
    'quo"te',
    "it's",
    "<script>alert(1)",
    "a & b",
    "new\nline",
    "\u202e\u0645\u0631\u062d\u0628\u0627",
    "😀",
    "=1+1",
    "+1",
    "-x",
    "@y",
]


@pytest.fixture
def hostile() -> list[str]:
    """Texts that are labels and names of files."""
    return HOSTILE


@pytest.fixture
def scores_file(tmp_path: Path) -> Path:
    """`scored/scores.csv` of images `photos/<label>/<label>.png`; every other label is called wrong."""
    n = len(HOSTILE)
    for number, name in enumerate(HOSTILE):
        file = tmp_path / "photos" / name / f"{name}.png"
        file.parent.mkdir(parents=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(file)
    wrong = [0.9 if row % 2 == 0 else 0.1 for row in range(n)]
    table = pd.DataFrame(
        {
            "rank": range(1, n + 1),
            "path": [f"../photos/{name}/{name}.png" for name in HOSTILE],
            "label": HOSTILE,
            "weight": 1.0,
            "derivative": [0.5 - 0.05 * row for row in range(n)],
            "loo_loss": 0.3,
            "predicted_label": HOSTILE[1:] + HOSTILE[:1],
            "mislabel_probability": wrong,
            "suggested_label": HOSTILE[1:] + HOSTILE[:1],
            "suggested_probability": [0.8 * probability for probability in wrong],
            "outlier_score": [3.0 if row == 3 else 0.1 for row in range(n)],
        }
    )
    folder = tmp_path / "scored"
    folder.mkdir()
    write_table(table, folder / "scores.csv", "csv")
    return folder / "scores.csv"
