"""Files that version 0.1.0 wrote, of format 1 where they have a number, are read by today's code."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from divacli.cli.app import app
from divacli.errors import OutputError, StoreError
from divacli.features.samples import read_store
from divacli.features.store import FeatureStore
from divacli.manifest import read_manifest
from divacli.results.read import read_results
from divacli.results.runfile import RunFile
from divacli.training.resume import load_checkpoint

COMMITTED = Path(__file__).with_name("1")
PATHS = [f"photos/{row:02d}, é.png" for row in range(24)]


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, their cache in use."""
    shutil.copytree(COMMITTED, tmp_path / "old")
    monkeypatch.setenv("DIVA_CACHE_DIR", str(tmp_path / "old" / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "old"


@pytest.fixture
def done() -> Callable[..., None]:
    """A command that must succeed."""

    def invoke(*arguments: object) -> None:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output

    return invoke


def test_a_feature_store(old: Path) -> None:
    samples = read_store(old / "store", "store")
    assert samples.manifest.table["path"].tolist() == PATHS
    with np.load(old / "embeddings.npz") as arrays:
        assert np.array_equal(samples.features[:].numpy(), arrays["embedding"])
        assert samples.manifest.table["label"].tolist() == arrays["label"].tolist()
    assert samples.identity == {"model": "net", "weights": "0123", "layer": "fc"}
    assert samples.head is not None
    assert samples.head[0].tolist() == torch.arange(12.0).reshape(3, 4).tolist()


def test_a_feature_store_is_written_on(old: Path) -> None:
    store = FeatureStore.create(old / "store", {"model": "net", "weights": "0123", "layer": "fc"}, 4)
    assert len(store) == 24
    store.append(np.full((1, 32), 7, np.uint8), np.ones((1, 4), np.float32))
    assert len(FeatureStore(old / "store")) == 25


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_scores_and_the_note_of_what_they_came_from(
    old: Path, done: Callable[..., None], suffix: str
) -> None:
    """With the note the cache has of them: pruning makes a forecast, and computes no scores anew."""
    scores = old / "results" / f"scores.{suffix}"
    table = read_manifest(str(scores)).table
    assert sorted(table["path"]) == PATHS
    assert table["derivative"].is_monotonic_decreasing
    assert table["significant"].dtype == "boolean"
    done("prune", scores, "--keep", "0.75", "--by", "derivative", "--force", "--out", "pruned")
    pruned = json.loads(Path("pruned/prune.json").read_text())
    assert pruned["forecast"] is not None
    dropped = pd.read_csv("pruned/dropped.csv")
    assert dropped["path"].tolist() == table["path"].tolist()[:6]


def test_results_without_a_record_of_their_run(old: Path, done: Callable[..., None]) -> None:
    results = read_results(old / "results")
    assert len(results.samples["scores"].table) == 24
    assert results.summaries["summary"]["n_samples"] == 24
    done("report", old / "results", "--out", "page.html")
    assert "photos/04" in Path("page.html").read_text(encoding="utf-8")


def test_decisions(old: Path, done: Callable[..., None]) -> None:
    done("apply", old / "embeddings.npz", old / "decisions.csv", "--out", "applied")
    applied = read_manifest("applied/applied.csv").table.set_index("path")["label"]
    assert PATHS[11] not in applied.index
    assert (applied[PATHS[4]], applied[PATHS[0]], len(applied)) == ("b", "a", 23)


def test_progress_of_a_training(old: Path) -> None:
    state = load_checkpoint(old / "training.pt", {"data": "abc", "epochs": "2"})
    assert state is not None
    assert state["epoch"] == 1
    assert state["weights"].tolist() == [0.5, 2.0]
    assert state["history"] == [{"loss": 0.25}]


def test_a_store_of_a_later_format_is_refused_by_name(old: Path) -> None:
    file = old / "store" / "store.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(StoreError, match="feature store of format 2"):
        FeatureStore(old / "store")
    with pytest.raises(StoreError, match="feature store of format 2"):
        FeatureStore.create(old / "store", {"model": "net", "weights": "0123", "layer": "fc"}, 4)
    assert len(list((old / "store").glob("shard-*.safetensors"))) == 2


def test_a_training_of_a_later_format_is_refused_by_name(old: Path) -> None:
    content = torch.load(old / "training.pt", weights_only=True)
    torch.save({**content, "format": 2}, old / "training.pt")
    with pytest.raises(StoreError, match="of format 2"):
        load_checkpoint(old / "training.pt", {"data": "abc", "epochs": "2"})


def test_a_record_of_runs_of_a_later_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 2, "runs": []}')
    with pytest.raises(OutputError, match="of format 2"):
        RunFile.read(tmp_path)


@pytest.mark.parametrize(("change", "found"), [({}, True), ({"format": 1}, True), ({"format": 2}, False)])
def test_a_note_of_another_format_counts_as_none(
    old: Path, done: Callable[..., None], change: dict[str, Any], found: bool
) -> None:
    (file,) = (old / "cache" / "runs").iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    done("prune", old / "results" / "scores.csv", "--keep", "0.75", "--out", "pruned")
    assert (json.loads(Path("pruned/prune.json").read_text())["forecast"] is not None) == found


def test_nothing_committed_was_changed() -> None:
    """Tests work on copies."""
    assert sum(len(files) for _, _, files in os.walk(COMMITTED)) == 15
