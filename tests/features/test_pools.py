"""Pools without labels get features like any other samples."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from divacli.errors import DataError
from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples, read_data, write_store
from divacli.manifest import relocate, write_table


@pytest.fixture
def load(choice: BackboneChoice, options: ExtractOptions, cache: Path) -> Callable[..., Samples]:
    """Load a pool with the tiny network."""

    def run(data: object, **other: object) -> Samples:
        return load_samples(str(data), choice, options, cache, **{"labels": "optional", **other})

    return run


@pytest.fixture
def flat(tmp_path: Path, save_noise: Callable) -> Path:
    """Five images in one folder."""
    for number in range(5):
        save_noise(tmp_path / f"pool/{number}.png", number)
    return tmp_path / "pool"


def test_images_of_a_flat_folder(load: Callable, flat: Path, model: str, by_plain_loop: Callable) -> None:
    samples = load(flat)
    assert len(samples) == 5
    assert not samples.manifest.labelled
    expected = by_plain_loop(model, samples.manifest.files())
    assert torch.allclose(samples.features[:], expected, rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="without a class folder"):
        load(flat, labels="required")


def test_table_of_paths(load: Callable, flat: Path) -> None:
    whole = load(flat)
    (flat / "t.csv").write_text("path\n3.png\n0.png\n")
    assert torch.equal(load(flat / "t.csv").features[:], whole.features[:][[3, 0]])


def test_store_of_a_pool(load: Callable, flat: Path, tmp_path: Path) -> None:
    whole = load(flat)
    write_store(whole, tmp_path / "store")
    again = load(tmp_path / "store")
    assert not again.manifest.labelled
    assert torch.equal(again.features[:], whole.features[:])
    with pytest.raises(DataError, match="label is empty in data rows 1"):
        read_data(str(tmp_path / "store"))


@pytest.mark.parametrize("kind", ["npz", "store"])
def test_pool_that_was_labelled_later_finds_its_features(
    load: Callable, flat: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "npz":
        np.savez(tmp_path / "e.npz", embedding=np.random.default_rng(0).normal(size=(5, 4)).astype("f4"))
        pool = load(tmp_path / "e.npz")
    else:
        write_store(load(flat), tmp_path / "store")
        pool = load(tmp_path / "store")
    table = pool.manifest.table.assign(label=list("abaab")).iloc[[4, 1, 2]]
    target = tmp_path / "out" / "labelled.csv"
    write_table(relocate(table, pool.manifest.folder, target.parent), target, "csv")
    found = load(target, labels="required")
    assert found.manifest.table["label"].tolist() == ["b", "b", "a"]
    assert torch.equal(found.features[:], pool.features[:][[4, 1, 2]])


def test_one_image_of_a_pool_is_enough(load: Callable, flat: Path) -> None:
    for number in range(1, 5):
        (flat / f"{number}.png").write_bytes(b"")
    samples = load(flat)
    assert samples.manifest.table["path"].tolist() == ["0.png"]
    assert samples.failed["label"].tolist() == [""] * 4
    (flat / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no sample is left, for 5 images cannot be decoded: 0\.png"):
        load(flat)


def test_pool_may_lose_all_classes_but_one(load: Callable, tmp_path: Path, save_noise: Callable) -> None:
    save_noise(tmp_path / "d/a/1.png", 1)
    (tmp_path / "d/b").mkdir()
    (tmp_path / "d/b/3.png").touch()
    assert load(tmp_path / "d").manifest.classes == ["a"]
    with pytest.raises(DataError, match="fewer than two classes are left"):
        load(tmp_path / "d", labels="required")
