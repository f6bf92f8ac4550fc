"""`diva` on tar shards: the scores of the same images in a folder, and tables that lead on."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

Scores = Callable[..., pd.DataFrame]


@pytest.fixture
def shards(tmp_path: Path, more_images: Path) -> str:
    """The images of `more_images` in three shards, as a pattern."""
    files = sorted(more_images.rglob("*.png"), key=lambda file: file.name)
    (tmp_path / "in").mkdir()
    for number in range(3):
        with tarfile.open(tmp_path / f"in/s-{number}.tar", "w") as archive:
            for file in files[number::3]:
                archive.add(file, file.name)
                label = tarfile.TarInfo(f"{file.stem}.cls")
                label.size = len(file.parent.name)
                archive.addfile(label, io.BytesIO(file.parent.name.encode()))
    return f"{tmp_path}/in/s-{{0..2}}.tar"


@pytest.mark.parametrize("workers", [0, 2])
def test_scores_are_those_of_the_folder(
    shards: str, more_images: Path, model: tuple[str, str], scores: Scores, workers: int
) -> None:
    found = {}
    for name, data in (("folder", more_images), ("shards", Path(shards)), ("all", Path(shards).parent)):
        options = ("--workers", workers, "--cache-dir", f"cache-{name}")
        table = scores(data, *model, *options, out=name)
        found[name] = table.assign(path=table["path"].map(lambda path: Path(path).name)).sort_values("path")
        assert not (Path(name) / "failed.csv").read_text().splitlines()[1:]
    assert found["shards"].reset_index(drop=True).equals(found["all"].reset_index(drop=True))
    together = found["folder"].merge(found["shards"], on=["path", "label"], suffixes=("", "_shards"))
    assert len(together) == 70
    for column in ("derivative", "loo_loss", "mislabel_probability", "outlier_score"):
        # Sums go over the rows in another order.
        np.testing.assert_allclose(together[column], together[f"{column}_shards"], rtol=1e-5, atol=1e-8)
    assert (together["predicted_label"] == together["predicted_label_shards"]).all()


def test_written_tables_lead_on(
    shards: str, model: tuple[str, str], done: Callable[..., Any], scores: Scores, tmp_path: Path
) -> None:
    first = scores(shards, *model)
    assert first["path"].str.match(r"\.\./in/s-[012]\.tar/\d{3}\.png").all()
    done("prune", "scored/scores.csv", "--keep", "0.5", "--force", "--out", "deep/pruned", *model)
    kept = pd.read_csv("deep/pruned/kept.csv")
    assert len(kept) == 35
    assert kept["path"].str.startswith("../../in/s-").all()
    again = scores("deep/pruned/kept.csv", *model, out="again")
    assert set(again["path"].str.rpartition("/in/")[2]) == set(kept["path"].str.rpartition("/in/")[2])
    summary = pd.read_json("again/summary.json", typ="series")
    assert summary["n_embedded"] == 0


def test_a_pipe_through_shards(shards: str, model: tuple[str, str], done: Callable[..., Any]) -> None:
    table = done("score", shards, *model, "--out", "-").stdout_bytes
    kept = done("prune", "-", "--keep", "0.5", "--force", "--out", "-", *model, stdin=table).stdout_bytes
    assert kept.count(b"in/s-") == 35


def test_training_reads_shards(shards: str, model: tuple[str, str], done: Callable[..., Any]) -> None:
    done("train", shards, *model, "--epochs", "1", "--device", "cpu", "--out", "trained")
    assert len(pd.read_csv("trained/reweighted.csv")) == 70


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:5000], "damaged or was cut off"),
        (lambda data: b"\x1f\x8b" + data, "is compressed"),
    ],
)
def test_bad_shards_are_named(
    shards: str, run: Callable[..., Any], damage: Callable[[bytes], bytes], said: str
) -> None:
    bad = Path(shards.replace("{0..2}", "1"))
    bad.write_bytes(damage(bad.read_bytes()))
    result = run("score", shards, "--out", "out")
    assert result.exit_code == 1
    assert said in result.stderr.replace("\n", " ")
    assert "s-1.tar" in result.stderr.replace("\n", "")
    assert not Path("out").exists()


def test_a_missing_shard_is_named(shards: str, run: Callable[..., Any]) -> None:
    result = run("score", shards.replace("0..2", "0..3"))
    assert result.exit_code == 1
    assert "s-3.tar does not exist" in result.stderr.replace("\n", "")
