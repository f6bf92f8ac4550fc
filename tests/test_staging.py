"""Files that appear together: after a kill at any step all of them or none, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from divacli.errors import OutputError
from divacli.files import COMMIT, STAGE
from divacli.staging import Stage, recover

OLD = {"a.csv": "old a", "b.csv": "old b", "gone.csv": "stale"}
NEW = {"a.csv": "new a", "b.csv": "new b", "c.csv": "new c", "images": "new folder"}


class Killed(BaseException):
    """In place of a signal: nothing in the package catches it."""


def content(folder: Path) -> dict[str, str]:
    return {
        file.name: (file / "x").read_text() if file.is_dir() else file.read_text()
        for file in folder.iterdir()
        if file.name != STAGE
    }


def begin(folder: Path) -> Stage:
    for name, text in OLD.items():
        (folder / name).write_text(text)
    stage = Stage(folder)
    for name, text in NEW.items():
        place = stage.place(name)
        if name == "images":
            place.mkdir()
            place /= "x"
        place.write_text(text)
    return stage


def steps_of(monkeypatch: pytest.MonkeyPatch, at: int | None = None) -> list[str]:
    """Count the calls that change the disk, and raise before one of them."""
    taken: list[str] = []

    def counted(name: str, real):  # type: ignore[no-untyped-def]
        def call(*arguments, **options):  # type: ignore[no-untyped-def]
            if len(taken) == at:
                raise Killed
            taken.append(name)
            return real(*arguments, **options)

        return call

    for owner, name in (
        *((Path, name) for name in ("replace", "unlink", "open", "mkdir")),
        (os, "fsync"),
        (shutil, "rmtree"),
    ):
        monkeypatch.setattr(owner, name, counted(name, getattr(owner, name)))
    return taken


def killed_at(step: int, work: Callable[[], None]) -> None:
    """Do some work up to a step."""
    with pytest.MonkeyPatch.context() as patch:
        steps_of(patch, step)
        with pytest.raises(Killed):
            work()


def test_all_or_none_whatever_step_is_the_last(tmp_path):
    (tmp_path / "whole").mkdir()
    stage = begin(tmp_path / "whole")
    before = content(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        taken = steps_of(patch)
        stage.commit(list(NEW), ["gone.csv"])
    assert content(tmp_path / "whole") == NEW
    assert len(taken) > 10
    outcomes = []
    for step in range(len(taken)):
        folder = tmp_path / str(step)
        folder.mkdir()
        stage = begin(folder)
        killed_at(step, partial(stage.commit, list(NEW), ["gone.csv"]))
        decided = (folder / STAGE / COMMIT).exists()
        recover(folder)
        assert content(folder) in ([NEW] if decided else [NEW, before])
        assert not (folder / STAGE).exists()
        outcomes.append(content(folder) == NEW)
    # First none, then all: and both were seen.
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}


@pytest.mark.parametrize("name", ["b.csv", "gone.csv"])
def test_no_folder_is_removed(tmp_path, name):
    stage = begin(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    (tmp_path / name / "x").write_text("precious")
    before = content(tmp_path)
    with pytest.raises(OutputError, match=f"holds the folder {name}, which would have to go"):
        stage.commit(list(NEW), ["gone.csv"])
    stage.abandon()
    assert content(tmp_path) == before


def test_a_second_kill_while_the_first_is_mended(tmp_path):
    stage = begin(tmp_path)
    killed_at(7, partial(stage.commit, list(NEW), ["gone.csv"]))
    assert (tmp_path / STAGE / COMMIT).exists()
    for step in range(3):
        killed_at(step, partial(recover, tmp_path))
    recover(tmp_path)
    assert content(tmp_path) == NEW


@pytest.mark.parametrize("name", ["../victim", "/etc/victim", "..", "", "a/b", 3, None])
@pytest.mark.parametrize("key", ["names", "stale"])
def test_a_forged_note_reaches_nothing_outside(tmp_path, name, key):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "out"
    (folder / STAGE).mkdir(parents=True)
    (folder / STAGE / "commit.json").write_text(json.dumps({"names": [], "stale": [], key: [name]}))
    with pytest.raises(OutputError, match="was not written by diva"):
        recover(folder)
    assert victim.read_text() == "precious"


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / STAGE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        recover(tmp_path / "out")
    assert (tmp_path / "elsewhere/precious").read_text() == "precious"


def test_what_was_not_decided_is_thrown_away(tmp_path):
    stage = begin(tmp_path)
    before = content(tmp_path)
    stage.abandon()
    assert content(tmp_path) == before
    assert not (tmp_path / STAGE).exists()
