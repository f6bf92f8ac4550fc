"""Regular files, no more of them than agreed, and no more memory than they need."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from divacli.files.regular import read_at_most, read_regular


class Measured(io.BytesIO):
    """A stream that remembers the most it was asked for at once."""

    largest = 0

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        self.largest = max(self.largest, size)
        return super().read(size)


def test_a_limit_is_not_asked_for_at_once():
    """Python takes memory for as much as is asked for, which fails where memory is limited."""
    stream = Measured(b"x" * 100)
    assert read_at_most(stream, 1 << 32, "x") == b"x" * 100
    assert 100 < stream.largest <= 1 << 24


@pytest.mark.parametrize("length", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_all_of_a_file_is_read_up_to_its_limit(length: int, tmp_path: Path):
    content = bytes(range(251)) * (length // 251 + 1)
    file = tmp_path / "x"
    file.write_bytes(content[:length])
    for most in (length, length + 1, 1 << 32):
        assert read_regular(file, most) == content[:length]
        assert read_at_most(io.BytesIO(content[:length]), most, file) == content[:length]
    if length:
        with pytest.raises(OSError, match=f"the limit is {length - 1:,}"):
            read_regular(file, length - 1)
        with pytest.raises(OSError, match=f"the limit is {length - 1:,}"):
            read_at_most(io.BytesIO(content), length - 1, file)


def test_a_signal_when_the_file_is_open_is_not_taken_for_a_failure(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"content")

    def opened_in_vain(*arguments, **options):
        with open(*arguments, **options):  # noqa: PTH123
            pass  # the stream goes, and its descriptor with it
        raise KeyboardInterrupt

    monkeypatch.setattr("divacli.files.regular.open", opened_in_vain, raising=False)
    with pytest.raises(KeyboardInterrupt):
        read_regular(file, 100)
