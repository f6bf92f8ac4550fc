"""Real pipes between real processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

DIVA = f"{sys.executable} -m divacli"


@pytest.fixture
def bash(tmp_path, own_cache):
    """Run a line of bash that fails where any part of a pipe does."""

    def invoke(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=tmp_path,
            # Unbuffered, Python takes a write that was cut short by a closed pipe for a whole one.
            env={**os.environ, "DIVA": DIVA, "PYTHONUNBUFFERED": ""},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return invoke


def test_score_into_prune(images, model, factory, bash, tmp_path):
    score = f"$DIVA score {images} {' '.join(model)} -o -"
    found = bash(
        f"{score} | tee scores.csv | $DIVA prune - --keep 0.9 --by derivative --force -o - > kept.csv"
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == ""
    kept = pd.read_csv(tmp_path / "kept.csv")
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert list(kept) == ["path", "label", "weight"]
    assert len(kept) == 33
    assert set(kept["path"]) == set(scores["path"][3:])
    # Loaded by the first command only.
    assert factory.with_suffix(".log").read_text().count("made") == 1
    assert "the error on new images" in " ".join(found.stderr.split())
    assert "33 of 36 samples kept" in found.stderr
    assert "Traceback" not in found.stderr
    assert "\x1b" not in found.stderr
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == sorted(
        ["kept.csv", "net.log", "net.py", "scores.csv"]
    )


def test_another_format_through_a_quiet_pipe(blobs, done):
    options = ("-q", "--format", "parquet", "-o", "-")
    scored = done("score", blobs().file, *options)
    pruned = done("prune", "-", "--keep", "0.9", "--force", *options, stdin=scored.stdout_bytes)
    assert scored.stderr == pruned.stderr == ""
    assert len(pd.read_parquet(io.BytesIO(pruned.stdout_bytes))) == 135


def test_a_reader_that_has_gone_is_no_traceback(blobs, bash):
    data = blobs(n=900, d=3).file
    found = bash(f"$DIVA score {data} -q -o - | head -1; echo ${{PIPESTATUS[0]}}")
    header, status = found.stdout.splitlines()
    assert header.startswith("rank,path,label")
    assert status == "1"
    assert found.stderr.count("error: standard output was closed") == 1
    assert len(found.stderr.splitlines()) == 1


def test_a_first_command_that_fails_fails_the_pipe(bash, tmp_path):
    found = bash("$DIVA score nowhere -o - | $DIVA prune - --keep 0.9 -o - > kept.csv")
    assert found.returncode == 1
    assert "nowhere does not exist" in found.stderr
    assert "nothing came on standard input" in found.stderr
    assert "Traceback" not in found.stderr
    assert Path(tmp_path / "kept.csv").read_text() == ""
