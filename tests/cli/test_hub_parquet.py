"""`diva` on Parquet files of the Hugging Face Hub: the scores of a folder of the same images, and more."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.hub import images, png, write_hub

Scores = Callable[..., pd.DataFrame]


@pytest.fixture(params=[16, 70])
def hub(tmp_path: Path, more_images: Path, request: pytest.FixtureRequest) -> Path:
    """The images of `more_images` in one Parquet file, in groups of rows of two sizes."""
    files = sorted(more_images.rglob("*.png"), key=lambda file: file.name)
    classes = sorted({file.parent.name for file in files})
    columns = {
        "image": images([file.read_bytes() for file in files], [file.name for file in files]),
        "label": [classes.index(file.parent.name) for file in files],
    }
    return write_hub(tmp_path / "in/x.parquet", columns, {"label": classes}, rows=request.param)


@pytest.mark.parametrize("workers", [0, 2])
def test_scores_are_those_of_the_folder(
    hub: Path, more_images: Path, model: tuple[str, str], scores: Scores, workers: int
) -> None:
    found = {}
    for name, data in (("folder", more_images), ("hub", hub)):
        found[name] = scores(data, *model, "--workers", workers, "--cache-dir", f"cache-{name}", out=name)
        assert not (Path(name) / "failed.csv").read_text().splitlines()[1:]
    found["folder"]["image_path"] = found["folder"]["path"].map(lambda path: Path(path).name)
    together = found["folder"].merge(found["hub"], on=["image_path", "label"], suffixes=("", "_hub"))
    assert len(together) == 70
    for column in ("derivative", "loo_loss", "mislabel_probability", "outlier_score"):
        # Sums go over the rows in another order.
        np.testing.assert_allclose(together[column], together[f"{column}_hub"], rtol=1e-4, atol=1e-7)
    scores(more_images, *model, "--cache-dir", "cache-hub", out="again")
    assert pd.read_json("again/summary.json", typ="series")["n_embedded"] == 0


def test_written_tables_lead_on(
    hub: Path, more_images: Path, model: tuple[str, str], done: Callable[..., Any], scores: Scores
) -> None:
    first = scores(hub, *model, "--report")
    assert first["path"].str.match(r"\.\./in/x\.parquet/\d+$").all()
    assert len(re.findall("data:image/webp", Path("scored/report.html").read_text())) > 20
    done("prune", "scored/scores.csv", "--keep", "0.5", "--force", "--out", "deep/pruned", *model)
    kept = pd.read_csv("deep/pruned/kept.csv")
    assert len(kept) == 35
    scores("deep/pruned/kept.csv", *model, out="again")
    assert pd.read_json("again/summary.json", typ="series")["n_embedded"] == 0
    # In another order than that of the rows, by another network's name for them.
    scores("scored/scores.csv", *model, "--cache-dir", "fresh", out="fresh-scores")
    done("apply", "deep/pruned/kept.csv", "--materialize", "copy", "--out", "made")
    made = pd.read_csv("made/applied.csv")
    assert len(made) == 35
    for path, label, name in made[["path", "label", "image_path"]].itertuples(index=False):
        assert path.endswith(".png")
        assert (Path("made") / path).read_bytes() == (more_images / label / name).read_bytes()


def test_links_into_parquet_are_refused(hub: Path, run: Callable[..., Any]) -> None:
    result = run("apply", hub, "--materialize", "symlink", "--out", "made")
    assert result.exit_code == 1
    assert "70 of 70 images lie at URLs, or in tar or Parquet files" in " ".join(result.stderr.split())
    assert not Path("made").exists()


def test_what_is_no_image_fails(hub: Path, model: tuple[str, str], scores: Scores) -> None:
    rows = [None, b"", b"no image", hub.read_bytes()[:30]]
    columns = {"image": images([*rows, *(png(number) for number in range(8))]), "label": [0, 1] * 6}
    table = scores(write_hub(Path("bad.parquet"), columns, {"label": ["a", "b"]}), *model)
    assert len(table) == 8
    failed = pd.read_csv("scored/failed.csv")
    assert failed["path"].tolist() == [f"../bad.parquet/{row}" for row in range(4)]
    assert "row 0 has no bytes in its column image" in failed["reason"][0]
    assert failed["reason"].tolist()[1:] == [
        "empty file (0 bytes)",
        *["not an image, or of an unknown format"] * 2,
    ]


def test_a_pipe_and_training(hub: Path, model: tuple[str, str], done: Callable[..., Any]) -> None:
    table = done("score", hub, *model, "--out", "-").stdout_bytes
    kept = done("prune", "-", "--keep", "0.5", "--force", "--out", "-", *model, stdin=table).stdout_bytes
    assert kept.count(b"in/x.parquet/") == 35
    done("train", hub, *model, "--epochs", "1", "--device", "cpu", "--out", "trained")
    assert len(pd.read_csv("trained/reweighted.csv")) == 70
    done("score", hub, "--val", hub, *model, "--out", "validated")
    pool = write_hub(Path("pool.parquet"), {"image": images([png(number) for number in range(9)])})
    done("extend", hub, "--pool", pool, *model, "--out", "extended", "--budget", "3")


def test_a_damaged_file_is_named(hub: Path, run: Callable[..., Any]) -> None:
    hub.write_bytes(hub.read_bytes()[:-20])
    result = run("score", hub, "--out", "out")
    assert result.exit_code == 1
    assert "x.parquet cannot be read as Parquet" in " ".join(result.stderr.split())
    assert not Path("out").exists()
