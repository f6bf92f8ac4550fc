"""`diva doctor` tells what is there, what is not, and nothing that is nobody's business."""

from __future__ import annotations

import getpass
import json
import platform
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import divacli


def test_versions_devices_cache_and_space(done: Callable[..., Any]) -> None:
    found = json.loads(done("doctor", "--json").stdout)
    assert found["problems"] == []
    assert found["versions"]["diva"] == divacli.version.__version__
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["devices"]["default"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert found["images"]["JPEG"] is True
    assert set(found["space"]) == {"for the cache", "in the current folder"}


def test_people_read_the_same(done: Callable[..., Any]) -> None:
    text = done("doctor").stdout
    assert f"diva                    {divacli.version.__version__}" in text
    assert text.endswith("no problems found\n")
    assert "\x1b" not in text


def test_nothing_private_is_told(
    done: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DIVA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    text = done("doctor").stdout + done("doctor", "--json").stdout
    assert "~/cache" in text
    for private in (str(tmp_path), "hunter2", socket.gethostname()):
        assert private not in text
    if getpass.getuser() not in ("root", "user"):
        assert getpass.getuser() not in text


def test_the_cache_is_measured(done: Callable[..., Any], scores: Callable[..., Any], blobs: Any) -> None:
    scores(blobs().file, "--cache-dir", "kept")
    found = json.loads(done("doctor", "--json", "--cache-dir", "kept").stdout)
    assert found["cache"]["feature stores"] == len(list(Path("kept").rglob("store.json")))
    assert found["cache"]["size"] != "0 B"
    gone = json.loads(done("doctor", "--json", "--cache-dir", "none").stdout)
    assert gone["cache"]["state"] == "not there yet"


def test_what_would_not_work_ends_with_status_1_and_what_to_do(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    result = run("doctor")
    assert result.exit_code == 1
    assert "1.0 kB are free in the current folder" in result.stdout
    assert "torchvision cannot be imported" in result.stdout
    assert "pip install" in result.stdout


@pytest.mark.skipif(platform.system() != "Linux", reason="a look at Linux")
def test_a_driver_without_a_device_is_a_problem(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    result = run("doctor")
    assert result.exit_code == 1
    assert "torch sees no device" in result.stdout
