"""Folders that `save_pretrained` of transformers wrote, and what may be changed in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
from torch import Tensor

TOKENS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
"""A tiny transformer of 16 patches."""

Save = Callable[..., Path]


def set_json(file: Path, **values: object) -> None:
    """Change entries of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Change the tensors in a folder's only file of weights."""
    file = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file, metadata={"format": "pt"})


def without(folder: Path, *prefixes: str) -> None:
    """Leave tensors out whose names begin so."""
    change_weights(folder, lambda weights: {k: w for k, w in weights.items() if not k.startswith(prefixes)})
