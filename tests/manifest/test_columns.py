"""Columns that commands write come back typed; those of the user with the same names, as they were."""

import json
from pathlib import Path

import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.manifest import Manifest, manifest_of, read_manifest
from tests.made import WEIGHTS

TEXTS = ("true_label", "expected_label", "label_source", "modality", "text", "copy_of")


def read(tmp_path: Path, text: str, name: str = "t.csv") -> Manifest:
    (tmp_path / name).write_text(text)
    return read_manifest(str(tmp_path / name), reading=WEIGHTS)


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


NO_NUMBERS = [
    "1_000",
    "1_0.5",
    "1e1_0",
    "\u0661",
    "\uff11",
    "\u00a01",
    "1\u2009",
    "\u0131nf",
    "0x10",
    "1,5",
    "1e",
    ".",
]


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_what_only_python_takes_for_a_number(tmp_path: Path, text: str, format: str) -> None:
    rows = pd.DataFrame({"path": ["1", "2"], "label": ["a", "b"], "weight": [text, "1"]})
    file = tmp_path / f"t.{format}"
    if format == "csv":
        rows.to_csv(file, index=False)
    elif format == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows.to_dict("records")))
    else:
        rows.to_parquet(file)
    with pytest.raises(DataError) as caught:
        read_manifest(str(file), reading=WEIGHTS)
    assert "column 'weight' is not a number in data row 1: '" in str(caught.value)


def test_bytes_that_only_python_takes_for_a_number(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["1", "2"], "label": ["a", "b"], "weight": [b"2.5", b"1"]})
    assert manifest_of(table, tmp_path, reading=WEIGHTS).table["weight"].tolist() == [2.5, 1]
    for wrong in (b"1_000", b"\xff"):
        with pytest.raises(DataError, match="'weight' is not a number in data row 1"):
            manifest_of(table.assign(weight=[wrong, b"1"]), tmp_path, reading=WEIGHTS)


def test_a_complex_number_is_no_weight(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["1", "2"], "label": ["a", "b"], "weight": [1 + 2j, 1]})
    with pytest.raises(DataError, match="'weight' is not a number in data row"):
        manifest_of(table, tmp_path, reading=WEIGHTS)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e3", 1e3), (" 2 ", 2), (".5", 0.5), ("5.", 5), ("+1", 1), ("-0.5E-3", -5e-4), ("INF", float("inf"))],
)
def test_numbers_as_other_programs_write_them(tmp_path: Path, text: str, number: float) -> None:
    manifest = read(tmp_path, f"path,label,derivative\n1,a,{text}\n2,b,-nan\n3,b,NaN\n4,a,\n")
    assert manifest.table["derivative"][0] == number
    assert manifest.table["derivative"][1:].isna().all()


def test_a_long_number_that_is_none_is_answered_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a number in data row 1"):
        read(tmp_path, f"path,label,weight\n1,a,{'1' * 1_000_000}x\n2,b,1\n")


def test_classes_that_are_numbers_are_sorted_by_value_however_long(tmp_path: Path) -> None:
    long = "9" * 5000
    labels = ["10", "9", long, "007", "7", "0", "00", f"1{long}", f"00{long}"]
    manifest = read(
        tmp_path, "path,label\n" + "".join(f"{row},{label}\n" for row, label in enumerate(labels))
    )
    assert manifest.classes == ["0", "00", "007", "7", "9", "10", f"00{long}", long, f"1{long}"]


@pytest.mark.parametrize("batch", ["9007199254740993", "20240101123456789", "1_0", "\u0663"])
def test_batches_whose_digits_a_float_would_change_stay_as_they_are(tmp_path: Path, batch: str) -> None:
    manifest = read(tmp_path, f"path,label,derivative,batch\n1,a,0,{batch}\n2,b,0,1\n")
    assert manifest.table["batch"].tolist() == [batch, "1"]
    assert manifest.unused == ("batch",)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_rank_whose_digits_a_float_would_change_is_refused(tmp_path: Path, format: str) -> None:
    rows = pd.DataFrame({"path": ["1", "2"], "label": ["a", "b"], "derivative": 0.0, "rank": [2**53 + 1, 2]})
    file = tmp_path / f"t.{format}"
    rows.to_csv(file, index=False) if format == "csv" else rows.to_parquet(file)
    with pytest.raises(
        DataError, match=r"'rank' is not a whole number in data row 1\n.*below 9,007,199,254,7"
    ):
        read_manifest(str(file))
