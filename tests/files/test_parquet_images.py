"""Rows of Parquet files, read one by one: by threads, by processes, in any order, and where files lie."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from divacli.errors import DataError
from divacli.files import parquet_images
from divacli.files.parquet_images import image_table, read_row
from tests.hub import IMAGE, images, png, write_hub

N = 300
CONTENTS = [bytes([number % 256]) * (number % 50 + 1) + b"%d" % number for number in range(N)]


@pytest.fixture(autouse=True)
def nothing_decoded() -> Iterator[None]:
    parquet_images._DECODED.forget()
    yield
    parquet_images._DECODED.forget()


@pytest.fixture(params=[7, 100, N])
def table(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    columns = {"image": images(CONTENTS), "label": [0] * N}
    return str(write_hub(tmp_path / "x.parquet", columns, rows=request.param))


def shuffled() -> list[int]:
    rows = list(range(N)) * 2
    random.Random(0).shuffle(rows)
    return rows


def wrong(table: str) -> list[int]:
    return [row for row in shuffled() if read_row(table, f"{row}") != CONTENTS[row]]


def test_any_order(table: str) -> None:
    assert all(read_row(table, f"{row}") == CONTENTS[row] for row in range(N))
    assert not wrong(table)


def test_little_is_kept(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_images, "KEPT_BYTES", 500)
    monkeypatch.setattr(parquet_images, "_PART_ROWS", 5)
    assert not wrong(table)
    kept = parquet_images._DECODED
    assert kept._held == sum(part.nbytes for part in kept._parts.values()) <= 500 or len(kept._parts) == 1
    assert len(kept._cursors) <= 2


def test_threads(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_images, "KEPT_BYTES", 2000)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: read_row(table, f"{row}"), shuffled())) == [
            CONTENTS[row] for row in shuffled()
        ]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes(table: str, start: str) -> None:
    """Also those that were forked while the file was open in this one."""
    assert read_row(table, "3") == CONTENTS[3]
    with multiprocessing.get_context(start).Pool(2) as pool:
        found = pool.map_async(wrong, [table] * 4)
        assert not wrong(table)
        assert found.get(100) == [[]] * 4


def test_reading_in_order_decodes_once(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_images, "KEPT_BYTES", 500)
    monkeypatch.setattr(parquet_images, "_PART_ROWS", 5)
    made = []
    real = parquet_images._Cursor
    monkeypatch.setattr(parquet_images, "_Cursor", lambda group: made.append(group.number) or real(group))
    for row in range(N):
        read_row(table, f"{row}")
    assert made == list(range(len(image_table(table).starts)))


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    file = write_hub(tmp_path / "x.parquet", {"image": images([b"old", b"x"]), "label": [0, 1]})
    assert read_row(str(file), "0") == b"old"
    write_hub(file, {"image": images([b"newer"]), "label": [0]})
    assert read_row(str(file), "0") == b"newer"
    with pytest.raises(DataError, match="has no image 1: it has 1 rows"):
        read_row(str(file), "1")


def test_rows_without_bytes(tmp_path: Path) -> None:
    rows = pa.array([None, {"bytes": None, "path": "/etc/passwd"}, {"bytes": b"", "path": None}], IMAGE)
    file = str(write_hub(tmp_path / "x.parquet", {"image": rows, "label": [0, 1, 1]}))
    for row in ("0", "1"):
        with pytest.raises(DataError, match=f"row {row} has no bytes in its column image"):
            read_row(file, row)
    assert read_row(file, "2") == b""


def test_which_columns_are_images(tmp_path: Path) -> None:
    """Told by their type, by what the Hub says, or by the bytes."""
    file = tmp_path / "x.parquet"
    columns = {
        "a": images([b"a"]),
        "b": images([b"b"]),
        "c": pa.array([png(0)]),
        "d": ["text"],
        "e": [b"\xff"],
    }
    write_hub(file, columns, kinds={"b": "Audio"})
    assert image_table(str(file)).columns == ("a",)
    write_hub(file, columns, kinds={"a": "Audio", "b": "Audio", "c": "Image"})
    assert image_table(str(file)).columns == ("c",)
    assert read_row(str(file), "0") == png(0)
    assert read_row(str(file), "b/0") == b"b"
    write_hub(file, columns, kinds={"a": "Audio", "b": "Audio"})
    assert image_table(str(file)).columns == ("c",)
    pq.write_table(
        pa.table({"e": [b"text", b"x"], "f": [None, png(1)], "g": pa.array([png(2)] * 2, pa.large_binary())}),
        file,
    )
    assert image_table(str(file)).columns == ("f", "g")
    assert read_row(str(file), "g/1") == png(2)
    pq.write_table(pa.table(columns), file)
    assert image_table(str(file)).columns == ("a", "b")
    pq.write_table(pa.table({"x": pa.array([], pa.binary())}), file)
    assert image_table(str(file)).columns == ()


@pytest.mark.parametrize(
    "said",
    [b"", b"[", b"[]", b"null", b'{"info": 3}', b'{"info": {"features": [1]}}', b"[" * 100_000, b"\xff"],
)
def test_what_the_hub_says_may_be_anything(tmp_path: Path, said: bytes) -> None:
    file = tmp_path / "x.parquet"
    table = pa.table({"image": images([b"a"])}).replace_schema_metadata({b"huggingface": said})
    pq.write_table(table, file)
    assert image_table(str(file)).columns == ("image",)
    assert not image_table(str(file)).features


def test_damaged_files(tmp_path: Path) -> None:
    file = write_hub(tmp_path / "x.parquet", {"image": images([png(number) for number in range(20)])})
    whole = file.read_bytes()
    for content in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], b"x" * 100):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.parquet cannot be read as Parquet"):
            read_row(str(file), "0")
    file.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(DataError, match=r"x\.parquet cannot be read as Parquet"):
        read_row(str(file), "0")
    file.write_bytes(whole)
    assert read_row(str(file), "19") == png(19)


def test_numbers_of_rows_that_are_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(write_hub(tmp_path / "x.parquet", {"image": images([b"a"] * 5)}))
    about = image_table(file)
    lied = parquet_images.ImageTable(
        900, about.names, about.columns, about.binary, about.features, (0, 600), {"image": (-5, 10**18)}
    )
    monkeypatch.setattr(parquet_images, "_looked_up", lambda *_: lied)
    for row in ("5", "599", "700", "899"):
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            read_row(file, row)


def test_one_text_in_very_many_rows_is_decoded_a_few_at_a_time(tmp_path: Path) -> None:
    """A dictionary of one image of a megabyte, which two thousand rows have."""
    large = b"\x89PNG\r\n" + bytes(1 << 20)
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), pa.array([large]))
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": rows}), file, compression="gzip", store_schema=False)
    assert file.stat().st_size < 1 << 20
    assert read_row(str(file), "1900") == large
    assert parquet_images._DECODED._held <= parquet_images.KEPT_BYTES
