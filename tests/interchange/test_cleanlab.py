"""Issues as cleanlab has them: what they say, and what they decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from divacli.curate.wrong_labels import mislabelled, outliers
from divacli.errors import DataError
from divacli.interchange.cleanlab import decisions_of_issues, issues_of
from divacli.interchange.read import read_decisions
from divacli.interchange.read_scores import read_scores
from divacli.manifest import manifest_of, relocate, write_table
from divacli.review.apply import apply
from divacli.review.decisions import decisions_of, verdicts_of


def test_the_columns_and_their_sense(scores_file):
    scores = read_scores(str(scores_file))
    issues = issues_of(scores)
    assert list(issues) == [
        "path",
        "given_label",
        "predicted_label",
        "is_label_issue",
        "label_score",
        "is_outlier_issue",
        "outlier_score",
    ]
    table = scores.table
    assert issues["is_label_issue"].tolist() == mislabelled(table).tolist()
    assert issues["is_outlier_issue"].tolist() == outliers(table).tolist()
    assert 0 < issues["is_label_issue"].sum() < len(issues)
    # A low score means an issue, as cleanlab's own have it.
    assert issues["label_score"].between(0, 1).all()
    assert issues["outlier_score"].between(0, 1).all()
    assert np.allclose(issues["label_score"] + table["mislabel_probability"], 1)
    assert issues["outlier_score"].idxmin() == table["outlier_score"].idxmax()
    assert (
        issues["label_score"][issues["is_label_issue"]].max()
        < issues["label_score"][~issues["is_label_issue"]].min()
    )
    assert issues["predicted_label"].tolist() == table["suggested_label"].tolist()


def test_outliers_are_outlier_issues(scores_file):
    scores = read_scores(str(scores_file))
    scores = replace(scores, table=scores.table.assign(label="one"))
    assert np.flatnonzero(issues_of(scores)["is_outlier_issue"]).tolist() == [3]


def test_copies_are_near_duplicates(scores_file):
    scores = read_scores(str(scores_file))
    issues = issues_of(scores, {scores.table["path"][2]})
    assert issues["is_near_duplicate_issue"].tolist() == [row == 2 for row in range(len(issues))]


@pytest.mark.parametrize("label_issues", ["drop", "relabel"])
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_the_round_trip(scores_file, tmp_path, label_issues, format, hostile):
    scores = read_scores(str(scores_file))
    place = tmp_path / "elsewhere" / f"issues.{format}"
    write_table(relocate(issues_of(scores), scores.folder, place.parent), place, format)
    decisions = read_decisions(str(place), scores.classes, label_issues=label_issues)
    result = apply(scores, decisions)
    wrong = mislabelled(scores.table)
    if label_issues == "drop":
        assert result.removed["path"].tolist() == scores.table["path"][wrong].tolist()
        assert result.table["label"].tolist() == scores.table["label"][~wrong].tolist()
    else:
        expected = np.where(wrong, scores.table["suggested_label"], scores.table["label"])
        assert result.table["label"].tolist() == expected.tolist()
        assert result.table["given_label"].tolist() == hostile
    assert result.summary["n_undecided"] == (~wrong).sum()


def test_tables_that_cleanlab_made(tmp_path):
    """Columns as of cleanlab 2.9: `Datalab.get_issues("label")` and `CleanLearning.find_label_issues`."""
    manifest = manifest_of(
        pd.DataFrame({"path": ["0.png", "1.png", "2.png"], "label": ["dog", "eel", "cat"]}), tmp_path
    )
    datalab = pd.DataFrame(
        {
            "path": manifest.table["path"],
            "is_label_issue": [True, True, False],
            "label_score": [0.003, 0.012, 0.246],
            "given_label": ["dog", "eel", "cat"],
            "predicted_label": ["cat", "dog", "eel"],
        }
    )
    learning = pd.DataFrame(
        {
            "path": manifest.table["path"],
            "is_label_issue": [True, True, False],
            "label_quality": [0.015, 0.01, 0.179],
            "given_label": np.array([1, 2, 0], np.int16),
            "predicted_label": np.array([0, 1, 2], np.int16),
        }
    )
    # Without the labels: `Datalab.get_issues()`.
    bare = datalab.drop(columns=["given_label", "predicted_label"])
    for table in (datalab, learning, learning.astype(str)):
        made = decisions_of_issues(table, "issues", manifest.classes, "relabel")
        verdicts = verdicts_of(decisions_of(made, "issues", tmp_path), manifest)
        assert verdicts.labels.tolist() == ["cat", "dog", "cat"]
    for table in (datalab, learning, bare):
        made = decisions_of_issues(table, "issues", manifest.classes, "drop")
        verdicts = verdicts_of(decisions_of(made, "issues", tmp_path), manifest)
        assert verdicts.actions.tolist() == ["drop", "drop", ""]
    with pytest.raises(DataError, match="no column predicted_label"):
        decisions_of_issues(bare, "issues", manifest.classes, "relabel")
    with pytest.raises(DataError, match="no column path"):
        decisions_of_issues(bare.drop(columns="path"), "issues", manifest.classes, "drop")


def test_issues_of_other_labels_are_refused(tmp_path):
    manifest = manifest_of(pd.DataFrame({"path": ["0.png", "1.png"], "label": ["dog", "cat"]}), tmp_path)
    table = pd.DataFrame({"path": ["0.png"], "is_label_issue": [True], "given_label": [0]})
    made = decisions_of_issues(table, "issues", manifest.classes, "drop")
    with pytest.raises(DataError, match=r"0\.png \('cat' then, 'dog' now\)"):
        verdicts_of(decisions_of(made, "issues", tmp_path), manifest)


def test_labels_that_are_numbers_are_no_class_numbers(tmp_path):
    manifest = manifest_of(pd.DataFrame({"path": ["0.png", "1.png"], "label": ["1", "2"]}), tmp_path)
    table = pd.DataFrame(
        {"path": ["0.png"], "is_label_issue": [True], "given_label": [1], "predicted_label": [2]}
    )
    made = decisions_of_issues(table, "issues", manifest.classes, "relabel")
    assert verdicts_of(decisions_of(made, "issues", tmp_path), manifest).labels.tolist() == ["2", "2"]


def test_neither_true_nor_false_is_refused():
    table = pd.DataFrame({"path": ["0.png", "1.png"], "is_label_issue": ["True", "maybe"]})
    with pytest.raises(DataError, match="is_label_issue is neither true nor false in data row 2"):
        decisions_of_issues(table, "issues", [], "drop")


def test_cleanlab_itself_ranks_the_same(tmp_path, scores_file):
    cleanlab = pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    labels = np.array(["cat", "dog", "eel"])[np.arange(60) % 3]
    features = np.eye(3)[np.arange(60) % 3] * 3 + np.random.default_rng(0).normal(size=(60, 3)) / 3
    labels[:2] = "eel"
    lab = cleanlab.Datalab({"label": labels}, label_name="label", verbosity=0)
    lab.find_issues(features=features, issue_types={"label": {}, "outlier": {}})
    issues = lab.get_issues("label")
    issues.insert(0, "path", [f"{row}.png" for row in range(60)])
    manifest = manifest_of(pd.DataFrame({"path": issues["path"], "label": labels}), tmp_path)
    made = decisions_of_issues(issues, "issues", manifest.classes, "relabel")
    verdicts = verdicts_of(decisions_of(made, "issues", tmp_path), manifest)
    assert verdicts.labels[:2].tolist() == ["cat", "dog"]
    assert set(issues_of(read_scores(str(scores_file)))) - {"path"} <= {*lab.get_issues(), *issues}
