"""Features of transformed copies: those of transformed files, always the same, apart from the images' own."""

import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from divacli.backbones.backbone import Backbone
from divacli.backbones.transform import imagenet_transform
from divacli.errors import DataError
from divacli.features import (
    BackboneChoice,
    ExtractOptions,
    Samples,
    copies_of,
    read_data,
    samples_of,
    write_store,
)
from divacli.features.augmentation import augmented
from divacli.features.transform_names import parse_transform
from divacli.manifest import Manifest, read_manifest


@pytest.fixture
def manifest(photos: Path) -> Manifest:
    return read_manifest(str(photos))


@pytest.fixture
def copies(choice: BackboneChoice, options: ExtractOptions, cache: Path) -> Callable[..., Samples]:
    """Samples with the features of their copies by the tiny network and one cache, unless told otherwise."""

    def run(manifest: Manifest, text: str, **other: object) -> Samples:
        arguments = {"options": options, "cache": cache, "seed": 0, **other}
        return copies_of(manifest, choice, parse_transform(text), **arguments)

    return run


@pytest.fixture
def write_transform(tmp_path: Path) -> Callable[[str], str]:
    """Write a file with a transform `change(image)` of this body; the result is what names it."""

    def write(body: str) -> str:
        path = tmp_path / "aug.py"
        path.write_text(f"from PIL import Image, ImageOps\n\n\ndef change(image):\n{body}")
        return f"{path}:change"

    return write


def table_of(files: list[str], folder: Path) -> Manifest:
    pd.DataFrame({"path": files, "label": [Path(file).stem[1] for file in files]}).to_csv(
        folder / "t.csv", index=False
    )
    return read_manifest(str(folder / "t.csv"))


def bits(samples: Samples) -> bytes:
    return samples.features[:].numpy().tobytes()


def test_features_are_those_of_transformed_files(
    copies: Callable,
    manifest: Manifest,
    choice: BackboneChoice,
    options: ExtractOptions,
    cache: Path,
    tmp_path: Path,
) -> None:
    for file in manifest.table["path"]:
        target = (tmp_path / "flipped" / file).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        ImageOps.mirror(Image.open(manifest.folder / file).convert("RGB")).save(target)
    flipped = read_manifest(str(tmp_path / "flipped"))
    expected = samples_of(flipped, choice, options, cache)
    found = copies(manifest, "hflip")
    pd.testing.assert_frame_equal(found.manifest.table, manifest.table)
    assert len(found.failed) == 0
    assert bits(found) == bits(expected)
    assert bits(found) != bits(samples_of(manifest, choice, options, cache))


@pytest.mark.parametrize("text", ["rotate:90", "RandAugment", "blur:5"])
def test_batch_size_workers_and_order_change_no_bit(
    copies: Callable, many: list[str], text: str, tmp_path: Path
) -> None:
    expected = copies(table_of(many, tmp_path), text)
    assert expected.embedded == 80
    order = np.random.default_rng(0).permutation(80)
    shuffled = table_of([many[position] for position in order], tmp_path)
    for number, (workers, batch_size) in enumerate([(0, 7), (2, 32), (2, 3)]):
        options = ExtractOptions(torch.device("cpu"), batch_size=batch_size, workers=workers)
        found = copies(shuffled, text, options=options, cache=tmp_path / f"cache-{number}")
        assert found.embedded == 80
        np.testing.assert_array_equal(found.features[:], expected.features[order])


def test_every_transform_and_seed_has_features_of_its_own(
    copies: Callable, manifest: Manifest, choice: BackboneChoice, options: ExtractOptions, cache: Path
) -> None:
    def all_kinds() -> list[Samples]:
        return [
            samples_of(manifest, choice, options, cache),
            copies(manifest, "hflip"),
            copies(manifest, "vflip"),
            copies(manifest, "rotate:90"),
            copies(manifest, "rotate:90", seed=1),
            copies(manifest, "rotate:80"),
        ]

    first = all_kinds()
    assert {samples.embedded for samples in first} == {30}
    assert len({samples.store for samples in first}) == len({bits(samples) for samples in first}) == 6
    assert len({samples.fingerprint for samples in first}) == 6
    assert len(list((cache / "features").iterdir())) == 6
    second = all_kinds()
    assert {samples.embedded for samples in second} == {0}
    assert [bits(samples) for samples in second] == [bits(samples) for samples in first]


def test_seed_is_no_matter_to_what_draws_nothing(copies: Callable, manifest: Manifest) -> None:
    assert copies(manifest, "hflip").embedded == 30
    assert copies(manifest, "hflip", seed=1).embedded == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_imported_and_printed_within_a_transform(
    copies: Callable,
    many: list[str],
    write_transform: Callable,
    tmp_path: Path,
    workers: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "beside_aug.py").write_text("from PIL.ImageOps import mirror\n")
    text = write_transform(
        "    print('changing')\n    import beside_aug\n    return beside_aug.mirror(image)\n"
    )
    manifest = table_of(many, tmp_path)
    options = ExtractOptions(torch.device("cpu"), workers=workers)
    parse_transform(text)
    sys.modules.pop("beside_aug")
    found = copies(manifest, text, options=options)
    sys.modules.pop("beside_aug")
    assert bits(found) == bits(copies(manifest, "hflip"))
    said = capfd.readouterr()
    assert "changing" not in said.out
    assert said.err.count("changing") >= len(many)


def test_changed_file_of_a_transform_is_another_transform(
    copies: Callable, manifest: Manifest, write_transform: Callable
) -> None:
    before = copies(manifest, write_transform("    return ImageOps.mirror(image)\n"))
    assert bits(before) == bits(copies(manifest, "hflip"))
    after = copies(manifest, write_transform("    return ImageOps.flip(image)\n"))
    assert after.embedded == 30
    assert bits(after) == bits(copies(manifest, "vflip"))


def test_identity_is_that_of_the_images_and_the_transform(
    copies: Callable, manifest: Manifest, choice: BackboneChoice, options: ExtractOptions, cache: Path
) -> None:
    plain = samples_of(manifest, choice, options, cache).identity
    text = parse_transform("rotate:90").text
    assert copies(manifest, "rotate:90", seed=4).identity == {**plain, "augment": f"{text}, seed 4"}
    assert copies(manifest, "hflip").identity == {**plain, "augment": parse_transform("hflip").text}


def test_notes_tell_of_the_network_and_of_the_transform(
    copies: Callable, manifest: Manifest, write_transform: Callable
) -> None:
    features, *notes = copies(manifest, write_transform("    return ImageOps.mirror(image)\n")).notes
    assert features.startswith("features: ")
    assert [note.split(" is run for its ")[1] for note in notes] == [
        "factory: use only files you trust",
        "transform: use only files you trust",
    ]


def test_network_is_loaded_once_and_keeps_its_own_transform(choice: BackboneChoice) -> None:
    named = parse_transform("hflip")
    one, other = (augmented(choice.backbone, named, seed) for seed in range(2))
    plain = choice.backbone
    assert plain._extractor is one._extractor is other._extractor
    assert "augment" not in plain.identity
    image = Image.linear_gradient("L").rotate(90).convert("RGB")
    assert torch.equal(one.transform(image), plain.transform(ImageOps.mirror(image)))
    assert not torch.equal(one.transform(image), plain.transform(image))


def test_transform_of_the_copies_can_be_sent_to_a_worker(
    backbone: Backbone, write_transform: Callable, save_noise: Callable, tmp_path: Path
) -> None:
    backbone.transform = imagenet_transform(32)
    image = Image.open(save_noise(tmp_path / "image.png", 0))
    for text in ("rotate:90", write_transform("    return ImageOps.mirror(image)\n")):
        transform = augmented(backbone, parse_transform(text), 3).transform
        sent: Callable[..., Tensor] = pickle.loads(pickle.dumps(transform))
        assert torch.equal(sent(image), transform(image))
        assert not torch.equal(sent(image), backbone.transform(image))


PICKY = """    if image.width == 24:
        raise ZeroDivisionError("of all sizes!")
    return ImageOps.mirror(image)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_images_without_copy_are_left_out_with_their_reason(
    copies: Callable,
    many: list[str],
    write_transform: Callable,
    save_noise: Callable,
    tmp_path: Path,
    workers: int,
) -> None:
    for position, file in enumerate(many):
        save_noise(Path(file), position, (20, 24 if position == 50 else 30))
    manifest = table_of(many, tmp_path)
    expected = copies(manifest, "hflip")
    Path(many[71]).write_bytes(b"")
    text = write_transform(PICKY)
    options = ExtractOptions(torch.device("cpu"), batch_size=8, workers=workers)
    found = copies(manifest, text, options=options)
    assert found.failed["path"].tolist() == [many[50], many[71]]
    assert found.failed["reason"].tolist() == [
        f"transform {text} fails: ZeroDivisionError: of all sizes!",
        "empty file (0 bytes)",
    ]
    others = np.delete(np.arange(80), [50, 71])
    assert found.manifest.table["path"].tolist() == [many[position] for position in others]
    np.testing.assert_array_equal(found.features[:], expected.features[others])
    with pytest.raises(
        DataError, match=r"aug\.py:change fails on \d of the images tried so far.*of all sizes!\)"
    ):
        copies(manifest, text, options=options, strict=True)


def test_transform_that_fails_on_every_image(
    copies: Callable, manifest: Manifest, write_transform: Callable
) -> None:
    text = write_transform(
        "    if image.width < 100:\n        raise OSError('too narrow')\n    return ImageOps.mirror(image)\n"
    )
    for strict in (False, True):
        with pytest.raises(DataError) as caught:
            copies(manifest, text, strict=strict)
        first = manifest.table["path"][0]
        reason = f"transform {text} fails: OSError: too narrow"
        assert caught.value.got == f"transform {text} fails on every image, the first: {first} ({reason})"
        assert "Pillow" not in str(caught.value)


def test_transform_that_fails_on_the_smallest_image_of_all(
    copies: Callable, manifest: Manifest, save_noise: Callable
) -> None:
    file = save_noise(manifest.folder / manifest.table["path"][4], 4, (3, 3))
    assert Image.open(file).size == (3, 3)
    found = copies(manifest, "blur:9")
    assert found.failed["path"].tolist() == [manifest.table["path"][4]]
    assert found.failed["reason"][0].startswith("transform blur:9 fails: RuntimeError: ")


@pytest.mark.parametrize("data", ["e.npz", "t.csv", "store"])
def test_features_without_images_cannot_be_transformed(
    copies: Callable,
    manifest: Manifest,
    choice: BackboneChoice,
    options: ExtractOptions,
    cache: Path,
    tmp_path: Path,
    data: str,
) -> None:
    np.savez(tmp_path / "e.npz", embedding=np.eye(4), label=list("abab"))
    (tmp_path / "t.csv").write_text("path,label,feature_source\n0,a,e.npz\n1,b,e.npz\n")
    write_store(samples_of(manifest, choice, options, cache), tmp_path / "store")
    opened = read_data(str(tmp_path / data))
    with pytest.raises(DataError, match=rf"{data} brings its features: there are no images to transform\n"):
        copies(opened.manifest if isinstance(opened, Samples) else opened, "hflip")


def test_empty_column_of_sources_brings_no_features(copies: Callable, manifest: Manifest) -> None:
    column = replace(manifest, table=manifest.table.assign(feature_source=""))
    assert copies(column, "hflip").embedded == 30
