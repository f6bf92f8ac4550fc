"""Tables whose paths leave their folder: said in one line, and refused under `--confine`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.manifest import manifest_of, read_manifest
from divacli.run_record import Run, running


@pytest.fixture
def received(photos: Path) -> Path:
    """A folder as somebody sent it, beside one that is nobody else's business."""
    folder = photos.parent / "received"
    shutil.copytree(photos, folder / "photos")
    (photos.parent / "secret").mkdir()
    for name in ("a", "b"):
        shutil.copy(next((photos / name).iterdir()), photos.parent / "secret" / f"{name}.png")
    return folder


def table_of(received: Path, evil: str, name: str = "t.csv", **more: Any) -> Path:
    inside = [
        f"photos/{file.parent.name}/{file.name}" for file in sorted((received / "photos").rglob("*.png"))
    ]
    paths = [*inside, evil]
    table = pd.DataFrame({"path": paths, "label": [path[-8:-7] for path in inside] + ["a"], **more})
    file = received / name
    if name.endswith(".parquet"):
        table.to_parquet(file)
    elif name.endswith(".jsonl"):
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_csv(file, index=False)
    return file


def linked(received: Path, kind: str) -> str:
    secret = received.parent / "secret"
    if kind == "file":
        (received / "l.png").symlink_to(secret / "a.png")
        return "l.png"
    if kind == "folder":
        (received / "l").symlink_to(secret)
        return "l/a.png"
    if kind == "link to a link":
        (received / "l").symlink_to("../secret")
        (received / "m").symlink_to("l")
        return "m/a.png"
    return {
        "absolute": str(secret / "a.png"),
        "above": "../secret/a.png",
        "down and up": "photos/a/../../../secret/a.png",
        "file URL": f"file://{secret}/a.png",
    }[kind]


KINDS = ["absolute", "above", "down and up", "file", "folder", "link to a link", "file URL"]


@pytest.mark.parametrize("kind", KINDS)
def test_paths_that_leave(kind: str, received: Path, network: Path, run: Callable) -> None:
    evil = linked(received, kind)
    data = table_of(received, evil)
    score = ("score", data, "--model", f"{network}:make")
    result = run(*score)
    assert result.exit_code == 0, result.stderr
    told = [line for line in result.stderr.splitlines() if "--confine refuses that" in line]
    assert told == [
        f"note: {data}: 1 paths lead out of {received}, the first: {evil} (--confine refuses that)"
    ]
    result = run(*score, "--confine", "--out", "confined")
    assert result.exit_code == 1
    assert f"error: {data}: 1 paths lead out of {received}: {evil}\n" in result.stderr
    assert not Path("confined/scores.csv").exists()


@pytest.mark.parametrize("name", ["t.tsv", "t.jsonl", "t.parquet", "photos/metadata.csv"])
def test_every_kind_of_table(name: str, received: Path) -> None:
    data = table_of(received, "../secret/a.png", name if name != "t.tsv" else "t.csv")
    if name == "t.tsv":
        data = data.rename(data.with_suffix(".tsv"))
        data.write_text(data.read_text().replace(",", "\t"))
    if name == "photos/metadata.csv":
        data.write_text("file_name,label\na/000.png,a\nb/001.png,b\n../../secret/a.png,a\n")
        data = data.parent
    assert len(read_manifest(str(data)).notes) == 1
    with running(Run(confined=True)), pytest.raises(DataError, match=r"1 paths lead out of"):
        read_manifest(str(data))


def test_standard_input_is_confined_to_the_current_folder(received: Path, run: Callable) -> None:
    rows = b"path,label\nreceived/photos/a/000.png,a\nreceived/photos/b/001.png,b\n"
    for more, status in ((b"", 0), (b"/etc/passwd,a\n", 1), (b"https://example.org/x.png,a\n", 1)):
        result = run("prune", "-", "--confine", "--threshold", "0", stdin=rows + more)
        assert ("lead out of" in result.stderr) == bool(status)


@pytest.mark.parametrize("evil", ["https://example.org/a.png", "memory://bucket/a.png", "../secret/x.npz"])
def test_urls_and_features_elsewhere(evil: str, received: Path) -> None:
    data = table_of(received, "photos/a/a.png", feature_source=[""] * 12 + [evil])
    assert evil in read_manifest(str(data)).notes[0]
    with running(Run(confined=True)), pytest.raises(DataError, match=r"1 paths lead out of"):
        read_manifest(str(data))


def test_links_in_a_folder_and_shards_elsewhere(received: Path, encoded: Callable) -> None:
    (received / "photos" / "a" / "l.png").symlink_to(received.parent / "secret" / "a.png")
    assert not read_manifest(str(received / "photos")).notes
    with running(Run(confined=True)), pytest.raises(DataError, match=r"1 paths lead out of .*a/l.png"):
        read_manifest(str(received / "photos"))


def test_a_table_at_a_url(bucket: Any) -> None:
    rows = b"path,label\nphotos/a.png,a\nphotos/b.png,b\n"
    bucket.pipe_file("/bucket/in/t.csv", rows)
    with running(Run(confined=True)):
        assert not read_manifest("memory://bucket/in/t.csv").notes
        for evil in (b"../b.png,a", b"/etc/passwd,a", b"https://example.org/x.png,a"):
            bucket.pipe_file("/bucket/in/t.csv", rows + evil)
            with pytest.raises(DataError, match=r"1 paths lead out of memory://bucket/in"):
                read_manifest("memory://bucket/in/t.csv")


def test_absolute_paths_that_stay_inside(received: Path) -> None:
    data = table_of(received, str(received / "photos" / "a" / "x.png"))
    with running(Run(confined=True)):
        assert not read_manifest(str(data)).notes


def test_a_table_of_diva_says_where_its_images_are(photos: Path, network: Path, run: Callable) -> None:
    """Silence would be had by whoever writes a run.json beside a table."""
    assert run("score", photos, "--model", f"{network}:make").exit_code == 0
    result = run("prune", "diva-out/scores.csv", "--threshold", "0", "--out", "pruned")
    assert result.exit_code == 0, result.stderr
    said = result.stderr.replace("\n", " ")
    assert "note: diva-out/scores.csv: 12 paths lead out of" in said
    assert "the first: ../photos/" in said
    result = run("prune", "diva-out/scores.csv", "--threshold", "0", "--confine", "--out", "confined")
    assert result.exit_code == 1


def test_every_command_has_the_option(run: Callable) -> None:
    for command in ("score", "prune", "apply", "report", "train", "evaluate", "embed", "export"):
        assert "--confine" in run(command, "--help").stdout, command


@pytest.mark.parametrize("column", ["image_sha256", "derivative"])
def test_columns_as_diva_writes_them_do_not_hush_it(column: str, received: Path) -> None:
    data = table_of(received, "../secret/a.png", **{column: 0.5})
    assert len(read_manifest(str(data)).notes) == 1


def test_a_record_beside_a_table_does_not_hush_it(received: Path) -> None:
    data = table_of(received, "../secret/a.png")
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    outputs = {"t.csv": {"bytes": data.stat().st_size, "sha256": digest}}
    runs = [{"command": "score", "inputs": [{"folder": "/", "given": "x"}], "outputs": outputs}]
    (received / "run.json").write_text(json.dumps({"format": 1, "runs": runs}))
    assert len(read_manifest(str(data)).notes) == 1
    with running(Run(confined=True)), pytest.raises(DataError, match="lead out of"):
        read_manifest(str(data))


def test_a_store_does_not_nag(photos: Path, network: Path, run: Callable) -> None:
    assert run("embed", photos, "--model", f"{network}:make", "--out", "store").exit_code == 0
    result = run("score", "store")
    assert result.exit_code == 0, result.stderr
    assert "lead out" not in result.stderr


def test_results_of_confined_commands(photos: Path, network: Path, run: Callable) -> None:
    result = run("score", photos, "--model", f"{network}:make", "--confine", "--report")
    assert result.exit_code == 0, result.stderr
    assert "../photos" in Path("diva-out/scores.csv").read_text()
    assert Path("diva-out/report.html").is_file()
    result = run("report", "diva-out", "--confine", "--overwrite")
    assert result.exit_code == 0, result.stderr


def test_tables_in_memory(received: Path) -> None:
    table = pd.read_csv(table_of(received, "../secret/a.png"))
    with running(Run(confined=True)):
        assert not manifest_of(table, received).notes
