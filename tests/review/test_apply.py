"""Decisions carried out: what stays, what goes, and what is counted."""

from __future__ import annotations

import pandas as pd
import pytest

from divacli.manifest import manifest_of
from divacli.review.apply import apply
from divacli.review.decisions import decisions_of

PATHS = [f"{row}.png" for row in range(6)]
LABELS = list("ababac")


@pytest.fixture
def manifest(tmp_path):
    return manifest_of(pd.DataFrame({"path": PATHS, "label": LABELS, "annotator": list("xyxyxy")}), tmp_path)


def run(manifest, *rows, **more):
    table = pd.DataFrame(rows, columns=["path", "decision", "label"][: len(rows[0])])
    return apply(manifest, decisions_of(table, "decisions", manifest.folder))


def test_what_stays_and_what_goes(manifest):
    result = run(manifest, ("3.png", "drop", ""), ("4.png", "relabel", "b"), ("0.png", "keep", ""))
    assert result.table["path"].tolist() == ["0.png", "1.png", "2.png", "4.png", "5.png"]
    assert result.table["label"].tolist() == list("ababc")
    assert result.table["given_label"].tolist() == list("abaac")
    assert list(result.table) == ["path", "label", "given_label", "weight", "annotator"]
    assert result.removed.to_dict("records") == [
        {"path": "3.png", "label": "b", "weight": 1.0, "annotator": "y"}
    ]
    assert result.summary == {
        "n_samples": 6,
        "n_kept": 5,
        "n_dropped": 1,
        "n_relabelled": 1,
        "n_undecided": 3,
        "n_classes": 3,
        "relabelled": [{"given": "a", "label": "b", "n": 1}],
        "new_labels": [],
        "emptied": [],
    }


def test_every_sample_is_in_exactly_one_table(manifest):
    result = run(manifest, *((path, "drop") for path in PATHS[::2]))
    parts = [*result.table["path"], *result.removed["path"]]
    assert sorted(parts) == PATHS
    assert result.summary["n_kept"] + result.summary["n_dropped"] == len(PATHS)


def test_nothing_decided_leaves_the_samples_alone(manifest):
    result = apply(manifest)
    pd.testing.assert_frame_equal(result.table, manifest.table)
    assert result.removed.empty
    assert list(result.removed) == list(manifest.table)
    assert result.summary["n_undecided"] == 6
    # Nor is a column added where nothing was relabelled.
    assert "given_label" not in run(manifest, ("0.png", "keep")).table


def test_labels_that_are_new_and_labels_that_are_gone(manifest):
    result = run(manifest, ("5.png", "drop", ""), ("1.png", "relabel", "d"), ("3.png", "relabel", "d"))
    assert (result.summary["new_labels"], result.summary["emptied"]) == (["d"], ["b", "c"])
    assert result.summary["relabelled"] == [{"given": "b", "label": "d", "n": 2}]
    everything = run(manifest, *((path, "drop") for path in PATHS))
    assert everything.summary["emptied"] == ["a", "b", "c"]
    assert everything.table.empty
    assert list(everything.table) == list(manifest.table)


def test_a_label_that_is_so_already_is_no_change(manifest):
    result = run(manifest, ("0.png", "relabel", "a"))
    assert (result.summary["n_relabelled"], result.summary["n_undecided"]) == (0, 5)


def test_scores_stay_with_what_goes_alone(manifest, tmp_path):
    table = manifest.table.assign(derivative=range(6), loo_loss=0.5, mislabel_probability=0.1)
    result = run(manifest_of(table, tmp_path), ("1.png", "drop"))
    assert list(result.table) == ["path", "label", "weight", "annotator"]
    assert result.removed["derivative"].tolist() == [1.0]


def test_the_first_label_of_all_is_kept(manifest, tmp_path):
    once = run(manifest, ("0.png", "relabel", "b"))
    again = run(manifest_of(once.table, tmp_path), ("0.png", "relabel", "c"), ("1.png", "relabel", "a"))
    assert again.table["label"].tolist() == list("caabac")
    assert again.table["given_label"].tolist() == LABELS
