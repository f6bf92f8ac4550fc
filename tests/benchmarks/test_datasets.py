"""Data sets in torchvision's layouts become tables that can be read as DATA."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from benchmarks.datasets import CALTECH_TRAIN, SETS, manifests
from divacli.errors import DataError
from divacli.features import read_data
from divacli.manifest import Manifest

Expected = dict[str, list[tuple[str, str]]]
"""Path and label of each image of the training and of the test set."""


def draw(file: Path, shade: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade % 256, 0, 0)).save(file)


def write(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def flowers(root: Path) -> Expected:
    folder = root / "flowers-102"
    for number in range(1, 9):
        draw(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 3, 3, 1, 2]])})
    splits = {"trnid": [[5, 1, 2]], "valid": [[3, 4]], "tstid": [[6, 7, 8]]}
    savemat(folder / "setid.mat", {name: np.array(ids) for name, ids in splits.items()})
    name = "flowers-102/jpg/image_{:05d}.jpg".format
    return {
        "train": [(name(5), "2"), (name(1), "0"), (name(2), "1")],
        "test": [(name(6), "2"), (name(7), "0"), (name(8), "1")],
    }


def aircraft(root: Path) -> Expected:
    folder = root / "fgvc-aircraft-2013b" / "data"
    for number in range(4):
        draw(folder / "images" / f"000{number}.jpg")
    write(folder / "variants.txt", "A340 300", "DC-3")
    write(folder / "images_variant_trainval.txt", "0001 DC-3", "0000 A340 300")
    write(folder / "images_variant_test.txt", "0002 DC-3", "0003 A340 300")
    name = "fgvc-aircraft-2013b/data/images/000{}.jpg".format
    return {"train": [(name(1), "1"), (name(0), "0")], "test": [(name(2), "1"), (name(3), "0")]}


def pets(root: Path) -> Expected:
    folder = root / "oxford-iiit-pet"
    for name in ("Abyssinian_1", "Abyssinian_2", "great_dane_1", "great_dane_2"):
        draw(folder / "images" / f"{name}.jpg")
    write(folder / "annotations" / "trainval.txt", "great_dane_1 2 2 1", "Abyssinian_2 1 1 1")
    write(folder / "annotations" / "test.txt", "Abyssinian_1 1 1 1", "great_dane_2 2 2 1")
    name = "oxford-iiit-pet/images/{}.jpg".format
    return {
        "train": [(name("great_dane_1"), "1"), (name("Abyssinian_2"), "0")],
        "test": [(name("Abyssinian_1"), "0"), (name("great_dane_2"), "1")],
    }


def cars(root: Path) -> Expected:
    folder = root / "stanford_cars"
    for split in ("train", "test"):
        for number in (1, 2):
            draw(folder / f"cars_{split}" / f"0000{number}.jpg")
        kind = np.dtype([("class", "i4"), ("fname", "U9")])
        annotations = np.array([(2, "00001.jpg"), (1, "00002.jpg")], kind)
        place = "devkit/cars_train_annos" if split == "train" else "cars_test_annos_withlabels"
        (folder / "devkit").mkdir(exist_ok=True)
        savemat(folder / f"{place}.mat", {"annotations": annotations})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["Coupe", "Van"], object)})
    return {
        split: [
            (f"stanford_cars/cars_{split}/00001.jpg", "1"),
            (f"stanford_cars/cars_{split}/00002.jpg", "0"),
        ]
        for split in ("train", "test")
    }


LAYOUTS: dict[str, Callable[[Path], Expected]] = {
    "FGVCAircraft": aircraft,
    "Flowers102": flowers,
    "OxfordIIITPet": pets,
    "StanfordCars": cars,
}


@pytest.fixture(autouse=True)
def any_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files stand for the published ones: what is there counts as whole, and nothing is downloaded."""

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    def there(file: str, md5: str) -> bool:
        return Path(file).is_file()

    downloads = {
        "flowers102": ("download_url", "download_and_extract_archive"),
        "fgvc_aircraft": ("download_and_extract_archive",),
        "oxford_iiit_pet": ("download_and_extract_archive",),
        "caltech": ("download_and_extract_archive",),
    }
    for module, names in downloads.items():
        for name in names:
            monkeypatch.setattr(f"torchvision.datasets.{module}.{name}", unreachable)
    for module in ("flowers102", "svhn"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", there)

    def download(url: str, root: str, filename: str, md5: str) -> None:
        if not there(str(Path(root, filename)), md5):
            unreachable()

    monkeypatch.setattr("torchvision.datasets.svhn.download_url", download)


def rows(file: Path) -> list[tuple[str, str]]:
    """Path and label of a table, whose files exist."""
    manifest = read_data(str(file), labels="optional")
    assert isinstance(manifest, Manifest)
    return list(zip(manifest.table["path"], manifest.table["label"], strict=True))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_splits_of_the_publisher_are_kept(name: str, tmp_path: Path) -> None:
    expected = LAYOUTS[name](tmp_path)
    tables = manifests(name, tmp_path)
    assert {split: rows(file) for split, file in tables.items()} == expected


def test_caltech_is_split_class_by_class(tmp_path: Path) -> None:
    counts = {"001.ak47": CALTECH_TRAIN + 3, "002.american-flag": CALTECH_TRAIN + 1}
    for label, (folder, count) in enumerate(counts.items(), start=1):
        for number in range(1, count + 1):
            draw(tmp_path / "caltech256/256_ObjectCategories" / folder / f"{label:03d}_{number:04d}.jpg")
    tables = manifests("Caltech256", tmp_path)
    train, test = rows(tables["train"]), rows(tables["test"])
    everything = {
        (f"caltech256/256_ObjectCategories/{folder}/{label + 1:03d}_{number:04d}.jpg", str(label))
        for label, (folder, count) in enumerate(counts.items())
        for number in range(1, count + 1)
    }
    assert {*train, *test} == everything
    assert len(train) + len(test) == len(everything)
    assert [label for _, label in train].count("0") == CALTECH_TRAIN
    assert [label for _, label in train].count("1") == CALTECH_TRAIN
    assert train != sorted(everything)[: len(train)]  # drawn, not the first ones
    assert (rows(manifests("Caltech256", tmp_path)["train"])) == train


def test_arrays_become_images_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {split: generator.integers(0, 256, (32, 32, 3, 4), np.uint8) for split in ("train", "test")}
    (tmp_path / "svhn").mkdir()
    for split, array in arrays.items():
        digits = np.array([[10], [1], [2], [1]], np.uint8)
        savemat(tmp_path / "svhn" / f"{split}_32x32.mat", {"X": array, "y": digits})
    tables = manifests("SVHN", tmp_path)
    for split, array in arrays.items():
        found = rows(tables[split])
        assert [label for _, label in found] == ["0", "1", "2", "1"]
        for number, (path, _) in enumerate(found):
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / path)), array[..., number])
    first = tmp_path / rows(tables["train"])[0][0]
    written = first.stat().st_mtime_ns
    manifests("SVHN", tmp_path)
    assert first.stat().st_mtime_ns == written


def test_images_half_written_are_written_again(tmp_path: Path) -> None:
    (tmp_path / "svhn").mkdir()
    for split in ("train", "test"):
        content = {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [2]], np.uint8)}
        savemat(tmp_path / "svhn" / f"{split}_32x32.mat", content)
    unfinished = tmp_path / "svhn" / "train.unfinished"
    unfinished.mkdir()
    (unfinished / "000000.png").write_bytes(b"")
    tables = manifests("SVHN", tmp_path)
    assert [Image.open(tmp_path / path).size for path, _ in rows(tables["train"])] == [(32, 32)] * 2
    assert not unfinished.exists()


@pytest.mark.parametrize("name", SETS)
def test_what_cannot_be_downloaded_is_said_with_its_place(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        manifests(name, tmp_path)
    message = str(raised.value)
    assert f"{name} (train) is not in {tmp_path}" in message
    assert SETS[name].layout in message
    assert ("https://" in message) == (name == "StanfordCars")
    assert not list(tmp_path.glob("*.csv"))
