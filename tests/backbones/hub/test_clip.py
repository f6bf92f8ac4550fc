"""CLIP's two halves: their embeddings are those of transformers, and what cannot be used is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from divacli.backbones.hub.clip import load_text_encoder
from divacli.backbones.load import load_backbone
from divacli.errors import ModelError
from tests.backbones.saved import change_weights, set_json

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

# Releases from 5 on also have one that resizes tensors, which rounds otherwise.
ImageProcessor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)

IMAGES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
    for seed, size in enumerate([(32, 32), (40, 48), (70, 36), (20, 30)])
]


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    """A tiny model that a test may change."""
    return Path(shutil.copytree(clip_folder, tmp_path / "copy"))


def reference(clip_folder: Path) -> Any:
    return transformers.CLIPModel.from_pretrained(clip_folder).eval()


def embedding(output: Any) -> Tensor:
    """What get_image_features and get_text_features return: a tensor before release 5, an output since."""
    return getattr(output, "pooler_output", output)


# Images


def test_features_are_the_image_embeddings_of_transformers(clip_folder: Path) -> None:
    backbone = load_backbone(f"clip:{clip_folder}")
    pixels = ImageProcessor.from_pretrained(clip_folder)(IMAGES, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = embedding(reference(clip_folder).get_image_features(pixels))
    features = backbone.features(torch.stack([backbone.transform(image) for image in IMAGES]))
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert (features[1:] - features[0]).abs().amax(1).min() > 0.01  # else anything would pass
    assert features.dtype == torch.float32
    assert (backbone.n_features, backbone.layer, backbone.head, backbone.batch_size) == (
        16,
        "embedding",
        None,
        None,
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": {"height": 32, "width": 32}},
        {"size": {"shortest_edge": 38}, "resample": 2},
        {"size": 40, "crop_size": 32},  # as the first published models state them
        {"do_center_crop": False, "size": {"height": 32, "width": 32}, "resample": 1},
        {"do_normalize": False},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
    ],
)
def test_transform_is_that_of_the_image_processor(folder: Path, settings: dict[str, Any]) -> None:
    # Sizes whose margins both round alike: of an odd margin torchvision may leave the other half pixel.
    set_json(folder / "preprocessor_config.json", **settings)
    transform = load_backbone(f"clip:{folder}").transform
    processor = ImageProcessor.from_pretrained(folder)
    for image in IMAGES:
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(transform(image), expected, rtol=0, atol=1e-5)


def test_transform_without_resize(folder: Path) -> None:
    set_json(folder / "preprocessor_config.json", do_resize=False)
    transform = load_backbone(f"clip:{folder}").transform
    expected = ImageProcessor.from_pretrained(folder)(IMAGES[1], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(transform(IMAGES[1]), expected, rtol=0, atol=1e-5)


def test_transform_goes_to_worker_processes(clip_folder: Path) -> None:
    backbone = load_backbone(f"clip:{clip_folder}")
    again = pickle.loads(pickle.dumps(backbone.transform))
    assert repr(again) == backbone.identity["transform"]
    assert torch.equal(again(IMAGES[1]), backbone.transform(IMAGES[1]))


# Texts


def test_text_features_are_the_text_embeddings_of_transformers(clip_folder: Path) -> None:
    encoder = load_text_encoder(f"clip:{clip_folder}")
    texts = ["a cat", "cat", "z, 7 !"]
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(clip_folder)
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = embedding(reference(clip_folder).get_text_features(**inputs))
    features = torch.cat([encoder.features(torch.tensor([row])) for row in encoder.tokens(texts)])
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert (features[1:] - features[0]).abs().amax(1).min() > 0.01
    assert (encoder.n_features, encoder.context_length) == (16, 12)
    assert encoder.to("cpu") is encoder


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (None, r"no network to embed texts(.|\n)*--model clip:NAME"),
        ("resnet18", "resnet18 embeds images only"),
    ],
)
def test_other_networks_embed_no_texts(model: str | None, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        load_text_encoder(model)


# What the features depend on


def both_identities(folder: Path) -> list[dict[str, str]]:
    model = f"clip:{folder}"
    return [load_backbone(model).identity, load_text_encoder(model).identity]


def test_images_and_texts_share_a_space_and_nothing_else_of_their_networks(clip_folder: Path) -> None:
    images, texts = both_identities(clip_folder)
    assert images["space"] == texts["space"]
    assert images["weights"] != texts["weights"]
    assert images["architecture"] != texts["architecture"]
    assert json.loads(json.dumps([images, texts])) == [images, texts]


def test_a_moved_model_is_the_same(clip_folder: Path, folder: Path) -> None:
    assert both_identities(folder) == both_identities(clip_folder)


def test_other_weights_are_another_space(
    clip_folder: Path, save_clip: Callable[..., Path], tmp_path: Path
) -> None:
    for first, other in zip(
        both_identities(clip_folder), both_identities(save_clip(tmp_path / "other", seed=1)), strict=True
    ):
        assert {key for key in first if first[key] != other[key]} == {"weights", "space"}


def test_settings_that_no_weight_shows_count(clip_folder: Path, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    set_json(folder / "config.json", text_config={**config["text_config"], "num_attention_heads": 2})
    images, texts = both_identities(clip_folder)
    other_images, other_texts = both_identities(folder)
    assert {key for key in images if images[key] != other_images[key]} == {"space"}
    assert {key for key in texts if texts[key] != other_texts[key]} == {"space", "architecture"}


def test_another_vocabulary_counts_for_texts(clip_folder: Path, folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].pop()
    set_json(folder / "tokenizer.json", model=tokenizer["model"])
    images, texts = both_identities(clip_folder)
    other_images, other_texts = both_identities(folder)
    assert images == other_images
    assert {key for key in texts if texts[key] != other_texts[key]} == {"tokenizer"}


# Files


def to_pickle(folder: Path) -> Path:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_a_pickle_of_weights_is_the_same_model(clip_folder: Path, folder: Path) -> None:
    assert both_identities(to_pickle(folder)) == both_identities(clip_folder)


def test_a_pickle_that_wants_to_run_code_runs_none(folder: Path) -> None:
    ran = folder / "ran"

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    to_pickle(folder)
    torch.save({"text_projection.weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds a dictionary"):
        load_backbone(f"clip:{folder}")
    assert not ran.exists()


def test_code_that_a_model_brings_does_not_run(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nTokenizer = Model = None\n")
    set_json(folder / "config.json", auto_map={"AutoModel": "own.Model", "AutoConfig": "own.Model"})
    set_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Tokenizer", "own.Tokenizer"]})
    load_backbone(f"clip:{folder}")
    load_text_encoder(f"clip:{folder}")
    assert not ran.exists()


def test_half_precision_becomes_single(folder: Path) -> None:
    change_weights(folder, lambda weights: {name: tensor.half() for name, tensor in weights.items()})
    set_json(folder / "config.json", dtype="float16")
    backbone = load_backbone(f"clip:{folder}")
    image = backbone.transform(IMAGES[0])[None]
    assert backbone.features(image).dtype == torch.float32
    with torch.no_grad():
        expected = embedding(reference(folder).float().get_image_features(image))
    torch.testing.assert_close(backbone.features(image), expected, rtol=1e-5, atol=1e-5)


def test_loading_is_silent_and_leaves_the_log_as_it_was(
    clip_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    load_backbone(f"clip:{clip_folder}")
    encoder = load_text_encoder(f"clip:{clip_folder}")
    encoder.tokens(["cat " * 50])
    after = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    assert after == before
    assert "".join(capfd.readouterr()) == ""


# From the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Put a function in the place of downloads."""
    import huggingface_hub

    return lambda download: monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def test_a_name_is_downloaded_without_pickles(clip_folder: Path, hub: Callable[..., None]) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled

    asked: list[tuple[str, list[str]]] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        assert not are_progress_bars_disabled()  # of some hundred megabytes one wants to see how far they are
        asked.append((name, allow_patterns))
        return str(clip_folder)

    hub(download)
    assert load_backbone("clip:some/model").identity == load_backbone(f"clip:{clip_folder}").identity
    assert [name for name, _ in asked] == ["some/model"]
    assert not any(".bin" in pattern for pattern in asked[0][1])


def test_pickles_are_downloaded_where_there_is_nothing_else(folder: Path, hub: Callable[..., None]) -> None:
    pickled = to_pickle(folder).joinpath("pytorch_model.bin").rename(folder / "elsewhere")
    asked: list[list[str]] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if len(asked) == 2:
            pickled.rename(folder / "pytorch_model.bin")
        return str(folder)

    hub(download)
    assert load_backbone("clip:some/model").n_features == 16
    assert asked[1] == ["pytorch_model.bin", "pytorch_model-*.bin"]


@pytest.mark.parametrize("error", [FileNotFoundError("no route\nmore"), ValueError("no such name")])
def test_a_failing_download_is_one_message(hub: Callable[..., None], error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    hub(fail)
    first = str(error).partition("\n")[0]
    with pytest.raises(ModelError, match=rf"clip:some/model cannot be loaded: \w+: {first}\n") as raised:
        load_backbone("clip:some/model")
    assert "huggingface.co" in raised.value.expected
    assert "check the name and the connection" in raised.value.hint


# Refusals


@pytest.mark.parametrize(
    ("option", "value"),
    [("checkpoint", Path("w.pt")), ("weights", "DEFAULT"), ("layer", "fc"), ("image_size", 64)],
)
def test_the_name_says_it_all(clip_folder: Path, option: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"--{option.replace('_', '-')} {value} with clip:") as raised:
        load_backbone(f"clip:{clip_folder}", **{option: value})
    assert "the name alone" in raised.value.expected


def test_transformers_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for load in (load_backbone, load_text_encoder):
        with pytest.raises(ModelError, match=r"pip install 'divacli\[transformers\]'"):
            load("clip:some/model")


def no_texts(folder: Path) -> None:
    change_weights(
        folder, lambda weights: {name: w for name, w in weights.items() if not name.startswith("text")}
    )


def infinite(folder: Path) -> None:
    change_weights(folder, lambda weights: {name: w * torch.inf for name, w in weights.items()})


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def of_another_shape(folder: Path) -> None:
    set_json(folder / "config.json", projection_dim=24)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (shutil.rmtree, "cannot be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (lambda folder: set_json(folder / "config.json", model_type="bert"), "of the kind 'bert'"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (cut_short, "is a broken safetensors file"),
        (of_another_shape, "2 of its weights have other shapes than its config.json says: text_projection"),
        (no_texts, r"lacks 3\d of its weights: text_model"),
        (infinite, "NaN or infinite values"),
    ],
)
def test_a_model_that_is_not_whole(folder: Path, spoil: Callable[[Path], object], says: str) -> None:
    spoil(folder)
    for load in (load_backbone, load_text_encoder):
        with pytest.raises(ModelError, match=says) as raised:
            load(f"clip:{folder}")
        assert len(str(raised.value).splitlines()) <= 3


def test_a_model_without_image_processor_embeds_texts_only(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(f"clip:{folder}")
    assert load_text_encoder(f"clip:{folder}").n_features == 16


def test_a_model_without_tokenizer_embeds_images_only(folder: Path) -> None:
    for file in folder.iterdir():
        if file.name.startswith(("tokenizer", "special", "vocab", "merges")):
            file.unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded|its tokenizer has 2 tokens"):
        load_text_encoder(f"clip:{folder}")
    assert load_backbone(f"clip:{folder}").n_features == 16


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"size": {"longest_edge": 32}}, r"size .*longest_edge"),
        ({"size": {"shortest_edge": 32, "longest_edge": 40}}, r"size .*longest_edge"),
        ({"do_rescale": False}, "rescale"),
        ({"rescale_factor": 0.5}, "rescale_factor 0.5"),
    ],
)
def test_an_unknown_preparation_of_images(folder: Path, settings: dict[str, Any], says: str) -> None:
    set_json(folder / "preprocessor_config.json", **settings)
    with pytest.raises(ModelError, match=says):
        load_backbone(f"clip:{folder}")
