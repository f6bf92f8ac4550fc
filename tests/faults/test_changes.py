"""Files that vanish or change during a run are left out with a reason: every sample is accounted for."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import N_IMAGES, SMALL, Job, Server, results

CHANGES = {
    "vanished": ("Path(file).unlink()", "cannot be read: No such file or directory"),
    "replaced": ("shutil.copy('../photos/c/002.png', file)", "it changed while it was being read"),
    "truncated": ("Path(file).write_bytes(b'')", "it changed while it was being read"),
    "a folder now": ("Path(file).unlink(); Path(file).mkdir()", "cannot be read: Is a directory"),
    "a loop of links now": (
        "Path(file).unlink(); Path(file).symlink_to(Path(file).name)",
        "cannot be read: Too many levels of symbolic links",
    ),
}
"""What happens to a file, and the reason that is given for it."""

BEFORE = """
import shutil
from pathlib import Path
from divacli.features import embedding

keys = embedding.stored_keys

def changed(files, *arguments):
    def change(names):
        for file in files:
            if Path(file).name in names:
                {change}
    change({scanned})
    found = keys(files, *arguments)
    change({read})
    return found

embedding.stored_keys = changed
"""


@pytest.mark.parametrize(
    ("change", "workers"), [*((change, "0") for change in CHANGES), ("vanished", "2"), ("replaced", "2")]
)
def test_files_that_change_after_they_were_seen(
    change: str, workers: str, server: Server, folder: Path
) -> None:
    """Three change between the scan and the digest, three between the digest and the pixels."""
    shutil.copytree(folder / "../photos", folder / "photos")
    code, reason = CHANGES[change]
    scanned, read = ("003.png", "020.png", "040.png"), ("004.png", "021.png", "041.png")
    before = SMALL + BEFORE.format(change=code, scanned=scanned, read=read)
    options = ("photos", "--model", "../net.py:make", "--cache-dir", "cache", "--workers", workers)
    job = Job(("score", *options, "--out", "out"), str(folder), before=before)
    done = server.run(job)
    assert done.status == 0, done.messages
    failed = {Path(row["path"]).name: row["reason"] for row in rows(folder / "out/failed.csv")}
    scored = {Path(row["path"]).name for row in rows(folder / "out/scores.csv")}
    assert failed.keys().isdisjoint(scored)
    assert len(failed) + len(scored) == N_IMAGES + 1
    assert all(failed[name] == reason for name in read)
    if change in ("vanished", "a folder now", "a loop of links now"):
        assert all(failed[name] == reason for name in scanned)
    elif change == "truncated":
        assert all(failed[name] == "empty file (0 bytes)" for name in scanned)
    else:
        assert scored.issuperset(scanned)  # what they are now
    assert f"{len(failed):,} images cannot be used" in done.messages
    if change not in ("replaced", "truncated"):
        return

    # Another run sees what is there now, and no feature of what was there before.
    again = Job(("score", *options, "--out", "again"), str(folder), out="again")
    fresh = replace(
        again, arguments=(*again.arguments, "--cache-dir", "empty", "--out", "fresh"), out="fresh"
    )
    for one in (again, fresh):
        assert server.run(one).status == 0
    found = [results(folder / one.out) for one in (again, fresh)]
    assert found[0]["scores.csv"] == found[1]["scores.csv"]
    assert found[0]["failed.csv"] == found[1]["failed.csv"]
    assert Counter(row["reason"] for row in rows(folder / "again/failed.csv")).total() < len(failed) + 1


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))
