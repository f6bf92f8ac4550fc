"""Tables in every format, on disk and on standard input, and what is said of the bad ones."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from divacli.errors import DataError
from divacli.manifest import Manifest, check_files, read_manifest
from divacli.manifest.table import LOOKS
from tests.made import WEIGHTS

ROWS = [("a/1.png", "NA", 0.5), ("a/2.png", "01", 2.0), ("b,c.png", "None", 1e-3), ('"q".png', "nan", 1.0)]


def content(format: str) -> bytes:
    """The four rows of `ROWS` in one of the formats."""
    frame = pd.DataFrame(ROWS, columns=["path", "label", "weight"])
    if format == "parquet":
        sink = io.BytesIO()
        frame.to_parquet(sink)
        return sink.getvalue()
    if format == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in frame.to_dict("records")).encode()
    return frame.to_csv(index=False, sep="\t" if format == "tsv" else ",").encode()


def read(tmp_path: Path, text: str | bytes, name: str = "t.csv") -> Manifest:
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_manifest(str(tmp_path / name), reading=WEIGHTS)


def refused(tmp_path: Path, text: str | bytes, name: str = "t.csv") -> str:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text, name)
    message = str(caught.value)
    assert name in message
    return message


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("way", ["file", "upper case", "stdin"])
def test_formats_agree(tmp_path: Path, format: str, way: str) -> None:
    if way == "stdin":
        manifest = read_manifest("-", stdin=io.BytesIO(content(format)), reading=WEIGHTS)
        assert (manifest.name, manifest.folder) == ("standard input", Path.cwd())
    else:
        suffix = format.upper() if way == "upper case" else format
        manifest = read(tmp_path, content(format), f"t.{suffix}")
        assert manifest.folder == tmp_path
    assert manifest.kind == "table"
    assert manifest.embeddings is None
    assert list(manifest.table.columns) == ["path", "label", "weight"]
    assert list(manifest.table.itertuples(index=False, name=None)) == ROWS
    assert manifest.table["weight"].dtype == np.float64


def test_weight_defaults_to_one_and_columns_are_put_in_order(tmp_path: Path) -> None:
    text = "mine,id,group,label,split,path\nx,1,g,a,train,1\ny,2,g,b,train,2\n"
    manifest = read(tmp_path, text)
    assert list(manifest.table) == ["path", "label", "weight", "group", "split", "id", "mine"]
    assert manifest.table["weight"].tolist() == [1, 1]
    assert manifest.table["mine"].tolist() == ["x", "y"]
    assert manifest.unused == ("mine",)


def test_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    manifest = read(tmp_path, b"\xef\xbb\xbfpath,label\r\n\r\n1,a\r\n\r\n2, b \r\n")
    assert manifest.table["label"].tolist() == ["a", " b "]
    manifest = read(
        tmp_path, b'\xef\xbb\xbf{"path": "1", "label": "a"}\n\n{"path": "2", "label": "b"}', "t.jsonl"
    )
    assert manifest.table["path"].tolist() == ["1", "2"]


def test_columns_diva_writes_come_back_typed(tmp_path: Path) -> None:
    text = "rank,path,label,derivative,loo_loss,predicted_label\n1,a,x,0.25,1e-3,y\n2,b,y,-3,,y\n,c,y,,,\n"
    manifest = read(tmp_path, text)
    assert manifest.warnings == (f"{tmp_path}/t.csv: classes with a single sample: x.",)
    assert manifest.table["rank"].dtype == "Int64"
    assert manifest.table["rank"].isna().tolist() == [False, False, True]
    assert manifest.table["derivative"].tolist()[:2] == [0.25, -3.0]
    assert manifest.table["loo_loss"].isna().tolist() == [False, True, True]
    assert manifest.table["predicted_label"].tolist() == ["y", "y", ""]


def test_a_column_named_like_a_result_is_the_users_own_without_a_derivative(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label,rank\na,x,general\nb,y,major\n")
    assert manifest.table["rank"].tolist() == ["general", "major"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([3, 12, 3], ["3", "12", "3"]),
        ([True, False, True], ["True", "False", "True"]),
        ([1.0, 2.0, 2.0], ["1", "2", "2"]),
        (["01", "1", "1e5"], ["01", "1", "1e5"]),
        ([2**60 + 1, 2**60 + 2, 0], [str(2**60 + 1), str(2**60 + 2), "0"]),
    ],
)
def test_labels_that_are_not_text(tmp_path: Path, labels: list, expected: list[str]) -> None:
    lines = [json.dumps({"path": f"{row}", "label": label}) for row, label in enumerate(labels)]
    assert read(tmp_path, "\n".join(lines), "t.jsonl").table["label"].tolist() == expected
    pd.DataFrame({"path": [0, 1, 2], "label": labels}).to_parquet(tmp_path / "t.parquet")
    manifest = read_manifest(str(tmp_path / "t.parquet"))
    assert manifest.table["label"].tolist() == expected
    assert manifest.table["path"].tolist() == ["0", "1", "2"]


def test_parquet_of_categories_bytes_and_nulls(tmp_path: Path) -> None:
    table = pa.table(
        {
            "path": pa.array([b"1", b"2", b"3"]),
            "label": pa.array(["a", "b", "a"]).dictionary_encode(),
            "group": pa.array([2**60 + 1, None, 5]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    manifest = read_manifest(str(tmp_path / "t.parquet"))
    assert manifest.table["path"].tolist() == ["1", "2", "3"]
    assert manifest.table["label"].tolist() == ["a", "b", "a"]
    assert manifest.table["group"].tolist() == [str(2**60 + 1), "", "5"]


def test_json_lines_may_hold_any_line_separator_of_unicode(tmp_path: Path) -> None:
    rows = [{"path": "a\u2028b", "label": "x\x85"}, {"path": "c", "label": "y\r\n"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert read(tmp_path, text, "t.jsonl").table[["path", "label"]].to_dict("records") == rows


@pytest.mark.parametrize(
    ("text", "name", "parts"),
    [
        ("", "t.csv", ["is empty"]),
        ("\ufeff \n", "t.csv", ["is empty"]),
        ("", "t.parquet", ["is empty"]),
        ("path,label\n", "t.csv", ["a header and no rows"]),
        ("a.png,cat\nb.png,dog\n", "t.csv", ["no column path and no column label", "a.png, cat", "header"]),
        ("filepath,Label\n1,a\n", "t.csv", ["path_column='filepath'", "label_column='Label'"]),
        ("image,label\n1,a\n", "t.csv", ["its columns are: image, label", "path_column='image'"]),
        ("path, label\n1,a\n", "t.csv", ["label_column=' label'"]),
        ("path,labl\n1,a\n", "t.csv", ["label_column='labl'"]),
        ("path,label,path\n1,a,2\n", "t.csv", ["more than one column named path"]),
        ("path,label\n1,a\n2\n", "t.csv", ["line 3 has 1 cells", "2 cells, as in the header"]),
        ("path,label\n1,a\n2,b,c\n", "t.csv", ["line 3 has 3 cells"]),
        ('path,label\n1,"a\n2,b\n', "t.csv", ["line 3 is malformed"]),
        ('path,label\n1,"a"b\n2,b\n', "t.csv", ["line 2 is malformed"]),
        (b"path,label\n1,a\n2,caf\xe9\n", "t.csv", ["line 3 is not UTF-8", "0xe9", "iconv"]),
        (b"\xef\xbb\xbfpath,label\n1,\xe9\n", "t.csv", ["line 2 is not UTF-8"]),
        ('{"path": "1", "label": "a"}\n{"path": ', "t.jsonl", ["line 2 is not valid JSON"]),
        ('{"path": "1", "label": "a"}\n\n[1]\n', "t.jsonl", ["line 3 holds a JSON list"]),
        ('{"path": "1", "label": "\\ud800"}\n', "t.jsonl", ["line 1 is not valid JSON"]),
        ("[" * 100_000, "t.jsonl", ["line 1 is not valid JSON"]),
        ('{"path": "1", "label": {"a": 1}}\n', "t.jsonl", ["column 'label' has a cell of type dict"]),
        ('{"path": "1"}\n{"path": "2"}\n', "t.jsonl", ["no column label"]),
        ('{"path": "1", "label": "a"}\n{"path": "2"}\n', "t.jsonl", ["label is empty in data row 2"]),
        ("no parquet", "t.parquet", ["cannot be read as Parquet"]),
        (content("parquet")[:-20], "t.parquet", ["cannot be read as Parquet"]),
        ("path,label,weight\n1,a,x\n2,b,1\n", "t.csv", ["'weight' is not a number in data row 1: 'x'"]),
        ("path,label,weight\n1,a,1\n2,b,\n", "t.csv", ["weight is empty, negative", "data row 2"]),
        ("path,label,weight\n1,a,-1\n2,b,nan\n3,b,inf\n", "t.csv", ["data rows 1, 2, 3"]),
        ("path,label,weight\n1,a,0\n2,b,0\n", "t.csv", ["every weight is 0"]),
        ("path,label,derivative,rank\n1,a,0,1.5\n2,b,0,2\n", "t.csv", ["not a whole number in data row 1"]),
        ("path,label\n1,a\n2, \n3,b\n4,\n", "t.csv", ["label is empty in data rows 2, 4"]),
        ("path,label\n,a\n2,b\n", "t.csv", ["path is empty in data row 1"]),
        ("path,label\n1,a\n2,a\n", "t.csv", ["one class only: a"]),
        ("path,label\n1,a\n2,b\nx/../1,a\n", "t.csv", ["more than once, again in data row 3: x/../1"]),
        ("path,label\n" + "1,a\n" * 9 + "2,b\n", "t.csv", ["data rows 2, 3, 4, 5, 6 and 3 more: 1"]),
        ("path,label\n1,a\n2,b\n", "t.dat", ["no kind of DATA", ".parquet"]),
        ("path,label\n1,a\n2,b\n", "t.csv.gz", ["no kind of DATA"]),
    ],
)
def test_bad_tables(tmp_path: Path, text: str | bytes, name: str, parts: list[str]) -> None:
    message = refused(tmp_path, text, name)
    for part in parts:
        assert part in message


def test_absolute_and_relative_names_of_one_file_are_duplicates(tmp_path: Path) -> None:
    assert "more than once" in refused(tmp_path, f"path,label\n1.png,a\n{tmp_path}/1.png,b\n")


def test_one_path_in_two_sources_is_two_samples(tmp_path: Path) -> None:
    text = "path,label,feature_source\n0,a,x.npz\n0,b,y.npz\n0,b,\n"
    manifest = read(tmp_path, text)
    assert manifest.table["feature_source"].tolist() == ["x.npz", "y.npz", ""]
    assert "more than once" in refused(tmp_path, text + "0,a,./x.npz\n")
    with pytest.raises(DataError, match="1 of 1 files are not there"):
        check_files(manifest)  # only the row without a source needs a file


def test_warnings(tmp_path: Path) -> None:
    text = "path,label\n1,cat\n2,Cat\n3,cat \n4,dog\n5,dog\n"
    single, alike = read(tmp_path, text).warnings
    assert "classes with a single sample: Cat, cat, cat ." in single
    assert f"differ only by {LOOKS} count as different: 'Cat' / 'cat' / 'cat '." in alike


def test_standard_input_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing came on standard input(.|\n)*wrote nothing"):
        read_manifest("-", stdin=io.BytesIO(b"\n"))
    with pytest.raises(DataError, match="standard input has no column label"):
        read_manifest("-", stdin=io.BytesIO(b"path\n1\n"))


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    with pytest.raises(
        DataError, match=rf"trian\.csv does not exist(.|\n)*did you mean {tmp_path}/train\.csv\?"
    ):
        read_manifest(str(tmp_path / "trian.csv"))
    with pytest.raises(DataError, match="check the spelling"):
        read_manifest(str(tmp_path / "no/such/folder"))
    with pytest.raises(DataError, match="empty string"):
        read_manifest("")


def test_check_files(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "2.png").mkdir()
    manifest = read(tmp_path, "path,label\n1.png,a\n2.png,b\n3.png,b\n\0,b\n")
    with pytest.raises(
        DataError, match=rf"3 of 4 files are not there: {tmp_path}/2\.png(.|\n)*start from {tmp_path}"
    ):
        check_files(manifest)
    check_files(manifest.select(np.array([0])))


def test_select(tmp_path: Path) -> None:
    manifest = read(tmp_path, content("csv"))
    chosen = manifest.select(np.array([3, 0]))
    assert chosen.table["label"].tolist() == ["nan", "NA"]
    assert chosen.table.index.tolist() == [0, 1]
    assert manifest.select(np.array([True, False, False, True])).table["label"].tolist() == ["NA", "nan"]
    assert len(manifest.table) == 4


def test_many_rows_come_in_several_blocks(tmp_path: Path) -> None:
    lines = [f"{row}.png,{row % 3}" for row in range(140_000)]
    table = read(tmp_path, "\n".join(["path,label", *lines])).table
    assert table["path"].tolist() == [f"{row}.png" for row in range(140_000)]
    assert table["label"].iloc[[0, 65_536, 139_999]].tolist() == ["0", str(65_536 % 3), str(139_999 % 3)]


def test_labels_that_look_the_same(tmp_path: Path) -> None:
    text = "path,label\n1,caf\u00e9\n2,cafe\u0301\n3,Cafe\u0301\n4,tea\n5,tea\n"
    alike = read(tmp_path, text).warnings[1]
    assert alike.endswith(r"count as different: 'Cafe\u0301' / 'cafe\u0301' / 'caf\xe9'.")


def test_a_missing_file_of_another_unicode_form(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301.png").touch()
    (tmp_path / "tea.png").touch()
    with pytest.raises(DataError, match="1 of 2 files are not there") as error:
        check_files(read(tmp_path, "path,label\ncaf\u00e9.png,a\ntea.png,b\n"))
    assert "Unicode form" in str(error.value)
