"""The lock on a folder: held by one, let go of by death, waited for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from divacli.errors import OutputError
from divacli.files import lock
from divacli.files.lock import LOCK_FILE, locked
from divacli.run_record import Run, running

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, held: object) -> None:
    with locked(folder, wait=False):
        held.set()  # type: ignore[attr-defined]
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a folder."""
    held = FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path, held))
    process.start()
    assert held.wait(20)
    yield process
    process.kill()
    process.join()


def test_who_holds_it_is_named(tmp_path, holder):
    with (
        pytest.raises(OutputError, match=f"is in use by process {holder.pid} on "),
        locked(tmp_path, wait=False),
    ):
        pass


def test_a_killed_holder_is_no_obstacle(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / LOCK_FILE).exists()
    with locked(tmp_path, wait=False):
        pass
    assert not (tmp_path / LOCK_FILE).exists()


def count(folder: Path, rounds: int) -> None:
    for _ in range(rounds):
        with locked(folder, wait=True):
            file = folder / "count"
            number = int(file.read_text())
            time.sleep(0.0005)
            file.write_text(str(number + 1))


def test_who_waits_gets_it_in_turn(tmp_path):
    """No increment is lost, although each holder removes the file that the others wait on."""
    (tmp_path / "count").write_text("0")
    processes = [FORK.Process(target=count, args=(tmp_path, 50)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "count").read_text() == "200"
    assert not (tmp_path / LOCK_FILE).exists()


def test_whoever_waits_long_is_told_for_whom(tmp_path, holder, monkeypatch):
    told = threading.Event()
    said = []

    def tell(message: str) -> None:
        said.append(message)
        told.set()

    def release() -> None:
        assert told.wait(20)
        os.kill(holder.pid, signal.SIGKILL)

    monkeypatch.setattr(lock, "_SILENT_SECONDS", 0.01)
    other = threading.Thread(target=release)
    other.start()
    with running(Run(tell=tell)), locked(tmp_path, wait=True):
        pass
    other.join()
    [message] = said
    assert message.startswith(f"waiting: {tmp_path} is in use by process {holder.pid} on ")


def test_who_waits_shortly_is_told_nothing(tmp_path):
    said = []
    with running(Run(tell=said.append)), locked(tmp_path, wait=True):
        pass
    assert not said


def test_it_is_let_go_of_by_an_error(tmp_path):
    with pytest.raises(ValueError, match="mine"), locked(tmp_path, wait=False):
        raise ValueError("mine")
    with locked(tmp_path, wait=False):
        pass


def test_a_folder_that_cannot_be_written_to(tmp_path):
    with pytest.raises(OutputError, match="cannot be made"), locked(tmp_path / "absent", wait=False):
        pass


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_in_its_place_is_not_followed(tmp_path, dangling):
    victim = tmp_path / "precious"
    if not dangling:
        victim.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK_FILE).symlink_to(victim)
    with pytest.raises(OutputError, match="is a link"), locked(tmp_path / "out", wait=False):
        pass
    assert victim.exists() is not dangling
    assert dangling or victim.read_text() == "precious"


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / LOCK_FILE)
    with pytest.raises(OutputError, match="is no regular file"), locked(tmp_path, wait=False):
        pass


def test_another_name_of_a_file_is_not_written_to(tmp_path):
    """An archive that is unpacked here may make one of any file that is here."""
    (tmp_path / "thesis.docx").write_text("precious")
    os.link(tmp_path / "thesis.docx", tmp_path / LOCK_FILE)
    with pytest.raises(OutputError, match="is another name of a file"), locked(tmp_path, wait=False):
        pass
    assert (tmp_path / "thesis.docx").read_text() == "precious"
