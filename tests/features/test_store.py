"""A store gives back what was put into it, in any order asked for, and refuses what is not whole."""

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from divacli.errors import OutputError, StoreError
from divacli.features.feature_rows import batched
from divacli.features.store import FeatureStore
from divacli.files.path_or_url import size_of

MakeKeys = Callable[..., np.ndarray]


def noise(n: int, d: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def shards(store: FeatureStore) -> list[Path]:
    return sorted(store.folder.glob("shard-*"))


@pytest.fixture
def filled(store: FeatureStore, noise_keys: MakeKeys) -> FeatureStore:
    """Three shards of 5, 1 and 7 rows."""
    keys, features = noise_keys(13), noise(13)
    for part in (slice(0, 5), slice(5, 6), slice(6, 13)):
        store.append(keys[part], features[part])
    return store


@pytest.mark.parametrize("reopen", [False, True])
def test_rows_come_back_by_key_in_the_order_asked_for(
    filled: FeatureStore, noise_keys: MakeKeys, reopen: bool
) -> None:
    store = FeatureStore(filled.folder) if reopen else filled
    order = np.random.default_rng(1).permutation(13)
    rows = store.rows(noise_keys(13)[order])
    assert len(store) == 13
    assert len(shards(store)) == 3
    assert rows.shape == (13, 12)
    assert torch.equal(rows[:], torch.from_numpy(noise(13)[order]))


def test_position_is_minus_one_for_unknown_keys_only(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    known, unknown = noise_keys(13), noise_keys(4, seed=9)
    found = filled.positions(np.concatenate([unknown[:2], known, unknown[2:]]))
    assert found[[0, 1, -2, -1]].tolist() == [-1] * 4
    assert sorted(found[2:-2].tolist()) == list(range(13))


def test_keys_that_share_their_first_bytes_are_told_apart(store: FeatureStore, noise_keys: MakeKeys) -> None:
    keys = noise_keys(1)
    store.append(keys, noise(1))
    other = keys.copy()
    other[0, -1] ^= 1
    assert store.positions(other).tolist() == [-1]
    assert store.positions(keys).tolist() == [0]


def test_positions_in_an_empty_store_and_of_no_keys(store: FeatureStore, noise_keys: MakeKeys) -> None:
    assert store.positions(noise_keys(3)).tolist() == [-1, -1, -1]
    assert store.rows(noise_keys(0)).shape == (0, 12)
    store.append(noise_keys(2), noise(2))
    assert store.positions(noise_keys(0)).tolist() == []


def test_duplicate_keys_are_harmless(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    again = [3, 3, 8]
    filled.append(noise_keys(13)[again], noise(13)[again])
    store = FeatureStore(filled.folder)
    assert len(store) == 16
    assert torch.equal(store.rows(noise_keys(13))[:], torch.from_numpy(noise(13)))


def test_the_same_rows_written_twice_are_one_shard(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    before = shards(filled)
    filled.append(noise_keys(13)[:5], noise(13)[:5])
    assert shards(filled) == before


def test_lacking_keys_are_counted(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    keys = np.concatenate([noise_keys(13), noise_keys(2, seed=9)])
    with pytest.raises(StoreError, match=r"store lacks 2 of 15 images"):
        filled.rows(keys)


def test_create_opens_what_is_there(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    before = {path: path.read_bytes() for path in filled.folder.iterdir()}
    store = FeatureStore.create(filled.folder, filled.identity, 12)
    assert {path: path.read_bytes() for path in filled.folder.iterdir()} == before
    assert store.fingerprint == filled.fingerprint
    assert torch.equal(store.rows(noise_keys(13))[:], torch.from_numpy(noise(13)))


def test_another_identity_is_refused_by_what_differs(filled: FeatureStore) -> None:
    identity = {"model": "net", "weights": "xyz", "layer": "fc"}
    with pytest.raises(StoreError) as error:
        FeatureStore.create(filled.folder, identity, 12)
    assert "weights 'abc' and not 'xyz'" in error.value.got
    assert "layer 'nothing' and not 'fc'" in error.value.got
    assert "model" not in error.value.got.partition("otherwise")[2]


def test_fingerprint_depends_on_every_part_of_the_identity(tmp_path: Path) -> None:
    identities = [{"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "1"}]
    stores = [FeatureStore.create(tmp_path / str(n), one, 3) for n, one in enumerate(identities)]
    assert len({store.fingerprint for store in stores}) == 4


def refused_when_opened(store: FeatureStore, file: Path, complaint: str) -> None:
    with pytest.raises(StoreError) as error:
        FeatureStore(store.folder)
    assert str(file) in error.value.got
    assert complaint in str(error.value)


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_truncated_shard_is_refused_by_name(filled: FeatureStore, length: int) -> None:
    shard = shards(filled)[1]
    shard.write_bytes(shard.read_bytes()[:length])
    refused_when_opened(filled, shard, "run the diva embed command again")


def test_shard_with_bytes_too_many_is_refused(filled: FeatureStore) -> None:
    shard = shards(filled)[0]
    shard.write_bytes(shard.read_bytes() + b"\0")
    refused_when_opened(filled, shard, "truncated")


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0\xff\xff",
        b"no header at all, only text",
    ],
)
def test_wrong_header_is_refused_by_name(filled: FeatureStore, header: bytes) -> None:
    shard = shards(filled)[0]
    shard.write_bytes(header)
    refused_when_opened(filled, shard, "is damaged")


@pytest.mark.parametrize(
    ("features", "keys"),
    [
        (np.zeros((2, 11), np.float32), np.zeros((2, 32), np.uint8)),
        (np.zeros((2, 12), np.float16), np.zeros((2, 32), np.uint8)),
        (np.zeros((2, 12), np.float32), np.zeros((3, 32), np.uint8)),
        (np.zeros((2, 12), np.float32), np.zeros((2, 31), np.uint8)),
    ],
)
def test_shard_of_other_arrays_is_refused(
    filled: FeatureStore, features: np.ndarray, keys: np.ndarray
) -> None:
    shard = filled.folder / f"shard-{0:032x}.safetensors"
    save_file({"features": features, "keys": keys}, shard)
    refused_when_opened(filled, shard, "12 features a row")


def flipped(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_no_flipped_bit_of_a_shard_reaches_a_row(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    """200 bits of the header and 200 others: the shard is refused by name when it is opened or read."""
    keys, shard = noise_keys(13), shards(filled)[0]
    size = 8 * shard.stat().st_size
    header = 8 * (8 + int.from_bytes(shard.read_bytes()[:8], "little"))
    generator = np.random.default_rng(0)
    bits = [*generator.integers(0, header, 200), *generator.integers(header, size, 200)]
    for bit in map(int, bits):
        flipped(shard, bit)
        with pytest.raises(StoreError) as error:
            FeatureStore(filled.folder).rows(keys)
        assert error.value.got.startswith(f"{shard} is damaged (")
        flipped(shard, bit)
    assert torch.equal(FeatureStore(filled.folder).rows(keys)[:], torch.from_numpy(noise(13)))


def test_flipped_bit_is_refused_by_name_only_where_its_rows_are_wanted(
    filled: FeatureStore, noise_keys: MakeKeys
) -> None:
    keys = noise_keys(13)
    [shard] = [shard for shard in shards(filled) if shard.stat().st_size == max(map(size_of, shards(filled)))]
    flipped(shard, 8 * shard.stat().st_size - 8 * 32 * 7 - 100)  # of a feature: the keys come last
    store = FeatureStore(filled.folder)
    assert torch.equal(store.rows(keys[:6])[:], torch.from_numpy(noise(13)[:6]))
    with pytest.raises(StoreError) as error:
        store.rows(keys[5:8])
    assert error.value.got == f"{shard} is damaged (its content is not what its name was made from)"
    assert "run the diva embed command again" in error.value.hint


def test_shard_is_read_once_to_be_checked(
    filled: FeatureStore, noise_keys: MakeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    digest_of_file = hashlib.file_digest

    def noted(stream: BinaryIO, *arguments: object) -> object:
        checked.append(Path(stream.name).name)
        return digest_of_file(stream, *arguments)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    filled.rows(noise_keys(13)[:6])
    assert len(checked) == 2
    FeatureStore(filled.folder).rows(noise_keys(13))
    assert sorted(checked) == [shard.name for shard in shards(filled)]
    os.utime(shards(filled)[0])  # it may have changed
    FeatureStore(filled.folder).rows(noise_keys(13))
    assert len(checked) == 4


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:500] + b"!!!!" + data[504:]]
)
def test_damaged_shard_is_set_aside_where_the_store_is_written_to(
    filled: FeatureStore, noise_keys: MakeKeys, damage: Callable[[bytes], bytes]
) -> None:
    keys = noise_keys(13)
    shard = max(shards(filled), key=size_of)  # of 7 rows: that there are more than one is needed below
    content = damage(shard.read_bytes())
    shard.write_bytes(content)
    store = FeatureStore.create(filled.folder, filled.identity, 12)
    store.mend(keys)
    assert store.damaged == [shard.name]
    assert shard.with_name(shard.name + ".damaged").read_bytes() == content
    lost = store.positions(keys) < 0
    assert lost.tolist() == [False] * 6 + [True] * 7
    said: list[str] = []
    store.told(said.append)
    [sentence] = said
    assert sentence.startswith(
        f"1 damaged file in {filled.folder}: {shard.name}. What was lost is made again"
    )
    store.append(keys[lost], noise(13)[lost])
    assert torch.equal(store.rows(keys)[:], torch.from_numpy(noise(13)))
    again = FeatureStore(filled.folder)
    assert torch.equal(again.rows(keys)[:], torch.from_numpy(noise(13)))
    again.told(said.append)
    assert len(said) == 1


def test_row_that_two_shards_held_is_looked_for_in_both(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    keys = noise_keys(13)
    filled.append(keys[::-1], noise(13)[::-1])
    for shard in shards(filled):
        if shard.name != filled.written[0]:
            flipped(shard, 1200)  # of a feature
    store = FeatureStore.create(filled.folder, filled.identity, 12)
    store.mend(keys)
    assert sorted(store.damaged) == sorted(filled.written[1:])
    assert (store.positions(keys) >= 0).tolist() == [True] * 5 + [False] * 8
    assert torch.equal(store.rows(keys[:5])[:], torch.from_numpy(noise(13)[:5]))


def test_two_processes_may_set_the_same_shard_aside(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    keys = noise_keys(13)
    shard = shards(filled)[0]
    one, two = (FeatureStore.create(filled.folder, filled.identity, 12) for _ in range(2))
    flipped(shard, 8 * shard.stat().st_size - 8)
    for store in (one, two):
        store.mend(keys)
    assert (one.positions(keys) < 0).tolist() == (two.positions(keys) < 0).tolist()
    assert (one.positions(keys) < 0).any()
    assert (one.damaged, two.damaged) == ([shard.name], [])


def test_files_of_others_are_let_be(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    others = ("shard-00001.safetensors", "shard-of-mine.safetensors", f"shard-{0:032X}.safetensors")
    for name in others[:2]:
        (filled.folder / name).write_bytes(b"weights of a large model")
    store = FeatureStore.create(filled.folder, filled.identity, 12)
    store.mend(noise_keys(13))
    assert store.damaged == []
    assert torch.equal(store.rows(noise_keys(13))[:], torch.from_numpy(noise(13)))
    assert all((filled.folder / name).exists() for name in others[:2])


DESCRIPTIONS = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[1]",
    b'{"format": 1}',
    b'{"format": 1, "identity": {}, "n_features": 9}',
]


@pytest.mark.parametrize("content", DESCRIPTIONS)
def test_damaged_description_of_the_cache_is_written_anew(
    tmp_path: Path, noise_keys: MakeKeys, content: bytes
) -> None:
    identity = {"model": "net"}
    store = FeatureStore.in_cache(tmp_path, identity, 12)
    store.append(noise_keys(5), noise(5))
    file = store.folder / "store.json"
    whole = file.read_bytes()
    file.write_bytes(content)
    again = FeatureStore.in_cache(tmp_path, identity, 12)
    assert again.damaged == ["store.json"]
    assert file.read_bytes() == whole
    # The folder is named by the identity: its shards are of use whatever was in the description.
    assert torch.equal(again.rows(noise_keys(5))[:], torch.from_numpy(noise(5)))
    assert FeatureStore.in_cache(tmp_path, identity, 12).damaged == []


@pytest.mark.parametrize("content", DESCRIPTIONS[:-1])
def test_shards_beside_a_damaged_description_are_nobodys(
    filled: FeatureStore, noise_keys: MakeKeys, content: bytes
) -> None:
    filled.save_head((torch.ones(3, 12), torch.zeros(3)))
    (filled.folder / "store.json").write_bytes(content)
    before = {shard.name for shard in shards(filled)}
    store = FeatureStore.create(filled.folder, {"model": "another"}, 12)
    assert set(store.damaged) == {"store.json", "head.safetensors", *before}
    assert store.load_head() is None
    assert (store.positions(noise_keys(13)) == -1).all()
    assert {file.name for file in filled.folder.glob("*.damaged")} == {
        f"{name}.damaged" for name in before
    } | {"head.safetensors.damaged"}


def test_later_format_in_the_cache_is_refused_and_not_written_over(tmp_path: Path) -> None:
    file = FeatureStore.in_cache(tmp_path, {}, 12).folder / "store.json"
    later = json.dumps({"format": 2, "more": []})
    file.write_text(later)
    with pytest.raises(StoreError, match="format 2"):
        FeatureStore.in_cache(tmp_path, {}, 12)
    assert file.read_text() == later


def test_later_format_is_refused(filled: FeatureStore) -> None:
    file = filled.folder / "store.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    refused_when_opened(filled, filled.folder, "format 2")


@pytest.mark.parametrize("content", [b"", b"{", b"no JSON", b"\xff\xfe", b"[1]", b'{"format": 1}'])
def test_description_that_is_none_is_refused_by_name(filled: FeatureStore, content: bytes) -> None:
    file = filled.folder / "store.json"
    file.write_bytes(content)
    refused_when_opened(filled, file, "")


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"store\.json cannot be read"):
        FeatureStore(tmp_path)


def test_temporary_files_of_a_killed_process_are_ignored(filled: FeatureStore) -> None:
    (filled.folder / ".diva-0123456789abcdef.tmp").write_bytes(b"half a shard")
    assert len(FeatureStore(filled.folder)) == 13


def test_temporary_files_that_nobody_writes_to_any_more_are_removed(filled: FeatureStore) -> None:
    abandoned, present, other = (filled.folder / name for name in (".diva-00.tmp", ".diva-11.tmp", "x.tmp"))
    for file in (abandoned, present, other):
        file.write_bytes(b"half a shard")
    for file in (abandoned, other):
        os.utime(file, (time.time() - 7200,) * 2)
    FeatureStore(filled.folder)
    assert abandoned.exists()  # a store that is only read is left as it is
    FeatureStore.create(filled.folder, filled.identity, 12)
    assert [file.exists() for file in (abandoned, present, other)] == [False, True, True]


def test_nothing_temporary_is_left_behind(filled: FeatureStore) -> None:
    assert sorted(path.name[:6] for path in filled.folder.iterdir()) == ["shard-"] * 3 + ["store."]


def test_two_writers_keep_both_their_rows(tmp_path: Path, noise_keys: MakeKeys) -> None:
    one, other = (FeatureStore.create(tmp_path / "s", {}, 12) for _ in range(2))
    one.append(noise_keys(13)[:6], noise(13)[:6])
    other.append(noise_keys(13)[4:], noise(13)[4:])
    rows = FeatureStore(tmp_path / "s").rows(noise_keys(13))
    assert torch.equal(rows[:], torch.from_numpy(noise(13)))


def test_a_store_that_was_moved_is_the_same(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    moved = shutil.move(filled.folder, filled.folder.with_name("elsewhere"))
    assert torch.equal(FeatureStore(moved).rows(noise_keys(13))[:], torch.from_numpy(noise(13)))


def test_head_comes_back(store: FeatureStore) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(12, 3, generator=generator).T, torch.randn(3, generator=generator)
    assert store.load_head() is None
    store.save_head(None)
    assert store.load_head() is None
    store.save_head((weight, bias))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = FeatureStore(store.folder).load_head()
    assert kept is not None
    assert torch.equal(kept[0], weight)
    assert torch.equal(kept[1], bias)


def test_damaged_head_is_refused_by_name(store: FeatureStore) -> None:
    (store.folder / "head.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(StoreError, match=r"head\.safetensors is damaged"):
        store.load_head()


def test_no_flipped_bit_of_the_head_is_taken_for_a_weight(store: FeatureStore) -> None:
    weight, bias = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)), torch.zeros(3)
    store.save_head((weight, bias))
    file = store.folder / "head.safetensors"
    whole = file.read_bytes()
    unnoticed = 0
    for bit in np.random.default_rng(0).permutation(8 * len(whole))[:400].tolist():
        flipped(file, bit)
        try:
            kept = store.load_head()
        except StoreError:
            kept = None
        if kept is not None:
            # Of the name of the digest alone: then there is none, and nothing is wrong.
            unnoticed += 1
            assert torch.equal(kept[0], weight)
            assert torch.equal(kept[1], bias)
        flipped(file, bit)
    assert file.read_bytes() == whole
    assert unnoticed < 100


def test_damaged_head_is_written_anew(store: FeatureStore) -> None:
    head = torch.ones(3, 12), torch.zeros(3)
    store.save_head(head)
    file = store.folder / "head.safetensors"
    whole = file.read_bytes()
    assert store.damaged == []
    for content in (b"", whole[:-1], whole[:-1] + b"!"):
        file.write_bytes(content)
        again = FeatureStore.create(store.folder, store.identity, 12)
        again.save_head(head)
        assert again.damaged == ["head.safetensors"]
        assert file.read_bytes() == whole


def test_head_that_was_written_without_a_digest_is_read(store: FeatureStore) -> None:
    save_file(
        {"weight": np.ones((3, 12), np.float32), "bias": np.zeros(3, np.float32)},
        store.folder / "head.safetensors",
    )
    kept = store.load_head()
    assert kept is not None
    assert torch.equal(kept[0], torch.ones(3, 12))
    store.save_head(kept)
    assert store.damaged == []


def test_head_without_bias_is_refused(store: FeatureStore) -> None:
    save_file({"weight": np.zeros((3, 12), np.float32)}, store.folder / "head.safetensors")
    with pytest.raises(StoreError, match=r"head\.safetensors is damaged"):
        store.load_head()


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    with pytest.raises(OutputError, match=r"file/store\.json cannot be written"):
        FeatureStore.create(tmp_path / "file", {}, 12)
    assert (tmp_path / "file").read_text() == "here first"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_to(filled: FeatureStore, noise_keys: MakeKeys) -> None:
    filled.folder.chmod(0o500)
    try:
        with pytest.raises(OutputError, match=r"shard-\w+\.safetensors cannot be written"):
            filled.append(noise_keys(1, seed=5), noise(1))
        with pytest.raises(OutputError):
            FeatureStore.create(filled.folder / "inner", {}, 12)
        assert len(FeatureStore(filled.folder)) == 13
    finally:
        filled.folder.chmod(0o700)


def test_shard_that_cannot_be_written_leaves_the_store_as_it_was(
    filled: FeatureStore, noise_keys: MakeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        filled.append(noise_keys(2, seed=5), noise(2))
    assert len(filled) == len(FeatureStore(filled.folder)) == 13
    assert len(list(filled.folder.iterdir())) == 4


@pytest.mark.parametrize(("n", "size", "sizes"), [(0, 3, []), (3, 3, [3]), (7, 3, [3, 3, 1])])
def test_batches_cover_all_rows_once(n: int, size: int, sizes: list[int]) -> None:
    parts = [range(n)[part] for part in batched(n, size)]
    assert [len(part) for part in parts] == sizes
    assert [row for part in parts for row in part] == list(range(n))
