"""CLIP's two networks, which embed images and texts in one space: `clip:NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from divacli.backbones.fingerprint import text_digest, weights_digest
from divacli.backbones.hub.image_processor import processor_transform
from divacli.backbones.hub.model_folder import (
    EMBEDDING,
    WITH_MODEL,
    explained,
    fetched,
    lacking,
    load_network,
    quietly,
    require_transformers,
)
from divacli.backbones.source import Source
from divacli.errors import ModelError

CLIP = "clip:"

_EXPECTED = "a folder that save_pretrained wrote, or the name of a CLIP model on huggingface.co"


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
        notes: What was changed in the weights.
    """

    images: Tower
    texts: Tower
    identity: dict[str, str]
    folder: Path
    notes: tuple[str, ...]


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

    with explained(model, _EXPECTED), quietly():
        processor = CLIPImageProcessor.from_pretrained(clip.folder, local_files_only=True)
        transform = processor_transform(processor, model)
    return Source(
        name=model,
        title=model,
        network=clip.images,
        transform=transform,
        identity=clip.identity,
        weights=WITH_MODEL,
        notes=clip.notes,
        head=EMBEDDING,
        headless=True,
    )


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

    with explained(model, _EXPECTED), quietly():
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
    require_transformers(model)
    folder, described = fetched(model, _EXPECTED)
    kind = described.get("model_type")
    if kind != "clip":
        raise ModelError(f"{model} is of the kind {kind!r} and not 'clip'", expected=_EXPECTED)
    from transformers import CLIPConfig, CLIPModel

    with explained(model, _EXPECTED), quietly():
        config = CLIPConfig.from_pretrained(folder, local_files_only=True)
    loaded = load_network(CLIPModel, config, folder, model, _EXPECTED)
    if loaded.missing:
        raise lacking(model, loaded.missing, "the weights of both halves of CLIP")
    network = loaded.network
    images = Tower(network.vision_model, network.visual_projection)
    texts = Tower(network.text_model, network.text_projection)
    # Neither the name nor the modules: a model in a folder is the one on the hub, if its weights are, and
    # releases of transformers differ in what they call its parts.
    space = text_digest([(half.extra_repr(), weights_digest(half.state_dict())) for half in (images, texts)])
    identity = {"model": "clip", "transformers": version("transformers"), "space": space}
    return _Clip(images.eval(), texts.eval(), identity, folder, loaded.notes)
