"""The progress of a training in one file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from divacli.training.resume import discard_checkpoint, load_checkpoint, save_checkpoint

ABOUT = {"data": "abc"}


def killed(*_: object) -> None:
    raise SystemError  # in place of a signal


def test_a_kill_while_it_is_written_leaves_one_file_that_the_next_run_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file has the size of the network."""
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, ABOUT, {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # it had no time to
        with pytest.raises(SystemError):
            save_checkpoint(file, ABOUT, {"step": 2})
    left = {place.name for place in tmp_path.iterdir()}
    assert left == {"checkpoint.pt", ".checkpoint.pt.tmp"}
    assert load_checkpoint(file, ABOUT) == {"step": 1}
    save_checkpoint(file, ABOUT, {"step": 4})
    assert [place.name for place in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert load_checkpoint(file, ABOUT) == {"step": 4}


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".checkpoint.pt.tmp").symlink_to("precious")
    save_checkpoint(tmp_path / "checkpoint.pt", ABOUT, {"step": 1})
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("there", [True, False])
def test_beginning_anew_removes_both(tmp_path: Path, there: bool) -> None:
    file = tmp_path / "checkpoint.pt"
    if there:
        save_checkpoint(file, ABOUT, {"step": 1})
    (tmp_path / ".checkpoint.pt.tmp").write_bytes(b"half")
    discard_checkpoint(file)
    assert not list(tmp_path.iterdir())
