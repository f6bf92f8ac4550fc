"""What is written is read back the same, and is whole or not there at all."""

import errno
import io
import json
import os
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from divacli.errors import OutputError
from divacli.files.write import write_text
from divacli.manifest import Format, read_manifest, relocate, write_table
from tests.made import WEIGHTS

FORMATS = ["csv", "jsonl", "parquet"]
TABLE = pd.DataFrame(
    {
        "rank": pd.array([1, None], "Int64"),
        "path": ["a,b.png", 'c"d\r.png'],
        "derivative": [1 / 3, np.nan],
        "count": [2**60, 3],
        "significant": pd.array([True, None], "boolean"),
        "big": [np.inf, 1e20],
    }
)


def test_csv_bytes() -> None:
    stream = io.BytesIO()
    write_table(TABLE, None, "csv", stdout=stream)
    assert stream.getvalue() == (
        b"rank,path,derivative,count,significant,big\n"
        b'1,"a,b.png",0.333333333,1152921504606846976,True,inf\n'
        b',"c""d\r.png",,3,,1e+20\n'
    )


def test_jsonl_bytes() -> None:
    stream = io.BytesIO()
    write_table(TABLE, None, "jsonl", stdout=stream)
    first, second = [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]
    assert first == {
        "rank": 1,
        "path": "a,b.png",
        "derivative": 0.333333333,
        "count": 2**60,
        "significant": True,
        "big": "inf",
    }
    assert second["rank"] is second["derivative"] is second["significant"] is None


def test_parquet_keeps_every_digit(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "t.parquet", "parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["derivative"][0] == 1 / 3


@pytest.mark.parametrize("format", FORMATS)
def test_same_table_same_bytes(tmp_path: Path, format: str) -> None:
    for name in ("a", "b"):
        write_table(TABLE.copy(), tmp_path / name, format)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_types_of_a_users_own_columns() -> None:
    own = pd.DataFrame({"tags": [["a", "b"], None], "when": pd.to_datetime(["2020-01-02", None])})
    own["array"] = [np.arange(2), None]
    stream = io.BytesIO()
    write_table(own, None, "jsonl", stdout=stream)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first == {"tags": ["a", "b"], "when": "2020-01-02 00:00:00", "array": [0, 1]}
    assert second == {"tags": None, "when": None, "array": None}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
TRICKY = st.sampled_from(
    [
        *("NA", "nan", "None", "null", "1e5", "01", "1.0", "True", "=1+1", "-x", "#", "'", "\\"),
        *('"', '""', "a,b", " a ", "\r", "a\rb", "a\r\nb", "\n", "\t", "\0"),
        *("\u2028", "\x85", "\ufeff", "é", "e\u0301", "😀"),
    ]
)
CELL = st.one_of(TRICKY, TEXT)
WEIGHT = st.floats(0, 1e12).map(lambda weight: float(f"{weight:.9g}"))


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=50, deadline=None)
@given(
    paths=st.lists(CELL, min_size=2, max_size=6, unique_by=os.path.normpath),
    labels=st.lists(CELL.filter(str.strip), min_size=2, max_size=2, unique=True),
    weight=WEIGHT,
)
@example(paths=["\r", "b"], labels=["\ufeff", "=a\r"], weight=0.1)
def test_written_then_read_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, format: str, paths: list[str], labels: list[str], weight: float
) -> None:
    table = pd.DataFrame({"path": paths, "label": [labels[row % 2] for row in range(len(paths))]})
    table["weight"] = [1.0] + [weight] * (len(paths) - 1)
    target = tmp_path_factory.getbasetemp() / f"written.{format}"
    write_table(table, target, format)
    again = read_manifest(str(target), reading=WEIGHTS).table
    assert again["path"].tolist() == table["path"].tolist()
    assert again["label"].tolist() == table["label"].tolist()
    assert again["weight"].tolist() == table["weight"].tolist()
    with target.open("rb") as stdin:
        assert read_manifest("-", stdin=stdin, reading=WEIGHTS).table.equals(again)


@pytest.mark.parametrize("target", ["data", "data/out", "elsewhere/out", "."])
def test_relocated_tables_name_the_same_files(tmp_path: Path, target: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.csv").write_text(f"path,label\ncat/1.png,a\n../2.png,b\n{tmp_path}/3.png,b\n")
    manifest = read_manifest(str(tmp_path / "data/t.csv"))
    file = tmp_path / target / "moved.csv"
    write_table(relocate(manifest.table, manifest.folder, file.parent), file, "csv")
    moved = read_manifest(str(file))
    assert [os.path.realpath(path) for path in moved.files()] == [
        os.path.realpath(path) for path in manifest.files()
    ]
    assert moved.table["path"][2] == f"{tmp_path}/3.png"
    assert not moved.table["path"][0].startswith("/")


def test_relocated_into_a_link(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "deep/er")
    moved = relocate(pd.DataFrame({"path": ["1.png"]}), tmp_path / "data", tmp_path / "out")
    assert moved["path"][0] == "../../data/1.png"


def test_relocated_sources(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["0", "x.png", "y.png"], "feature_source": ["e.npz", "", "/abs/store"]})
    moved = relocate(table, tmp_path / "data", tmp_path / "out")
    # Names inside an .npz stay; a store's paths are image files like any other.
    assert moved["path"].tolist() == ["0", "../data/x.png", "../data/y.png"]
    assert moved["feature_source"].tolist() == ["../data/e.npz", "", "/abs/store"]
    assert table["feature_source"][0] == "e.npz"


def test_folders_are_made_and_files_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a/b/t.json"
    write_text(target, "one")
    write_text(target, "zwei ü")
    assert target.read_bytes() == "zwei ü".encode()
    assert [entry.name for entry in target.parent.iterdir()] == ["t.json"]
    plain = tmp_path / "plain"
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    target = tmp_path / "t.csv"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        OutputError, match="free some space" if code == errno.ENOSPC else "choose another one"
    ):
        write_table(TABLE, target, "csv")
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.csv"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "t.json", "x")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder/full").mkdir(parents=True)
    for target in (tmp_path / "file/t.csv", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_text(target, "x")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_text(tmp_path / "t.json", "x")
    tmp_path.chmod(0o700)


def test_mixed_types_in_parquet(tmp_path: Path) -> None:
    mixed = pd.DataFrame({"mine": ["a", 1]})
    with pytest.raises(OutputError, match=r"mine(.|\n)*jsonl"):
        write_table(mixed, tmp_path / "t.parquet", "parquet")
    assert list(tmp_path.iterdir()) == []


class Broken(io.BytesIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, data: object) -> int:
        raise self.error


def test_standard_output_that_fails() -> None:
    with pytest.raises(BrokenPipeError):
        write_table(TABLE, None, "csv", stdout=Broken(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    with pytest.raises(OutputError, match="standard output cannot be written: full"):
        write_table(TABLE, None, "csv", stdout=Broken(OSError(errno.ENOSPC, "full")))


def test_a_cell_of_a_megabyte(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["1", "2"], "label": ["a", "b"], "note": ["x" * 1_000_000, "y"]})
    for suffix in get_args(Format):
        write_table(table, tmp_path / f"t.{suffix}", suffix)
        read = read_manifest(str(tmp_path / f"t.{suffix}")).table
        assert read["note"].tolist() == table["note"].tolist()
