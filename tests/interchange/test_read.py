"""Decisions are told apart by what they are, whoever wrote them."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.interchange.read import read_decisions
from divacli.interchange.read_scores import read_scores

DECISIONS = "path,decision\n0.png,drop\n"
ISSUES = "path,is_label_issue,predicted_label\n0.png,True,dog\n1.png,False,cat\n"
EXPORT = json.dumps(
    [
        {
            "data": {"path": "/0.png", "given_label": "cat"},
            "annotations": [{"result": [{"from_name": "label", "value": {"choices": ["dog"]}}]}],
        }
    ]
)


@pytest.mark.parametrize("from_a_pipe", [False, True])
@pytest.mark.parametrize(
    ("content", "suffix", "expected"),
    [
        (DECISIONS, "csv", ("0.png", "drop", "", "")),
        (DECISIONS.replace(",", "\t"), "tsv", ("0.png", "drop", "", "")),
        ('{"path": "0.png", "decision": "drop"}\n', "jsonl", ("0.png", "drop", "", "")),
        # As spreadsheets write it where the comma is for decimals.
        ("\ufeffpath;decision;label\r\n0.png;relabel;a,b\r\n", "csv", ("0.png", "relabel", "a,b", "")),
        ('"decision";"path"\n"drop";"0;1.png"\n', "csv", ("0;1.png", "drop", "", "")),
        ("path,decision,x;y\n0.png,drop,1;2\n", "csv", ("0.png", "drop", "", "")),
        (ISSUES, "csv", ("0.png", "drop", "", "")),
        (EXPORT, "json", ("/0.png", "relabel", "dog", "cat")),
        # Whoever decided about issues by hand did so last.
        ("path,decision,is_label_issue\n0.png,keep,True\n", "csv", ("0.png", "keep", "", "")),
    ],
)
def test_each_kind(tmp_path, content, suffix, expected, from_a_pipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"decisions.{suffix}"
    file.write_text(content)
    source = "-" if from_a_pipe else str(file)
    found = read_decisions(source, ["cat", "dog"], stdin=io.BytesIO(content.encode()))
    assert list(found.table.itertuples(index=False, name=None)) == [expected]
    assert found.folder == tmp_path


def test_label_issues_may_be_relabelled(tmp_path):
    (tmp_path / "issues.csv").write_text(ISSUES)
    found = read_decisions(str(tmp_path / "issues.csv"), ["cat", "dog"], label_issues="relabel")
    assert found.table.to_dict("records") == [
        {"path": "0.png", "decision": "relabel", "label": "dog", "given_label": ""}
    ]


def test_decisions_at_a_url(bucket):
    bucket.pipe("/bucket/decisions.csv", DECISIONS.encode())
    found = read_decisions("memory://bucket/decisions.csv", ["cat", "dog"])
    assert (found.table["path"].tolist(), str(found.folder)) == (["0.png"], "memory://bucket")


def test_what_is_none(tmp_path):
    (tmp_path / "picture.png").touch()
    with pytest.raises(DataError, match=r"picture\.png is no kind of decisions"):
        read_decisions(str(tmp_path / "picture.png"), [])
    with pytest.raises(DataError, match=r"decisons\.csv does not exist"):
        read_decisions(str(tmp_path / "decisons.csv"), [])


def test_scores_are_read_most_harmful_first(tmp_path):
    table = pd.DataFrame({"path": list("dbca"), "label": list("xyxy"), "derivative": [0.1, 0.3, 0.3, -1.0]})
    table.to_csv(tmp_path / "scores.csv", index=False)
    assert read_scores(str(tmp_path / "scores.csv")).table["path"].tolist() == ["b", "c", "d", "a"]
    table.drop(columns="derivative").to_csv(tmp_path / "plain.csv", index=False)
    with pytest.raises(DataError, match=r"plain\.csv has no scores"):
        read_scores(str(tmp_path / "plain.csv"))
    table.assign(derivative=[0.1, None, 0.3, 0.1]).to_csv(tmp_path / "some.csv", index=False)
    with pytest.raises(DataError, match=r"some\.csv has no scores in some rows"):
        read_scores(str(tmp_path / "some.csv"))
