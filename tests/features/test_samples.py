"""Every sample meets its own feature, is embedded once, and keeps it through tables, stores and moves."""

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from divacli.backbones.backbone import Backbone
from divacli.errors import DataError, ModelError, StoreError
from divacli.features import (
    BackboneChoice,
    ExtractOptions,
    Samples,
    is_store,
    load_samples,
    samples_of,
    write_store,
)
from divacli.manifest import read_manifest, relocate, write_table


@pytest.fixture
def load(choice: BackboneChoice, options: ExtractOptions, cache: Path) -> Callable[..., Samples]:
    """Load DATA with the tiny network and one cache, unless told otherwise."""

    def run(data: object, **other: object) -> Samples:
        arguments = {"choice": choice, "options": options, "cache": cache, **other}
        return load_samples(str(data), **arguments)

    return run


@pytest.fixture
def forbid_embedding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on, whoever runs a network fails the test."""

    def features(self: Backbone, images: Tensor) -> Tensor:
        pytest.fail("the network ran")

    return lambda: monkeypatch.setattr(Backbone, "features", features)


def by_path(samples: Samples) -> dict[str, list[float]]:
    return dict(zip(samples.manifest.table["path"], samples.features[:].tolist(), strict=True))


# Computed once


def test_features_and_labels_of_a_folder(
    load: Callable, photos: Path, model: str, by_plain_loop: Callable
) -> None:
    samples = load(photos)
    files = samples.manifest.files()
    assert len(samples) == samples.embedded == 30
    assert samples.manifest.table["label"].tolist() == [Path(file).parent.name for file in files]
    assert torch.allclose(samples.features[:], by_plain_loop(model, files), rtol=0, atol=1e-6)
    assert samples.features.shape == (30, 12)
    assert samples.failed.empty
    assert samples.failed.columns.tolist() == ["path", "label", "reason"]
    assert samples.seconds > 0
    assert "use only files you trust" in samples.notes[1]


def test_head_of_the_network_gives_its_output(load: Callable, photos: Path, choice: BackboneChoice) -> None:
    samples = load(photos)
    assert samples.head is not None
    assert [part.shape for part in samples.head] == [(3, 12), (3,)]
    assert samples.head[0].equal(choice.backbone.head[0])


def test_second_load_does_not_run_the_network(
    load: Callable, photos: Path, forbid_embedding: Callable
) -> None:
    first = load(photos)
    forbid_embedding()
    second = load(photos)
    assert second.embedded == 0
    assert second.fingerprint == first.fingerprint
    assert torch.equal(second.features[:], first.features[:])


def test_only_a_changed_image_is_embedded_again(
    load: Callable, photos: Path, save_noise: Callable, model: str, by_plain_loop: Callable
) -> None:
    first = load(photos)
    changed = save_noise(photos / "cat/03.png", 99)
    second = load(photos)
    assert second.embedded == 1
    assert second.fingerprint != first.fingerprint
    before, after = by_path(first), by_path(second)
    assert {path for path in before if before[path] != after[path]} == {"cat/03.png"}
    assert after["cat/03.png"] == pytest.approx(by_plain_loop(model, [str(changed)])[0].tolist(), abs=1e-6)


def test_changed_image_of_the_same_size_and_time_is_embedded_again(load: Callable, tmp_path: Path) -> None:
    from PIL import Image

    for name, colour in [("a/1.bmp", 10), ("b/2.bmp", 90)]:
        (tmp_path / "d" / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(tmp_path / "d" / name)
    file = tmp_path / "d/a/1.bmp"
    was = file.stat()
    first = load(tmp_path / "d")
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert file.stat().st_size == was.st_size
    second = load(tmp_path / "d")
    assert second.embedded == 1
    assert (first.features[:] != second.features[:]).any(dim=1).tolist() == [True, False]


def test_renamed_and_moved_images_are_not_embedded_again(
    load: Callable, photos: Path, forbid_embedding: Callable
) -> None:
    before = by_path(load(photos))
    (photos / "cat/00.png").rename(photos / "dog/first.png")
    shutil.move(photos, photos.with_name("pictures"))
    forbid_embedding()
    samples = load(photos.with_name("pictures"))
    after = by_path(samples)
    assert samples.embedded == 0
    assert after.pop("dog/first.png") == before.pop("cat/00.png")
    assert after == before


def other_weights(model: str, tmp_path: Path) -> BackboneChoice:
    from divacli.backbones.factory import from_factory

    network = from_factory(model, None, None).network
    torch.save({name: weight + 0.01 for name, weight in network.state_dict().items()}, tmp_path / "w.pt")
    return BackboneChoice(model, tmp_path / "w.pt")


def other_layer(model: str, tmp_path: Path) -> BackboneChoice:
    return BackboneChoice(model, layer="hidden")


def other_transform(model: str, tmp_path: Path) -> BackboneChoice:
    path = Path(model.rpartition(":")[0])
    path.write_text(path.read_text().replace("resize((16, 16))", "resize((17, 17))"))
    return BackboneChoice(model)


@pytest.mark.parametrize("other", [other_weights, other_layer, other_transform])
def test_another_network_embeds_everything_anew_in_a_store_of_its_own(
    load: Callable, photos: Path, model: str, tmp_path: Path, other: Callable
) -> None:
    first = load(photos)
    second = load(photos, choice=other(model, tmp_path))
    assert second.embedded == 30
    assert second.store != first.store
    assert second.fingerprint != first.fingerprint
    assert second.features.shape != first.features.shape or not torch.equal(
        second.features[:], first.features[:]
    )
    assert load(photos, choice=BackboneChoice(model)).embedded == 0


def test_another_image_size_embeds_everything_anew(
    load: Callable, photos: Path, write_network: Callable[[str], str]
) -> None:
    model = write_network("\n\ndef make():\n    return Net()\n")
    small, large = (BackboneChoice(model, image_size=size) for size in (16, 24))
    assert load(photos, choice=small).embedded == 30
    assert load(photos, choice=large).embedded == 30
    assert load(photos, choice=small).embedded == 0


def test_files_of_the_same_content_are_embedded_once(load: Callable, photos: Path) -> None:
    for name in ("dog/copy.png", "owl/copy.png"):
        shutil.copy(photos / "cat/00.png", photos / name)
    samples = load(photos)
    features = by_path(samples)
    assert len(samples) == 32
    assert samples.embedded == 30
    assert features["dog/copy.png"] == features["owl/copy.png"] == features["cat/00.png"]


def test_network_is_loaded_once(model: str) -> None:
    choice = BackboneChoice(model)
    assert choice.backbone is choice.backbone


def test_network_that_is_not_there(load: Callable, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file .*gone\.py"):
        load(photos, choice=BackboneChoice(str(tmp_path / "gone.py:make")))


# Images without features


@pytest.fixture
def damaged(photos: Path) -> Path:
    (photos / "cat/00.png").write_bytes(b"")
    (photos / "dog/31.png").write_text("hello")
    (photos / "owl/32.png").write_text("hello")
    return photos


def test_failed_images_are_listed_with_reasons_and_left_out(
    load: Callable, damaged: Path, model: str, by_plain_loop: Callable
) -> None:
    samples = load(damaged)
    assert samples.failed.to_numpy().tolist() == [
        ["cat/00.png", "cat", "empty file (0 bytes)"],
        ["dog/31.png", "dog", "not an image, or of an unknown format"],
        ["owl/32.png", "owl", "not an image, or of an unknown format"],
    ]
    assert len(samples) == samples.embedded == 29
    assert not set(samples.manifest.table["path"]) & set(samples.failed["path"])
    expected = by_plain_loop(model, samples.manifest.files())
    assert torch.allclose(samples.features[:], expected, rtol=0, atol=1e-6)


def test_failed_images_fail_again(load: Callable, damaged: Path) -> None:
    first, second = load(damaged), load(damaged)
    assert second.embedded == 0
    pd.testing.assert_frame_equal(second.failed, first.failed)
    assert second.fingerprint == first.fingerprint


def test_strict_names_the_files(load: Callable, damaged: Path) -> None:
    with pytest.raises(DataError) as error:
        load(damaged, strict=True)
    assert "3 of the images read so far cannot be decoded: cat/00.png (empty file" in error.value.got
    assert "owl/32.png" in error.value.got


def test_strict_without_failures(load: Callable, photos: Path) -> None:
    assert len(load(photos, strict=True)) == 30


def test_file_that_cannot_be_read_is_a_failure(
    load: Callable, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refusing(path: str, *arguments: object, **options: object) -> int:
        if str(path).endswith("00.png"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    samples = load(photos)
    assert samples.failed["reason"].tolist() == ["cannot be read: Permission denied"]
    assert samples.embedded == 29
    assert load(photos).embedded == 0


def test_two_classes_have_to_be_left(load: Callable, tmp_path: Path, save_noise: Callable) -> None:
    save_noise(tmp_path / "d/a/1.png", 1)
    save_noise(tmp_path / "d/a/2.png", 2)
    (tmp_path / "d/b").mkdir()
    (tmp_path / "d/b/3.png").touch()
    with pytest.raises(DataError) as error:
        load(tmp_path / "d")
    assert "fewer than two classes are left, for 1 images cannot be decoded" in error.value.got
    assert "b/3.png (empty file (0 bytes))" in error.value.got


def test_missing_files_are_refused_before_the_network_is_loaded(load: Callable, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\ngone.png,a\ngone too.png,b\n")
    with pytest.raises(DataError, match="2 of 2 files are not there"):
        load(tmp_path / "t.csv", choice=BackboneChoice())


# Tables of images


@pytest.mark.parametrize("seed", [0, 1])
def test_subset_in_another_order_meets_its_own_features(load: Callable, photos: Path, seed: int) -> None:
    whole = load(photos)
    rows = np.random.default_rng(seed).permutation(30)[: 30 - 7 * seed]
    table = whole.manifest.table.iloc[rows]
    write_table(table, photos / "part.csv", "csv")
    part = load(photos / "part.csv")
    assert part.embedded == 0
    assert part.manifest.table["path"].tolist() == table["path"].tolist()
    assert torch.equal(part.features[:], whole.features[:][rows])


def test_table_from_standard_input(load: Callable, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_path(load(photos))
    monkeypatch.chdir(photos)
    samples = load("-", stdin=io.BytesIO(b"path,label\nowl/02.jpg,x\ncat/00.png,y\n"))
    assert samples.manifest.table["label"].tolist() == ["x", "y"]
    assert samples.features[:].tolist() == [expected["owl/02.jpg"], expected["cat/00.png"]]


def test_table_with_empty_sources_is_one_of_images(load: Callable, photos: Path) -> None:
    (photos / "t.csv").write_text("path,label,feature_source\nowl/02.jpg,x,\ncat/00.png,y,\n")
    assert load(photos / "t.csv").embedded == 2


# Embeddings


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """Forty rows with names."""
    file = tmp_path / "npz/e.npz"
    file.parent.mkdir()
    random = np.random.default_rng(0)
    names = np.array([f"n{number}" for number in random.permutation(40)])
    np.savez(file, embedding=random.normal(size=(40, 5)), label=np.arange(40) % 3, path=names)
    return file


def test_embeddings_need_no_network(load: Callable, embeddings: Path) -> None:
    samples = load(embeddings, choice=BackboneChoice())
    assert (samples.features[:].numpy() == np.load(embeddings)["embedding"]).all()
    assert samples.keys is None
    assert samples.head is None
    assert samples.failed.empty
    assert samples.embedded == 0


@pytest.mark.parametrize("place", ["npz", ".", "elsewhere/deep"])
def test_table_of_embeddings_meets_its_own_rows(
    load: Callable, embeddings: Path, tmp_path: Path, place: str
) -> None:
    whole = load(embeddings)
    rows = np.random.default_rng(1).permutation(40)[:25]
    table = relocate(whole.manifest.table.iloc[rows], whole.manifest.folder, tmp_path / place)
    write_table(table, tmp_path / place / "t.parquet", "parquet")
    part = load(tmp_path / place / "t.parquet")
    assert part.manifest.table["path"].tolist() == np.load(embeddings)["path"][rows].tolist()
    assert torch.equal(part.features[:], whole.features[:][rows])
    assert part.fingerprint != whole.fingerprint


def test_manifest_selected_from_embeddings_meets_its_own_rows(
    load: Callable, embeddings: Path, options: ExtractOptions, cache: Path
) -> None:
    manifest = read_manifest(str(embeddings))
    part = samples_of(manifest.select(np.array([7, 3, 30])), BackboneChoice(), options, cache)
    assert (part.features[:].numpy() == np.load(embeddings)["embedding"][[7, 3, 30]]).all()


def test_fingerprint_of_embeddings_is_that_of_their_content(load: Callable, embeddings: Path) -> None:
    before = load(embeddings).fingerprint
    content = dict(np.load(embeddings))
    np.savez(embeddings, **content)
    assert load(embeddings).fingerprint == before
    content["embedding"][0, 0] += 1
    np.savez(embeddings, **content)
    assert load(embeddings).fingerprint != before


def write_rows(table: Path, rows: list[tuple[str, str, str]]) -> Path:
    write_table(pd.DataFrame(rows, columns=["path", "label", "feature_source"]), table, "csv")
    return table


def test_rows_of_several_sources(load: Callable, embeddings: Path, tmp_path: Path) -> None:
    np.savez(embeddings.with_name("f.npz"), embedding=np.eye(5, dtype=np.float32), label=np.arange(5))
    names = np.load(embeddings)["path"]
    rows = [(names[9], "a", "npz/e.npz"), ("3", "b", "npz/f.npz"), (names[2], "b", "npz/e.npz")]
    samples = load(write_rows(tmp_path / "t.csv", rows))
    first = np.load(embeddings)["embedding"]
    assert first.dtype == np.float64
    expected = np.stack([first[9], np.eye(5, dtype=np.float32)[3], first[2]])
    assert (samples.features[:].numpy() == expected).all()


def test_rows_with_and_without_source_do_not_mix(load: Callable, embeddings: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "t.csv", [("n0", "a", "npz/e.npz"), ("n1", "b", "")])
    with pytest.raises(DataError, match="1 of 2 rows name no source"):
        load(table)


def test_sources_of_different_widths_are_refused(load: Callable, embeddings: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", embedding=np.eye(6), label=np.arange(6))
    table = write_rows(tmp_path / "t.csv", [("n0", "a", "npz/e.npz"), ("3", "b", "wide.npz")])
    with pytest.raises(DataError, match=r"embeddings of \[5, 6\] numbers"):
        load(table)


def test_path_that_the_source_lacks_is_named(load: Callable, embeddings: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "t.csv", [("n0", "a", "npz/e.npz"), ("n99", "b", "npz/e.npz")])
    with pytest.raises(DataError, match=r"npz/e\.npz has no row for n99\n") as error:
        load(table)
    assert "every path" in error.value.expected


def test_source_without_embeddings_is_refused(load: Callable, photos: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "t.csv", [("n0", "a", "photos"), ("n1", "b", "photos")])
    with pytest.raises(DataError, match="photos holds no embeddings"):
        load(table)


def test_source_that_is_not_there(load: Callable, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "t.csv", [("n0", "a", "gone.npz"), ("n1", "b", "gone.npz")])
    with pytest.raises(DataError, match=r"gone\.npz does not exist"):
        load(table)


# Stores


@pytest.fixture
def written(load: Callable, damaged: Path, tmp_path: Path) -> tuple[Samples, Path]:
    """What was embedded, in an order of its own, and the store written of it."""
    order = np.random.default_rng(0).permutation(32)
    write_table(load(damaged).manifest.table.iloc[order[order < 29]], damaged / "t.csv", "csv")
    samples = load(damaged / "t.csv")
    write_store(samples, tmp_path / "out/store")
    return samples, tmp_path / "out/store"


def test_store_holds_the_same_samples(
    load: Callable, written: tuple[Samples, Path], damaged: Path, forbid_embedding: Callable
) -> None:
    before, folder = written
    files = before.manifest.files()
    shutil.rmtree(damaged)
    forbid_embedding()
    after = load(folder, choice=BackboneChoice())
    assert after.embedded == 0
    assert torch.equal(after.features[:], before.features[:])
    assert [os.path.normpath(file) for file in after.manifest.files()] == files
    assert after.manifest.table["label"].tolist() == before.manifest.table["label"].tolist()
    assert after.fingerprint == before.fingerprint
    assert after.identity == before.identity
    assert after.manifest.kind == "store"
    assert (after.keys == before.keys).all()
    assert all(torch.equal(*pair) for pair in zip(after.head, before.head, strict=True))


def test_moved_store_still_works(load: Callable, written: tuple[Samples, Path], tmp_path: Path) -> None:
    before, folder = written
    moved = shutil.move(folder, tmp_path / "moved")
    assert is_store(moved)
    assert torch.equal(load(moved).features[:], before.features[:])


@pytest.mark.parametrize("place", ["out/store", "out", "elsewhere/deep"])
def test_table_of_a_store_meets_its_own_rows(
    load: Callable, written: tuple[Samples, Path], tmp_path: Path, place: str
) -> None:
    _, folder = written
    whole = load(folder)
    rows = np.random.default_rng(1).permutation(29)[:20]
    table = relocate(whole.manifest.table.iloc[rows], whole.manifest.folder, tmp_path / place)
    write_table(table, tmp_path / place / "t.csv", "csv")
    part = load(tmp_path / place / "t.csv", choice=BackboneChoice())
    assert torch.equal(part.features[:], whole.features[:][rows])


def test_rows_of_two_stores(
    load: Callable, written: tuple[Samples, Path], damaged: Path, tmp_path: Path
) -> None:
    samples, _ = written
    half = replace(
        samples,
        manifest=samples.manifest.select(np.arange(9)),
        features=samples.features.select(np.arange(9)),
    )
    write_store(replace(half, keys=samples.keys[:9]), tmp_path / "half")
    names = samples.manifest.table["path"]
    rows = [(f"photos/{names[12]}", "a", "out/store"), (f"photos/{names[4]}", "b", "half")]
    found = load(write_rows(tmp_path / "t.csv", rows))
    assert torch.equal(found.features[:], samples.features[np.array([12, 4])])


def test_store_of_links_to_one_file(load: Callable, photos: Path, tmp_path: Path) -> None:
    for name in ("cat/link.png", "dog/link.png"):
        (photos / name).symlink_to(photos / "owl/02.jpg")
    write_store(load(photos), tmp_path / "store")
    whole = load(tmp_path / "store")
    write_table(whole.manifest.table.iloc[::-1], tmp_path / "store/t.csv", "csv")
    part = load(tmp_path / "store/t.csv")
    assert torch.equal(part.features[:], whole.features[:].flip(0))


def test_image_that_the_store_lacks_is_named(load: Callable, written: tuple[Samples, Path]) -> None:
    _, folder = written
    rows = [("../../photos/cat/03.png", "a", "."), ("../../photos/gone.png", "b", ".")]
    with pytest.raises(DataError, match=r"has no row for .*/photos/gone\.png\n"):
        load(write_rows(folder / "t.csv", rows))


def test_store_written_again_is_the_same_and_no_larger(load: Callable, written: tuple[Samples, Path]) -> None:
    samples, folder = written
    before = {file: file.read_bytes() for file in folder.iterdir()}
    write_store(samples, folder)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_store_of_a_store(load: Callable, written: tuple[Samples, Path], tmp_path: Path) -> None:
    samples, folder = written
    write_store(load(folder), tmp_path / "copy")
    copied = load(tmp_path / "copy")
    assert torch.equal(copied.features[:], samples.features[:])
    assert [os.path.normpath(file) for file in copied.manifest.files()] == samples.manifest.files()


def test_store_of_another_network_is_not_written_over(
    load: Callable, written: tuple[Samples, Path], damaged: Path, model: str
) -> None:
    _, folder = written
    other = load(damaged, choice=BackboneChoice(model, layer="hidden"))
    with pytest.raises(StoreError, match=r"layer 'fc' and not 'hidden'"):
        write_store(other, folder)


def test_unfinished_store_is_refused(load: Callable, written: tuple[Samples, Path]) -> None:
    _, folder = written
    (folder / "samples.parquet").unlink()
    with pytest.raises(StoreError, match=r"without samples\.parquet: unfinished"):
        load(folder)


def test_store_that_lost_a_shard_is_refused(load: Callable, written: tuple[Samples, Path]) -> None:
    _, folder = written
    next(folder.glob("shard-*")).unlink()
    with pytest.raises(StoreError, match="lacks 29 of 29 images"):
        load(folder)


def test_cache_is_no_store_of_samples(load: Callable, written: tuple[Samples, Path]) -> None:
    samples, _ = written
    with pytest.raises(StoreError, match="or part of the cache"):
        load(samples.store)


def test_store_of_embeddings_is_refused(load: Callable, embeddings: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds embeddings already"):
        write_store(load(embeddings), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_name_too_long_for_a_file_is_no_store() -> None:
    assert not is_store("x" * 5000)
