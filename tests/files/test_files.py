"""Local paths and URLs: one name for each, the same bytes by either, and what is said of others."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from divacli.errors import DataError
from divacli.files.existing import require_present
from divacli.files.path_or_url import file_digest, joined, place_of, read_range, size_of
from divacli.files.remote import RemoteFile
from divacli.files.urls import is_url, suffix_of

CONTENT = np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.pipe("/bucket/deep/data.bin", CONTENT)
    yield system
    system.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("name", "remote"),
    [
        ("s3://bucket/a.npz", True),
        ("https://host/a.npz?version=2", True),
        ("filecache::s3://bucket/a.npz", True),
        ("filecache::file:///data/a.npz", True),
        ("file:///data/a.npz", False),
        ("local:///data/a.npz", False),
        ("/data/a.npz", False),
        ("a:b.npz", False),
        ("a::b/c.npz", False),
        ("", False),
    ],
)
def test_what_is_a_url(name: str, remote: bool) -> None:
    assert is_url(name) is remote
    assert isinstance(place_of(name), RemoteFile) is remote


def test_a_file_url_is_a_path() -> None:
    assert place_of("file:///data/a.npz") == Path("/data/a.npz")


@pytest.mark.parametrize(
    ("folder", "name", "whole"),
    [
        ("/data", "a/b.jpg", "/data/a/b.jpg"),
        ("/data", "../b.jpg", "/data/../b.jpg"),
        ("/data", "/b.jpg", "/b.jpg"),
        ("/data", "file:///b.jpg", "/b.jpg"),
        ("/data", "s3://bucket/b.jpg", "s3://bucket/b.jpg"),
        ("s3://bucket/a", "b.jpg", "s3://bucket/a/b.jpg"),
        ("s3://bucket/a/", "../b.jpg", "s3://bucket/b.jpg"),
        ("s3://bucket/a", "../../../b.jpg", "s3://bucket/b.jpg"),
        ("s3://bucket", "b.jpg", "s3://bucket/b.jpg"),
        ("s3://bucket/a", "/local/b.jpg", "/local/b.jpg"),
        ("s3://bucket/a", "gs://other/b.jpg", "gs://other/b.jpg"),
        ("filecache::s3://bucket/a", "../b.jpg", "filecache::s3://bucket/b.jpg"),
    ],
)
def test_names_in_a_table_start_from_its_folder(folder: str, name: str, whole: str) -> None:
    assert joined(place_of(folder), name) == whole


@pytest.mark.parametrize(
    "name", ["a.NPZ", "/x.y/a.npz", "s3://b/a.npz", "https://h/a.npz?x=1.csv#part", "filecache::s3://b/a.npz"]
)
def test_suffix(name: str) -> None:
    assert suffix_of(name) == "npz"


def test_parts_of_a_url() -> None:
    file = RemoteFile("s3://bucket/a/b.npz")
    assert (file.name, str(file.parent), str(file.parent / "c.npz"), str(file)) == (
        "b.npz",
        "s3://bucket/a",
        "s3://bucket/a/c.npz",
        "s3://bucket/a/b.npz",
    )


def test_the_same_by_path_and_by_url(memory, tmp_path) -> None:
    local = tmp_path / "data.bin"
    local.write_bytes(CONTENT)
    remote = place_of("memory://bucket/deep/data.bin")
    assert remote.exists()
    assert not (remote.parent / "other").exists()
    assert not remote.parent.exists()  # a folder
    assert remote.read_bytes() == CONTENT
    assert size_of(remote) == size_of(local) == len(CONTENT)
    assert file_digest(remote) == file_digest(local) == hashlib.sha256(CONTENT).digest()
    for start, stop in [(0, 10), (500, 70_000), (99_990, 100_010), (7, 7)]:
        assert read_range(remote, start, stop) == read_range(local, start, stop) == CONTENT[start:stop]
    with remote.open() as stream:
        assert stream.read() == CONTENT


def test_a_long_range_comes_in_pieces(memory, monkeypatch) -> None:
    monkeypatch.setattr("divacli.files.remote._PIECE", 1000)
    remote = RemoteFile("memory://bucket/deep/data.bin")
    ranges = [(0, 2500), (50_000, 50_001), (1, 99_999)]
    assert remote.read_ranges(ranges) == [CONTENT[start:stop] for start, stop in ranges]
    assert remote.digest() == hashlib.sha256(CONTENT).digest()


def test_files_below_by_pattern(memory) -> None:
    for name in ("b-2.x", "b-1.x", "c-1.x", "b-3.y"):
        memory.pipe(f"/bucket/deep/{name}", b"")
    found = sorted(RemoteFile("memory://bucket/deep").glob("b-*.x"))
    assert [str(file) for file in found] == ["memory://bucket/deep/b-1.x", "memory://bucket/deep/b-2.x"]


def test_a_digest_follows_the_content(memory) -> None:
    file = RemoteFile("memory://bucket/deep/data.bin")
    before = file.digest()
    memory.pipe("/bucket/deep/data.bin", CONTENT[::-1])
    assert file.digest() == hashlib.sha256(CONTENT[::-1]).digest() != before


def test_pickles_and_threads(memory) -> None:
    file = pickle.loads(pickle.dumps(RemoteFile("memory://bucket/deep/data.bin")))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: read_range(file, start, start + 100), range(0, 100_000, 100)))
    assert b"".join(parts) == CONTENT


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none.npz", "memory://bucket/none.npz does not exist"),
        ("nobody://bucket/a.npz", "nobody is nothing that URLs are read by"),
    ],
)
@pytest.mark.parametrize("read", [RemoteFile.read_bytes, RemoteFile.open, RemoteFile.size, RemoteFile.digest])
def test_what_cannot_be_read(url: str, message: str, read) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read(RemoteFile(url))


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("filecache::gs", "gcsfs")])
def test_a_package_that_is_missing_is_named(protocol: str, package: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=f"to do: pip install {package}") as raised:
        RemoteFile(f"{protocol}://bucket/a.npz").read_bytes()
    assert "is not installed" in raised.value.got


def test_local_data_that_is_not_there(tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    require_present(str(tmp_path / "photos"), None, "-", "s3://bucket/none", f"file://{tmp_path}/photos")
    with pytest.raises(DataError, match=r"phots does not exist[\s\S]*did you mean .*photos\?"):
        require_present("-", str(tmp_path / "phots"))
    with pytest.raises(DataError, match="does not exist"):
        require_present(f"file://{tmp_path}/phots")


class Handler(http.server.BaseHTTPRequestHandler):
    """`/data.bin` by ranges, `/whole.bin` without, `/forbidden.bin` not at all, `/short.bin` cut."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/forbidden.bin" or self.path not in ("/data.bin", "/whole.bin"):
            return self.answer(403 if self.path == "/forbidden.bin" else 404, b"", {})
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or self.path == "/whole.bin":
            return self.answer(200, CONTENT, {})
        start, stop = int(asked[1]), min(int(asked[2]) + 1, len(CONTENT))
        return self.answer(
            206, CONTENT[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(CONTENT)}"}
        )

    do_HEAD = do_GET

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        ranges = {} if self.path == "/whole.bin" else {"Accept-Ranges": "bytes"}
        for name, value in {**headers, **ranges, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_a_web_server(server: str) -> None:
    file = RemoteFile(f"{server}/data.bin")
    assert file.exists()
    assert file.size() == len(CONTENT)
    assert file.read_ranges([(5, 50), (90_000, 100_000)]) == [CONTENT[5:50], CONTENT[90_000:]]
    assert file.digest() == hashlib.sha256(CONTENT).digest()
    assert not RemoteFile(f"{server}/none.bin").exists()


def test_a_web_server_that_refuses(server: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        RemoteFile(f"{server}/none.bin").read_bytes()
    for ask in (RemoteFile.read_bytes, RemoteFile.exists):
        with pytest.raises(DataError, match=r"(?s)403.*credentials"):
            ask(RemoteFile(f"{server}/forbidden.bin"))


def test_a_web_server_without_ranges(server: str) -> None:
    file = RemoteFile(f"{server}/whole.bin")
    assert file.read_bytes() == CONTENT
    with pytest.raises(DataError, match="sends whole files"):
        file.read_ranges([(5, 50)])


def test_no_web_server() -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    for ask in (RemoteFile.read_bytes, RemoteFile.exists):
        with pytest.raises(DataError, match="Cannot connect"):
            ask(RemoteFile("http://127.0.0.1:9/a.npz"))
