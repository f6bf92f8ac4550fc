"""Notes of what a table of scores was made from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from divacli.curate.record import Scores, find_record, save_record
from divacli.curate.score import score
from divacli.curate.solution import SolveOptions
from divacli.embed.progress import silent
from divacli.manifest import read_manifest, write_table


@pytest.fixture
def written(gaussian, tmp_path):
    """Scores as written, the note saved; the path of the table."""

    def make(**options):
        options = SolveOptions(**options)
        result = score(gaussian(), options)
        save_record(result, options, tmp_path / "notes")
        file = tmp_path / "scores.csv"
        write_table(result.table, file, "csv")
        return result, file

    return make


def recorded(file: Path, cache: Path) -> Scores:
    return Scores.recorded(read_manifest(str(file)), cache, SolveOptions(), silent)


KEPT = np.arange(60) % 5 > 0


def test_a_table_that_was_read_back_finds_how_it_was_made(written, tmp_path):
    result, file = written(loss="cross-entropy", scaling="standard", ridge=0.7)
    record = find_record(read_manifest(str(file)), tmp_path / "notes", SolveOptions(dtype=torch.float64))
    assert record is not None
    assert record.ridge == 0.7
    assert record.loss == result.solution.loss
    assert (record.options.loss, record.options.scaling) == ("cross-entropy", "standard")
    assert record.options.dtype == torch.float64


def test_recorded_and_fresh_scores_predict_the_same(written, tmp_path):
    result, file = written()
    fresh = Scores.fresh(result, SolveOptions())
    assert fresh.table["path"].tolist() == [f"s{row:03d}" for row in range(60)]
    read = recorded(file, tmp_path / "notes")
    order = read.table["path"].map(lambda path: int(path[1:])).to_numpy()
    one, other = fresh.predict(KEPT), read.predict(KEPT[order])
    assert one.before.loss == pytest.approx(other.before.loss, rel=1e-5)
    assert one.after.loss == pytest.approx(other.after.loss, rel=1e-5)


def test_no_note_no_prediction(written, tmp_path):
    _, file = written()
    scores = recorded(file, tmp_path / "another")
    assert scores.record is None
    assert scores.samples is None
    assert scores.predict(KEPT) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"inverse_temperature": null}'])
def test_a_damaged_note_is_none(content, written, tmp_path):
    _, file = written()
    (note,) = (tmp_path / "notes" / "runs").iterdir()
    note.write_text(content)
    assert recorded(file, tmp_path / "notes").record is None


def test_a_flipped_bit_of_a_note_is_another_ridge_of_nobody(written, tmp_path):
    _, file = written()
    manifest = read_manifest(str(file))
    [note] = (tmp_path / "notes").rglob("*.json")
    content = note.read_bytes()
    whole = find_record(manifest, tmp_path / "notes", SolveOptions())
    assert whole is not None
    for place in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        note.write_bytes(flipped)
        found = find_record(manifest, tmp_path / "notes", SolveOptions())
        # Blanks between the parts say nothing.
        assert found is None or found == whole, (place, flipped[place // 8 - 20 : place // 8 + 20])


def test_a_note_of_features_that_came_from_nowhere_is_no_prediction(written, tmp_path):
    _, file = written()
    (note,) = (tmp_path / "notes" / "runs").iterdir()
    note.write_text(json.dumps(json.loads(note.read_text()) | {"sources": []}))
    table = read_manifest(str(file)).table.drop(columns="feature_source")
    write_table(table, file, "csv")
    assert recorded(file, tmp_path / "notes").predict(KEPT) is None


def test_features_that_are_gone_are_no_prediction(written, tmp_path):
    result, file = written()
    (result.samples.manifest.folder / result.samples.manifest.table["feature_source"][0]).unlink()
    assert recorded(file, tmp_path / "notes").predict(KEPT) is None


def test_features_that_changed_are_no_prediction(written, tmp_path):
    result, file = written()
    source = result.samples.manifest.folder / result.samples.manifest.table["feature_source"][0]
    arrays = dict(np.load(source))
    arrays["embedding"] = arrays["embedding"][::-1]
    np.savez(source, **arrays)
    assert recorded(file, tmp_path / "notes").predict(KEPT) is None


def test_a_changed_score_or_label_has_no_note(written, tmp_path):
    _, file = written()
    manifest = read_manifest(str(file))
    table = manifest.table

    def found(changed):
        return find_record(replace(manifest, table=changed), tmp_path / "notes", SolveOptions()) is not None

    assert found(table)
    assert not found(table.iloc[1:])
    assert not found(table.assign(label=table["label"][::-1].to_numpy()))
    assert not found(table.assign(derivative=table["derivative"] * 1.001))
    assert not found(table.drop(columns="loo_loss"))


@pytest.mark.parametrize("options", [{"group": "kin"}, {"group": None}, {"balanced": True}])
def test_a_note_keeps_groups_and_the_count_of_classes(options, gaussian, tmp_path):
    samples = gaussian()
    table = samples.manifest.table.assign(kin=[f"k{row // 3}" for row in range(60)])
    samples = replace(samples, manifest=replace(samples.manifest, table=table))
    posed = SolveOptions(ridge=0.5, **options)
    result = score(samples, posed)
    save_record(result, posed, tmp_path / "notes")
    write_table(result.table, tmp_path / "scores.csv", "csv")
    read = recorded(tmp_path / "scores.csv", tmp_path / "notes")
    assert (read.record.options.group, read.record.options.balanced) == (posed.group, posed.balanced)
    order = read.table["path"].map(lambda path: int(path[1:])).to_numpy()
    fresh, found = Scores.fresh(result, posed).predict(KEPT), read.predict(KEPT[order])
    assert found.before.loss == pytest.approx(fresh.before.loss, rel=1e-5)
    assert found.after.loss == pytest.approx(fresh.after.loss, rel=1e-5)
