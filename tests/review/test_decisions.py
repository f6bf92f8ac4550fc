"""Decisions: what is refused, and which sample each one is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.files.remote import RemoteFile
from divacli.manifest import Manifest, manifest_of, read_manifest
from divacli.review.decisions import Decisions, decisions_of, matched_rows, verdicts_of


def data(folder: Path, n: int = 6, **columns) -> Manifest:
    """Samples 0.png, 1.png, ... of two classes in a folder `photos`."""
    table = {"path": [f"photos/{row}.png" for row in range(n)], "label": ["a", "b"] * (n // 2)}
    return manifest_of(pd.DataFrame({**table, **columns}), folder)


def decided(
    rows: list[tuple[str, ...]], folder: Path, columns=("path", "decision", "label", "given_label")
) -> Decisions:
    table = pd.DataFrame(rows, columns=list(columns)[: len(rows[0])], dtype="str")
    return decisions_of(table, "decisions.csv", folder)


def about(decisions: Decisions, manifest: Manifest) -> list[str]:
    return verdicts_of(decisions, manifest).actions.tolist()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_every_sample_gets_what_was_decided(tmp_path):
    decisions = decided(
        [
            ("photos/1.png", "drop", "b", "b"),
            ("photos/2.png", "relabel", "b", "a"),
            ("photos/4.png", "keep", "a", "a"),
        ],
        tmp_path,
    )
    found = verdicts_of(decisions, data(tmp_path))
    assert found.actions.tolist() == ["", "drop", "relabel", "", "keep", ""]
    assert found.labels.tolist() == ["a", "b", "b", "b", "a", "b"]


def test_path_and_decision_are_enough(tmp_path):
    decisions = decided([("photos/1.png", "drop"), ("photos/3.png", "keep")], tmp_path)
    assert about(decisions, data(tmp_path)) == ["", "drop", "", "keep", "", ""]


def test_paths_are_places(tmp_path, elsewhere):
    # Absolute, relative to the decisions, by a detour, as DATA writes it, and as a URL of a local file.
    ways = [
        f"{tmp_path}/photos/0.png",
        "../photos/1.png",
        "../elsewhere/.././photos/2.png",
        "photos/3.png",
        f"file://{tmp_path}/photos/4.png",
    ]
    decisions = decided([(path, "drop") for path in ways], elsewhere)
    assert about(decisions, data(tmp_path)) == ["drop"] * 5 + [""]


def test_the_place_counts_before_what_data_writes(tmp_path, elsewhere):
    # Seen from the decisions photos/0.png is another of the samples than DATA calls so.
    manifest = data(tmp_path)
    table = manifest.table.assign(
        path=["photos/0.png", "elsewhere/photos/0.png", *manifest.table["path"][2:]]
    )
    decisions = decided([("photos/0.png", "drop")], elsewhere)
    assert about(decisions, manifest_of(table, tmp_path)) == ["", "drop", "", "", "", ""]


def test_symbolic_links_are_followed_to_one_sample(tmp_path, elsewhere):
    (tmp_path / "photos").mkdir()
    for row in range(6):
        (tmp_path / "photos" / f"{row}.png").touch()
    (elsewhere / "folder").symlink_to(tmp_path / "photos")
    (elsewhere / "file.png").symlink_to(tmp_path / "photos" / "5.png")
    decisions = decided([("folder/1.png", "drop"), ("file.png", "drop")], elsewhere)
    assert about(decisions, data(tmp_path)) == ["", "drop", "", "", "", "drop"]


def test_two_links_to_one_file_are_two_samples(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "one.png").touch()
    for row in range(6):
        (tmp_path / "photos" / f"{row}.png").symlink_to("../one.png")
    decisions = decided([("photos/1.png", "drop")], tmp_path)
    assert about(decisions, data(tmp_path)) == ["", "drop", "", "", "", ""]
    with pytest.raises(DataError, match=r"name several samples .*one\.png"):
        verdicts_of(decided([("one.png", "drop")], tmp_path), data(tmp_path))


def test_rows_of_an_npz_go_by_their_names(tmp_path, elsewhere):
    np.savez(
        tmp_path / "x.npz",
        embedding=np.eye(4),
        label=np.array(list("aabb")),
        path=np.array(["s0", "s1", "s2", "s3"]),
    )
    manifest = read_manifest(str(tmp_path / "x.npz"))
    assert about(decided([("s1", "drop"), ("s3", "keep")], elsewhere), manifest) == ["", "drop", "", "keep"]
    # Of the table that was written from it, too; and the place beside the file means nothing.
    assert about(decided([("s1", "drop")], elsewhere), manifest.select(np.arange(4))) == ["", "drop", "", ""]
    with pytest.raises(DataError, match="no sample"):
        verdicts_of(decided([(f"{tmp_path}/s1", "drop")], elsewhere), manifest)


def test_one_name_in_two_npz_is_refused(tmp_path):
    manifest = data(tmp_path, feature_source=["x.npz"] * 3 + ["y.npz"] * 3).table
    manifest["path"] = ["0", "1", "2"] * 2
    with pytest.raises(DataError, match="1 decisions name several samples of the table each: 1"):
        verdicts_of(decided([("1", "drop")], tmp_path), manifest_of(manifest, tmp_path))


def test_urls_are_places(tmp_path):
    manifest = manifest_of(
        pd.DataFrame({"path": ["s3://bucket/a.png", "s3://bucket/b.png"], "label": ["a", "b"]}), tmp_path
    )
    assert about(decided([("s3://bucket/b.png", "drop")], tmp_path), manifest) == ["", "drop"]
    there = decided([("b.png", "drop")], RemoteFile("s3://bucket"))
    assert about(there, manifest) == ["", "drop"]


def test_a_decision_about_no_sample_is_refused_by_name(tmp_path):
    rows = [(f"photos/{row}.jpg", "drop") for row in range(7)] + [("photos/0.png", "drop")]
    with pytest.raises(DataError) as caught:
        verdicts_of(decided(rows, tmp_path), data(tmp_path))
    message = str(caught.value)
    assert "7 of 8 decisions are about no sample of the table: photos/0.jpg, photos/1.jpg" in message
    assert "photos/4.jpg and 2 more" in message
    assert "such as photos/0.png" in message
    assert "perhaps made for an earlier version of it" in message
    assert "delete their rows in decisions.csv" in message


def test_rows_of_decisions_where_some_are_about_nothing(tmp_path, elsewhere):
    (tmp_path / "photos").mkdir()
    for row in range(4):
        (tmp_path / "photos" / f"{row}.png").touch()
    for row in (4, 5):
        (tmp_path / "photos" / f"{row}.png").symlink_to("3.png")
    (elsewhere / "photos").symlink_to(tmp_path / "photos")
    (elsewhere / "one.png").symlink_to(tmp_path / "photos" / "3.png")
    # By place, as DATA writes it, behind a link; then about no sample, and about three.
    ways = ["../photos/2.png", "photos/1.png", "./photos/0.png", "9.png", "one.png"]
    decisions = decided([(path, "drop") for path in ways], elsewhere)
    found = matched_rows(decisions, data(tmp_path))
    assert found.dtype == np.int64
    assert found.tolist() == [2, 1, 0, -1, -1]
    assert matched_rows(decided([("9.png", "")], elsewhere), data(tmp_path)).tolist() == []


def test_decisions_that_differ_are_refused_and_equal_ones_are_one(tmp_path):
    same = [("photos/0.png", "drop"), (f"{tmp_path}/photos/0.png", "drop")]
    assert about(decided(same, tmp_path), data(tmp_path))[:2] == ["drop", ""]
    for second in (("photos/0.png", "keep", ""), ("photos/0.png", "relabel", "x")):
        rows = [(f"{tmp_path}/photos/0.png", "relabel", "b"), second, ("photos/1.png", "keep", "")]
        with pytest.raises(
            DataError, match=r"decisions that differ about 1 samples: .*photos/0\.png"
        ) as caught:
            verdicts_of(decided(rows, tmp_path), data(tmp_path))
        assert "photos/1.png" not in str(caught.value)


@pytest.mark.parametrize("decision", ["keep", "drop", "relabel"])
def test_a_label_that_changed_since_is_refused(tmp_path, decision):
    rows = [("photos/0.png", decision, "c" if decision == "relabel" else "b", "b")]
    with pytest.raises(DataError, match=r"photos/0\.png \('b' then, 'a' now\)") as caught:
        verdicts_of(decided(rows, tmp_path), data(tmp_path))
    assert "to do: give the DATA the decisions were made on, or decide about these samples again" in str(
        caught.value
    )


def test_a_label_that_is_the_decided_one_already_is_fine(tmp_path):
    found = verdicts_of(decided([("photos/0.png", "relabel", "a", "b")], tmp_path), data(tmp_path))
    assert (found.actions[0], found.labels[0]) == ("relabel", "a")


def test_keep_with_another_label_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"the decision is keep, with another label .*photos/0\.png"
    ) as caught:
        verdicts_of(decided([("photos/0.png", "keep", "b")], tmp_path), data(tmp_path))
    assert "write relabel" in str(caught.value)


def test_nothing_decided_is_no_error(tmp_path):
    header = pd.DataFrame({"path": [], "decision": []}, dtype="str")
    for table in (header, pd.DataFrame({"path": ["photos/0.png", ""], "decision": ["", " "]})):
        decisions = decisions_of(table, "decisions.csv", tmp_path)
        assert about(decisions, data(tmp_path)) == [""] * 6


def test_decisions_as_they_are_typed(tmp_path):
    rows = [("photos/0.png", "DROP", ""), ("photos/1.png", " Keep ", ""), ("photos/2.png", "Relabel", "x")]
    table = pd.DataFrame(rows, columns=["path", "decision", "label"])
    found = verdicts_of(decisions_of(table, "decisions.csv", tmp_path), data(tmp_path))
    assert found.actions.tolist() == ["drop", "keep", "relabel", "", "", ""]
    assert found.labels[2] == "x"


def test_columns_of_others_mean_nothing(tmp_path):
    table = pd.DataFrame(
        {
            "path": ["photos/0.png"],
            "decision": [" drop "],
            "derivative": [1.5],
            "comment": ["bad"],
            "rank": [1],
        }
    )
    assert about(decisions_of(table, "x", tmp_path), data(tmp_path))[0] == "drop"


def test_labels_may_be_numbers_in_a_typed_table(tmp_path):
    manifest = data(tmp_path, label=[1, 2] * 3)
    table = pd.DataFrame(
        {"path": ["photos/0.png"], "decision": ["relabel"], "label": [2], "given_label": [1]}
    )
    assert verdicts_of(decisions_of(table, "x", tmp_path), manifest).labels[0] == "2"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"file": ["x"], "decision": ["drop"]}, "no column path"),
        ({"path": ["x"], "verdict": ["drop"]}, "no column decision"),
        ({"path": ["x", "y"], "decision": ["keep", "Remove"]}, r"unknown decisions in data row 2: 'Remove'"),
        ({"path": ["x", ""], "decision": ["keep", "drop"]}, "path is empty in data row 2"),
        ({"path": ["x"], "decision": ["relabel"]}, "label is empty in data row 1"),
        ({"path": ["x"], "decision": ["relabel"], "label": ["  "]}, "label is empty in data row 1"),
    ],
)
def test_what_is_no_table_of_decisions(tmp_path, table, message):
    with pytest.raises(DataError, match=message):
        decisions_of(pd.DataFrame(table), "decisions.csv", tmp_path)
