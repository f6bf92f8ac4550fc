"""Networks of transformers: their features are those of its own forward pass, whatever file they are in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from divacli.backbones.backbone import Backbone
from divacli.backbones.hub.huggingface import huggingface_folder
from divacli.backbones.linearised.expression import Linearize
from divacli.backbones.load import load_backbone, note_before
from divacli.errors import ModelError
from tests.backbones.saved import TOKENS, Save, change_weights, set_json, without

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
RESNET = {**STAGES, "embedding_size": 8, "layer_type": "basic"}
SWIN = {
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_size": 2,
    "image_size": 32,
    "patch_size": 4,
}
TEXTS = {**TOKENS, "vocab_size": 50, "max_position_embeddings": 8, "projection_size": 32}

CLASSIFIERS = {
    "ViT": TOKENS,
    "DeiT": TOKENS,
    "Dinov2": TOKENS,
    "Beit": TOKENS,
    "ConvNext": STAGES,
    "ResNet": RESNET,
    "Swin": SWIN,
    "Siglip": {"vision_config": TOKENS},
}
BARE = {
    "ViT": TOKENS,
    "Dinov2": TOKENS,
    "DINOv3ViT": TOKENS,
    "DINOv3ConvNext": STAGES,
    "Beit": TOKENS,
    "ConvNext": STAGES,
    "ResNet": RESNET,
    "Swin": SWIN,
    "SiglipVision": TOKENS,
}


def images(backbone: Backbone) -> Tensor:
    return torch.randn((3, *backbone.image_shape), generator=torch.Generator().manual_seed(1))


def check_embeddings(backbone: Backbone, expected: Tensor) -> None:
    features = backbone.features(images(backbone))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert (features[1:] - features[0]).abs().amax(1).min() > 1e-3  # else anything would pass
    assert (backbone.layer, backbone.head) == ("embedding", None)


# Features


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_features_of_a_classifier_are_what_enters_its_last_layer(save_network: Save, kind: str) -> None:
    name = f"{kind}ForImageClassification"
    folder = save_network(name, f"{kind}Config", CLASSIFIERS[kind], num_labels=5)
    backbone = load_backbone(f"hf:{folder}")
    network = getattr(transformers, name).from_pretrained(folder).eval()
    entered: list[Tensor] = []
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with torch.no_grad():
        logits = network(pixel_values=images(backbone)).logits
    features = backbone.features(images(backbone))
    torch.testing.assert_close(features, entered[0], rtol=1e-4, atol=1e-5)
    assert backbone.head is not None
    torch.testing.assert_close(features @ backbone.head[0].T + backbone.head[1], logits, rtol=1e-4, atol=1e-4)
    assert backbone.notes == ("its classifier has 5 classes",)


@pytest.mark.parametrize("kind", BARE)
def test_features_of_a_bare_network_are_its_pooled_output(save_network: Save, kind: str) -> None:
    if not hasattr(transformers, f"{kind}Model"):
        pytest.skip(f"transformers {transformers.__version__} has no {kind}Model")
    folder = save_network(f"{kind}Model", f"{kind}Config", BARE[kind])
    backbone = load_backbone(f"hf:{folder}")
    network = getattr(transformers, f"{kind}Model").from_pretrained(folder).eval()
    with torch.no_grad():
        check_embeddings(backbone, network(pixel_values=images(backbone)).pooler_output.flatten(1))
    assert backbone.notes == ()


@pytest.mark.parametrize("kind", ["Siglip", "CLIP"])
def test_of_a_network_for_images_and_texts_the_half_for_images_counts(save_network: Save, kind: str) -> None:
    halves = {"vision_config": TOKENS, "text_config": TEXTS}
    folder = save_network(f"{kind}Model", f"{kind}Config", halves)
    backbone = load_backbone(f"hf:{folder}")
    network = getattr(transformers, f"{kind}Model").from_pretrained(folder).eval()
    with torch.no_grad():
        check_embeddings(backbone, network.vision_model(pixel_values=images(backbone)).pooler_output)
    assert "half for images is used" in backbone.notes[0]


def test_without_the_weights_of_a_pooler_the_class_token_is_the_feature(
    save_network: Save, tmp_path: Path
) -> None:
    folder = shutil.copytree(save_network("ViTModel", "ViTConfig", TOKENS), tmp_path / "copy")
    without(folder, "pooler.")
    backbone = load_backbone(f"hf:{folder}")
    network = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        check_embeddings(backbone, network(pixel_values=images(backbone)).last_hidden_state[:, 0])
    assert "no weights of a pooler: features are its class token" in backbone.notes[0]
    assert load_backbone(f"hf:{folder}").identity == backbone.identity  # nothing of it is random


def test_without_pooler_and_class_token_features_are_means(save_network: Save) -> None:
    for name, settings in (("IJepa", TOKENS), ("PoolFormer", STAGES)):
        folder = save_network(f"{name}Model", f"{name}Config", settings)
        backbone = load_backbone(f"hf:{folder}")
        network = getattr(transformers, f"{name}Model").from_pretrained(folder).eval()
        with torch.no_grad():
            hidden = network(pixel_values=images(backbone)).last_hidden_state
        check_embeddings(backbone, hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3)))


@pytest.mark.parametrize(("kind", "settings"), [("ViT", TOKENS), ("Siglip", {"vision_config": TOKENS})])
def test_a_classifier_without_the_weights_of_its_head_is_used_without(
    save_network: Save, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    saved = save_network(f"{kind}ForImageClassification", f"{kind}Config", settings, num_labels=5)
    folder = shutil.copytree(saved, tmp_path / "copy")
    without(folder, "classifier.")
    backbone = load_backbone(f"hf:{folder}")
    assert (backbone.layer, backbone.n_features) == ("embedding", 32)
    assert "has no weights of a classifier (classifier.bias, classifier.weight)" in backbone.notes[0]


def test_another_layer_can_be_named(classifier: Path) -> None:
    backbone = load_backbone(f"hf:{classifier}", layer="network.vit.layernorm")
    assert (backbone.layer, backbone.head, backbone.n_features) == ("network.vit.layernorm", None, 32)


def test_a_classifier_can_be_linearised_and_a_bare_network_is_refused(
    classifier: Path, save_network: Save
) -> None:
    linearize = Linearize("full", projection=64)
    assert load_backbone(f"hf:{classifier}", linearize=linearize).linearized
    bare = save_network("ViTModel", "ViTConfig", TOKENS)
    with pytest.raises(ModelError, match="it has no classifier"):
        load_backbone(f"hf:{bare}", linearize=linearize)


# Files


def test_classes_are_named(classifier: Path) -> None:
    assert load_backbone(f"hf:{classifier}").notes == ("its classifier has 3 classes: cat, cow, dog",)


def shards(folder: Path) -> None:
    network = transformers.ViTForImageClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2


def pickled(folder: Path) -> None:
    torch.save(safetensors.torch.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def moved(folder: Path) -> None:
    set_json(
        folder / "config.json", id2label={0: "a", 1: "b", 2: "c"}, _name_or_path="elsewhere", dtype="float16"
    )


@pytest.mark.parametrize("change", [shards, pickled, moved])
def test_the_same_weights_in_other_files_are_the_same_network(
    classifier: Path, folder: Path, change: Callable[[Path], None]
) -> None:
    change(folder)
    assert load_backbone(f"hf:{folder}").identity == load_backbone(f"hf:{classifier}").identity


def test_settings_that_no_weight_shows_count(classifier: Path, folder: Path) -> None:
    set_json(folder / "config.json", num_attention_heads=2)
    one, other = (load_backbone(f"hf:{path}").identity for path in (classifier, folder))
    assert {key for key in one if one[key] != other[key]} == {"config"}


def test_half_precision_becomes_single(folder: Path) -> None:
    change_weights(folder, lambda weights: {name: tensor.half() for name, tensor in weights.items()})
    backbone = load_backbone(f"hf:{folder}")
    assert "half-precision weights converted to float32" in backbone.notes
    network = transformers.ViTForImageClassification.from_pretrained(folder).float().eval()
    with torch.no_grad():
        expected = network.vit(images(backbone)).last_hidden_state[:, 0]
    assert backbone.features(images(backbone)).dtype == torch.float32
    torch.testing.assert_close(backbone.features(images(backbone)), expected, rtol=1e-4, atol=1e-5)


def test_code_that_a_network_brings_is_refused_and_does_not_run(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nThing = None\n")
    set_json(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "own.Thing"})
    assert load_backbone(f"hf:{folder}").n_features == 32
    set_json(folder / "config.json", auto_map={"AutoModel": "own.Thing", "AutoConfig": "own.Thing"})
    with pytest.raises(ModelError, match="brings its own code"):
        load_backbone(f"hf:{folder}")
    assert not ran.exists()


def test_a_pickle_that_wants_to_run_code_runs_none(folder: Path) -> None:
    ran = folder / "ran"

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    (folder / "model.safetensors").unlink()
    torch.save({"classifier.weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds a dictionary"):
        load_backbone(f"hf:{folder}")
    assert not ran.exists()


# Recognised without --model


@pytest.mark.parametrize("file", ["", "model.safetensors", "pytorch_model.bin"])
def test_a_folder_or_the_weights_in_it_need_no_model(classifier: Path, folder: Path, file: str) -> None:
    if file.endswith(".bin"):
        pickled(folder)
    backbone = load_backbone(None, folder / file)
    assert backbone.identity == load_backbone(f"hf:{classifier}").identity
    assert backbone.notes[0] == f"{folder / file} is a Hugging Face network: read as --model hf:{folder}"
    assert note_before(None, folder / file, None) is None


def test_other_files_are_no_hugging_face_network(folder: Path) -> None:
    other = folder / "other.safetensors"
    shutil.copy(folder / "model.safetensors", other)
    assert huggingface_folder(other) is None
    (folder / "config.json").write_text('{"architecture": "resnet18"}')
    assert huggingface_folder(folder / "model.safetensors") is None
    (folder / "config.json").write_text("[")
    assert huggingface_folder(folder / "model.safetensors") is None
    (folder / "config.json").unlink()
    assert huggingface_folder(folder) is None


def test_score_of_a_fine_tuned_network_in_one_command(classifier: Path, tmp_path: Path) -> None:
    from divacli.cli.app import app

    generator = np.random.default_rng(0)
    for number in range(12):
        image = tmp_path / "photos" / ("cat" if number % 2 else "dog") / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8) // (2 if number % 2 else 1)
        Image.fromarray(pixels.astype(np.uint8)).save(image)
    arguments = [
        "score",
        tmp_path / "photos",
        "--checkpoint",
        classifier,
        "--out",
        tmp_path / "out",
        "--workers",
        0,
    ]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "3 classes: cat, cow, dog" in result.output
    assert len((tmp_path / "out/scores.csv").read_text().splitlines()) == 13
