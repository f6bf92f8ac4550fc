"""What gradients are preconditioned on: images by their content, the same ones for all data of a command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from divacli.backbones.backbone import load_backbone
from divacli.backbones.linearised.expression import Linearize
from divacli.curate.sample_scores import score
from divacli.embed import BackboneChoice, ExtractOptions, Samples, load_samples
from divacli.embed import reference as reference_module
from divacli.embed.reference import Reference
from divacli.errors import DataError, ModelError, StoreError
from divacli.solve.pose import SolveOptions

DIAGONAL = Linearize("head+block:hidden", 64, "diagonal")

Embed = Callable[..., Samples]


@pytest.fixture
def embed(model: str, options: ExtractOptions, cache: Path) -> Embed:
    """Samples of DATA, preconditioned on a reference, by a choice of their own unless one is given."""

    def run(
        data: Path, reference: Path | None = None, choice: BackboneChoice | None = None, **other: object
    ) -> Samples:
        named = None if reference is None else str(reference)
        choice = choice or BackboneChoice(model, linearize=DIAGONAL, reference=named)
        return load_samples(str(data), choice, **{"options": options, "cache": cache, **other})

    return run


@pytest.fixture
def others(tmp_path: Path, save_noise: Callable) -> Path:
    """Twelve images of two of the classes, all different from the photos, and darker."""
    for number in range(12):
        path = save_noise(tmp_path / f"others/{('cat', 'dog')[number % 2]}/{number}.png", 100 + number)
        image = Image.open(path).convert("RGB")
        Image.fromarray(np.asarray(image) // np.uint8(3 + number // 4)).save(path)
    return tmp_path / "others"


def bits(samples: Samples) -> bytes:
    return samples.features[:].numpy().tobytes()


# Which images


def test_those_with_the_smallest_keys_each_content_once(
    noise_keys: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_module, "REFERENCE_IMAGES", 4)
    keys = noise_keys(9)
    keys[3] = keys[5]
    readable = np.arange(9) != 7
    found = Reference.of([str(row) for row in range(9)], keys, readable)
    wanted = sorted({keys[row].tobytes() for row in range(9) if row != 7})[:4]
    assert [key.tobytes() for key in found.keys] == wanted
    assert [keys[int(file)].tobytes() for file in found.files] == wanted


def test_order_and_names_are_no_matter_and_content_is(noise_keys: Callable[..., np.ndarray]) -> None:
    keys, readable = noise_keys(9), np.ones(9, bool)
    names = [str(row) for row in range(9)]
    order = np.random.default_rng(0).permutation(9)
    expected = Reference.of(names, keys, readable)
    moved = Reference.of([names[row] for row in order], keys[order], readable)
    assert (moved.files, moved.digest) == (expected.files, expected.digest)
    assert Reference.of([f"other/{name}" for name in names], keys, readable).digest == expected.digest
    keys[4, 31] ^= 1
    assert Reference.of(names, keys, readable).digest != expected.digest


# What depends on it


def test_features_are_divided_by_the_root_mean_square_over_the_reference(
    embed: Embed, model: str, photos: Path, others: Path
) -> None:
    samples = embed(photos, others)
    raw = load_backbone(model, linearize=Linearize("head+block:hidden", 1 << 20))

    def rows(folder: Path) -> torch.Tensor:
        files = sorted(str(file) for file in folder.rglob("*.*"))
        images = [raw.transform(Image.open(file).convert("RGB")) for file in files]
        return raw.features(torch.stack(images))

    # Of the head's features nothing is changed; of the gradients their directions are known.
    torch.testing.assert_close(samples.features[:][:, :12], rows(photos)[:, :12], rtol=1e-4, atol=1e-5)
    fitted = load_backbone(model, linearize=Linearize("block:hidden", 1 << 20, "diagonal"))
    gradients = load_backbone(model, linearize=Linearize("block:hidden", 1 << 20))
    images = torch.stack(
        [
            gradients.transform(Image.open(file).convert("RGB"))
            for file in sorted(map(str, others.rglob("*.png")))
        ]
    )
    squares = gradients.features(images).square().mean(0)
    divisors = torch.cat([(part + 0.1 * part.mean()).sqrt() for part in squares.split([12 * 16, 12])])
    fitted.fit([images])
    torch.testing.assert_close(
        fitted.features(images), gradients.features(images) / divisors, rtol=1e-4, atol=1e-5
    )
    assert samples.features.shape == (30, 76)


def test_the_first_data_are_the_reference_of_all(
    embed: Embed, model: str, photos: Path, others: Path
) -> None:
    choice = BackboneChoice(model, linearize=DIAGONAL)
    first, second = embed(photos, choice=choice), embed(others, choice=choice)
    assert first.identity == second.identity
    assert bits(first) == bits(embed(photos, photos))
    assert bits(second) == bits(embed(others, photos))
    assert bits(second) != bits(embed(others))
    assert embed(photos).identity["reference"] != embed(others).identity["reference"]


def test_order_and_names_of_files_change_no_bit(
    embed: Embed, photos: Path, others: Path, tmp_path: Path
) -> None:
    expected = embed(others, photos)
    files = sorted(photos.rglob("*.*"))
    names = [f"{number:02d}{file.suffix}" for number, file in enumerate(reversed(files))]
    for file, name in zip(reversed(files), names, strict=True):
        shutil.copy(file, tmp_path / name)
    shutil.copy(tmp_path / names[0], tmp_path / "again.jpg")
    renamed = tmp_path / "renamed.csv"
    pd.DataFrame({"path": [*names[10:], *names[:10], "again.jpg"]}).to_csv(renamed, index=False)
    found = embed(others, renamed)
    assert (found.identity, found.embedded) == (expected.identity, 0)
    anew = embed(others, renamed, cache=tmp_path / "other cache")
    assert anew.embedded == 12
    assert bits(anew) == bits(expected)


def test_another_reference_gives_other_features_elsewhere(embed: Embed, photos: Path, others: Path) -> None:
    by_photos, by_others = embed(others, photos), embed(others, others)
    assert by_photos.store != by_others.store
    assert bits(by_photos) != bits(by_others)
    np.testing.assert_array_equal(by_photos.features[:][:, :12], by_others.features[:][:, :12])


def test_data_of_different_references_are_not_mixed(embed: Embed, photos: Path, others: Path) -> None:
    with pytest.raises(
        StoreError, match=r"others holds features computed otherwise: reference '\w+' and not"
    ):
        score(embed(photos), SolveOptions(ridge=0.1), embed(others))
    assert len(score(embed(photos, others), SolveOptions(ridge=0.1), embed(others, others)).table) == 30


def test_it_is_estimated_only_where_something_is_to_be_embedded(
    embed: Embed, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embed(photos)
    calls: list[Reference] = []
    fit = Reference.fit
    monkeypatch.setattr(Reference, "fit", lambda self, *rest: (calls.append(self), fit(self, *rest)))
    assert bits(embed(photos)) == bits(expected)
    assert not calls
    (photos / "cat/00.png").unlink()
    shutil.copy(photos / "cat/03.png", photos / "cat/00.png")
    assert embed(photos).embedded == 29  # with another reference
    assert len(calls) == 1


def test_images_of_a_reference_that_cannot_be_decoded_are_left_out(
    embed: Embed, photos: Path, others: Path
) -> None:
    expected = embed(photos, others)
    (others / "cat/broken.png").write_text("no image")
    found = embed(photos, others)
    assert found.identity != expected.identity
    assert found.embedded == 30
    assert bits(found) == bits(expected)


# What cannot be one


def test_a_reference_must_have_images_that_can_be_decoded(embed: Embed, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/one.png").write_text("no image")
    (tmp_path / "broken.csv").write_text("path\nbroken/one.png\n")
    with pytest.raises(DataError) as error:
        embed(photos, tmp_path / "broken.csv")
    assert error.value.got == (
        "none of the images that the preconditioner is to be estimated on can be decoded"
    )
    assert "--reference" in error.value.hint


def test_a_reference_must_be_there(embed: Embed, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        embed(photos, tmp_path / "nowhere")
    (tmp_path / "gone.csv").write_text("path\ngone.png\n")
    with pytest.raises(DataError):
        embed(photos, tmp_path / "gone.csv")


def test_a_reference_must_be_images(embed: Embed, photos: Path, tmp_path: Path) -> None:
    arrays = tmp_path / "features.npz"
    np.savez(arrays, embedding=np.ones((4, 2)), label=np.array(list("abab")))
    with pytest.raises(DataError) as error:
        embed(photos, arrays)
    assert f"--reference {arrays}" in error.value.got
    assert error.value.got.endswith("brings its features: there are no images to look at")


def test_without_preconditioning_no_reference_has_a_part(
    model: str, photos: Path, options: ExtractOptions, cache: Path
) -> None:
    choice = BackboneChoice(model, linearize=Linearize("block:hidden", 64))
    assert "reference" not in load_samples(str(photos), choice, options, cache).identity


def test_a_reference_that_would_change_nothing_is_refused(embed: Embed, model: str, photos: Path) -> None:
    for linearize in (Linearize(), Linearize("block:hidden", 64)):
        choice = BackboneChoice(model, linearize=linearize, reference=str(photos))
        with pytest.raises(ModelError, match=r"--reference .* without --precondition"):
            embed(photos, choice=choice)
