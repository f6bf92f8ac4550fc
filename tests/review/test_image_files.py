"""Images that come into a folder: on disk, whole, and those that were looked at."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divacli.errors import DataError, OutputError
from divacli.files.path_or_url import COMMIT
from divacli.manifest import Manifest, read_manifest
from divacli.results.write import ResultFiles
from divacli.review import image_files
from divacli.review.materialize import materialize


@contextlib.contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images of two classes, of different pixels."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for row in range(6):
        target = folder / "ab"[row % 2] / f"{row}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (3, 3, 3), dtype=np.uint8)).save(target)
    return folder


@pytest.fixture
def manifest(photos: Path) -> Manifest:
    return read_manifest(str(photos))


def inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


@pytest.mark.parametrize("way", ["copy", "hardlink", "symlink"])
def test_everything_is_on_disk_before_the_note_that_decides(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    synced: set[tuple[int, int]] = set()
    fsync, replace = os.fsync, Path.replace
    decided: list[set[tuple[int, int]]] = []

    def recorded(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced.add((found.st_dev, found.st_ino))
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        if Path(target).name == COMMIT:
            decided.append(set(synced))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(Path, "replace", replaced)
    with ResultFiles(tmp_path / "out", "csv", command="apply") as target:
        materialize(manifest, tmp_path / "out/images", way, "csv", silent, target.staged_path("images"))  # type: ignore[arg-type]
        target.finish()
    [before] = decided
    made = [tmp_path / "out/images", *(tmp_path / "out/images").rglob("*")]
    folders = [place for place in made if place.is_dir()]
    files = [place for place in made if place.is_file() and (way == "copy" or place.name == "metadata.csv")]
    assert len(folders) == 3
    assert len(files) == (7 if way == "copy" else 1)
    assert {inode(place) for place in (*folders, *files)} <= before


def swapped(kind: str, file: Path) -> None:
    """Put something else into the place of a file."""
    file.unlink()
    if kind == "a link":
        (file.parent.parent.parent / "secret").write_text("secret")
        file.symlink_to("../../secret")
    elif kind == "an empty file":
        (file.parent / "0").touch()  # so that the inode is another one
        file.touch()
    elif kind == "a pipe":
        os.mkfifo(file)
    elif kind == "a device":
        file.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["nothing", "a link", "an empty file", "a pipe", "a device"])
def test_a_source_that_is_swapped_is_not_copied(
    manifest: Manifest, photos: Path, tmp_path: Path, kind: str
) -> None:
    @contextlib.contextmanager
    def swapping(what: str, total: int) -> Iterator[Callable[[int], None]]:
        swapped(kind, photos / "b/3.png")  # all have been looked at, and none is copied yet
        yield lambda done: None

    with pytest.raises(DataError, match=r"photos/b/3.png (changed, or was replaced|cannot be read: )"):
        materialize(manifest, tmp_path / "out/images", "copy", "csv", swapping)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("change", [lambda content: content + b"more", lambda content: content[:-1]])
def test_a_source_that_changes_while_it_is_copied(
    manifest: Manifest,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[bytes], bytes],
) -> None:
    part = image_files._part

    def changing(source: object, file: str) -> bytes:
        if file.endswith("3.png"):
            Path(file).write_bytes(change(Path(file).read_bytes()))
        return part(source, file)  # type: ignore[arg-type]

    monkeypatch.setattr(image_files, "_part", changing)
    with pytest.raises(DataError, match=r"photos/b/3.png changed, or was replaced,"):
        materialize(manifest, tmp_path / "out/images", "copy", "csv", silent)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("back", [False, True])
def test_a_source_that_is_swapped_gets_no_other_name(
    manifest: Manifest, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """Also not where it is back in its place afterwards."""
    (tmp_path / "secret").write_text("secret")
    link = os.link

    def swapping(source: str, place: Path) -> None:
        if source.endswith("3.png"):
            (photos / "b/3.png").rename(tmp_path / "kept")
            link(tmp_path / "secret", photos / "b/3.png")
            link(source, place)
            if back:
                (photos / "b/3.png").unlink()
                (tmp_path / "kept").rename(photos / "b/3.png")
        else:
            link(source, place)

    monkeypatch.setattr(os, "link", swapping)
    with pytest.raises(DataError, match=r"photos/b/3.png changed, or was replaced,"):
        materialize(manifest, tmp_path / "out/images", "hardlink", "csv", silent)
    assert not list((tmp_path / "out").iterdir())


def test_an_image_that_cannot_be_read_is_named(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = image_files.open_regular

    def refusing(file: str, most: int) -> object:
        if file.endswith("3.png"):
            raise PermissionError(13, "Permission denied", file)
        return opened(file, most)

    monkeypatch.setattr(image_files, "open_regular", refusing)
    with pytest.raises(DataError, match=r"photos/b/3.png cannot be read: Permission denied") as caught:
        materialize(manifest, tmp_path / "out/images", "copy", "csv", silent)
    assert "decide to drop it" in str(caught.value)


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_what_is_no_file_is_called_so(photos: Path, tmp_path: Path, kind: str) -> None:
    swapped(kind, photos / "b/3.png")
    for way in ("copy", "symlink", "hardlink"):
        with pytest.raises(DataError, match=r"1 of 6 are no regular file but a pipe"):
            materialize(read_manifest(str(photos)), tmp_path / "out/images", way, "csv", silent)  # type: ignore[arg-type]


def test_a_file_that_states_no_length(photos: Path, tmp_path: Path) -> None:
    (photos / "b/9.png").symlink_to("/proc/self/environ")
    with pytest.raises(DataError, match=r"b/9.png cannot be read: a file that states no length"):
        materialize(read_manifest(str(photos)), tmp_path / "out/images", "copy", "csv", silent)


@pytest.mark.parametrize("way", ["copy", "hardlink"])
def test_images_from_elsewhere_are_said(photos: Path, tmp_path: Path, way: str) -> None:
    (tmp_path / "elsewhere.png").write_bytes((photos / "a/0.png").read_bytes())
    (photos / "b/9.png").symlink_to("../../elsewhere.png")
    manifest = read_manifest(str(photos))
    _, [said] = materialize(manifest, tmp_path / "out/images", way, "csv", silent)  # type: ignore[arg-type]
    assert said.startswith(f"1 of 7 images lie outside of {photos} and are ")
    assert "the first: b/9.png (--confine refuses that)" in said
    _, said_of_links = materialize(manifest, tmp_path / "links/images", "symlink", "csv", silent)
    assert not said_of_links


def test_classes_that_are_one_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that does not tell cases apart."""
    (photos / "b").rename(photos / "A")
    made: set[str] = set()
    mkdir = Path.mkdir

    def caseless(self: Path, *arguments: object, **options: object) -> None:
        if self.name in ("a", "A") and made:
            raise FileExistsError(17, "File exists")
        made.update({self.name} & {"a", "A"})
        mkdir(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", caseless)
    with pytest.raises(OutputError, match=r"images: A, a would be one folder there"):
        materialize(read_manifest(str(photos)), tmp_path / "out/images", "copy", "csv", silent)
