"""Paths that go through tar and Parquet files, and the order in which many are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from divacli.errors import DataError
from divacli.files.containers import contained, in_parquet, reading_order
from divacli.files.path_or_url import file_digest, is_file, place_of, read_bytes, status_of
from tests.hub import images, write_hub


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_hub(tmp_path / "x.Parquet", {"image": images([b"zero", b"one", None]), "label": [0, 1, 1]})


def test_a_path_through_parquet(table: Path) -> None:
    assert read_bytes(f"{table}/1") == b"one"
    assert is_file(f"{table}/2")
    assert not is_file(f"{table}/3")
    assert file_digest(place_of(f"{table}/0")) != file_digest(place_of(f"{table}/1"))
    assert status_of(f"{table}/1").st_size == table.stat().st_size
    assert in_parquet(f"{table}/1")
    assert not in_parquet(str(table))
    assert contained(f"{table.parent}/gone.parquet/1") is None


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").mkdir()
    (tmp_path / "x.parquet/1").write_bytes(b"in a folder")
    assert read_bytes(f"{tmp_path}/x.parquet/1") == b"in a folder"


@pytest.mark.parametrize("name", ["01", "1.jpg", "-1", "1_0", "x", "image/1", "²", "9" * 30, "other/1"])
def test_a_row_has_one_name(table: Path, name: str) -> None:
    assert not is_file(f"{table}/{name}")
    with pytest.raises(DataError, match="it has 3 rows and 1 columns of images"):
        read_bytes(f"{table}/{name}")


def test_rows_are_read_in_their_order(table: Path, tmp_path: Path) -> None:
    other = write_hub(tmp_path / "a.parquet", {"image": images([b"a"] * 12), "label": [0] * 12})
    files = [
        f"{table}/2",
        f"{tmp_path}/z.png",
        f"{other}/11",
        f"{other}/2",
        f"{tmp_path}/b.png",
        f"{table}/0",
    ]
    assert reading_order(files) == [1, 4, 3, 2, 5, 0]
    assert reading_order(files[1:2] * 3) == [0, 1, 2]
    assert reading_order([]) == []
