"""CLIP's two networks, which embed images and texts in one space: `clip:NAME`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from divacli.backbones.checkpoint import check_finite, first_line
from divacli.backbones.fingerprint import text_digest, weights_digest
from divacli.backbones.source import Source
from divacli.backbones.transform import Transform
from divacli.errors import ModelError, listed
from divacli.files.path_or_url import is_special
from divacli.files.regular import DOCUMENT_BYTES, NO_REGULAR_FILE, read_regular

CLIP = "clip:"
EMBEDDING = "embedding"
"""The module whose input the features are: where a tower hands its embedding over."""

_EXPECTED = "a folder that save_pretrained wrote, or the name of a CLIP model on huggingface.co"
_FILES = ("*.json", "merges.txt")
_SAFE_WEIGHTS = ("model.safetensors", "model-*.safetensors")
_PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*.bin")


@dataclass
class TextEncoder:
    """The half of a CLIP model that embeds texts.

    Attributes:
        name: Short, for people: "clip:openai/clip-vit-base-patch32".
        context_length: The most tokens of a text that it takes, its first and last one included.
        n_features: Length d of an embedding.
        identity: Everything that the embeddings depend on beside the texts; its entry `space` is that of the
            images' features.
    """

    name: str
    context_length: int
    n_features: int
    identity: dict[str, str]
    _tower: Tower = field(repr=False)
    _tokenizer: Any = field(repr=False)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token numbers of each text, however many it has."""
        # Not verbose: it would warn of the first long text only.
        return self._tokenizer(list(texts), verbose=False)["input_ids"]

    def features(self, tokens: Tensor) -> Tensor:
        """Return the embeddings of texts of one length, without gradients.

        Args:
            tokens: (b, length) int64, on any device; length at most `context_length`.

        Returns:
            (b, d) float32, under autocast too.
        """
        with torch.no_grad():
            return self._tower(tokens.to(self._tower.projection.weight.device)).float()

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move the network to a device; returns itself."""
        self._tower.to(device)
        return self


class Tower(nn.Module):
    """One half of CLIP, from its input to the space that both halves share.

    Args:
        encoder: transformers' vision or text transformer.
        projection: From its pooled output to the shared space.
    """

    def __init__(self, encoder: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = projection
        self.embedding = nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return embeddings (b, d) of images (b, 3, h, w) or tokens (b, length)."""
        return self.embedding(self.projection(self.encoder(inputs).pooler_output))

    def extra_repr(self) -> str:
        """Name what the outputs depend on beside the weights."""
        config: Any = self.encoder.config
        end = getattr(config, "eos_token_id", None)
        return f"heads={config.num_attention_heads}, activation={config.hidden_act}, end={end}"


@dataclass(frozen=True)
class _Clip:
    """Both halves of one model.

    Attributes:
        images: From images to embeddings.
        texts: From tokens to embeddings.
        identity: What both kinds of embeddings depend on.
        folder: Where the model's files lie.
    """

    images: Tower
    texts: Tower
    identity: dict[str, str]
    folder: Path


def from_clip(model: str) -> Source:
    """Load the half of a CLIP model that embeds images.

    Args:
        model: "clip:" and the name of a model on huggingface.co, or a folder that `save_pretrained` wrote.

    Raises:
        ModelError: transformers is not installed, the model cannot be loaded or is no CLIP model, or its
            images are prepared in an unknown way.
    """
    clip = _load(model)
    from transformers import CLIPImageProcessor

    with _explained(model), _quietly():
        settings = CLIPImageProcessor.from_pretrained(clip.folder, local_files_only=True).to_dict()
    return Source(model, model, clip.images, _transform(settings, model), clip.identity, "published with it")


def load_text_encoder(model: str | None) -> TextEncoder:
    """Load the half of a CLIP model that embeds texts.

    Args:
        model: As for `from_clip`.

    Returns:
        The encoder on the CPU, in evaluation mode.

    Raises:
        ModelError: It is no `clip:NAME`, or as for `from_clip`.
    """
    if model is None or not model.startswith(CLIP):
        raise ModelError(
            "no network to embed texts with" if model is None else f"{model} embeds images only",
            expected=f"--model {CLIP}NAME",
            hint=f"--model {CLIP}openai/clip-vit-base-patch32 downloads one",
        )
    clip = _load(model)
    from transformers import AutoTokenizer

    with _explained(model), _quietly():
        tokenizer = AutoTokenizer.from_pretrained(
            clip.folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
        vocabulary = tokenizer.backend_tokenizer.to_str()
    config: Any = clip.texts.encoder.config
    # Where its files are missing, transformers makes one that knows no word.
    if len(tokenizer) != config.vocab_size:
        raise ModelError(
            f"{model}: its tokenizer has {len(tokenizer):,} tokens and its network {config.vocab_size:,}",
            expected="the tokenizer that the model was trained with",
            hint="save it into the model's folder with tokenizer.save_pretrained",
        )
    identity = {
        **clip.identity,
        "architecture": text_digest(clip.texts),
        "weights": weights_digest(clip.texts.state_dict()),
        "layer": EMBEDDING,
        "tokenizer": text_digest(vocabulary),
    }
    return TextEncoder(
        name=model,
        context_length=config.max_position_embeddings,
        n_features=clip.texts.projection.out_features,
        identity=identity,
        _tower=clip.texts,
        _tokenizer=tokenizer,
    )


def _load(model: str) -> _Clip:
    try:
        from transformers import CLIPModel
    except ImportError as error:
        raise ModelError(
            f"{model} needs transformers, which is not installed", hint="pip install 'divacli[clip]'"
        ) from error
    with _explained(model):
        folder = _folder(model.removeprefix(CLIP))
        if special := sorted(file.name for file in folder.iterdir() if is_special(str(file))):
            raise ValueError(f"{listed(special)}: {NO_REGULAR_FILE}")
        kind = json.loads(read_regular(folder / "config.json", DOCUMENT_BYTES)).get("model_type")
    if kind != "clip":
        raise ModelError(f"{model} is of the kind {kind!r} and not 'clip'", expected=_EXPECTED)
    with _explained(model), _quietly():
        # From safetensors where there are such, else by torch.load with weights_only=True; no code of theirs.
        network, report = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True, weights_only=True
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{model} lacks {len(missing)} of its weights: {listed(missing)}",
            expected="the weights of both halves of CLIP",
            hint="fetch or save the model again",
        )
    check_finite(network.state_dict(), folder)
    images = Tower(network.vision_model, network.visual_projection)
    texts = Tower(network.text_model, network.text_projection)
    # Neither the name nor the modules: a model in a folder is the one on the hub, if its weights are, and
    # releases of transformers differ in what they call its parts.
    space = text_digest([(half.extra_repr(), weights_digest(half.state_dict())) for half in (images, texts)])
    identity = {"model": "clip", "transformers": version("transformers"), "space": space}
    return _Clip(images.eval(), texts.eval(), identity, folder)


def _folder(name: str) -> Path:
    """Return the folder of a model's files, downloaded to the user's Hugging Face cache where need be."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    # All files at once: transformers would ask for each by itself and, without a connection, again and again
    # for half a minute.
    folder = Path(snapshot_download(name, allow_patterns=[*_FILES, *_SAFE_WEIGHTS]))
    if not any(folder.glob("*.safetensors")):
        snapshot_download(name, allow_patterns=[*_PICKLED_WEIGHTS])
    return folder


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turn whatever transformers raises into one message."""
    try:
        yield
    except Exception as error:
        raise ModelError(
            f"{model} cannot be loaded: {type(error).__name__}: {first_line(error)}",
            expected=_EXPECTED,
            hint=f"check the name and the connection, or fetch the model elsewhere and give {CLIP}FOLDER",
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the messages and bars of transformers back; what is wrong is said in an exception."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _transform(settings: dict[str, Any], model: str) -> Transform:
    """Return the preparation of images that an image processor's settings state.

    Resizing works on the PIL image and the crop is torchvision's, as when the first CLIP models were trained;
    transformers itself may round pixels, and margins of an odd number of them, otherwise.

    Raises:
        ModelError: They state something else than resize, centre crop, scale to [0, 1] and normalise.
    """
    size = settings["size"]
    if set(size) not in ({"shortest_edge"}, {"height", "width"}):
        raise _unknown_preparation(model, f"size {size}")
    if not settings["do_rescale"] or abs(settings["rescale_factor"] * 255 - 1) > 1e-6:
        raise _unknown_preparation(model, f"rescale_factor {settings['rescale_factor']}")
    steps: list[nn.Module] = []
    if settings["do_resize"]:
        target = [size["shortest_edge"]] if len(size) == 1 else [size["height"], size["width"]]
        filter = InterpolationMode[Image.Resampling(settings["resample"]).name]
        steps.append(v2.Resize(target, interpolation=filter))
    if settings["do_center_crop"]:
        steps.append(v2.CenterCrop([settings["crop_size"]["height"], settings["crop_size"]["width"]]))
    steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    if settings["do_normalize"]:
        steps.append(v2.Normalize(list(settings["image_mean"]), list(settings["image_std"])))
    return v2.Compose(steps)


def _unknown_preparation(model: str, setting: str) -> ModelError:
    return ModelError(
        f"{model}: its image processor has {setting}",
        expected="a size by shortest_edge, or by height and width, and values divided by 255",
        hint="use the image processor of a published CLIP model",
    )
