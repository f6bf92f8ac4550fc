"""Damage on disk is noticed: mended and said in the cache, refused by name in a store given as DATA."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import Job, Server, job_of, results, said_once


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[random.Random(0).randrange(len(content) // 2, len(content) * 3 // 4)] ^= 1 << 5
    file.write_bytes(content)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("features/*/shard-*.safetensors", truncated),
        ("features/*/shard-*.safetensors", flipped),
        ("features/*/store.json", emptied),
        ("features/*/store.json", flipped),
        ("features/*/head.safetensors", flipped),
        ("features/*/head.safetensors", truncated),
    ],
)
def test_damage_in_the_cache_is_mended_and_said(
    pattern: str, damage: Callable[[Path], None], server: Server, folder: Path, expected: dict
) -> None:
    job = job_of("score", folder)
    assert server.run(job).status == 0
    for file in sorted((folder / "cache").glob(pattern))[:2]:
        damage(file)
    again = replace(job, arguments=(*job.arguments, "--overwrite"))
    mended = server.run(again)
    assert mended.status == 0, mended.messages
    [warning] = [line for line in mended.messages.splitlines() if "damaged" in line]
    assert warning.startswith("warning: ")
    assert Path(pattern).name.split("*")[0] in warning
    assert but_the_record(folder / "out") == without_record(expected["score"])
    silent = server.run(again)
    assert "damaged" not in silent.messages
    assert but_the_record(folder / "out") == without_record(expected["score"])


@pytest.mark.parametrize("name", ["shard-*.safetensors", "head.safetensors", "store.json"])
@pytest.mark.parametrize("damage", [truncated, flipped])
def test_damaged_store_is_refused_and_embedding_again_repairs_it(
    name: str, damage: Callable[[Path], None], server: Server, folder: Path, expected: dict
) -> None:
    job = job_of("embed", folder)
    assert server.run(job).status == 0
    [file, *_] = sorted((folder / "out").glob(name))
    damage(file)
    score = Job(("score", "out", "--cache-dir", "cache", "--out", "scored"), str(folder), out="scored")
    refused = server.run(score)
    assert refused.status == 1
    said_once(refused.messages, file.name)
    assert "run the diva embed command again that made this store" in refused.messages
    assert not results(folder / "scored")

    repaired = server.run(replace(job, arguments=(*job.arguments, "--overwrite")))
    assert repaired.status == 0, repaired.messages
    assert file.name in repaired.messages
    found = but_the_record(folder / "out")
    kept = {name: content for name, content in found.items() if not name.endswith(".damaged")}
    assert kept == without_record(expected["embed"])
    done = server.run(score)
    assert done.status == 0, done.messages


def but_the_record(folder: Path) -> dict[str, object]:
    return without_record(results(folder))


def without_record(found: dict[str, object]) -> dict[str, object]:
    """The record of the run tells of the option --overwrite."""
    return {name: content for name, content in found.items() if name != "run.json"}
