"""What is compared of two runs of all commands, and what is not."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks.same_bytes import (
    COMMANDS,
    Command,
    arguments_of,
    compare,
    differences,
    digest_of,
    files_in,
    main,
    make_images,
    said_without_times,
    without_folder,
)
from divacli.cli.app import app


def noted(status: int = 0, arguments: str = "score x", **files: str) -> dict[str, Any]:
    return {"arguments": arguments.split(), "status": status, "files": files, "stdout": "0", "stderr": "0"}


def same(tmp_path: Path, name: str, first: str, second: str) -> bool:
    """Whether a file with one content or the other, in two folders, counts as the same."""
    digests = []
    for folder, text in ((tmp_path / "one", first), (tmp_path / "two", second)):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text.replace("FOLDER", str(folder)))
        digests.append(digest_of(folder / name, folder))
    return digests[0] == digests[1]


def test_every_command_is_run_but_the_one_that_serves_pages() -> None:
    run = {command.arguments.split()[0] for command in COMMANDS}
    names = {one.name or one.callback.__name__ for one in app.registered_commands if one.callback}
    assert names - run == {"review"}


def test_names_are_unique_and_commands_stand_after_those_that_they_need() -> None:
    seen: set[str] = set()
    for command in COMMANDS:
        assert command.name not in seen
        assert set(command.after) <= seen
        assert command.stdin is None or command.stdin in seen or "/" in command.stdin
        seen.add(command.name)
        used = " ".join(arguments_of(command)).split("out/")[1:]
        others = {one.split("/")[0].split()[0] for one in used} - {command.name}
        assert others <= set(command.after)


def test_a_folder_is_named_where_the_arguments_name_none() -> None:
    assert arguments_of(Command("a", "score x")) == ["score", "x", "--out", "out/a"]
    assert arguments_of(Command("a", "score x --out -")) == ["score", "x", "--out", "-"]
    assert arguments_of(Command("a", "report x --out {out}/p.html"))[-1] == "out/a/p.html"


def test_no_difference() -> None:
    assert differences({"a": noted(x="1")}, {"a": noted(x="1")}) == []


def test_differences_by_command_and_file() -> None:
    before = {"a": noted(x="1", y="1"), "b": noted(), "c": noted(), "e": noted()}
    after = {"a": noted(x="2", z="1"), "b": noted(status=1), "d": noted(), "e": noted(arguments="prune x")}
    after["e"]["stderr"] = "1"
    assert differences(before, after) == [
        "a: x differs",
        "a: y is missing in the second file",
        "a: z is new in the second file",
        "b: status 0, then 1",
        "c: only in the first file",
        "d: only in the second file",
        "e: other arguments",
        "e: stderr differs",
    ]


def test_the_exit_status_says_whether_anything_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps({"a": noted(x="1")}))
    second.write_text(json.dumps({"a": noted(x="2")}))
    assert compare(first, first) == 0
    assert capsys.readouterr().out == "no difference\n"
    monkeypatch.setattr(sys, "argv", ["same_bytes", "compare", str(first), str(second)])
    assert main() == 1
    assert capsys.readouterr().out == "a: x differs\n"


def test_times_versions_and_places_in_json_do_not_count(tmp_path: Path) -> None:
    text = '{"n": 1, "seconds": {"embed": 1.5}, "inner": [{"versions": "1", "data": "FOLDER/x"}]}'
    assert same(tmp_path, "summary.json", text, text.replace("1.5", "2.5").replace('"1"', '"2"'))
    assert not same(tmp_path, "summary.json", text, text.replace('"n": 1', '"n": 2'))
    assert not same(tmp_path, "summary.json", '{"a": 1, "b": 2}', '{"b": 2, "a": 1}')


def test_digests_of_other_files_count_in_none_but_the_record(tmp_path: Path) -> None:
    text = '{"outputs": {"a.csv": {"bytes": 1, "sha256": "0"}}}'
    assert same(tmp_path, "run.json", text, text.replace("1", "2"))
    assert not same(tmp_path, "other.json", text, text.replace("1", "2"))
    assert not same(tmp_path, "run.json", text, text.replace("a.csv", "b.csv"))


def test_a_column_of_times_does_not_count(tmp_path: Path) -> None:
    text = 'name,seconds,loss\n"a,b",1.5,0.25\n'
    assert same(tmp_path, "history.csv", text, text.replace("1.5", "3"))
    assert not same(tmp_path, "history.csv", text, text.replace("0.25", "0.250"))


def test_where_a_page_lies_does_not_count(tmp_path: Path) -> None:
    text = f'<script>{{"key":"{64 * "0"}","n":1}}</script> in FOLDER, 1.5 s'
    assert same(tmp_path, "report.html", text, text.replace(64 * "0", 64 * "f").replace("1.5", "2.5"))
    assert not same(tmp_path, "report.html", text, text.replace('"n":1', '"n":2'))


def test_every_byte_of_other_tables_counts(tmp_path: Path) -> None:
    assert same(tmp_path, "scores.csv", "path,x\nFOLDER/a,1\n", "path,x\nFOLDER/a,1\n")
    assert not same(tmp_path, "scores.csv", "path,x\na,1\n", "path,x\na,1\r\n")
    assert not same(tmp_path, "scores.jsonl", '{"x": 1}\n', '{"x": 1.0}\n')


def test_parquet_is_compared_by_content(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["a", "b"], "x": [0.5, 0.25]})
    files = [tmp_path / f"{number}.parquet" for number in range(3)]
    table.to_parquet(files[0], compression="snappy")
    table.to_parquet(files[1], compression=None)
    table.assign(x=[0.5, 0.26]).to_parquet(files[2])
    digests = [digest_of(file, tmp_path) for file in files]
    assert files[0].read_bytes() != files[1].read_bytes()
    assert digests[0] == digests[1] != digests[2]


def test_checkpoints_are_compared_by_content(tmp_path: Path) -> None:
    digests = []
    for number, (seconds, weight) in enumerate([(1.0, 0.0), (2.0, 0.0), (1.0, 1.0)]):
        file = tmp_path / f"{number}" / "checkpoint.pt"
        file.parent.mkdir()
        torch.save({"history": [{"seconds": seconds}], "weights": torch.full((3,), weight)}, file)
        digests.append(digest_of(file, tmp_path))
    assert digests[0] == digests[1] != digests[2]


def test_what_is_said_is_compared_without_seconds_and_places() -> None:
    assert said_without_times("3 images (embed 1.5 s, 20 seconds)") == "3 images (embed # s, # seconds)"
    assert said_without_times("3 samples, 5 steps") == "3 samples, 5 steps"
    assert without_folder("in /tmp/x/main", Path("/tmp/x")) == "in <folder>/main"


def test_locks_are_no_output(tmp_path: Path) -> None:
    for name in ("b.csv", ".diva.lock", "a/x.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(files_in(tmp_path)) == ["a/x.csv", "b.csv"]


def test_data_are_the_same_each_time(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        made = tmp_path / name / "made"
        made.mkdir(parents=True)
        make_images(made)
        digests.append({path: file.read_bytes() for path, file in files_in(made).items()})
    assert digests[0] == digests[1]
    assert "tiny/red/00.png" in digests[0]
