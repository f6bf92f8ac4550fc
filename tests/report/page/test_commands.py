"""`diva report` and `diva review` as they are typed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest


def test_a_review_is_served_saved_and_ended_by_ctrl_c(
    run_diva: Callable[..., Any], make_scored: Callable[..., Any]
) -> None:
    scored = make_scored(n=21)
    command = ["review", str(scored.folder), "--no-browser", "--cache-dir", str(scored.data.parent / "cache")]
    with subprocess.Popen(
        [sys.executable, "-m", "divacli", *command], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            address = next(line for line in process.stderr if line.startswith("http://127.0.0.1:")).strip()
            with urllib.request.urlopen(f"{address}data") as answer:
                place = json.load(answer)["samples"]["place"][0]
            body = json.dumps([{"place": place, "decision": "drop"}]).encode()
            urllib.request.urlopen(f"{address}decisions", data=body).close()
            refused = run_diva(*command)
            assert refused.exit_code == 1
            assert "being reviewed already" in refused.stderr
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 0
    assert f"1 decisions in {scored.folder / 'decisions.csv'}" in said
    assert pd.read_csv(scored.folder / "decisions.csv")["decision"].tolist() == ["drop"]


def test_a_port_that_is_taken_is_told(run_diva: Callable[..., Any], make_scored: Callable[..., Any]) -> None:
    scored = make_scored(n=21)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_diva(
            "review", scored.folder, "--no-browser", "--port", port, "--cache-dir", scored.folder
        )
    assert result.exit_code == 1
    assert f"port {port}" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_not_reviewed(
    run_diva: Callable[..., Any], make_scored: Callable[..., Any]
) -> None:
    scored = make_scored(n=21)
    scored.folder.chmod(0o555)
    result = run_diva("review", scored.folder, "--no-browser")
    scored.folder.chmod(0o755)
    assert result.exit_code == 1
    assert "cannot be written to" in result.stderr


@pytest.mark.parametrize("name", ["scores.csv", "-", "page"])
def test_a_page_is_written_over_no_other_file(
    run_diva: Callable[..., Any], scored: Any, tmp_path: Path, name: str
) -> None:
    result = run_diva("report", scored.folder, "--out", name if name == "-" else tmp_path / name)
    assert result.exit_code == 2
    assert "report.html" in result.stderr
    assert not (tmp_path / name).exists()
