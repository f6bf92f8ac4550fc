"""Lists, arrays and structs in columns of the user keep every digit in text, or are refused by name."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from divacli.errors import DataError, OutputError
from divacli.manifest import read_manifest, write_table
from divacli.manifest.bounded import LONGEST_LINE

TEXT_FORMATS = ["csv", "jsonl"]
RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(size=2000) * 10.0 ** RANDOM.integers(-300, 300, 2000)


def written(cells: list[Any] | pd.Series, format: str) -> bytes:
    """A table with these cells in its column own."""
    own = cells if isinstance(cells, pd.Series) else pd.Series(cells, dtype=object)
    table = pd.DataFrame({"path": [f"{n}.png" for n in range(len(own))], "label": "a", "own": own})
    stream = io.BytesIO()
    write_table(table, None, format, stdout=stream)  # type: ignore[arg-type]
    return stream.getvalue()


def own_of(content: bytes, format: str) -> list[Any]:
    """The column own as another program reads it; what is no JSON fails."""
    if format == "csv":
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        return [json.loads(row["own"], parse_constant=pytest.fail) if row["own"] else None for row in rows]
    lines = content.decode().removesuffix("\n").split("\n")
    return [json.loads(line, parse_constant=pytest.fail)["own"] for line in lines]


def refused(cells: list[Any], format: str) -> str:
    with pytest.raises(OutputError) as caught:
        written(cells, format)
    return str(caught.value)


@pytest.mark.parametrize("format", TEXT_FORMATS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(2000) * 2**52,
        np.arange(2000, dtype=np.uint64) + np.uint64(2**63),
        RANDOM.normal(size=2000).astype(np.float16),
        RANDOM.normal(size=2000).astype(np.float32),
        NUMBERS,
        NUMBERS.astype(">f8"),
        np.arange(2000) % 3 == 0,
        NUMBERS.reshape(40, 50),
        np.array(["a", "ü\n\u2028"] * 1000),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_every_entry_of_a_long_array_is_there(format: str, array: np.ndarray) -> None:
    assert own_of(written([array, None], format), format) == [array.tolist(), None]


@pytest.mark.parametrize("format", TEXT_FORMATS)
@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ([], []),
        ({}, {}),
        (
            [1, 2.0, -0.0, 5e-324, 0.1, True, None, "x", [[]], {"a": None}],
            [1, 2.0, -0.0, 5e-324, 0.1, True, None, "x", [[]], {"a": None}],
        ),
        ([2**53 + 1, 2**64, -(2**70)], [2**53 + 1, 2**64, -(2**70)]),
        ((1, (2,)), [1, [2]]),
        ([np.int8(3), np.uint64(2**64 - 1), np.bool_(True)], [3, 2**64 - 1, True]),
        ([np.float32(0.1), np.float64(0.1)], [0.10000000149011612, 0.1]),
        ({"a": np.arange(3), "b": [np.float32([0.1])]}, {"a": [0, 1, 2], "b": [[0.10000000149011612]]}),
        (np.array([1, "a", None, [0.1]], object), [1, "a", None, [0.1]]),
        ([pd.NA, pd.NaT], [None, None]),
        (['"quoted", = "'], ['"quoted", = "']),
        ({"=x": "-1"}, {"=x": "-1"}),
    ],
)
def test_nested_values_are_json(format: str, cell: Any, wanted: Any) -> None:
    (found,) = own_of(written([cell], format), format)
    assert repr(found) == repr(wanted)  # also tells 1 from 1.0 and True, and -0.0 from 0.0


def test_text_in_lists_is_written_as_it_is() -> None:
    assert written([["ü", "日本"]], "csv").decode().endswith(',"[""ü"", ""日本""]"\n')


@pytest.mark.parametrize("format", TEXT_FORMATS)
@pytest.mark.parametrize(
    ("cell", "what"),
    [
        (np.array([1, np.nan]), "NaN or infinity inside of a list"),
        (np.float32([np.inf]), "NaN or infinity"),
        ([[float("nan")]], "NaN or infinity"),
        ({"a": -np.inf}, "NaN or infinity"),
        ([b"x"], "a value of type bytes inside of a list"),
        (np.array([b"x"]), "a value of type |S1"),
        (b"\xff\xd8", "bytes that are no text in UTF-8"),
        ([1j], "a value of type complex"),
        (np.array([1j]), "a value of type complex128"),
        (1j, "a value of type complex"),
        (np.array(["2020-01-01"], "M8[ns]"), "a value of type datetime64[ns]"),
        ([datetime.date(2020, 1, 1)], "a value of type date"),
        ([decimal.Decimal("0.1")], "a value of type Decimal"),
        pytest.param(
            np.longdouble([0.1]),
            f"a value of type {np.dtype('g')}",
            marks=pytest.mark.skipif(np.dtype("g").itemsize == 8, reason="a double here"),
        ),
        ({1: 2}, "a key that is no text"),
        ({1, 2}, "a value of type set"),
        (object(), "a value of type object"),
        ([object()], "a value of type object"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_name(format: str, cell: object, what: str) -> None:
    said = refused([["fine"], cell], format)
    name = "CSV" if format == "csv" else "JSON lines"
    assert said.startswith(f"column 'own' cannot be written as {name} without loss: it holds {what}")
    assert "\nto do: use --format parquet, which keeps it as it is, or leave the column out" in said


@pytest.mark.parametrize("format", TEXT_FORMATS)
def test_lists_without_end_are_refused(format: str) -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "it holds lists in lists without end" in refused([endless], format)


@pytest.mark.parametrize("format", TEXT_FORMATS)
def test_scalars_are_numbers_and_text(format: str) -> None:
    cells = [np.float32(1 / 3), 1 / 3, np.longdouble(1) / 3, np.int16(-3), np.bool_(True), b"caf\xc3\xa9"]
    cells += [datetime.date(2020, 1, 2), decimal.Decimal("1.50"), np.timedelta64(3, "s"), Path("a/b")]
    cells += [np.inf, np.float64(np.nan), pd.NaT, 2**70]
    table = written(cells, format).decode()
    text = ["0.333333343", "0.333333333", "0.333333333", "-3", "True", "café"]
    text += ["2020-01-02", "1.50", "3 seconds", "a/b"]
    text += ["inf", "", "", str(2**70)]
    if format == "csv":
        assert [row["own"] for row in csv.DictReader(io.StringIO(table))] == text
    else:
        found = own_of(table.encode(), format)
        assert ["" if cell is None else str(cell) for cell in found] == text
        assert [type(cell).__name__ for cell in found[:5]] == ["float", "float", "float", "int", "bool"]


NESTED = pa.table(
    {
        "path": ["a", "b", "c"],
        "label": ["x", "y", "x"],
        "integers": pa.array([[2**60 + 1, None], None, [3]], pa.list_(pa.int64())),
        "floats": pa.array([[0.1, None], [], None], pa.list_(pa.float32())),
        "structs": pa.array(
            [{"a": 1, "b": [0.5]}, {"a": None, "b": None}, None],
            pa.struct([("a", pa.int64()), ("b", pa.list_(pa.float64()))]),
        ),
        "maps": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "lists": pa.array([[[1, None], None], [[]], None], pa.list_(pa.list_(pa.int32()))),
    }
)
ONLY_PARQUET = NESTED.select(["path", "label"]).append_column(
    "numbers", pa.array([[1.0, None, float("nan")], [float("inf")], None])
)
ONLY_PARQUET = ONLY_PARQUET.append_column("raw", pa.array([b"\xff", None, b""]))
ONLY_PARQUET = ONLY_PARQUET.append_column("days", pa.array([[datetime.date(2020, 1, 1)], [], None]))


def test_nulls_in_lists_of_integers_leave_every_digit(tmp_path: Path) -> None:
    pq.write_table(NESTED, tmp_path / "t.parquet")
    write_table(read_manifest(str(tmp_path / "t.parquet")).table, tmp_path / "t.jsonl", "jsonl")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [line["integers"] for line in lines] == [[2**60 + 1, None], None, [3]]
    assert [line["floats"] for line in lines] == [[float(np.float32(0.1)), None], [], None]
    assert [line["maps"] for line in lines] == [[["k", 1]], [], None]


def test_parquet_keeps_what_text_does_not(tmp_path: Path) -> None:
    pq.write_table(ONLY_PARQUET, tmp_path / "t.parquet")
    table = read_manifest(str(tmp_path / "t.parquet")).table
    write_table(table, tmp_path / "again.parquet", "parquet")
    again = pq.read_table(tmp_path / "again.parquet").select(ONLY_PARQUET.column_names)
    for name in ("numbers", "days", "raw"):  # by text, for NaN is not itself
        assert repr(again[name].to_pylist()) == repr(ONLY_PARQUET[name].to_pylist())


def test_parquet_tells_nan_from_null_in_lists_of_python(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"path": "a", "label": "x", "own": [NaN, null, 1]}\n{"path": "b", "label": "y"}\n'
    )
    write_table(read_manifest(str(tmp_path / "t.jsonl")).table, tmp_path / "t.parquet", "parquet")
    own = pq.read_table(tmp_path / "t.parquet")["own"].to_pylist()
    assert repr(own) == "[[nan, None, 1.0], None]"


JSON = [
    "[1, 2.5]",
    "[[1], [2, null], null]",
    '{"a": 1, "b": {"c": [0.1]}}',
    '[{"a": 1}, {"b": 2}]',
    "[]",
    "[true]",
]


@pytest.mark.parametrize("format", [*TEXT_FORMATS, "parquet"])
@pytest.mark.parametrize("source", ["parquet", *JSON])
def test_written_read_and_written_again_is_the_same(tmp_path: Path, source: str, format: str) -> None:
    if source == "parquet":
        pq.write_table(NESTED, tmp_path / "t.parquet")
    else:
        line = '{"path": "%s", "label": "%s", "own": %s}\n'
        (tmp_path / "t.jsonl").write_text(line % ("a", "x", source) + line % ("b", "y", "null"))
    first, second = tmp_path / f"first.{format}", tmp_path / f"second.{format}"
    write_table(read_manifest(str(next(tmp_path.iterdir()))).table, first, format)  # type: ignore[arg-type]
    write_table(read_manifest(str(first)).table, second, format)  # type: ignore[arg-type]
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("cell", ["[1, [2]]", "{}", "[18446744073709551616]", "[" * 300 + "]" * 300])
def test_what_parquet_cannot_hold_or_read_again_is_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(OutputError, match=r"as Parquet: (.|\n)*use --format jsonl, or leave"):
        written([json.loads(cell)], "parquet")


@pytest.mark.parametrize("inside", ["struct", "list of structs"])
def test_fields_of_one_name_are_refused(tmp_path: Path, inside: str) -> None:
    """Of two such fields Python would keep the last."""
    own: pa.Array = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], ["a", "a"])
    if inside == "list of structs":
        own = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), own)
    pq.write_table(pa.table({"path": ["a", "b"], "label": ["x", "y"], "own": own}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 'own'.* has more than one column named a"):
        read_manifest(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.date64(), pa.duration("s")])
def test_days_that_python_has_no_name_for_are_refused_in_lists_too(tmp_path: Path, kind: pa.DataType) -> None:
    own = pa.array([[2**62], None], pa.list_(pa.int64())).cast(pa.list_(kind))
    columns = {"path": ["a", "b"], "label": ["x", "y"], "own": own, "struct": pa.array([{"a": 1}, None])}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", version="2.6")
    with pytest.raises(DataError, match="has a column whose values cannot be read"):
        read_manifest(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize("format", TEXT_FORMATS)
def test_a_row_that_could_not_be_read_again_is_refused(tmp_path: Path, format: str) -> None:
    room = LONGEST_LINE - 200
    for cell in ("ü" * (room // 2), [1] * (room // 3)):
        (tmp_path / f"t.{format}").write_bytes(written([cell, None], format))
        read_manifest(str(tmp_path / f"t.{format}"), labels="optional")
    for cell in ("ü" * (LONGEST_LINE // 2), [1] * (LONGEST_LINE // 3)):
        said = refused([None, cell], format)
        assert f"line {2 + (format == 'csv')} of the table would have 4,19" in said
        assert "to do: use --format parquet, which keeps it, or leave the long column out" in said


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """30 samples with embeddings and a column big of arrays."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = np.eye(3, 4, dtype=np.float32)[labels] + generator.normal(size=(30, 4)).astype(np.float32)
    names = [f"s{row:02d}" for row in range(30)]
    np.savez("e.npz", embedding=features, label=labels, path=np.array(names))
    big = pa.array(list(generator.normal(size=(30, 1500)).astype(np.float32)))
    columns = {"path": names, "label": labels, "feature_source": ["e.npz"] * 30, "big": big}
    pq.write_table(pa.table(columns), "t.parquet")
    return tmp_path / "t.parquet"


def diva(*arguments: str) -> Any:
    from divacli.cli.app import app

    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("format", TEXT_FORMATS)
def test_the_command_line_keeps_arrays(data: Path, format: str) -> None:
    given = {row["path"]: row["big"] for row in pq.read_table(data).to_pylist()}
    done = diva("score", "t.parquet", "--out", "out", "--format", format)
    assert done.exit_code == 0, done.stderr
    scores = (data.parent / f"out/scores.{format}").read_bytes()
    if format == "csv":
        found = {row["path"]: json.loads(row["big"]) for row in csv.DictReader(io.StringIO(scores.decode()))}
    else:
        found = {row["path"]: row["big"] for row in map(json.loads, scores.decode().splitlines())}
    assert found == given


def test_the_command_line_refuses_what_would_be_lost_and_its_advice_works(data: Path) -> None:
    table = pq.read_table(data)
    own = pa.array([[float("nan"), 1.0]] * 30)
    pq.write_table(table.set_column(3, "curve", own), data)
    done = diva("score", "t.parquet", "--out", "out")
    assert done.exit_code == 1
    assert "error: column 'curve' cannot be written as CSV without loss: it holds NaN" in done.stderr
    assert "to do: use --format parquet" in done.stderr
    assert not (data.parent / "out/scores.csv").exists()
    done = diva("score", "t.parquet", "--out", "out", "--format", "parquet")
    assert done.exit_code == 0, done.stderr
    kept = pq.read_table(data.parent / "out/scores.parquet")["curve"].to_pylist()
    assert repr(kept) == repr(own.to_pylist())
