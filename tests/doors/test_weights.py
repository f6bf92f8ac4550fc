"""Weights count where they are asked for, or where diva wrote the table."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

import divacli
from divacli.errors import DataError
from divacli.manifest import read_manifest
from divacli.reading import Reading
from tests.doors.kinds import ids, put, write_table


@pytest.fixture
def kilograms(tmp_path, monkeypatch):
    """Images with the weights of patients."""
    monkeypatch.chdir(tmp_path)
    labels = {f"{name}.png": kind for name, kind in ids(12).items()}
    put(tmp_path, labels)
    rows = [(path, kind, 48.5 + 3 * number) for number, (path, kind) in enumerate(labels.items())]
    return write_table(tmp_path / "patients.csv", ("path", "label", "weight"), rows)


def derivatives(out: str = "scored") -> pd.Series:
    return pd.read_csv(Path(out, "scores.csv")).set_index("path")["derivative"].sort_index()


def test_kilograms_are_no_weights(kilograms, run, model, tmp_path):  # D4
    plain = pd.read_csv(kilograms).drop(columns="weight")
    plain.to_csv("plain.csv", index=False)
    given = (*model, "--workers", "0", "--out", "scored")
    result = run("score", "patients.csv", *given)
    assert result.exit_code == 0
    said = " ".join(result.stderr.split())
    assert "its column weight (48.5 to 81.5) is not used" in said
    unweighted = derivatives()
    assert pd.read_csv("scored/scores.csv")["original_weight"].max() == 81.5
    quiet = run("score", "patients.csv", *given, "--weight", "none")
    assert "its column weight" not in quiet.stderr
    pd.testing.assert_series_equal(derivatives(), unweighted)
    assert run("score", "plain.csv", *given).exit_code == 0
    pd.testing.assert_series_equal(derivatives(), unweighted)
    asked = run("score", "patients.csv", *given, "--weight", "weight")
    assert "weight 48.5 to 81.5" in " ".join(asked.stderr.split())
    assert not derivatives().equals(unweighted)


def test_weights_by_another_name(kilograms):
    table = pd.read_csv(kilograms).rename(columns={"weight": "trust"})
    table.to_csv("trust.csv", index=False)
    assert read_manifest("trust.csv").table["weight"].tolist() == [1.0] * 12
    found = read_manifest("trust.csv", reading=Reading(weight="trust"))
    assert found.table["weight"].tolist() == table["trust"].tolist()
    assert found.roles["weight"] == "trust"
    with pytest.raises(DataError, match="has no column trusty"):
        read_manifest("trust.csv", reading=Reading(weight="trusty"))


def test_weights_of_one_are_no_question(kilograms):
    pd.read_csv(kilograms).assign(weight=1).to_csv("ones.csv", index=False)
    assert not any("weight" in said for said in read_manifest("ones.csv").warnings)


def test_weights_on_standard_input_are_asked_about(kilograms, refused, run, model):
    content = kilograms.read_bytes()
    message = refused("-", stdin=content)
    assert "has a column weight (48.5 to 81.5)" in message
    assert "--weight weight" in message
    assert "--weight none" in message
    for choice, largest in (("weight", 81.5), ("none", 1.0)):
        result = run("score", "-", *model, "--weight", choice, "--out", "scored", stdin=content)
        assert result.exit_code == 0, result.stderr
        assert pd.read_csv("scored/scores.csv")["weight"].max() == largest


def test_weights_of_a_table_in_memory(kilograms, factory):
    table = pd.read_csv(kilograms)
    network, here = divacli.Network(f"{factory}:make"), divacli.Compute(workers=0, progress=False)
    with pytest.warns(UserWarning, match="its column weight"):
        found = divacli.score(table, network=network, compute=here)
    assert found.table["weight"].tolist() == [1.0] * 12
    found = divacli.score(divacli.Source(table, weight="weight"), network=network, compute=here)
    assert found.table["weight"].max() == 81.5
    again = divacli.score(found.table, network=network, compute=here)  # diva made it
    assert again.table["weight"].max() == 81.5


@pytest.fixture
def reweighted(kilograms, done, model):
    """A folder of results with weights."""
    done("reweight", "patients.csv", *model, "--workers", "0", "--weight", "weight", "--out", "new")
    weights = pd.read_csv("new/reweighted.csv")["weight"]
    assert weights.nunique() > 1
    return weights.sort_values().tolist()


def weights_of(data: str, **options: object) -> list[float]:
    return sorted(read_manifest(data, **options).table["weight"].tolist())


def test_weights_that_diva_wrote_count(reweighted):
    assert weights_of("new/reweighted.csv") == reweighted
    Path("elsewhere").mkdir()
    Path("new/run.json").rename("new/run.bak")
    assert weights_of("new/reweighted.csv") in (reweighted, [1.0] * 12)


def test_options_hold_for_tables_of_diva(reweighted):
    assert weights_of("new/reweighted.csv", reading=Reading(weight="none")) == [1.0] * 12
    assert len(weights_of("new/reweighted.csv", reading=Reading(exclude=("*_0000.png",)))) == 11


def test_weights_that_diva_wrote_count_in_a_pipe(kilograms, run, model):
    written = run("reweight", "patients.csv", *model, "--workers", "0", "--weight", "weight", "--out", "-")
    assert written.exit_code == 0, written.stderr
    result = run("score", "-", *model, "--out", "scored", stdin=written.stdout_bytes)
    assert result.exit_code == 0, result.stderr
    assert pd.read_csv("scored/scores.csv")["weight"].nunique() > 1
    # What came through another tool may be anybody's.
    changed = written.stdout_bytes.replace(b"img_0001", b"img_0002", 1).replace(b"img_0002", b"img_0001", 1)
    assert run("score", "-", *model, "--out", "scored", stdin=changed + b"\n").exit_code in (0, 1)


def test_weights_that_diva_wrote_count_in_a_file_of_standard_output(kilograms, run, model):
    written = run("reweight", "patients.csv", *model, "--workers", "0", "--weight", "weight", "--out", "-")
    Path("saved.csv").write_bytes(written.stdout_bytes)
    result = run("score", "saved.csv", *model, "--workers", "0", "--out", "scored")
    assert result.exit_code == 0, result.stderr
    assert pd.read_csv("scored/scores.csv")["weight"].nunique() > 1


def test_a_note_that_cannot_be_written_stops_no_pipe(kilograms, run, model, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIVA_CACHE_DIR", os.fspath(tmp_path / "file" / "no-folder"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("divacli.manifest.written.default_cache", lambda: tmp_path / "file" / "none")
        from divacli.manifest.written import note_written

        note_written(b"path,label\n")


def test_materialized_images_keep_their_weights(reweighted, done):
    done("apply", "new/reweighted.csv", "--materialize", "copy", "--out", "applied")
    [metadata] = Path("applied").rglob("metadata.csv")
    found = read_manifest(os.path.relpath(metadata.parent))
    assert sorted(found.table["weight"].tolist()) == reweighted
