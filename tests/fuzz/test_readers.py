"""Whatever bytes there are, a reader makes a table of just what they say, or refuses them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from divacli.errors import DataError
from divacli.manifest import read_manifest, write_table
from divacli.manifest.formulas import restored, restored_path
from divacli.manifest.tabular import parse
from fuzz.seeds import seeds
from fuzz.targets import TARGETS

steady = settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ODD = st.sampled_from(
    [
        *(
            "",
            "NA",
            "nan",
            "None",
            "1e5",
            "01",
            "1.0",
            "=1+1",
            "-x",
            "'=",
            "''=x",
            "./=x",
            "././=",
            "#",
            "\\",
        ),
        *('"', '""', "a,b", "a\tb", " a ", "\r", "a\r\nb", "\n", "\n\n", "\0", "\x1a", "\x1b[2J"),
        *("\u2028", "\x85", "\ufeff", "\u00a0", "\u202e", "\u0130", "\uff1dx", "é", "e\u0301", "😀"),
    ]
)
CELL = st.one_of(ODD, TEXT)
TYPED = ["path", "label", "own"]
ROWS = st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=6)


@pytest.mark.parametrize("name", TARGETS)
@settings(steady, max_examples=10)
@given(data=st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    """Nothing but what is documented is raised; what is read is the same when written and read again."""
    whole = data.draw(st.sampled_from(seeds(name)))
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    TARGETS[name](whole[:start] + data.draw(st.binary(max_size=12)) + whole[stop:])


@pytest.mark.parametrize(("format", "delimiter"), [("csv", ","), ("tsv", "\t")])
@settings(steady, max_examples=50)
@given(
    rows=ROWS,
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    beginning=st.sampled_from(["", "\ufeff"]),
    blank=st.booleans(),
)
def test_delimited_rows_are_those_that_were_written(
    format: str,
    delimiter: str,
    rows: list[tuple[str, str, str]],
    end: str,
    quoting: int,
    beginning: str,
    blank: bool,
) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(TYPED)
    for row in rows:
        if blank:
            stream.write(end)
        writer.writerow(row)
    table = parse((beginning + stream.getvalue()).encode(), format, "table")
    assert list(table) == TYPED
    assert list(table.itertuples(index=False, name=None)) == [
        (restored_path(path), restored(label), restored(own)) for path, label, own in rows
    ]


@pytest.mark.parametrize(("format", "delimiter"), [("csv", ","), ("tsv", "\t")])
@settings(steady, max_examples=30)
@given(rows=ROWS, data=st.data())
def test_a_ragged_row_is_refused(
    format: str, delimiter: str, rows: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    cells = list(rows[at])
    cells = data.draw(st.sampled_from([cells[:2], [*cells, "x"], [*cells, ""], cells[:1]]))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([TYPED, *rows[:at], cells, *rows[at + 1 :]])
    with pytest.raises(DataError, match="cells"):
        parse(stream.getvalue().encode(), format, "table")


VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    CELL,
    st.lists(CELL, max_size=2),
)


@settings(steady, max_examples=50)
@given(
    records=st.lists(st.dictionaries(st.one_of(st.sampled_from(TYPED), CELL), VALUE), min_size=1, max_size=5),
    ascii_only=st.booleans(),
)
def test_json_lines_are_those_that_were_written(records: list[dict[str, object]], ascii_only: bool) -> None:
    lines = "\n".join(json.dumps(record, ensure_ascii=ascii_only) for record in records)
    table = parse(lines.encode(), "jsonl", "table")
    assert set(table) == {key for record in records for key in record}
    for key in table:
        for found, record in zip(table[key].tolist(), records, strict=True):
            wanted = record.get(key)
            assert type(found) is type(wanted) or pd.isna(found)
            assert found == wanted or (wanted is None and pd.isna(found))


def test_a_key_twice_in_one_object() -> None:
    with pytest.raises(DataError, match="the key 'label' twice"):
        parse(b'{"path": "a", "label": "x", "label": "y"}', "jsonl", "table")


COLUMN = st.one_of(
    st.lists(CELL, min_size=3, max_size=3).map(pa.array),
    st.lists(CELL, min_size=3, max_size=3).map(lambda cells: pa.array(cells).dictionary_encode()),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=3, max_size=3).map(
        lambda cells: pa.array(cells, pa.int64())
    ),
    st.lists(st.one_of(st.none(), st.integers(0, 2**64 - 1)), min_size=3, max_size=3).map(
        lambda cells: pa.array(cells, pa.uint64())
    ),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=3, max_size=3).map(
        lambda cells: pa.array(cells, pa.bool_())
    ),
    st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3).map(
        lambda cells: pa.array(cells, pa.int64()).cast(pa.timestamp("us"))
    ),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=3, max_size=3).map(
        lambda cells: pa.array(cells, pa.int32()).cast(pa.date32())
    ),
)


@settings(steady, max_examples=50)
@given(column=COLUMN)
def test_parquet_values_are_those_that_were_written(column: pa.Array) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"path": ["a", "b", "c"], "own": column}), stream)
    try:
        wanted = column.to_pylist()
        table = parse(stream.getvalue(), "parquet", "table")
    except (DataError, ValueError, OverflowError):
        assume(False)  # days before the first year: Python has no name for them either
    if pa.types.is_temporal(column.type):
        assert [str(cell)[:10] for cell in table["own"]] == [str(cell)[:10] for cell in wanted]
    else:
        assert [None if pd.isna(cell) else cell for cell in table["own"].tolist()] == wanted


@settings(steady, max_examples=20)
@given(
    names=st.lists(
        CELL.map(lambda name: name.rstrip("\0")).filter(str.strip), min_size=4, max_size=8, unique=True
    ),
    fortran=st.booleans(),
    packed=st.booleans(),
    dtype=st.sampled_from(["f2", "<f4", ">f4", "f8"]),
)
def test_npz_rows_are_those_that_were_saved(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], fortran: bool, packed: bool, dtype: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "x.npz"
    features = np.asarray(np.arange(3 * len(names)).reshape(-1, 3), dtype, order="F" if fortran else "C")
    labels = np.array(names[: len(names) // 2] * 3)[: len(names)]
    save = np.savez_compressed if packed else np.savez
    save(
        file,
        embedding=features,
        label=labels,
        path=np.array([f"{n}.png" for n in range(len(names))]),
        own=np.array(names),
    )
    manifest = read_manifest(str(file))
    assert manifest.table["label"].tolist() == labels.tolist()
    assert manifest.table["own"].tolist() == names
    assert manifest.embeddings is not None
    assert np.array_equal(manifest.embeddings[:], features)


@pytest.mark.parametrize("format", ["parquet", "npz"])
def test_no_flipped_bit_changes_a_row(tmp_path: Path, format: str) -> None:
    """Content has a checksum; a flip in what describes it is refused or of no matter."""
    labels = [f"class {row % 3}" for row in range(12)]
    file = tmp_path / f"x.{format}"
    if format == "npz":
        np.savez(file, embedding=np.eye(12, 2, dtype=np.float32), label=np.array(labels))
    else:
        write_table(
            pd.DataFrame({"path": [f"{row}.png" for row in range(12)], "label": labels}), file, "parquet"
        )
    whole = file.read_bytes()
    refused = 0
    bits = range(0, 8 * len(whole), 23)  # each of the eight in turn
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            table = read_manifest(str(file)).table
        except DataError:
            refused += 1
        else:
            assert table["label"].tolist() == labels
    assert refused > len(bits) // 2


@pytest.mark.parametrize("other", ["0.5", "null"])
def test_a_large_number_keeps_its_digits_beside_others(other: str) -> None:
    lines = f'{{"path": "a", "label": {2**60 + 1}}}\n{{"path": "b", "label": {other}}}\n'
    assert parse(lines.encode(), "jsonl", "table")["label"][0] == 2**60 + 1
