"""Features at a URL are those of the same file or store on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divacli.errors import DataError, StoreError
from divacli.features import BackboneChoice, is_store, load_samples, read_data, write_store
from divacli.features.store import FeatureStore
from divacli.files.path_or_url import place_of

NOBODY = BackboneChoice()


@pytest.fixture
def stored(photos, choice, options, cache, tmp_path, bucket) -> Path:
    """A store of the photos here, and a copy of it in the bucket; its network and images are gone."""
    write_store(load_samples(str(photos), choice, options, cache), tmp_path / "set" / "store")
    store = FeatureStore(tmp_path / "set" / "store")
    store.append(np.ones((3, 32), np.uint8), np.zeros((3, 12), np.float32))  # a second shard
    bucket.put(str(store.folder), "/bucket/set/store", recursive=True)
    shutil.rmtree(photos)
    return tmp_path / "set" / "store"


def test_a_store(stored, options, cache) -> None:
    local = load_samples(str(stored), NOBODY, options, cache)
    remote = load_samples("memory://bucket/set/store", NOBODY, options, cache)
    assert (remote.features[:] == local.features[:]).all()
    assert (remote.keys == local.keys).all()
    assert remote.fingerprint == local.fingerprint
    assert remote.identity == local.identity
    assert all((one == other).all() for one, other in zip(remote.head, local.head, strict=True))
    columns = ["label", "weight"]
    pd.testing.assert_frame_equal(remote.manifest.table[columns], local.manifest.table[columns])
    assert len(FeatureStore(stored)._blocks) == 2


def test_samples_of_a_store_are_found_again_by_their_table(stored, options, cache, tmp_path) -> None:
    remote = load_samples("memory://bucket/set/store", NOBODY, options, cache)
    rows = np.random.default_rng(0).permutation(30)[:20]
    remote.manifest.select(rows).table.to_csv(tmp_path / "kept.csv", index=False)
    again = load_samples(str(tmp_path / "kept.csv"), NOBODY, options, cache)
    assert (again.features[:] == remote.features[rows]).all()


def test_a_store_without_samples_or_damaged(stored, bucket) -> None:
    for shard in bucket.glob("/bucket/set/store/shard-*"):
        whole = bucket.cat_file(shard)
        bucket.pipe(shard, whole[:-1])
        with pytest.raises(StoreError, match=r"memory://.*truncated"):
            FeatureStore(place_of("memory://bucket/set/store"))
        bucket.pipe(shard, whole)
    bucket.rm("/bucket/set/store/samples.parquet")
    with pytest.raises(StoreError, match=r"without samples\.parquet"):
        read_data("memory://bucket/set/store")


def test_what_is_a_store(stored) -> None:
    assert is_store("memory://bucket/set/store")
    assert is_store(f"file://{stored}")
    assert not is_store("memory://bucket/set")
    assert not is_store("memory://bucket/none.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz(save, tmp_path, bucket, options, cache) -> None:
    features = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    save(tmp_path / "e.npz", embedding=features, label=np.arange(50) % 2)
    bucket.put(str(tmp_path / "e.npz"), "/bucket/e.npz")
    local = load_samples(str(tmp_path / "e.npz"), NOBODY, options, cache)
    remote = load_samples("memory://bucket/e.npz", NOBODY, options, cache)
    assert (remote.features[:].numpy() == features).all()
    assert remote.fingerprint == local.fingerprint


def test_rows_that_name_a_remote_source(tmp_path, bucket, options, cache) -> None:
    features = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.savez(tmp_path / "e.npz", embedding=features, label=np.arange(50) % 2)
    bucket.put(str(tmp_path / "e.npz"), "/bucket/set/e.npz")
    rows = [40, 3, 17]
    table = pd.DataFrame({"path": rows, "label": ["a", "b", "a"]})
    table.assign(feature_source="memory://bucket/set/e.npz").to_csv(tmp_path / "local.csv", index=False)
    bucket.pipe("/bucket/remote.csv", table.assign(feature_source="set/e.npz").to_csv(index=False).encode())
    for data in (str(tmp_path / "local.csv"), "memory://bucket/remote.csv"):
        found = load_samples(data, NOBODY, options, cache)
        assert (found.features[:].numpy() == features[rows]).all()


def test_remote_images_are_refused(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("path,label\ns3://bucket/1.png,a\ns3://bucket/2.png,b\n")
    with pytest.raises(DataError, match=r"2 of 2 images lie at URLs[\s\S]*diva embed"):
        read_data(str(tmp_path / "t.csv"))
