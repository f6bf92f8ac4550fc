"""What is no whole network for images is refused in one message, whose advice works."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from divacli.backbones.load import load_backbone
from divacli.errors import ModelError
from tests.backbones.saved import change_weights, set_json, without

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.mark.parametrize(
    ("option", "value"), [("checkpoint", Path("w.pt")), ("weights", "DEFAULT"), ("image_size", 64)]
)
def test_the_name_says_it_all(classifier: Path, option: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"--{option.replace('_', '-')} {value} with hf:") as raised:
        load_backbone(f"hf:{classifier}", **{option: value})
    assert "--model hf:FOLDER" in raised.value.hint


def test_transformers_not_installed(monkeypatch: pytest.MonkeyPatch, classifier: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'divacli\[transformers\]'"):
        load_backbone(f"hf:{classifier}")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_that_a_configuration_names_are_not_fetched(classifier: Path, folder: Path, key: str) -> None:
    """transformers would download and run such code, or ask for the package that does."""
    set_json(folder / "config.json", **{key: "someone/kernel"})
    assert load_backbone(f"hf:{folder}").identity == load_backbone(f"hf:{classifier}").identity


def test_nor_are_those_of_a_half(clip_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "copy")
    described = json.loads((folder / "config.json").read_text())
    halves = {
        half: {**described[half], "_attn_implementation": "someone/kernel"}
        for half in ("vision_config", "text_config")
    }
    set_json(folder / "config.json", **halves)
    for kind in ("hf", "clip"):
        identity = load_backbone(f"{kind}:{folder}").identity
        assert identity == load_backbone(f"{kind}:{clip_folder}").identity


def is_a(architecture: str, **more: object) -> Callable[[Path], None]:
    return lambda folder: set_json(folder / "config.json", architectures=[architecture], **more)


def configured(**values: object) -> Callable[[Path], None]:
    return lambda folder: set_json(folder / "config.json", **values)


def removed(*files: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / file).unlink() for file in files] and None


def lacks(*prefixes: str) -> Callable[[Path], None]:
    return lambda folder: without(folder, *prefixes)


def infinite(folder: Path) -> None:
    change_weights(folder, lambda weights: {name: w * torch.inf for name, w in weights.items()})


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def twice(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00002-of-00002.safetensors")


def a_pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def of_another_size(folder: Path) -> None:
    transformers.ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)


def odd_preparation(folder: Path) -> None:
    set_json(folder / "preprocessor_config.json", image_mean=7, resample="x")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (shutil.rmtree, "cannot be loaded"),
        (a_pipe, "config.json: no regular file"),
        (removed("config.json"), "cannot be loaded: FileNotFoundError"),
        (removed("model.safetensors"), "has no weights"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json holds no object"),
        (configured(architectures=None), "does not say which network"),
        (configured(model_type="of_nobody"), r"of the kind 'of_nobody'\)(.|\n)*a newer transformers"),
        (configured(quantization_config={"bits": 4}), "quantised weights"),
        (
            configured(hidden_size=16, intermediate_size=16),
            "other shapes than its config.json says: classifier",
        ),
        (is_a("ViTForMaskedImageModeling"), "is a ViTForMaskedImageModeling"),
        (is_a("BertModel", model_type="bert"), r"is a BertModel \(of the kind 'bert'\)"),
        (is_a("YolosForObjectDetection", model_type="yolos"), "is a YolosForObjectDetection"),
        (is_a("SegformerForSemanticSegmentation", model_type="segformer"), "is a SegformerForSemanticSegm"),
        (lacks("vit.layernorm."), "lacks 2 of its weights: vit.layernorm.bias"),
        (lacks("vit.layernorm.", "classifier."), "lacks 4 of its weights"),
        (infinite, "NaN or infinite values"),
        (cut_short, "broken safetensors file"),
        (twice, "in two files"),
        (of_another_size, "fails on images of its own image processor"),
        (odd_preparation, "cannot be loaded"),
    ],
)
def test_what_is_no_whole_network_for_images(
    folder: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=says) as raised:
        load_backbone(f"hf:{folder}")
    assert len(str(raised.value).splitlines()) <= 3


def test_a_folder_of_timm_names_the_option(folder: Path) -> None:
    (folder / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(ModelError, match="--model timm:resnet18 --checkpoint"):
        load_backbone(f"hf:{folder}")


def test_the_advice_for_a_missing_image_processor_works(
    folder: Path, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="has no image processor") as raised:
        load_backbone(f"hf:{folder}")
    _, _, command = raised.value.hint.partition("python -c ")
    (code,) = shlex.split(command)
    exec(code.replace("'NAME'", repr(str(classifier))))
    assert load_backbone(f"hf:{folder}").identity == load_backbone(f"hf:{classifier}").identity
