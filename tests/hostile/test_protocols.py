"""URLs in a table by what reads more than the bytes of one file: refused before anything is opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from divacli.errors import DataError
from divacli.files.remote import RemoteFile

URLS = [
    "reference://a.npz",
    "reference://a.npz::file:///x/refs.json",
    "reference://::memory://bucket/refs.json",
    "filecache::reference://a.npz::memory://bucket/refs.json",
    "simplecache::reference://a.npz",
    "memory://bucket/a.npz::reference://b.npz",
    "reference::memory://bucket/refs.json",
    "REFERENCE://a.npz",
    "dask://a.npz",
    "dask::memory://bucket/a.npz",
    "git://main@a.npz",
    "github://owner:repository@main/a.npz",
    "gist://0123456789/a.npz",
    "libarchive://a.npz::memory://bucket/a.7z",
    "zip://a.npz::memory://bucket/a.zip",
    "tar://a.npz::memory://bucket/a.tar",
    "dir://a.npz::memory://bucket",
    "generic://a.npz",
    "asyncwrapper::memory://bucket/a.npz",
    "cached::memory://bucket/a.npz",
    "jupyter://localhost:8888/a.npz",
    "jlab://localhost:8888/a.npz",
    "data://text/plain,x/a.npz",
    "dvc://a.npz",
    "smb://host/a.npz",
    "root://host/a.npz",
    "dbfs://a.npz",
    "filecache://x::memory://bucket/a.npz",
    "memory://bucket/a.npz::",
]


REFUSED = ("is nothing that URLs are read by", "no kind of DATA that is read from a URL")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What fsspec was asked to open."""
    urls: list[str] = []

    def opened(url: str, **_: Any) -> None:
        urls.append(url)
        raise AssertionError(url)

    monkeypatch.setattr("fsspec.core.url_to_fs", opened)
    monkeypatch.setattr(fsspec, "filesystem", opened)
    return urls


@pytest.mark.parametrize("url", URLS)
def test_what_is_refused(url: str, asked: list[str]) -> None:
    file = RemoteFile(url)
    for ask in (file.exists, file.open, file.read_bytes, file.size, file.digest, lambda: file.glob("*")):
        with pytest.raises(
            DataError, match=r"is nothing that URLs are read by(.|\n)*download the file"
        ) as error:
            ask()
        assert url in str(error.value)
    with pytest.raises(DataError, match="one of s3, s3a, gs"):
        file.read_ranges([(0, 1)])
    assert not asked


@pytest.mark.parametrize(
    "url", ["s3://b/a.npz", "filecache::gs://b/a.npz", "https://h/https://g/a.npz?u=x://y"]
)
def test_what_is_not(url: str, asked: list[str]) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        RemoteFile(url).read_bytes()
    assert asked == [url]


@pytest.mark.parametrize("url", URLS)
def test_in_a_cell(url: str, asked: list[str], tmp_path: Path, refused: Callable) -> None:
    (tmp_path / "t.jsonl").write_text(
        "".join(
            json.dumps({"path": str(number), "label": label, "feature_source": url}) + "\n"
            for number, label in enumerate("aabb")
        )
    )
    said = refused("score", "t.jsonl")
    assert any(reason in said for reason in REFUSED)
    assert not asked


def test_as_data(asked: list[str], refused: Callable) -> None:
    for url in ("reference://a.npz::memory://bucket/refs.json", "reference://store"):
        said = refused("score", url)
        assert any(reason in said for reason in REFUSED)
    assert not asked


def test_a_template_that_would_tell_the_environment(
    tmp_path: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SECRET", "hunter2")
    inner = "file://" + str(tmp_path) + "/{{u.__globals__[os].environ[FAKE_SECRET]}}"
    references = {"version": 1, "templates": {"u": "{{x}}"}, "refs": {"a.npz": [inner]}}
    (tmp_path / "refs.npz").write_text(json.dumps(references))
    url = f"reference://a.npz::file://{tmp_path}/refs.npz"
    (tmp_path / "t.csv").write_text(f"path,label,feature_source\n0,a,{url}\n1,b,{url}\n")
    assert "hunter2" not in refused("score", "t.csv")
