"""Images in tar shards have the features of the same images in a folder, however they are loaded."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import functional

from divacli import ManifestDataset
from divacli.errors import DataError
from divacli.features import BackboneChoice, ExtractOptions, load_samples
from divacli.features.keys import content_keys
from divacli.files import tar as tar_module
from divacli.progress import silent

N = 70


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same images in a folder of class folders and in two shards."""
    top = tmp_path_factory.mktemp("both")
    generator = np.random.default_rng(0)
    with tarfile.open(top / "s-0.tar", "w") as first, tarfile.open(top / "s-1.tar", "w") as second:
        for number in range(N):
            label, stream = "abc"[number % 3], io.BytesIO()
            Image.fromarray(generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(stream, "PNG")
            file = top / "folder" / label / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(stream.getvalue())
            for suffix, data in (("png", stream.getvalue()), ("cls", label.encode())):
                entry = tarfile.TarInfo(f"{number:03d}.{suffix}")
                entry.size = len(data)
                (first if number < N // 2 else second).addfile(entry, io.BytesIO(data))
    return top / "folder", top / "s-{0..1}.tar"


@pytest.mark.parametrize("workers", [0, 2])
def test_features_are_those_of_the_folder(
    both: tuple[Path, Path], choice: BackboneChoice, tmp_path: Path, workers: int
) -> None:
    options = ExtractOptions(torch.device("cpu"), workers=workers, batch_size=8)
    found = {}
    for number, data in enumerate(both):
        samples = load_samples(str(data), choice, options, tmp_path / f"cache-{number}")
        assert samples.embedded == len(samples) == N
        names = [Path(path).name for path in samples.manifest.table["path"]]
        features = samples.features[:].numpy()
        found[number] = {
            name: (label, row.tobytes())
            for name, label, row in zip(names, samples.manifest.table["label"], features, strict=True)
        }
    assert found[0] == found[1]


def test_features_are_shared_with_the_folder(
    both: tuple[Path, Path], choice: BackboneChoice, tmp_path: Path
) -> None:
    options = ExtractOptions(torch.device("cpu"), workers=0)
    load_samples(str(both[0]), choice, options, tmp_path)
    assert load_samples(str(both[1]), choice, options, tmp_path).embedded == 0


def test_digests_are_remembered_until_the_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divacli.features.digests._SETTLED", 0)

    def write(content: bytes) -> None:
        with tarfile.open(tmp_path / "s.tar", "w") as archive:
            entry = tarfile.TarInfo("1.png")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

    read = []
    real = tar_module.read_member
    monkeypatch.setattr("divacli.files.containers.read_member", lambda *a: read.append(a) or real(*a))
    files = [f"{tmp_path}/s.tar/1.png"]
    write(b"one")
    first = content_keys(files, silent, tmp_path / "cache")[0]
    assert np.array_equal(content_keys(files, silent, tmp_path / "cache")[0], first)
    assert len(read) == 1
    write(b"two")
    assert not np.array_equal(content_keys(files, silent, tmp_path / "cache")[0], first)
    assert len(read) == 2


def to_tensor(image: Image.Image) -> torch.Tensor:
    return functional.pil_to_tensor(image)


def test_data_set_in_worker_processes(both: tuple[Path, Path]) -> None:
    folder, shards = both
    samples = ManifestDataset(str(shards), to_tensor)
    again = pickle.loads(pickle.dumps(samples))
    expected = {}
    for index, (image, target) in enumerate(ManifestDataset(str(folder), to_tensor)):  # type: ignore[arg-type]
        expected[index] = image.numpy().tobytes() + bytes([target])
    loader = DataLoader(again, batch_size=16, num_workers=2)
    tar_module._looked_up.cache_clear()  # as in a process that was not copied from this one
    found = [
        image.numpy().tobytes() + bytes([int(target)])
        for images, targets in loader
        for image, target in zip(images, targets, strict=True)
    ]
    assert sorted(found) == sorted(expected.values())


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("1.png", "1.cls", "2.png", "2.cls"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(name[:1].encode()))
    samples = ManifestDataset(str(tmp_path / "s.tar"))
    with pytest.raises(DataError, match=r"s\.tar/1\.png cannot be decoded"):
        samples[0]
    with tarfile.open(tmp_path / "s.tar", "w"):
        pass
    with pytest.raises(DataError, match=r"has no member 1\.png"):
        samples[0]
