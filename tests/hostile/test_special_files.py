"""Loops of links, pipes, sockets and devices: nothing is waited for, nothing is read without an end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SPECIAL = ["pipe", "link to /dev/zero", "socket", "link to a pipe"]


def make(kind: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "link to a pipe":
        os.mkfifo(file.with_suffix(".fifo"))
        file.symlink_to(file.with_suffix(".fifo"))
    elif kind == "socket":
        monkeypatch.chdir(file.parent)  # the names of sockets are short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(file.name)
    else:
        file.symlink_to("/dev/zero")


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Whatever waits is interrupted after half a minute, and fails."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError("it waits for something that never comes")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", SPECIAL)
def test_in_a_folder(
    kind: str, photos: Path, network: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(kind, photos / "a" / "x.jpg", monkeypatch)
    monkeypatch.chdir(photos.parent)
    said = refused("score", photos, "--model", f"{network}:make")
    assert "photos: 1 of 13 are no regular file but a pipe, a socket or a device:" in said
    assert "a/x.jpg" in said


@pytest.mark.parametrize("kind", SPECIAL)
def test_in_a_table(
    kind: str, photos: Path, network: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(kind, photos / "x.jpg", monkeypatch)
    monkeypatch.chdir(photos.parent)
    rows = ["path,label", "photos/a/000.png,a", "photos/b/001.png,b", "photos/x.jpg,a"]
    Path("t.csv").write_text("\n".join(rows))
    assert "t.csv: 1 of 3 are no regular file" in refused("score", "t.csv", "--model", f"{network}:make")


def test_in_the_tables_of_a_page(photos: Path, network: Path, run: Callable) -> None:
    assert run("score", photos, "--model", f"{network}:make").exit_code == 0
    for image in (photos / "a").iterdir():
        image.unlink()
        os.mkfifo(image)
    done = run("report", "diva-out", "--overwrite")
    assert done.exit_code in (0, 1), done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipe_that_takes_the_place_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and the reading; with a writer that never comes."""
    from divacli.files import regular
    from divacli.files.path_or_url import read_bytes

    os.mkfifo(tmp_path / "x.jpg")
    image = Path(__file__).stat()
    monkeypatch.setattr(regular.os, "stat", lambda path: image)
    with pytest.raises(OSError, match="no regular file but a pipe"):
        read_bytes(str(tmp_path / "x.jpg"))


@pytest.mark.parametrize("target", [".", "..", "../..", "a", "loop"])
def test_links_that_go_round(target: str, photos: Path, network: Path, run: Callable) -> None:
    (photos / "a" / "loop").symlink_to(target)
    (photos / "loop.jpg").symlink_to("loop.jpg")
    done = run("score", photos, "--model", f"{network}:make")
    if target == "../..":  # net.py and all else beside the folder
        assert done.exit_code in (0, 1)
    else:  # what is there is there once, or twice where a folder is its own parent's child
        assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet", "x.npz", "x.tar", "metadata.csv"])
def test_a_table_that_never_ends(name: str, photos: Path, network: Path, run: Callable) -> None:
    place = photos / name if name == "metadata.csv" else photos.parent / name
    place.symlink_to("/dev/zero")
    data = photos if name == "metadata.csv" else place
    done = run("score", data, "--model", f"{network}:make")
    if name == "metadata.csv":  # not looked at
        assert done.exit_code == 0, done.stderr
    else:
        assert done.exit_code == 1
        assert done.stderr.count("error:") == 1


def test_a_folder_called_as_an_image(photos: Path, network: Path, run: Callable) -> None:
    (photos / "a" / "folder.jpg").mkdir()
    shutil.copy(photos / "a" / "000.png", photos / "a" / "folder.jpg" / "00.png")
    assert run("score", photos, "--model", f"{network}:make").exit_code == 0


@pytest.fixture
def store(photos: Path, network: Path, run: Callable) -> Path:
    """A feature store."""
    assert run("embed", photos, "--model", f"{network}:make", "--out", "store").exit_code == 0
    return Path("store").resolve()


STORE = ["store.json", "head.safetensors", "samples.parquet", "shard"]


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("part", STORE)
def test_in_a_store(
    kind: str, part: str, store: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    [file] = store.glob(f"{part}*")
    file.unlink()
    make(kind, file, monkeypatch)
    monkeypatch.chdir(store.parent)
    said = refused("score", "store", *(["--around-head"] if part.startswith("head") else []))
    assert "no regular file but a pipe, a socket or a device" in said


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("named", [True, False])
def test_for_a_checkpoint(
    kind: str, named: bool, photos: Path, network: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(kind, photos.parent / "w.pt", monkeypatch)
    monkeypatch.chdir(photos.parent)
    model = ["--model", f"{network}:make"] if named else []
    assert "w.pt" in refused("score", photos, *model, "--checkpoint", "w.pt")


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "x.parquet", "x.npz", "x.tar", "x-{0..1}.tar"])
def test_for_data(
    kind: str, name: str, tmp_path: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(kind, tmp_path / name.replace("{0..1}", "0"), monkeypatch)
    (tmp_path / "x-1.tar").touch()
    monkeypatch.chdir(tmp_path)
    assert "no regular file but a pipe, a socket or a device" in refused("score", name)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["scores.csv", "summary.json", "run.json", "decisions.csv"])
def test_in_results(
    kind: str, name: str, photos: Path, network: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("score", photos, "--model", f"{network}:make").exit_code == 0
    file = Path("diva-out", name)
    file.unlink(missing_ok=True)
    make(kind, file.resolve(), monkeypatch)
    monkeypatch.chdir(photos.parent)
    for command in (("report", "diva-out"), ("apply", "photos", "diva-out/decisions.csv")):
        result = run(*command)
        assert result.exit_code in (0, 1), result.stderr
        assert "Traceback" not in result.stderr
        assert "may be a mistake" not in result.stderr


def test_a_tar_file_in_a_path(photos: Path, refused: Callable, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar")
    (tmp_path / "t.csv").write_text("path,label\nx.tar/1.png,a\nx.tar/2.png,b\n")
    assert "2 of 2 files are not there" in refused("score", tmp_path / "t.csv", "--model", "x.py:make")


def test_more_than_the_limit(tmp_path: Path, refused: Callable, embeddings: Callable) -> None:
    """A file of holes takes no room, and would take all memory."""
    for name in ("store.json", "x.csv", "x.parquet", "x.jsonl"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)
    for data in (tmp_path, tmp_path / "x.csv", tmp_path / "x.parquet", tmp_path / "x.jsonl"):
        assert "1,099,511,627,776 bytes, the limit is" in refused("score", data)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin", "vocab.json"])
def test_in_the_folder_of_a_clip_model(
    name: str, save_clip: Callable, photos: Path, tmp_path: Path, refused: Callable
) -> None:
    model = save_clip(tmp_path / "clip")
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    said = refused("score", photos, "--model", f"clip:{model}")
    assert f"{name}: no regular file but a pipe, a socket or a device" in said


@pytest.mark.skipif(not Path("/proc/self/pagemap").is_file(), reason="no /proc")
@pytest.mark.parametrize("made_up", ["/proc/self/pagemap", "/proc/self/environ"])
def test_files_that_the_system_makes_up(made_up: str, photos: Path, network: Path, run: Callable) -> None:
    """They state no length: one of these goes on for terabytes."""
    model = ("--model", f"{network}:make")
    names = ["x.parquet", "x.csv", "x.npz", "x.tar", "store.json", "decisions.json", "w.pt"]
    for name in names:
        Path(name).symlink_to(made_up)
    (photos / "a/z.png").symlink_to(made_up)
    commands = [
        *(("score", name, *model) for name in names[:4]),
        ("score", ".", *model),
        ("apply", photos, "decisions.json"),
        ("apply", photos, "--materialize", "copy"),
        ("score", photos, *model, "--checkpoint", "w.pt"),
    ]
    for command in commands:
        result = run(*command, "--out", "refused")
        assert result.exit_code == 1, command
        assert "a file that states no length and has content" in result.stderr, (command, result.stderr)
    result = run("score", photos, *model)
    assert result.exit_code == 0
    assert "1 images cannot be used and are left out: 1 .png (" in result.stderr
    assert "a file that states no length and has content" in result.stderr


def test_a_pipe_in_the_place_of_results_is_not_passed_over(
    photos: Path, network: Path, run: Callable, refused: Callable
) -> None:
    assert run("score", photos, "--model", f"{network}:make", "--out", "scored").exit_code == 0
    for name, command in (
        ("duplicates.csv", ("export", "scored/scores.csv", "--to", "cleanlab")),
        ("summary.json", ("report", "scored")),
        ("harm.csv", ("plot", "scored")),
    ):
        Path("scored", name).unlink(missing_ok=True)
        os.mkfifo(Path("scored", name))
        assert "no regular file but a pipe, a socket or a device" in refused(*command)
        Path("scored", name).unlink()
