"""Features that are gradients are embedded as all others: however the work is cut, the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from divacli.backbones.linearised.expression import Linearize
from divacli.backbones.load import load_backbone
from divacli.curate.sample_scores import score
from divacli.errors import StoreError
from divacli.features import (
    BackboneChoice,
    ExtractOptions,
    Samples,
    copies_of,
    load_samples,
    read_data,
    write_store,
)
from divacli.features import extract as extract_module
from divacli.features.extract import feature_identity
from divacli.features.transform_names import parse_transform
from divacli.manifest import read_manifest
from divacli.solve.ridge_problem import SolveOptions

CPU = torch.device("cpu")
BOTH = Linearize("head+2*block:hidden", 64)

Embed = Callable[..., Samples]


@pytest.fixture
def embed(model: str, options: ExtractOptions, cache: Path) -> Embed:
    """Samples of DATA by the tiny network and one cache, unless told otherwise."""

    def run(data: Path, linearize: Linearize = BOTH, **other: object) -> Samples:
        arguments = {"options": options, "cache": cache, **other}
        return load_samples(str(data), BackboneChoice(model, linearize=linearize), **arguments)

    return run


@pytest.fixture
def table(many: list[str], tmp_path: Path) -> Callable[..., Path]:
    """Write a table of some of 80 images, in any order."""

    def write(name: str, rows: np.ndarray | range = range(80)) -> Path:
        files = [many[row] for row in rows]
        path = tmp_path / f"{name}.csv"
        pd.DataFrame({"path": files, "label": [f"{row % 3}" for row in rows]}).to_csv(path, index=False)
        return path

    return write


def bits(samples: Samples) -> bytes:
    return samples.features[:].numpy().tobytes()


def test_features_are_those_of_the_network_by_itself(embed: Embed, model: str, photos: Path) -> None:
    samples = embed(photos)
    backbone = load_backbone(model, linearize=BOTH)
    files = samples.manifest.files()
    images = torch.stack([backbone.transform(Image.open(file).convert("RGB")) for file in files])
    expected = backbone.features(images)
    assert samples.features.shape == expected.shape == (30, 12 + 64)
    torch.testing.assert_close(samples.features[:], expected, rtol=1e-4, atol=1e-5)
    assert expected.std(dim=0).min() > 1e-4  # else all would be alike and any order right
    assert samples.notes == (backbone.sentence, *backbone.notes)


def test_batch_size_workers_and_order_change_no_bit(
    embed: Embed, table: Callable[..., Path], tmp_path: Path
) -> None:
    expected = embed(table("plain"))
    assert expected.embedded == 80
    order = np.random.default_rng(0).permutation(80)
    shuffled = table("shuffled", order)
    for number, (workers, batch_size) in enumerate([(0, 1), (0, 7), (2, 32), (2, 3)]):
        options = ExtractOptions(CPU, batch_size=batch_size, workers=workers)
        found = embed(shuffled, options=options, cache=tmp_path / f"cache-{number}")
        assert found.embedded == 80
        np.testing.assert_array_equal(found.features[:], expected.features[order])


def test_resumed_after_an_interrupt_the_bits_are_the_same(
    embed: Embed,
    table: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = embed(table("all"), cache=tmp_path / "other cache")
    monkeypatch.setattr(extract_module, "BLOCK_PIXELS", 16 * 16 * 16)

    @contextmanager
    def interrupted(what: str, total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if what == "embedding" and done >= 32:
                raise KeyboardInterrupt

        yield advance

    options = ExtractOptions(CPU, batch_size=16, workers=0)
    with pytest.raises(KeyboardInterrupt):
        embed(table("all"), progress=interrupted, options=options)
    resumed = embed(table("all"))
    assert resumed.embedded == 80 - 32
    assert bits(resumed) == bits(expected)
    assert embed(table("all")).embedded == 0


def test_every_setting_has_a_store_of_its_own(embed: Embed, photos: Path, cache: Path) -> None:
    settings = [
        Linearize(),
        Linearize("block:hidden", 64),
        BOTH,
        Linearize("head+block:hidden", 64),
        Linearize("head+2*block:conv", 64),
        Linearize("head+2.000001*block:conv", 64),
        Linearize("head+2.000002*block:conv", 64),
        replace(BOTH, projection=32),
        replace(BOTH, seed=1),
    ]
    first = [embed(photos, linearize) for linearize in settings]
    assert {samples.embedded for samples in first} == {30}
    assert len(list((cache / "features").iterdir())) == len(settings)
    assert len({samples.fingerprint for samples in first}) == len(settings)
    assert len({bits(samples) for samples in first}) == len(settings)
    second = [embed(photos, linearize) for linearize in settings]
    assert {samples.embedded for samples in second} == {0}
    assert [bits(samples) for samples in second] == [bits(samples) for samples in first]


def test_features_as_ever_are_what_they_were(
    embed: Embed, model: str, photos: Path, options: ExtractOptions
) -> None:
    plain = embed(photos, Linearize("head"))
    identity = feature_identity(load_backbone(model), options)
    assert plain.identity == identity
    named = {"model", "factory", "architecture", "weights", "layer", "transform", "precision"}
    assert set(identity) == named
    assert identity["precision"] == "float32, batch norms folded"
    assert (
        load_samples(str(photos), BackboneChoice(model), options, embed(photos).store.parents[1]).embedded
        == 0
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_gradients_are_neither_mixed_nor_compiled(model: str, device: str) -> None:
    backbone = load_backbone(model, linearize=BOTH)
    options = ExtractOptions(torch.device(device), amp=True, compile=True)
    assert feature_identity(backbone, options)["precision"] == "float32"


def test_undecodable_images_are_reported(embed: Embed, photos: Path) -> None:
    expected = embed(photos, cache=photos.parent / "other cache")
    (photos / "cat/00.png").write_bytes(b"")
    found = embed(photos)
    assert found.failed["reason"].tolist() == ["empty file (0 bytes)"]
    assert bits(found) == expected.features[1:].numpy().tobytes()


def test_copies_have_gradients_of_their_own(
    embed: Embed, model: str, photos: Path, options: ExtractOptions, cache: Path
) -> None:
    choice = BackboneChoice(model, linearize=BOTH)
    manifest = read_manifest(str(photos))
    plain = load_samples(str(photos), choice, options, cache)
    copies = copies_of(manifest, choice, parse_transform("hflip"), options, cache, seed=0)
    assert copies.embedded == 30
    again = copies_of(
        manifest,
        BackboneChoice(model, linearize=BOTH),
        parse_transform("hflip"),
        options,
        cache / "2",
        seed=0,
    )
    assert bits(again) == bits(copies) != bits(plain)


def test_a_store_of_gradients_is_data(embed: Embed, photos: Path, tmp_path: Path, model: str) -> None:
    samples = embed(photos)
    write_store(samples, tmp_path / "store")
    found = read_data(str(tmp_path / "store"))
    assert bits(found) == bits(samples)
    torch.testing.assert_close(found.head[0], load_backbone(model, linearize=BOTH).head[0])
    with pytest.raises(StoreError, match="linearize"):
        write_store(embed(photos, Linearize("block:hidden", 64)), tmp_path / "store")


def test_scores_know_nothing_of_where_features_come_from(embed: Embed, photos: Path, tmp_path: Path) -> None:
    samples = embed(photos)
    arrays = tmp_path / "features.npz"
    table = samples.manifest.table
    np.savez(
        arrays,
        embedding=samples.features[:].numpy(),
        label=table["label"].to_numpy(str),
        path=table["path"].to_numpy(str),
    )
    options = SolveOptions(ridge=0.1)
    found, expected = (score(one, options, None) for one in (samples, read_loaded(arrays)))
    np.testing.assert_allclose(found.table["derivative"], expected.table["derivative"], rtol=1e-6, atol=1e-9)


def read_loaded(arrays: Path) -> Samples:
    return load_samples(str(arrays), BackboneChoice(), ExtractOptions(CPU), arrays.parent)
