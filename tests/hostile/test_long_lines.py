"""A table that is one line of gigabytes: answered after the first megabytes of it, in bounded memory."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from divacli.errors import DataError
from divacli.manifest import read_manifest
from divacli.manifest.bounded import LONGEST_LINE, read_stream

SIZE = 64 << 20


class Endless(io.RawIOBase):
    """A stream without an end, and without a line."""

    def __init__(self, start: bytes, unit: bytes) -> None:
        self.start, self.unit, self.given = start, unit, 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "all of it was asked for"
        part = (self.start + self.unit * size)[:size]
        self.start = b""
        self.given += len(part)
        return part


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("start", ["", "path,label\na.png,a\nb.png,"])
@pytest.mark.parametrize("unit", [b"x", b",", b'"', b"[", b"\0", b"\t"])
def test_a_file_of_one_line(suffix: str, start: str, unit: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"t.{suffix}"
    file.write_bytes(start.encode() + unit * SIZE)
    before = memory()
    with pytest.raises(DataError, match=r"a line has more than 4,194,304 bytes"):
        read_manifest(str(file))
    assert memory() - before < SIZE // 2


@pytest.mark.parametrize("start", [b"", b"path,label\n", b'{"path": "', b"path\tlabel\n"])
@pytest.mark.parametrize("unit", [b"x", b",", b'"'])
def test_standard_input_that_never_ends(start: bytes, unit: bytes) -> None:
    stream = Endless(start, unit)
    with pytest.raises(DataError, match="standard input: a line has more than"):
        read_manifest("-", stdin=stream)
    assert stream.given < 3 * LONGEST_LINE


def test_metadata_and_texts_and_decisions(photos: Path, refused: Callable) -> None:
    for name in ("photos/metadata.csv", "d.csv"):
        Path(name).write_bytes(b"x" * (LONGEST_LINE + (2 << 20)))
    assert "metadata.csv: a line has more than" in refused("score", photos)
    Path("photos/metadata.csv").unlink()
    assert "d.csv: a line has more than" in refused("apply", photos, "d.csv")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_million_columns(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        file.write_text(",".join(f"c{n}" for n in range(400_000)) + "\n")
    else:
        file.write_text("\n".join(f'{{"path": "a", "c{n}": 1}}' for n in range(20_000)))
    with pytest.raises(DataError, match=r"t\.\w+ has \d+,\d+ columns"):
        read_manifest(str(file))


def test_long_lines_that_are_rows_are_read(tmp_path: Path) -> None:
    cells = ",".join(["0.123456789"] * 400)
    names = ",".join(f"f{n}" for n in range(400))
    file = tmp_path / "t.csv"
    file.write_text(f"path,label,{names}\na.png,a,{cells}\nb.png,b,{cells}\n")
    assert len(read_manifest(str(file)).table) == 2


def test_the_line_ends_of_old_machines_count(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"path,label\r" + b"".join(b"%0200d.png,%d\r" % (n, n % 2) for n in range(25_000)))
    assert file.stat().st_size > LONGEST_LINE
    assert len(read_manifest(str(file)).table) == 25_000


@pytest.mark.parametrize("before", [0, 400_000, 800_000])
def test_the_limit_is_the_same_wherever_a_line_stands(before: int) -> None:
    start = b"x" * before + b"\n"
    assert read_stream(io.BytesIO(start + b"y" * LONGEST_LINE + b"\n"), "t").endswith(b"y\n")
    with pytest.raises(DataError, match="a line has more than"):
        read_stream(io.BytesIO(start + b"y" * (LONGEST_LINE + 1) + b"\n"), "t")


def test_a_key_twice_among_very_many(tmp_path: Path) -> None:
    """Counted each by itself, this took longer than anybody waits."""
    keys = ", ".join(f'"{number}": 0' for number in [*range(250_000), 249_999])
    assert len(keys) < LONGEST_LINE
    (tmp_path / "t.jsonl").write_text(f"{{{keys}}}\n")
    with pytest.raises(DataError, match="the key '249999' twice in one object"):
        read_manifest(str(tmp_path / "t.jsonl"))
