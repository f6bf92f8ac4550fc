"""The PyTorch door: every sample meets its own image, class and weight, and is drawn by that weight."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import functional

import divacli
from divacli import ManifestDataset, weighted_sampler
from divacli.errors import DataError
from divacli.manifest import read_manifest

N = 24


def colour(row: int) -> tuple[int, int, int]:
    """Tells which image it is."""
    return row, 10 * row, 255 - row


def to_tensor(image: Image.Image) -> torch.Tensor:
    return functional.pil_to_tensor(image)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table of images, one colour each, with labels 2, 10 and 9 and weights from 0 to 3."""
    (tmp_path / "images").mkdir()
    for row in range(N):
        Image.new("RGB", (4, 4), colour(row)).save(tmp_path / f"images/{row}.png")
    table = pd.DataFrame(
        {
            "path": [f"images/{row}.png" for row in range(N)],
            "label": [("10", "9", "2")[row % 3] for row in range(N)],
            "weight": [(0, 0.5, 1, 3)[row % 4] for row in range(N)],
        }
    )
    table.to_csv(tmp_path / "reweighted.csv", index=False)
    return tmp_path / "reweighted.csv"


def test_samples_and_what_is_known_of_them(data: Path) -> None:
    samples = ManifestDataset(data)
    assert len(samples) == N
    assert samples.classes == read_manifest(str(data)).classes == ["2", "9", "10"]
    assert samples.class_to_idx == {"2": 0, "9": 1, "10": 2}
    assert samples.targets == [2, 1, 0] * 8
    assert samples.weights.tolist() == [0, 0.5, 1, 3] * 6
    assert samples.weights.dtype == torch.float64
    assert list(samples.table) == ["path", "label", "weight"]
    for row, (image, target) in enumerate(samples):  # type: ignore[arg-type]
        assert (image.mode, image.getpixel((0, 0)), target) == ("RGB", colour(row), samples.targets[row])


def test_ways_to_name_the_same_samples(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.read_csv(data, dtype={"label": str})
    shuffled = table.sample(frac=1, random_state=0)
    monkeypatch.chdir(data.parent)
    for same in (
        ManifestDataset(str(data), to_tensor),
        ManifestDataset("reweighted.csv", to_tensor),
        ManifestDataset(table, to_tensor),
        ManifestDataset(table, to_tensor, folder=data.parent),
        ManifestDataset(read_manifest(str(data)), to_tensor),
    ):
        assert torch.equal(torch.stack([image for image, _ in same])[:, 0, 0, 0], torch.arange(N))  # type: ignore[misc,attr-defined]
        assert same.targets == [2, 1, 0] * 8
    other = ManifestDataset(shuffled, to_tensor)
    rows = shuffled.index.to_numpy()
    assert [int(other[i][0][0, 0, 0]) for i in range(N)] == rows.tolist()
    assert other.targets == np.array([2, 1, 0] * 8)[rows].tolist()
    assert other.weights.tolist() == table["weight"].to_numpy()[rows].tolist()


def test_folder_of_class_folders(tmp_path: Path) -> None:
    for label in ("dog", "cat"):
        (tmp_path / label).mkdir()
        Image.new("L", (4, 4), 7).save(tmp_path / label / "1.png")
    samples = ManifestDataset(tmp_path)
    assert (samples.classes, samples.targets) == (["cat", "dog"], [0, 1])
    assert samples.weights.tolist() == [1, 1]
    assert samples[0][0].mode == "RGB"


def test_images_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (8, 4)).save(tmp_path / label / "1.jpg", exif=exif)
    assert ManifestDataset(tmp_path)[1][0].size == (4, 8)


def test_loader_with_workers(data: Path) -> None:
    samples = ManifestDataset(data, to_tensor)
    sampler = weighted_sampler(samples, 50, seed=1)
    loader = DataLoader(samples, batch_size=5, num_workers=2, sampler=sampler)
    images, targets = (torch.cat(parts) for parts in zip(*loader, strict=True))
    rows = images[:, 0, 0, 0].int()
    expected = list(weighted_sampler(samples, 50, seed=1))
    assert rows.tolist() == expected
    assert targets.tolist() == [samples.targets[row] for row in expected]


def test_pickled_it_is_the_same(data: Path) -> None:
    samples = ManifestDataset(data, to_tensor)
    again = pickle.loads(pickle.dumps(samples))
    assert again.targets == samples.targets
    assert torch.equal(again[5][0], samples[5][0])


def chi_square(samples: ManifestDataset, drawn: list[int], weights: np.ndarray) -> float:
    """Of the counts of the samples that `weights` expects: 17 degrees of freedom for 18 samples."""
    counts = np.bincount(drawn, minlength=len(samples))
    expected = weights / weights.sum() * len(drawn)
    return float(((counts - expected)[weights > 0] ** 2 / expected[weights > 0]).sum())


def test_draws_follow_the_weights(data: Path) -> None:
    samples = ManifestDataset(data)
    drawn = list(weighted_sampler(samples, 20_000, seed=0))
    weights = samples.weights.numpy()
    assert not set(drawn) & set(np.flatnonzero(weights == 0))
    assert chi_square(samples, drawn, weights) < 40.8  # the 99.9th percentile
    assert chi_square(samples, drawn, np.sqrt(weights)) > 1000


def test_an_epoch_has_as_many_draws_as_samples_that_count(data: Path) -> None:
    samples = ManifestDataset(data)
    assert len(weighted_sampler(samples)) == 18
    assert len(weighted_sampler(samples, num_samples=7)) == 7


def test_draws_are_repeatable(data: Path) -> None:
    samples = ManifestDataset(data)
    first = list(weighted_sampler(samples, seed=3))
    assert list(weighted_sampler(samples, seed=3)) == first
    assert list(weighted_sampler(samples, generator=torch.Generator().manual_seed(3))) == first
    assert list(weighted_sampler(samples, seed=4)) != first
    sampler = weighted_sampler(samples, seed=3)
    assert list(sampler) == first
    assert list(sampler) != first  # the next epoch


def test_classes_of_the_training_set(data: Path) -> None:
    table = pd.read_csv(data, dtype=str)
    one = ManifestDataset(table[table["label"] == "9"], classes=["10", "9", "2"], folder=data.parent)
    assert one.targets == [1] * 8
    with pytest.raises(DataError, match="labels that the training samples lack: 10"):
        ManifestDataset(data, classes=["2", "9"])
    with pytest.raises(DataError, match="has no labels"):
        ManifestDataset(table[["path"]], classes=["2", "9"], folder=data.parent)
    with pytest.raises(ValueError, match="different labels"):
        ManifestDataset(data, classes=["2", "9", "10", "2"])


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_damaged_image_is_named(data: Path, content: bytes) -> None:
    file = data.parent / "images/3.png"
    file.write_bytes(content)
    samples = ManifestDataset(data)
    assert samples[2][0].size == (4, 4)
    with pytest.raises(DataError, match=rf"{file} cannot be decoded: (.|\n)*to do: repair it"):
        samples[3]


def test_damaged_image_is_named_from_a_worker(data: Path) -> None:
    file = data.parent / "images/3.png"
    file.write_bytes(b"")
    batches = iter(DataLoader(ManifestDataset(data, to_tensor), num_workers=2))
    with pytest.raises(DataError, match=rf"{file} cannot be decoded: "):
        list(batches)
    batches._shutdown_workers()  # else the garbage collector waits for them, 5 seconds each


def test_image_that_went_away_is_named(data: Path) -> None:
    samples = ManifestDataset(data)
    (data.parent / "images/3.png").unlink()
    with pytest.raises(DataError, match=r"images/3\.png cannot be read: No such file"):
        samples[3]


def test_what_has_no_images_is_refused(data: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", embedding=np.eye(4), label=np.arange(4))
    with pytest.raises(DataError, match="4 of 4 files are not there"):
        ManifestDataset(tmp_path / "e.npz")
    table = pd.read_csv(data)
    with pytest.raises(DataError, match="24 of 24 files are not there"):
        ManifestDataset(table, folder=tmp_path / "images")
    with pytest.raises(DataError, match="gone does not exist"):
        ManifestDataset(tmp_path / "gone")


def test_images_of_a_table_made_from_a_store(data: Path) -> None:
    table = pd.read_csv(data).assign(feature_source="features")
    assert len(ManifestDataset(table, folder=data.parent)) == N
    (data.parent / "images/3.png").unlink()
    with pytest.raises(DataError, match="1 of 24 files are not there"):
        ManifestDataset(table, folder=data.parent)


def test_wrong_use(data: Path) -> None:
    with pytest.raises(ValueError, match="is for a pandas table"):
        ManifestDataset(data, folder=data.parent)
    samples = ManifestDataset(data)
    with pytest.raises(ValueError, match="one of them"):
        weighted_sampler(samples, generator=torch.Generator(), seed=0)
    samples.weights = torch.zeros(N)
    with pytest.raises(DataError, match="every weight is 0"):
        weighted_sampler(samples)


def test_importing_the_package_does_not_wait_for_torch() -> None:
    code = "import sys, divacli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(divacli, name) for name in divacli.__all__)
