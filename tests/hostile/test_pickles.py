"""A pickle that creates a file when it is read: it does not, in every place where a pickle could be."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.made import Forks

PICKLED = ["torch.save", "legacy torch.save", "pickle"]


def save(content: Any, file: Path, how: str) -> None:
    if how == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "torch.save")


def test_the_exploit_works(exploit: Any, created: Path) -> None:
    pickle.loads(pickle.dumps(exploit))
    assert created.exists()


@pytest.mark.parametrize("suffix", ["pt", "pth", "th"])
@pytest.mark.parametrize("how", PICKLED)
def test_a_checkpoint(
    how: str, suffix: str, exploit: Any, created: Path, photos: Path, network: Path, refused: Callable
) -> None:
    file = photos.parent / f"w.{suffix}"
    save({"state_dict": {"fc.weight": torch.ones(3, 10)}, "optimizer": exploit}, file, how)
    said = refused("score", photos, "--model", f"{network}:make", "--checkpoint", file)
    assert "it looks like an unknown network whose first tensors are fc.weight" in said, "it was read"
    assert not created.exists()


class Call:
    """Is pickled as a call, with the state that is set afterwards if any."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def array_over_bytes() -> Call:
    """A list of an array of objects, whose pointers are bytes of the file."""
    objects = Call(np.dtype, ("O", False, True))
    disguised = Call(np.dtype, ("i8", False, True), (3, "<", (objects, (1,)), None, None, -1, -1, 0))
    return Call(list, (Call(np.ndarray, ((), disguised, b"A" * 8)),))


def checkpoints() -> dict[str, Any]:
    """Such an array in every place of a checkpoint, by the name of the place."""
    attack: Any = array_over_bytes()
    weights = {"fc.weight": torch.ones(3, 10)}
    rebuilt = (np.ndarray, np.ndarray, ((), array_over_bytes(), b"A" * 8), {"x": 1})
    wrapped = (np.ndarray, torch.float32, (1,), (1,), 0, torch.strided, torch.device("cpu"), False)
    return {
        "beside": {"state_dict": weights, "x": attack},
        "weight": {**weights, "x": attack},
        "all": attack,
        "key": {**weights, attack: torch.ones(1)},
        "rebuilt": {**weights, "x": Call(torch._tensor._rebuild_from_type_v2, rebuilt)},
        "wrapped": {**weights, "x": Call(torch._utils._rebuild_wrapper_subclass, wrapped)},
    }


@pytest.mark.parametrize("where", ["beside", "weight", "all", "key", "rebuilt", "wrapped"])
@pytest.mark.parametrize("how", PICKLED[:2])
def test_an_array_whose_pointers_are_bytes_of_the_file(
    how: str, where: str, photos: Path, network: Path, forks: Forks
) -> None:
    """In a process of its own, which a bad pointer would end."""
    folder = photos.parent
    save(checkpoints()[where], folder / "w.pt", how)
    command = ("score", photos, "--model", f"{network}:make", "--checkpoint", "w.pt")
    forks.start(*command, folder=folder, stderr=folder / "messages")
    status = forks.wait()
    said = (folder / "messages").read_text()
    assert status == 1, said
    assert said.count("error:") == 1, said
    assert "Traceback" not in said
    assert "may be a mistake" not in said


@pytest.mark.parametrize("member", ["embedding", "label", "path", "group", "class_name"])
@pytest.mark.parametrize("compressed", [False, True])
def test_an_array_of_objects(
    member: str, compressed: bool, exploit: Any, created: Path, embeddings: Callable, refused: Callable
) -> None:
    objects = np.array([exploit] * 30, dtype=object)
    file = embeddings(compressed=compressed, **{member: objects})
    said = refused("score", file)
    assert f"{member}" in said
    assert not created.exists()


def test_an_array_of_objects_that_nobody_asked_for(
    exploit: Any, created: Path, embeddings: Callable, run: Callable
) -> None:
    result = run("score", embeddings(more=np.array([exploit] * 30, dtype=object)))
    assert result.exit_code == 0, result.stderr
    assert "arrays not used: more" in result.stderr
    assert not created.exists()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pkl"])
def test_a_pickle_called_data(name: str, exploit: Any, created: Path, refused: Callable) -> None:
    Path(name).write_bytes(pickle.dumps(exploit))
    refused("score", name)
    assert not created.exists()


@pytest.mark.parametrize("how", PICKLED)
@pytest.mark.parametrize("restart", [(), ("--restart",)])
def test_the_progress_of_a_training(
    how: str, restart: tuple, exploit: Any, created: Path, photos: Path, network: Path, run: Callable
) -> None:
    out = photos.parent / "trained"
    out.mkdir()
    save({"format": 1, "about": {}, "state": exploit}, out / "checkpoint.pt", how)
    train = ("train", photos, "--model", f"{network}:make", "--out", out, "--epochs", 1, *restart)
    result = run(*train)
    assert "Traceback" not in result.stderr
    assert "may be a mistake" not in result.stderr
    assert not created.exists()
    if not restart:
        assert result.exit_code == 1
        assert "checkpoint.pt is another file, which training would replace" in result.stderr


def test_every_file_of_the_cache(
    exploit: Any, created: Path, photos: Path, network: Path, run: Callable, own_cache: Path
) -> None:
    score = ("score", photos, "--model", f"{network}:make", "--overwrite")
    assert run(*score).exit_code == 0
    files = [file for file in own_cache.rglob("*") if file.is_file()]
    assert len(files) >= 4
    for file in files:
        content = file.read_bytes()
        file.write_bytes(pickle.dumps(exploit))
        for command in (score, ("prune", "diva-out/scores.csv", "--threshold", 0, "--out", file.stem)):
            result = run(*command)
            assert result.exit_code in (0, 1), result.stderr
            assert "may be a mistake in diva" not in result.stderr, (file, result.stderr)
            assert not created.exists(), file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
