"""Copies among samples: what is found, how it is told, and groups made of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from divacli.errors import DataError
from divacli.features import BackboneChoice, ExtractOptions, load_samples
from divacli.solve.duplicates import DUPLICATE_COLUMNS, all_together, find_duplicates, with_sets
from divacli.solve.groups import DUPLICATES_GROUP, group_count, group_numbers

N, D = 80, 12


@pytest.fixture
def rows() -> np.ndarray:
    """Random features without copies."""
    return np.random.default_rng(3).normal(size=(N, D)).astype(np.float32)


@pytest.fixture
def samples(tmp_path, load):
    """Samples of features and labels; paths are a letter and the row number."""

    def make(features, labels=None, letter="s", name="data.npz"):
        n = len(features)
        arrays = {"embedding": features, "path": np.array([f"{letter}{row:03d}" for row in range(n)])}
        arrays["label"] = np.arange(n) % 3 if labels is None else labels
        np.savez(tmp_path / name, **arrays)
        return load(tmp_path / name)

    return make


def near(row: np.ndarray, seed: int = 0) -> np.ndarray:
    return row + 0.01 * np.random.default_rng(seed).normal(size=row.shape).astype(np.float32)


def named_sets(found) -> list[set[str]]:
    return [set(paths) for _, paths in found.table.groupby("set")["path"]]


def test_equal_near_and_chained_copies(rows, samples):
    step = near(rows[7])
    features = np.concatenate([rows, [rows[4], rows[4], step, step + (step - rows[7])]])
    found = find_duplicates(samples(features, labels=np.r_[np.arange(N) % 3, 1, 1, 1, 1]))
    assert named_sets(found) == [{"s004", "s080", "s081"}, {"s007", "s082", "s083"}]
    assert (found.exact.tolist(), found.conflicts.tolist()) == ([True, False], [False, False])
    assert found.counts == {"n_duplicates": 6, "n_duplicate_sets": 2, "n_conflicting_sets": 0}
    assert set(np.flatnonzero(found.numbers)) == {4, 7, 80, 81, 82, 83}
    assert np.isnan(found.similarity[0])


def test_the_table_begins_with_sets_whose_labels_conflict(rows, samples):
    features = np.concatenate([rows, [rows[1], near(rows[50]), 2 * rows[60]]])
    labels = np.r_[np.arange(N) % 3, 1, 0, 0]
    table = find_duplicates(samples(features, labels)).table
    assert tuple(table) == (*DUPLICATE_COLUMNS, "feature_source")
    assert table["path"].tolist() == ["s050", "s081", "s001", "s080", "s060", "s082"]
    assert table["set"].tolist() == [1, 1, 2, 2, 3, 3]
    assert table["kind"].tolist() == ["near"] * 2 + ["exact"] * 2 + ["near"] * 2
    assert table["conflict"].tolist() == [True, True, False, False, False, False]
    cosine = np.dot(features[50], features[81]) / np.linalg.norm(features[50]) / np.linalg.norm(features[81])
    assert table["similarity"].tolist() == pytest.approx([cosine, cosine, 1, 1, 1, 1], abs=1e-6)


def test_without_copies_the_table_is_its_header(rows, samples):
    found = find_duplicates(samples(rows))
    assert tuple(found.table) == (*DUPLICATE_COLUMNS, "feature_source")
    assert (len(found.table), set(found.counts.values())) == (0, {0})
    assert found.warning(None) is None


def test_the_order_of_samples_changes_nothing(rows, samples):
    features = np.concatenate([rows, rows[:3], [near(rows[10]), near(rows[20])]])
    data = samples(features)
    shuffled = data.select(np.random.default_rng(0).permutation(len(features)))
    pd.testing.assert_frame_equal(find_duplicates(shuffled).table, find_duplicates(data).table)


def test_a_thousand_equal_samples_are_one_set(rows, samples):
    found = find_duplicates(samples(np.concatenate([rows, np.repeat(rows[:1], 1000, axis=0)])))
    assert found.counts == {"n_duplicates": 1001, "n_duplicate_sets": 1, "n_conflicting_sets": 1}
    assert len(find_duplicates(samples(np.ones((50, D), np.float32))).exact) == 1


@pytest.fixture
def embedded(tmp_path, net):
    """Samples of images."""
    net()
    choice, options = (
        BackboneChoice(f"{tmp_path / 'net.py'}:make"),
        ExtractOptions(torch.device("cpu"), workers=0),
    )
    return lambda folder: load_samples(str(folder), choice, options, tmp_path / "cache")


def test_near_files_and_equal_ones(tmp_path, write_images, embedded):
    """The same pixels in another format are a copy, though not an equal file."""
    write_images(tmp_path / "photos", [row % 3 for row in range(60)], seed=0)
    first, second = tmp_path / "photos/a/000.png", tmp_path / "photos/b/001.png"
    shutil.copy(first, tmp_path / "photos/c/same.png")
    Image.open(second).save(tmp_path / "photos/b/other.bmp")
    table = find_duplicates(embedded(tmp_path / "photos")).table
    assert tuple(table) == DUPLICATE_COLUMNS
    assert table["path"].tolist() == ["a/000.png", "c/same.png", "b/001.png", "b/other.bmp"]
    assert table["kind"].tolist() == ["exact", "exact", "near", "near"]
    assert table["similarity"].tolist() == [1, 1, 1, 1]
    assert table["conflict"].tolist() == [True, True, False, False]


# Groups


def test_copies_in_several_sets_have_one_number(rows, samples):
    core = samples(np.concatenate([rows[:40], rows[:1]]), letter="c", name="core.npz")
    pool = samples(np.concatenate([rows[40:], [near(rows[5]), rows[40]]]), letter="p", name="pool.npz")
    sets = [core, pool]
    found = find_duplicates(all_together(sets))
    first, second = (
        part.manifest.table.set_index("path")[DUPLICATES_GROUP] for part in with_sets(sets, found)
    )
    assert first["c000"] == first["c040"] != ""
    assert first["c005"] == second["p040"] != ""
    assert second["p000"] == second["p041"] != ""
    assert len({first["c000"], first["c005"], second["p000"]}) == 3
    assert ((first != "").sum(), (second != "").sum()) == (3, 3)
    assert group_count(with_sets(sets, found)[0].manifest, DUPLICATES_GROUP) == 40


def test_a_sample_is_no_copy_of_itself(rows, samples):
    data = samples(np.concatenate([rows, rows[:1]]))
    part = data.select(np.arange(10, 30))
    found = find_duplicates(all_together([data, part]))
    whole, some = with_sets([data, part], found)
    assert named_sets(found) == [{"s000", "s080"}]
    assert (some.manifest.table[DUPLICATES_GROUP] == "").all()
    assert group_numbers(whole.manifest, DUPLICATES_GROUP).unique().numel() == N
    assert group_numbers(some.manifest, DUPLICATES_GROUP) is None


@pytest.mark.parametrize("images_first", [True, False])
def test_embeddings_of_images_are_copies_of_these(images_first, photos, embedded, samples):
    images = embedded(photos)
    part = images.select(np.arange(0, 60, 9))
    some = samples(part.features[:].numpy(), labels=part.manifest.table["label"].to_numpy(str))
    sets = [images, some] if images_first else [some, images]
    found = find_duplicates(all_together(sets))
    assert found.counts == {"n_duplicates": 14, "n_duplicate_sets": 7, "n_conflicting_sets": 0}
    numbers = [set(part.manifest.table[DUPLICATES_GROUP]) for part in with_sets(sets, found)]
    assert numbers[0] | {""} == numbers[1] | {""} == {"", *"1234567"}


def test_without_copies_there_is_no_column(rows, samples):
    data = samples(rows)
    (alone,) = with_sets([data], find_duplicates(data))
    assert DUPLICATES_GROUP not in alone.manifest.table
    assert group_numbers(alone.manifest, DUPLICATES_GROUP) is None
    assert group_count(alone.manifest, DUPLICATES_GROUP) is None


def test_an_old_column_gives_way(rows, samples):
    data = samples(np.concatenate([rows, rows[:1]]))
    old = data.manifest.table.assign(**{DUPLICATES_GROUP: "x"})
    data.manifest.table[DUPLICATES_GROUP] = old[DUPLICATES_GROUP]
    (grouped,) = with_sets([data], find_duplicates(data))
    assert sorted(grouped.manifest.table[DUPLICATES_GROUP].unique()) == ["", "1"]


def test_sets_of_other_features_are_refused(rows, samples):
    with pytest.raises(DataError, match="6 features a sample"):
        all_together([samples(rows), samples(rows[:, :6], name="other.npz")])


def test_a_pool_without_labels_has_no_conflict(rows, samples, tmp_path, load):
    labelled = samples(rows)
    np.savez(tmp_path / "pool.npz", embedding=rows[:5], path=np.array([f"p{row}" for row in range(5)]))
    pool = load_samples(
        str(tmp_path / "pool.npz"),
        BackboneChoice(),
        ExtractOptions(torch.device("cpu")),
        Path(tmp_path),
        labels="optional",
    )
    found = find_duplicates(all_together([labelled, pool]))
    assert found.counts == {"n_duplicates": 10, "n_duplicate_sets": 5, "n_conflicting_sets": 0}


# The warning


def test_the_warning_names_two_that_conflict(rows, samples):
    features = np.concatenate([rows, [rows[0], rows[7], rows[7]]])
    found = find_duplicates(samples(features, labels=np.r_[np.arange(N) % 3, 0, 1, 2]))
    text = found.warning(None)
    assert text.startswith(
        "5 samples are copies of others, in 2 sets (labels conflict in 1), the first: s007 (1) and s082 (2). "
    )
    assert "optimistic about copies" in text
    assert "--group duplicates" in text


def test_the_warning_is_of_sets_that_are_not_left_out_together(rows, samples):
    found = find_duplicates(samples(np.concatenate([rows, rows[:2]])))
    groups = torch.arange(N + 2)
    assert found.warning(groups).startswith("4 samples are copies of others, in 2 sets")
    groups[N] = 0
    assert found.warning(groups).startswith("2 samples are copies of others, in 1 sets")
    groups[N + 1] = 1
    assert found.warning(groups) is None
