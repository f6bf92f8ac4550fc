"""Files that appear together: after a kill at any step all of them or none, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from divacli.errors import DataError, OutputError
from divacli.files.existing import require_present
from divacli.files.path_or_url import COMMIT, STAGE, require_finished
from divacli.files.staging import Stage

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


def test_all_or_none_or_said_whatever_step_is_the_last(tmp_path):
    """A kill among the renames is said to readers and to writers, and the same command makes all anew."""
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
        if (folder / STAGE / COMMIT).exists() and len(list((folder / STAGE).iterdir())) > 1:
            outcomes.append("said")
            with pytest.raises(DataError, match="may hold files of two runs"):
                require_finished(folder)
            with pytest.raises(DataError, match="may hold files of two runs"):
                Stage(folder)
            shutil.rmtree(folder / STAGE)  # as the message says
        else:
            outcomes.append("all" if content(folder) == NEW else "none")
            require_finished(folder)
            Stage(folder)
            assert content(folder) in (NEW, before)
        assert not (folder / STAGE).exists()
    # In this order, and all three were seen.
    assert outcomes == sorted(outcomes, key=["none", "said", "all"].index)
    assert set(outcomes) == {"none", "said", "all"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_among_the_renames_is_answered_when_all_is_in_place(tmp_path, monkeypatch, number):
    def end(number: int, frame: object) -> None:
        raise Killed

    previous = signal.signal(number, end)
    stage = begin(tmp_path)
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "b.csv":
            signal.raise_signal(number)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    try:
        with pytest.raises(Killed):
            stage.commit(list(NEW), ["gone.csv"])
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, previous)
    assert content(tmp_path) == NEW
    assert not (tmp_path / STAGE).exists()


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


def plant(folder: Path, **note: object) -> None:
    """Put a note, and what it would bring into place, into somebody's folder."""
    (folder / STAGE).mkdir(parents=True)
    (folder / STAGE / "notes.txt").write_text("planted")
    note = {"names": ["notes.txt"], "stale": ["thesis.docx"], **note}
    (folder / STAGE / COMMIT).write_text(json.dumps(note))


@pytest.mark.parametrize("note", [{}, {"command": "score"}, {"names": ["../victim"]}, {"names": 3}])
def test_a_planted_note_moves_and_removes_nothing(tmp_path, note):
    for name in ("notes.txt", "thesis.docx"):
        (tmp_path / name).write_text("precious")
    before = content(tmp_path)
    plant(tmp_path, **note)
    for act in (require_finished, Stage):
        with pytest.raises(DataError, match="may hold files of two runs"):
            act(tmp_path)
    assert content(tmp_path) == before


def test_what_lies_beside_a_planted_note_is_read_as_ever(tmp_path):
    """Unless it is what a note would replace."""
    plant(tmp_path)
    for name in ("tiny.npz", "notes.txt"):
        (tmp_path / name).write_text("mine")
    require_present(str(tmp_path / "tiny.npz"))
    with pytest.raises(DataError, match="may hold files of two runs"):
        require_present(str(tmp_path / "notes.txt"))
    with pytest.raises(DataError, match="may hold files of two runs"):
        require_present(str(tmp_path))


def test_a_note_that_never_ends_is_not_read(tmp_path):
    (tmp_path / STAGE / "a.csv").mkdir(parents=True)
    os.mkfifo(tmp_path / STAGE / COMMIT)
    with pytest.raises(DataError, match="may hold files of two runs"):
        Stage(tmp_path)


def test_a_note_of_a_command_that_runs_is_waited_for(tmp_path, monkeypatch):
    plant(tmp_path)
    monkeypatch.setattr("time.sleep", lambda seconds: (tmp_path / STAGE / COMMIT).unlink(missing_ok=True))
    require_finished(tmp_path)


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / STAGE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        Stage(tmp_path / "out")
    assert (tmp_path / "elsewhere/precious").read_text() == "precious"


def test_where_files_wait_is_new_and_for_this_user_alone(tmp_path):
    """A folder that somebody else has put there could be changed by them while files wait in it."""
    (tmp_path / STAGE).mkdir(mode=0o777)
    (tmp_path / STAGE / "a.csv").write_text("theirs")
    stage = Stage(tmp_path)
    assert not (tmp_path / STAGE).exists()
    stage.place("a.csv").write_text("ours")
    assert (tmp_path / STAGE).stat().st_mode & 0o777 == 0o700
    (tmp_path / "again").mkdir()
    other = Stage(tmp_path / "again")
    (tmp_path / "again" / STAGE).mkdir()
    with pytest.raises(OutputError, match="File exists"):
        other.place("a.csv")


def test_what_was_not_decided_is_thrown_away(tmp_path):
    stage = begin(tmp_path)
    before = content(tmp_path)
    stage.abandon()
    assert content(tmp_path) == before
    assert not (tmp_path / STAGE).exists()
