"""Notes of what a table of scores was made from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from divacli.curate.outlook import Judge
from divacli.curate.sample_scores import score
from divacli.curate.score_note import find_record, save_record
from divacli.curate.score_table import Scores
from divacli.manifest import read_manifest, write_table
from divacli.progress import silent
from divacli.ridge import Rest, TrainingWeights
from divacli.solve.ridge_problem import SolveOptions


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


def judged(scores: Scores) -> Judge:
    judge, reason = scores.judge(silent)
    assert judge is not None, reason
    assert reason == ""
    return judge


def same_judge(one: Judge, other: Judge, order: np.ndarray) -> None:
    """Whether both say the same of a decision; sample i of the second is sample order[i] of the first."""
    assert other.problem.ridge == pytest.approx(one.problem.ridge, rel=1e-9)
    assert other.fixed_ridge == one.fixed_ridge
    assert other.trust.numpy() == pytest.approx(one.trust.numpy()[order], abs=1e-5)
    for name in ("rates", "pairs"):
        found, expected = (getattr(judge.noise.mistakes, name).numpy() for judge in (other, one))
        assert found == pytest.approx(expected, abs=1e-12)
    assert other.noise.mistakes.shape == one.noise.mistakes.shape
    assert other.noise.doubt == one.noise.doubt
    errors = []
    for judge, numbers in ((one, np.arange(60)), (other, order)):
        gone = torch.from_numpy(numbers % 5 == 0)

        def decide(rest: Rest, gone: torch.Tensor = gone) -> dict[str, TrainingWeights]:
            return {"chosen": TrainingWeights(torch.where(gone, 0.0, rest.task.weights))}

        found = judge.forecast(decide, silent)
        errors.append([found.error(name) for name in ("nothing", "chosen")])
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)


def test_a_table_that_was_read_back_finds_how_it_was_made(written, tmp_path):
    result, file = written(loss="cross-entropy", scaling="standard", ridge=0.7)
    record = find_record(read_manifest(str(file)), tmp_path / "notes", SolveOptions(dtype=torch.float64))
    assert record is not None
    assert record.ridge == 0.7
    assert record.loss == result.solution.loss
    assert (record.options.loss, record.options.scaling) == ("cross-entropy", "standard")
    assert record.options.dtype == torch.float64


def test_recorded_and_fresh_scores_are_judged_alike(written, tmp_path):
    result, file = written()
    fresh = Scores.fresh(result, SolveOptions())
    assert fresh.table["path"].tolist() == [f"s{row:03d}" for row in range(60)]
    read = recorded(file, tmp_path / "notes")
    order = read.table["path"].map(lambda path: int(path[1:])).to_numpy()
    one, other = judged(fresh), judged(read)
    same_judge(one, other, order)


def test_no_note_no_prediction(written, tmp_path):
    _, file = written()
    scores = recorded(file, tmp_path / "another")
    assert scores.record is None
    assert scores.samples is None
    judge, reason = scores.judge(silent)
    assert judge is None
    assert reason.startswith("the cache knows nothing of these scores. The decision is complete")


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
    for place in range(0, 8 * len(content), 61):  # each bit of a byte in turn
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
    assert recorded(file, tmp_path / "notes").judge(silent)[0] is None


def test_features_that_are_gone_are_no_prediction(written, tmp_path):
    result, file = written()
    (result.samples.manifest.folder / result.samples.manifest.table["feature_source"][0]).unlink()
    assert recorded(file, tmp_path / "notes").judge(silent)[0] is None


def test_features_that_changed_are_no_prediction(written, tmp_path):
    result, file = written()
    source = result.samples.manifest.folder / result.samples.manifest.table["feature_source"][0]
    arrays = dict(np.load(source))
    arrays["embedding"] = arrays["embedding"][::-1]
    np.savez(source, **arrays)
    assert recorded(file, tmp_path / "notes").judge(silent)[0] is None


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
    fresh, found = judged(Scores.fresh(result, posed)), judged(read)
    same_judge(fresh, found, order)
    assert (found.problem.task.groups is None) == (posed.group != "kin")
    assert len(found.problem.task.validation_mask.unique()) == 1 + posed.balanced


@pytest.mark.parametrize("most", [256, 2], ids=["noted", "of too many classes"])
def test_a_note_holds_how_labels_come_about_or_that_is_found_anew(most, written, tmp_path, monkeypatch):
    monkeypatch.setattr("divacli.curate.score_note._MOST_NOTED", most)
    result, file = written()
    record = find_record(read_manifest(str(file)), tmp_path / "notes", SolveOptions())
    assert (record.noise is None) == (most == 2)
    found, fresh = judged(recorded(file, tmp_path / "notes")).noise, result.noise
    predictions = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(20) % 3
    assert found.posterior(predictions, labels).numpy() == pytest.approx(
        fresh.posterior(predictions, labels).numpy(), abs=1e-12 if most == 256 else 1e-3
    )


def test_a_note_holds_how_labels_are_judged_by_their_rivals(gaussian, tmp_path):
    posed = SolveOptions(dtype=torch.float64)
    result = score(gaussian(), posed)
    rivalry = torch.arange(9, dtype=torch.float64).view(3, 3) / 10
    save_record(replace(result, noise=replace(result.noise, rivalry=rivalry)), posed, tmp_path / "notes")
    write_table(result.table, tmp_path / "scores.csv", "csv")
    record = find_record(read_manifest(str(tmp_path / "scores.csv")), tmp_path / "notes", SolveOptions())
    assert torch.equal(record.noise.rivalry, rivalry)


def test_a_note_without_a_noise_model_is_one_of_the_first_and_is_read(written, tmp_path):
    _, file = written()
    [note] = (tmp_path / "notes").rglob("*.json")
    content = json.loads(note.read_text())
    for name in ("noise", "fixed_ridge", "check"):
        del content[name]
    note.write_text(json.dumps(content))
    record = find_record(read_manifest(str(file)), tmp_path / "notes", SolveOptions())
    assert record.noise is None
    assert record.options.ridge is None
    assert judged(recorded(file, tmp_path / "notes")).noise is not None


def test_a_note_with_the_noise_model_of_older_versions_has_it_fitted_anew(written, tmp_path):
    _, file = written()
    [note] = (tmp_path / "notes").rglob("*.json")
    content = json.loads(note.read_text())
    for name in ("shape", "rates", "pairs", "doubt"):
        del content["noise"][name]
    content["noise"]["transition"] = [[0.9, 0.1], [0.1, 0.9]]
    del content["check"]
    note.write_text(json.dumps(content))
    assert find_record(read_manifest(str(file)), tmp_path / "notes", SolveOptions()).noise is None
    assert judged(recorded(file, tmp_path / "notes")).noise is not None


def test_scores_without_probabilities_are_not_judged(written, tmp_path):
    """The note is found by labels, derivatives and losses; whom to trust is in the table alone."""
    _, file = written()
    table = read_manifest(str(file)).table
    write_table(table.drop(columns="mislabel_probability"), file, "csv")
    judge, reason = recorded(file, tmp_path / "notes").judge(silent)
    assert judge is None
    assert reason == "the scores have no value of mislabel_probability in any row"
