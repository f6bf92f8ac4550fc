"""Image classifiers and bare networks for images of Hugging Face transformers: `hf:NAME`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from divacli.backbones.checkpoint import first_line
from divacli.backbones.fingerprint import text_digest
from divacli.backbones.hub.image_processor import processor_transform
from divacli.backbones.hub.model_folder import (
    CONFIG,
    EMBEDDING,
    WITH_MODEL,
    Loaded,
    explained,
    fetched,
    lacking,
    load_network,
    quietly,
    require_transformers,
    weight_files,
)
from divacli.backbones.source import Source
from divacli.backbones.transform import Transform, probe_images
from divacli.errors import ModelError, listed
from divacli.files.regular import DOCUMENT_BYTES, read_regular

Loader = Callable[[Any, Path, str], tuple[nn.Module, tuple[str, ...]]]
"""From a configuration, a folder and what the model is called to a network and notes on it."""

HF = "hf:"

_EXPECTED = "a folder that save_pretrained wrote, or the name of a model on huggingface.co"
_NETWORKS = (
    "an image classifier (...ForImageClassification) or a bare network for images, such as ViTModel or "
    "Dinov2Model"
)
_BARE_KINDS = (
    "aimv2_vision_model",
    "clip_vision_model",
    "dinov3_convnext",
    "dinov3_vit",
    "siglip_vision_model",
)
"""Kinds of networks for images that transformers has without a classifier."""

_TWO_HALVES = ("clip", "siglip")
"""Kinds that embed images and texts: their half for images is taken."""

_HEAD = re.compile(r"[a-z_]*(classifier|head)[a-z_]*\.")
"""What parameters of classifiers are called that are no part of the bare network."""

_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_NAMES_ONLY = ("architectures", "id2label", "label2id", "dtype", "torch_dtype", "transformers_version")
"""What a configuration says beside what outputs depend on."""


class Classifier(nn.Module):
    """An image classifier of transformers, from images to logits.

    Args:
        network: Its class is one of ...ForImageClassification.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (b, K) of images (b, 3, h, w)."""
        return self.network(pixel_values=images).logits


class Embedder(nn.Module):
    """A bare network of transformers, from images to one vector each.

    That is what the network pools itself. Where it pools nothing, it is the class token after the last norm,
    and without such a token the mean over all tokens or over space.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.embedding = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (b, d) of images (b, 3, h, w)."""
        output = self.network(pixel_values=images)
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            hidden = output.last_hidden_state
            if hidden.ndim == 4:
                pooled = hidden.mean((2, 3))
            else:
                pooled = hidden[:, 0] if self.has_class_token else hidden.mean(1)
        return self.embedding(pooled.flatten(1))

    @property
    def has_class_token(self) -> bool:
        """Whether the first token stands for the whole image."""
        names = (name.rpartition(".")[2] for name, _ in self.network.named_parameters())
        return any(name in ("cls_token", "class_embedding") for name in names)


def huggingface_folder(checkpoint: Path) -> Path | None:
    """Return the folder of transformers that a checkpoint is, or whose weights it is; None for others.

    Args:
        checkpoint: Any path.
    """
    if checkpoint.is_dir():
        return checkpoint if (checkpoint / CONFIG).is_file() else None
    folder = checkpoint.parent
    # Other files beside a configuration are not what would be read.
    if weight_files(folder) != [checkpoint] or not (folder / CONFIG).is_file():
        return None
    try:
        config = json.loads(read_regular(folder / CONFIG, DOCUMENT_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return folder if isinstance(config, dict) and {"architectures", "model_type"} <= set(config) else None


def from_huggingface(model: str) -> Source:
    """Load an image classifier or a bare network for images, with the transform of its image processor.

    Args:
        model: "hf:" and the name of a model on huggingface.co, or a folder that `save_pretrained` wrote.

    Raises:
        ModelError: transformers is not installed, the model cannot be loaded, is of another kind, brings its
            own code, is quantised or lacks weights, or its images are prepared in an unknown way.
    """
    require_transformers(model)
    folder, described = fetched(model, _EXPECTED)
    _check_described(described, model)
    load = _loader(described, model)
    from transformers import AutoConfig

    with explained(model, _EXPECTED), quietly():
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config.return_dict = True
    transform = _transform(folder, described, model)
    network, notes = load(config, folder, model)
    _check_size(network, transform, model)
    settings = {key: value for key, value in config.to_dict().items() if _counts(key)}
    return Source(
        name=model,
        title=model,
        weights=WITH_MODEL,
        network=network,
        transform=transform,
        identity={
            "model": "hf",
            "transformers": version("transformers"),
            "config": text_digest(json.dumps(settings, sort_keys=True, default=str)),
        },
        notes=notes,
        head=EMBEDDING if isinstance(network, Embedder) else None,
        headless=isinstance(network, Embedder),
    )


def _check_described(described: dict[str, Any], model: str) -> None:
    """Refuse what config.json says of code, of quantised weights, or of no network of transformers."""
    if "auto_map" in described:
        raise ModelError(
            f"{model} brings its own code (auto_map in its {CONFIG}), which is never run",
            expected="a network that transformers itself has",
            hint="if you trust the code, load the network in a factory: --model FILE.py:FACTORY",
        )
    if "quantization_config" in described:
        raise ModelError(
            f"{model} has quantised weights (quantization_config in its {CONFIG})",
            expected="weights of float32, float16 or bfloat16",
            hint="give the model that was quantised",
        )
    architectures = described.get("architectures")
    if "model_type" in described and isinstance(architectures, list) and len(architectures) == 1:
        return
    hint = f"save the network with save_pretrained: it writes model_type and architectures into {CONFIG}"
    if isinstance(described.get("architecture"), str):
        hint = f"it looks like timm's: --model timm:{described['architecture']} --checkpoint FILE"
    raise ModelError(
        f"{model}: its {CONFIG} does not say which network of transformers it is",
        expected=_NETWORKS,
        hint=hint,
    )


def _transform(folder: Path, described: dict[str, Any], model: str) -> Transform:
    """Return the transform of a model's image processor.

    Raises:
        ModelError: It has none, or an unknown one.
    """
    if not any((folder / name).is_file() for name in _PROCESSOR_FILES):
        base = described.get("_name_or_path")
        source = (
            base if isinstance(base, str) and base.count("/") == 1 and not Path(base).exists() else "NAME"
        )
        code = (
            "from transformers import AutoImageProcessor as Processor; "
            f"Processor.from_pretrained({source!r}).save_pretrained({str(folder)!r})"
        )
        raise ModelError(
            f"{model} has no image processor ({_PROCESSOR_FILES[0]}): how to prepare images is unknown",
            expected=f"{_PROCESSOR_FILES[0]} beside {CONFIG}",
            hint=f"save that of the model it was fine-tuned from: python -c {shlex.quote(code)}",
        )
    from transformers import AutoImageProcessor

    with explained(model, _EXPECTED), quietly():
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return processor_transform(processor, model)


def _loader(described: dict[str, Any], model: str) -> Loader:
    """Return what loads a network of the class that config.json names.

    Raises:
        ModelError: It is neither an image classifier nor a bare network for images.
    """
    from transformers.models.auto import modeling_auto as auto

    kind, architecture = str(described["model_type"]), str(described["architectures"][0])
    classifiers = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    names = classifiers.get(kind, ())
    if architecture in ((names,) if isinstance(names, str) else names):
        return _classifier
    if architecture == auto.MODEL_MAPPING_NAMES.get(kind):
        if kind in _TWO_HALVES:
            return _half
        if kind in (*classifiers, *_BARE_KINDS):
            return _bare
    raise ModelError(
        f"{model} is a {architecture} (of the kind {kind!r})",
        expected=_NETWORKS,
        hint="write a factory that returns the network and its transform: --model FILE.py:FACTORY"
        if kind in auto.MODEL_MAPPING_NAMES
        else "a newer transformers may know that kind: pip install -U transformers",
    )


def _classifier(config: Any, folder: Path, model: str) -> tuple[nn.Module, tuple[str, ...]]:
    import transformers

    kind = getattr(transformers, config.architectures[0])
    loaded = load_network(kind, config, folder, model, _EXPECTED)
    if loaded.missing and all(_HEAD.match(name) for name in loaded.missing):
        load = _half if config.model_type in _TWO_HALVES else _bare
        network, notes = load(config, folder, model)
        missing = listed(list(loaded.missing))
        return network, (f"{model} has no weights of a classifier ({missing}): it is used without", *notes)
    if loaded.missing:
        raise lacking(model, loaded.missing, f"all weights of a {kind.__name__}")
    return Classifier(loaded.network), (*_classes(config), *_notes(loaded))


def _half(config: Any, folder: Path, model: str) -> tuple[nn.Module, tuple[str, ...]]:
    network, notes = _bare(config.vision_config, folder, model)
    return network, (f"{model} embeds images and texts: its half for images is used", *notes)


def _bare(config: Any, folder: Path, model: str) -> tuple[nn.Module, tuple[str, ...]]:
    from transformers import MODEL_MAPPING

    kind = MODEL_MAPPING[type(config)]
    loaded = load_network(kind, config, folder, model, _EXPECTED)
    if others := tuple(name for name in loaded.missing if not name.startswith("pooler.")):
        raise lacking(model, others, f"all weights of a {kind.__name__}")
    embedder = Embedder(loaded.network)
    if not loaded.missing:
        return embedder, _notes(loaded)
    loaded.network.pooler = None
    what = "its class token" if embedder.has_class_token else "the mean over its tokens"
    return embedder, (f"{model} has no weights of a pooler: features are {what}", *_notes(loaded))


def _classes(config: Any) -> tuple[str, ...]:
    """Say which classes a classifier has, where its configuration says so."""
    labels = [str(label) for label in (config.id2label or {}).values()]
    if not labels:
        return ()
    names = "" if all(label.startswith("LABEL_") for label in labels) else f": {listed(labels)}"
    return (f"its classifier has {len(labels)} classes{names}",)


def _notes(loaded: Loaded) -> tuple[str, ...]:
    if not loaded.unused:
        return loaded.notes
    return (*loaded.notes, f"not used: {len(loaded.unused)} of the weights, such as {loaded.unused[0]}")


def _check_size(network: nn.Module, transform: Transform, model: str) -> None:
    """Refuse a network that fails on the images that its transform makes."""
    images = probe_images(transform, 1)
    try:
        with torch.no_grad():
            network.eval()(images)
    except Exception as error:
        raise ModelError(
            f"{model} fails on images of its own image processor, {tuple(images.shape)}: "
            f"{type(error).__name__}: {first_line(error)}",
            expected="an image processor that was saved with the network",
            hint=f"save it again into the model's folder, as {_PROCESSOR_FILES[0]}",
        ) from error


def _counts(key: str) -> bool:
    """Whether an entry of a configuration has a part in what the network gives."""
    return key not in _NAMES_ONLY and not key.startswith("_")
