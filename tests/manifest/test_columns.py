"""Columns that commands write come back typed; those of the user with the same names, as they were."""

import json
from pathlib import Path

import pandas as pd
import pytest

from divacli.manifest import Manifest, read_manifest

TEXTS = ("true_label", "expected_label", "label_source", "modality", "text", "copy_of")


def read(tmp_path: Path, text: str, name: str = "t.csv") -> Manifest:
    (tmp_path / name).write_text(text)
    return read_manifest(str(tmp_path / name))


def test_columns_of_text(tmp_path: Path) -> None:
    first = {"path": "1", "label": "a"} | dict.fromkeys(TEXTS, 7)
    rows = [first, {"path": "2", "label": "b"}, {"path": "3", "label": "a"}, {"path": "4", "label": "b"}]
    manifest = read(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl")
    for column in TEXTS:
        assert manifest.table[column].tolist() == ["7", "", "", ""]
    assert manifest.warnings == ()


def test_results_of_extending_beside_a_derivative(tmp_path: Path) -> None:
    manifest = read(
        tmp_path,
        "path,label,derivative,batch,expected_derivative\n1,a,0,2,-0.5\n2,b,0,,\n3,a,0,1,2\n4,b,0,0,1\n",
    )
    assert manifest.table["batch"].dtype == "Int64"
    assert manifest.table["batch"].isna().tolist() == [False, True, False, False]
    assert manifest.table["expected_derivative"][[0, 2, 3]].tolist() == [-0.5, 2, 1]
    assert manifest.warnings == ()


@pytest.mark.parametrize("batch", [["B12", "B13"], ["01", "02"], ["1.5", "2"], ["", "007"]])
@pytest.mark.parametrize("derivative", ["", ",derivative"])
def test_batches_of_the_user_stay_as_they_are(tmp_path: Path, batch: list[str], derivative: str) -> None:
    value = ",0.5" if derivative else ""
    rows = [f"{row},{'ab'[row % 2]},{batch[row % 2]}{value}" for row in range(4)]
    manifest = read(tmp_path, "\n".join([f"path,label,batch{derivative}", *rows]))
    assert manifest.table["batch"].tolist() == batch * 2
    assert manifest.unused == ("batch",)


def test_without_a_derivative_nothing_is_a_result(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label,batch,expected_derivative\n1,a,3,4.0\n2,b,3,4.0\n")
    assert manifest.table["batch"].tolist() == ["3", "3"]
    assert manifest.table["expected_derivative"].tolist() == ["4.0", "4.0"]


def test_texts_of_the_user_that_are_no_text(tmp_path: Path) -> None:
    captions = [["one", "two"], ["three"]]
    rows = [{"path": f"{row}", "label": "ab"[row], "text": captions[row]} for row in range(2)]
    manifest = read(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl")
    assert manifest.table["text"].tolist() == captions
    assert manifest.unused == ("text",)
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    found = read_manifest(str(tmp_path / "t.parquet")).table["text"]
    assert [list(cell) for cell in found] == captions
