"""Folders made of the images of a table: names, links, and readers of such folders."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import tarfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from divacli.errors import DataError, OutputError
from divacli.manifest import manifest_of, read_manifest
from divacli.review import image_files
from divacli.review.materialize import laid_out, materialize, safe_name

HOSTILE = [
    "plain",
    "two words",
    "quo\"te's",
    "<script>alert(1)</script>",
    "new\nline",
    "tab\there",
    "مرحبا",
    "\u202eright to left",
    "😀",
    "=1+1",
    "+1",
    "-rf",
    "@x",
    "a,b;c",
    "100%",
    "%2E%2E",
    "..",
    ".",
    "...",
    ".hidden",
    "__init__",
    "a/b",
    "../../etc",
    "/absolute",
    "C:\\x",
    "a::b",
    "[x]*?",
    "long " * 100,
    "长" * 200,
    "null\0byte",
    "metadata.csv",
    "Metadata.JSONL",
    "metadata.parquet",
]
"""Labels that try to leave the folder, to hide in it, or to be something else."""


@contextlib.contextmanager
def silent(what, total):
    yield lambda done: None


def make(manifest, folder, way="copy", format="csv"):
    return materialize(manifest, folder, way, format, silent)


@pytest.fixture
def photos(tmp_path):
    """Eight images of two classes, of different pixels."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for row in range(8):
        target = folder / "ab"[row % 2] / f"{row}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (3, 3, 3), dtype=np.uint8)).save(target)
    return folder


def state(folder: Path) -> dict[str, tuple]:
    """Content, type and time of everything in a folder."""
    return {
        str(file.relative_to(folder)): (file.is_symlink(), file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_a_safe_name_is_one_name(text, tmp_path):
    name = safe_name(text)
    assert name not in ("", ".", "..")
    assert not set(name) & set("/\\\0\n")
    assert len(name.encode()) <= 240
    assert not name.startswith((".", "__"))
    (tmp_path / name).mkdir()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    if len(text.encode()) <= 200:
        assert unquote(name) == text


def test_safe_names_of_different_texts_differ():
    generator = random.Random(0)
    texts = {"".join(generator.choices("./%_~ab\n2EF", k=generator.randint(0, 4))) for _ in range(3000)}
    texts |= {"x" * 300 + end for end in "abc"} | {"x" * 239 + "/" + end for end in "abc"} | set(HOSTILE)
    assert len({safe_name(text) for text in texts}) == len(texts)
    assert safe_name("") == "%"
    assert safe_name("cat photo, 1.jpg") == "cat photo, 1.jpg"
    assert safe_name("é" * 200 + ".jpg").endswith(".jpg")


def test_files_of_one_name_are_numbered():
    files = ["x/1.png", "a/1.png", "b/1.png", "c/1-2.png", "d/1.PNG", "e/1.png"]
    labels = ["cat"] * 5 + ["dog"]
    names = [file.rpartition("/")[2] for file in files]
    places = laid_out(labels, names, files)
    assert places == ["cat/1-5.png", "cat/1.png", "cat/1-3.png", "cat/1-2.png", "cat/1-4.PNG", "dog/1.png"]
    # The same whatever the order of the samples.
    order = [3, 0, 5, 2, 4, 1]
    again = laid_out(*([column[row] for row in order] for column in (labels, names, files)))
    assert again == [places[row] for row in order]


def test_many_files_of_few_names_all_have_their_place():
    generator = random.Random(1)
    names = [
        generator.choice(["1.png", "1-2.png", "1-3.png", "é.png", "e\u0301.png", "É.png"]) for _ in range(200)
    ]
    places = laid_out(["a"] * 200, names, [f"{row:03d}/{name}" for row, name in enumerate(names)])
    assert len({place.casefold() for place in places}) == 200


@pytest.mark.parametrize("way", ["symlink", "hardlink", "copy"])
def test_the_folder_holds_the_images_and_the_originals_stay(photos, tmp_path, way):
    manifest = read_manifest(str(photos))
    before = state(photos)
    manifest = manifest_of(manifest.table.assign(label=list("aaabbbcc"), note="x"), photos)
    table, warnings = make(manifest, tmp_path / "out" / "images", way)
    assert warnings == []
    assert state(photos) == before
    assert list(table) == ["path", "label", "weight", "note"]
    for old, new in zip(manifest.files(), table["path"], strict=True):
        place = tmp_path / "out" / new
        assert place.read_bytes() == Path(old).read_bytes()
        assert place.is_symlink() == (way == "symlink")
        assert place.samefile(old) == (way != "copy")
        if way == "symlink":
            assert place.readlink().is_absolute()
    # Nothing else is left.
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["images"]
    listing = pd.read_csv(tmp_path / "out" / "images" / "metadata.csv")
    assert list(listing) == ["file_name", "label", "weight", "note"]
    assert [f"images/{name}" for name in listing["file_name"]] == table["path"].tolist()


def test_a_hard_link_of_a_link_is_the_file_behind_it(photos, tmp_path):
    links = tmp_path / "links"
    for file in photos.rglob("*.png"):
        (links / file.parent.name).mkdir(parents=True, exist_ok=True)
        (links / file.parent.name / file.name).symlink_to(file)
    table, _ = make(read_manifest(str(links)), tmp_path / "images", "hardlink")
    for file in table["path"]:
        assert not (tmp_path / file).is_symlink()
        assert (tmp_path / file).stat().st_nlink == 2


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_hostile_labels_and_names_stay_inside_and_come_back(tmp_path, format):
    source = tmp_path / "source"
    source.mkdir()
    paths = []
    for row, text in enumerate(HOSTILE * 2):
        file = (
            source
            / f"{row}"
            / (safe_name(text) if "\0" in text or "/" in text or len(text) > 60 else f"{text}.png")
        )
        file.parent.mkdir()
        Image.new("RGB", (2, 2), (row, 0, 0)).save(file, format="png")
        paths.append(str(file))
    manifest = manifest_of(pd.DataFrame({"path": paths, "label": HOSTILE * 2}), tmp_path)
    before = {str(path) for path in tmp_path.rglob("*")}
    table, _ = make(manifest, tmp_path / "out" / "images", "copy", format)
    new = {str(path) for path in tmp_path.rglob("*")} - before
    assert all(path.startswith(f"{tmp_path}/out") for path in new)
    assert len({str(Path(path).parent) for path in table["path"]}) == len(HOSTILE)
    assert table["label"].tolist() == manifest.table["label"].tolist()
    for old, name in zip(paths, table["path"], strict=True):
        assert (tmp_path / "out" / name).read_bytes() == Path(old).read_bytes()
    read = read_manifest(str(tmp_path / "out" / "images"))
    labels = dict(zip(read.files(), read.table["label"], strict=True))
    assert [labels[f"{tmp_path}/out/{name}"] for name in table["path"]] == HOSTILE * 2


def test_readers_of_class_folders_see_the_same(photos, tmp_path):
    from torchvision.datasets import ImageFolder

    from divacli.interchange.torch_dataset import ManifestDataset

    manifest = read_manifest(str(photos))
    manifest = manifest_of(manifest.table.assign(label=["a", "b"] * 4), photos)
    table, _ = make(manifest, tmp_path / "images", "symlink")
    folder = ImageFolder(tmp_path / "images")
    ours = ManifestDataset(tmp_path / "images")
    from_table = ManifestDataset(table, folder=tmp_path)
    assert folder.classes == ours.classes == from_table.classes == ["a", "b"]
    expected = {
        str((tmp_path / path).absolute()): label
        for path, label in zip(table["path"], table["label"], strict=True)
    }
    found = {file: folder.classes[number] for file, number in folder.samples}
    assert found == expected
    for dataset in (ours, from_table):
        read = {dataset.files[row]: dataset.classes[dataset.targets[row]] for row in range(len(dataset))}
        assert read == expected
    by_file = {file: np.asarray(folder[row][0]) for row, (file, _) in enumerate(folder.samples)}
    for row in range(len(from_table)):
        assert (np.asarray(from_table[row][0]) == by_file[from_table.files[row]]).all()


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_hugging_face_reads_it(photos, tmp_path, format, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    labels = ["cat", "cat", "a/b", "..", "<script>", "😀", "مرحبا", "new\nline"]
    manifest = manifest_of(
        read_manifest(str(photos)).table.assign(label=labels, image="mine", mask_file_name="0.png"), photos
    )
    table, warnings = make(manifest, tmp_path / "images", "symlink", format)
    assert warnings == []
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "images"), cache_dir=str(tmp_path / "hf")
    )
    assert list(found) == ["train"]
    assert sorted(found["train"].column_names) == ["image", "label", "weight"]
    assert found["train"]["label"][:] == labels
    for row, path in enumerate(table["path"]):
        with Image.open(tmp_path / path) as image:
            assert (np.asarray(found["train"][row]["image"]) == np.asarray(image)).all()


def test_what_hugging_face_would_misread_is_said(photos, tmp_path):
    table = read_manifest(str(photos)).table
    odd = manifest_of(table.assign(label=["NA", "01", "=x", "cat"] * 2), photos)
    _, (said,) = make(odd, tmp_path / "csv", "symlink")
    assert "'01', '=x', 'NA'" in said or "'=x', 'NA'" in said
    assert "--format jsonl" in said
    assert make(odd, tmp_path / "jsonl", "symlink", "jsonl")[1] == []
    split = manifest_of(table.assign(label=["test", "protest", "a-val", "contest"] * 2), photos)
    _, (said,) = make(split, tmp_path / "split", "symlink")
    assert said.startswith("4 names hold a word that Hugging Face takes for a split, such as test/0.png")


def test_what_is_said_of_splits_is_true(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    table = read_manifest(str(photos)).table.assign(label=["test", "cat"] * 4)
    _, (said,) = make(manifest_of(table, photos), tmp_path / "images", "symlink")
    folder, cache = str(tmp_path / "images"), str(tmp_path / "hf")
    found = datasets.load_dataset("imagefolder", data_dir=folder, cache_dir=cache)
    assert "train" not in found or len(found["train"]) < 8
    files = said.partition('data_files="')[2].partition('"')[0]
    found = datasets.load_dataset("imagefolder", data_files=files, cache_dir=cache)
    assert sorted(found["train"]["label"]) == ["cat"] * 4 + ["test"] * 4


def test_a_file_without_a_suffix_gets_one(photos, tmp_path):
    for file in photos.rglob("*.png"):
        file.rename(file.with_suffix("" if file.stem != "3" else ".dat"))
    paths = [str(file) for file in sorted(photos.rglob("*")) if file.is_file()]
    manifest = manifest_of(pd.DataFrame({"path": paths, "label": ["a", "b"] * 4}), photos)
    table, warnings = make(manifest, tmp_path / "images", "symlink")
    assert warnings == []
    assert sorted(name.rpartition("/")[2] for name in table["path"]) == sorted(
        ["0.png", "1.png", "2.png", "3.dat.png", "4.png", "5.png", "6.png", "7.png"]
    )
    Path(paths[0]).write_text("no image")
    with pytest.raises(DataError, match="has no suffix of an image, and cannot be read as one"):
        make(manifest, tmp_path / "again", "symlink")


def test_suffixes_that_torchvision_skips_are_said(photos, tmp_path):
    for file in photos.rglob("*.png"):
        Image.open(file).save(file.with_suffix(".gif"))
        file.unlink()
    _, (said,) = make(read_manifest(str(photos)), tmp_path / "images", "copy")
    assert said.startswith("8 images have suffixes that torchvision's ImageFolder skips: a/0.gif")


def test_what_is_there_already_stays(photos, tmp_path):
    manifest = read_manifest(str(photos))
    for number, prepare in enumerate((Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere"))):
        target = tmp_path / str(number)
        prepare(target)
        with pytest.raises(OutputError, match="is there already") as caught:
            make(manifest, target)
        assert "remove it, or choose another place" in str(caught.value)


def test_data_is_no_place_for_it(photos, tmp_path):
    manifest = read_manifest(str(photos))
    (tmp_path / "door").symlink_to(photos)
    for inside in (photos / "images", photos / "new" / "images", tmp_path / "door" / "images"):
        with pytest.raises(OutputError, match=r"would lie in .*which is DATA itself"):
            make(manifest, inside)
    assert sorted(entry.name for entry in photos.iterdir()) == ["a", "b"]


def test_what_fails_leaves_nothing(photos, tmp_path, monkeypatch):
    manifest = read_manifest(str(photos))
    calls = []

    def full(file, state, place):
        calls.append(file)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_files, "_copy", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        make(manifest, tmp_path / "out" / "images")
    assert "symlink" in str(caught.value)
    assert len(calls) >= 5
    assert list((tmp_path / "out").iterdir()) == []
    assert len(state(photos)) == 8


def test_a_hard_link_across_file_systems_says_what_to_do(photos, tmp_path, monkeypatch):
    def elsewhere(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    with pytest.raises(OutputError, match="cross-device") as caught:
        make(read_manifest(str(photos)), tmp_path / "out" / "images", "hardlink")
    assert "use --materialize copy or symlink" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_files_are_named(photos, tmp_path):
    manifest = read_manifest(str(photos))
    (photos / "a" / "0.png").unlink()
    with pytest.raises(DataError, match=r"1 of 8 files are not there: .*a/0\.png"):
        make(manifest, tmp_path / "images")


def test_what_are_no_files(tmp_path):
    np.savez(tmp_path / "x.npz", embedding=np.eye(4), label=np.array(list("aabb")))
    manifest = read_manifest(str(tmp_path / "x.npz"))
    with pytest.raises(DataError, match=r"4 samples are rows of an \.npz file, not images"):
        make(manifest, tmp_path / "images")
    with pytest.raises(DataError, match="no sample stays"):
        make(manifest.select(np.arange(0)), tmp_path / "images")


def test_members_of_tar_files_are_copied_and_not_linked(photos, tmp_path):
    files = sorted(photos.rglob("*.png"))
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for file in files:
            archive.add(file, file.name)
    table = pd.DataFrame(
        {"path": [f"shard.tar/{file.name}" for file in files], "label": [file.parent.name for file in files]}
    )
    manifest = manifest_of(table, tmp_path)
    for way in ("symlink", "hardlink"):
        with pytest.raises(
            DataError, match="8 of 8 images lie at URLs, or in tar or Parquet files"
        ) as caught:
            make(manifest, tmp_path / "images", way)
        assert "--materialize copy" in str(caught.value)
    made, _ = make(manifest, tmp_path / "images")
    for file, name in zip(files, made["path"], strict=True):
        assert (tmp_path / name).read_bytes() == file.read_bytes()


def test_images_at_urls_are_copied(photos, tmp_path, bucket):
    files = sorted(photos.rglob("*.png"))
    for file in files:
        bucket.pipe(f"/bucket/{file.name}", file.read_bytes())
    table = pd.DataFrame(
        {
            "path": [f"memory://bucket/{file.name}" for file in files],
            "label": [file.parent.name for file in files],
        }
    )
    made, _ = make(manifest_of(table, tmp_path), tmp_path / "images")
    assert made["path"].tolist() == [f"images/{file.parent.name}/{file.name}" for file in files]
    for file, name in zip(files, made["path"], strict=True):
        assert (tmp_path / name).read_bytes() == file.read_bytes()


def test_features_known_by_other_paths_are_not_named(photos, tmp_path):
    table = read_manifest(str(photos)).table.assign(feature_source="store")
    made, _ = make(manifest_of(table, photos), tmp_path / "images", "copy")
    assert "feature_source" not in made
